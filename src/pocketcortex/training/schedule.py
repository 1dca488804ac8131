"""How the ensemble is trained, learning rates, and seeded weights."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch

from pocketcortex.core import InputError

T = TypeVar("T")

_DEFAULTS: dict[str, tuple[float, int, float]] = {
    "joint": (1e-2, 32, 0.05),
    "published": (2.0, 64, 1e-4),
}
"""Learning rate, batch size and readout scale of each schedule."""


@dataclass(frozen=True)
class EnsembleTraining:
    """How members are trained.

    ``"joint"``: every session keeps one readout, batches of all sessions come in random order,
    AdamW with one cycle of the learning rate over the whole training.

    ``"published"``: sessions are visited in turn, in a fresh random order each epoch, with e passes
    over a session's images at each visit of epoch e = 1, 2, ..; the readout is reset at the start
    of every visit. SGD with momentum 0.75, each gradient clipped to 0.5, the learning rate times
    0.85 and the momentum dropped after each epoch. Squared errors are averaged over 200 outputs,
    however many neurons a session has: the effective step grows with neurons / 200.

    Attributes
    ----------
    n_epochs
        Rounds over all sessions.
    learning_rate
        Joint: the peak, after a linear warm-up over a fifth of the steps and before a cosine to
        zero. Published: the rate of the first epoch. None for 1e-2 (joint) or 2.0 (published).
    weight_decay
        AdamW's decay; not used by the published schedule.
    batch_size
        Images a step, all of one session. None for 32 (joint) or 64 (published).
    readout_scale
        Standard deviation of a fresh readout's weights. None for 0.05 (joint) or 1e-4 (published:
        0.001 of the initial kernels, whose standard deviations are 0.05 and 0.14).
    schedule
        ``"joint"`` or ``"published"``.

    Raises
    ------
    InputError
        If the schedule is neither, or a number is out of range.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Methods, "Deep ensemble model", and their public
    code.
    """

    n_epochs: int = 5
    learning_rate: float | None = None
    weight_decay: float = 0.1
    batch_size: int | None = None
    readout_scale: float | None = None
    schedule: Literal["joint", "published"] = "joint"

    def __post_init__(self) -> None:
        if self.schedule not in _DEFAULTS:
            raise InputError(f"schedule must be one of {list(_DEFAULTS)}, got {self.schedule!r}")
        learning_rate, batch_size, readout_scale = self.resolved()
        if min(self.n_epochs, batch_size) < 1 or learning_rate < 0 or readout_scale <= 0:
            raise InputError(
                "training needs epochs and a batch size of 1 or more, a learning rate of 0 or more "
                f"and a readout scale above 0, got {self}"
            )

    def resolved(self) -> tuple[float, int, float]:
        """Return learning rate, batch size and readout scale, the schedule's own for None."""
        rate, size, scale = _DEFAULTS[self.schedule]
        return (
            rate if self.learning_rate is None else self.learning_rate,
            size if self.batch_size is None else self.batch_size,
            scale if self.readout_scale is None else self.readout_scale,
        )

    def n_passes(self, epoch: int) -> int:
        """Return the passes over each session's images in an epoch, counted from 0."""
        return epoch + 1 if self.schedule == "published" else 1


def one_cycle(peak: float, step: int, n_steps: int, warm_up: float) -> float:
    """Return a step's learning rate: a linear rise over a part `warm_up`, then a cosine to zero."""
    rise = max(1, int(warm_up * n_steps))
    if step < rise:
        return peak * (step + 1) / rise
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, n_steps - rise)))


def seeded(seed: int, build: Callable[[], T]) -> T:
    """Return what `build` makes under a seed, leaving torch's global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build()
