"""The in-silico cortex: a simulated animal whose neurons are small circuits that are known."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, Float64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from pocketcortex.core.errors import InputError
from pocketcortex.core.recordings import Recordings, Session
from pocketcortex.core.stimuli import StimulusSet
from pocketcortex.data.circuits import KINDS, Area, Kind, Neuron, activate, drive, filters
from pocketcortex.data.dead_leaves import dead_leaves

BIN_MS = 100.0
"""Width of the bin in which spikes are counted, in milliseconds."""

_IMAGES_AT_ONCE = 128
_NEURONS_AT_ONCE = 64
_FILTERS_AT_ONCE = 3072
_CALIBRATION_SEED = 20_231_122
_N_CALIBRATION = 512
_FIRST_STIMULUS = 2**31  # index in the bank of the first image of `insilico_recordings`
_ARRAY_SPREAD = 6 / 64  # sd of receptive-field centres about the array's, in image sides
_MEAN_RATE = (1.5, 5.0)  # spikes per bin over dead leaves
_RATE_CV = (0.55, 0.95)  # sd over mean of the rate over dead leaves
_LEAST_BASELINE = 0.02  # of the mean rate
_LEAST_SIDE: dict[Area, int] = {"V1": 48, "V4": 32, "IT": 32}  # pixels
_MARGIN: dict[Area, float] = {"V1": 0.25, "V4": 0.25, "IT": 0.4}  # of centres, in image sides

# Receptive-field diameter in 1/64 of the image side, and feature size relative to the diameter.
_SIZES: dict[Kind, tuple[float, float]] = {
    "simple": (8, 12),
    "complex": (8, 12),
    "edge": (12, 20),
    "curve": (18, 26),
    "dot": (13, 22),
    "colour": (14, 24),
    "texture": (18, 28),
    "pair": (36, 44),
    "trio": (36, 44),
    "figure": (36, 44),
}
_FEATURES: dict[Kind, tuple[float, float]] = {
    "simple": (0.28, 0.4),
    "complex": (0.28, 0.4),
    "edge": (0.32, 0.42),
    "curve": (0.24, 0.28),
    "dot": (0.13, 0.17),
    "colour": (0.08, 0.1),
    "texture": (0.18, 0.26),
    "pair": (0.06, 0.075),
    "trio": (0.06, 0.075),
    "figure": (0.06, 0.075),
}
_CHROMATIC: dict[Kind, float] = {"simple": 0.2, "edge": 0.2, "dot": 0.25, "colour": 1.0}


class InSilicoCortex:
    """A simulated animal with an array of electrodes in its visual cortex.

    Neurons are pure functions of the image (see `pocketcortex.data.circuits`), so the same neuron
    can be recorded again, with other images, in a later session. Each one's threshold, gain and
    baseline are set so that over dead-leaves images its mean is drawn from 1.5..5 spikes per
    100-ms bin and its coefficient of variation from 0.55..0.95 (lower where the circuit's drive
    varies less than that). IT neurons have more of their signal in common (mean absolute
    correlation 0.4, in V1 and V4 0.1): parts are found wherever there is contrast.

    Parameters
    ----------
    seed : int
        Which animal, 0 or more; decides where in the image its receptive fields cluster.
    image_size : int, optional
        Height and width of the images in pixels, 32 or more; 48 or more for V1.
    area : {"V1", "V4", "IT"}, optional
        Where the array is: which kinds of neuron it meets (`KINDS`). Receptive fields are 8 to 12
        pixels across in V1, 12 to 28 in V4 and 36 to 44 in IT, in images of 64 pixels.

    Raises
    ------
    InputError
        If ``seed`` is negative, ``image_size`` too small, or there is no such area.

    Examples
    --------
    >>> cortex = InSilicoCortex(seed=0)
    >>> neurons = cortex.sample_neurons(3, rng=np.random.default_rng(0))
    >>> cortex.rates(dead_leaves(5, size=64, seed=1), neurons).shape
    (5, 3)
    """

    def __init__(self, seed: int, image_size: int = 64, area: Area = "V4") -> None:
        if seed < 0:
            raise InputError(f"`seed` (={seed}) must be at least 0")
        if area not in KINDS:
            raise InputError(f"`area` (={area!r}) must be one of {', '.join(KINDS)}")
        if image_size < _LEAST_SIDE[area]:
            raise InputError(
                f"`image_size` (={image_size}) must be at least {_LEAST_SIDE[area]} pixels for "
                f"{area}, so that the smallest receptive field spans a few of them"
            )
        self.seed = seed
        self.image_size = image_size
        self.area = area
        offset = np.random.default_rng([seed, 0, 3]).uniform(-1 / 16, 1 / 16, size=2)
        self._array_centre = (0.5 + offset) * image_size - 0.5  # row, column in pixels

    def __repr__(self) -> str:
        return f"InSilicoCortex(seed={self.seed}, image_size={self.image_size}, area={self.area!r})"

    def sample_neurons(self, n: int, *, rng: np.random.Generator) -> tuple[Neuron, ...]:
        """Return ``n`` neurons that an array in this animal happens to meet, kinds equally likely.

        Parameters
        ----------
        n : int
            Number of neurons, 1 or more.
        rng : np.random.Generator
            Decides which.

        Returns
        -------
        tuple[Neuron, ...]
            The neurons, centred within the central half of the image (IT: its central fifth, so
            that their receptive fields lie within the image).

        Raises
        ------
        InputError
            If ``n`` is below 1.
        """
        if n < 1:
            raise InputError(f"`n` (={n}) must be at least 1 neuron")
        drawn = [self._draw(rng) for _ in range(n)]
        targets = [
            (rng.uniform(0.65, 0.85), rng.uniform(*_MEAN_RATE), rng.uniform(*_RATE_CV))
            for _ in drawn
        ]
        drives = _drives(_calibration_images(self.image_size), drawn)
        return tuple(
            _calibrated(neuron, drives[:, k], quantile=quantile, mean=mean, cv=cv)
            for k, (neuron, (quantile, mean, cv)) in enumerate(zip(drawn, targets, strict=True))
        )

    def rates(
        self,
        images: UInt8[np.ndarray, "n_stimuli 3 height width"],
        neurons: Sequence[Neuron],
    ) -> Float64[np.ndarray, "n_stimuli n_neurons"]:
        """Return the expected spike counts per 100-ms bin, ``E[count | image]``.

        Parameters
        ----------
        images : UInt8[np.ndarray, "n_stimuli 3 height width"]
            RGB, 0..255, of the animal's image size.
        neurons : Sequence[Neuron]
            One or more.

        Returns
        -------
        Float64[np.ndarray, "n_stimuli n_neurons"]
            Above 0 and finite; computed in float32.

        Raises
        ------
        InputError
            If the images have another size, or there is no neuron.
        """
        if images.shape[2:] != (self.image_size, self.image_size):
            raise InputError(
                f"images are {images.shape[2]} x {images.shape[3]} pixels, but this cortex sees "
                f"{self.image_size} x {self.image_size}; resize them or set `image_size`"
            )
        if not neurons:
            raise InputError("there is no neuron to compute rates of; give at least one")
        drives = _drives(images, neurons)
        counts = [
            neuron.baseline + neuron.gain * activate(neuron, drives[:, k]).double()
            for k, neuron in enumerate(neurons)
        ]
        return np.asarray(torch.stack(counts, dim=1).numpy())

    def record(
        self,
        stimuli: StimulusSet,
        neurons: Sequence[Neuron],
        *,
        n_repeats: int | tuple[int, int],
        rng: np.random.Generator,
        id: str,
        role: str | None = None,
    ) -> Session:
        """Return one session: Poisson spike counts of the neurons to every stimulus.

        Parameters
        ----------
        stimuli : StimulusSet
            The images, of the animal's image size.
        neurons : Sequence[Neuron]
            One or more.
        n_repeats : int or tuple[int, int]
            Repeats of every stimulus, or the least and the most; the number for each stimulus is
            then drawn uniformly, and repeats not shown are NaN for all neurons, last in the row.
        rng : np.random.Generator
            Decides numbers of repeats and spikes.
        id : str
            Name of the session.
        role : str, optional
            What the session is for ("train", "validation", "test").

        Returns
        -------
        Session
            With responses ``(n_stimuli, most repeats, n_neurons)`` in spikes per 100-ms bin.

        Raises
        ------
        InputError
            If the least number of repeats is below 1 or above the most; if the images have
            another size; if there is no neuron.
        """
        least, most = (n_repeats, n_repeats) if isinstance(n_repeats, int) else n_repeats
        if not 1 <= least <= most:
            raise InputError(
                f"`n_repeats` (={n_repeats}) must be a number of at least 1, or (least, most)"
            )
        batches = stimuli.batches(_IMAGES_AT_ONCE)
        rates = np.concatenate([self.rates(batch, neurons) for batch in batches])
        shown = rng.integers(least, most, size=len(rates), endpoint=True)
        counts = rng.poisson(rates[:, None, :], size=(len(rates), most, len(neurons)))
        missing = np.arange(most) >= shown[:, None]  # (n_stimuli, n_repeats)
        return Session(
            id=id,
            responses=np.where(missing[:, :, None], np.nan, counts),
            stimuli=stimuli,
            animal=f"insilico-{self.seed}",
            role=role,
            bin_ms=BIN_MS,
        )

    def _draw(self, rng: np.random.Generator) -> Neuron:
        """Draw a neuron's circuit, not yet calibrated."""
        kinds, margin = KINDS[self.area], _MARGIN[self.area]
        kind = kinds[rng.integers(len(kinds))]
        scale = self.image_size / 64
        centre = rng.normal(self._array_centre, _ARRAY_SPREAD * self.image_size)
        row, column = np.clip(centre, margin * self.image_size, (1 - margin) * self.image_size)
        size = scale * rng.uniform(*_SIZES[kind])
        feature = size * rng.uniform(*_FEATURES[kind])
        direction, hue = rng.uniform(0.0, 360.0, size=2)
        chromatic = rng.random() < _CHROMATIC.get(kind, 0.0)
        polarity: Literal[1, -1] = 1 if rng.random() < 0.5 else -1
        return Neuron(
            kind=kind,
            row=float(row),
            column=float(column),
            size=size,
            feature=feature,
            direction_deg=float(direction),
            colour=_hue_weights(float(hue)) if chromatic else (1 / 3, 1 / 3, 1 / 3),
            polarity=polarity,
            phase_deg=float(rng.uniform(0.0, 360.0)) if kind == "simple" else 0.0,
        )


