"""Drawn stimuli: the record of images with their parameters, and anti-aliased shapes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped, UInt8

from pocketcortex.core import InputError, StimulusSet

Colour: TypeAlias = tuple[int, int, int]
"""Red, green and blue level, whole numbers 0..255."""

Values: TypeAlias = Sequence[float | int] | Shaped[np.ndarray, " _"]
"""One or more numbers."""

Distance: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Signed distance in pixels from positions (x, y) to a shape's border: negative inside."""

BLACK: Colour = (0, 0, 0)
GREY: Colour = (128, 128, 128)
WHITE: Colour = (255, 255, 255)

_SUBPIXELS = 8


@dataclass(frozen=True, eq=False)
class Drawn:
    """Images drawn by a program, with the parameters of each.

    Attributes
    ----------
    images
        RGB levels 0..255.
    parameters
        One row an image, `kind` first; what a kind does not have is missing (NaN). Units end the
        names: `_px` pixels, `_deg` degrees. Positions are those of pixels: (0, 0) is the middle of
        the top left pixel, x goes right and y down. Angles go counter-clockwise from the right.

    Raises
    ------
    InputError
        If the two differ in length or there is no column `kind`.
    """

    images: UInt8[np.ndarray, "n 3 height width"]
    parameters: pd.DataFrame

    def __post_init__(self) -> None:
        if len(self.images) != len(self.parameters):
            raise InputError(
                f"{len(self.images)} images but {len(self.parameters)} rows of parameters; "
                "give one row an image"
            )
        if "kind" not in self.parameters:
            raise InputError("the parameters have no column `kind`; say what each image shows")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"Drawn({len(self)} images: {', '.join(self.kinds)})"

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of image, in order of first appearance."""
        return tuple(str(kind) for kind in self.parameters["kind"].unique())

    def of_kind(self, kind: str) -> "Drawn":
        """Return the images of one kind, with the parameters that it has.

        Raises
        ------
        InputError
            If there is no such kind.
        """
        if kind not in self.kinds:
            raise InputError(f"there is no kind {kind!r}; there are {', '.join(self.kinds)}")
        rows = (self.parameters["kind"] == kind).to_numpy()
        table = self.parameters[rows].dropna(axis=1, how="all").reset_index(drop=True)
        return Drawn(self.images[rows], table)

    def stimuli(self) -> StimulusSet:
        """Return the images as a stimulus set, named by kind and number."""
        number = self.parameters.groupby("kind", sort=False).cumcount() + 1
        pairs = zip(self.parameters["kind"], number, strict=True)
        return StimulusSet.from_array(self.images, [f"{kind}{k:04d}" for kind, k in pairs])

    @classmethod
    def concatenate(cls, parts: Sequence["Drawn"]) -> "Drawn":
        """Return the images of several, one after the other.

        Raises
        ------
        InputError
            If there is none, or image sizes differ.
        """
        if not parts:
            raise InputError("there are no drawn images to concatenate; give at least one")
        sizes = sorted({part.images.shape[2:] for part in parts})
        if len(sizes) > 1:
            raise InputError(
                f"images have different sizes (height, width): {sizes}; draw all alike"
            )
        tables = [part.parameters for part in parts]
        return cls(
            np.concatenate([part.images for part in parts]), pd.concat(tables, ignore_index=True)
        )


def coverage(distance: Distance, size: int) -> Float[np.ndarray, "size size"]:
    """Return how much of each pixel a shape covers, 0..1, from 8 x 8 points of each border pixel.

    A point counts by its distance from the border, from 0 to 1 within an eighth of a pixel, so
    that areas and lengths are true to about a thousandth. `distance` must not change by more than
    1 a pixel.
    """
    y, x = np.mgrid[:size, :size].astype(np.float64)
    middle = distance(x, y)
    covered = (middle < 0).astype(np.float64)
    border = np.abs(middle) < 0.5 * np.sqrt(2) + 1 / _SUBPIXELS
    steps = (np.arange(_SUBPIXELS) + 0.5) / _SUBPIXELS - 0.5
    dy, dx = (step.ravel() for step in np.meshgrid(steps, steps, indexing="ij"))
    points = distance(x[border][:, None] + dx, y[border][:, None] + dy)
    covered[border] = np.clip(0.5 - _SUBPIXELS * points, 0, 1).mean(axis=1)
    return covered


def painted(
    weights: Sequence[Float[np.ndarray, "size size"]], foreground: Colour, background: Colour
) -> UInt8[np.ndarray, "n 3 size size"]:
    """Return images that mix two colours, `weights` (0..1) being the foreground's share."""
    front, back = (np.array(check_colour(c), np.float64) for c in (foreground, background))
    step, back = (front - back)[:, None, None], back[:, None, None]
    return np.stack([np.round(back + share * step).astype(np.uint8) for share in weights])


