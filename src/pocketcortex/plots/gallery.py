"""Tiles of images, pixel for pixel."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pocketcortex.core import InputError
from pocketcortex.plots.style import DPI, FAINT, INK, MUTED, SMALL_SIZE

_TILE_INCHES = 1.17
_GAP = 20  # between tiles, in pixels of the bitmap
_TITLE = 34
_MARGIN = 12


def figure_gallery(
    images: UInt8[np.ndarray, "n_images 3 height width"],
    titles: Sequence[str],
    *,
    columns: int = 8,
) -> Figure:
    """Return images as tiles in reading order, each below its title.

    Every pixel of an image is a whole number of pixels of the saved figure: nothing is smoothed.

    Parameters
    ----------
    images
        RGB levels 0..255.
    titles
        One short title an image, such as "neuron 3".
    columns
        Tiles in a row.

    Raises
    ------
    InputError
        If there is no image, titles and images differ in number, or `columns` is below 1.
    """
    _check(images, titles, columns)
    return _tiled(images[:, None], titles, columns, ())


def figure_gallery_pairs(
    first: UInt8[np.ndarray, "n_images 3 height width"],
    second: UInt8[np.ndarray, "n_images 3 height width"],
    titles: Sequence[str],
    *,
    labels: tuple[str, str] = ("bank", "synthesized"),
    columns: int = 4,
) -> Figure:
    """Return pairs of images, such as a neuron's preferred stimulus in a bank and synthesized.

    The two of a pair touch, under one title; their labels stand below each pair.

    Parameters
    ----------
    first, second
        RGB levels 0..255; image k of both belongs to title k.
    titles
        One short title a pair, such as "neuron 3".
    labels
        What the left and the right image of each pair are.
    columns
        Pairs in a row.

    Raises
    ------
    InputError
        If the two differ in shape, there is no image, titles and pairs differ in number, or
        `columns` is below 1.
    """
    if first.shape != second.shape:
        raise InputError(
            f"pairs need two sets of images of one shape, got {first.shape} and {second.shape}"
        )
    _check(first, titles, columns)
    return _tiled(np.stack([first, second], axis=1), titles, columns, labels)


def _check(images: np.ndarray, titles: Sequence[str], columns: int) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise InputError(f"images must be (n, 3, height, width) with n > 0, got {images.shape}")
    if len(titles) != len(images):
        raise InputError(f"need one title an image, got {len(titles)} for {len(images)} images")
    if columns < 1:
        raise InputError(f"columns must be at least 1, got {columns}")


def _tiled(
    groups: np.ndarray, titles: Sequence[str], columns: int, labels: tuple[str, ...]
) -> Figure:
    """Lay out `groups` (n, n_side_by_side, 3, h, w) with all positions in whole pixels."""
    n, side_by_side, _, height, width = groups.shape
    scale = max(1, round(_TILE_INCHES * DPI / max(height, width)))
    high, wide = scale * height, scale * width
    seam = 4 if side_by_side > 1 else 0
    group = side_by_side * wide + (side_by_side - 1) * seam
    columns, rows = min(columns, n), math.ceil(n / min(columns, n))
    foot = _TITLE - 4 if labels else 0
    across = 2 * _MARGIN + columns * group + (columns - 1) * _GAP
    down = 2 * _MARGIN + rows * (_TITLE + high + foot) + (rows - 1) * _GAP
    figure = Figure(figsize=(across / DPI, down / DPI))
    for k, title in enumerate(titles):
        row, column = divmod(k, columns)
        left = _MARGIN + column * (group + _GAP)
        top = _MARGIN + row * (_TITLE + high + foot + _GAP) + _TITLE
        for j in range(side_by_side):
            ax = _tile(figure, (left + j * (wide + seam), down - top - high, wide, high))
            ax.imshow(groups[k, j].transpose(1, 2, 0), interpolation="nearest", aspect="auto")
            if labels:
                ax.set_xlabel(
                    labels[j], fontsize=SMALL_SIZE - 1, color=MUTED, labelpad=2, parse_math=False
                )
        figure.text(
            (left + group / 2) / across, (down - top + 6) / down, title, ha="center", va="bottom",
            fontsize=SMALL_SIZE, color=INK, parse_math=False,
        )  # fmt: skip
    return figure


def _tile(figure: Figure, pixels: tuple[int, int, int, int]) -> Axes:
    """Add frameless axes at left, bottom, width and height in pixels of the bitmap."""
    across, down = (float(inches) * DPI for inches in figure.get_size_inches())
    left, bottom, width, height = pixels
    ax = figure.add_axes((left / across, bottom / down, width / across, height / down))
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(color=FAINT, linewidth=0.5)
    return ax
