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

Kind = Literal["edge", "curve", "dot", "colour", "texture"]
KINDS: tuple[Kind, ...] = ("edge", "curve", "dot", "colour", "texture")

_GREY = 0.5  # luminance above which a unit beside a bright dot suppresses, in 0..1
_CEILING = 12.0  # output of the softplus at which the rate is half way to its limit
_CROSS_SUPPRESSION = 0.3  # edge: weight of the energy at the orthogonal orientation
_END_STOPPING = 0.25  # dot: weight of each of four surrounding units
_SURROUND_AT = 0.34  # dot: their distance from the centre, in receptive-field diameters
_CURVE_ANGLES = (-50.0, 0.0, 50.0)  # degrees along the arc
_CURVE_KNEE = 0.05  # curve: softness of each unit's rectification
_TEXTURE_CONSTANT = 0.2  # texture: semi-saturation of the normalisation


@dataclass(frozen=True, kw_only=True)
class Neuron:
    """The ground truth of one in-silico neuron: its circuit, and how its drive becomes spikes.

    With drive ``d`` (see `drive`), ``s = softplus((d - threshold) / softness)`` and
    ``rate = baseline + gain * s / (1 + s / 12)`` spikes per 100-ms bin.

    Parameters
    ----------
    kind : {"edge", "curve", "dot", "colour", "texture"}
        Which circuit.
    row, column : float
        Centre of the receptive field in pixels; (0, 0) is the middle of the top left pixel.
    size : float
        Diameter of the receptive field in pixels; nothing outside it matters.
    feature : float
        Size in pixels of what is detected: half period of the edge filter, radius of the arc,
        radius of the dot, spread (sigma) of a colour subunit, period of the texture.
    direction_deg : float
        Direction across the contour, 0..360: towards an edge's bright side, from the centre of an
        arc to its middle, across a texture's bars. A dot's four surrounding units, and the grid of
        colour subunits, are turned by it.
    colour : tuple[float, float, float]
        Weights of red, green and blue, absolute sum 1.
    polarity : {1, -1}
        -1 swaps the preferred and the opposite contrast: a dark dot, an arc filled with dark.
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
    threshold: float = 0.0
    softness: float = 1.0
    gain: float = 1.0
    baseline: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"`kind` (={self.kind!r}) must be one of {', '.join(KINDS)}")
        for name in ("size", "feature", "softness"):
            if not getattr(self, name) > 0:
                raise InputError(f"`{name}` (={getattr(self, name)}) must be above 0")
        if self.feature >= self.size / 2:
            raise InputError(
                f"`feature` (={self.feature}) must be below half of `size` (={self.size})"
            )

    def preferred_stimulus(self, size: int) -> UInt8[np.ndarray, "3 {size} {size}"]:
        """Return a drawing, on grey, of what the circuit detects, in an image of ``size`` pixels.

        Built by reason, not by search: an edge, a half disc, a disc with a ring of the
        opposite contrast, a coloured patch or a grating, at nearly full contrast.
        """
        u, v = _coordinates(self, size)
        distance = torch.hypot(u, v)
        patch = torch.sigmoid(2.0 * (self.size / 2 - distance))
        disc = torch.sigmoid(3.0 * (self.feature - distance))
        halo = torch.sigmoid(3.0 * (1.9 * self.feature - distance))
        half = torch.sigmoid(3.0 * (u + 0.1 * self.size))
        drawn = {
            "edge": torch.tanh(2.0 * u) * patch,
            "curve": (2.0 * disc - patch) * half,
            "dot": 2.0 * disc - halo,
            "colour": patch,
            "texture": torch.cos(2 * math.pi / self.feature * u) * patch,
        }[self.kind]
        colour = torch.tensor(self.colour) / max(abs(weight) for weight in self.colour)
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
        3 filters for edge and curve, 5 for dot, 9 for colour, 48 for texture.
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

    - edge: ``p f_0 - 0.3 sqrt(f_1^2 + f_2^2)``, simple cell with cross-orientation suppression;
    - curve: geometric mean of three soft-rectified edge units along an arc, a soft AND;
    - dot: ``p f_0 - 0.25 sum_i relu(p (f_i - grey))``, centre-surround and end-stopping by four;
    - colour: mean of nine rectified opponent subunits;
    - texture: ``E / (0.2 + (E + E_orth) / 2)`` with E the mean over twelve places of
      ``sqrt(even^2 + odd^2)``, a local energy normalised by the two orientations.

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


def _edge_kernels(neuron: Neuron, u: Tensor, v: Tensor) -> Tensor:
    sigma, period = neuron.size / 5, 2 * neuron.feature
    crossing = [
        _gabor(u, v, sigma=sigma, period=period, turn_deg=90.0, even=even) for even in (False, True)
    ]
    return torch.stack([_gabor(u, v, sigma=sigma, period=period), *crossing])


def _edge_drive(neuron: Neuron, filtered: Tensor) -> Tensor:
    energy = torch.hypot(filtered[:, 1], filtered[:, 2])
    return neuron.polarity * filtered[:, 0] - _CROSS_SUPPRESSION * energy


def _curve_kernels(neuron: Neuron, u: Tensor, v: Tensor) -> Tensor:
    sigma = (neuron.size / 2 - neuron.feature) / 2.5  # the units end where the field ends
    units = []
    for angle in _CURVE_ANGLES:
        turn = math.radians(angle)
        at = (neuron.feature * math.cos(turn), neuron.feature * math.sin(turn))
        units.append(-_gabor(u, v, sigma=sigma, period=4 * sigma, at=at, turn_deg=angle))
    return torch.stack(units)


def _curve_drive(neuron: Neuron, filtered: Tensor) -> Tensor:
    units = _CURVE_KNEE * torch.nn.functional.softplus(neuron.polarity * filtered / _CURVE_KNEE)
    return units.clamp_min(1e-6).log().mean(dim=1).exp()


def _dot_kernels(neuron: Neuron, u: Tensor, v: Tensor) -> Tensor:
    distance = torch.hypot(u, v)
    centre = torch.sigmoid(3.0 * (neuron.feature - distance))
    ring = torch.sigmoid(3.0 * (1.9 * neuron.feature - distance)) * (1.0 - centre)
    far = _SURROUND_AT * neuron.size
    places = [(far, 0.0), (0.0, far), (-far, 0.0), (0.0, -far)]
    around = [_blob(u, v, sigma=0.07 * neuron.size, at=at) for at in places]
    balanced = centre - ring * (centre.sum() / ring.sum().clamp_min(1e-12))
    return torch.stack([balanced, *around])


def _dot_drive(neuron: Neuron, filtered: Tensor) -> Tensor:
    grey = 2.0 * _GREY * sum(neuron.colour)  # what the unbalanced units answer to mid grey
    around = torch.relu(neuron.polarity * (filtered[:, 1:] - grey))
    return neuron.polarity * filtered[:, 0] - _END_STOPPING * around.sum(dim=1)


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


class _Circuit(NamedTuple):
    kernels: Callable[[Neuron, Tensor, Tensor], Tensor]
    combine: Callable[[Neuron, Tensor], Tensor]


_CIRCUITS: dict[Kind, _Circuit] = {
    "edge": _Circuit(_edge_kernels, _edge_drive),
    "curve": _Circuit(_curve_kernels, _curve_drive),
    "dot": _Circuit(_dot_kernels, _dot_drive),
    "colour": _Circuit(_colour_kernels, _colour_drive),
    "texture": _Circuit(_texture_kernels, _texture_drive),
}
