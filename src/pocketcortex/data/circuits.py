"""The known circuits of in-silico neurons: linear filters, rectified or squared, then combined.

Positions and lengths are in pixels. Directions run counter-clockwise from rightwards, as seen.
Within a receptive field, ``u`` runs along the neuron's direction and ``v`` a quarter turn
counter-clockwise from it. Filters see images in 0..1, and each weighs by 2 in absolute sum.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from pocketcortex.core.errors import InputError

Area = Literal["V1", "V4", "IT"]
Kind = Literal[
    "simple", "complex", "edge", "curve", "dot", "colour", "texture", "pair", "trio", "figure"
]
KINDS: dict[Area, tuple[Kind, ...]] = {
    "V1": ("simple", "complex"),
    "V4": ("edge", "curve", "dot", "colour", "texture"),
    "IT": ("pair", "trio", "figure"),
}
"""Kinds of neuron that each area of the in-silico cortex holds."""

_GREY = 0.5  # luminance above which a unit beside a bright dot suppresses, in 0..1
_CEILING = 12.0  # output of the softplus at which the rate is half way to its limit
_CROSS_SUPPRESSION = 0.3  # edge: weight of the energy at the orthogonal orientation
_END_STOPPING = 0.25  # dot: weight of each of four surrounding units
_SURROUND_AT = 0.34  # dot: their distance from the centre, in receptive-field diameters
_CURVE_ANGLES = (-50.0, 0.0, 50.0)  # degrees along the arc
_KNEE = 0.05  # softness of the rectification of units that are then multiplied
_TEXTURE_CONSTANT = 0.2  # texture: semi-saturation of the normalisation

# Lengths of IT circuits, in receptive-field diameters.
_PART = 0.21  # radius of a part's filters
_STEP, _FIGURE_STEP = 0.13, 0.085  # between the places where a part, or the figure, may be
_APART = 0.1  # figure: from its middle to the edge, and to the dot
_ARC = 1.6  # radius of a trio's arc, in radii of its dot


@dataclass(frozen=True, kw_only=True)
class Neuron:
    """The ground truth of one in-silico neuron: its circuit, and how its drive becomes spikes.

    With drive ``d`` (see `drive`), ``s = softplus((d - threshold) / softness)`` and
    ``rate = baseline + gain * s / (1 + s / 12)`` spikes per 100-ms bin.

    Parameters
    ----------
    kind : str
        Which circuit, one of `KINDS`; the formulas are `drive`'s.
    row, column : float
        Centre of the receptive field in pixels; (0, 0) is the middle of the top left pixel.
    size : float
        Diameter of the receptive field in pixels; nothing outside it matters.
    feature : float
        Size in pixels of what is detected: half period of a simple, complex or edge filter, radius
        of the arc, radius of the dot, spread (sigma) of a colour subunit, period of the texture; in
        IT, radius of the dot.
    direction_deg : float
        Direction across the contour, 0..360: towards an edge's bright side, from the centre of an
        arc to its middle, across a texture's bars. A dot's four surrounding units, the grid of
        colour subunits, and all that an IT neuron combines are turned by it.
    colour : tuple[float, float, float]
        Weights of red, green and blue, absolute sum 1.
    polarity : {1, -1}
        -1 swaps the preferred and the opposite contrast: a dark dot, an arc filled with dark.
    phase_deg : float
        Of a simple cell's filter at its centre: 0 an edge (odd), 90 a bright bar (even).
    threshold, softness : float
        Of the drive, where the rate starts to rise and how gradually; softness above 0.
    gain, baseline : float
        Spikes per bin: for one softness above threshold, about; and far below threshold.

    Raises
    ------
    InputError
        If ``kind`` is unknown, or ``size``, ``feature`` or ``softness`` is not above 0, or
        ``feature`` is half of ``size`` or more.
    """

    kind: Kind
    row: float
    column: float
    size: float
    feature: float
    direction_deg: float
    colour: tuple[float, float, float]
    polarity: Literal[1, -1]
    phase_deg: float = 0.0
    threshold: float = 0.0
    softness: float = 1.0
    gain: float = 1.0
    baseline: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in _CIRCUITS:
            raise InputError(f"`kind` (={self.kind!r}) must be one of {', '.join(_CIRCUITS)}")
        for name in ("size", "feature", "softness"):
            if not getattr(self, name) > 0:
                raise InputError(f"`{name}` (={getattr(self, name)}) must be above 0")
        if self.feature >= self.size / 2:
            raise InputError(
                f"`feature` (={self.feature}) must be below half of `size` (={self.size})"
            )

    @property
    def n_filters(self) -> int:
        """Number of linear filters in the circuit, the rows of `filters`."""
        return _CIRCUITS[self.kind].n_filters

    @property
    def n_shapes(self) -> int:
        """Number of filters that are not one another shifted: what a convolution can share."""
        return _CIRCUITS[self.kind].n_shapes

    def preferred_stimulus(self, size: int) -> UInt8[np.ndarray, "3 {size} {size}"]:
        """Return a drawing, on grey, of what the circuit detects, in an image of ``size`` pixels.

        Built by reason, not by search, at nearly full contrast: a grating patch in the filter's
        phase, an edge, a half disc, a disc with a ring of the opposite contrast, a coloured patch,
        a grating; for IT its parts, side by side or as the figure they make.
        """
        u, v = _coordinates(self, size)
        colour = torch.tensor(self.colour) / max(abs(weight) for weight in self.colour)
        drawn = _CIRCUITS[self.kind].drawing(self, u, v)
        image = 128.0 + 120.0 * self.polarity * colour[:, None, None] * drawn
        return np.asarray(image.round().to(torch.uint8).numpy())


def filters(neuron: Neuron, size: int) -> Float32[Tensor, "n_filters 3 {size} {size}"]:
    """First stage: the linear filters of a neuron, as weights on images of ``size`` pixels.

    Gabors and centre-surround filters have zero sum over space, chromatic ones over channels; only
    the four units around a dot and the subunits of colour neurons answer to uniform fields.

    Parameters
    ----------
    neuron : Neuron
        The neuron.
    size : int
        Height and width of the images in pixels.

    Returns
    -------
    Float32[Tensor, "n_filters 3 size size"]
        As many as `Neuron.n_filters`: 1 for simple, 2 for complex, 3 for edge and curve, 5 for
        dot, 9 for colour, 48 for texture, 42 for pair and figure, 105 for trio.
    """
    u, v = _coordinates(neuron, size)
    kernels = _CIRCUITS[neuron.kind].kernels(neuron, u, v)
    kernels = kernels * (torch.hypot(u, v) <= neuron.size / 2)
    kernels = 2.0 * kernels / kernels.abs().sum((1, 2), keepdim=True).clamp_min(1e-12)
    return kernels[:, None] * torch.tensor(neuron.colour)[:, None, None]


def drive(
    neuron: Neuron, filtered: Float32[Tensor, "n_stimuli n_filters"]
) -> Float32[Tensor, " n_stimuli"]:
    """Second stage: what the circuit makes of its filters' answers ``f``; ``p`` is the polarity.

    V1:

    - simple: ``p f_0``, one Gabor, selective for phase;
    - complex: ``sqrt(f_0^2 + f_1^2)``, the energy of a pair in quadrature, blind to phase.

    V4:

    - edge: ``p f_0 - 0.3 sqrt(f_1^2 + f_2^2)``, simple cell with cross-orientation suppression;
    - curve: geometric mean of three soft-rectified edge units along an arc, a soft AND;
    - dot: ``p f_0 - 0.25 sum_i relu(p (f_i - grey))``, centre-surround and end-stopping by four;
    - colour: mean of nine rectified opponent subunits;
    - texture: ``E / (0.2 + (E + E_orth) / 2)`` with E the mean over twelve places of
      ``sqrt(even^2 + odd^2)``, a local energy normalised by the two orientations.

    IT, from V4-like parts at 21 places ``x`` that cover most of the receptive field: ``e_x`` an
    edge, ``d_x`` a dot with its ring, both soft-rectified as ``relu(p f_x)``, and ``c_x`` a curve
    as above, of the opposite polarity. The parts of a pair or trio may each be anywhere; a figure
    has its parts in one arrangement, the dot on the edge's dark side, and may be anywhere as a
    whole:

    - pair: ``sqrt(max_x e_x * max_x d_x)``, an edge and a dot;
    - trio: ``cbrt(max_x e_x * max_x d_x * max_x c_x)``, an edge, a dot and a curve;
    - figure: ``max_x sqrt(e_x * d_x)``, a dot beside an edge.

    Parameters
    ----------
    neuron : Neuron
        The neuron.
    filtered : Float32[Tensor, "n_stimuli n_filters"]
        Answers of `filters` to images in 0..1.

    Returns
    -------
    Float32[Tensor, " n_stimuli"]
        The drive, in units of contrast (texture: a ratio, 0..2).
    """
    return _CIRCUITS[neuron.kind].combine(neuron, filtered)


def activate(
    neuron: Neuron, drives: Float32[Tensor, " n_stimuli"]
) -> Float32[Tensor, " n_stimuli"]:
    """Third stage, before gain and baseline: ``s / (1 + s / 12)`` of the softplus ``s``."""
    soft = torch.nn.functional.softplus((drives - neuron.threshold) / neuron.softness)
    return soft / (1.0 + soft / _CEILING)


def _coordinates(neuron: Neuron, size: int) -> tuple[Tensor, Tensor]:
    """``u`` and ``v`` of every pixel."""
    pixels = torch.arange(size, dtype=torch.float32)
    right, up = (pixels - neuron.column)[None, :], (neuron.row - pixels)[:, None]
    turn = math.radians(neuron.direction_deg)
    return (
        right * math.cos(turn) + up * math.sin(turn),
        up * math.cos(turn) - right * math.sin(turn),
    )


def _gabor(
    u: Tensor,
    v: Tensor,
    *,
    sigma: float,
    period: float,
    even: bool = False,
    at: tuple[float, float] = (0.0, 0.0),
    turn_deg: float = 0.0,
) -> Tensor:
    """Zero-sum Gabor at ``at`` = (u, v), its carrier turned from ``u``; odd: bright towards it."""
    turn = math.radians(turn_deg)
    across = (u - at[0]) * math.cos(turn) + (v - at[1]) * math.sin(turn)
    envelope = _blob(u, v, sigma=sigma, at=at)
    phase = (2 * math.pi / period) * across
    kernel = envelope * (torch.cos(phase) if even else torch.sin(phase))
    return kernel - envelope * (kernel.sum() / envelope.sum().clamp_min(1e-12))


def _blob(u: Tensor, v: Tensor, *, sigma: float, at: tuple[float, float]) -> Tensor:
    """Gaussian at ``at``, cut off beyond 2.5 sigma."""
    squared = ((u - at[0]) ** 2 + (v - at[1]) ** 2) / sigma**2
    return torch.exp(-squared / 2) * (squared <= 2.5**2)


def _rectified(neuron: Neuron, filtered: Tensor) -> Tensor:
    """Soft-rectified answers, in the neuron's polarity."""
    return torch.nn.functional.softplus(neuron.polarity * filtered / _KNEE).mul(_KNEE)


