"""Models compared layer by layer: filters, kernels, representations."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from pocketcortex.core import InputError
from pocketcortex.plots.size import plot_filters_per_layer
from pocketcortex.plots.style import (
    FAINT,
    INK,
    MODEL_COLOURS,
    MUTED,
    SMALL_SIZE,
    TEXT_SIZE,
    axes_or_new,
    label_axes,
    swarm_offsets,
)

_FEW = 120  # more values of a layer are drawn as their density
_HALF_WIDTH = 0.36
_BRACKET, _STEM = 0.11, 0.025  # of the height of all values
_HEIGHT = 3.7  # inches


@dataclass(frozen=True, eq=False)
class LayerComparison:
    """One measure of several layers, such as the similarity of all pairs of models.

    Attributes
    ----------
    measure
        What it is: the label of the axis.
    layers
        Names of the layers.
    values
        Of each layer, one a pair of models, or a model, or a run.
    interval
        Lower and upper end of each layer's mean's interval; None leaves it out.
    reference
        Lower and upper end of what is expected by chance in each layer, such as of random
        weights; None leaves it out.
    reference_name
        What that is.
    tests
        Two groups of layers (numbers counted from 0) and the p of their difference, each drawn
        as a bracket.

    Raises
    ------
    InputError
        If there is no layer, one has no value, a value is not finite, or intervals, reference or
        tests do not fit the layers.
    """

    measure: str
    layers: Sequence[str]
    values: Sequence[Float[np.ndarray, " _"]]
    interval: Float[np.ndarray, "n_layers 2"] | None = None
    reference: Float[np.ndarray, "n_layers 2"] | None = None
    reference_name: str = "random weights"
    tests: Sequence[tuple[Sequence[int], Sequence[int], float]] = ()

    def __post_init__(self) -> None:
        n = len(self.layers)
        if not n or len(self.values) != n or not all(len(layer) for layer in self.values):
            raise InputError(
                f"{self.measure}: need one or more values for each of {n} layers, got "
                f"{[len(layer) for layer in self.values]}"
            )
        if not all(np.isfinite(layer).all() for layer in self.values):
            raise InputError(f"{self.measure}: values hold NaN or infinite ones; leave those out")
        for name, ends in (("interval", self.interval), ("reference", self.reference)):
            if ends is not None and ends.shape != (n, 2):
                raise InputError(f"{self.measure}: {name} must be ({n}, 2), got {ends.shape}")
        for first, second, _ in self.tests:
            if not first or not second or not {*first, *second} <= set(range(n)):
                raise InputError(
                    f"{self.measure}: a test needs two groups of layers 0 to {n - 1}, got "
                    f"{list(first)} and {list(second)}"
                )


def plot_by_layer(comparison: LayerComparison, *, ax: Axes | None = None) -> Axes:
    """Draw a measure layer by layer: all its values, their mean, and what chance gives.

    Up to 120 values of a layer are points, more are their density. The bar is the mean with its
    interval, the grey band the reference. A bracket joins two groups of layers that were tested.

    Parameters
    ----------
    comparison
        The values.
    ax
        Where to draw; by default the axes of a new figure.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Fig. 3b-c.
    """
    ax = axes_or_new(ax, (0.9 + 0.65 * len(comparison.layers), _HEIGHT))
    every = np.concatenate(comparison.values)
    ends = every if comparison.reference is None else np.append(every, comparison.reference)
    low, high = float(ends.min()), float(ends.max())
    span = max(high - low, 1e-9)
    colour = MODEL_COLOURS["compact"]
    for k, values in enumerate(comparison.values):
        _draw_values(ax, k, values, span, colour)
        mean = float(values.mean())
        ax.plot([k - 0.3, k + 0.3], [mean] * 2, color=INK, linewidth=1.8, zorder=4)
        if comparison.interval is not None:
            ax.plot([k] * 2, comparison.interval[k], color=INK, linewidth=1.8, zorder=4)
    if comparison.reference is not None:
        _draw_reference(ax, comparison.reference)
        ax.set_title(
            f"grey: {comparison.reference_name}", loc="left", fontsize=SMALL_SIZE, color=MUTED
        ).set_parse_math(False)
    top = high + 0.04 * span
    for first, second, p in comparison.tests:
        top += _BRACKET * span
        _draw_bracket(ax, first, second, p, top, _STEM * span)
    ax.set_ylim(low - 0.05 * span, top + (0.1 if comparison.tests else 0.04) * span)
    ax.set_xlim(-0.6, len(comparison.layers) - 0.4)
    ax.set_xticks(range(len(comparison.layers)), comparison.layers)
    for tick in ax.get_xticklabels():
        tick.set_parse_math(False)
    ax.tick_params(axis="x", length=0, labelsize=SMALL_SIZE)
    ticks = MaxNLocator(8, steps=[1, 2, 5, 10]).tick_values(low, high)
    ax.set_yticks([tick for tick in ticks if low - 0.05 * span <= tick <= high + 0.04 * span])
    label_axes(ax, "", comparison.measure)
    return ax


def figure_comparison(
    filters: Int[np.ndarray, "n_models 6"],
    measures: Sequence[LayerComparison],
    *,
    title: str = "",
) -> Figure:
    """Return how many filters models keep, and measures of their likeness, side by side.

    Parameters
    ----------
    filters
        Counts as the paper has them: layer 0's kernels, the depthwise kernels of layers 1 to 4,
        and the spatial readouts.
    measures
        Such as kernel similarity, CKA and effective dimensionality; three at most.
    title
        Stands above the panels; empty leaves it out.

    Raises
    ------
    InputError
        If there is no measure or more than three, or as for `plot_filters_per_layer`.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Fig. 3a-c.
    """
    if not 1 <= len(measures) <= 3:
        raise InputError(f"give one to three measures, got {len(measures)}")
    widths = [5.2, *(0.7 + 0.5 * len(one.layers) for one in measures)]
    figure = Figure(figsize=(sum(widths), _HEIGHT + 0.3 * bool(title)), layout="constrained")
    first, *others = figure.subplots(1, len(widths), width_ratios=widths)
    plot_filters_per_layer(filters, ax=first)
    first.tick_params(axis="x", labelsize=SMALL_SIZE - 0.5)
    for one, ax in zip(measures, others, strict=True):
        plot_by_layer(one, ax=ax)
    if title:
        figure.suptitle(
            title, x=0.01, ha="left", fontsize=TEXT_SIZE + 2, color=INK, fontweight="bold"
        ).set_parse_math(False)
    return figure


def _draw_values(ax: Axes, k: int, values: np.ndarray, span: float, colour: str) -> None:
    if len(values) <= _FEW or np.ptp(values) == 0:
        offsets = swarm_offsets(values, bin_width=span / 45, step=0.07, half_width=_HALF_WIDTH)
        ax.scatter(k + offsets, values, s=12, color=colour, alpha=0.6, linewidths=0, zorder=2)
        return
    drawn = ax.violinplot(values, [k], widths=2 * _HALF_WIDTH, showextrema=False)
    for body in drawn["bodies"]:  # type: ignore[attr-defined]
        body.set(facecolor=colour, alpha=0.45, linewidth=0, zorder=2)


def _draw_reference(ax: Axes, reference: np.ndarray) -> None:
    for k, (low, high) in enumerate(reference.tolist()):
        band = Rectangle((k - 0.45, low), 0.9, high - low, color=FAINT, linewidth=0, zorder=0)
        ax.add_patch(band)


def _draw_bracket(
    ax: Axes, first: Sequence[int], second: Sequence[int], p: float, y: float, stem: float
) -> None:
    """Draw a bar over each group and join their middles, with p above."""
    middles = []
    for group in (first, second):
        left, right = min(group) - 0.2, max(group) + 0.2
        ax.plot([left, right], [y - stem] * 2, color=INK, linewidth=1.0)
        middles.append((left + right) / 2)
    ax.plot(
        [middles[0], *middles, middles[1]], [y - stem, y, y, y - stem], color=INK, linewidth=1.0
    )
    text = "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
    ax.annotate(
        text, (sum(middles) / 2, y), (0, 1.5), textcoords="offset points", ha="center",
        va="bottom", fontsize=SMALL_SIZE, color=INK,
    )  # fmt: skip
