"""A causal test on a simulated animal: recorded from its true neurons, analysed like a real one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from pocketcortex.core import InputError, Session, StimulusSet
from pocketcortex.data import InSilicoCortex, Neuron
from pocketcortex.metrics import causal_effects, match_neurons, population_effects
from pocketcortex.models import CompactModel, CompactStack
from pocketcortex.pipeline.causal import CausalSession

_BATCH = 64


@dataclass(frozen=True, eq=False)
class CausalTest:
    """What came of a causal test.

    Attributes
    ----------
    session
        The responses recorded.
    matches
        Which model each neuron stands for (`metrics.match_neurons`); None if it was given.
    effects, population
        Effects of each role on each neuron, and over neurons (`metrics.causal_effects`,
        `metrics.population_effects`).
    predicted
        Effects that each model itself predicts. Percent changes are undefined where models answer
        in z-scored units; d' is not.
    """

    session: Session
    matches: pd.DataFrame | None
    effects: pd.DataFrame
    population: pd.DataFrame
    predicted: pd.DataFrame

    def save(self, folder: Path) -> None:
        """Write the tables as parquet, and the responses, into a folder that exists."""
        for name in ("matches", "effects", "population", "predicted"):
            table = getattr(self, name)
            if table is not None:
                table.to_parquet(folder / f"{name}.parquet", index=False)
        np.save(folder / "responses.npy", self.session.responses)


def simulate_causal_test(
    cortex: InSilicoCortex,
    neurons: Sequence[Neuron],
    models: Sequence[CompactModel],
    session: CausalSession,
    *,
    matching: StimulusSet | None = None,
    n_repeats: int | tuple[int, int] = 5,
    seed: int,
    n_permutations: int = 10_000,
    device: str | torch.device = "cpu",
) -> CausalTest:
    """Return what a causal test gives when the neurons are those of a simulated animal.

    The stimuli are shown to the true neurons, with Poisson noise, and analysed as a real session
    would be.

    Parameters
    ----------
    cortex, neurons
        The animal, and the neurons that happen to be recorded in the test session.
    models
        The models that `session` was made for, in their order.
    session
        As `make_causal_session` returns it.
    matching
        Images by which neurons are matched to models, recorded first; none may be among those of
        `session`. None if neuron k is known to be that of model k.
    n_repeats
        Of every stimulus, or the least and the most.
    seed
        Decides spikes and permutations, 0 or more.
    n_permutations
        Shuffles for each p of an effect.
    device
        Where models predict.

    Raises
    ------
    InputError
        If models and targets differ in number, without `matching` models and neurons do, an image
        for matching is among the stimuli of `session`, or sizes disagree.
    """
    if len(models) != session.roles.n_targets:
        raise InputError(
            f"the session was made for {session.roles.n_targets} models, got {len(models)}"
        )
    if matching is None and len(neurons) != len(models):
        raise InputError(
            f"{len(neurons)} neurons and {len(models)} models: give `matching` images to find out "
            "which neuron each model stands for"
        )
    spikes, shuffles = (np.random.default_rng([seed, k]) for k in range(2))
    matches = None
    targets = np.arange(len(neurons))
    if matching is not None:
        seen = cortex.record(matching, neurons, n_repeats=n_repeats, rng=spikes, id="matching")
        matches = match_neurons(
            seen.responses, predictions(models, matching, device), rng=shuffles,
            stimuli=matching.digests, test_stimuli=session.stimuli.digests,
        )  # fmt: skip
        targets = matches["model"].to_numpy()
    recorded = cortex.record(
        session.stimuli, neurons, n_repeats=n_repeats, rng=spikes, id="causal test", role="test"
    )
    effects = causal_effects(
        recorded.responses, session.roles, targets=targets, rng=shuffles,
        n_permutations=n_permutations,
    )  # fmt: skip
    predicted = causal_effects(
        predictions(models, session.stimuli, device), session.roles, rng=shuffles,
        n_permutations=n_permutations,
    )  # fmt: skip
    population = population_effects(effects, rng=shuffles, n_permutations=n_permutations)
    return CausalTest(recorded, matches, effects, population, predicted)


def predictions(
    models: Sequence[CompactModel], stimuli: StimulusSet, device: str | torch.device
) -> Float[np.ndarray, "n_stimuli n_models"]:
    """Return every model's response to every image."""
    stack = CompactStack(models).to(device)
    starts = range(0, len(stimuli), _BATCH)
    parts = [
        stack.predict(torch.from_numpy(images).to(device)).double().cpu().numpy()
        for images in stimuli.stream(slice(start, start + _BATCH) for start in starts)
    ]
    return np.concatenate(parts)
