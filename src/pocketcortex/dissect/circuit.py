"""The few filters of a model that keep its selectivity: who they are and what each does."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, UInt8

from pocketcortex.core import InputError
from pocketcortex.dissect.describe import describe_colour_kernel, describe_kernel
from pocketcortex.dissect.elimination import Elimination, eliminate, lost_selectivity
from pocketcortex.dissect.traces import trace
from pocketcortex.models import N_STAGES, Ablations, CompactModel

STAGES = ("layer 0", "layer 1", "layer 2", "layer 3", "layer 4", "readout")
"""Names of the stages of filters."""


@dataclass(frozen=True, eq=False)
class CircuitFilter:
    """One filter of a circuit.

    Attributes
    ----------
    stage, number
        Its stage (0..5) and number within it.
    role
        Excitatory if the whole model responds less without it (its kernel set to zero), as a mean
        over the stimuli.
    effect
        That difference of means, in standard deviations of the responses over the stimuli.
    kernel
        What its kernel does, in words.
    weights
        The kernel: over red, green and blue in stage 0, one map in the others.
    prefers
        Number of the stimulus, of those the circuit was sought with, that drives the map it reads
        (layer 0: makes) most.
    stability
        Share of the searches over halves of the stimuli that kept it too.
    """

    stage: int
    number: int
    role: Literal["excitatory", "inhibitory"]
    effect: float
    kernel: str
    weights: Float[np.ndarray, "..."]
    prefers: int
    stability: float


@dataclass(frozen=True, eq=False)
class Circuit:
    """The smallest set of filters found that keeps a model's selectivity.

    Attributes
    ----------
    filters
        The filters, stage by stage.
    connections
        One row a connection between filters kept: ``from_stage``, ``from_number``, ``to_stage``,
        ``to_number``, ``strength`` (weight times the standard deviation of what it passes on, over
        the stimuli, relative to the strongest of its stage).
    kept_r2
        Squared correlation of the circuit's responses with the intact model's, over the stimuli.
    kept_r2_natural
        The same over natural images that the search has not seen.
    n_filters
        Filters of the whole model.
    overlap
        Mean Jaccard index of the circuits found with halves of the stimuli.
    elimination
        How filters went.
    """

    filters: tuple[CircuitFilter, ...]
    connections: pd.DataFrame
    kept_r2: float
    kept_r2_natural: float
    n_filters: int
    overlap: float
    elimination: Elimination


def find_circuit(
    model: CompactModel,
    stimuli: UInt8[np.ndarray, "n 3 h w"],
    natural: UInt8[np.ndarray, "n_natural 3 h w"],
    *,
    keep_r2: float = 0.9,
    at_once: float = 0.2,
    device: str | torch.device = "cpu",
) -> Circuit:
    """Return the smallest set of filters, found greedily, that answers stimuli as the model does.

    Filters are taken out, least harmful first, each replaced by its mean over natural images, as
    long as the squared correlation with the intact responses stays at `keep_r2` or above. How sure
    the set is, is told by seeking it again with each half of the stimuli, and by how well it
    answers natural images it was not sought with.

    Parameters
    ----------
    model
        The compact model.
    stimuli
        Drawn stimuli of many kinds, levels 0..255; eight or more.
    natural
        Natural images, two or more.
    keep_r2
        Least squared correlation, between 0 and 1.
    at_once
        Share of filters that goes in one round.
    device
        Where to compute.

    Raises
    ------
    InputError
        If there are too few stimuli or images, `keep_r2` is out of range, or the model answers all
        stimuli alike.

    References
    ----------
    Ours. Replacing by means rather than zeros keeps the layers behind at their operating point.
    """
    if len(stimuli) < 8 or len(natural) < 2 or not 0 < keep_r2 < 1:
        raise InputError(
            "a circuit needs 8 stimuli and 2 natural images or more, and keep_r2 between 0 and 1; "
            f"got {len(stimuli)}, {len(natural)} and {keep_r2}"
        )
    ablations = Ablations(model, torch.from_numpy(natural).to(_device(model))).to(device)
    limit = 1 - keep_r2
    whole = eliminate(ablations, stimuli, lost_selectivity, limit=limit, at_once=at_once)
    halves = [
        eliminate(ablations, stimuli[half::2], lost_selectivity, limit=limit, at_once=0.5).kept()
        for half in (0, 1)
    ]
    kept = whole.kept()
    effects = _effects(model, stimuli, device)
    maps = _strongest(model, stimuli)
    filters = tuple(
        CircuitFilter(
            stage=(stage := int(ablations.stages[k])), number=(number := int(ablations.numbers[k])),
            role="excitatory" if effects[k] >= 0 else "inhibitory", effect=float(effects[k]),
            kernel=_words(stage, weights := _weights(model, stage, number)), weights=weights,
            prefers=int(maps[max(stage - 1, 0)][:, number].argmax()),
            stability=float(np.mean([half[k] for half in halves])),
        ) for k in np.flatnonzero(kept)
    )  # fmt: skip
    union = (halves[0] | halves[1]).sum()
    shown = torch.from_numpy(natural).to(device)
    answers = [ablations.responses(shown, some).double().cpu().numpy() for some in (None, kept)]
    return Circuit(
        filters, _connections(model, ablations, kept, stimuli),
        float(1 - whole.harm[~np.isnan(whole.harm)][-1]),
        float(1 - lost_selectivity(answers[0], answers[1])), len(ablations),
        float((halves[0] & halves[1]).sum() / union) if union else float("nan"), whole,
    )  # fmt: skip


def _device(model: CompactModel) -> torch.device:
    return model.readout.device


def _effects(
    model: CompactModel, stimuli: UInt8[np.ndarray, "n 3 h w"], device: str | torch.device
) -> Float[np.ndarray, " n_filters"]:
    """Return what each filter adds to the mean response, in standard deviations over stimuli."""
    ablations = Ablations(model).to(device)
    shown = torch.from_numpy(stimuli).to(device)
    intact = ablations.responses(shown).double().cpu().numpy()
    without = ablations.without_each(shown).double().cpu().numpy()
    return np.asarray((intact.mean() - without.mean(axis=1)) / intact.std())


@torch.no_grad()
def _strongest(
    model: CompactModel, stimuli: UInt8[np.ndarray, "n 3 h w"]
) -> list[Float[np.ndarray, "n n_maps"]]:
    """Return each layer's maps at their most driven position, less their median over stimuli."""
    found = []
    x = model.layers.centre(torch.from_numpy(stimuli).to(_device(model)))
    for i in range(N_STAGES - 1):
        x = model.layers.layer(i, x)
        peak = x.amax((2, 3)).double().cpu().numpy()
        found.append(peak - np.median(peak, axis=0))
    return found


