"""Adversarial images: the smallest looking changes that change a model neuron's response most."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, UInt8
from torch import Tensor

from pocketcortex.core import InputError
from pocketcortex.models import CompactModel, PairedStack
from pocketcortex.stimuli._paired import check_images, respond, tiles

Direction = Literal["raise", "lower"]
"""Whether the response is to become larger (the paper's adversarial+) or smaller (-)."""

PerturbationNorm = Literal["l2", "linf"]
"""Root mean square difference over pixels and channels, or the largest difference; in levels."""

ADVERSARIAL_BUDGET = 4.0
"""Root mean square difference in levels (of 255) where none is given: our choice."""

_STEP, _LAST_STEP = 1.0, 0.01  # a step's size, as a share of the ball's radius
_SHRINK, _LAST_SHRINK = 0.05, 0.001  # of the ball, at least, where the target is reached
_MOST_SHRINK = 0.5  # to this share of it
_HALVINGS = 14


@dataclass(frozen=True, eq=False)
class AdversarialImages:
    """Images changed little to change a response much, and what came of it.

    Attributes
    ----------
    base, images
        Before and after, whole levels 0..255; ``[k, i]`` is image i of model k.
    base_responses, responses
        Model k's responses to them, in the units the models were trained in.
    norm
        The norm that was bounded.
    """

    base: UInt8[np.ndarray, "n_models n 3 h w"]
    images: UInt8[np.ndarray, "n_models n 3 h w"]
    base_responses: Float32[np.ndarray, "n_models n"]
    responses: Float32[np.ndarray, "n_models n"]
    norm: PerturbationNorm

    @property
    def change(self) -> Float32[np.ndarray, "n_models n"]:
        """Response to the changed image minus response to the base image."""
        change: np.ndarray = self.responses - self.base_responses
        return change

    @property
    def rms(self) -> Float64[np.ndarray, "n_models n"]:
        """Root mean square difference from the base image in levels, of the images as they are."""
        return _distance(self.base, self.images, "l2")

    @property
    def linf(self) -> Float64[np.ndarray, "n_models n"]:
        """Largest difference from the base image in levels, of the images as they are."""
        return _distance(self.base, self.images, "linf")


@dataclass(frozen=True, eq=False)
class RandomPerturbations:
    """Random changes of the size of adversarial ones.

    Attributes
    ----------
    images
        Whole levels 0..255, for each draw as in the `AdversarialImages` they are a control for.
    responses
        Model k's responses to them.
    """

    images: UInt8[np.ndarray, "n_draws n_models n 3 h w"]
    responses: Float32[np.ndarray, "n_draws n_models n"]


def adversarial(
    models: Sequence[CompactModel],
    base: UInt8[np.ndarray, "n_models n 3 h w"],
    *,
    direction: Direction,
    budget: float = ADVERSARIAL_BUDGET,
    norm: PerturbationNorm = "l2",
    n_steps: int = 50,
    target_change: float | None = None,
    device: str | torch.device = "cpu",
    advance: Callable[[int], None] = lambda n: None,
) -> AdversarialImages:
    r"""Return images within a ball about each base image that change the response most.

    .. math:: \max_\delta \pm f(x + \delta), \quad \|\delta\| \le \text{budget}, \quad
        x + \delta \in \{0, \dots, 255\}^{3hw}

    Projected gradient: a step along the gradient (its sign, for ``"linf"``), then the exact
    projection onto ball and 0..255 together; steps shrink from the ball's radius to a hundredth
    of it. Every image tried is rounded to whole levels with its distance within the budget
    still, and the gradient is taken there, so budgets hold for the images returned, and the
    responses are those to the images returned. The best image met, the base image included, is
    kept.

    With `target_change`, the ball shrinks while the response has changed by that much and grows
    while it has not: of the images that reach the target the nearest is kept. Where none does
    within the budget, it is the image of largest change; see `AdversarialImages.change`.

    Where a model is flat about the base image (gradient 0), nothing is found, and the base image
    returned.

    Parameters
    ----------
    models
        Trained compact models, for one image size.
    base
        ``base[k]`` are the images to change for model k.
    direction
        ``"raise"`` or ``"lower"`` the response.
    budget
        Largest distance from the base image in levels, root mean square (``"l2"``) or of any one
        pixel and channel (``"linf"``); above 0, and 1 or more for ``"linf"``.
    norm
        Which distance is bounded.
    n_steps
        Gradients taken per image.
    target_change
        Size of the change in response to reach with the smallest change of the image; None to
        use the whole budget.
    device
        Where to compute.
    advance
        Called with the number of images just finished.

    Raises
    ------
    InputError
        If there is no model or image, shapes do not fit the models, or `budget`, `n_steps` or
        `target_change` is out of range.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Fig. 2f: gradient steps from a natural image until
    the pixel difference passes a threshold, which is not stated. Here the threshold is `budget`,
    and the search goes on along the ball's surface, where the published one stops. Madry et al.
    (2018), ICLR (projected gradient). Pintor et al. (2021), NeurIPS 34, Algorithm 1 (FMN), adapted
    to one scalar output: first-order estimate of the radius until the target is first reached,
    then growing and shrinking by a rate that decays along a cosine; shrinking in proportion to
    an excess of the change over the target is our addition.
    """
    _check_search(direction, budget, norm, n_steps, target_change)
    paired = PairedStack(models).to(device)
    check_images(base, len(models))
    limit = float(math.floor(budget)) if norm == "linf" else budget
    sign = 1.0 if direction == "raise" else -1.0
    found = []
    for tile in tiles(len(models), base.shape[1], device):
        search = _Search(paired, torch.from_numpy(base[:, tile]).to(device).float(), norm, sign)
        search.climb(n_steps, limit, target_change)
        found.append((search.best.cpu().numpy(), *(r.cpu().numpy() for r in search.responses())))
        advance(len(models) * (tile.stop - tile.start))
    images, before, after = (np.concatenate(parts, axis=1) for parts in zip(*found, strict=True))
    return AdversarialImages(base, images, before, after, norm)


def random_perturbation(
    models: Sequence[CompactModel],
    like: AdversarialImages,
    *,
    n_draws: int,
    rng: np.random.Generator,
    device: str | torch.device = "cpu",
) -> RandomPerturbations:
    """Return base images changed at random by as much as adversarial ones, and the responses.

    Independent noise for every pixel and channel: normal, scaled for each image until its root
    mean square difference, clipped and rounded to whole levels, is the largest not above that of
    the adversarial image (``"l2"``); or plus or minus its largest difference with equal chance,
    clipped to 0..255 (``"linf"``).

    Parameters
    ----------
    models
        The models `like` was made with.
    like
        What to match in base images and size of change.
    n_draws
        Random changes of each image.
    rng
        Source of the noise.
    device
        Where to compute.

    Raises
    ------
    InputError
        If there is no draw, or models and images differ in number or size.
    """
    if n_draws < 1:
        raise InputError(f"n_draws must be at least 1, got {n_draws}")
    paired = PairedStack(models).to(device)
    check_images(like.base, len(models))
    images = np.empty((n_draws, *like.base.shape), dtype=np.uint8)
    size = torch.from_numpy(like.rms if like.norm == "l2" else like.linf)
    for draw in range(n_draws):
        for tile in tiles(len(models), like.base.shape[1], "cpu"):
            before = torch.from_numpy(like.base[:, tile]).float()
            noise = torch.from_numpy(rng.standard_normal(before.shape, dtype=np.float32))
            if like.norm == "l2":
                changed = before + _scaled(before, noise, size[:, tile], whole=True)
            else:
                changed = before + size[:, tile, None, None, None] * noise.sign()
            images[draw, :, tile] = changed.clamp(0, 255).to(torch.uint8).numpy()
    responses = np.stack([respond(paired, own, device) for own in images])
    return RandomPerturbations(images, responses)


class _Search:
    """The search for one tile of images: where it is, and the best images met so far."""

    def __init__(
        self,
        paired: PairedStack,
        base: Float[Tensor, "n_models n 3 h w"],
        norm: PerturbationNorm,
        sign: float,
    ) -> None:
        self.paired, self.base, self.norm, self.sign = paired, base, norm, sign
        self.delta = torch.zeros_like(base)
        self.best = base.to(torch.uint8)
        self.best_size = torch.zeros(base.shape[:2], dtype=torch.float64, device=base.device)
        self.least = base[0, 0].numel() ** -0.5 if norm == "l2" else 1.0  # one pixel by one level
        self.start = self.best_value = sign * paired.responses(base).float()

    def responses(self) -> tuple[Tensor, Tensor]:
        """Return the responses to the base images and to the best ones."""
        return self.sign * self.start, self.sign * self.best_value

    def climb(self, n_steps: int, limit: float, target: float | None) -> None:
        """Take `n_steps` gradient steps within distance `limit` and keep what is best."""
        radius = torch.full_like(self.best_size, limit if target is None else 0.0)
        for step in range(n_steps + 1):
            whole = self.base + self._rounded(radius)
            if step == n_steps:
                self._keep(whole, self.sign * self.paired.responses(whole).float(), target)
                return
            responses, gradient = self.paired.gradients(whole)
            value, gradient = self.sign * responses.float(), self.sign * gradient.float()
            self._keep(whole, value, target)
            if target is not None:
                missing = self.start + target - value
                rate = _cosine(_SHRINK, _LAST_SHRINK, step / n_steps)
                radius = self._resized(radius, whole, missing, gradient, rate, target)
                radius = radius.clamp(min=self.least, max=limit)
            length = _cosine(_STEP, _LAST_STEP, step / n_steps) * radius
            self.delta = self.delta + _across(length) * _unit(gradient, self.norm)
            self._project(radius)

    def _project(self, radius: Tensor) -> None:
        """Move `delta` to the nearest change within ball and 0..255."""
        if self.norm == "linf":
            inside = torch.minimum(torch.maximum(self.delta, -_across(radius)), _across(radius))
            self.delta = (self.base + inside).clamp(0, 255) - self.base
        else:
            self.delta = _scaled(self.base, self.delta, radius, whole=False)

    def _rounded(self, radius: Tensor) -> Tensor:
        """Return `delta` in whole levels, no larger than it is itself."""
        if self.norm == "linf":
            return self.delta.round()
        size = torch.minimum(_size(self.delta, "l2"), radius)
        return _scaled(self.base, self.delta, size, whole=True)

    def _keep(self, whole: Tensor, value: Tensor, target: float | None) -> None:
        """Remember images that beat the best so far."""
        size = _size(whole - self.base, self.norm)
        better = value > self.best_value
        if target is not None:
            wanted = self.start + target
            reached, was_reached = value >= wanted, self.best_value >= wanted
            nearer = (size < self.best_size) | ((size == self.best_size) & better)
            better = torch.where(was_reached, reached & nearer, better)
        self.best_value = torch.where(better, value, self.best_value)
        self.best_size = torch.where(better, size, self.best_size)
        self.best = torch.where(_across(better), whole.to(torch.uint8), self.best)

    def _resized(
        self,
        radius: Tensor,
        whole: Tensor,
        missing: Tensor,
        gradient: Tensor,
        rate: float,
        target: float,
    ) -> Tensor:
        """Return the next radius: less where the target is reached, more where it is not.

        Until it is reached for the first time: a little more than it was, and than the distance
        at which the target would be reached were the model linear from here. Where the change is
        more than wanted: as much less as it would take, were it proportional to the distance.
        """
        size = _size(whole - self.base, self.norm)
        slope = _slope(gradient, self.norm)
        guess = torch.where(slope > 0, size + missing / slope, torch.inf)
        more = torch.minimum(radius * (1 + rate), self.best_size)
        ever = self.best_value >= self.start + target
        more = torch.where(ever, more, torch.maximum(guess, radius) * (1 + rate))
        share = (target / (target - missing)).clamp(min=_MOST_SHRINK, max=1 - rate)
        less = torch.minimum(radius, size) * share
        if self.norm == "linf":  # in whole levels
            more, less = more.ceil(), less.floor()
        return torch.where(missing <= 0, less, more)


def _scaled(
    base: Float[Tensor, "n_models n 3 h w"],
    delta: Float[Tensor, "n_models n 3 h w"],
    size: Float[Tensor, "n_models n"],
    *,
    whole: bool,
) -> Float[Tensor, "n_models n 3 h w"]:
    """Return the largest multiple of `delta` of a root mean square of at most `size`.

    The multiple is clipped so that the image stays within 0..255 and, if `whole`, rounded; its
    size then still grows with the factor, which is found by halving. Without rounding the factor
    is at most 1, and this is the Euclidean projection onto ball and box: their normal cones add
    multiples of `delta` and of the clipped pixels alone.
    """
    rms = _size(delta, "l2").clamp(min=1e-12)
    low = torch.zeros_like(rms)
    high = (size + 0.5) / rms if whole else torch.ones_like(rms)

    def at(factor: Tensor) -> Tensor:
        changed = base + _across(factor) * delta
        changed = changed.clamp_(0, 255)
        return (changed.round_() if whole else changed) - base

    best = at(high)
    fits = _size(best, "l2") <= size
    if bool(fits.all()):
        return best
    low = torch.where(fits, high, low)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        fits = _size(at(middle), "l2") <= size
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    return at(low)


def _size(delta: Float[Tensor, "n_models n 3 h w"], norm: str) -> Float[Tensor, "n_models n"]:
    """Return the norm of each change, in levels, as float64."""
    if norm == "linf":
        return delta.abs().amax((2, 3, 4)).double()
    return delta.square().sum((2, 3, 4), dtype=torch.float64).div(delta[0, 0].numel()).sqrt()


def _slope(gradient: Float[Tensor, "n_models n 3 h w"], norm: str) -> Float[Tensor, "n_models n"]:
    """Return by how much a linear response changes at most for a change of norm 1."""
    if norm == "linf":
        return gradient.abs().sum((2, 3, 4), dtype=torch.float64)
    return _size(gradient, "l2") * gradient[0, 0].numel()


def _unit(
    gradient: Float[Tensor, "n_models n 3 h w"], norm: str
) -> Float[Tensor, "n_models n 3 h w"]:
    """Return the change of norm 1 along the gradient that changes a linear response most."""
    if norm == "linf":
        return gradient.sign()
    return gradient / _across(_size(gradient, "l2").clamp(min=1e-30))


def _across(values: Tensor) -> Tensor:
    """Return one value an image, ready to meet pixels; float32 if it was float64."""
    values = values.float() if values.is_floating_point() else values
    return values[:, :, None, None, None]


def _cosine(first: float, last: float, share: float) -> float:
    """Return what has come of a value that falls from `first` to `last` along a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


def _distance(
    base: UInt8[np.ndarray, "n_models n 3 h w"],
    images: UInt8[np.ndarray, "n_models n 3 h w"],
    norm: PerturbationNorm,
) -> Float64[np.ndarray, "n_models n"]:
    """Return how far images are from their bases, a model at a time to bound memory."""
    sizes = [
        _size(torch.from_numpy(b[None]).float() - torch.from_numpy(i[None]).float(), norm)
        for b, i in zip(base, images, strict=True)
    ]
    return torch.cat(sizes).numpy()


def _check_search(
    direction: str, budget: float, norm: str, n_steps: int, target_change: float | None
) -> None:
    """Refuse a search that makes no sense, and say which."""
    if direction not in get_args(Direction):
        raise InputError(f"direction must be 'raise' or 'lower', got {direction!r}")
    if norm not in get_args(PerturbationNorm):
        raise InputError(f"norm must be 'l2' or 'linf', got {norm!r}")
    least = 1.0 if norm == "linf" else 0.0
    if not (math.isfinite(budget) and budget > 0 and budget >= least):
        raise InputError(
            f"budget must be above 0 levels, and 1 or more for 'linf', as images have whole "
            f"levels; got {budget} for {norm!r}"
        )
    if n_steps < 1:
        raise InputError(f"n_steps must be at least 1, got {n_steps}")
    if target_change is not None and not (math.isfinite(target_change) and target_change > 0):
        raise InputError(
            f"target_change is a size, above 0 whatever the direction; got {target_change}"
        )
