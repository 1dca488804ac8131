"""Learning rates and seeded weights."""

import math
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


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