def drawn(
    kind: str,
    images: UInt8[np.ndarray, "n 3 height width"],
    rows: Sequence[Mapping[str, Any]],
    foreground: Colour,
    background: Colour,
) -> Drawn:
    """Return images of one kind with their parameters and the two colours, as `#rrggbb`."""
    table = pd.DataFrame(rows, index=range(len(images)))
    table.insert(0, "kind", kind)
    return Drawn(
        images, table.assign(foreground=hex_colour(foreground), background=hex_colour(background))
    )


def disc(x_px: float, y_px: float, radius_px: float) -> Distance:
    """Return the distance to a disc."""
    return lambda x, y: np.hypot(x - x_px, y - y_px) - radius_px


def half_plane(x_px: float, y_px: float, direction_deg: float) -> Distance:
    """Return the distance to the half plane that lies in a direction from a point of its edge."""
    right, down = unit(direction_deg)
    return lambda x, y: -((x - x_px) * right + (y - y_px) * down)


def rectangle(
    x_px: float, y_px: float, length_px: float, width_px: float, orientation_deg: float
) -> Distance:
    """Return the distance to a rectangle about a point, its length along the orientation."""
    right, down = unit(orientation_deg)

    def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        along = np.abs((x - x_px) * right + (y - y_px) * down) - length_px / 2
        across = np.abs((y - y_px) * right - (x - x_px) * down) - width_px / 2
        outside = np.hypot(np.maximum(along, 0), np.maximum(across, 0))
        return np.asarray(outside + np.minimum(np.maximum(along, across), 0))

    return distance


def arc(
    x_px: float,
    y_px: float,
    curvature_per_px: float,
    length_px: float,
    width_px: float,
    direction_deg: float,
) -> Distance:
    """Return the distance to an arc with round ends, whose middle is a point and bulges to a side.

    `length_px` is measured along the middle of the line, from the centre of one round end to that
    of the other. The arc's centre lies 1 / curvature opposite to `direction_deg`.
    """
    right, down = unit(direction_deg)
    if curvature_per_px == 0:
        reach = length_px / 2

        def straight(x: np.ndarray, y: np.ndarray) -> np.ndarray:
            ahead = (x - x_px) * right + (y - y_px) * down
            along = (y - y_px) * right - (x - x_px) * down
            return np.hypot(ahead, np.maximum(np.abs(along) - reach, 0)) - width_px / 2

        return straight
    radius = 1 / curvature_per_px
    half_angle = length_px / (2 * radius)

    def curved(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        ahead = (x - x_px) * right + (y - y_px) * down + radius
        along = np.abs((y - y_px) * right - (x - x_px) * down)
        within = np.arctan2(along, ahead) <= half_angle
        to_line = np.abs(np.hypot(ahead, along) - radius)
        end = np.hypot(ahead - radius * np.cos(half_angle), along - radius * np.sin(half_angle))
        return np.where(within, to_line, end) - width_px / 2

    return curved


def unit(angle_deg: float) -> tuple[float, float]:
    """Return how far right and how far down one pixel in a direction goes."""
    angle = np.deg2rad(angle_deg)
    return float(np.cos(angle)), float(-np.sin(angle))


def place(centre_px: tuple[float, float] | None, size: int) -> tuple[float, float]:
    """Return x and y of a place, by default the middle of the image."""
    return ((size - 1) / 2, (size - 1) / 2) if centre_px is None else centre_px


def check_size(size: int) -> None:
    """Raise InputError unless an image side is a positive count."""
    if size < 1:
        raise InputError(f"size must be at least 1 pixel, got {size}")


def checked(
    name: str, values: Values, least: float | int = -np.inf, *, above: bool = False
) -> list[float]:
    """Return one or more finite numbers at or above (or above) `least`, or raise InputError."""
    array = np.asarray(values, dtype=np.float64)
    enough = array > least if above else array >= least
    if array.ndim != 1 or array.size == 0 or not (np.isfinite(array) & enough).all():
        bound = "" if least == -np.inf else f", {'above' if above else 'at least'} {least:g}"
        raise InputError(f"{name} must be one or more finite numbers{bound}; got {values}")
    numbers: list[float] = array.tolist()
    return numbers


def check_colour(colour: Colour) -> Colour:
    """Return a colour or raise InputError unless it is three whole levels 0..255."""
    if len(colour) != 3 or any(int(level) != level or not 0 <= level <= 255 for level in colour):
        raise InputError(f"a colour is three whole levels 0..255 (red, green, blue); got {colour}")
    return colour


def hex_colour(colour: Colour) -> str:
    """Return a colour as `#rrggbb`."""
    return "#" + "".join(f"{int(level):02x}" for level in check_colour(colour))
