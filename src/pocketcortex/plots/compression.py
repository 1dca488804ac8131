"""How far models can be compressed: accuracy against size, and which filters are left."""

import itertools
import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int, Num
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from pocketcortex.core import InputError
from pocketcortex.plots.size import STAGES, count_text, mark_counts
from pocketcortex.plots.style import (
    FAINT,
    INK,
    MUTED,
    SMALL_SIZE,
    TEXT_SIZE,
    axes_or_new,
    label_axes,
    model_colours,
    swarm_offsets,
)

_MARKERS = "osD^vPX"
_NAME_ROW = 0.06  # of the axes' height


def plot_pareto(
    models: Mapping[str, tuple[Num[np.ndarray, " _"], Float[np.ndarray, " _"]]],
    *,
    metric: str,
    median_ci: Mapping[str, tuple[float, float]] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw what each neuron's model scores against how many parameters it has.

    Every point is one neuron under one kind of model, the large marker the kind's medians, with
    the interval of the median score where `median_ci` gives one. A kind of one size for all
    neurons is spread sideways a little. Neurons without a score (NaN) are left out and counted.

    Parameters
    ----------
    models
        Kind of model to parameters and scores, one each a neuron.
    metric
        Label of the score axis.
    median_ci
        Kind to lower and upper end of its median score's interval; kinds may be absent.
    ax
        Where to draw; by default the axes of a new figure.

    Raises
    ------
    InputError
        If there is no score, a kind's parameters and scores differ in number, a model has less
        than one parameter, or a score is infinite.
    """
    drawn, n_missing = _checked(models)
    ax = axes_or_new(ax, (5.6, 4.4))
    colours, ci = model_colours(models), median_ci or {}
    markers = dict(zip(drawn, itertools.cycle(_MARKERS), strict=False))
    everything = np.concatenate([scores for _, scores in drawn.values()])
    span = max(float(np.ptp(everything)), 0.1)
    counts = np.concatenate([n for n, _ in drawn.values()])
    left, right = counts.min() / 2.2, counts.max() * 2.2
    decades = math.log10(right / left)
    medians = {}
    for name, (n, scores) in drawn.items():
        places = n
        if np.ptp(n) == 0:
            places = n * 10 ** swarm_offsets(
                scores, bin_width=span / 40, step=decades / 90, half_width=decades / 30
            )
        ax.scatter(places, scores, s=14, color=colours[name], alpha=0.4, linewidths=0, zorder=2)
        middle = (float(np.median(n)), float(np.median(scores)))
        medians[name] = middle
        if name in ci and not np.isnan(ci[name]).any():
            ax.plot([middle[0]] * 2, ci[name], color=INK, linewidth=1.6, zorder=3)
        ax.scatter(
            *middle, s=88, marker=markers[name], color=colours[name], edgecolors="white",
            linewidths=1.3, zorder=4,
        )  # fmt: skip
    ax.set_xscale("log")
    ax.set_xlim(left, right)
    n_rows = _write_names(ax, medians, colours, markers)
    low = min(float(everything.min()), 0.0)
    low -= 0.03 * span * (low < 0)
    high = max(float(everything.max()), low + 0.1)
    ax.set_ylim(low, low + (high - low) * 1.03 / (1 - _NAME_ROW * (n_rows + 0.4)))
    if low < 0:
        ax.axhline(0, color=FAINT, linewidth=0.8, zorder=0)
    ax.xaxis.set_major_locator(LogLocator(10, numticks=12))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda n, _: count_text(n).replace(".0", "")))
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    label_axes(ax, "parameters (count, logarithmic)", metric)
    missing = f"; {n_missing} without a score left out" if n_missing else ""
    ax.set_title(
        f"points: neurons; large markers and numbers: medians{missing}", loc="left",
        fontsize=SMALL_SIZE, color=MUTED,
    )  # fmt: skip
    return ax


def plot_filters_by_group(
    groups: Mapping[str, Int[np.ndarray, "_ 6"]], *, ax: Axes | None = None
) -> Axes:
    """Draw how many filters models of several groups keep in six stages.

    A marker is the median over a group's models, the line through it reaches from the lower to
    the upper quartile.

    Parameters
    ----------
    groups
        Name, such as an area or a pruning criterion, to the counts of its models ``(n, 6)`` as the
        paper has them: layer 0's kernels, the depthwise kernels of layers 1 to 4, and the spatial
        readouts.
    ax
        Where to draw; by default the axes of a new figure.

    Raises
    ------
    InputError
        If there is no group, one is empty, or a count is below 1.
    """
    wrong = {k: v.shape for k, v in groups.items() if not v.size or v.min() < 1}
    if wrong or not groups:
        raise InputError(
            "every group needs positive counts (n_models, 6): layer 0's kernels, the depthwise "
            f"kernels of layers 1 to 4, and the spatial readouts; got {wrong or 'no group'}"
        )
    ax = axes_or_new(ax, (5.8, 4.0))
    colours = model_colours(groups)
    places = np.arange(len(STAGES))
    step = min(0.16, 0.7 / len(groups))
    ends = []
    for number, (name, counts) in enumerate(groups.items()):
        x = places + (number - (len(groups) - 1) / 2) * step
        low, middle, high = np.quantile(counts, [0.25, 0.5, 0.75], axis=0)
        ends += [low.min(), high.max()]
        ax.vlines(x, low, high, color=colours[name], linewidth=2, alpha=0.55, zorder=2)
        ax.plot(
            x, middle, linestyle="none", marker=_MARKERS[number % len(_MARKERS)], markersize=7,
            color=colours[name], markeredgecolor="white", zorder=3,
            label=f"{name} (n = {len(counts)})",
        )  # fmt: skip
    mark_counts(ax, min(ends) / 1.3, max(ends) * 1.3)
    ax.set_xlim(-0.6, len(STAGES) - 0.4)
    label_axes(ax, "", "filters per model (median, quartiles)")
    longest = max(len(text) for text in ax.get_legend_handles_labels()[1])
    room = _width_points(ax) / (0.46 * SMALL_SIZE)  # in characters
    n_columns = min(max(int(room / (longest + 5)), 1), len(groups))
    legend = ax.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=n_columns, frameon=False,
        fontsize=SMALL_SIZE, handletextpad=0.3, columnspacing=1.4, borderaxespad=0.2,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
    return ax


def plot_score_by_filters(
    kinds: Mapping[str, Mapping[int, tuple[float, float, float]]],
    *,
    metric: str,
    ax: Axes | None = None,
) -> Axes:
    """Draw what models of several kinds score against their number of early filters.

    A marker is a median over neurons, the line through it its interval; markers of one kind are
    joined, and kinds are set a little apart so that intervals do not hide each other.

    Parameters
    ----------
    kinds
        Name, such as "trained" or "random", to filters in each early layer, and for these the
        median score and the lower and upper end of its interval.
    metric
        Label of the score axis.
    ax
        Where to draw; by default the axes of a new figure.

    Raises
    ------
    InputError
        If there is no score, a number of filters is below 1, or a score is not finite.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Fig. 3e.
    """
    table = {name: np.array(list(by.values())) for name, by in kinds.items()}
    wrong = [
        name
        for name, by in kinds.items()
        if not by or min(by) < 1 or not np.isfinite(table[name]).all()
    ]
    if wrong or not kinds:
        raise InputError(
            "every kind needs finite scores (median, low, high) by numbers of filters of 1 or "
            f"more; got none for {wrong or 'no kind at all'}"
        )
    ax = axes_or_new(ax, (5.2, 3.9))
    colours = model_colours(kinds)
    for number, (name, by) in enumerate(kinds.items()):
        shift = 1.03 ** (number - (len(kinds) - 1) / 2)
        x, order = np.array(sorted(by)) * shift, np.argsort(list(by))
        middle, low, high = table[name][order].T
        ax.vlines(x, low, high, color=colours[name], linewidth=1.6, alpha=0.6, zorder=2)
        ax.plot(
            x, middle, marker=_MARKERS[number % len(_MARKERS)], markersize=7, linewidth=1.2,
            color=colours[name], markeredgecolor="white", label=name, zorder=3,
        )  # fmt: skip
    sizes = sorted({size for by in kinds.values() for size in by})
    ax.set_xscale("log")
    ax.set_xlim(sizes[0] / 1.25, sizes[-1] * 1.25)
    ax.set_xticks(sizes, [str(size) for size in sizes])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_ylim(bottom=min(0.0, *(float(values.min()) for values in table.values())))
    label_axes(ax, "filters in each of the first three layers", metric)
    legend = ax.legend(loc="lower right", frameon=False, fontsize=TEXT_SIZE)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return ax


def _checked(
    models: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], int]:
    """Return counts and scores of the neurons that have a score, and how many have none."""
    drawn, n_missing = {}, 0
    for name, (counts, scores) in models.items():
        if len(counts) != len(scores):
            raise InputError(
                f"{name}: one parameter count a score is needed, got {len(counts)} and "
                f"{len(scores)}"
            )
        known = ~np.isnan(scores)
        n_missing += int((~known).sum())
        if np.isinf(scores).any() or not (counts[known] >= 1).all():
            raise InputError(f"{name}: scores must be finite or NaN, and parameters at least 1")
        if known.any():
            drawn[name] = (counts[known].astype(np.float64), scores[known].astype(np.float64))
    if not drawn:
        raise InputError(f"no kind of model has a score: {list(models) or 'none given'}")
    return drawn, n_missing


def _write_names(
    ax: Axes,
    medians: Mapping[str, tuple[float, float]],
    colours: Mapping[str, str],
    markers: Mapping[str, str],
) -> int:
    """Write each kind's name and median score above it, and return how many rows it took."""
    left, right = ax.get_xlim()
    character = 0.62 * TEXT_SIZE / _width_points(ax)  # of the axes' width; bold is wide
    rows: list[list[tuple[float, float]]] = []
    for name in sorted(medians, key=lambda name: medians[name]):
        text = f"{name} {medians[name][1]:.2f}"
        half = character * (len(text) + 3) / 2
        centre = math.log(medians[name][0] / left) / math.log(right / left)
        centre = max(min(centre, 1 - half), half)
        free = (all(abs(centre - c) > half + h for c, h in taken) for taken in rows)
        row = next((i for i, is_free in enumerate(free) if is_free), len(rows))
        rows[row:] = rows[row:] or [[]]
        rows[row].append((centre, half))
        height = 1 - _NAME_ROW * (row + 0.5)
        ax.plot(
            centre - half + character, height, marker=markers[name], markersize=7,
            color=colours[name], transform=ax.transAxes,
        )  # fmt: skip
        ax.text(
            centre - half + 2 * character, height, text, transform=ax.transAxes,
            va="center_baseline", fontsize=TEXT_SIZE, color=colours[name], fontweight="bold",
            parse_math=False,
        )  # fmt: skip
    return len(rows)


def _width_points(ax: Axes) -> float:
    return float(ax.get_window_extent().width * 72 / ax.figure.dpi)
