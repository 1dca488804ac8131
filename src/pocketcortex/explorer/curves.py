"""Tuning curves that move while filters are taken out: their stimuli, and responses to them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8

if TYPE_CHECKING:
    from pocketcortex.dissect import Tuning
    from pocketcortex.models import CompactModel

WINDOW = 0.16
"""Radius of gratings, borders and plain discs in image sides: that of `dissect.tune`."""

N_PHASES = 4
_TITLES = {
    "size": ("Size of a dot", "radius (px)"),
    "number": ("Number of dots", "dots"),
    "orientation": ("Orientation of a grating", "orientation (°)"),
    "curvature": ("Curvature of a border", "curvature (1/px, − concave)"),
    "hue": ("Hue of a disc", "hue (°)"),
}


@dataclass(frozen=True, eq=False)
class Curve:
    """One tuning curve: stimuli, and how responses to them become points.

    Attributes
    ----------
    name
        ``size``, ``number``, ``orientation``, ``curvature`` or ``hue``.
    x
        What is varied.
    images
        ``n_each`` images a point, one point after the other; the point is their mean response.
    """

    name: str
    x: Float[np.ndarray, " n_points"]
    images: UInt8[np.ndarray, "n_images 3 h w"]

    @property
    def n_each(self) -> int:
        """Images of one point."""
        return len(self.images) // len(self.x)

    def points(self, responses: Float[np.ndarray, " n_images"]) -> Float[np.ndarray, " n_points"]:
        """Return the curve from the responses to its images."""
        return np.asarray(responses.reshape(len(self.x), self.n_each).mean(axis=1))


@dataclass(frozen=True, eq=False)
class CurveSet:
    """A model's tuning curves, its answer to grey, and its map of places.

    Attributes
    ----------
    curves
        Those that filters are taken out for.
    told
        The rest, ready for JSON: indices, responses to a dot at each place, where the stimuli
        were shown.
    """

    curves: tuple[Curve, ...]
    told: dict[str, Any]

    def answers(
        self, respond: Callable[[UInt8[np.ndarray, "n 3 h w"]], np.ndarray]
    ) -> dict[str, list[float]]:
        """Return every curve's points by what `respond` answers to images."""
        images = np.concatenate([curve.images for curve in self.curves])
        responses = np.asarray(respond(images), np.float64)
        ends = np.cumsum([len(curve.images) for curve in self.curves])
        parts = np.split(responses, ends[:-1])
        return {
            curve.name: curve.points(part).tolist()
            for curve, part in zip(self.curves, parts, strict=True)
        }

    def axes(self) -> list[dict[str, Any]]:
        """Return name, title, axis label and x of each curve."""
        return [
            {"name": c.name, "title": _TITLES[c.name][0], "x_label": _TITLES[c.name][1],
             "x": c.x.tolist(), "n_images": len(c.images)}
            for c in self.curves
        ]  # fmt: skip

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the stimuli, to be kept."""
        kept: dict[str, np.ndarray] = {f"{c.name}_x": c.x for c in self.curves}
        return kept | {f"{c.name}_images": c.images for c in self.curves}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], told: dict[str, Any]) -> "CurveSet":
        """Return what `arrays` gave, with what was told."""
        return cls(tuple(Curve(n, arrays[f"{n}_x"], arrays[f"{n}_images"]) for n in _TITLES), told)


def curve_set(model: "CompactModel", centre_px: tuple[float, float], *, seed: int) -> CurveSet:
    """Return a model's tuning curves about its receptive field.

    By `pocketcortex.dissect.tune`; of gratings the best frequency, of borders the best direction.

    Parameters
    ----------
    model
        A compact model of square images.
    centre_px
        x and y of its receptive field.
    seed
        Of the places of dots in number.

    Raises
    ------
    InputError
        As for `tune`.
    """
    from pocketcortex.dissect import AXES, colours_of, tune
    from pocketcortex.stimuli import dots_of_size, gratings

    size = model.image_size[0]
    found = tune(model, centre_px, rng=np.random.default_rng(seed))
    front, back = colours_of(AXES[0])
    radius, centre = WINDOW * size, found.centre_px
    cycles = float(found.cycles_per_image[found.grating.mean(axis=2).max(axis=0).argmax()])
    striped = gratings(
        found.orientations_deg, [cycles], np.arange(N_PHASES) * 90.0, size, radius_px=radius,
        centre_px=centre, foreground=front, background=back,
    )  # fmt: skip
    direction = float(found.directions_deg[found.contour.max(axis=0).argmax()])
    discs = [
        dots_of_size([radius], size, centre_px=centre, foreground=colour).images
        for colour in found.hue_colours
    ]
    curves = (
        Curve("size", found.radii_px, found.size_stimuli),
        Curve("number", np.array(found.numbers, np.float64), found.number_stimuli),
        Curve("orientation", found.orientations_deg, striped.images),
        Curve("curvature", found.curvatures_per_px, _borders(found, direction, size)),
        Curve("hue", found.hues_deg, np.concatenate(discs)),
    )
    told = {
        "grey": found.grey,
        "centre_px": list(found.centre_px),
        "dot_px": list(found.dot_px),
        "dot_colour": list(found.colours[0]),
        "place": found.dot_place.tolist(),
        "indices": {k: None if np.isnan(v) else v for k, v in found.indices.items()},
        "cycles_per_image": cycles,
        "direction_deg": direction,
        "hue_colours": [list(colour) for colour in found.hue_colours],
    }
    return CurveSet(curves, told)


def _borders(
    found: "Tuning", direction: float, size: int
) -> UInt8[np.ndarray, "n_curvatures 3 h w"]:
    """Return borders of every curvature towards one direction, as `dissect.tune` draws them."""
    from pocketcortex.dissect import AXES, colours_of
    from pocketcortex.stimuli import contours

    colours: Sequence[Any] = colours_of(AXES[0])
    images = []
    for bend in found.curvatures_per_px:
        (front, back), turn = (colours[::-1], 180.0) if bend < 0 else (colours, 0.0)
        drawn = contours(
            [abs(float(bend))], [direction + turn], size, radius_px=WINDOW * size,
            centre_px=found.centre_px, foreground=front, background=back,
        )  # fmt: skip
        images.append(drawn.images)
    return np.concatenate(images)
