"""The grid of soft-edged patches in which images are smoothed."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.ndimage
import scipy.signal
from jaxtyping import Bool, Float32, Float64, Int, UInt8

from pocketcortex.core import InputError

_SIDE, _PATCH, _SIGMA = 112, 12, 4.0


@dataclass(frozen=True)
class PatchGrid:
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
        return overlapping(self.corners, self.patch)

    @cached_property
    def window(self) -> Float64[np.ndarray, "patch patch"]:
        """Weight of the smoothed image within a patch."""
        edge: np.ndarray = scipy.signal.windows.tukey(self.patch + 2, 0.5)[1:-1]
        window: np.ndarray = edge[:, None] * edge
        return window


def patch_grid(
    patch: int | None, stride: int | None, sigma: float | None, image_size: tuple[int, ...]
) -> PatchGrid:
    """Return the grid, what is None in proportion to the images."""
    scale = min(image_size) / _SIDE
    patch = 2 * max(1, round(_PATCH * scale / 2)) if patch is None else patch
    stride = max(1, patch // 2) if stride is None else stride
    return PatchGrid(patch, stride, _SIGMA * scale if sigma is None else sigma, image_size)


def overlapping(
    corners: Int[np.ndarray, "n_positions 2"], patch: int
) -> Bool[np.ndarray, "n_positions n_positions"]:
    """Return which patches have pixels in common; every patch with itself."""
    overlap: np.ndarray = (np.abs(corners[:, None] - corners) < patch).all(axis=-1)
    return overlap


def check_room(n_patches: int, overlaps: Bool[np.ndarray, "n_positions n_positions"]) -> None:
    """Refuse more patches than fit without overlap however badly the first ones lie."""
    sure = math.ceil(len(overlaps) / int(overlaps.sum(axis=1).max()))
    if not 1 <= n_patches <= sure:
        raise InputError(
            f"the number of patches must be within 1..{sure}, as many as always fit without "
            f"overlap; got {n_patches}. Smaller patches leave room for more"
        )


def smoothed_patches(
    images: UInt8[np.ndarray, "n_models n 3 h w"], grid: PatchGrid
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


def smooth(
    images: UInt8[np.ndarray, "n_models n 3 h w"],
    contents: UInt8[np.ndarray, "n_models n n_positions 3 patch patch"],
    chosen: Int[np.ndarray, "n_models n"],
    grid: PatchGrid,
) -> None:
    """Smooth one patch of each image, in place: only for images made here."""
    for k, i in np.ndindex(*chosen.shape):
        top, left = grid.corners[chosen[k, i]]
        here = np.s_[:, top : top + grid.patch, left : left + grid.patch]
        images[k, i][here] = contents[k, i, chosen[k, i]]


def smoothed_masks(
    chosen: Int[np.ndarray, "*draws n_models n n_patches"], grid: PatchGrid
) -> Float32[np.ndarray, "*draws n_models n h w"]:
    """Return the weight of the smoothed image in images with these patches smoothed."""
    masks = np.zeros((*chosen.shape[:-1], *grid.image_size), dtype=np.float32)
    for index in np.ndindex(*chosen.shape):
        top, left = grid.corners[chosen[index]]
        masks[(*index[:-1], slice(top, top + grid.patch), slice(left, left + grid.patch))] = (
            grid.window
        )
    return masks
