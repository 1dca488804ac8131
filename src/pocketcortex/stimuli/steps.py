"""The synthesis of one image, one step at a time, to be watched and stopped."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8

from pocketcortex.core import InputError
from pocketcortex.models import CompactModel, PairedStack
from pocketcortex.stimuli.synthesize import (
    _noise,
    _Recipe,
    _smoothed,
    _strong_noise,
)


@dataclass(frozen=True, eq=False)
class SynthesisStep:
    """Where a synthesis is.

    Attributes
    ----------
    step
        Gradient steps taken; 0 is the noise it starts from.
    image
        The image as it is now, rounded to whole levels 0..255.
    response
        The model's response to it, before rounding.
    best, best_response
        The strongest (or weakest, if minimized) image met so far, rounded, and the response
        before rounding; after the last step the response to the rounded image.
    """

    step: int
    image: UInt8[np.ndarray, "3 h w"]
    response: float
    best: UInt8[np.ndarray, "3 h w"]
    best_response: float


def synthesis_steps(
    model: CompactModel, *, n_steps: int, seed: int, minimize: bool = False
) -> Iterator[SynthesisStep]:
    """Yield a synthesis step by step: the recipe of `synthesize`, one model, one start, on a CPU.

    ``n_steps + 1`` steps come; the last one's `best` is the image that ``synthesize([model],
    n_starts=1, n_steps=n_steps, seed=seed)`` returns. Whoever has seen enough stops iterating.

    Parameters
    ----------
    model
        A trained compact model.
    n_steps
        Gradient steps, one forward and one backward pass each.
    seed
        Seed of the noise.
    minimize
        Descend instead.

    Raises
    ------
    InputError
        If there is no step, or the seed is negative.
    """
    if n_steps < 1 or seed < 0:
        raise InputError(f"need a step or more and a seed of 0 or more, got {n_steps} and {seed}")
    return _steps(
        PairedStack([model]), _Recipe(n_steps, -1.0 if minimize else 1.0, False, None), seed
    )


def _steps(stack: PairedStack, recipe: _Recipe, seed: int) -> Iterator[SynthesisStep]:
    rng = np.random.default_rng([seed, 0, 0])
    x = recipe.begun(torch.from_numpy(_noise(rng, stack.image_size))[None, None])
    best, best_response, climbed = x, -float("inf"), False
    for step in range(recipe.n_steps + 1):
        last = step == recipe.n_steps
        if last:
            responses, gradients = stack.responses(x), x
        else:
            responses, gradients = stack.gradients(x)
        response = float(responses[0, 0])
        if recipe.sign * response > best_response:
            best, best_response = x, recipe.sign * response
        told = float(stack.responses(best.round())[0, 0]) if last else recipe.sign * best_response
        yield SynthesisStep(step, _whole(x), response, _whole(best), told)
        if last:
            return
        flat = bool((gradients == 0).all())
        climbed = climbed or not flat
        x = recipe.moved(x, gradients.to(x))
        if flat and not climbed:
            drawn = torch.from_numpy(_strong_noise(rng, stack.image_size))
            x = recipe.allowed(drawn.to(x)[None, None])
        if recipe.smooths_after(step):
            response = float(stack.responses(x)[0, 0])
            if recipe.sign * response > best_response:
                best, best_response = x, recipe.sign * response
            x = _smoothed(x)


def _whole(x: torch.Tensor) -> UInt8[np.ndarray, "3 h w"]:
    return np.asarray(x[0, 0].round().to(torch.uint8).numpy())
