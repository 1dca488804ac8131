"""What is left of tuning as filters are taken out of a model one after another."""

import numpy as np
from jaxtyping import Float, Int, Num
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from pocketcortex.core import InputError
from pocketcortex.plots.ablation import STAGE_COLOURS, STAGE_NAMES, heading, panel_title
from pocketcortex.plots.sheet import DIVERGING, SEQUENTIAL
from pocketcortex.plots.style import (
    FAINT,
    INK,
    MUTED,
    SMALL_SIZE,
    axes_or_new,
    label_axes,
)
from pocketcortex.plots.tuning import value_ticks

_WIDTH = 10.0  # inches
_CHOSEN = "#D55E00"
_FLAT = 1e-6  # of the largest response: less is rounding
_COUNTS = (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1000)


def figure_cumulative_ablation(
    x: Num[np.ndarray, " n"],
    responses: Float[np.ndarray, "n_steps n"],
    n_left: Int[np.ndarray, "n_steps 6"],
    kept: Float[np.ndarray, " n_steps"],
    *,
    chosen: int | None = None,
    normalised: bool = True,
    reference: float | None = None,
    x_label: str = "radius (px)",
    measure: str = "r² with the intact curve",
    title: str = "",
    units: str = "a.u.",
) -> Figure:
    """Return tuning curves as filters are removed, what is kept of them, and who is left.

    All three panels share the axis of how many filters are left, from all at the top to few at
    the bottom: the curves as rows of a map, what is kept as a line, and the filters left of each
    stage as stacked counts. The chosen subset is a line across all three.

    Parameters
    ----------
    x
        The stimuli's parameter, increasing; each value has a column of the same width.
    responses
        A tuning curve for each step, the intact model's first.
    n_left
        Filters left of each of six stages: layer 0's kernels, the depthwise kernels of layers 1
        to 4, and the spatial readouts; fewer at each step.
    kept
        How much of the tuning is kept, 1 for the intact model; NaN where it is undefined.
    chosen
        Step of the smallest subset that does; None marks none.
    normalised
        Whether each row is scaled from its own least (0) to its own largest response (1).
    reference
        Without `normalised`: response to a grey image, in the middle of diverging colours.
    x_label
        What x is, with its unit.
    measure
        What `kept` is.
    title
        Stands above the panels; empty leaves it out.
    units
        Of the responses.

    Raises
    ------
    InputError
        If there are fewer than two steps, filters do not become fewer or none is left, `chosen` is
        no step, a response is not finite, or `reference` is missing where it is needed.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Fig. 4h.
    """
    total = n_left.sum(axis=1)
    if len(responses) < 2 or not (np.diff(total) < 0).all() or total[-1] < 1:
        raise InputError(
            "need two or more steps, each with fewer filters left and one at least in the last, "
            f"got {total.tolist()}"
        )
    if not np.isfinite(responses).all():
        raise InputError("responses hold NaN or infinite values")
    if chosen is not None and not 0 <= chosen < len(total):
        raise InputError(f"chosen must be a step 0..{len(total) - 1}, got {chosen}")
    if not normalised and reference is None:
        raise InputError("without `normalised`, give the response to grey as `reference`")
    figure = Figure(figsize=(_WIDTH, 4.4 + 0.3 * bool(title)), layout="constrained")
    curves, line, stack = figure.subplots(1, 3, width_ratios=(1.3, 0.8, 0.9), sharey=True)
    _draw_curves(curves, responses, total, None if normalised else reference, units)
    curves.set_xticks(*value_ticks(x, 30))
    label_axes(curves, x_label, "filters left (count, logarithmic)")
    panel_title(curves, "tuning, each row scaled" if normalised else "tuning")
    axes_or_new(line, (1.0, 1.0)).plot(kept, total, color=INK, linewidth=1.6)
    lowest = float(np.nanmin(kept, initial=0.0))
    line.set_xlim(lowest - 0.03, 1.05)
    label_axes(line, measure, "")
    panel_title(line, "tuning kept")
    _draw_stages(stack, n_left, total, chosen)
    for ax in (curves, line, stack):
        if chosen is not None:
            ax.axhline(total[chosen], color=_CHOSEN, linewidth=1.3, linestyle=(0, (4, 2)))
    if chosen is not None:
        line.annotate(
            f"{total[chosen]} filters:\n{kept[chosen]:.2f}", (lowest, total[chosen]), (2, 4),
            textcoords="offset points", fontsize=SMALL_SIZE, color=_CHOSEN, fontweight="bold",
        )  # fmt: skip
    heading(figure, title)
    return figure


def _draw_curves(
    ax: Axes, responses: np.ndarray, total: np.ndarray, reference: float | None, units: str
) -> None:
    """Draw curves as rows of a map on a logarithmic axis, with its colour bar."""
    axes_or_new(ax, (1.0, 1.0))
    middles = np.sqrt(total[1:] * total[:-1])
    edges = np.concatenate([[total[0] ** 2 / middles[0]], middles, [total[-1] ** 2 / middles[-1]]])
    columns = np.arange(responses.shape[1] + 1) - 0.5
    if reference is None:
        low, high = responses.min(axis=1, keepdims=True), responses.max(axis=1, keepdims=True)
        flat = high - low <= _FLAT * max(1.0, float(np.abs(responses).max()))
        responses = (responses - low) / np.where(flat, np.nan, high - low)
        norm, name = Normalize(0, 1), SEQUENTIAL
        label = "response (row's least: 0, largest: 1)" + "; grey: flat" * bool(flat.any())
    else:
        limit = float(np.abs(responses - reference).max()) or 1.0
        norm, name = Normalize(reference - limit, reference + limit), DIVERGING
        label = f"response ({units}); white: as to grey"
    drawn = ax.pcolormesh(columns, edges, responses, cmap=name, norm=norm, rasterized=True)
    ax.set_yscale("log")
    ax.set_ylim(edges[-1], edges[0])
    ticks = [n for n in _COUNTS if total[-1] <= n <= 0.85 * total[0]] + [int(total[0])]
    ax.yaxis.set_major_locator(FixedLocator(ticks))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set_facecolor(FAINT)
    bar = ax.figure.colorbar(
        drawn, cax=ax.inset_axes((0, -0.21, 1, 0.03)), orientation="horizontal"
    )
    bar.ax.tick_params(labelsize=SMALL_SIZE - 0.5, length=2, color=MUTED, labelcolor=INK)
    bar.outline.set(edgecolor=FAINT, linewidth=0.5)
    bar.set_label(label, fontsize=SMALL_SIZE, color=INK, parse_math=False)


def _draw_stages(ax: Axes, n_left: np.ndarray, total: np.ndarray, chosen: int | None) -> None:
    """Draw which share of the filters left each stage has, with counts in the legend."""
    axes_or_new(ax, (1.0, 1.0))
    ends = np.cumsum(n_left, axis=1) / total[:, None]
    start = np.zeros(len(total))
    for stage, name in enumerate(STAGE_NAMES):
        counts = "" if chosen is None else f": {n_left[chosen, stage]} of {n_left[0, stage]}"
        ax.fill_betweenx(
            total, start, ends[:, stage], color=STAGE_COLOURS[stage], linewidth=0,
            label=name + counts,
        )  # fmt: skip
        start = ends[:, stage]
    ax.set_xlim(0, 1)
    label_axes(ax, "share of the filters left", "")
    panel_title(ax, "which are left")
    ax.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False,
        fontsize=SMALL_SIZE - 0.5, handlelength=0.9, columnspacing=0.9, labelspacing=0.3,
    )  # fmt: skip
