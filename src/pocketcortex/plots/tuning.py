"""Tuning of one model: curves and maps over the parameters of drawn stimuli."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from jaxtyping import Float, Num, UInt8
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from pocketcortex.core import InputError
from pocketcortex.plots.sheet import DIVERGING
from pocketcortex.plots.style import FAINT, INK, MUTED, SMALL_SIZE, axes_or_new, label_axes

CURVE_COLOURS = ("#222222", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Of the curves of one panel in turn: black, then Okabe and Ito's set."""

_BAR_WIDTH, _BAR_GAP = 0.045, 0.03  # of the map's width
_ROOM_ACROSS, _ROOM_UP = 26, 70  # characters of tick labels, a space between each two


@dataclass(frozen=True, eq=False)
class TuningMap:
    """Responses to stimuli that differ in two parameters.

    Attributes
    ----------
    responses
        One for each pair of values.
    rows, columns
        The parameters' values.
    row_label, column_label
        What they are, with their unit, such as "orientation (deg)".

    Raises
    ------
    InputError
        If there is no response, or values and responses do not fit each other.
    """

    responses: Float[np.ndarray, "n_rows n_columns"]
    rows: Num[np.ndarray, " _"]
    columns: Num[np.ndarray, " _"]
    row_label: str
    column_label: str

    def __post_init__(self) -> None:
        expected = (len(self.rows), len(self.columns))
        if self.responses.shape != expected or not self.responses.size:
            raise InputError(
                f"responses must be (rows, columns) = {expected}, both above 0, as the values of "
                f"{self.row_label!r} and {self.column_label!r} are; got {self.responses.shape}"
            )
        if not np.isfinite(self.responses).all():
            raise InputError(f"responses to {self.row_label!r} hold NaN or infinite values")


def plot_tuning(
    x: Num[np.ndarray, " n"],
    responses: Mapping[str, Float[np.ndarray, " n"]],
    *,
    x_label: str,
    units: str = "a.u.",
    spread: Mapping[str, Float[np.ndarray, " n"]] | None = None,
    reference: float = math.nan,
    reference_name: str = "grey",
    ax: Axes | None = None,
) -> Axes:
    """Draw tuning curves: responses against one parameter of the stimuli.

    Parameters
    ----------
    x
        The parameter's values, increasing.
    responses
        Name of a curve to its responses; one curve alone is drawn without its name.
    x_label
        What x is, with its unit.
    units
        Of the responses.
    spread
        Name of a curve to half the height of the band about it, such as a standard deviation;
        curves may be absent.
    reference
        Response to draw as a dashed line; NaN leaves it out.
    reference_name
        What stands beside that line.
    ax
        Where to draw; by default the axes of a new figure.

    Raises
    ------
    InputError
        If there is no curve, x does not increase, or a response or spread is not finite.
    """
    if not responses or not len(x) or not (np.diff(x) > 0).all():
        raise InputError(f"a tuning curve needs responses and increasing x, got x = {x}")
    spread = spread or {}
    if unknown := set(spread) - set(responses):
        raise InputError(f"spread names curves that are not there: {sorted(unknown)}")
    for name, values in (*responses.items(), *spread.items()):
        if not np.isfinite(values).all():
            raise InputError(f"curve {name!r} holds NaN or infinite values")
    ax = axes_or_new(ax, (4.2, 3.2))
    if not math.isnan(reference):
        ax.axhline(reference, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        ax.annotate(
            reference_name, (1, reference), (-2, 2), xycoords=("axes fraction", "data"),
            textcoords="offset points", ha="right", va="bottom", fontsize=SMALL_SIZE, color=MUTED,
            parse_math=False,
        )  # fmt: skip
    for (name, values), colour in zip(responses.items(), cycle(CURVE_COLOURS), strict=False):
        if name in spread:
            ax.fill_between(
                x, values - spread[name], values + spread[name], color=colour, alpha=0.18,
                linewidth=0,
            )  # fmt: skip
        ax.plot(x, values, color=colour, linewidth=1.6, marker="o", markersize=3.2, label=name)
    if len(responses) > 1:
        legend = ax.legend(frameon=False, fontsize=SMALL_SIZE, handlelength=1.4, borderaxespad=0.2)
        for text in legend.get_texts():
            text.set_parse_math(False)
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.margins(x=0.03, y=0.08)
    label_axes(ax, x_label, f"response ({units})")
    return ax


def plot_tuning_map(
    tuning: TuningMap, *, reference: float, units: str = "a.u.", ax: Axes | None = None
) -> Axes:
    """Draw responses over two parameters as a map, white where they are as to grey.

    Every value has a row or column of the same size, the first row at the bottom. A black square
    is about the largest response.

    Parameters
    ----------
    tuning
        The responses.
    reference
        Response to a grey image, in the middle of the colours; limits are symmetric about it.
    units
        Of the responses.
    ax
        Where to draw; by default the axes of a new figure.

    Raises
    ------
    InputError
        If `reference` is not finite.
    """
    n_rows, n_columns = tuning.responses.shape
    extent = (-0.5, n_columns - 0.5, -0.5, n_rows - 0.5)
    ax = _heat_map(tuning.responses, reference, units, extent, ax)
    best = np.unravel_index(int(tuning.responses.argmax()), tuning.responses.shape)
    corner = (float(best[1]) - 0.5, float(best[0]) - 0.5)
    ax.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=INK, linewidth=1.3))
    ax.set_xticks(*value_ticks(tuning.columns, _ROOM_ACROSS))
    ax.set_yticks(*value_ticks(tuning.rows, _ROOM_UP))
    label_axes(ax, tuning.column_label, tuning.row_label)
    return ax


