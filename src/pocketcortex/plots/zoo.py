"""Networks ranked against recordings: leaderboards, layers, training, properties."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from pocketcortex.core import InputError
from pocketcortex.plots.labels import name_points
from pocketcortex.plots.style import (
    FAINT,
    INK,
    MUTED,
    SMALL_SIZE,
    TEXT_SIZE,
    axes_or_new,
    label_axes,
)

TRAINED, RANDOM, OWN = "#0072B2", "#9A9A9A", "#D55E00"
"""Colours of trained networks, of random ones, and of models of neurons."""

_CURVES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#000000")
_FEW_DECADES = 100
"""Ratio of a logarithmic axis' ends below which more than its powers of ten are written."""
_MOST_NAMES = 12
"""Beside points of one scatter."""
IN_SAMPLE = "in sample"
"""Kind of models of neurons that have seen the responses they are scored on."""
_KINDS = {"trained": TRAINED, "random": RANDOM, "own": OWN, IN_SAMPLE: OWN}
_LABELS = {
    "trained": "trained networks", "random": "random weights", "own": "models of neurons",
    IN_SAMPLE: "models of these neurons (in sample, no rank)",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """Scores of networks on one area.

    Attributes
    ----------
    area, metric
        What was scored: the title, and the axis' label.
    models
        Names, best first.
    values
        Scores; NaN are drawn as a dash.
    intervals
        Lower and upper ends.
    kinds
        ``"trained"``, ``"random"``, ``"own"`` (models of neurons), or `IN_SAMPLE` (models of
        neurons that have seen the responses they are scored on), drawn hollow.
    ceiling
        Noise ceiling, None or NaN if not known.

    Raises
    ------
    InputError
        If there is no model, lengths differ, or a kind is unknown.
    """

    area: str
    metric: str
    models: Sequence[str]
    values: Float[np.ndarray, " n_models"]
    intervals: Float[np.ndarray, "n_models 2"]
    kinds: Sequence[str]
    ceiling: float | None = None

    def __post_init__(self) -> None:
        n = len(self.models)
        lengths = (len(self.values), len(self.intervals), len(self.kinds))
        if not n or set(lengths) != {n} or not set(self.kinds) <= set(_KINDS):
            raise InputError(
                f"a leaderboard needs one value, interval and kind ({', '.join(_KINDS)}) for each "
                f"of its models, got {n} models, {lengths} and {sorted(set(self.kinds))}"
            )


@dataclass(frozen=True, eq=False)
class LayerCurves:
    """Scores of layers by depth.

    Attributes
    ----------
    area, metric
        The title, and the axis' label.
    curves
        Of each trained network: depths, 0 (first layer) to 1, and scores.
    random
        Of random twins, by the trained network's name; drawn in its colour, dashed.
    """

    area: str
    metric: str
    curves: Mapping[str, tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"]]]
    random: Mapping[str, Sequence[tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"]]]] = field(
        default_factory=dict
    )


@dataclass(frozen=True, eq=False)
class TrainedRandom:
    """Trained networks beside their random twins.

    Attributes
    ----------
    area, metric
        The title, and the axis' label.
    models
        Names of the trained networks.
    trained, intervals
        Their scores and ends of the intervals.
    random
        Scores of each one's twins.
    note
        Written below the title, such as the mean difference with its interval.
    """

    area: str
    metric: str
    models: Sequence[str]
    trained: Float[np.ndarray, " n_models"]
    intervals: Float[np.ndarray, "n_models 2"]
    random: Sequence[Float[np.ndarray, " _"]]
    note: str = ""


@dataclass(frozen=True, eq=False)
class PropertyScatter:
    """Scores of networks against one of their properties.

    Attributes
    ----------
    property, metric
        Labels of the axes.
    models
        Names, written beside all but random networks if they are few.
    x, y
        Property and score.
    kinds
        ``"trained"``, ``"random"`` or ``"own"`` (models of neurons).
    note
        Written above, such as the correlation with its interval.
    logarithmic
        Whether the property's axis is.

    Raises
    ------
    InputError
        If lengths differ, or a kind is unknown.
    """

    property: str
    metric: str
    models: Sequence[str]
    x: Float[np.ndarray, " n_models"]
    y: Float[np.ndarray, " n_models"]
    kinds: Sequence[str]
    note: str = ""
    logarithmic: bool = False

    def __post_init__(self) -> None:
        lengths = {len(self.models), len(self.x), len(self.y), len(self.kinds)}
        if len(lengths) > 1 or not set(self.kinds) <= set(_KINDS):
            raise InputError(
                f"a scatter needs one name, property, score and kind ({', '.join(_KINDS)}) for "
                f"each network, got lengths {sorted(lengths)} and kinds {sorted(set(self.kinds))}"
            )


def plot_leaderboard(board: Leaderboard, *, ax: Axes | None = None) -> Axes:
    """Draw each network's score with its interval, best on top, and the noise ceiling.

    Parameters
    ----------
    board
        The scores.
    ax
        Where to draw; by default the axes of a new figure.
    """
    n = len(board.models)
    ax = axes_or_new(ax, (6.4, 1.3 + 0.235 * n))
    for place, (value, ends, kind) in enumerate(
        zip(board.values, board.intervals, board.kinds, strict=True)
    ):
        colour = _KINDS[kind]
        if not np.isfinite(value):
            ax.text(0, place, "–", va="center", ha="center", color=MUTED, fontsize=SMALL_SIZE)
            continue
        ax.plot(ends, [place, place], color=colour, linewidth=1.6, solid_capstyle="butt")
        ax.plot(value, place, **_mark(kind), zorder=3)
    ax.axvline(0, color=FAINT, linewidth=1, zorder=0)
    if board.ceiling is not None and np.isfinite(board.ceiling):
        ax.axvline(board.ceiling, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        ax.annotate(
            "noise ceiling", (board.ceiling, 1), (-3, -3), ("data", "axes fraction"),
            "offset points", rotation=90, va="top", ha="right", color=MUTED, fontsize=SMALL_SIZE,
        )  # fmt: skip
    ax.set_ylim(n - 0.4, -0.6)
    ax.set_yticks(range(n), board.models)
    for tick in ax.get_yticklabels():
        tick.set_parse_math(False)
    ax.tick_params(axis="y", length=0, labelsize=SMALL_SIZE)
    ax.spines["left"].set_visible(False)
    label_axes(ax, board.metric, "")
    _title(ax, board.area)
    _kind_legend(ax, board.kinds)
    return ax


def plot_layer_curves(curves: LayerCurves, *, ax: Axes | None = None) -> Axes:
    """Draw scores by depth: trained networks as lines, the mean of their random twins dashed.

    Parameters
    ----------
    curves
        The scores.
    ax
        Where to draw; by default the axes of a new figure.
    """
    ax = axes_or_new(ax, (6.0, 3.8))
    ax.axhline(0, color=FAINT, linewidth=1, zorder=0)
    few = len(curves.curves) <= len(_CURVES)
    for place, (name, (depth, score)) in enumerate(curves.curves.items()):
        colour = _CURVES[place] if few else TRAINED
        (drawn,) = ax.plot(
            depth, score, "-", color=colour, marker="o" if few else None, markersize=3.2,
            label=name if few else None, linewidth=1.6 if few else 0.8, alpha=1 if few else 0.5,
        )  # fmt: skip
        twins = curves.random.get(name, ())
        if twins:
            depths, mean = _mean_curve(twins)
            ax.plot(
                depths, mean, linestyle=(0, (3, 2)), color=drawn.get_color() if few else RANDOM,
                linewidth=1.1 if few else 0.8, alpha=0.75,
            )  # fmt: skip
    ax.set_xlim(-0.02, 1.02)
    label_axes(ax, "relative depth of the layer (0 first, 1 last)", curves.metric)
    _title(ax, curves.area, "solid: trained; dashed: random weights, mean of seeds")
    if few:
        _legend(ax)
    return ax


def plot_trained_random(pairs: TrainedRandom, *, ax: Axes | None = None) -> Axes:
    """Draw each trained network beside its random twins, joined by a line.

    Parameters
    ----------
    pairs
        The scores.
    ax
        Where to draw; by default the axes of a new figure.
    """
    n = len(pairs.models)
    ax = axes_or_new(ax, (1.6 + 0.75 * n, 3.6))
    ax.axhline(0, color=FAINT, linewidth=1, zorder=0)
    for place, (value, ends, random) in enumerate(
        zip(pairs.trained, pairs.intervals, pairs.random, strict=True)
    ):
        left, right = place - 0.17, place + 0.17
        ax.plot([left, right], [np.mean(random), value], color=FAINT, linewidth=1.4, zorder=1)
        ax.plot(
            np.full(len(random), left), random, "o", markersize=4.6, color=RANDOM,
            markeredgecolor="white", markeredgewidth=0.6, label="random seeds" if not place else "",
        )  # fmt: skip
        ax.plot([right, right], ends, color=TRAINED, linewidth=1.6, solid_capstyle="butt")
        ax.plot(
            right, value, "o", markersize=6, color=TRAINED, markeredgecolor="white",
            markeredgewidth=0.7, zorder=3, label="trained" if not place else "",
        )  # fmt: skip
    ax.set_xlim(-0.6, n - 0.4)
    steep = n > 3
    ax.set_xticks(
        range(n), pairs.models, rotation=25 if steep else 0, ha="right" if steep else "center"
    )
    for tick in ax.get_xticklabels():
        tick.set_parse_math(False)
    ax.tick_params(axis="x", length=0, labelsize=SMALL_SIZE)
    label_axes(ax, "", pairs.metric)
    _title(ax, pairs.area, pairs.note)
    _legend(ax)
    return ax


def plot_property_scatter(scatter: PropertyScatter, *, ax: Axes | None = None) -> Axes:
    """Draw scores against a property: one point a network.

    Parameters
    ----------
    scatter
        Property and scores.
    ax
        Where to draw; by default the axes of a new figure.
    """
    ax = axes_or_new(ax, (4.6, 3.6))
    _draw_scatter(scatter, ax)
    figure = ax.get_figure(root=True)
    assert figure is not None  # noqa: S101 - axes are drawn on one
    figure.draw_without_rendering()
    _name_scatter(scatter, ax)
    return ax


def _draw_scatter(scatter: PropertyScatter, ax: Axes) -> None:
    kinds = np.array(scatter.kinds)
    for kind in reversed(_KINDS):
        mask = kinds == kind
        if mask.any():
            ax.plot(scatter.x[mask], scatter.y[mask], **_mark(kind), label=_LABELS[kind])
    if scatter.logarithmic:
        ax.set_xscale("log")
    ax.margins(x=0.16, y=0.14)
    if scatter.logarithmic:
        low, high = ax.get_xlim()
        steps = (1, 2, 5) if high < _FEW_DECADES * low else (1,)
        ax.xaxis.set_major_locator(LogLocator(subs=steps))
        ax.xaxis.set_major_formatter(EngFormatter())
        ax.xaxis.set_minor_formatter(NullFormatter())
    label_axes(ax, scatter.property, scatter.metric)
    _title(ax, "", scatter.note)


def _name_scatter(scatter: PropertyScatter, ax: Axes) -> None:
    """Write the names, once the layout is what will be drawn."""
    points = np.column_stack([scatter.x, scatter.y]).astype(np.float64)
    known = np.isfinite(points).all(axis=1)
    named = known & (np.array(scatter.kinds) != "random")
    if named.sum() <= _MOST_NAMES:
        names = [scatter.models[k] for k in np.flatnonzero(named).tolist()]
        name_points(ax, names, points[named], points[known & ~named])


def figure_zoo(
    board: Leaderboard,
    curves: LayerCurves,
    pairs: TrainedRandom | None = None,
    scatters: Sequence[PropertyScatter] = (),
) -> Figure:
    """Return one area's leaderboard, layers, trained against random, and properties.

    Parameters
    ----------
    board, curves
        The left and the upper panels.
    pairs
        Upper right; None leaves it out.
    scatters
        Below, up to three.
    """
    n_rows = 2 if scatters else 1
    height = max(1.3 + 0.235 * len(board.models), 3.9 * n_rows)
    figure = Figure(figsize=(15.6, height), layout="constrained")
    columns = figure.subfigures(1, 2, width_ratios=(1, 2.1), squeeze=False)
    plot_leaderboard(board, ax=columns[0, 0].add_subplot())
    rows = columns[0, 1].subfigures(n_rows, 1, squeeze=False)[:, 0]
    n_above = 1 + (pairs is not None)
    plot_layer_curves(curves, ax=rows[0].add_subplot(1, n_above, 1))
    if pairs is not None:
        plot_trained_random(pairs, ax=rows[0].add_subplot(1, 2, 2))
    drawn: list[tuple[PropertyScatter, Axes]] = []
    for place, scatter in enumerate(scatters[:3]):
        ax = rows[1].add_subplot(1, len(scatters[:3]), place + 1)
        _draw_scatter(scatter, axes_or_new(ax, (4.6, 3.6)))
        if place:
            ax.set_ylabel("")
        drawn.append((scatter, ax))
    figure.draw_without_rendering()
    for scatter, ax in drawn:
        _name_scatter(scatter, ax)
    return figure


def _mean_curve(
    twins: Sequence[tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"]]],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Return the mean of curves of one architecture, which have the same depths."""
    depth = twins[0][0]
    same = [score for d, score in twins if len(d) == len(depth)]
    return depth, np.mean(same, axis=0)


def _mark(kind: str) -> dict[str, Any]:
    """Return how a network's point is drawn: filled, hollow where its score is no test."""
    colour, hollow = _KINDS[kind], kind == IN_SAMPLE
    return {
        "marker": "o", "linestyle": "none", "markersize": 5.5, "color": colour,
        "markerfacecolor": "white" if hollow else colour,
        "markeredgecolor": colour if hollow else "white",
        "markeredgewidth": 1.1 if hollow else 0.7,
    }  # fmt: skip


def _kind_legend(ax: Axes, kinds: Sequence[str]) -> None:
    there = [kind for kind in _KINDS if kind in kinds]
    for kind in there:
        ax.plot([], [], **_mark(kind), label=_LABELS[kind])
    if len(there) > 1:
        _legend(ax)


def _legend(ax: Axes) -> None:
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        legend = ax.legend(
            handles, labels, fontsize=SMALL_SIZE, facecolor="white", edgecolor="none",
            framealpha=0.85, labelcolor=INK, handlelength=1.4,
        )  # fmt: skip
        for text in legend.get_texts():
            text.set_parse_math(False)


def _title(ax: Axes, title: str, note: str = "") -> None:
    text = f"{title}\n{note}" if title and note else title or note
    size = TEXT_SIZE if title and not note else SMALL_SIZE + 0.5
    ax.set_title(text, loc="left", fontsize=size, color=INK).set_parse_math(False)
