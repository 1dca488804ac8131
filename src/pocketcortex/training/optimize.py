"""The loop that fits networks to a teacher: streamed images, resumable at any moment."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from pocketcortex.core import InputError, StimulusSet
from pocketcortex.training.checkpoint import read_checkpoint, save_checkpoint
from pocketcortex.training.schedule import one_cycle

ADAM_EPS = 1e-7
_IMAGES_A_CHECKPOINT = 5_000
_ROWS = 65_536


@dataclass(frozen=True)
class Distillation:
    """How students are fitted to the teacher's responses.

    Attributes
    ----------
    n_epochs
        Passes over the images.
    learning_rate
        Peak of Adam's learning rate.
    readout_rate
        The readouts' learning rate as a multiple of the layers'.
    batch_size
        Images a step.
    schedule
        ``"one_cycle"``: linear warm-up over the first tenth of the steps, then a cosine to zero.
        ``"constant"``: the same rate throughout (published: 1e-4 over 12 million images).
    smoothing
        Standard deviation in pixels of the Gaussian that smooths depthwise kernels and spatial
        readouts after each epoch but the last; 0 for none.
    mixing_l1
        Weight of the mean absolute mixing weight in the loss of a shared network: fewer filters
        a neuron.
    patience
        Epochs without a better r² on the monitored images after which a student stops; each then
        has its best epoch's weights. None: all epochs, last weights.

    Raises
    ------
    InputError
        If a number is out of range or the schedule is unknown.
    """

    n_epochs: int = 4
    learning_rate: float = 2e-3
    readout_rate: float = 1.0
    batch_size: int = 32
    schedule: Literal["one_cycle", "constant"] = "one_cycle"
    smoothing: float = 0.5
    mixing_l1: float = 0.0
    patience: int | None = None

    def __post_init__(self) -> None:
        if self.schedule not in ("one_cycle", "constant"):
            raise InputError(f"schedule must be one_cycle or constant, got {self.schedule!r}")
        least = min(self.n_epochs, self.batch_size, 1 if self.patience is None else self.patience)
        numbers = (self.learning_rate, self.readout_rate, self.smoothing, self.mixing_l1)
        if least < 1 or not all(0 <= number < math.inf for number in numbers):
            raise InputError(
                "distillation needs epochs, a batch size and a patience of 1 or more and finite "
                f"numbers of 0 or more, got {self}"
            )

    def rate(self, step: int, n_steps: int) -> float:
        """Return the learning rate of a step."""
        if self.schedule == "constant":
            return self.learning_rate
        return one_cycle(self.learning_rate, step, n_steps, 0.1)


@runtime_checkable
class Learner(Protocol):
    """What `optimize` trains: networks that all see the same batches."""

    @property
    def n_active(self) -> int:
        """Networks still training, in whose number of images progress is told."""

    def step(self, images: Tensor, index: Int[np.ndarray, " n"], rate: float) -> None:
        """Take one optimiser step on raw images, whose positions in the targets are `index`."""

    def end_epoch(self, *, last: bool) -> None:
        """Smooth, look at the monitored images, stop what no longer gains."""

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that a checkpoint must hold."""

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Put `tensors` back."""


def optimize(
    learner: Learner,
    stimuli: StimulusSet,
    distillation: Distillation,
    *,
    seed: int,
    device: str | torch.device,
    checkpoint: Path | None,
    advance: Callable[[int], None],
) -> None:
    """Train a learner over a bank of images, going on from a checkpoint in the middle of a pass.

    Every pass has its own order, decided by the seed; images are decoded ahead by threads.
    A checkpoint is written every 5,000 images and at the end of each pass.

    Parameters
    ----------
    learner
        What to train.
    stimuli
        The images.
    distillation
        Passes, batch size, learning rate.
    seed
        Seed of the order.
    device
        Where batches go.
    checkpoint
        File to go on from and to write, None for neither.
    advance
        Told how many images were used, times the networks that used them.
    """
    size = min(distillation.batch_size, len(stimuli))
    per_epoch = len(stimuli) // size
    n_steps = distillation.n_epochs * per_epoch
    done = 0
    if checkpoint is not None and (saved := read_checkpoint(checkpoint)) is not None:
        tensors, numbers = saved
        learner.restore(tensors)
        done = numbers["step"]
        advance(done * size * learner.n_active)
    every = max(1, _IMAGES_A_CHECKPOINT // size)

    def save() -> None:
        if checkpoint is not None:
            save_checkpoint(checkpoint, learner.tensors(), {"step": done})

    while done < n_steps and learner.n_active:
        epoch, first = divmod(done, per_epoch)
        indices = list(epoch_batches(len(stimuli), size, seed, epoch))[first:]
        for index, images in zip(indices, stimuli.stream(indices), strict=True):
            rate = distillation.rate(done, n_steps)
            learner.step(torch.from_numpy(images).to(device), index, rate)
            done += 1
            advance(size * learner.n_active)
            if done % every == 0 and done % per_epoch:
                save()
        learner.end_epoch(last=done == n_steps)
        save()


def epoch_batches(
    n_stimuli: int, batch_size: int, seed: int, epoch: int
) -> Iterator[Int[np.ndarray, " n"]]:
    """Yield the positions of each batch of a pass; what does not fill a batch is left out."""
    order = np.random.default_rng([seed, epoch]).permutation(n_stimuli)
    for start in range(0, n_stimuli - batch_size + 1, batch_size):
        yield np.sort(order[start : start + batch_size])


@dataclass(frozen=True)
class Monitor:
    """Images that no student trains on, to follow its agreement with the teacher.

    Attributes
    ----------
    stimuli
        The images.
    responses
        The teacher's responses to them.
    """

    stimuli: StimulusSet
    responses: Float[np.ndarray, "n_stimuli n_neurons"]

    def __post_init__(self) -> None:
        if len(self.stimuli) != len(self.responses):
            raise InputError(
                f"{len(self.stimuli)} monitored images for responses to {len(self.responses)}"
            )


def moments(
    stimuli: StimulusSet, responses: Float[np.ndarray, "n_responses n_neurons"]
) -> tuple[Float[np.ndarray, " n_neurons"], Float[np.ndarray, " n_neurons"]]:
    """Return mean and standard deviation of each column; refuse what cannot be distilled.

    A column's are the same to the last bit whatever other columns there are.

    Raises
    ------
    InputError
        If images and responses disagree in number, or a response is constant or not finite.
    """
    if len(stimuli) != len(responses):
        raise InputError(f"{len(stimuli)} images for responses to {len(responses)}")
    if not len(stimuli):
        raise InputError("there are no images to distil with")
    chunks = [responses[a : a + _ROWS] for a in range(0, len(responses), _ROWS)]
    constant = np.all([(chunk == responses[0]).all(axis=0) for chunk in chunks], axis=0)
    finite = np.all([np.isfinite(chunk).all(axis=0) for chunk in chunks], axis=0)
    bad = np.flatnonzero(~finite | constant)
    if len(bad):
        raise InputError(f"teacher responses of neurons {bad.tolist()} are constant or not finite")
    mean = sum(_column_sums(chunk) for chunk in chunks) / len(responses)
    squares = sum(_column_sums(np.square(chunk - mean)) for chunk in chunks)
    return np.asarray(mean), np.sqrt(np.asarray(squares) / len(responses))


def _column_sums(values: np.ndarray) -> np.ndarray:
    """Return each column's sum, added up in an order that other columns have no part in."""
    return np.asarray(np.ascontiguousarray(values.T, dtype=np.float64).sum(axis=1))


def raw_batches(
    stimuli: StimulusSet, batch_size: int
) -> Iterator[UInt8[np.ndarray, "n 3 height width"]]:
    """Yield all images in order, decoded ahead."""
    starts: Sequence[int] = range(0, len(stimuli), batch_size)
    stops = [min(start + batch_size, len(stimuli)) for start in starts]
    return stimuli.stream(np.arange(a, b) for a, b in zip(starts, stops, strict=True))
