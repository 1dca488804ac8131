"""Scores of all models of a run on the held-out half, as one tidy table."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from pocketcortex.core import Session
from pocketcortex.metrics import (
    bootstrap_ci,
    bootstrap_median_ci,
    bootstrap_noise_corrected_r2_ci,
    brainscore_r2,
    noise_corrected_r2,
    pearson_r2,
)

R2, NOISE_CORRECTED, BRAINSCORE = "r2", "noise-corrected r2", "BrainScore r2"
LEAST_SPREAD = 0.01
"""Standard deviation of predictions over that of responses below which a score means little: a
regression that found nothing to predict shrinks them so, and r² does not see scale."""


def score_table(
    held_out: Session,
    predictions: Mapping[str, Float[np.ndarray, "n_stimuli n_usable"]],
    usable: np.ndarray,
    unusable: Mapping[int, str],
    seed: int,
    *,
    brainscore: bool = False,
) -> pd.DataFrame:
    """Return one row for each model, metric and neuron of the test session.

    ``reason`` tells why a score is NaN, or why it means little although it is not: predictions that
    hardly vary beside the responses (`LEAST_SPREAD`).

    Parameters
    ----------
    held_out
        The second half of the test session.
    predictions
        Each model's predictions for the usable neurons.
    usable, unusable
        Indices of the neurons modelled, and why the others are not: those score NaN.
    seed
        Seed of the bootstrap over images.
    brainscore
        Whether to give BrainScore's r² too, without intervals, where there are repeats.
    """
    seen = held_out.select_neurons(usable.tolist())
    repeated = seen.has_repeats and (np.isfinite(seen.responses).sum(axis=1) >= 2).any()
    metrics: tuple[str, ...] = (R2, NOISE_CORRECTED) if repeated else (R2,)
    if repeated and brainscore:
        metrics = (*metrics, BRAINSCORE)
    rows: list[dict[str, Any]] = []
    for model, predicted in predictions.items():
        spread = _spread(seen, predicted)
        for metric in metrics:
            value, low, high = _score(seen, predicted, metric, np.random.default_rng(seed))
            for k, neuron in enumerate(usable):
                reason = _hardly_varies(spread[k])
                if not np.isfinite(value[k]):
                    reason = "undefined: constant or too noisy"
                rows.append(_row(held_out, int(neuron), model, metric, reason) | {
                    "value": value[k], "ci_low": low[k], "ci_high": high[k],
                })  # fmt: skip
            for neuron, why in unusable.items():
                missing = {"value": np.nan, "ci_low": np.nan, "ci_high": np.nan}
                rows.append(_row(held_out, neuron, model, metric, why) | missing)
    columns = ["session", "neuron", "model", "metric", "value", "ci_low", "ci_high",
               "n_stimuli", "reason"]  # fmt: skip
    return pd.DataFrame(rows)[columns]


def hardly_varying(scores: pd.DataFrame, model: str) -> list[tuple[str, int]]:
    """Return session and number of the neurons whose score by a model means little.

    Parameters
    ----------
    scores
        As `score_table` returns, of one session or several.
    model
        The model.
    """
    told = scores[(scores["model"] == model) & scores["value"].notna() & (scores["reason"] != "")]
    return [(str(s), int(k)) for s, k in told[["session", "neuron"]].drop_duplicates().to_numpy()]


def medians(scores: pd.DataFrame, seed: int) -> dict[str, dict[str, dict[str, Any]]]:
    """Return for each metric and model the median over neurons, its interval, the mean and n.

    Where no neuron has a score, they are None.
    """
    summary: dict[str, dict[str, dict[str, Any]]] = {}
    for (metric, model), group in scores.groupby(["metric", "model"], sort=False):
        values = group["value"].dropna().to_numpy()
        of_model: dict[str, Any] = {"median": None, "ci": [None, None], "mean": None}
        of_model["n_neurons"] = len(values)
        if len(values):
            interval = bootstrap_median_ci(values, rng=np.random.default_rng(seed))
            of_model |= {"median": float(np.median(values)), "ci": list(interval)}
            of_model["mean"] = float(values.mean())
        summary.setdefault(str(metric), {})[str(model)] = of_model
    return summary


def differences(scores: pd.DataFrame, of: str, seed: int) -> dict[str, dict[str, dict[str, Any]]]:
    """Return for each metric and other model how far one model's scores lie above that model's.

    Neuron by neuron: the median of the differences over neurons with both scores, its 95 %
    bootstrap interval over neurons, the difference of the two medians, and n. Where no neuron has
    both scores, they are None.

    Parameters
    ----------
    scores
        As `score_table` returns, of one session or several.
    of
        The model; one that was not scored gives nothing.
    seed
        Seed of the bootstrap.
    """
    summary: dict[str, dict[str, dict[str, Any]]] = {}
    for metric, group in scores.groupby("metric", sort=False):
        wide = group.pivot(index=["session", "neuron"], columns="model", values="value")
        for other in group["model"].unique() if of in wide else ():
            if other == of:
                continue
            both = wide[[of, other]].dropna()
            entry: dict[str, Any] = {"median": None, "ci": [None, None], "of_medians": None}
            entry["n_neurons"] = len(both)
            if len(both):
                gain = (both[of] - both[other]).to_numpy()
                interval = bootstrap_median_ci(gain, rng=np.random.default_rng(seed))
                entry |= {"median": float(np.median(gain)), "ci": list(interval)}
                entry["of_medians"] = float(both[of].median() - both[other].median())
            summary.setdefault(str(metric), {})[str(other)] = entry
    return summary


def _spread(session: Session, predicted: np.ndarray) -> np.ndarray:
    """Return each neuron's standard deviation of predictions over that of its mean responses."""
    with np.errstate(divide="ignore", invalid="ignore"):
        spread: np.ndarray = predicted.std(axis=0) / session.mean_responses.std(axis=0)
    return spread


def _hardly_varies(spread: float) -> str:
    """Return why a score means little, empty if it does not; `spread` as `_spread` returns."""
    if not spread < LEAST_SPREAD:
        return ""
    return f"predictions hardly vary ({spread:.1g} of the responses' standard deviation)"


def _score(
    session: Session, predicted: np.ndarray, metric: str, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    predicted = predicted.astype(np.float64)
    if metric == NOISE_CORRECTED:
        responses = session.require_repeats()
        value = noise_corrected_r2(responses, predicted)
        return value, *bootstrap_noise_corrected_r2_ci(responses, predicted, rng=rng)
    if metric == BRAINSCORE:
        value = brainscore_r2(session.require_repeats(), predicted, rng=rng)
        return value, np.full_like(value, np.nan), np.full_like(value, np.nan)
    averaged = session.mean_responses
    value = pearson_r2(averaged, predicted)
    return value, *bootstrap_ci(pearson_r2, averaged, predicted, rng=rng)


def _row(session: Session, neuron: int, model: str, metric: str, reason: str) -> dict[str, Any]:
    return {
        "session": session.id,
        "neuron": neuron,
        "model": model,
        "metric": metric,
        "n_stimuli": session.n_stimuli,
        "reason": reason,
    }
