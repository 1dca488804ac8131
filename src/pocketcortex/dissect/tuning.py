"""Tuning of one model: dots, gratings, borders and colours about its receptive field."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8

from pocketcortex.core import InputError
from pocketcortex.dissect.probes import AXES, colours_of
from pocketcortex.models import CompactModel, PairedStack
from pocketcortex.stimuli import contours, dots_at, dots_in_number, dots_of_size, gratings
from pocketcortex.stimuli.drawing import GREY, Colour

N_PLACES = 28
"""Places across and down at which a dot is shown; 28 published."""

N_DRAWS = 8
"""Images of each number of dots."""

RADII = np.array([0, *np.geomspace(0.012, 0.32, 23)])
"""Radii of dots in image sides; 0 shows none."""

NUMBERS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Dots in an image."""

_DOT = 2.5 / 112  # radius of the small dots, in image sides: 5 of 112 pixels across
_CYCLES = (3, 4.5, 6, 9, 12, 18)
_ORIENTATIONS = np.arange(12) * 15.0
_PHASES = np.arange(4) * 90.0
_BENDS = np.array([0.05, 0.07, 0.1, 0.14, 0.25])  # radii of curvature, in image sides
_DIRECTIONS = np.arange(16) * 22.5
_WINDOW = 0.16
_HUES = np.arange(12) * 30.0


@dataclass(frozen=True, eq=False)
class Tuning:
    """Responses of one model to drawn stimuli, in the units it was trained in.

    Attributes
    ----------
    colours
        Of the dots and of what is around them.
    grey
        Response to plain grey.
    centre_px
        x and y of the receptive field's centre, where gratings, borders and colours are shown.
    dot_px
        x and y of the dot place that drives most, where the dots of all sizes are shown.
    radii_px, dot_size
        Radii, and responses to a dot of each at `dot_px`.
    dot_place
        Responses to a 5-pixel dot (of 112) at each of 28 x 28 places, top row first.
    numbers, dot_number
        Numbers of such dots in an image, and responses to several draws of each.
    orientations_deg, cycles_per_image, grating
        Of gratings in a window, and responses by orientation, frequency and phase (4).
    curvatures_per_px, directions_deg, contour
        Of borders in a window, and responses by curvature (negative: concave, the foreground
        outside) and direction.
    hues_deg, hue
        Of plain discs, and responses.
    """

    colours: tuple[Colour, Colour]
    grey: float
    centre_px: tuple[float, float]
    dot_px: tuple[float, float]
    radii_px: Float[np.ndarray, " n_radii"]
    dot_size: Float[np.ndarray, " n_radii"]
    dot_place: Float[np.ndarray, "n_rows n_columns"]
    numbers: tuple[int, ...]
    dot_number: Float[np.ndarray, "n_numbers n_draws"]
    orientations_deg: Float[np.ndarray, " n_orientations"]
    cycles_per_image: Float[np.ndarray, " n_cycles"]
    grating: Float[np.ndarray, "n_orientations n_cycles n_phases"]
    curvatures_per_px: Float[np.ndarray, " n_curvatures"]
    directions_deg: Float[np.ndarray, " n_directions"]
    contour: Float[np.ndarray, "n_curvatures n_directions"]
    hues_deg: Float[np.ndarray, " n_hues"]
    hue: Float[np.ndarray, " n_hues"]
    size_stimuli: UInt8[np.ndarray, "n_radii 3 h w"]
    number_stimuli: UInt8[np.ndarray, "n_number_stimuli 3 h w"]

    @property
    def hue_colours(self) -> list[Colour]:
        """Colours of the plain discs."""
        return [_hue(float(turn)) for turn in self.hues_deg]

    @property
    def indices(self) -> dict[str, float]:
        r"""What the curves say, in numbers; NaN where nothing drives the model above grey.

        With responses above that to grey, and peaks the largest of them:

        ``preferred_radius_px``
            Of the dot that drives most.
        ``size_selectivity``
            1 minus the response to the largest dot over the peak: 0 if larger is never worse.
        ``size_octaves``
            Width of the size curve at half its peak, in octaves of radius.
        ``place_diameter_px``
            Of the disc as large as the area where a dot drives at least half of the peak.
        ``number_gain``
            Response to the most dots over that to one dot, as means over draws: 1 for a model
            that does not count.
        ``orientation_selectivity``
            1 minus circular variance at the best frequency, mean over phases, responses below
            grey taken as 0 (Ringach et al. 2002, J. Neurosci. 22: 5639).
        ``phase_invariance``
            Mean over phases over the largest, at the best orientation and frequency: 1 for a
            complex cell.
        ``curvature_preference``
            Best convex or concave border over the straight one in the best direction, less 1.
        ``colour_selectivity``
            1 minus the weakest hue over the strongest, responses below grey taken as 0.
        """
        size, place = self.dot_size - self.grey, self.dot_place - self.grey
        by_phase = np.maximum(self.grating - self.grey, 0)
        by_number = self.dot_number.mean(axis=1) - self.grey
        contour, hue = self.contour - self.grey, np.maximum(self.hue - self.grey, 0)
        best = np.unravel_index(by_phase.mean(2).argmax(), by_phase.shape[:2])
        around = by_phase.mean(2)[:, best[1]]
        turns = np.exp(2j * np.deg2rad(self.orientations_deg))
        straight = contour[self.curvatures_per_px == 0].max()
        one = by_number[list(self.numbers).index(1)]
        high = size >= size.max() / 2
        step = np.log2(self.radii_px[2] / self.radii_px[1])
        pixels = (self.size_stimuli.shape[-1] / len(place)) ** 2
        area = (place >= place.max() / 2).sum() * pixels
        return {
            "preferred_radius_px": float(self.radii_px[size.argmax()]),
            "size_selectivity": _ratio(size.max() - size[-1], size.max()),
            "size_octaves": float(step * high[1:].sum()) if size.max() > 0 else float("nan"),
            "place_diameter_px": float(2 * np.sqrt(area / np.pi))
            if place.max() > 0 else float("nan"),
            "number_gain": _ratio(by_number[-1], one),
            "orientation_selectivity": _ratio(abs((around * turns).sum()), around.sum()),
            "phase_invariance": _ratio(by_phase[best].mean(), by_phase[best].max()),
            "curvature_preference": _ratio(contour.max() - straight, straight),
            "colour_selectivity": _ratio(hue.max() - hue.min(), hue.max()),
        }  # fmt: skip