def insilico_recordings(
    seed: int,
    *,
    n_sessions: int,
    n_neurons: int,
    n_stimuli: int,
    image_size: int = 64,
    n_repeats: int | tuple[int, int] = (5, 10),
    area: Area = "V4",
) -> Recordings:
    """Sessions of one simulated animal, each with fresh dead-leaves images and fresh neurons.

    All sessions are for training but the last two: "validation", then "test". Of two sessions the
    first is for training and the last for testing. The images are those of bank ``seed`` from
    index 2^31 on, so that no bank counted from 0 holds them.

    Parameters
    ----------
    seed : int
        Decides everything, 0 or more.
    n_sessions : int
        Number of sessions, 2 or more.
    n_neurons, n_stimuli : int
        Of each session, 1 or more.
    image_size : int, optional
        Height and width of the images in pixels, 32 or more; 48 or more for V1.
    n_repeats : int or tuple[int, int], optional
        Repeats of every stimulus, or the least and the most.
    area : {"V1", "V4", "IT"}, optional
        Where the array is, as for `InSilicoCortex`.

    Returns
    -------
    Recordings
        Sessions ``insilico-<seed>-00``, ``-01``, ...; for their neurons see `insilico_neurons`.

    Raises
    ------
    InputError
        If a number is below its least, or there is no such area.
    """
    if n_sessions < 2:
        raise InputError(f"`n_sessions` (={n_sessions}) must be at least 2, to train and to test")
    if n_stimuli < 1:
        raise InputError(f"`n_stimuli` (={n_stimuli}) must be at least 1")
    cortex = InSilicoCortex(seed, image_size, area)
    held_out = ["validation", "test"] if n_sessions > 2 else ["test"]
    roles = ["train"] * (n_sessions - len(held_out)) + held_out
    sessions = []
    for k, role in enumerate(roles):
        start = _FIRST_STIMULUS + k * n_stimuli
        images = dead_leaves(n_stimuli, size=image_size, seed=seed, start=start)
        session = cortex.record(
            StimulusSet.from_array(images, [f"dead_leaves{start + i}" for i in range(n_stimuli)]),
            insilico_neurons(seed, k, n_neurons=n_neurons, image_size=image_size, area=area),
            n_repeats=n_repeats,
            rng=np.random.default_rng([seed, k, 2]),
            id=f"insilico-{seed}-{k:02d}",
            role=role,
        )
        sessions.append(session)
    return Recordings(sessions)


