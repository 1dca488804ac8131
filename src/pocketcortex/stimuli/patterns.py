"""Gratings, edges, bars, curves, plain colours and white noise, with exact parameters."""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from pocketcortex.core import InputError
from pocketcortex.stimuli.drawing import (
    BLACK,
    GREY,
    WHITE,
    Colour,
    Drawn,
    Values,
    arc,
    check_colour,
    check_size,
    checked,
    coverage,
    disc,
    drawn,
    half_plane,
    hex_colour,
    painted,
    place,
    rectangle,
    unit,
)


def gratings(
    orientations_deg: Values,
    cycles_per_image: Values,
    phases_deg: Values,
    size: int,
    *,
    contrast: float = 1.0,
    radius_px: float | None = None,
    centre_px: tuple[float, float] | None = None,
    foreground: Colour = WHITE,
    background: Colour = BLACK,
) -> Drawn:
    r"""Return sine gratings of every orientation, frequency and phase (kind `grating`).

    .. math:: \tfrac12 + \tfrac{c}{2} \cos(2 \pi f d / \mathrm{size} + \varphi)

    is the foreground's share at distance d from the centre, measured across the stripes towards
    `orientation_deg` + 90. Outside the window the share is a half.

    Parameters
    ----------
    orientations_deg
        Of the stripes: 0 is horizontal, 90 vertical, 45 from bottom left to top right.
    cycles_per_image
        Periods on the length of one image side, above 0 and at most half a period a pixel.
    phases_deg
        Phase at the centre: 0 puts the middle of a foreground stripe there, 180 of a background
        stripe; stripes move against the direction above as it grows.
    size
        Height and width of the images in pixels.
    contrast
        0..1, of the two colours' difference.
    radius_px
        Of a round window with a sharp border; None fills the image.
    centre_px
        x and y of the window's centre, from where phases count; by default the image's middle.
    foreground, background
        Colours at the two ends of the sine.

    Returns
    -------
    Drawn, phases running fastest and orientations slowest, with columns `x_px`, `y_px`,
    `orientation_deg`, `cycles_per_image`, `phase_deg`, `contrast`, `radius_px` (infinite without a
    window).

    Raises
    ------
    InputError
        If there is no orientation, frequency or phase, a frequency is beyond half a period a
        pixel, or an argument is out of its range.
    """
    check_size(size)
    orientations_deg = checked("orientations_deg", orientations_deg)
    cycles_per_image = checked("cycles_per_image", cycles_per_image, 0, above=True)
    phases_deg = checked("phases_deg", phases_deg)
    if not 0 <= contrast <= 1:
        raise InputError(f"contrast must be within 0..1, got {contrast}")
    if max(cycles_per_image) > size / 2:
        raise InputError(
            f"{size} pixels show at most {size / 2:g} cycles, got {max(cycles_per_image):g}"
        )
    if radius_px is not None:
        checked("radius_px", [radius_px], 0, above=True)
    centre_x, centre_y = place(centre_px, size)
    window = 1.0 if radius_px is None else coverage(disc(centre_x, centre_y, radius_px), size)
    y, x = np.mgrid[:size, :size]
    rows, shares = [], []
    for orientation, cycles, phase in itertools.product(
        orientations_deg, cycles_per_image, phases_deg
    ):
        right, down = unit(orientation + 90)
        across = (x - centre_x) * right + (y - centre_y) * down
        wave = np.cos(2 * np.pi * cycles * across / size + np.deg2rad(phase))
        shares.append(0.5 + 0.5 * contrast * wave * window)
        rows.append({
            "x_px": centre_x, "y_px": centre_y, "orientation_deg": orientation,
            "cycles_per_image": cycles, "phase_deg": phase,
            "contrast": float(contrast), "radius_px": np.inf if radius_px is None else radius_px,
        })  # fmt: skip
    return drawn("grating", painted(shares, foreground, background), rows, foreground, background)


def edges(
    directions_deg: Values,
    offsets_px: Values,
    size: int,
    *,
    centre_px: tuple[float, float] | None = None,
    foreground: Colour = WHITE,
    background: Colour = BLACK,
) -> Drawn:
    """Return straight edges between two colours, in every direction and position (kind `edge`).

    Parameters
    ----------
    directions_deg
        Where the foreground lies: 0 right of the edge, 90 above it.
    offsets_px
        Of the edge from the centre, in that direction.
    size
        Height and width of the images in pixels.
    centre_px
        x and y from where offsets count; by default the middle of the image.
    foreground, background
        The two colours.

    Returns
    -------
    Drawn, offsets running fastest, with columns `x_px`, `y_px`, `direction_deg`, `offset_px`.

    Raises
    ------
    InputError
        If there is no direction or offset, or an argument is out of its range.
    """
    check_size(size)
    directions_deg = checked("directions_deg", directions_deg)
    offsets_px = checked("offsets_px", offsets_px)
    x, y = place(centre_px, size)
    rows, covered = [], []
    for direction, offset in itertools.product(directions_deg, offsets_px):
        right, down = unit(direction)
        shape = half_plane(x + offset * right, y + offset * down, direction)
        covered.append(coverage(shape, size))
        rows.append({
            "x_px": x, "y_px": y, "direction_deg": direction, "offset_px": offset,
        })  # fmt: skip
    return drawn("edge", painted(covered, foreground, background), rows, foreground, background)


