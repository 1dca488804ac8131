"""What strategies of choosing images gain on random ones, with intervals over animals."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

LEVEL = 0.9
"""Of all intervals."""

_N_RESAMPLES = 2000


def gains(
    r2: Float[np.ndarray, "n_animals n_strategies n_sessions n_neurons"],
    strategies: Sequence[str],
    *,
    reference: str,
    seed: int,
) -> dict[str, Any]:
    """Return means, gains on the reference and their intervals as a JSON object.

    A neuron without a score under any strategy after any session (a constant prediction) is left
    out of all.

    Parameters
    ----------
    r2
        Scores, NaN where there is none.
    strategies
        Their names.
    reference
        The one that the others are compared with.
    seed
        Of the bootstrap; all strategies see the same resamples.

    Returns
    -------
    For each strategy after each session: ``r2``, the mean over neurons, ``ci_low``, ``ci_high``;
    ``gain``, the mean of the neurons' differences to the reference, with its interval; and
    ``apart``, whether the interval of the mean lies above that of the reference.
    """
    known = np.isfinite(r2).all(axis=(1, 2))  # (animals, neurons)
    base = r2[:, list(strategies).index(reference)]
    found: dict[str, Any] = {}
    for k, name in enumerate(strategies):
        mean, low, high = animal_ci(r2[:, k], known, np.random.default_rng(seed))
        gain, least, most = animal_ci(r2[:, k] - base, known, np.random.default_rng(seed))
        found[name] = {
            "r2": mean.tolist(), "ci_low": low.tolist(), "ci_high": high.tolist(),
            "gain": gain.tolist(), "gain_ci_low": least.tolist(), "gain_ci_high": most.tolist(),
        }  # fmt: skip
    for entry in found.values():
        pairs = zip(entry["ci_low"], found[reference]["ci_high"], strict=True)
        entry["apart"] = [low > high for low, high in pairs]
    return {
        "level": LEVEL,
        "n_animals": len(r2),
        "n_neurons": int(known.sum()),
        "n_left_out": int((~known).sum()),
        "strategies": found,
        "best": max(found, key=lambda name: float(found[name]["r2"][-1])),
    }


def animal_ci(
    values: Float[np.ndarray, "n_animals n_sessions n_neurons"],
    known: Bool[np.ndarray, "n_animals n_neurons"],
    rng: np.random.Generator,
) -> tuple[
    Float[np.ndarray, " n_sessions"],
    Float[np.ndarray, " n_sessions"],
    Float[np.ndarray, " n_sessions"],
]:
    """Return the mean over all known neurons and its 90 % percentile interval.

    Animals are resampled, and within each the neurons: what other animals with other neurons
    would give. The bank and the test images stay the same.
    """
    weights = known.astype(np.float64)
    mean = np.einsum("asn,an->s", np.where(known[:, None], values, 0.0), weights) / weights.sum()
    n_animals, n_neurons = known.shape
    by_neuron = np.moveaxis(values, 1, 2)
    resampled = []
    for _ in range(_N_RESAMPLES):
        animals = np.asarray(rng.integers(n_animals, size=(n_animals, 1)))
        neurons = np.asarray(rng.integers(n_neurons, size=(n_animals, n_neurons)))
        drawn = by_neuron[animals, neurons]  # (animals, neurons, sessions)
        kept = known[animals, neurons]
        resampled.append(drawn[kept].mean(axis=0))
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return mean, low, high


def score_rows(
    r2: Float[np.ndarray, "n_animals n_strategies n_sessions n_neurons"],
    strategies: Sequence[str],
    n_images: Int[np.ndarray, " n_sessions"],
) -> pd.DataFrame:
    """Return one row for each animal, strategy, session and neuron."""
    axes = [range(n) for n in r2.shape]
    index = pd.MultiIndex.from_product(axes, names=["animal", "strategy", "session", "neuron"])
    table = pd.DataFrame({"r2": r2.ravel()}, index=index).reset_index()
    table["n_images"] = n_images[table["session"].to_numpy()]
    table["strategy"] = [strategies[k] for k in table["strategy"]]
    return table