def tune(
    model: CompactModel,
    centre_px: tuple[float, float],
    *,
    rng: np.random.Generator,
    axis: str = AXES[0],
    device: str | torch.device = "cpu",
) -> Tuning:
    """Return one model's tuning to dots, gratings, borders and colours.

    Dots are drawn on grey in that colour of the axis in which, at the field's centre, some size
    drives most; the other stimuli in both.

    Parameters
    ----------
    model
        A compact model of square images of 36 pixels or more.
    centre_px
        x and y of its receptive field, as `receptive_fields` tells.
    rng
        Source of the places of dots in number.
    axis
        Pair of colours, one of `AXES`.
    device
        Where to compute.

    Raises
    ------
    InputError
        If images are not square, there is no such axis, or the centre is outside the image.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Fig. 4b-d (sizes at the preferred place, 5-pixel dots,
    28 x 28 places). Sizes, numbers and the other stimuli are our choice.
    """
    height, size = model.image_size
    if height != size:
        raise InputError(f"tuning is to square images; the model takes {height} x {size}")
    if not all(0 <= along <= size - 1 for along in centre_px):
        raise InputError(f"the centre {centre_px} must lie within the image, 0..{size - 1}")
    stack = PairedStack([model]).to(device)

    def answers(images: UInt8[np.ndarray, "n 3 h w"]) -> Float[np.ndarray, " n"]:
        shown = torch.from_numpy(images)[None].to(device)
        return np.asarray(stack.responses(shown)[0].double().cpu().numpy())

    radii, small = RADII * size, _DOT * size
    colours = colours_of(axis)
    by_colour = [
        answers(dots_of_size(radii, size, centre_px=centre_px, foreground=c).images).max()
        for c in colours
    ]
    front = colours[int(np.argmax(by_colour))]
    places = answers(dots_at(N_PLACES, size, radius_px=small, foreground=front).images)
    row, column = np.unravel_index(places.argmax(), (N_PLACES, N_PLACES))
    dot_px = tuple(float((k + 0.5) * size / N_PLACES - 0.5) for k in (column, row))
    sizes = dots_of_size(radii, size, centre_px=(dot_px[0], dot_px[1]), foreground=front)
    numbers = dots_in_number(
        NUMBERS, size, rng=rng, n_draws=N_DRAWS, radius_px=small, foreground=front
    )
    striped = gratings(
        _ORIENTATIONS, _CYCLES, _PHASES, size, radius_px=_WINDOW * size, centre_px=centre_px,
        foreground=colours[0], background=colours[1],
    )  # fmt: skip
    curvatures, contour = _contours(answers, colours, size, centre_px)
    discs = [
        dots_of_size(
            [_WINDOW * size], size, centre_px=centre_px, foreground=_hue(turn)
        ).images for turn in _HUES
    ]  # fmt: skip
    shape = (len(_ORIENTATIONS), len(_CYCLES), len(_PHASES))
    return Tuning(
        colours=(front, GREY),
        grey=float(answers(dots_of_size([0], size).images)[0]),
        centre_px=centre_px, dot_px=(dot_px[0], dot_px[1]),
        radii_px=radii, dot_size=answers(sizes.images),
        dot_place=places.reshape(N_PLACES, N_PLACES),
        numbers=NUMBERS, dot_number=answers(numbers.images).reshape(len(NUMBERS), N_DRAWS),
        orientations_deg=_ORIENTATIONS, cycles_per_image=np.array(_CYCLES, np.float64),
        grating=answers(striped.images).reshape(shape),
        curvatures_per_px=curvatures, directions_deg=_DIRECTIONS, contour=contour,
        hues_deg=_HUES, hue=answers(np.concatenate(discs)),
        size_stimuli=sizes.images, number_stimuli=numbers.images,
    )  # fmt: skip