def bars(
    orientations_deg: Values,
    size: int,
    *,
    length_px: float,
    width_px: float,
    centre_px: tuple[float, float] | None = None,
    foreground: Colour = WHITE,
    background: Colour = GREY,
) -> Drawn:
    """Return a bar with square ends in every orientation (kind `bar`).

    Parameters
    ----------
    orientations_deg
        Of the bar: 0 is horizontal, 90 vertical, 45 from bottom left to top right.
    size
        Height and width of the images in pixels.
    length_px, width_px
        Of the bar, above 0.
    centre_px
        x and y of the bar's middle; by default that of the image.
    foreground, background
        Colours of the bar and of the rest.

    Returns
    -------
    Drawn, with columns `x_px`, `y_px`, `orientation_deg`, `length_px`, `width_px`.

    Raises
    ------
    InputError
        If there is no orientation, or an argument is out of its range.
    """
    check_size(size)
    orientations_deg = checked("orientations_deg", orientations_deg)
    checked("length_px and width_px", [length_px, width_px], 0, above=True)
    x, y = place(centre_px, size)
    rows = [
        {"x_px": x, "y_px": y, "orientation_deg": orientation,
         "length_px": float(length_px), "width_px": float(width_px)}
        for orientation in orientations_deg
    ]  # fmt: skip
    covered = [
        coverage(rectangle(x, y, length_px, width_px, orientation), size)
        for orientation in orientations_deg
    ]
    return drawn("bar", painted(covered, foreground, background), rows, foreground, background)


def curves(
    curvatures_per_px: Values,
    directions_deg: Values,
    size: int,
    *,
    length_px: float,
    width_px: float,
    centre_px: tuple[float, float] | None = None,
    foreground: Colour = WHITE,
    background: Colour = GREY,
) -> Drawn:
    """Return arcs of every curvature, bulging in every direction (kind `curve`).

    All have one length and one width, so that only their bend differs: 0 is a straight line. Their
    ends are round.

    Parameters
    ----------
    curvatures_per_px
        One over the radius of the arc's middle line, 0 or more; times the length at most a full
        turn, times the width at most 2.
    directions_deg
        From the arc's centre to its middle: 90 is a hill, 270 a bowl.
    size
        Height and width of the images in pixels.
    length_px
        Along the middle line, between the centres of the round ends.
    width_px
        Of the line.
    centre_px
        x and y of the middle of the arc; by default that of the image.
    foreground, background
        Colours of the line and of the rest.

    Returns
    -------
    Drawn, directions running fastest, with columns `x_px`, `y_px`, `curvature_per_px`,
    `direction_deg`, `length_px`, `width_px`.

    Raises
    ------
    InputError
        If there is no curvature or direction, an arc would pass a full turn or be wider than its
        circle, or an argument is out of its range.
    """
    check_size(size)
    curvatures_per_px = checked("curvatures_per_px", curvatures_per_px, 0)
    directions_deg = checked("directions_deg", directions_deg)
    checked("length_px and width_px", [length_px, width_px], 0, above=True)
    most = min(2 * np.pi / length_px, 2 / width_px)
    if max(curvatures_per_px) > most:
        raise InputError(
            f"an arc of length {length_px:g} and width {width_px:g} bends by at most {most:.3g} a "
            f"pixel, got {max(curvatures_per_px):g}; make it shorter or thinner"
        )
    x, y = place(centre_px, size)
    rows, covered = [], []
    for curvature, direction in itertools.product(curvatures_per_px, directions_deg):
        shape = arc(x, y, curvature, length_px, width_px, direction)
        covered.append(coverage(shape, size))
        rows.append({
            "x_px": x, "y_px": y, "curvature_per_px": curvature,
            "direction_deg": direction, "length_px": float(length_px),
            "width_px": float(width_px),
        })  # fmt: skip
    return drawn("curve", painted(covered, foreground, background), rows, foreground, background)


def plain_colours(colours: Sequence[Colour], size: int) -> Drawn:
    """Return images of one colour each (kind `colour`, column `foreground`).

    Raises
    ------
    InputError
        If there is no colour, or one is not three whole levels 0..255.
    """
    check_size(size)
    if not colours:
        raise InputError("there is no colour to show; give at least one")
    levels = np.array([check_colour(colour) for colour in colours], dtype=np.uint8)
    images = np.tile(levels[:, :, None, None], (1, 1, size, size))
    names = [hex_colour(colour) for colour in colours]
    return Drawn(images, pd.DataFrame({"kind": "colour", "foreground": names}))


def white_noise(n: int, size: int, *, rng: np.random.Generator, block_px: int = 1) -> Drawn:
    """Return grey white noise: whole levels uniform in 0..255, the same in all channels (`noise`).

    Parameters
    ----------
    n
        Images, 1 or more.
    size
        Height and width of the images in pixels.
    rng
        Source of the levels.
    block_px
        Side of the squares of one level; 1 published. The last row and column of squares may be
        cut off.

    Returns
    -------
    Drawn, with columns `draw` and `block_px`.

    Raises
    ------
    InputError
        If `n`, `size` or `block_px` is below 1.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, released code (blocks of one pixel).
    """
    check_size(size)
    if n < 1 or block_px < 1:
        raise InputError(f"n and block_px must be at least 1, got {n} and {block_px}")
    blocks = -(-size // block_px)
    levels = rng.integers(0, 256, (n, 1, blocks, blocks), dtype=np.uint8)
    grey = levels.repeat(block_px, axis=2).repeat(block_px, axis=3)[:, :, :size, :size]
    table = pd.DataFrame({"kind": "noise", "draw": range(n), "block_px": block_px})
    return Drawn(grey.repeat(3, axis=1), table)
