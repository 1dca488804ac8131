"""Names beside points, none upon another name or a point."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox, BboxBase

from pocketcortex.plots.style import FAINT, MUTED, SMALL_SIZE

_REACHES = (5.0, 11.0, 18.0, 27.0, 38.0)
_POINT = 3.5
"""Half the side of the square that a point takes, in typographic points."""
_ROOM = 1.1
"""Width of a name's place by that of its letters, which depends on the resolution drawn at."""


class _Side(NamedTuple):
    """Where a name stands: direction from its point, and which of its edges is nearest."""

    right: float
    up: float
    horizontal: str
    vertical: str


_SIDES = (
    _Side(1, 0.6, "left", "bottom"), _Side(-1, 0.6, "right", "bottom"),
    _Side(1, -0.6, "left", "top"), _Side(-1, -0.6, "right", "top"),
    _Side(0, 1, "center", "bottom"), _Side(0, -1, "center", "top"),
)  # fmt: skip
_SHARES = {"left": 0.0, "center": 0.5, "right": 1.0, "bottom": 0.0, "top": 1.0}


def name_points(
    ax: Axes,
    names: Sequence[str],
    points: Float[np.ndarray, "n 2"],
    others: Float[np.ndarray, "n_others 2"],
) -> None:
    """Write names beside their points where there is room, joined by a line if that is far off.

    To be called last: limits and the layout of the axes' figure must be what will be drawn. What
    cannot be kept apart overlaps as little as it may.

    Parameters
    ----------
    ax
        Axes that hold the points.
    names
        One for each point; what has an empty one is only kept clear of.
    points
        Finite, in data coordinates.
    others
        Points without names to be kept clear of too.
    """
    figure = ax.get_figure(root=True)
    assert figure is not None  # noqa: S101 - axes are drawn on one
    scale = figure.dpi / 72  # pixels a typographic point
    half = _POINT * scale
    places = ax.transData.transform(np.concatenate([points, others]))
    taken = [Bbox.from_extents(x - half, y - half, x + half, y + half) for x, y in places]
    style: dict[str, Any] = {"fontsize": SMALL_SIZE - 1, "color": MUTED, "parse_math": False}
    for k in np.argsort(-points[:, 1], kind="stable"):
        if not names[k]:
            continue
        trial = ax.text(0, 0, names[k], **style)
        size = trial.get_window_extent()
        trial.remove()
        best, box = min(
            (
                (spot, _box(places[k], spot, scale, _ROOM * size.width, size.height))
                for spot in _spots()
            ),
            key=lambda found: _overlap(found[1], taken, ax.bbox),
        )  # fmt: skip
        reach, side = best
        shares = (_SHARES[side.horizontal], _SHARES[side.vertical])
        line = {"arrowstyle": "-", "color": FAINT, "shrinkA": 0, "shrinkB": 3, "relpos": shares}
        ax.annotate(
            names[k], points[k], (side.right * reach, side.up * reach),
            textcoords="offset points", ha=side.horizontal, va=side.vertical,
            arrowprops=line if reach > _REACHES[0] else None, **style,
        ).set_in_layout(False)  # fmt: skip
        taken.append(box)


def _spots() -> Iterator[tuple[float, _Side]]:
    """Yield distances in typographic points and sides, the nearest first."""
    for reach in _REACHES:
        for side in _SIDES:
            yield reach, side


def _box(
    point: Float[np.ndarray, " 2"],
    spot: tuple[float, _Side],
    scale: float,
    width: float,
    height: float,
) -> Bbox:
    """Return the pixels that a name takes there."""
    reach, side = spot
    left = point[0] + side.right * reach * scale - _SHARES[side.horizontal] * width
    bottom = point[1] + side.up * reach * scale - _SHARES[side.vertical] * height
    return Bbox.from_bounds(left, bottom, width, height)


def _overlap(own: Bbox, taken: Sequence[Bbox], within: BboxBase) -> float:
    """Return how many square pixels of a name lie upon others or outside the axes."""
    inside = Bbox.intersection(own, within)
    lost = own.width * own.height - (0.0 if inside is None else inside.width * inside.height)
    for other in taken:
        shared = Bbox.intersection(own, other)
        lost += 0.0 if shared is None else shared.width * shared.height
    return float(lost)
