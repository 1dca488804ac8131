"""What each filter of a model does for its tuning to dots, and for its predictions."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from pocketcortex.core import InputError
from pocketcortex.dissect.elimination import (
    Elimination,
    eliminate,
    flattening,
    lost_selectivity,
)
from pocketcortex.dissect.tuning import N_DRAWS, Tuning
from pocketcortex.metrics import pearson_r2
from pocketcortex.models import Ablations, CompactModel

_IMAGES_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class AblatedTuning:
    """Dot tuning of one model without each of its filters, without whole stages, and with fewer.

    Attributes
    ----------
    stages, numbers
        Stage (0..5) of every filter, and its number within it.
    dot_size
        Responses to a dot of each radius without each filter.
    dot_number
        Responses to each number of dots, means over draws.
    dot_size_without_stage, dot_number_without_stage
        The same without all filters of a stage.
    size_invariance, number_invariance
        `flattening` of the two curves by each filter: 1 makes it flat, 0 leaves it as it is.
    stage_size_invariance, stage_number_invariance
        By each stage.
    cumulative
        Filters taken out one after the other, those first without which the dot-size curve keeps
        its shape best (`lost_selectivity`). The least rise of the invariance index would not do:
        the index falls without bound for a filter whose loss lets the curve grow.
    """

    stages: Int[np.ndarray, " n_filters"]
    numbers: Int[np.ndarray, " n_filters"]
    dot_size: Float[np.ndarray, "n_filters n_radii"]
    dot_number: Float[np.ndarray, "n_filters n_numbers"]
    dot_size_without_stage: Float[np.ndarray, "6 n_radii"]
    dot_number_without_stage: Float[np.ndarray, "6 n_numbers"]
    size_invariance: Float[np.ndarray, " n_filters"]
    number_invariance: Float[np.ndarray, " n_filters"]
    stage_size_invariance: Float[np.ndarray, " 6"]
    stage_number_invariance: Float[np.ndarray, " 6"]
    cumulative: Elimination


def ablate_tuning(
    model: CompactModel,
    tuning: Tuning,
    *,
    device: str | torch.device = "cpu",
    advance: Callable[[int], None] = lambda n: None,
) -> AblatedTuning:
    """Return what every filter does for a model's tuning to the size and number of dots.

    Kernels are set to zero, one, one stage, or one after the other.

    Parameters
    ----------
    model
        The compact model.
    tuning
        Its tuning, from `tune`.
    device
        Where to compute.
    advance
        Told how many filters were taken out for good.

    Raises
    ------
    InputError
        If the model answers dots of all sizes alike.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Fig. 4e (single filters) and 4h (cumulative); the
    formula of the index is ours, see `flattening`.
    """
    ablations = Ablations(model).to(device)

    def answers(
        ask: Callable[[torch.Tensor], torch.Tensor], images: np.ndarray
    ) -> Float[np.ndarray, "n_rows n"]:
        return np.asarray(ask(torch.from_numpy(images).to(device)).double().cpu().numpy())

    def over_draws(rows: np.ndarray) -> Float[np.ndarray, "n_rows n_numbers"]:
        return np.asarray(rows.reshape(len(rows), -1, N_DRAWS).mean(axis=2))

    dot_size = answers(ablations.without_each, tuning.size_stimuli)
    dot_number = over_draws(answers(ablations.without_each, tuning.number_stimuli))
    size_stages = answers(ablations.without_stages, tuning.size_stimuli)
    number_stages = over_draws(answers(ablations.without_stages, tuning.number_stimuli))
    numbers = tuning.dot_number.mean(axis=1)
    return AblatedTuning(
        ablations.stages, ablations.numbers, dot_size, dot_number, size_stages, number_stages,
        flattening(tuning.dot_size, dot_size), flattening(numbers, dot_number),
        flattening(tuning.dot_size, size_stages), flattening(numbers, number_stages),
        eliminate(ablations, tuning.size_stimuli, lost_selectivity, advance=advance),
    )  # fmt: skip


def ablate_score(
    model: CompactModel,
    images: UInt8[np.ndarray, "n 3 h w"],
    responses: Float[np.ndarray, " n_responses"],
    *,
    device: str | torch.device = "cpu",
    advance: Callable[[int], None] = lambda n: None,
) -> tuple[float, Float[np.ndarray, " n_filters"], Float[np.ndarray, " 6"]]:
    """Return a model's r² with recorded responses: intact, without each filter and each stage.

    Squared Pearson correlation (`pearson_r2`); kernels are set to zero.

    Parameters
    ----------
    model
        The compact model.
    images
        Images that no training has seen, levels 0..255.
    responses
        Mean responses of the model's neuron to them, finite.
    device
        Where to compute.
    advance
        Told how many images are done.

    Raises
    ------
    InputError
        If images and responses differ in number.
    """
    if len(images) != len(responses):
        raise InputError(f"{len(images)} images but {len(responses)} responses; give one each")
    ablations = Ablations(model).to(device)
    parts = []
    for first in range(0, len(images), _IMAGES_AT_ONCE):
        some = torch.from_numpy(images[first : first + _IMAGES_AT_ONCE]).to(device)
        rows = [ablations.responses(some)[None], ablations.without_each(some)]
        parts.append(torch.cat([*rows, ablations.without_stages(some)]).double().cpu())
        advance(len(some))
    predicted = torch.cat(parts, dim=1).numpy()  # (1 + n_filters + 6, n)
    truth = np.repeat(responses[:, None], len(predicted), axis=1)
    scores = pearson_r2(truth, np.ascontiguousarray(predicted.T))
    return float(scores[0]), scores[1:-6], scores[-6:]
