"""Which models are dot detectors: the search over a population by the size of dots on grey."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from pocketcortex.core import InputError
from pocketcortex.dissect.fields import MODELS_AT_ONCE, PLACES, SHIFT, ReceptiveFields
from pocketcortex.models import CompactModel, PairedStack
from pocketcortex.stimuli import dots_of_size, plain_colours
from pocketcortex.stimuli.drawing import BLACK, WHITE

DOT_RADII = np.array([0.013, 0.022, 0.031, 0.045, 0.0625, 0.09, 0.125, 0.18, 0.25, 0.36])
"""Radii of the dots shown, in image sides."""

_SMALL = 0.07  # image sides: radii below are those of small dots
_DRIVEN_SD, _SELECTIVE = 3.0, 0.5
_COLOURS = {"white": WHITE, "black": BLACK}


def dot_search(
    models: Sequence[CompactModel],
    fields: ReceptiveFields,
    natural_responses: Float[np.ndarray, "n_images n_models"],
    *,
    device: str | torch.device = "cpu",
    advance: Callable[[int], None] = lambda n: None,
) -> pd.DataFrame:
    """Return how much each model is a dot detector, one row a model in their order.

    White and black dots of ten radii on grey, in the middle of the receptive field and at four
    places around it; at each radius the best place counts. A *dot detector* is driven by a small
    dot (radius below 7 % of the image's side) at least three standard deviations beyond the mean of
    natural images, and at most half as much above grey by the three largest dots, from 18 % on.

    Parameters
    ----------
    models
        Compact models for one image size, square.
    fields
        Their receptive fields.
    natural_responses
        Their responses to natural images, two or more.
    device
        Where to compute.
    advance
        Told how many models are done.

    Returns
    -------
    ``foreground`` (white or black), ``radius_px`` of the best small dot, ``response`` to it,
    ``sd_above_mean`` of natural images, ``selectivity`` (1 minus the largest dots' response over
    the best small dot's, both above grey; NaN if no small dot excites), ``is_detector``, ``merit``
    (standard deviations times selectivity; 0 for others), ``rank`` among detectors (NaN for
    others), and ``curve_R``: the response above grey to each radius R in pixels, over that to the
    best small dot.

    Raises
    ------
    InputError
        If the numbers of models differ, there are fewer than two natural images, or images are not
        square.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Fig. 4 and Extended Data Fig. 6, choose dot detectors
    by eye; the stimuli and the thresholds are ours.
    """
    n_images, n_models = natural_responses.shape
    if not len(models) == n_models == len(fields.x_px):
        raise InputError(
            f"{len(models)} models, {len(fields.x_px)} receptive fields and responses of "
            f"{n_models}: give one of each a model"
        )
    if n_images < 2:
        raise InputError(f"natural responses need two images or more, got {n_images}")
    height, width = models[0].image_size
    if height != width:
        raise InputError(f"dots are shown on squares; the models take {height} x {width}")
    radii = DOT_RADII * height
    mean, sd = natural_responses.mean(axis=0), natural_responses.std(axis=0)
    rows = []
    for first in range(0, n_models, MODELS_AT_ONCE):
        own = range(first, min(n_models, first + MODELS_AT_ONCE))
        curves, grey = _curves([models[k] for k in own], fields, own, radii, device)
        rows += [
            _row(curve, base, radii, mean[k], sd[k])
            for k, curve, base in zip(own, curves, grey, strict=True)
        ]
        advance(len(own))
    table = pd.DataFrame(rows)
    product = table["sd_above_mean"] * table["selectivity"]
    table["merit"] = product.where(table["is_detector"], 0.0)
    table["rank"] = product.where(table["is_detector"]).rank(ascending=False, method="first")
    return table


def _curves(
    models: Sequence[CompactModel],
    fields: ReceptiveFields,
    own: Sequence[int],
    radii: Float[np.ndarray, " n_radii"],
    device: str | torch.device,
) -> tuple[Float[np.ndarray, "n_own 2 n_radii"], Float[np.ndarray, " n_own"]]:
    """Return responses above grey by colour and radius, at the best place, and those to grey."""
    size = models[0].image_size[0]
    stack = PairedStack(models).to(device)
    grey = plain_colours([(128, 128, 128)], size).images
    middle, step = (size - 1) / 2, round(SHIFT * size)
    shown = []
    for k in own:
        centre = np.nan_to_num([fields.x_px[k], fields.y_px[k]], nan=middle)
        images = [grey]
        for colour in _COLOURS.values():
            for place in PLACES:
                x, y = np.clip(centre + step * np.array(place), 0, size - 1)
                images.append(dots_of_size(
                    radii, size, centre_px=(float(x), float(y)), foreground=colour
                ).images)  # fmt: skip
        shown.append(np.concatenate(images))
    with torch.inference_mode():
        answers = stack.responses(torch.from_numpy(np.stack(shown)).to(device))
    responses = answers.double().cpu().numpy()
    above = responses[:, 1:] - responses[:, :1]
    by_place = above.reshape(len(own), len(_COLOURS), len(PLACES), len(radii))
    return by_place.max(axis=2), responses[:, 0]


def _row(
    curve: Float[np.ndarray, "2 n_radii"],
    grey: float,
    radii: Float[np.ndarray, " n_radii"],
    mean: float,
    sd: float,
) -> dict[str, object]:
    small = np.flatnonzero(DOT_RADII < _SMALL)
    colour, at = np.unravel_index(curve[:, small].argmax(), (len(curve), len(small)))
    best = float(curve[colour, small[at]])
    beyond = (best + grey - mean) / sd if sd > 0 else np.nan
    selectivity = 1 - max(float(curve[colour, -3:].max()), 0.0) / best if best > 0 else np.nan
    relative = curve[colour] / best if best > 0 else np.full(len(radii), np.nan)
    return {
        "foreground": list(_COLOURS)[int(colour)], "radius_px": float(radii[small[at]]),
        "response": best + grey, "sd_above_mean": beyond, "selectivity": selectivity,
        "is_detector": bool(beyond >= _DRIVEN_SD and selectivity >= _SELECTIVE),
        **{f"curve_{radius:.1f}": float(one) for radius, one in zip(radii, relative, strict=True)},
    }  # fmt: skip
