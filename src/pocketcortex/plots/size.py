"""How small models are: parameters, and filters per layer."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from pocketcortex.core import InputError
from pocketcortex.plots.style import (
    INK,
    MODEL_COLOURS,
    MUTED,
    SMALL_SIZE,
    TEXT_SIZE,
    axes_or_new,
    label_axes,
    model_colours,
    swarm_offsets,
)

STAGES = (
    "layer 0\nconvolution",
    "layer 1\ndepthwise",
    "layer 2\ndepthwise",
    "layer 3\ndepthwise",
    "layer 4\ndepthwise",
    "spatial\nreadout",
)
_ROOM_FOR_RATIO = 1.6  # the axis ends at this power of the compact count, or later
_FEW_MODELS = 60
_COUNT_TICKS = (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1000)


def count_text(count: int | float) -> str:
    """Return a count as it is written in figures and tables: ``62.8 M``, ``12,469`` or ``–``.

    Parameters
    ----------
    count
        Any non-negative number; NaN is what is not known.

    Examples
    --------
    >>> count_text(62_780_000), count_text(12_469), count_text(float("nan"))
    ('62.8 M', '12,469', '–')
    """
    if math.isnan(count):
        return "–"
    return f"{count / 1e6:,.1f} M" if count >= 1e6 else f"{count:,.0f}"


def plot_parameters(counts: Mapping[str, int | float], *, ax: Axes | None = None) -> Axes:
    """Draw numbers of parameters as bars on a logarithmic axis, each written out.

    With both a "teacher" and a "compact" model among them, how many times fewer parameters the
    compact one has is written beside its bar. An unknown count (NaN) has no bar, and a dash.

    Parameters
    ----------
    counts
        Model name to number of parameters (for one model per neuron: that of the median model),
        drawn from the top in the mapping's order.
    ax
        Where to draw; by default the axes of a new figure.

    Raises
    ------
    InputError
        If there is no model, or a count is below 1 or infinite.
    """
    wrong = {k: v for k, v in counts.items() if not (math.isnan(v) or 1 <= v < math.inf)}
    if wrong or not counts:
        raise InputError(f"parameter counts must be at least 1, or NaN; got {wrong or 'none'}")
    ax = axes_or_new(ax, (4.7, 1.0 + 0.55 * len(counts)))
    colours = model_colours(counts)
    known = [count for count in counts.values() if not math.isnan(count)]
    for row, (name, count) in enumerate(counts.items()):
        end = 1.0 if math.isnan(count) else float(count)
        ax.barh(row, end - 1, left=1, height=0.62, color=colours[name])
        ax.annotate(
            count_text(count), (end, row), (5, 0), textcoords="offset points", va="center",
            fontsize=TEXT_SIZE, color=INK if end > 1 else MUTED,
        )  # fmt: skip
    right = 12 * max(known, default=1e3)
    teacher, compact = counts.get("teacher", math.nan), counts.get("compact", math.nan)
    if not math.isnan(teacher / compact):
        ax.annotate(
            f"{_ratio_text(teacher / compact)}× fewer",
            (compact, list(counts).index("compact")), (5, -13), textcoords="offset points",
            va="center", fontsize=SMALL_SIZE, color=MODEL_COLOURS["compact"], fontweight="bold",
        )  # fmt: skip
        right = max(right, compact**_ROOM_FOR_RATIO)
    ax.set_xscale("log")
    ax.set(xlim=(1, right), ylim=(len(counts) - 0.5, -0.5))
    ax.xaxis.set_major_locator(LogLocator(100, numticks=12))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: count_text(value).replace(".0", ""))
    )
    ax.set_yticks(range(len(counts)), list(counts))
    for tick in ax.get_yticklabels():
        tick.set_parse_math(False)
    ax.tick_params(axis="y", length=0, labelsize=TEXT_SIZE)
    ax.spines["left"].set_visible(False)
    label_axes(ax, "parameters (count, logarithmic)", "")
    return ax


def plot_filters_per_layer(
    filters: Int[np.ndarray, "n_models 6"], *, ax: Axes | None = None
) -> Axes:
    """Draw how many filters each model keeps in six stages, each model a point.

    The bar is the median over models, with its value. Points of equal count lie side by side.

    Parameters
    ----------
    filters
        Counts as the paper has them: layer 0's kernels, the depthwise kernels of layers 1 to 4,
        and the spatial readouts.
    ax
        Where to draw; by default the axes of a new figure.

    Raises
    ------
    InputError
        If there is no model, or a count is below 1.
    """
    if filters.shape[1:] != (len(STAGES),) or not filters.size or filters.min() < 1:
        raise InputError(
            "filters must be positive counts (n_models, 6): layer 0's kernels, the depthwise "
            f"kernels of layers 1 to 4, and the spatial readouts; got shape {filters.shape}"
        )
    ax = axes_or_new(ax, (5.5, 4.0))
    colour = MODEL_COLOURS["compact"]
    for stage in range(len(STAGES)):
        counts = filters[:, stage].astype(np.float64)
        offsets = swarm_offsets(np.log(counts), bin_width=0.06, step=0.06, half_width=0.3)
        ax.scatter(stage + offsets, counts, color=colour, zorder=2, **_points(len(filters)))
        median = float(np.median(counts))
        ax.plot([stage - 0.37, stage + 0.37], [median] * 2, color=INK, linewidth=1.6, zorder=1)
        ax.annotate(
            f"{median:g}", (stage + 0.37, median), (2, 0), textcoords="offset points", va="center",
            fontsize=SMALL_SIZE, color=INK, zorder=4,
        )  # fmt: skip
    mark_counts(ax, filters.min() / 1.3, filters.max() * 1.5)
    ax.set_xlim(-0.6, len(STAGES) - 0.25)
    label_axes(ax, "", "filters per model (count, logarithmic)")
    total = float(np.median(filters.sum(axis=1)))
    ax.text(
        0.98, 0.97, f"n = {len(filters)} model{'s' * (len(filters) != 1)}\n"
        f"median {total:g} filters in all", transform=ax.transAxes, ha="right", va="top",
        fontsize=SMALL_SIZE, color=INK,
    )  # fmt: skip
    return ax


def mark_counts(ax: Axes, low: float, high: float) -> None:
    """Give axes the six stages across and a logarithmic axis of counts up."""
    ax.set_yscale("log")
    ax.set_ylim(low, high)
    ax.yaxis.set_major_locator(FixedLocator(_COUNT_TICKS))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set_xticks(range(len(STAGES)), STAGES)
    ax.tick_params(axis="x", length=0)


def _points(n: int) -> dict[str, Any]:
    """Return the look of points that lie on one another when there are many."""
    if n <= _FEW_MODELS:
        return {"s": 16, "alpha": 0.8, "edgecolors": "white", "linewidths": 0.4}
    return {"s": 9, "alpha": 0.45, "linewidths": 0}


def _ratio_text(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.1f}"
