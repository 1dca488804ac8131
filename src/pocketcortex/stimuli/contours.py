"""Straight and curved contours: the border between two colours, in a round window."""

import itertools

import numpy as np

from pocketcortex.core import InputError
from pocketcortex.stimuli.drawing import (
    BLACK,
    GREY,
    WHITE,
    Colour,
    Distance,
    Drawn,
    Values,
    check_colour,
    check_size,
    checked,
    coverage,
    disc,
    drawn,
    half_plane,
    painted,
    place,
    unit,
)


def contours(
    curvatures_per_px: Values,
    directions_deg: Values,
    size: int,
    *,
    radius_px: float,
    centre_px: tuple[float, float] | None = None,
    foreground: Colour = WHITE,
    background: Colour = BLACK,
    surround: Colour = GREY,
) -> Drawn:
    """Return borders of every curvature, bulging in every direction (kind `contour`).

    The border passes through the centre of a round window; the foreground lies behind it, inside
    the circle that it is part of, and the background before it. 0 is a straight edge.

    Parameters
    ----------
    curvatures_per_px
        One over the radius of the circle, 0 or more.
    directions_deg
        Where the background lies: 0 puts it right of the border, 90 above.
    size
        Height and width of the images in pixels.
    radius_px
        Of the window, above 0.
    centre_px
        x and y of the window's centre; by default that of the image.
    foreground, background, surround
        Colours inside and outside the circle, and beyond the window.

    Returns
    -------
    Drawn, directions running fastest, with columns `x_px`, `y_px`, `curvature_per_px`,
    `direction_deg`, `radius_px`.

    Raises
    ------
    InputError
        If there is no curvature or direction, or an argument is out of its range.

    References
    ----------
    After Pasupathy & Connor (2001), J. Neurophysiol. 86: 2505 (boundary curvature in V4); one
    border in a window, rather than whole shapes, is our choice.
    """
    check_size(size)
    curvatures_per_px = checked("curvatures_per_px", curvatures_per_px, 0)
    directions_deg = checked("directions_deg", directions_deg)
    checked("radius_px", [radius_px], 0, above=True)
    if size < 2:
        raise InputError(f"a contour needs 2 pixels or more, got {size}")
    x, y = place(centre_px, size)
    window = coverage(disc(x, y, radius_px), size)
    rows, images = [], []
    for curvature, direction in itertools.product(curvatures_per_px, directions_deg):
        inside = coverage(_behind(x, y, curvature, direction), size)
        two = painted([inside], foreground, background)[0].astype(np.float64)
        rest = np.array(check_colour(surround), np.float64)[:, None, None]
        images.append(np.round(rest + window * (two - rest)).astype(np.uint8))
        rows.append({
            "x_px": x, "y_px": y, "curvature_per_px": curvature, "direction_deg": direction,
            "radius_px": float(radius_px),
        })  # fmt: skip
    return drawn("contour", np.stack(images), rows, foreground, background)


def _behind(x: float, y: float, curvature: float, direction: float) -> Distance:
    """Return the distance to what lies behind a border through a point."""
    if curvature == 0:
        return half_plane(x, y, direction + 180)
    right, down = unit(direction)
    radius = 1 / curvature
    return disc(x - radius * right, y - radius * down, radius)
