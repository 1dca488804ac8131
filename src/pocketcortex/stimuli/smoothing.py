"""Saliency by smoothing patches, and images smoothed where it lowers a response most (smooth-)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.ndimage
import scipy.signal
import torch
from jaxtyping import Bool, Float32, Float64, Int, UInt8

from pocketcortex.core import InputError
from pocketcortex.models import CompactModel, PairedStack
from pocketcortex.stimuli._paired import check_images, respond, tiles

_SIDE, _PATCH, _SIGMA, _N_PATCHES = 112, 12, 4.0, 25


@dataclass(frozen=True, eq=False)
class SmoothingSaliency:
    """What smoothing each patch of an image does to a response.

    Attributes
    ----------
    maps
        Response with the patch smoothed minus response without; ``[k, i]`` is image i of model
        k. Negative where the model is driven by what the patch holds.
    positions
        Top and left pixel of each patch.
    responses
        Responses to the images as they are.
    patch
        Side of a patch in pixels.
    """

    maps: Float32[np.ndarray, "n_models n rows columns"]
    positions: Int[np.ndarray, "rows columns 2"]
    responses: Float32[np.ndarray, "n_models n"]
    patch: int


@dataclass(frozen=True, eq=False)
class SmoothedImages:
    """Images with some patches smoothed, one after the other; random ones have an axis of draws.

    Attributes
    ----------
    images
        After the last patch, whole levels 0..255.
    masks
        Weight of the smoothed image in them, 0..1.
    patches
        Top and left pixel of each patch, in the order in which they were smoothed.
    responses
        Before any patch and after each.
    """

    images: UInt8[np.ndarray, "*draws n_models n 3 h w"]
    masks: Float32[np.ndarray, "*draws n_models n h w"]
    patches: Int[np.ndarray, "*draws n_models n n_patches 2"]
    responses: Float32[np.ndarray, "*draws n_models n n_patches_and_1"]


def smoothing_saliency(
    models: Sequence[CompactModel],
    images: UInt8[np.ndarray, "n_models n 3 h w"],
    *,
    patch: int | None = None,
    stride: int | None = None,
    sigma: float | None = None,
    device: str | torch.device = "cpu",
    advance: Callable[[int], None] = lambda n: None,
) -> SmoothingSaliency:
    r"""Return how each model's response changes when one patch of an image is smoothed.

    .. math:: x'_p = (1 - w_p) \, x + w_p \, (G_\sigma * x)

    with :math:`w_p` a soft-edged window over patch p: the outer product of two Tukey windows,
    1 in the middle half of the patch and falling to 0 along a cosine. :math:`x'_p` is rounded to
    whole levels.

    Parameters
    ----------
    models
        Trained compact models, for one image size.
    images
        ``images[k]`` are model k's.
    patch
        Side of a patch in pixels; None for 12 in images of 112 and in proportion in others.
    stride
        Pixels from one patch to the next; None for half a patch. The grid of patches is centred
        in the image.
    sigma
        Standard deviation of the Gaussian blur in pixels; None for 4 in images of 112 and in
        proportion in others. Beyond the border the image is mirrored, its edge pixels repeated.
    device
        Where to compute.
    advance
        Called with the number of images of all models just done.

    Raises
    ------
    InputError
        If there is no model or image, shapes do not fit the models, a patch does not fit into an
        image, or `patch`, `stride` or `sigma` is not positive.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Fig. 2 and captions: a small patch is smoothed and
    the change in response shown. Size, spacing, edge and blur of the patches are not stated; those
    here are our choice.
    """
    paired = PairedStack(models).to(device)
    check_images(images, len(models))
    grid = _grid(patch, stride, sigma, images.shape[-2:])
    before = respond(paired, images, device)
    maps = np.empty((*images.shape[:2], *grid.shape), dtype=np.float32)
    for i in range(images.shape[1]):
        own = images[:, i : i + 1]
        asked = np.ones((len(models), 1, len(grid.corners)), dtype=bool)
        after = _after_each(paired, own, _contents(own, grid), asked, grid, device)
        maps[:, i] = after.reshape(-1, *grid.shape) - before[:, i, None, None]
        advance(len(models))
    return SmoothingSaliency(maps, grid.corners.reshape(*grid.shape, 2), before, grid.patch)


def salient_patches(
    saliency: SmoothingSaliency, *, n: int = _N_PATCHES
) -> Int[np.ndarray, "n_models n_images n 2"]:
    """Return the patches of largest absolute change that do not overlap, largest first.

    Taken one by one: the largest of those that overlap none taken before.

    Parameters
    ----------
    saliency
        What `smoothing_saliency` returned.
    n
        Number of patches an image; 25 in the paper.

    Returns
    -------
    Int[np.ndarray, "n_models n_images n 2"]
        Top and left pixel of each.

    Raises
    ------
    InputError
        If `n` is below 1 or so large that there might be no room for as many.
    """
    corners = saliency.positions.reshape(-1, 2)
    overlaps = _overlaps(corners, saliency.patch)
    _check_room(n, overlaps)
    size = np.abs(saliency.maps).reshape(*saliency.maps.shape[:2], -1).astype(np.float64)
    taken = np.empty((*size.shape[:2], n), dtype=np.int64)
    for step in range(n):
        taken[..., step] = size.argmax(axis=-1)
        size[overlaps[taken[..., step]]] = -np.inf
    return corners[taken]


def smooth_minus(
    models: Sequence[CompactModel],
    images: UInt8[np.ndarray, "n_models n 3 h w"],
    *,
    n_patches: int = _N_PATCHES,
    patch: int | None = None,
    stride: int | None = None,
    sigma: float | None = None,
    device: str | torch.device = "cpu",
    advance: Callable[[int], None] = lambda n: None,
) -> SmoothedImages:
    """Return images with the patches smoothed that, one after the other, lower a response most.

    Greedy: of the patches that overlap none smoothed before, that one is smoothed next after
    which the response is lowest, given those smoothed before; every step asks the model about
    all of them. The number of patches is fixed, also where a patch more raises the response.

    Parameters
    ----------
    models, images, patch, stride, sigma, device
        As for `smoothing_saliency`.
    n_patches
        Patches to smooth: ``n_patches * patch**2`` pixels.
    advance
        Called with the number of patches of all models and images just smoothed.

    Raises
    ------
    InputError
        As for `smoothing_saliency`; or if `n_patches` is below 1, or so large that there might be
        no room for as many without overlap.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Extended Data Fig. 4: smooth- images are found
    greedily with patches that do not overlap. Their number and size are our choice.
    """
    paired = PairedStack(models).to(device)
    check_images(images, len(models))
    grid = _grid(patch, stride, sigma, images.shape[-2:])
    _check_room(n_patches, grid.overlaps)
    contents = _contents(images, grid)
    current = images.copy()
    free = np.ones(contents.shape[:3], dtype=bool)
    chosen = np.empty((*free.shape[:2], n_patches), dtype=np.int64)
    responses = [respond(paired, images, device)]
    for step in range(n_patches):
        after = _after_each(paired, current, contents, free, grid, device)
        chosen[..., step] = after.argmin(axis=-1)
        responses.append(after.min(axis=-1))
        free &= ~grid.overlaps[chosen[..., step]]
        _smooth(current, contents, chosen[..., step], grid)
        advance(chosen[..., step].size)
    return SmoothedImages(
        current, _masks(chosen, grid), grid.corners[chosen], np.stack(responses, axis=-1)
    )


def randomly_smoothed(
    models: Sequence[CompactModel],
    images: UInt8[np.ndarray, "n_models n 3 h w"],
    *,
    n_draws: int,
    rng: np.random.Generator,
    n_patches: int = _N_PATCHES,
    patch: int | None = None,
    stride: int | None = None,
    sigma: float | None = None,
    device: str | torch.device = "cpu",
) -> SmoothedImages:
    """Return images with as many patches smoothed as in `smooth_minus`, but random ones.

    The control for `smooth_minus`: the same grid, number and area, each patch drawn from those
    that overlap none drawn before.

    Parameters
    ----------
    models, images, n_patches, patch, stride, sigma, device
        As for `smooth_minus`.
    n_draws
        Sets of random patches of each image.
    rng
        Source of the patches.

    Returns
    -------
    SmoothedImages
        With an axis of draws in front of every array.

    Raises
    ------
    InputError
        As for `smooth_minus`, or if there is no draw.
    """
    if n_draws < 1:
        raise InputError(f"n_draws must be at least 1, got {n_draws}")
    paired = PairedStack(models).to(device)
    check_images(images, len(models))
    grid = _grid(patch, stride, sigma, images.shape[-2:])
    _check_room(n_patches, grid.overlaps)
    contents = _contents(images, grid)
    before = respond(paired, images, device)
    shape = (n_draws, *images.shape[:2], n_patches)
    chosen = np.empty(shape, dtype=np.int64)
    responses = np.empty((*shape[:-1], n_patches + 1), dtype=np.float32)
    made = np.repeat(images[None], n_draws, axis=0)
    for draw, current in enumerate(made):
        rank = rng.random(contents.shape[:3])
        responses[draw, ..., 0] = before
        for step in range(n_patches):
            chosen[draw, ..., step] = rank.argmin(axis=-1)
            rank[grid.overlaps[chosen[draw, ..., step]]] = np.inf
            _smooth(current, contents, chosen[draw, ..., step], grid)
            responses[draw, ..., step + 1] = respond(paired, current, device)
    return SmoothedImages(made, _masks(chosen, grid), grid.corners[chosen], responses)


@dataclass(frozen=True)
class _Grid:
    """Where patches lie on images of one size, and how they are smoothed."""

    patch: int
    stride: int
    sigma: float
    image_size: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.stride < 1 or not (math.isfinite(self.sigma) and self.sigma > 0):
            raise InputError(
                f"stride and sigma must be above 0 pixels, got {self.stride} and {self.sigma}"
            )
        if not 1 <= self.patch <= min(self.image_size):
            raise InputError(
                f"patch must be 1 pixel or more and fit into images of {self.image_size[0]} x "
                f"{self.image_size[1]}, got {self.patch}"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        rows, columns = ((size - self.patch) // self.stride + 1 for size in self.image_size)
        return rows, columns

    @cached_property
    def corners(self) -> Int[np.ndarray, "n_positions 2"]:
        """Top and left pixel of each patch, row by row."""
        tops, lefts = (
            (size - self.patch) % self.stride // 2 + self.stride * np.arange(n)
            for size, n in zip(self.image_size, self.shape, strict=True)
        )
        return np.stack(np.meshgrid(tops, lefts, indexing="ij"), axis=-1).reshape(-1, 2)

    @cached_property
    def overlaps(self) -> Bool[np.ndarray, "n_positions n_positions"]:
        """Which patches have pixels in common; every patch with itself."""
        return _overlaps(self.corners, self.patch)

    @cached_property
    def window(self) -> Float64[np.ndarray, "patch patch"]:
        """Weight of the smoothed image within a patch."""
        edge: np.ndarray = scipy.signal.windows.tukey(self.patch + 2, 0.5)[1:-1]
        window: np.ndarray = edge[:, None] * edge
        return window


def _grid(
    patch: int | None, stride: int | None, sigma: float | None, image_size: tuple[int, ...]
) -> _Grid:
    """Return the grid, what is None in proportion to the images."""
    scale = min(image_size) / _SIDE
    patch = 2 * max(1, round(_PATCH * scale / 2)) if patch is None else patch
    stride = max(1, patch // 2) if stride is None else stride
    return _Grid(patch, stride, _SIGMA * scale if sigma is None else sigma, image_size)


def _overlaps(
    corners: Int[np.ndarray, "n_positions 2"], patch: int
) -> Bool[np.ndarray, "n_positions n_positions"]:
    overlap: np.ndarray = (np.abs(corners[:, None] - corners) < patch).all(axis=-1)
    return overlap


def _check_room(n_patches: int, overlaps: Bool[np.ndarray, "n_positions n_positions"]) -> None:
    """Refuse more patches than fit without overlap however badly the first ones lie."""
    sure = math.ceil(len(overlaps) / int(overlaps.sum(axis=1).max()))
    if not 1 <= n_patches <= sure:
        raise InputError(
            f"the number of patches must be within 1..{sure}, as many as always fit without "
            f"overlap; got {n_patches}. Smaller patches leave room for more"
        )


def _contents(
    images: UInt8[np.ndarray, "n_models n 3 h w"], grid: _Grid
) -> UInt8[np.ndarray, "n_models n n_positions 3 patch patch"]:
    """Return what each patch of each image looks like once it is smoothed.

    Patches that do not overlap leave each other as they are, so this holds at any time.
    """
    side = grid.patch
    tops, lefts = grid.corners.T
    contents = np.empty((*images.shape[:2], len(tops), 3, side, side), dtype=np.uint8)
    for image, own in zip(
        images.reshape(-1, *images.shape[2:]),
        contents.reshape(-1, *contents.shape[2:]),
        strict=True,
    ):
        sharp = image.astype(np.float64)
        blurred = scipy.ndimage.gaussian_filter(sharp, grid.sigma, axes=(1, 2))
        change = np.lib.stride_tricks.sliding_window_view(blurred - sharp, (side, side), (1, 2))
        before = np.lib.stride_tricks.sliding_window_view(sharp, (side, side), (1, 2))
        levels = before[:, tops, lefts] + grid.window * change[:, tops, lefts]
        own[:] = levels.round().swapaxes(0, 1)
    return contents


def _smooth(
    images: UInt8[np.ndarray, "n_models n 3 h w"],
    contents: UInt8[np.ndarray, "n_models n n_positions 3 patch patch"],
    chosen: Int[np.ndarray, "n_models n"],
    grid: _Grid,
) -> None:
    """Smooth one patch of each image, in place: only for images made here."""
    shown = np.take_along_axis(contents, chosen[:, :, None, None, None, None], axis=2)[:, :, 0]
    _put(images, shown, grid.corners[chosen])


def _after_each(
    paired: PairedStack,
    images: UInt8[np.ndarray, "n_models n 3 h w"],
    contents: UInt8[np.ndarray, "n_models n n_positions 3 patch patch"],
    asked: Bool[np.ndarray, "n_models n n_positions"],
    grid: _Grid,
    device: str | torch.device,
) -> Float32[np.ndarray, "n_models n n_positions"]:
    """Return the response after smoothing each patch asked about; infinite for the others.

    Models asked about fewer patches than others answer their last one again, so that all have
    equally many; no more images are made at once than a tile holds.
    """
    questions = [np.argwhere(own) for own in asked]  # per model (image, position)
    longest = max(len(own) for own in questions)
    padded = np.stack([own[np.minimum(np.arange(longest), len(own) - 1)] for own in questions])
    after = np.full(asked.shape, np.inf, dtype=np.float32)
    models = np.arange(len(images))[:, None]
    for tile in tiles(len(images), longest, device):
        image, position = padded[:, tile, 0], padded[:, tile, 1]
        variants = images[models, image]
        shown = contents[models, image, position]
        _put(variants, shown, grid.corners[position])
        answers = paired.responses(torch.from_numpy(variants).to(device)).float().cpu().numpy()
        after[models, image, position] = answers
    return after


def _put(
    images: UInt8[np.ndarray, "n_models n 3 h w"],
    patches: UInt8[np.ndarray, "n_models n 3 patch patch"],
    corners: Int[np.ndarray, "n_models n 2"],
) -> None:
    """Put one patch into each image, in place: only for images made here."""
    side = patches.shape[-1]
    for k, i in np.ndindex(*images.shape[:2]):
        top, left = corners[k, i]
        images[k, i, :, top : top + side, left : left + side] = patches[k, i]


def _masks(
    chosen: Int[np.ndarray, "*draws n_models n n_patches"], grid: _Grid
) -> Float32[np.ndarray, "*draws n_models n h w"]:
    """Return the weight of the smoothed image in images with these patches smoothed."""
    masks = np.zeros((*chosen.shape[:-1], *grid.image_size), dtype=np.float32)
    for index in np.ndindex(*chosen.shape):
        top, left = grid.corners[chosen[index]]
        masks[(*index[:-1], slice(top, top + grid.patch), slice(left, left + grid.patch))] = (
            grid.window
        )
    return masks
