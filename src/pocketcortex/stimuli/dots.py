"""Dots: of many sizes at one place, one at every place, and many at once."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from pocketcortex.core import InputError
from pocketcortex.stimuli.drawing import (
    GREY,
    WHITE,
    Colour,
    Drawn,
    Values,
    check_size,
    checked,
    coverage,
    disc,
    drawn,
    painted,
    place,
)

DOT_RADIUS_PX = 2.5
"""Of a 5-pixel dot, taking the published "5 pixels" as its diameter (not stated)."""

_TRIES = 2000


def dots_of_size(
    radii_px: Values,
    size: int,
    *,
    centre_px: tuple[float, float] | None = None,
    foreground: Colour = WHITE,
    background: Colour = GREY,
) -> Drawn:
    """Return one dot at one place in each of several sizes (kind `dot size`).

    Parameters
    ----------
    radii_px
        Radii in pixels, 0 or more; 0 draws no dot. What lies outside the image is cut off.
    size
        Height and width of the images in pixels.
    centre_px
        x and y of the dot's centre; by default the middle of the image.
    foreground, background
        Colours of the dot and of the rest.

    Returns
    -------
    Drawn, with columns `x_px`, `y_px`, `radius_px`.

    Raises
    ------
    InputError
        If a radius is negative or not finite, or a colour or `size` is out of range.
    """
    check_size(size)
    radii_px = checked("radii_px", radii_px, 0)
    x, y = place(centre_px, size)
    rows = [{"x_px": x, "y_px": y, "radius_px": radius} for radius in radii_px]
    covered = [coverage(disc(x, y, row["radius_px"]), size) for row in rows]
    return drawn("dot size", painted(covered, foreground, background), rows, foreground, background)


def dots_at(
    n_across: int,
    size: int,
    *,
    radius_px: float = DOT_RADIUS_PX,
    foreground: Colour = WHITE,
    background: Colour = GREY,
) -> Drawn:
    """Return one dot at each place of a square grid, row by row from the top left (`dot place`).

    The grid divides the image into `n_across` x `n_across` equal squares and the dots are at their
    middles, so a map of responses is the responses reshaped to `(n_across, n_across)`.

    Parameters
    ----------
    n_across
        Places across and down; 28 published, in images of 112 pixels.
    size
        Height and width of the images in pixels.
    radius_px
        Radius of the dot.
    foreground, background
        Colours of the dot and of the rest.

    Returns
    -------
    Drawn, `n_across` squared images, with columns `x_px`, `y_px`, `radius_px`.

    Raises
    ------
    InputError
        If `n_across` is below 1, or as for `dots_of_size`.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Methods, dot stimuli.
    """
    check_size(size)
    checked("radius_px", [radius_px], 0)
    if n_across < 1:
        raise InputError(f"n_across must be at least 1, got {n_across}")
    places = (np.arange(n_across) + 0.5) * size / n_across - 0.5
    rows = [
        {"x_px": float(x), "y_px": float(y), "radius_px": radius_px} for y in places for x in places
    ]
    covered = [coverage(disc(row["x_px"], row["y_px"], radius_px), size) for row in rows]
    return drawn(
        "dot place", painted(covered, foreground, background), rows, foreground, background
    )


def dots_in_number(
    numbers: Sequence[int],
    size: int,
    *,
    rng: np.random.Generator,
    n_draws: int = 1,
    radius_px: float = DOT_RADIUS_PX,
    gap_px: float = 1.0,
    foreground: Colour = WHITE,
    background: Colour = GREY,
) -> Drawn:
    """Return images of several numbers of equal dots at random places (kind `dot number`).

    Dots lie wholly inside the image and at least `gap_px` apart. They are placed one after the
    other, each uniformly wherever there is room; where no room is met within 2,000 tries, the
    image is begun anew, ten times.

    Parameters
    ----------
    numbers
        Dots in an image, 0 or more.
    size
        Height and width of the images in pixels.
    rng
        Source of the places.
    n_draws
        Images of each number.
    radius_px
        Radius of the dots.
    gap_px
        Least distance from one dot's border to the next's, 0 or more.
    foreground, background
        Colours of the dots and of the rest.

    Returns
    -------
    Drawn, those of a number side by side, with columns `n_dots`, `draw`, `radius_px` and `dots_px`
    (the centres, a tuple of (x, y)).

    Raises
    ------
    InputError
        If so many dots do not fit, `numbers` is empty, an argument is out of its range, or as for
        `dots_of_size`.
    """
    check_size(size)
    checked("numbers", numbers, 0)
    checked("radius_px", [radius_px], 0, above=True)
    checked("gap_px", [gap_px], 0)
    if n_draws < 1:
        raise InputError(f"n_draws must be at least 1, got {n_draws}")
    rows, covered = [], []
    for number in numbers:
        for draw in range(n_draws):
            centres = _scattered(int(number), size, radius_px, gap_px, rng)
            dots = (coverage(disc(x, y, radius_px), size) for x, y in centres)
            covered.append(np.minimum(sum(dots, np.zeros((size, size))), 1))
            at = tuple((float(x), float(y)) for x, y in centres)
            rows.append(
                {"n_dots": int(number), "draw": draw, "radius_px": radius_px, "dots_px": at}
            )
    return drawn(
        "dot number", painted(covered, foreground, background), rows, foreground, background
    )


def _scattered(
    n: int, size: int, radius_px: float, gap_px: float, rng: np.random.Generator
) -> Float[np.ndarray, "n 2"]:
    """Return centres of dots inside the image, none nearer to another than the gap."""
    low, high = radius_px - 0.5, size - 0.5 - radius_px
    for _ in range(10):
        centres = np.empty((0, 2))
        while len(centres) < n and low <= high:
            tries = rng.uniform(low, high, (_TRIES, 1, 2))
            free = (np.linalg.norm(tries - centres, axis=2) >= 2 * radius_px + gap_px).all(axis=1)
            if not free.any():
                break
            centres = np.vstack([centres, tries[free.argmax()]])
        if len(centres) == n:
            return centres
    raise InputError(
        f"{n} dots of radius {radius_px:g}, {gap_px:g} pixels apart, do not fit into {size} x "
        f"{size} pixels at random; draw fewer or smaller ones"
    )
