"""Functions that the tests of schedulers send to worker processes, which import them by name."""

import os
import time
from pathlib import Path

import numpy as np

from pocketcortex.core import BrainArea, InputError, Session, StimulusSet


def doubled(x: int) -> int:
    return 2 * x


def where(x: int) -> int:
    time.sleep(0.2)
    return os.getpid()


def fails(kind: str) -> None:
    if kind == "input":
        raise InputError("the file is empty; give another")
    if kind == "other":
        raise ZeroDivisionError("by zero")


def dies_once(mark: str) -> str:
    """Kill the worker process the first time; the second time say that all is well."""
    path = Path(mark)
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), 9)
    return "alive"


def dies(x: int) -> None:
    os.kill(os.getpid(), 9)


def recorded(n: int) -> list[BrainArea]:
    """Return one area whose neurons sum pixels, with repeats."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, 3, 16, 16), dtype=np.uint8)
    pixels = images.reshape(n, -1) / 255 - 0.5
    signal = pixels @ rng.normal(size=(pixels.shape[1], 12))
    noise = rng.normal(size=(n, 4, 12))
    stimuli = StimulusSet.from_array(images)
    return [BrainArea("lab/one", stimuli, Session("lab/one", signal[:, None] + noise, stimuli))]