def _contours(
    answers: Callable[[UInt8[np.ndarray, "n 3 h w"]], Float[np.ndarray, " n"]],
    colours: tuple[Colour, Colour],
    size: int,
    centre_px: tuple[float, float],
) -> tuple[Float[np.ndarray, " n_curvatures"], Float[np.ndarray, "n_curvatures n_directions"]]:
    """Return curvatures, concave ones negative, and responses by curvature and direction.

    The direction is where the second colour lies; a concave border is a convex one with colours
    exchanged, bulging the other way.
    """
    bends = 1 / (_BENDS * size)
    found: dict[float, np.ndarray] = {}
    for sign, (front, back), turn in ((1, colours, 0.0), (-1, colours[::-1], 180.0)):
        drawn = contours(
            bends, _DIRECTIONS + turn, size, radius_px=_WINDOW * size, centre_px=centre_px,
            foreground=front, background=back,
        )  # fmt: skip
        rows = answers(drawn.images).reshape(len(bends), len(_DIRECTIONS))
        found |= {sign * bend: row for bend, row in zip(bends, rows, strict=True)}
    straight = contours(
        [0], _DIRECTIONS, size, radius_px=_WINDOW * size, centre_px=centre_px,
        foreground=colours[0], background=colours[1],
    )  # fmt: skip
    found[0.0] = answers(straight.images)
    curvatures = sorted(found)
    return np.array(curvatures), np.stack([found[bend] for bend in curvatures])


def _hue(turn_deg: float) -> Colour:
    """Return the colour at an angle of the plane of hues."""
    first, second = colours_of(f"hue {turn_deg % 180:g}")
    return first if turn_deg < 180 else second


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else float("nan")
