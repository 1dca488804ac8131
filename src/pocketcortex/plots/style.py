"""The look every figure shares: one colour per kind of model, type sizes, plain axes."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

MODEL_COLOURS = {
    "backbone ridge": "#8A8A8A",
    "teacher": "#0072B2",
    "compact": "#D55E00",
    "published": "#009E73",
}
"""Kind of model and its colour, from Okabe and Ito's set: apart for colour-blind readers too."""

DPI = 192
"""Pixels per inch of every bitmap: two for each pixel of an ordinary screen."""

TEXT_SIZE = 10.0
SMALL_SIZE = 8.5
INK = "#222222"
MUTED = "#6A6A6A"
FAINT = "#D9D9D9"

_SPARE_COLOURS = ("#CC79A7", "#56B4E9", "#E69F00", "#7A5195", "#000000")


def model_colours(names: Iterable[str]) -> dict[str, str]:
    """Return a colour for every model name, the same for the same kind in all figures.

    A name has the colour of the kind it mentions first ("published compact" that of
    "published"); names that mention none take spare colours in turn.

    Parameters
    ----------
    names
        Names of models, in the order in which they are drawn.

    Examples
    --------
    >>> model_colours(["teacher", "Compact, pruned"])
    {'teacher': '#0072B2', 'Compact, pruned': '#D55E00'}
    """
    colours: dict[str, str] = {}
    spare = 0
    for name in names:
        kind = _kind(name)
        if kind is None:
            colours[name] = _SPARE_COLOURS[spare % len(_SPARE_COLOURS)]
            spare += 1
        else:
            colours[name] = MODEL_COLOURS[kind]
    return colours


def axes_or_new(ax: Axes | None, size_inches: tuple[float, float]) -> Axes:
    """Return `ax`, or the only axes of a new figure of that width and height, without frame."""
    if ax is None:
        ax = Figure(figsize=size_inches, layout="constrained").add_subplot()
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(MUTED)
    ax.tick_params(labelsize=SMALL_SIZE + 0.5, color=MUTED, labelcolor=INK, length=3)
    return ax


def label_axes(ax: Axes, x_label: str, y_label: str) -> None:
    """Write the axes' labels, taking every character as it stands."""
    ax.set_xlabel(x_label, fontsize=TEXT_SIZE, color=INK, parse_math=False)
    ax.set_ylabel(y_label, fontsize=TEXT_SIZE, color=INK, parse_math=False)


def swarm_offsets(
    values: Float[np.ndarray, " n"], *, bin_width: float, step: float, half_width: float
) -> Float[np.ndarray, " n"]:
    """Return sideways offsets that lay points of about the same value side by side.

    Points of one bin stand symmetrically about zero in order of value, no two in one place; the
    offsets depend on nothing but the values.

    Parameters
    ----------
    values
        Finite values, in any order.
    bin_width
        Values are neighbours if they fall into one bin of this width.
    step
        Distance between neighbours; less where that would pass `half_width`.
    half_width
        Largest offset.
    """
    bins = np.floor(values / bin_width)
    offsets = np.zeros(len(values))
    for one in np.unique(bins):
        members = np.flatnonzero(bins == one)
        members = members[np.argsort(values[members], kind="stable")]
        rank = np.arange(len(members)) - (len(members) - 1) / 2
        reach = max(float(rank[-1]), 0.5)
        offsets[members] = rank * min(step, half_width / reach)
    return offsets


def _kind(name: str) -> str | None:
    text = name.lower().replace("_", " ")
    found = {kind: text.find(kind) for kind in MODEL_COLOURS if kind in text}
    return min(found, key=found.__getitem__) if found else None
