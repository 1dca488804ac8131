"""Figures of one dissected model: its answers to dots, and a sheet of all its tuning."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pocketcortex.core import InputError
from pocketcortex.plots.sheet import FRAME
from pocketcortex.plots.style import INK, MUTED, SMALL_SIZE, TEXT_SIZE
from pocketcortex.plots.tuning import (
    TuningMap,
    plot_colour_tuning,
    plot_place_map,
    plot_tuning,
    plot_tuning_map,
)

_WIDTH = 10.0  # all lengths in inches
_LEFTS, _PANEL = (0.74, 4.28, 7.75), (2.15, 2.15)
_FOOT, _TITLE, _HEAD, _PICTURE = 0.58, 0.3, 0.62, 0.36
_ROW = 3.2


@dataclass(frozen=True, eq=False)
class DotTuning:
    """One model's responses to dots.

    Attributes
    ----------
    radii_px
        Radii of dots at the preferred place, increasing.
    size
        Name of a curve, such as "light dot", to the responses to these sizes.
    place
        Responses to a small dot at each place, row by row from the top left; the grid divides the
        image into equal squares.
    preferred_px
        x and y of the preferred place.
    numbers
        Numbers of dots, increasing.
    number
        Responses to images of so many dots, a column for each random draw of the places.
    grey_response
        Response to no dot.
    image_size
        Height and width of the images in pixels.

    Raises
    ------
    InputError
        If radii, numbers and responses do not fit each other, or a response is not finite.
    """

    radii_px: Num[np.ndarray, " n_radii"]
    size: Mapping[str, Float[np.ndarray, " _"]]
    place: Float[np.ndarray, "n_across n_across"]
    preferred_px: tuple[float, float]
    numbers: Num[np.ndarray, " n_numbers"]
    number: Float[np.ndarray, "_ _"]
    grey_response: float
    image_size: int = 112

    def __post_init__(self) -> None:
        if len(self.number) != len(self.numbers) or not self.number.size:
            raise InputError(
                f"number must hold a row of draws for each of {len(self.numbers)} numbers of "
                f"dots, got {self.number.shape}"
            )
        for name, curve in self.size.items():
            if curve.shape != self.radii_px.shape:
                raise InputError(
                    f"size {name!r} must hold a response for each of {len(self.radii_px)} radii, "
                    f"got {curve.shape}"
                )
        everything = (*self.size.values(), self.place, self.number)
        finite = all(np.isfinite(part).all() for part in everything)
        if not finite or not math.isfinite(self.grey_response):
            raise InputError("responses to dots hold NaN or infinite values")


def figure_dot_tuning(
    dots: DotTuning,
    *,
    pictures: UInt8[np.ndarray, "n_radii 3 h w"] | None = None,
    title: str = "",
    units: str = "a.u.",
) -> Figure:
    """Return three panels: responses to a dot's size, to its place, and to the number of dots.

    In the first, the dashed line is the response to grey; in the second that is white, and a cross
    is at the preferred place; the third shows mean and standard deviation over random draws.

    Parameters
    ----------
    dots
        The responses.
    pictures
        The image of each size, RGB levels 0..255; as many as fit are shown above the curve.
    title
        Stands above the panels; empty leaves it out.
    units
        Of the responses.

    Raises
    ------
    InputError
        If there is not one picture a size.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Fig. 4b-d.
    """
    if pictures is not None and len(pictures) != len(dots.radii_px):
        raise InputError(
            f"need one picture for each of {len(dots.radii_px)} sizes, got {len(pictures)}"
        )
    above = _PICTURE + 0.06 if pictures is not None else 0.0
    sheet = _Panels(_FOOT + _PANEL[1] + (_HEAD if title else _TITLE), title)
    axes = [sheet.panel(column, _FOOT, above if column == 0 else 0.0) for column in range(3)]
    _dot_panels(dots, axes, units)
    if pictures is not None:
        _pictures_above(axes[0], dots.radii_px, pictures, _PANEL[1] - above)
    for ax, name in zip(axes, ("dot size", "dot place", "number of dots"), strict=True):
        _panel_title(ax, name, above if ax is axes[0] else 0.0)
    return sheet.figure


def figure_tuning(
    name: str,
    dots: DotTuning,
    gratings: TuningMap,
    curves: TuningMap,
    colours: UInt8[np.ndarray, "n_colours 3"],
    colour_responses: Float[np.ndarray, " n_colours"],
    *,
    indices: Mapping[str, float] | None = None,
    units: str = "a.u.",
) -> Figure:
    """Return a sheet of one model's tuning to dots, gratings, curves and plain colours.

    Parameters
    ----------
    name
        What to call the model.
    dots
        Responses to dots.
    gratings
        Over orientation and spatial frequency.
    curves
        Over curvature and direction.
    colours
        Plain colours, RGB levels 0..255.
    colour_responses
        Response to each.
    indices
        Name of a summary, such as "orientation selectivity", to its value: the second line of the
        heading.
    units
        Of the responses.

    Raises
    ------
    InputError
        If a response to a plain colour is not finite, or there is no colour.
    """
    facts = "   ·   ".join(f"{k} {_minus(v)}" for k, v in (indices or {}).items())
    sheet = _Panels(2 * _ROW + _HEAD - 0.1, name, facts)
    top = [sheet.panel(column, _FOOT + _ROW) for column in range(3)]
    low = [sheet.panel(column, _FOOT) for column in range(3)]
    _dot_panels(dots, top, units)
    grey = dots.grey_response
    plot_tuning_map(gratings, reference=grey, units=units, ax=low[0])
    plot_tuning_map(curves, reference=grey, units=units, ax=low[1])
    plot_colour_tuning(colours, colour_responses, reference=grey, units=units, ax=low[2])
    titles = ("dot size", "dot place", "number of dots", "gratings", "curves", "colours")
    for ax, title in zip((*top, *low), titles, strict=True):
        _panel_title(ax, title)
    return sheet.figure


class _Panels:
    """A page-wide figure with a heading and three columns of panels."""

    def __init__(self, height: float, title: str, facts: str = "") -> None:
        self._height = height
        self.figure = Figure(figsize=(_WIDTH, height))
        if title:
            self.figure.text(
                0.012, 1 - 0.1 / height, title, fontsize=TEXT_SIZE + 2, color=INK, va="top",
                fontweight="bold", parse_math=False,
            )  # fmt: skip
        if facts:
            self.figure.text(
                0.012, 1 - 0.35 / height, facts, fontsize=TEXT_SIZE - 0.5, color=MUTED, va="top",
                parse_math=False,
            )  # fmt: skip

    def panel(self, column: int, bottom: float, above: float = 0.0) -> Axes:
        left, wide, high = _LEFTS[column], _PANEL[0], _PANEL[1] - above
        return self.figure.add_axes(
            (left / _WIDTH, bottom / self._height, wide / _WIDTH, high / self._height)
        )


def _dot_panels(dots: DotTuning, axes: list[Axes], units: str) -> None:
    grey = dots.grey_response
    plot_tuning(
        dots.radii_px, dots.size, x_label="radius (px)", units=units, reference=grey, ax=axes[0]
    )
    plot_place_map(
        dots.place, image_size=dots.image_size, reference=grey, preferred_px=dots.preferred_px,
        units=units, ax=axes[1],
    )  # fmt: skip
    n_draws = dots.number.shape[1]
    spread = {"mean": dots.number.std(axis=1)} if n_draws > 1 else {}
    plot_tuning(
        dots.numbers, {"mean": dots.number.mean(axis=1)}, x_label="dots (count)", units=units,
        spread=spread, reference=grey, ax=axes[2],
    )  # fmt: skip
    draws = f"± sd, {n_draws} draws" if n_draws > 1 else "one draw"
    axes[2].annotate(
        draws, (1, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", ha="right",
        va="bottom", fontsize=SMALL_SIZE, color=MUTED,
    )  # fmt: skip


def _pictures_above(ax: Axes, x: np.ndarray, pictures: np.ndarray, high: float) -> None:
    """Show pictures centred above their x, from the first on as many as do not overlap."""
    left, right = ax.get_xlim()
    wide = _PICTURE / _PANEL[0]
    last = -1.0
    for value, picture in zip(x, pictures, strict=True):
        middle = (float(value) - left) / (right - left)
        if middle - last < wide * 1.12:
            continue
        last = middle
        tile = ax.inset_axes((middle - wide / 2, 1 + 0.05 / high, wide, _PICTURE / high))
        tile.imshow(picture.transpose(1, 2, 0), interpolation="antialiased")
        tile.set(xticks=[], yticks=[])
        for spine in tile.spines.values():
            spine.set(color=FRAME, linewidth=0.5)


def _panel_title(ax: Axes, title: str, above: float = 0.0) -> None:
    ax.annotate(
        title, (0, 1), (0, 72 * above + 6), xycoords="axes fraction", textcoords="offset points",
        fontsize=TEXT_SIZE, color=INK, fontweight="bold", va="bottom",
    )  # fmt: skip


def _minus(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
