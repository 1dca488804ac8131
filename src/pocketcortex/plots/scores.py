"""How well models predict neurons: one against another, and several side by side."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator

from pocketcortex.core import InputError
from pocketcortex.plots.style import (
    FAINT,
    INK,
    MUTED,
    SMALL_SIZE,
    axes_or_new,
    label_axes,
    model_colours,
    swarm_offsets,
)

_POINT_AREA = 26.0
_PAPER = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}


def plot_r2_scatter(
    x: Float[np.ndarray, " n_neurons"],
    y: Float[np.ndarray, " n_neurons"],
    *,
    x_label: str,
    y_label: str,
    ax: Axes | None = None,
) -> Axes:
    """Draw one model's score of every neuron against another's, on equal axes.

    The dashed line is identity; triangles on the axes mark the medians over the neurons drawn. A
    neuron without both scores (NaN) is left out, and how many were is written in the corner.

    Parameters
    ----------
    x, y
        r² of the two models, one per neuron, in the same order; may be negative or above 1.
    x_label, y_label
        Model and measure; a kind of model named in a label gives its median's colour.
    ax
        Where to draw; by default the axes of a new figure.

    Raises
    ------
    InputError
        If the two differ in length or hold infinities.
    """
    if len(x) != len(y):
        raise InputError(f"x and y must hold the same neurons, got {len(x)} and {len(y)} scores")
    _refuse_infinite(x_label, x)
    _refuse_infinite(y_label, y)
    ax = axes_or_new(ax, (4.6, 4.6))
    known = ~(np.isnan(x) | np.isnan(y))
    x, y = x[known].astype(np.float64), y[known].astype(np.float64)
    low, high = _limits(np.concatenate([x, y]))
    ax.plot([low, high], [low, high], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    colours = model_colours([x_label, y_label])
    ax.scatter(
        x, y, s=_POINT_AREA, color=colours[y_label], alpha=0.75, edgecolors="white", linewidths=0.6
    )
    ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    ticks = [
        t for t in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= t <= high
    ]
    ax.set_xticks(ticks)
    ax.set_yticks(ticks)
    label_axes(ax, x_label, y_label)
    if len(x):
        _mark_medians(ax, (float(np.median(x)), colours[x_label]),
                      (float(np.median(y)), colours[y_label]))  # fmt: skip
    _write_count(ax, int(known.sum()), int((~known).sum()))
    return ax


def plot_r2_by_model(
    scores: Mapping[str, Float[np.ndarray, " _"]],
    *,
    metric: str,
    median_ci: Mapping[str, tuple[float, float]] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw every neuron's score under every model, the same neuron joined by a thin line.

    The thick bar is the median over the neurons that have a score, with its value; the band
    behind it is the interval given in `median_ci`. A missing score (NaN) is not drawn, breaks the
    neuron's line and is counted below the model's name.

    Parameters
    ----------
    scores
        Model name to one score per neuron, all in the same order of neurons; models are drawn in
        the mapping's order.
    metric
        Label of the score axis.
    median_ci
        Model name to lower and upper end of the median's interval; models may be absent.
    ax
        Where to draw; by default the axes of a new figure.

    Raises
    ------
    InputError
        If there is no model, the numbers of neurons differ, or a score is infinite.
    """
    sizes = {name: len(values) for name, values in scores.items()}
    if len(set(sizes.values())) != 1:
        raise InputError(
            f"every model needs one score per neuron, NaN where there is none; got {sizes}"
        )
    for name, values in scores.items():
        _refuse_infinite(name, values)
    ax = axes_or_new(ax, (max(3.2, 1.3 + 1.05 * len(scores)), 4.6))
    table = np.stack([np.asarray(v, dtype=np.float64) for v in scores.values()])  # (model, neuron)
    known = ~np.isnan(table)
    low, high = _limits(table[known])
    places = np.full(table.shape, np.nan)
    for row in range(len(table)):
        offsets = swarm_offsets(
            table[row, known[row]], bin_width=(high - low) / 45, step=0.055, half_width=0.28
        )
        places[row, known[row]] = row + offsets
    _join_neurons(ax, places, table)
    colours, ci = model_colours(scores), median_ci or {}
    for row, name in enumerate(scores):
        here = known[row]
        ax.scatter(
            places[row, here], table[row, here], s=_POINT_AREA, color=colours[name], alpha=0.75,
            edgecolors="white", linewidths=0.6, zorder=2,
        )  # fmt: skip
        if here.any():
            median = float(np.median(table[row, here]))
            _draw_median(ax, row, median, colours[name], ci.get(name))
    if low < 0:
        ax.axhline(0, color=FAINT, linewidth=0.8, zorder=0)
    ax.set(xlim=(-0.55, len(table) - 0.3), ylim=(low, high))
    ax.set_xticks(
        range(len(table)),
        [_with_count(name, here) for name, here in zip(scores, known, strict=True)],
    )
    for tick in ax.get_xticklabels():
        tick.set_parse_math(False)
    ax.tick_params(axis="x", length=0)
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    label_axes(ax, "", metric)
    return ax