def insilico_neurons(
    seed: int, session: int, *, n_neurons: int, image_size: int = 64, area: Area = "V4"
) -> tuple[Neuron, ...]:
    """Ground truth of one session of `insilico_recordings`: its neurons, in order.

    Parameters
    ----------
    seed : int
        The seed of the recordings.
    session : int
        Which session, counted from 0.
    n_neurons, image_size, area
        As given to `insilico_recordings`.

    Returns
    -------
    tuple[Neuron, ...]
        One neuron for each neuron of the session's responses.

    Raises
    ------
    InputError
        If a number is below its least, or there is no such area.
    """
    if session < 0:
        raise InputError(f"`session` (={session}) must be at least 0")
    cortex = InSilicoCortex(seed, image_size, area)
    return cortex.sample_neurons(n_neurons, rng=np.random.default_rng([seed, session, 1]))


@torch.no_grad()
def _drives(
    images: UInt8[np.ndarray, "n_stimuli 3 height width"], neurons: Sequence[Neuron]
) -> Float32[Tensor, "n_stimuli n_neurons"]:
    """Drive of every neuron by every image: one matrix product over all neurons' filters."""
    drives = torch.empty(len(images), len(neurons))
    most = max(neuron.n_filters for neuron in neurons)
    at_once = min(_NEURONS_AT_ONCE, _FILTERS_AT_ONCE // most)
    for left in range(0, len(neurons), at_once):
        group = neurons[left : left + at_once]
        banks = [filters(neuron, images.shape[-1]).flatten(1) for neuron in group]
        weights = torch.cat(banks).T.contiguous()  # (n_pixels, n_filters)
        lengths = [len(bank) for bank in banks]
        for first in range(0, len(images), _IMAGES_AT_ONCE):
            chunk = np.array(images[first : first + _IMAGES_AT_ONCE])
            answers = torch.from_numpy(chunk).flatten(1).float().div_(255.0) @ weights
            for k, own in enumerate(answers.split(lengths, dim=1)):
                drives[first : first + len(chunk), left + k] = drive(group[k], own)
    return drives


def _calibrated(
    neuron: Neuron,
    drives: Float32[Tensor, " n_stimuli"],
    *,
    quantile: float,
    mean: float,
    cv: float,
) -> Neuron:
    """Neuron with a threshold at a quantile of its drives, and rates of given mean and CV."""
    spread = max(float(drives.std()), 1e-6)
    threshold = float(torch.quantile(drives, quantile))
    neuron = replace(neuron, threshold=threshold, softness=0.5 * spread)
    output = activate(neuron, drives).double()
    steepest = (1.0 - _LEAST_BASELINE) * mean / float(output.mean())
    gain = min(cv * mean / max(float(output.std()), 1e-6), steepest)
    return replace(neuron, gain=gain, baseline=mean - gain * float(output.mean()))


def _hue_weights(hue_deg: float) -> tuple[float, float, float]:
    """Channel weights of zero sum and absolute sum 1: red-green at 0, blue-yellow at 90 degrees."""
    turn = math.radians(hue_deg)
    red_green = np.array([1.0, -1.0, 0.0]) / math.sqrt(2)
    blue_yellow = np.array([-1.0, -1.0, 2.0]) / math.sqrt(6)
    weights: NDArray[np.float64] = math.cos(turn) * red_green + math.sin(turn) * blue_yellow
    weights /= np.abs(weights).sum()
    return float(weights[0]), float(weights[1]), float(weights[2])


@lru_cache(maxsize=4)
def _calibration_images(size: int) -> UInt8[np.ndarray, "n_images 3 height width"]:
    """Dead leaves over which rates are set, the same for every animal."""
    return dead_leaves(_N_CALIBRATION, size=size, seed=_CALIBRATION_SEED)
