"""Sheets of stimuli: a catalogue by kind, and the preferred stimuli of a grouped population."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int, UInt8
from matplotlib.figure import Figure

from pocketcortex.core import InputError
from pocketcortex.plots.style import DPI, INK, MUTED, SMALL_SIZE

_MARGIN = 20  # all lengths in pixels of the bitmap
_SEAM = 5
_GROUP_GAP = 26
_NAME = 30
_NUMBER = 22
_LABEL_CHARACTER = 13
_FRAME = 200  # grey level of the line about an image, so that white ones are seen
_SHEET_TILE, _GALLERY_TILE = 96, 112


def figure_contact_sheet(
    rows: Mapping[str, UInt8[np.ndarray, "n 3 height width"]], *, columns: int = 12
) -> Figure:
    """Return a sheet with a row of images for each kind of stimulus, its name at the left.

    Parameters
    ----------
    rows
        Kind and its images, RGB levels 0..255, all of one size; drawn in this order. A kind with
        more images than `columns` goes on below.
    columns
        Images side by side.

    Raises
    ------
    InputError
        If there is no kind, one has no image, sizes differ, or `columns` is below 1.
    """
    if columns < 1:
        raise InputError(f"columns must be at least 1, got {columns}")
    if not rows:
        raise InputError("there is no kind of stimulus to draw; give at least one")
    for kind, images in rows.items():
        if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
            raise InputError(
                f"images of {kind!r} must be (n, 3, height, width) with n > 0, got {images.shape}"
            )
    sizes = {images.shape[2:] for images in rows.values()}
    if len(sizes) > 1:
        raise InputError(f"all kinds must be of one size (height, width), got {sorted(sizes)}")
    high, wide = _tile_size(sizes.pop(), _SHEET_TILE)
    columns = min(columns, max(len(images) for images in rows.values()))
    label = _LABEL_CHARACTER * max(len(kind) for kind in rows) + _MARGIN
    across = 2 * _MARGIN + label + columns * (wide + _SEAM) - _SEAM
    lines = [math.ceil(len(images) / columns) for images in rows.values()]
    down = 2 * _MARGIN + sum(lines) * (high + _SEAM) + (len(rows) - 1) * _SEAM * 2 - _SEAM
    sheet = _Sheet(across, down)
    top = _MARGIN
    for (kind, images), n_lines in zip(rows.items(), lines, strict=True):
        sheet.write(kind, _MARGIN, top + high / 2, SMALL_SIZE, INK, ha="left", va="center")
        for k, image in enumerate(images):
            line, column = divmod(k, columns)
            left = _MARGIN + label + column * (wide + _SEAM)
            sheet.paste(image, left, top + line * (high + _SEAM), high, wide)
        top += n_lines * (high + _SEAM) + 2 * _SEAM
    return sheet.figure()


def figure_population_gallery(
    images: UInt8[np.ndarray, "n_neurons 3 height width"],
    order: Int[np.ndarray, " n_shown"],
    labels: Int[np.ndarray, " n_labels"],
    *,
    names: Sequence[str] | None = None,
    columns: int = 16,
) -> Figure:
    """Return the preferred stimuli of a population, neurons that are alike side by side.

    Every group stands in a block of its own below its letter and size; small groups share a line.
    Pixels of an image are whole pixels of the figure.

    Parameters
    ----------
    images
        One preferred stimulus a neuron, RGB levels 0..255.
    order
        The neurons to draw, in this order, those of a group together (`metrics.Groups.order`).
    labels
        The group of every neuron.
    names
        What stands below a neuron's image; by default its number. An empty list leaves it out.
    columns
        Images side by side at most.

    Raises
    ------
    InputError
        If there is no image, numbers of images, labels and names differ, `order` names a neuron
        twice or one that is not there, it tears a group apart, or `columns` is below 1.
    """
    n = len(images)
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise InputError(f"images must be (n, 3, height, width) with n > 0, got {images.shape}")
    names = [str(k) for k in range(n)] if names is None else names
    if len(labels) != n or len(names) not in (0, n):
        raise InputError(
            f"need a label and a name a neuron, got {len(labels)} and {len(names)} for {n} images"
        )
    if len(order) == 0 or len(np.unique(order)) < len(order) or not set(order) <= set(range(n)):
        raise InputError(f"order must name neurons 0..{n - 1}, each once at most; got {order}")
    if columns < 1:
        raise InputError(f"columns must be at least 1, got {columns}")
    blocks = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    if len(blocks) > len(set(labels[order])):
        raise InputError("order must keep the neurons of a group together; sort it by label")
    high, wide = _tile_size(images.shape[2:], _GALLERY_TILE)
    foot = _NUMBER if names else _SEAM
    line_of, column_of, n_lines = _packed([len(block) for block in blocks], columns)
    lefts, right = [], _MARGIN
    for number, (line, column) in enumerate(zip(line_of, column_of, strict=True)):
        before = sum(other == line for other in line_of[:number])
        lefts.append(_MARGIN + column * (wide + _SEAM) + before * _GROUP_GAP)
        right = max(right, lefts[-1] + min(len(blocks[number]), columns) * (wide + _SEAM) - _SEAM)
    tops, down = _line_tops([len(b) for b in blocks], line_of, n_lines, columns, high + foot)
    sheet = _Sheet(right + _MARGIN, down + _MARGIN - _GROUP_GAP)
    for number, block in enumerate(blocks):
        left, top = lefts[number], tops[line_of[number]]
        title = f"{_letters(number)} · {len(block)}" if len(block) > 1 else _letters(number)
        sheet.write(title, left, top - 8, SMALL_SIZE, INK, ha="left", va="baseline")
        for k, neuron in enumerate(block):
            line, column = divmod(k, columns)
            x, y = left + column * (wide + _SEAM), top + line * (high + foot)
            sheet.paste(images[neuron], x, y, high, wide)
            if names:
                middle = x + wide / 2
                sheet.write(
                    names[neuron], middle, y + high + 3, SMALL_SIZE - 2.5, MUTED, ha="center",
                    va="top",
                )  # fmt: skip
    return sheet.figure()


class _Sheet:
    """One bitmap on which images are pasted, and text over it; positions from the top left."""

    def __init__(self, across: int, down: int) -> None:
        self.pixels = np.full((down, across, 3), 255, dtype=np.uint8)
        self._figure = Figure(figsize=(across / DPI, down / DPI))

    def paste(self, image: np.ndarray, left: int, top: int, high: int, wide: int) -> None:
        scale_down, scale_across = high // image.shape[1], wide // image.shape[2]
        tile = image.transpose(1, 2, 0).repeat(scale_down, axis=0).repeat(scale_across, axis=1)
        self.pixels[top - 1 : top + high + 1, left - 1 : left + wide + 1] = _FRAME
        self.pixels[top : top + high, left : left + wide] = tile

    def write(
        self,
        text: str,
        x: float | int,
        y: float | int,
        size: float,
        colour: str,
        *,
        ha: str,
        va: str,
    ) -> None:
        down, across = self.pixels.shape[:2]
        self._figure.text(
            x / across, 1 - y / down, text, fontsize=size, color=colour, ha=ha, va=va,
            parse_math=False,
        )  # fmt: skip

    def figure(self) -> Figure:
        ax = self._figure.add_axes((0, 0, 1, 1), zorder=-1)
        ax.imshow(self.pixels, interpolation="nearest", aspect="auto")
        ax.axis("off")
        return self._figure


def _tile_size(size: tuple[int, ...], wanted: int) -> tuple[int, int]:
    """Return a tile's height and width: whole multiples of the image's, near what is wanted."""
    scale = max(1, round(wanted / max(size)))
    return scale * size[0], scale * size[1]


def _packed(sizes: Sequence[int], columns: int) -> tuple[list[int], list[int], int]:
    """Return for each block the line and the column where it begins, and the number of lines.

    Blocks keep their order; one goes on the line of the last if there is room for all of it.
    """
    lines, starts = [], []
    line, used = -1, columns
    for size in sizes:
        if used + size > columns:
            line, used = line + 1, 0
        lines.append(line)
        starts.append(used)
        used += size
    return lines, starts, line + 1


def _line_tops(
    sizes: Sequence[int], line_of: Sequence[int], n_lines: int, columns: int, pitch: int
) -> tuple[list[int], int]:
    """Return where the images of each line of blocks begin, and where the last line ends."""
    tops, top = [], _MARGIN
    for line in range(n_lines):
        tallest = max(s for s, at in zip(sizes, line_of, strict=True) if at == line)
        tops.append(top + _NAME)
        top += _NAME + math.ceil(tallest / columns) * pitch + _GROUP_GAP
    return tops, top


def _letters(number: int) -> str:
    """Return A, B, ..., Z, AA, AB, ... for 0, 1, ..."""
    text = ""
    while number >= 0:
        text = chr(ord("A") + number % 26) + text
        number = number // 26 - 1
    return text