def _limits(values: Float[np.ndarray, " _"]) -> tuple[float, float]:
    """Return shared limits: from 0, or below if scores are, to the next tenth."""
    if not len(values):
        return 0.0, 1.0
    lowest, highest = float(values.min()), float(values.max())
    margin = 0.03 * max(highest - min(lowest, 0.0), 0.1)
    low = 0.0 if lowest >= 0 else lowest - margin
    return low, max(np.ceil((highest + margin) * 10) / 10, 0.1)


def _mark_medians(ax: Axes, x: tuple[float, str], y: tuple[float, str]) -> None:
    low = ax.get_xlim()[0]
    (median_x, colour_x), (median_y, colour_y) = x, y
    ax.plot([median_x, median_x], [low, median_y], color=colour_x, linewidth=0.9, zorder=1)
    ax.plot([low, median_x], [median_y, median_y], color=colour_y, linewidth=0.9, zorder=1)
    marks = (("^", median_x, low, colour_x, (7, 7)), (">", low, median_y, colour_y, (9, 5)))
    for marker, left, bottom, colour, shift in marks:
        ax.plot(left, bottom, marker=marker, color=colour, markersize=8, clip_on=False, zorder=4)
        ax.annotate(
            f"median {median_x if marker == '^' else median_y:.2f}", (left, bottom), shift,
            textcoords="offset points", fontsize=SMALL_SIZE, color=colour, bbox=_PAPER,
        )  # fmt: skip


def _write_count(ax: Axes, n_drawn: int, n_left_out: int) -> None:
    text = f"n = {n_drawn} neuron{'s' * (n_drawn != 1)}"
    if n_left_out:
        text += f"\n{n_left_out} left out: no score"
    ax.text(0.03, 0.97, text, transform=ax.transAxes, va="top", fontsize=SMALL_SIZE, color=INK)


def _with_count(name: str, known: np.ndarray) -> str:
    missing = int((~known).sum())
    counted = f"{name}\nn = {int(known.sum())}"
    return f"{counted}\n{missing} without score" if missing else counted


def _join_neurons(ax: Axes, places: np.ndarray, table: np.ndarray) -> None:
    """Draw a segment between neighbouring models for each neuron that has both scores."""
    points = np.stack([places, table], axis=-1)  # (model, neuron, 2)
    segments = np.stack([points[:-1], points[1:]], axis=2).reshape(-1, 2, 2)
    segments = segments[~np.isnan(segments).any(axis=(1, 2))]
    ax.add_collection(LineCollection(list(segments), colors=FAINT, linewidths=0.6, zorder=1))


def _draw_median(
    ax: Axes, place: int, median: float, colour: str, ci: tuple[float, float] | None
) -> None:
    left, right = place - 0.31, place + 0.31
    if ci is not None and not np.isnan(ci).any():
        ax.fill_between([left, right], ci[0], ci[1], color=colour, alpha=0.18, lw=0, zorder=1.5)
    ax.plot([left, right], [median, median], color="white", linewidth=3.6, zorder=3)
    ax.plot([left, right], [median, median], color=colour, linewidth=2, zorder=3)
    ax.annotate(
        f"{median:.2f}", (right, median), (3, 0), textcoords="offset points", va="center",
        fontsize=SMALL_SIZE, color=INK, bbox=_PAPER, zorder=4,
    )  # fmt: skip


def _refuse_infinite(name: str, values: np.ndarray) -> None:
    if np.isinf(values).any():
        raise InputError(f"{name}: scores hold infinite values; give NaN where there is no score")