def plot_place_map(
    responses: Float[np.ndarray, "n n"],
    *,
    image_size: int,
    reference: float,
    preferred_px: tuple[float, float] | None = None,
    units: str = "a.u.",
    ax: Axes | None = None,
) -> Axes:
    """Draw the responses to one stimulus at each place of a grid, where they were shown.

    Parameters
    ----------
    responses
        Row by row from the top left; the grid divides the image into equal squares.
    image_size
        Height and width of the images in pixels.
    reference
        Response to a grey image, in the middle of the colours; limits are symmetric about it.
    preferred_px
        x and y of the preferred place, marked by a cross; None leaves it out.
    units
        Of the responses.
    ax
        Where to draw; by default the axes of a new figure.

    Raises
    ------
    InputError
        If there is no response, or one or `reference` is not finite.
    """
    if not responses.size or not np.isfinite(responses).all():
        raise InputError(f"responses must be finite numbers (n, n), got {responses.shape}")
    edge = image_size - 0.5
    ax = _heat_map(responses[::-1], reference, units, (-0.5, edge, edge, -0.5), ax)
    if preferred_px is not None:
        for colour, width in (("white", 3.0), (INK, 1.4)):
            ax.plot(*preferred_px, marker="+", markersize=11, markeredgewidth=width, color=colour)
    ticks = [0, image_size // 2, image_size - 1]
    ax.set(xticks=ticks, yticks=ticks, aspect="equal")
    label_axes(ax, "x (px)", "y (px)")
    return ax


def plot_colour_tuning(
    colours: UInt8[np.ndarray, "n 3"],
    responses: Float[np.ndarray, " n"],
    *,
    reference: float,
    units: str = "a.u.",
    ax: Axes | None = None,
) -> Axes:
    """Draw the responses to plain colours as bars of these colours, from the response to grey.

    Parameters
    ----------
    colours
        RGB levels 0..255.
    responses
        One a colour.
    reference
        Response to a grey image, where the bars begin.
    units
        Of the responses.
    ax
        Where to draw; by default the axes of a new figure.

    Raises
    ------
    InputError
        If there is no colour, or a response or `reference` is not finite.
    """
    if not len(colours) or not np.isfinite([*responses, reference]).all():
        raise InputError("plain colours need at least one response, all finite; got "
                         f"{len(colours)}")  # fmt: skip
    ax = axes_or_new(ax, (4.2, 3.2))
    heights = responses - reference
    ax.bar(
        np.arange(len(colours)), heights, bottom=reference, width=0.8, color=colours / 255,
        edgecolor=MUTED, linewidth=0.7, zorder=2,
    )  # fmt: skip
    ax.axhline(reference, color=MUTED, linewidth=0.9, zorder=1)
    ax.annotate(
        "grey", (1, reference), (-2, 2 if heights[-1] <= 0 else -2),
        xycoords=("axes fraction", "data"), textcoords="offset points", ha="right",
        va="bottom" if heights[-1] <= 0 else "top", fontsize=SMALL_SIZE, color=MUTED,
    )  # fmt: skip
    ax.set(xticks=[], xlim=(-0.7, len(colours) - 0.3))
    ax.margins(y=0.08)
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    label_axes(ax, "plain colour", f"response ({units})")
    return ax


def _heat_map(
    responses: np.ndarray,
    reference: float,
    units: str,
    extent: tuple[float, float, float, float],
    ax: Axes | None,
) -> Axes:
    """Draw a map, its first row at the bottom, with its colour bar at the right."""
    if not math.isfinite(reference):
        raise InputError(f"the response to grey must be a finite number, got {reference}")
    ax = axes_or_new(ax, (4.4, 3.4))
    limit = float(np.abs(responses - reference).max()) or 1.0
    low, high = reference - limit, reference + limit
    drawn = ax.imshow(
        responses, cmap=DIVERGING, norm=Normalize(low, high), interpolation="nearest",
        aspect="auto", extent=extent, origin="lower",
    )  # fmt: skip
    for spine in ax.spines.values():
        spine.set(visible=True, color=FAINT, linewidth=0.6)
    bar = ax.inset_axes((1 + _BAR_GAP, 0, _BAR_WIDTH, 1))
    colours = ax.figure.colorbar(drawn, cax=bar, ticks=[low, reference, high])
    colours.ax.set_yticklabels(_equal_decimals((low, reference, high), limit))
    colours.ax.tick_params(labelsize=SMALL_SIZE - 0.5, length=2, color=MUTED, labelcolor=INK)
    colours.outline.set(edgecolor=FAINT, linewidth=0.5)
    colours.ax.set_title(f"({units})", fontsize=SMALL_SIZE - 1, color=MUTED, loc="left", pad=4)
    return ax


def _equal_decimals(values: Sequence[float], step: float) -> list[str]:
    """Return numbers with as many decimals as tell a tenth of a step apart, two at most."""
    decimals = min(max(1 - math.floor(math.log10(step)), 0), 2)
    # adding zero turns a rounded −0 into 0
    return [f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", "−") for value in values]


def value_ticks(values: np.ndarray, room: int) -> tuple[list[int], list[str]]:
    """Return places and labels of values: of every one, or every second one, as room allows."""
    labels = [f"{value:.4g}".replace("-", "−") for value in values]
    step = next(
        k for k in range(1, len(labels) + 1) if _characters(labels[::k]) <= room or k == len(labels)
    )
    return list(range(0, len(labels), step)), labels[::step]


def _characters(labels: Sequence[str]) -> int:
    return sum(len(label) + 1 for label in labels)
