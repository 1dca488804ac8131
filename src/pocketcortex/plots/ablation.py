"""What is lost when filters are taken out of a model, one at a time or layer by layer."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Num
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pocketcortex.core import InputError
from pocketcortex.plots.size import STAGES
from pocketcortex.plots.style import (
    INK,
    MUTED,
    SMALL_SIZE,
    TEXT_SIZE,
    axes_or_new,
    label_axes,
    swarm_offsets,
)
from pocketcortex.plots.tuning import CURVE_COLOURS, plot_tuning

STAGE_COLOURS = ("#4477AA", "#66CCEE", "#228833", "#CCBB44", "#EE6677", "#AA3377")
"""Of the six stages, layer 0's kernels first: Tol's bright set, apart for colour-blind readers."""
STAGE_NAMES = ("layer 0", "layer 1", "layer 2", "layer 3", "layer 4", "readout")

_LOWEST = -1.0  # of an index whose best value is 1: below stand only arrowheads
_WIDTH, _HEIGHT = 10.0, 3.7  # inches


def plot_ablation(
    effects: Sequence[Float[np.ndarray, " _"]],
    *,
    measure: str,
    unchanged: float = 0.0,
    n_labelled: int = 8,
    lowest: float = _LOWEST,
    ax: Axes | None = None,
) -> Axes:
    """Draw the effect of ablating each filter by itself, a strip of points for each stage.

    The filters of the largest effect in all carry their number within their stage. Values below
    `lowest` are drawn as arrowheads at the lower border, with the least of them written out.

    Parameters
    ----------
    effects
        One value a filter for layer 0's kernels, the depthwise kernels of layers 1 to 4, and the
        spatial readouts.
    measure
        What they are, such as "dot-size invariance (1: flat, 0: unchanged)".
    unchanged
        Value of a filter that does nothing, drawn as a line; effects are counted from there.
    n_labelled
        Filters to write the number of.
    lowest
        Where the axis ends if values go on below.
    ax
        Where to draw; by default the axes of a new figure.

    Raises
    ------
    InputError
        If there are not six stages, one has no filter, or a value is not finite.
    """
    if len(effects) != len(STAGES) or not all(len(stage) for stage in effects):
        raise InputError(
            f"effects must be those of the filters of {len(STAGES)} stages: layer 0's kernels, the "
            "depthwise kernels of layers 1 to 4, and the spatial readouts; got "
            f"{[len(stage) for stage in effects]}"
        )
    every = np.concatenate(effects)
    if not np.isfinite(every).all():
        raise InputError("effects hold NaN or infinite values")
    ax = axes_or_new(ax, (5.0, 3.6))
    low, high = max(float(every.min()), lowest), float(every.max())
    span = max(high - low, 1e-9)
    stages = np.repeat(np.arange(len(STAGES)), [len(stage) for stage in effects])
    numbers = np.concatenate([np.arange(len(stage)) for stage in effects])
    offsets = np.concatenate([
        swarm_offsets(
            np.clip(stage, lowest, None), bin_width=span / 40, step=0.075, half_width=0.38
        )
        for stage in effects
    ])  # fmt: skip
    below = every < lowest
    ax.axhline(unchanged, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    for stage, colour in enumerate(STAGE_COLOURS):
        style = {"color": colour, "linewidths": 0.4, "edgecolors": "white", "zorder": 2}
        here = (stages == stage) & ~below
        ax.scatter(stage + offsets[here], every[here], s=20, **style)  # type: ignore[arg-type]
        under = (stages == stage) & below
        if under.any():
            ax.scatter(
                stage + offsets[under], np.full(under.sum(), lowest), s=34, marker="v",
                clip_on=False, **style,  # type: ignore[arg-type]
            )  # fmt: skip
            ax.annotate(
                f"to {every[under].min():.2g}".replace("-", "−"), (stage, lowest), (0, 7),
                textcoords="offset points", ha="center", fontsize=SMALL_SIZE - 1, color=MUTED,
            )  # fmt: skip
    by_effect = np.argsort(-np.abs(every - unchanged), kind="stable")
    labelled = by_effect[~below[by_effect]][:n_labelled]
    for k, y in zip(labelled, _apart(every[labelled], stages[labelled], 0.045 * span), strict=True):
        ax.annotate(
            str(numbers[k]), (stages[k] + offsets[k], y), (3.5, 0), textcoords="offset points",
            va="center", fontsize=SMALL_SIZE - 0.5, color=INK,
        )  # fmt: skip
    ax.set_ylim(low - 0.05 * span, high + 0.07 * span)
    ax.set_xlim(-0.55, len(STAGES) - 0.45)
    ax.set_xticks(range(len(STAGES)), STAGES)
    ax.tick_params(axis="x", length=0, labelsize=SMALL_SIZE - 0.5)
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    label_axes(ax, "", measure)
    return ax


def figure_ablation(
    effects: Sequence[Float[np.ndarray, " _"]],
    x: Num[np.ndarray, " n"],
    intact: Float[np.ndarray, " n"],
    filters: Mapping[str, Float[np.ndarray, " n"]],
    layers: Mapping[str, Float[np.ndarray, " n"]],
    *,
    measure: str = "dot-size invariance index\n(1: flat, 0: unchanged)",
    unchanged: float = 0.0,
    x_label: str = "radius (px)",
    n_labelled: int = 8,
    title: str = "",
    units: str = "a.u.",
) -> Figure:
    """Return the effect of each filter's ablation, and tuning curves after some ablations.

    At the left a strip of points for each stage; in the middle the intact curve and those after
    ablating single filters; at the right those after ablating whole layers.

    Parameters
    ----------
    effects
        One value a filter for each of six stages, as for `plot_ablation`.
    x
        The stimuli's parameter, increasing.
    intact
        Responses of the whole model.
    filters
        Name of a filter, such as "layer 2, no. 7", to the responses without it; six at most.
    layers
        Name of a layer to the responses with all its filters ablated; six at most.
    measure, unchanged, n_labelled
        As for `plot_ablation`.
    x_label
        What x is, with its unit.
    title
        Stands above the panels; empty leaves it out.
    units
        Of the responses.

    Raises
    ------
    InputError
        If there are more than six curves in a panel, one has not one finite response for each x,
        x does not increase, or as for `plot_ablation`.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Fig. 4e.
    """
    most = len(CURVE_COLOURS) - 1
    if max(len(filters), len(layers)) > most:
        raise InputError(
            f"at most {most} curves are told apart beside the intact one, got {len(filters)} of "
            f"filters and {len(layers)} of layers; give the strongest"
        )
    figure = Figure(figsize=(_WIDTH, _HEIGHT + 0.3 * bool(title)), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(0.95, 1))[0]
    axes = [left.subplots(), *right.subplots(1, 2, sharey=True)]
    plot_ablation(effects, measure=measure, unchanged=unchanged, n_labelled=n_labelled, ax=axes[0])
    for ax, curves, name in zip(
        axes[1:], (filters, layers), ("single filters", "whole layers"), strict=True
    ):
        plot_tuning(x, {"intact": intact, **curves}, x_label=x_label, units=units, ax=ax)
        _legend_below(ax, len(curves) + 1)
        panel_title(ax, f"{name} ablated")
    axes[2].set_ylabel("")
    n = sum(len(stage) for stage in effects)
    panel_title(axes[0], f"each of {n} filters ablated by itself")
    heading(figure, title)
    return figure


def panel_title(ax: Axes, text: str) -> None:
    """Write a panel's name above it."""
    ax.set_title(text, loc="left", fontsize=TEXT_SIZE, color=INK, fontweight="bold", pad=8)


def heading(figure: Figure, title: str) -> None:
    """Write a figure's heading; an empty one leaves it out."""
    if title:
        figure.suptitle(
            title, x=0.01, ha="left", fontsize=TEXT_SIZE + 2, color=INK, fontweight="bold"
        ).set_parse_math(False)


def _apart(heights: np.ndarray, groups: np.ndarray, least: float) -> Float[np.ndarray, " n"]:
    """Return heights of labels, raised so that those of a group are apart by `least`."""
    placed = heights.copy()
    for group in np.unique(groups):
        below = -np.inf
        members = np.flatnonzero(groups == group)
        for k in members[np.argsort(heights[members], kind="stable")]:
            below = placed[k] = max(heights[k], below + least)
    return placed


def _legend_below(ax: Axes, n: int) -> None:
    """Put the names of curves under the axes, two in a line."""
    legend = ax.legend(
        loc="upper center", bbox_to_anchor=(0.45, -0.2), ncols=2 if n > 3 else 1, frameon=False,
        fontsize=SMALL_SIZE - 0.5, handlelength=1.2, columnspacing=0.8, labelspacing=0.3,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