def _soft_and(units: Tensor) -> Tensor:
    """Geometric mean over the second axis."""
    return units.clamp_min(1e-6).log().mean(dim=1).exp()


def _arc(
    u: Tensor, v: Tensor, *, radius: float, sigma: float, at: tuple[float, float] = (0.0, 0.0)
) -> list[Tensor]:
    """Three edge units, bright inside, along an arc about ``at``."""
    units = []
    for angle in _CURVE_ANGLES:
        turn = math.radians(angle)
        place = (at[0] + radius * math.cos(turn), at[1] + radius * math.sin(turn))
        units.append(-_gabor(u, v, sigma=sigma, period=4 * sigma, at=place, turn_deg=angle))
    return units


def _centre_surround(
    u: Tensor, v: Tensor, *, radius: float, at: tuple[float, float] = (0.0, 0.0)
) -> Tensor:
    """Zero-sum disc with a ring at ``at``."""
    distance = torch.hypot(u - at[0], v - at[1])
    centre = torch.sigmoid(3.0 * (radius - distance))
    ring = torch.sigmoid(3.0 * (1.9 * radius - distance)) * (1.0 - centre)
    return centre - ring * (centre.sum() / ring.sum().clamp_min(1e-12))


def _disc(u: Tensor, v: Tensor, radius: float, at: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    """Drawing of a disc: 1 inside, 0 outside, its rim soft."""
    return torch.sigmoid(3.0 * (radius - torch.hypot(u - at[0], v - at[1])))


def _patch(neuron: Neuron, u: Tensor, v: Tensor) -> Tensor:
    """Drawing of the receptive field, its rim softer still."""
    return torch.sigmoid(2.0 * (neuron.size / 2 - torch.hypot(u, v)))


# --- V1 -----------------------------------------------------------------------------------------


def _quadrature(neuron: Neuron, u: Tensor, v: Tensor) -> Tensor:
    sigma, period = neuron.size / 5, 2 * neuron.feature
    pair = [_gabor(u, v, sigma=sigma, period=period, even=even) for even in (False, True)]
    return torch.stack(pair)


def _simple_kernels(neuron: Neuron, u: Tensor, v: Tensor) -> Tensor:
    odd, even = _quadrature(neuron, u, v)
    phase = math.radians(neuron.phase_deg)
    turned: Tensor = math.cos(phase) * odd + math.sin(phase) * even
    return turned[None]


def _simple_drive(neuron: Neuron, filtered: Tensor) -> Tensor:
    return neuron.polarity * filtered[:, 0]


def _complex_drive(neuron: Neuron, filtered: Tensor) -> Tensor:
    return torch.hypot(filtered[:, 0], filtered[:, 1])


def _draw_grating(neuron: Neuron, u: Tensor, v: Tensor) -> Tensor:
    phase = math.pi / neuron.feature * u + math.radians(neuron.phase_deg)
    return torch.sin(phase) * _patch(neuron, u, v)


# --- V4 -----------------------------------------------------------------------------------------


def _edge_kernels(neuron: Neuron, u: Tensor, v: Tensor) -> Tensor:
    sigma, period = neuron.size / 5, 2 * neuron.feature
    crossing = [
        _gabor(u, v, sigma=sigma, period=period, turn_deg=90.0, even=even) for even in (False, True)
    ]
    return torch.stack([_gabor(u, v, sigma=sigma, period=period), *crossing])


def _edge_drive(neuron: Neuron, filtered: Tensor) -> Tensor:
    energy = torch.hypot(filtered[:, 1], filtered[:, 2])
    return neuron.polarity * filtered[:, 0] - _CROSS_SUPPRESSION * energy


def _draw_edge(neuron: Neuron, u: Tensor, v: Tensor) -> Tensor:
    return torch.tanh(2.0 * u) * _patch(neuron, u, v)


def _curve_kernels(neuron: Neuron, u: Tensor, v: Tensor) -> Tensor:
    sigma = (neuron.size / 2 - neuron.feature) / 2.5  # the units end where the field ends
    return torch.stack(_arc(u, v, radius=neuron.feature, sigma=sigma))


def _curve_drive(neuron: Neuron, filtered: Tensor) -> Tensor:
    return _soft_and(_rectified(neuron, filtered))


def _draw_curve(neuron: Neuron, u: Tensor, v: Tensor) -> Tensor:
    half = torch.sigmoid(3.0 * (u + 0.1 * neuron.size))
    return (2.0 * _disc(u, v, neuron.feature) - _patch(neuron, u, v)) * half


def _dot_kernels(neuron: Neuron, u: Tensor, v: Tensor) -> Tensor:
    far = _SURROUND_AT * neuron.size
    places = [(far, 0.0), (0.0, far), (-far, 0.0), (0.0, -far)]
    around = [_blob(u, v, sigma=0.07 * neuron.size, at=at) for at in places]
    return torch.stack([_centre_surround(u, v, radius=neuron.feature), *around])


def _dot_drive(neuron: Neuron, filtered: Tensor) -> Tensor:
    grey = 2.0 * _GREY * sum(neuron.colour)  # what the unbalanced units answer to mid grey
    around = torch.relu(neuron.polarity * (filtered[:, 1:] - grey))
    return neuron.polarity * filtered[:, 0] - _END_STOPPING * around.sum(dim=1)


def _draw_dot(neuron: Neuron, u: Tensor, v: Tensor) -> Tensor:
    return 2.0 * _disc(u, v, neuron.feature) - _disc(u, v, 1.9 * neuron.feature)


def _colour_kernels(neuron: Neuron, u: Tensor, v: Tensor) -> Tensor:
    steps = (-0.2 * neuron.size, 0.0, 0.2 * neuron.size)
    return torch.stack([_blob(u, v, sigma=neuron.feature, at=(a, b)) for a in steps for b in steps])


def _colour_drive(neuron: Neuron, filtered: Tensor) -> Tensor:
    return torch.relu(neuron.polarity * filtered).mean(dim=1)


def _texture_kernels(neuron: Neuron, u: Tensor, v: Tensor) -> Tensor:
    steps = [0.18 * neuron.size * (k - 1.5) for k in range(4)]
    reach = 0.29 * neuron.size  # leaves out the four corners of the grid
    places = [(a, b) for a in steps for b in steps if math.hypot(a, b) < reach]
    sigma = (neuron.size / 2 - reach) / 2.5  # the Gabors end where the field ends
    return torch.stack(
        [
            _gabor(u, v, sigma=sigma, period=neuron.feature, even=even, at=at, turn_deg=turn)
            for turn in (0.0, 90.0)
            for at in places
            for even in (False, True)
        ]
    )


def _texture_drive(neuron: Neuron, filtered: Tensor) -> Tensor:
    pairs = filtered.reshape(len(filtered), 2, -1, 2)  # (n_stimuli, orientation, place, phase)
    energy = torch.hypot(pairs[..., 0], pairs[..., 1]).mean(dim=2)
    return energy[:, 0] / (_TEXTURE_CONSTANT + energy.sum(dim=1) / 2)


def _draw_texture(neuron: Neuron, u: Tensor, v: Tensor) -> Tensor:
    return torch.cos(2 * math.pi / neuron.feature * u) * _patch(neuron, u, v)


# --- IT -----------------------------------------------------------------------------------------


def _places(neuron: Neuron, step: float) -> list[tuple[float, float]]:
    """Five by five places about the centre without the corners, ``step`` diameters apart."""
    grid = range(-2, 3)
    length = step * neuron.size
    return [(length * a, length * b) for a in grid for b in grid if abs(a) + abs(b) < 4]


def _edge_parts(neuron: Neuron, u: Tensor, v: Tensor, step: float, shift: float) -> list[Tensor]:
    """One edge unit at each place, moved by ``shift`` diameters along ``u``."""
    sigma = _PART * neuron.size / 2.5
    places = [(a + shift * neuron.size, b) for a, b in _places(neuron, step)]
    return [_gabor(u, v, sigma=sigma, period=4 * sigma, at=at) for at in places]


def _dot_parts(neuron: Neuron, u: Tensor, v: Tensor, step: float, shift: float) -> list[Tensor]:
    """One dot unit at each place, moved by ``shift`` diameters along ``u``."""
    places = [(a + shift * neuron.size, b) for a, b in _places(neuron, step)]
    return [_centre_surround(u, v, radius=neuron.feature, at=at) for at in places]


def _pair_kernels(neuron: Neuron, u: Tensor, v: Tensor) -> Tensor:
    edges = _edge_parts(neuron, u, v, _STEP, 0.0)
    return torch.stack([*edges, *_dot_parts(neuron, u, v, _STEP, 0.0)])


def _pair_drive(neuron: Neuron, filtered: Tensor) -> Tensor:
    units = _rectified(neuron, filtered).reshape(len(filtered), 2, -1)  # (..., part, place)
    return _soft_and(units.amax(dim=2))


def _trio_kernels(neuron: Neuron, u: Tensor, v: Tensor) -> Tensor:
    radius = _ARC * neuron.feature
    sigma = (_PART * neuron.size - radius) / 2.5
    curves = [
        -unit
        for at in _places(neuron, _STEP)
        for unit in _arc(u, v, radius=radius, sigma=sigma, at=at)
    ]
    return torch.cat([_pair_kernels(neuron, u, v), torch.stack(curves)])


def _trio_drive(neuron: Neuron, filtered: Tensor) -> Tensor:
    units = _rectified(neuron, filtered).reshape(len(filtered), 5, -1)
    curves = units[:, 2:].reshape(len(filtered), -1, 3)  # (n_stimuli, place, unit of the arc)
    curve = _soft_and(curves.transpose(1, 2))
    strongest = [units[:, 0].amax(dim=1), units[:, 1].amax(dim=1), curve.amax(dim=1)]
    return _soft_and(torch.stack(strongest, dim=1))


def _figure_kernels(neuron: Neuron, u: Tensor, v: Tensor) -> Tensor:
    edges = _edge_parts(neuron, u, v, _FIGURE_STEP, _APART)
    return torch.stack([*edges, *_dot_parts(neuron, u, v, _FIGURE_STEP, -_APART)])


def _figure_drive(neuron: Neuron, filtered: Tensor) -> Tensor:
    units = _rectified(neuron, filtered).reshape(len(filtered), 2, -1)
    return _soft_and(units).amax(dim=1)


def _draw_edge_at(neuron: Neuron, u: Tensor, v: Tensor, at: tuple[float, float]) -> Tensor:
    return torch.tanh(2.0 * (u - at[0])) * _disc(u, v, _PART * neuron.size, at)


def _draw_dot_at(neuron: Neuron, u: Tensor, v: Tensor, at: tuple[float, float]) -> Tensor:
    disc = 2.0 * _disc(u, v, neuron.feature, at)
    return disc - _disc(u, v, 1.9 * neuron.feature, at)


def _draw_pair(neuron: Neuron, u: Tensor, v: Tensor) -> Tensor:
    far = 2 * _STEP * neuron.size
    return _draw_edge_at(neuron, u, v, (0.0, far)) + _draw_dot_at(neuron, u, v, (0.0, -far))


def _draw_trio(neuron: Neuron, u: Tensor, v: Tensor) -> Tensor:
    step = _STEP * neuron.size
    at = (-2 * step, -step)
    ground = _disc(u, v, _PART * neuron.size, at)
    half = torch.sigmoid(3.0 * (u - at[0] + 0.05 * neuron.size))
    curve = (2.0 * _disc(u, v, _ARC * neuron.feature, at) - ground) * half
    edge = _draw_edge_at(neuron, u, v, (0.0, 2 * step))
    return edge + _draw_dot_at(neuron, u, v, (2 * step, -step)) - curve


def _draw_figure(neuron: Neuron, u: Tensor, v: Tensor) -> Tensor:
    shift = _APART * neuron.size
    ground = _disc(u, v, 0.32 * neuron.size)
    dot = _disc(u, v, neuron.feature, (-shift, 0.0))
    return torch.tanh(2.0 * (u - shift)) * ground + 2.0 * dot


class _Circuit(NamedTuple):
    kernels: Callable[[Neuron, Tensor, Tensor], Tensor]
    combine: Callable[[Neuron, Tensor], Tensor]
    drawing: Callable[[Neuron, Tensor, Tensor], Tensor]
    n_filters: int
    n_shapes: int


_CIRCUITS: dict[Kind, _Circuit] = {
    "simple": _Circuit(_simple_kernels, _simple_drive, _draw_grating, 1, 1),
    "complex": _Circuit(_quadrature, _complex_drive, _draw_grating, 2, 2),
    "edge": _Circuit(_edge_kernels, _edge_drive, _draw_edge, 3, 3),
    "curve": _Circuit(_curve_kernels, _curve_drive, _draw_curve, 3, 3),
    "dot": _Circuit(_dot_kernels, _dot_drive, _draw_dot, 5, 2),
    "colour": _Circuit(_colour_kernels, _colour_drive, _patch, 9, 1),
    "texture": _Circuit(_texture_kernels, _texture_drive, _draw_texture, 48, 4),
    "pair": _Circuit(_pair_kernels, _pair_drive, _draw_pair, 42, 2),
    "trio": _Circuit(_trio_kernels, _trio_drive, _draw_trio, 105, 5),
    "figure": _Circuit(_figure_kernels, _figure_drive, _draw_figure, 42, 2),
}
