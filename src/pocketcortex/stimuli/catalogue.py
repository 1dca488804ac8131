"""A few examples of every kind of stimulus, on one scale for any image size."""

import numpy as np
import pandas as pd
from jaxtyping import UInt8

from pocketcortex.core import InputError
from pocketcortex.stimuli.dots import dots_at, dots_in_number, dots_of_size
from pocketcortex.stimuli.drawing import Colour, Drawn
from pocketcortex.stimuli.gaudy import gaudy
from pocketcortex.stimuli.patterns import (
    bars,
    curves,
    edges,
    gratings,
    plain_colours,
    white_noise,
)

_COLOURS: tuple[Colour, ...] = (
    (255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255),
    (0, 0, 255), (255, 0, 255), (255, 255, 255), (0, 0, 0),
)  # fmt: skip
_LEAST_SIZE = 32


def catalogue(
    size: int,
    *,
    rng: np.random.Generator,
    natural: UInt8[np.ndarray, "n 3 {size} {size}"] | None = None,
) -> Drawn:
    """Return examples of every kind of stimulus: natural ones if given, their gaudy forms, drawn.

    The kinds, in order: `natural`, `gaudy` (each channel at its own mean), `dot size`, `dot place`,
    `dot number`, `grating`, `edge`, `bar`, `curve`, `colour`, `noise`. Eight images a kind (nine
    of `dot place`, as many as given of natural ones); sizes are shares of the image's, so that a
    catalogue looks the same at any size. For a tuning curve, call the kind's own function.

    Parameters
    ----------
    size
        Height and width of the images in pixels, 32 or more.
    rng
        Source of the places of dots in number, and of the noise.
    natural
        Photographs, levels 0..255.

    Raises
    ------
    InputError
        If `size` is below 32.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Extended Data Fig. 7, shows such a list; which
    examples stand for each kind is our choice.
    """
    if size < _LEAST_SIZE:
        raise InputError(f"size must be at least {_LEAST_SIZE} pixels, got {size}")
    scale = size / 112
    eighth_turns = np.arange(8) * 45.0
    of_natural = [] if natural is None else _of_natural(natural)
    return Drawn.concatenate([
        *of_natural,
        dots_of_size(scale * np.array([2, 4, 7, 11, 16, 22, 30, 40]), size),
        dots_at(3, size, radius_px=scale * 6),
        dots_in_number([1, 2, 4, 8, 16, 24, 32, 48], size, rng=rng, radius_px=scale * 4),
        gratings(np.arange(4) * 45.0, [4, 10], [0], size, radius_px=scale * 50),
        edges(eighth_turns, [0], size),
        bars(np.arange(8) * 22.5, size, length_px=scale * 64, width_px=scale * 10),
        curves(
            np.array([0.012, 0.05]) / scale, np.arange(4) * 90.0, size,
            length_px=scale * 56, width_px=scale * 8,
        ),
        plain_colours(_COLOURS, size),
        white_noise(4, size, rng=rng),
        white_noise(4, size, rng=rng, block_px=size // 16),
    ])  # fmt: skip


def _of_natural(natural: UInt8[np.ndarray, "n 3 size size"]) -> list[Drawn]:
    return [
        Drawn(images, pd.DataFrame({"kind": kind, "draw": range(len(images))}))
        for kind, images in (("natural", natural), ("gaudy", gaudy(natural)))
        if len(images)
    ]
