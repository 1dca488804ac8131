"""Images that drive model neurons: gradient ascent from noise, all models and starts at once."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.ndimage
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from pocketcortex.core import InputError
from pocketcortex.models import CompactModel, PairedStack
from pocketcortex.stimuli.natural import NaturalConstraint

STEP = 10.0
"""Pixel levels a step of a gradient of unit root mean square (published)."""
SMOOTH_EVERY = 50
_NOISE = (128.0, 178.0)
_RMS_OFFSET = 1e-5
_IMAGES_AT_ONCE = 256


@dataclass(frozen=True)
class Synthesized:
    """Each model's images, one a start, the strongest (or weakest, if minimized) first.

    Attributes
    ----------
    images
        Whole levels 0..255.
    responses
        Each model's response to its own images as they are here.
    climbed
        False where the response never had a gradient, so that nothing was optimised: the image is
        the best of the noise tried.
    """

    images: UInt8[np.ndarray, "n_models n_starts 3 height width"]
    responses: Float[np.ndarray, "n_models n_starts"]
    climbed: Bool[np.ndarray, "n_models n_starts"]


def synthesize(
    models: Sequence[CompactModel],
    *,
    n_starts: int,
    n_steps: int,
    seed: int,
    minimize: bool = False,
    grayscale: bool = False,
    constraint: NaturalConstraint | None = None,
    starts: UInt8[np.ndarray, "n_models n_more 3 height width"] | None = None,
    device: str | torch.device = "cpu",
    advance: Callable[[int], None] = lambda n: None,
) -> Synthesized:
    """Return images that drive (or silence) each model neuron most, and the responses to them.

    Gradient ascent from colour noise by the published recipe: the gradient is divided by its root
    mean square and smoothed (sigma 1 pixel), ten levels of it are added, the image is clipped to
    0..255, and every 50 steps it is smoothed itself. Each start keeps the best image it met, the
    start included, rounded to whole levels at the end; the response returned is the one to the
    rounded image.

    Where a start has no gradient at all (its rectified units are all silent, which small models
    are on noise of low contrast), it is drawn anew at each step until it has one: Gaussian noise
    blurred by 1, 2, 4 or 8 pixels, with a standard deviation of 64 levels around a mean of 64 to
    192. The published recipe stays at the noise.

    A start depends on the seed, its model's place and its own number: more models or starts leave
    it as it was.

    Parameters
    ----------
    models
        Trained compact models for the same image size; they stay as they are.
    n_starts
        Noise images that each model starts from.
    n_steps
        Steps of each, one forward and one backward pass a step.
    seed
        Seed of the noise.
    minimize
        Descend instead.
    grayscale
        Keep red, green and blue equal all along.
    constraint
        Keep mean, contrast and spectrum as of photographs. Its shaping takes the place of the
        smoothing.
    starts
        More images to start from, for each model its own, such as the strongest of a bank. In
        grayscale their channels are averaged.
    device
        Where to compute.
    advance
        Called with the number of models just done.

    Returns
    -------
    Synthesized
        ``n_starts + n_more`` images a model.

    Raises
    ------
    InputError
        If there is no model, start or step, the models take images of different sizes or means,
        or `starts` do not fit them.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Methods, "Synthesizing maximizing images". Many
    starts, their renewal, rounding and the constraint are our own choice.
    """
    n_more = 0 if starts is None else starts.shape[1]
    if n_starts < 0 or n_starts + n_more < 1 or n_steps < 1:
        raise InputError(f"need at least one start and one step, got {n_starts} and {n_steps}")
    if not models:
        raise InputError("need at least one model to synthesize images for, got none")
    size = models[0].image_size
    if starts is not None and starts.shape != (len(models), n_more, 3, *size):
        raise InputError(
            f"starts must be ({len(models)} models, n, 3, {size[0]}, {size[1]}), got {starts.shape}"
        )
    recipe = _Recipe(n_steps, -1.0 if minimize else 1.0, grayscale, constraint)
    n = n_starts + n_more
    images = np.empty((len(models), n, 3, *size), np.uint8)
    responses, climbed = np.empty((len(models), n)), np.empty((len(models), n), np.bool_)
    at_once = max(1, _IMAGES_AT_ONCE // n)
    for first in range(0, len(models), at_once):
        group = range(first, min(first + at_once, len(models)))
        stack = PairedStack([models[k] for k in group]).to(device)
        for start in range(0, n, _IMAGES_AT_ONCE):
            part = range(start, min(start + _IMAGES_AT_ONCE, n))
            rngs = [[np.random.default_rng([seed, k, j]) for j in part] for k in group]
            noise = np.array([[_noise(rng, size) for rng in row] for row in rngs])
            x = recipe.begun(torch.from_numpy(noise).to(device))
            for j in part:
                if starts is not None and j >= n_starts:
                    given = torch.from_numpy(starts[group.start : group.stop, j - n_starts])
                    x[:, j - start] = recipe.allowed(given.to(x))
            here = (slice(group.start, group.stop), slice(part.start, part.stop))
            images[here], responses[here], climbed[here] = _climb(stack, recipe, x, rngs)
        advance(len(group))
    order = np.argsort(-recipe.sign * responses, axis=1, kind="stable")
    return Synthesized(
        np.take_along_axis(images, order[:, :, None, None, None], axis=1),
        np.take_along_axis(responses, order, axis=1),
        np.take_along_axis(climbed, order, axis=1),
    )


@dataclass(frozen=True)
class _Recipe:
    """How images begin and move; all of them are ``(n_models, n_starts, 3, h, w)``."""

    n_steps: int
    sign: float
    grayscale: bool
    constraint: NaturalConstraint | None

    def begun(self, noise: Tensor) -> Tensor:
        """Return the images that noise gives to start from."""
        if self.constraint is not None:
            noise = self.constraint.shaped(noise - noise.mean((-2, -1), keepdim=True))
        return self.allowed(noise)

    def allowed(self, x: Tensor) -> Tensor:
        """Return images as near as grayscale and the constraint let them be."""
        if self.grayscale:
            x = x.mean(2, keepdim=True).expand_as(x)
        return x.clamp(0, 255) if self.constraint is None else self.constraint.projected(x)

    def moved(self, x: Tensor, gradients: Tensor) -> Tensor:
        """Return images one step on."""
        if self.grayscale:
            gradients = gradients.mean(2, keepdim=True).expand_as(gradients)
        if self.constraint is not None:
            gradients = self.constraint.shaped(gradients)
        g = gradients / (gradients.square().mean((2, 3, 4), keepdim=True).sqrt() + _RMS_OFFSET)
        if self.constraint is None:
            g = _smoothed(g)
        return self.allowed(x + self.sign * STEP * g)

    def smooths_after(self, step: int) -> bool:
        """Say whether the images themselves are smoothed after this step."""
        return self.constraint is None and step > 0 and step % SMOOTH_EVERY == 0


def _climb(
    stack: PairedStack, recipe: _Recipe, x: Tensor, rngs: Sequence[Sequence[np.random.Generator]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the best image of each start, the response to it and whether it had a gradient.

    The forward pass of a step serves for the evaluation of the image that the last step led to.
    """
    best, best_response = x.clone(), torch.full(x.shape[:2], -torch.inf, device=x.device)
    climbed = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)

    def keep(responses: Tensor) -> None:
        better = recipe.sign * responses > best_response
        best_response[better] = (recipe.sign * responses[better]).to(best_response)
        best[better] = x[better]

    for step in range(recipe.n_steps):
        responses, gradients = stack.gradients(x)
        keep(responses)
        flat = (gradients == 0).flatten(2).all(2)
        climbed |= ~flat
        x = recipe.moved(x, gradients.to(x))
        for k, j in (flat & ~climbed).nonzero().tolist():
            drawn = torch.from_numpy(_strong_noise(rngs[k][j], stack.image_size))
            x[k, j] = recipe.allowed(drawn.to(x)[None, None])[0, 0]
        if recipe.smooths_after(step):
            keep(stack.responses(x))
            x = _smoothed(x)
    keep(stack.responses(x))
    whole = best.round().to(torch.uint8)
    found = stack.responses(whole).double()
    return whole.cpu().numpy(), found.cpu().numpy(), climbed.cpu().numpy()


def _noise(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Return the published noise: uniform colour noise of low contrast."""
    return rng.uniform(*_NOISE, (3, *size)).astype(np.float32)


def _strong_noise(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Return blurred colour noise of high contrast around a random level."""
    blur, level = 2.0 ** rng.integers(0, 4), rng.uniform(64, 192)
    noise = scipy.ndimage.gaussian_filter(rng.standard_normal((3, *size)), blur, axes=(1, 2))
    noise = level + 64 * noise / max(float(noise.std()), 1e-6)
    strong: np.ndarray = noise.clip(0, 255).astype(np.float32)
    return strong


def _smoothed(x: Tensor) -> Tensor:
    """Return images smoothed as ``scipy.ndimage.gaussian_filter(sigma=1, mode="reflect")`` does."""
    rows, columns = (torch.from_numpy(_smoothing(length)).to(x) for length in x.shape[-2:])
    return rows @ (x @ columns.T)


@functools.cache
def _smoothing(length: int) -> np.ndarray:
    """Return the matrix that smooths a line of pixels, borders and all."""
    matrix: np.ndarray = scipy.ndimage.gaussian_filter1d(np.eye(length), 1.0, axis=0)
    return matrix
