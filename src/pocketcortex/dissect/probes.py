"""Drawn stimuli by which models are asked what they prefer: five families on one footing."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from jaxtyping import UInt8

from pocketcortex.core import InputError
from pocketcortex.stimuli import Drawn, contours, curves, dots_of_size, gratings
from pocketcortex.stimuli.drawing import BLACK, GREY, WHITE, Colour, coverage, disc, hex_colour

FAMILIES = ("dot", "edge", "curve", "texture", "colour")
"""Families of stimuli that a neuron may prefer."""

AXES = ("white-black", "hue 0", "hue 30", "hue 60", "hue 90", "hue 120", "hue 150")
"""Pairs of opposite colours that stimuli are drawn in; hues in degrees from red-green."""

RADII = np.array([0.015, 0.022, 0.033, 0.045, 0.065, 0.09, 0.13])
"""Radii of dots, in image sides."""

LEAST_SIZE = 36  # pixels that show 18 cycles
"""Smallest side of images that probes are drawn for, in pixels."""
_BENDS = np.array([0.05, 0.085, 0.14])  # radii of curvature
_WINDOW, _SMALL_WINDOW = 0.16, 0.08  # radii
_CYCLES = np.array([4, 7, 12, 18])
_PHASES = np.arange(4) * 90.0
_SWING = 120.0  # levels from grey that the strongest channel of a hue moves


@dataclass(frozen=True, eq=False)
class Probes:
    """Stimuli of one pair of colours, drawn about the middle of a canvas of twice an image's size.

    Attributes
    ----------
    canvas
        The images: 2 size - 1 pixels wide, so that the middle can be moved to any pixel.
    table
        One row an image: ``family``, ``shape`` (what is drawn), ``group``, and its parameters.
        Images of a group (a grating's phases) count as one, by their mean response.
    """

    canvas: UInt8[np.ndarray, "n 3 canvas_size canvas_size"]
    table: pd.DataFrame

    def __len__(self) -> int:
        return len(self.canvas)

    def at(self, x_px: int, y_px: int) -> UInt8[np.ndarray, "n 3 size size"]:
        """Return the images with their middle on a pixel."""
        size = (self.canvas.shape[-1] + 1) // 2
        top, left = size - 1 - y_px, size - 1 - x_px
        return self.canvas[:, :, top : top + size, left : left + size]


@lru_cache(maxsize=16)
def probes(size: int, axis: str) -> Probes:
    """Return the stimuli of all families in one pair of colours, for images of one size.

    All lengths are shares of the image's side. Every family shows both colours beside each other
    as well as each on grey:

    - *dot*: discs of seven radii, on grey and with a ring of the other colour;
    - *edge*: straight borders in 16 directions and two windows, bars in 8 orientations;
    - *curve*: borders of three curvatures in 16 directions, through the middle of a window as large
      as the radius of curvature, so that a third of the circle shows; arcs of the same curvatures;
    - *texture*: gratings of 8 orientations and four frequencies; a texture is what drives whatever
      its phase, so the mean over four phases counts;
    - *colour*: plain discs of two sizes. In white and black they are there too: brightness.

    Parameters
    ----------
    size
        Height and width of the models' images in pixels, 36 or more.
    axis
        One of `AXES`.

    Raises
    ------
    InputError
        If `size` is too small or there is no such axis.

    References
    ----------
    Families after Cowley et al., bioRxiv 2023.11.22.568315, Extended Data Fig. 6; which stimuli
    stand for each is our choice.
    """
    if size < LEAST_SIZE:
        raise InputError(f"images must be {LEAST_SIZE} pixels or more, got {size}")
    first, second = colours_of(axis)
    canvas = 2 * size - 1
    parts = [
        ("dot", "disc", dots_of_size(RADII * size, canvas, foreground=a)) for a in (first, second)
    ]
    for a, b in ((first, second), (second, first)):
        ringed = (_ringed(r * size, canvas, a, b) for r in RADII)
        parts.append(("dot", "ringed disc", Drawn.concatenate(list(ringed))))
    turns = np.arange(16) * 22.5
    for window in (_SMALL_WINDOW, _WINDOW):
        parts.append(("edge", "border", contours(
            [0], turns, canvas, radius_px=window * size, foreground=first, background=second,
        )))  # fmt: skip
    bends = 1 / (_BENDS * size)
    for a, b in ((first, second), (second, first)):
        parts.append(("edge", "bar", curves(
            [0], turns[:8], canvas, length_px=0.25 * size, width_px=0.05 * size, foreground=a,
        )))  # fmt: skip
        parts += [
            ("curve", "border", contours(
                [bend], turns, canvas, radius_px=1 / bend, foreground=a, background=b,
            )) for bend in bends
        ]  # fmt: skip
        parts.append(("curve", "arc", curves(
            bends, turns, canvas, length_px=0.15 * size, width_px=0.05 * size, foreground=a,
        )))  # fmt: skip
        plain = dots_of_size([_SMALL_WINDOW * size, _WINDOW * size], canvas, foreground=a)
        parts.append(("colour", "plain", plain))
    parts.append(("texture", "grating", gratings(
        turns[:8], _CYCLES * canvas / size, _PHASES, canvas, radius_px=_WINDOW * size,
        foreground=first, background=second,
    )))  # fmt: skip
    return _joined(parts)


def colours_of(axis: str) -> tuple[Colour, Colour]:
    """Return the two colours of an axis: white and black, or opposite hues about grey.

    Hues lie in the plane of equal red + green + blue: their channels sum to zero about grey.

    Raises
    ------
    InputError
        If there is no such axis.
    """
    if axis not in AXES:
        raise InputError(f"axis {axis!r} must be one of {', '.join(AXES)}")
    if axis == AXES[0]:
        return WHITE, BLACK
    angle = np.deg2rad(float(axis.split()[1]))
    red_green, blue_yellow = np.array([1, -1, 0]) / 2**0.5, np.array([-1, -1, 2]) / 6**0.5
    way = np.cos(angle) * red_green + np.sin(angle) * blue_yellow
    swing = np.round(_SWING * way / np.abs(way).max()).astype(int)
    one, other = ((np.array(GREY) + sign * swing).tolist() for sign in (1, -1))
    return (one[0], one[1], one[2]), (other[0], other[1], other[2])


def _ringed(radius_px: float, size: int, inner: Colour, outer: Colour) -> Drawn:
    """Return a disc with a ring of another colour (its background), as wide as its radius."""
    plain = dots_of_size([2 * radius_px], size, foreground=outer)
    middle = (size - 1) / 2
    share = coverage(disc(middle, middle, radius_px), size)
    front = np.array(inner, np.float64)[:, None, None]
    image = plain.images[0] + share * (front - plain.images[0])
    table = plain.parameters.assign(
        radius_px=radius_px, foreground=hex_colour(inner), background=hex_colour(outer)
    )
    return Drawn(np.round(image).astype(np.uint8)[None], table)


def _joined(parts: Iterable[tuple[str, str, Drawn]]) -> Probes:
    images, tables, n_groups = [], [], 0
    for family, shape, drawn in parts:
        a_group = len(_PHASES) if family == "texture" else 1
        table = drawn.parameters.drop(columns=["kind", "x_px", "y_px"])
        table.insert(0, "family", family)
        table.insert(1, "shape", shape)
        table.insert(2, "group", n_groups + np.arange(len(drawn)) // a_group)
        n_groups += len(drawn) // a_group
        images.append(drawn.images)
        tables.append(table)
    return Probes(np.concatenate(images), pd.concat(tables, ignore_index=True))
