"""Images changed to raise or lower a response: adversarial ones, saliency and smoothing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pocketcortex.core import InputError
from pocketcortex.plots.style import DPI, FAINT, INK, MUTED, SMALL_SIZE, TEXT_SIZE

_TILE_INCHES = 1.17
_GAP, _MARGIN, _HEAD, _FOOT, _TITLE = 18, 14, 60, 36, 34  # in pixels of the bitmap
_CHARACTER, _LEAST_LEFT = 17, 170  # width of a label's sign, and least room for labels
_BAR, _BAR_ROOM = 14, 120
_DIVERGING = "RdBu_r"  # red and blue stay apart for red-green colour-blind readers
_RAISES, _LOWERS = "#B2182B", "#2166AC"  # that map's ends


def figure_adversarial(
    base: UInt8[np.ndarray, "n 3 h w"],
    raised: UInt8[np.ndarray, "n 3 h w"],
    lowered: UInt8[np.ndarray, "n 3 h w"],
    responses: Float[np.ndarray, "n 3"],
    labels: Sequence[str],
    *,
    factor: float = 8.0,
    units: str = "a.u.",
) -> Figure:
    """Return a row for each neuron: an image, its adversarial + and -, and the differences.

    From left to right: adversarial -, its difference from the base image, the base image, the
    difference of adversarial +, adversarial +. Differences are multiplied by `factor` and drawn
    about mid grey; the heading states the factor. Above each image stands the response to it;
    above each difference its root mean square in levels.

    Parameters
    ----------
    base, raised, lowered
        RGB levels 0..255; image k of each belongs to label k.
    responses
        To base, raised and lowered image.
    labels
        What to call each row, such as "neuron 3".
    factor
        By how much differences are magnified.
    units
        Of the responses.

    Raises
    ------
    InputError
        If there is no row, shapes differ, labels and rows differ in number, or `factor` is not
        positive.
    """
    _check(base, labels, responses, 3, raised, lowered)
    if not factor > 0:
        raise InputError(f"factor must be positive, got {factor}")
    magnified = f"difference × {factor:g}"
    heads = ("adversarial −", magnified, "base image", magnified, "adversarial +")
    sheet = _Sheet(heads, labels, base.shape[2:])
    for row in range(len(base)):
        down, up = (other[row].astype(np.float64) - base[row] for other in (lowered, raised))
        to_base, to_raised, to_lowered = map(_signed, responses[row])
        shown = (
            (lowered[row], to_lowered),
            (_about_grey(down, factor), _rms_text(down)),
            (base[row], to_base),
            (_about_grey(up, factor), _rms_text(up)),
            (raised[row], to_raised),
        )
        for column, (image, title) in enumerate(shown):
            sheet.tile(row, column, image, title)
    sheet.note(
        f"Above images: response ({units}). Above differences: root mean square, in levels of 255. "
        "Grey: no difference."
    )
    return sheet.figure


def figure_saliency(
    images: UInt8[np.ndarray, "n 3 h w"],
    maps: Float[np.ndarray, "n rows columns"],
    positions: Int[np.ndarray, "rows columns 2"],
    patches: Int[np.ndarray, "n n_patches 2"],
    responses: Float[np.ndarray, "n n_responses"],
    labels: Sequence[str],
    *,
    patch: int,
    smoothed: UInt8[np.ndarray, "n 3 h w"] | None = None,
    random: UInt8[np.ndarray, "n 3 h w"] | None = None,
    units: str = "a.u.",
) -> Figure:
    """Return a row for each neuron: image, map of saliency, salient patches, smoothed images.

    The map shows the change in response when the patch centred there is smoothed, in its own
    limits, symmetric about zero; where no patch is centred, it is blank. Outlined are the
    salient patches: solid and blue where smoothing lowers the response (the patch drives the
    neuron), dashed and red where it raises it. Above each image stands the response to it.

    Parameters
    ----------
    images
        RGB levels 0..255.
    maps
        Change in response.
    positions
        Top and left pixel of each patch of the maps.
    patches
        Top and left pixel of each patch to outline, of those in `positions`.
    responses
        To the image, then to `smoothed` and to `random`, as far as they are given.
    labels
        What to call each row, such as "neuron 3".
    patch
        Side of a patch in pixels.
    smoothed, random
        Smooth- image and randomly smoothed image; RGB levels 0..255.
    units
        Of the responses.

    Raises
    ------
    InputError
        If there is no row, or images, responses and labels do not fit each other.
    """
    others = [
        (head, other)
        for head, other in (("smooth−", smoothed), ("random patches", random))
        if other is not None
    ]
    _check(images, labels, responses, 1 + len(others), *(other for _, other in others))
    heads = ("image", "saliency", "salient patches", *(head for head, _ in others))
    sheet = _Sheet(heads, labels, images.shape[2:], bar_after=1)
    for row, change in enumerate(maps):
        sheet.tile(row, 0, images[row], _signed(responses[row, 0]))
        sheet.heatmap(row, change, positions, patch, f"change ({units})")
        title = f"{len(patches[row])} of {change.size} patches"
        outlined = sheet.tile(row, 2, images[row], title)
        for corner in patches[row]:
            there = change[(positions == corner).all(axis=-1)]
            _outline(outlined, corner, patch, raises=bool((there > 0).any()))
        for column, (_, other) in enumerate(others, 1):
            sheet.tile(row, 2 + column, other[row], _signed(responses[row, column]))
    sheet.note(
        f"Above images: response ({units}). Saliency: its change when a patch is smoothed; blue "
        "lower, red (dashed) higher."
    )
    return sheet.figure


class _Sheet:
    """A grid of tiles in whole pixels of the bitmap, with names left and heads on top."""

    def __init__(
        self,
        heads: Sequence[str],
        names: Sequence[str],
        size: tuple[int, ...],
        bar_after: int | None = None,
    ) -> None:
        scale = max(1, round(_TILE_INCHES * DPI / max(size)))
        self._size, self._high, self._wide = size, scale * size[0], scale * size[1]
        self._bar_after = bar_after
        room = 0 if bar_after is None else _BAR_ROOM
        longest = max(len(name) for name in names)
        self._labels = max(_LEAST_LEFT, 2 * _MARGIN + _CHARACTER * longest)
        self._across = self._labels + len(heads) * (self._wide + _GAP) - _GAP + room + _MARGIN
        self._pitch = _TITLE + self._high + _GAP
        self._down = _HEAD + len(names) * self._pitch + _FOOT
        self.figure = Figure(figsize=(self._across / DPI, self._down / DPI))
        for column, head in enumerate(heads):
            left = self._left(column) + self._wide / 2
            self._text(left, 22, head, fontsize=TEXT_SIZE, color=INK, ha="center", va="top")
        for row, name in enumerate(names):
            middle = self._top(row) + self._high / 2
            self._text(self._labels - 16, middle, name, fontsize=TEXT_SIZE, ha="right", va="center")

    def tile(self, row: int, column: int, image: np.ndarray, title: str) -> Axes:
        """Show an image `(3, h, w)`, pixel for pixel, below its title."""
        ax = self._axes(self._left(column), self._top(row), self._wide, self._high)
        ax.imshow(image.transpose(1, 2, 0), interpolation="nearest", aspect="auto")
        self._title(row, column, title)
        return ax

    def heatmap(
        self, row: int, change: np.ndarray, positions: np.ndarray, patch: int, title: str
    ) -> None:
        """Show a map in the second column, where its patches are centred, with its colour bar."""
        left = self._left(1)
        ax = self._axes(left, self._top(row), self._wide, self._high)
        limit = float(np.abs(change).max()) or 1.0
        rows, columns = (_cell_edges(np.unique(positions[..., axis]), patch) for axis in range(2))
        norm = Normalize(-limit, limit)
        ax.imshow(
            change, cmap=_DIVERGING, norm=norm, interpolation="nearest", aspect="auto",
            extent=(columns[0], columns[1], rows[1], rows[0]),
        )  # fmt: skip
        ax.set(xlim=(-0.5, self._size[1] - 0.5), ylim=(self._size[0] - 0.5, -0.5))
        self._title(row, 1, title)
        bar = self._axes(left + self._wide + 10, self._top(row), _BAR, self._high)
        shades = ScalarMappable(norm, _DIVERGING)
        drawn = self.figure.colorbar(shades, cax=bar, ticks=[-limit, 0, limit])
        drawn.ax.set_yticklabels([f"−{limit:#.2g}", "0", f"+{limit:#.2g}"])
        drawn.ax.tick_params(labelsize=SMALL_SIZE - 1, length=2, color=MUTED, labelcolor=MUTED)
        drawn.outline.set(color=FAINT, linewidth=0.5)

    def note(self, text: str) -> None:
        """Write below the tiles what they show."""
        self._text(
            _MARGIN, self._down - _MARGIN, text, fontsize=SMALL_SIZE, color=MUTED, va="bottom"
        )

    def _left(self, column: int) -> int:
        room = _BAR_ROOM if self._bar_after is not None and column > self._bar_after else 0
        return self._labels + column * (self._wide + _GAP) + room

    def _top(self, row: int) -> int:
        return _HEAD + row * self._pitch + _TITLE

    def _title(self, row: int, column: int, title: str) -> None:
        self._text(
            self._left(column) + self._wide / 2, self._top(row) - 5, title, fontsize=SMALL_SIZE,
            color=MUTED, ha="center", va="bottom",
        )  # fmt: skip

    def _text(self, left: float | int, top: float | int, text: str, **style: Any) -> None:
        self.figure.text(left / self._across, 1 - top / self._down, text, parse_math=False, **style)

    def _axes(self, left: int, top: int, width: int, height: int) -> Axes:
        bottom = self._down - top - height
        ax = self.figure.add_axes(
            (left / self._across, bottom / self._down, width / self._across, height / self._down)
        )
        ax.set(xticks=[], yticks=[])
        for spine in ax.spines.values():
            spine.set(color=FAINT, linewidth=0.5)
        return ax


def _cell_edges(starts: np.ndarray, patch: int) -> tuple[float, float]:
    """Return where the first cell begins and the last one ends that are centred on patches."""
    half = float(starts[1] - starts[0] if len(starts) > 1 else patch) / 2
    middle = (patch - 1) / 2
    return float(starts[0]) + middle - half, float(starts[-1]) + middle + half


def _outline(ax: Axes, corner: np.ndarray, patch: int, *, raises: bool) -> None:
    """Draw the frame of a patch, white below so that it shows on any image."""
    top, left = corner.tolist()
    for colour, width, style in (
        ("white", 1.8, "solid"),
        (_RAISES if raises else _LOWERS, 0.9, (0, (2.5, 1.2)) if raises else "solid"),
    ):
        ax.add_patch(
            Rectangle(
                (left + 0.1, top + 0.1),
                patch - 1.2,
                patch - 1.2,
                fill=False,
                edgecolor=colour,
                linewidth=width,
                linestyle=style,
            )
        )


def _about_grey(difference: np.ndarray, factor: float) -> UInt8[np.ndarray, "3 h w"]:
    """Return a magnified difference as an image, clipped to its range."""
    levels: np.ndarray = (127.5 + factor * difference).clip(0, 255).round().astype(np.uint8)
    return levels


def _signed(value: float) -> str:
    """Return a number with its sign, a true minus."""
    return f"{value:+.2f}".replace("-", "−")


def _rms_text(difference: np.ndarray) -> str:
    return f"rms {float(np.sqrt((difference**2).mean())):.1f}"


def _check(
    images: np.ndarray,
    labels: Sequence[str],
    responses: np.ndarray,
    n_responses: int,
    *others: np.ndarray,
) -> None:
    """Refuse no rows, other numbers of labels or responses, and images of other shapes."""
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise InputError(f"images must be (n, 3, height, width) with n > 0, got {images.shape}")
    if len(labels) != len(images):
        raise InputError(f"need one label a row, got {len(labels)} for {len(images)} rows")
    if responses.shape != (len(images), n_responses):
        raise InputError(
            f"need responses to {n_responses} images a row, ({len(images)}, {n_responses}), got "
            f"{responses.shape}"
        )
    for other in others:
        if other.shape != images.shape:
            raise InputError(
                f"images of a row must have one shape, {images.shape}, got {other.shape}"
            )
