"""Saliency by smoothing patches, and images smoothed where it lowers a response most (smooth-)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int, UInt8

from pocketcortex.core import InputError
from pocketcortex.models import CompactModel, LocalChanges, PairedStack
from pocketcortex.stimuli._paired import check_images, respond
from pocketcortex.stimuli._patch_grid import (
    check_room,
    overlapping,
    patch_grid,
    smooth,
    smoothed_masks,
    smoothed_patches,
)

_N_PATCHES = 25


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
    grid = patch_grid(patch, stride, sigma, images.shape[-2:])
    before = respond(paired, images, device)
    local = [LocalChanges(model).to(device) for model in models]
    maps = np.empty((*images.shape[:2], *grid.shape), dtype=np.float32)
    for i in range(images.shape[1]):
        contents = smoothed_patches(images[:, i : i + 1], grid)[:, 0]
        for k, own in enumerate(local):
            found = _changes(own, images[k, i], contents[k], grid.corners, device)
            maps[k, i] = found.reshape(grid.shape)
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
    overlaps = overlapping(corners, saliency.patch)
    check_room(n, overlaps)
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
    grid = patch_grid(patch, stride, sigma, images.shape[-2:])
    check_room(n_patches, grid.overlaps)
    contents = smoothed_patches(images, grid)
    local = [LocalChanges(model).to(device) for model in models]
    current = images.copy()
    free = np.ones(contents.shape[:3], dtype=bool)
    chosen = np.empty((*free.shape[:2], n_patches), dtype=np.int64)
    responses = np.empty((*free.shape[:2], n_patches + 1), dtype=np.float32)
    responses[..., 0] = respond(paired, images, device)
    for step in range(n_patches):
        for k, i in np.ndindex(*free.shape[:2]):
            left = np.flatnonzero(free[k, i])
            found = _changes(
                local[k], current[k, i], contents[k, i, left], grid.corners[left], device
            )
            chosen[k, i, step] = left[found.argmin()]
            responses[k, i, step + 1] = responses[k, i, step] + found.min()
        free &= ~grid.overlaps[chosen[..., step]]
        smooth(current, contents, chosen[..., step], grid)
        advance(chosen[..., step].size)
    return SmoothedImages(current, smoothed_masks(chosen, grid), grid.corners[chosen], responses)


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
    grid = patch_grid(patch, stride, sigma, images.shape[-2:])
    check_room(n_patches, grid.overlaps)
    contents = smoothed_patches(images, grid)
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
            smooth(current, contents, chosen[draw, ..., step], grid)
            responses[draw, ..., step + 1] = respond(paired, current, device)
    return SmoothedImages(made, smoothed_masks(chosen, grid), grid.corners[chosen], responses)


def _changes(
    local: LocalChanges,
    image: UInt8[np.ndarray, "3 h w"],
    patches: UInt8[np.ndarray, "n 3 patch patch"],
    corners: Int[np.ndarray, "n 2"],
    device: str | torch.device,
) -> Float32[np.ndarray, " n"]:
    """Return the change of the response by each patch."""
    shown, put, where = (torch.from_numpy(x).to(device) for x in (image, patches, corners))
    changes: np.ndarray = local.changes(shown, put, where).float().cpu().numpy()
    return changes
