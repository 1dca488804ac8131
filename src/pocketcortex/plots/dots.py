"""Dot detectors of a population: how each answers to dots of growing size."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pocketcortex.core import InputError
from pocketcortex.plots.style import FAINT, INK, SMALL_SIZE, axes_or_new, label_axes

_BEST, _NAMED = "#D55E00", 9
_COLOURS = ("#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7A5195", "#000000", "#8A8A8A")
_DASHES = ("-", (0, (4, 2)))


def plot_dot_curves(
    curves: Float[np.ndarray, "n_models n_radii"],
    radii_px: Float[np.ndarray, " n_radii"],
    names: Sequence[str],
    *,
    ax: Axes | None = None,
) -> Figure:
    """Plot responses to dots against their radius, best detector first and drawn strongest.

    Parameters
    ----------
    curves
        Responses above grey over that to the best small dot.
    radii_px
        Radii in pixels, growing.
    names
        What to call each model; the first nine are named.
    ax
        Where to draw; by default the axes of a new figure.

    Raises
    ------
    InputError
        If there is no model, or the numbers differ.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Fig. 4b.
    """
    if not len(curves) or len(names) != len(curves):
        raise InputError(f"need a name for each of one or more curves, got {len(names)} names and "
                         f"{len(curves)} curves")  # fmt: skip
    ax = axes_or_new(ax, (7.6, 3.6))
    ax.axhline(0, color=FAINT, linewidth=1, zorder=0)
    for k in reversed(range(len(curves))):
        named = k < _NAMED
        colour = _BEST if k == 0 else _COLOURS[(k - 1) % 8] if named else FAINT
        ax.plot(
            radii_px, curves[k], color=colour,
            linewidth=2.4 if k == 0 else 1.1, zorder=3 if k == 0 else 2, marker="o",
            markersize=3.5 if k == 0 else 2, label=names[k] if named else None,
            linestyle=_DASHES[k % 2],
        )  # fmt: skip
    ax.set_xscale("log")
    ticks = [float(f"{radius:.2g}") for radius in radii_px[::2]]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    label_axes(ax, "dot radius (pixels, logarithmic)", "response above grey (of the best dot)")
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(
        handles[::-1], labels[::-1], frameon=False, fontsize=SMALL_SIZE, labelcolor=INK,
        loc="upper left", bbox_to_anchor=(1.01, 1),
    )  # fmt: skip
    figure = ax.get_figure()
    assert isinstance(figure, Figure)  # noqa: S101
    return figure
