"""Images that drive a model neuron: gradient ascent from noise, and search in a bank."""

from collections.abc import Callable, Sequence

import numpy as np
import scipy.ndimage
import torch
from jaxtyping import Float, Int, UInt8

from pocketcortex.core import InputError
from pocketcortex.models import CompactModel

STEP = 10.0
"""Pixel levels a step of a gradient of unit root mean square (published)."""
SMOOTH_EVERY = 50
_NOISE = (128.0, 178.0)


def synthesize(
    model: CompactModel,
    *,
    n_starts: int,
    n_steps: int,
    rng: np.random.Generator,
    minimize: bool = False,
) -> tuple[UInt8[np.ndarray, "3 height width"], float]:
    """Return an image that drives (or silences) a model neuron most, and its response.

    Gradient ascent from colour noise by the published recipe: the gradient is divided by its root
    mean square and smoothed (sigma 1 pixel), ten levels of it are added, the image is clipped to
    0..255, and every 50 steps it is smoothed itself. All starts climb together; the best image met
    by any of them, starts included, rounded to whole levels, is returned with the response to it
    as rounded.

    Parameters
    ----------
    model
        A trained compact model.
    n_starts
        Noise images to start from.
    n_steps
        Steps of each.
    rng
        Source of the noise.
    minimize
        Descend instead.

    Raises
    ------
    InputError
        If there is no start or step.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Methods, "Synthesizing maximizing images".
    """
    if n_starts < 1 or n_steps < 1:
        raise InputError(f"need at least one start and one step, got {n_starts} and {n_steps}")
    device = model.readout.device
    sign = -1.0 if minimize else 1.0
    shape = (n_starts, 3, *model.image_size)
    images: np.ndarray = rng.uniform(*_NOISE, shape).astype(np.float32)
    best: np.ndarray = images[0].round().astype(np.uint8)
    best_response = -np.inf
    model.eval()
    for step in range(n_steps + 1):
        whole = images.round().astype(np.uint8)
        with torch.inference_mode():
            responses = sign * model(torch.from_numpy(whole).to(device)).cpu().numpy()
        k = int(responses.argmax())
        if responses[k] > best_response:
            best, best_response = whole[k], float(responses[k])
        if step == n_steps:
            break
        x = torch.from_numpy(images).to(device).requires_grad_()
        (gradient,) = torch.autograd.grad(model(x).sum(), x)
        g = gradient.cpu().numpy()
        g = g / (np.sqrt((g**2).mean(axis=(1, 2, 3), keepdims=True)) + 1e-5)
        images = images + sign * STEP * _smoothed(g)
        if step and step % SMOOTH_EVERY == 0:
            images = _smoothed(images)
        images = images.clip(0, 255).astype(np.float32)
    return best, sign * best_response


def strongest(
    responses: Float[np.ndarray, "n_stimuli n_neurons"], k: int
) -> Int[np.ndarray, "k n_neurons"]:
    """Return for each neuron the indices of the `k` images it answers most, strongest first."""
    if not 1 <= k <= len(responses):
        raise InputError(f"k must be within 1 and the {len(responses)} images, got {k}")
    return np.argsort(-responses, axis=0, kind="stable")[:k]


def synthesize_all(
    models: Sequence[CompactModel],
    *,
    n_starts: int,
    n_steps: int,
    seed: int,
    advance: Callable[[int], None] = lambda n: None,
) -> UInt8[np.ndarray, "n_models 3 height width"]:
    """Return `synthesize`'s image for each model, each from its own seeded noise."""
    images = []
    for index, model in enumerate(models):
        rng = np.random.default_rng([seed, index])
        images.append(synthesize(model, n_starts=n_starts, n_steps=n_steps, rng=rng)[0])
        advance(1)
    return np.stack(images)


def _smoothed(images: np.ndarray) -> np.ndarray:
    return scipy.ndimage.gaussian_filter(images, 1.0, axes=(2, 3), mode="reflect")