def _weights(model: CompactModel, stage: int, number: int) -> Float[np.ndarray, "..."]:
    """Return a filter's kernel."""
    layers = model.layers
    if stage == 0:
        kernel = layers.conv.weight[number]
    elif stage < N_STAGES - 1:
        kernel = layers.depthwise[stage - 1].weight[number, 0]
    else:
        kernel = model.readout[number]
    return np.asarray(kernel.detach().double().cpu().numpy())


def _words(stage: int, weights: Float[np.ndarray, "..."]) -> str:
    if stage == 0:
        return describe_colour_kernel(weights)
    if stage < N_STAGES - 1:
        return describe_kernel(weights)
    share = float(weights[weights > 0].sum() / max(np.abs(weights).sum(), 1e-12))
    return f"reads {100 * share:.0f} % positively"


def _connections(
    model: CompactModel,
    ablations: Ablations,
    kept: Bool[np.ndarray, " n_filters"],
    stimuli: UInt8[np.ndarray, "n 3 h w"],
) -> pd.DataFrame:
    """Return the connections among filters kept, their strengths relative within each stage."""
    sd = _deviations(model, stimuli)
    mixing = trace(model, stimuli[0]).layers
    own = [ablations.numbers[kept & (ablations.stages == stage)] for stage in range(N_STAGES)]
    rows = []
    for stage in range(N_STAGES - 1):
        found = []
        for i in own[stage]:
            for k in own[stage + 1]:
                if stage == 0:
                    strength = float(i == k)
                else:
                    strength = float(mixing[stage].mixing[k, i] * sd[stage - 1][i])
                if strength:
                    found.append((stage, int(i), stage + 1, int(k), strength))
        top = max((abs(row[-1]) for row in found), default=1.0)
        rows += [(*row[:-1], row[-1] / top) for row in found]
    columns = ["from_stage", "from_number", "to_stage", "to_number", "strength"]
    return pd.DataFrame(rows, columns=columns)


@torch.no_grad()
def _deviations(
    model: CompactModel, stimuli: UInt8[np.ndarray, "n 3 h w"]
) -> list[Float[np.ndarray, " n_inputs"]]:
    """Return the standard deviation of each depthwise output of layers 1 to 4."""
    x = model.layers.layer(0, model.layers.centre(torch.from_numpy(stimuli).to(_device(model))))
    found = []
    for i in range(1, N_STAGES - 1):
        found.append(model.layers.filtered(i, x).std((0, 2, 3)).double().cpu().numpy())
        x = model.layers.layer(i, x)
    return found
