"""What choosing images gains: score against images shown, one curve a strategy."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pocketcortex.core import InputError
from pocketcortex.plots.style import INK, SMALL_SIZE, axes_or_new, label_axes, model_colours

_REFERENCE, _LOOP = "#6A6A6A", "#D55E00"
_LEAST_GAP = 0.055  # between names at the right, of the axes' height

Curve = tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"], Float[np.ndarray, " _"]]
"""Value after each session, lower and upper end of its interval."""


def plot_learning_curves(
    n_images: Int[np.ndarray, " n_sessions"],
    curves: Mapping[str, Curve],
    *,
    metric: str,
    level: float = 0.9,
    ax: Axes | None = None,
) -> Axes:
    """Draw each strategy's score after each session, with bands for its intervals.

    The first curve is the reference, drawn dashed and grey; each curve's name and last value
    stand at its end.

    Parameters
    ----------
    n_images
        Images shown so far, after each session; rising.
    curves
        Strategy to score and interval after each session; NaN is not drawn.
    metric
        Label of the score axis.
    level
        Of the intervals, for the note.
    ax
        Where to draw; by default the axes of a new figure.

    Raises
    ------
    InputError
        If there is no curve, or one has another length than `n_images`.
    """
    lengths = {name: [len(part) for part in curve] for name, curve in curves.items()}
    wrong = [name for name, of in lengths.items() if set(of) != {len(n_images)}]
    if wrong or not curves:
        raise InputError(
            f"every curve needs a value and both ends for each of {len(n_images)} sessions; got "
            f"{lengths}"
        )
    ax = axes_or_new(ax, (6.4, 4.4))
    names = list(curves)
    colours = {names[0]: _REFERENCE}
    if len(names) > 1:
        colours |= {names[1]: _LOOP} | model_colours(names[2:])
    for rank, (name, (value, low, high)) in enumerate(curves.items()):
        ax.fill_between(n_images, low, high, color=colours[name], alpha=0.13, linewidth=0)
        ax.plot(
            n_images, value, color=colours[name], marker="o", markersize=4,
            linewidth=2.2 if rank == 1 else 1.5, linestyle=(0, (4, 2)) if rank == 0 else "-",
            zorder=3 if rank == 1 else 2,
        )  # fmt: skip
    ax.set_xticks(n_images)
    span = int(n_images[-1] - n_images[0]) or 1
    ax.set_xlim(n_images[0] - 0.04 * span, n_images[-1] + 0.42 * span)
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    label_axes(ax, "images shown", metric)
    _name_ends(ax, float(n_images[-1] + 0.03 * span), curves, colours)
    note = f"bands: {level:.0%} intervals"
    ax.text(0.02, 0.98, note, transform=ax.transAxes, va="top", fontsize=SMALL_SIZE, color=INK)
    return ax


def _name_ends(
    ax: Axes, place: float, curves: Mapping[str, Curve], colours: Mapping[str, str]
) -> None:
    """Write each name at its curve's end, moved up or down where two would overlap."""
    ends = {name: float(curve[0][-1]) for name, curve in curves.items()}
    known = sorted((name for name in ends if np.isfinite(ends[name])), key=ends.__getitem__)
    bottom, top = ax.get_ylim()
    gap = _LEAST_GAP * (top - bottom)
    heights: list[float] = []
    for name in known:
        heights.append(max(ends[name], heights[-1] + gap) if heights else ends[name])
    shift = sum(h - ends[name] for h, name in zip(heights, known, strict=True)) / max(len(known), 1)
    for name, height in zip(known, heights, strict=True):
        ax.text(
            place, height - shift, f"{name}  {ends[name]:.3f}", color=colours[name], va="center",
            fontsize=SMALL_SIZE, parse_math=False,
        )  # fmt: skip
    ax.set_ylim(bottom, top)
