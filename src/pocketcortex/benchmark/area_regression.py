"""An area's neurons predicted from a network's layers: rows, layers and resamples."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int

from pocketcortex.benchmark._area_parts import (
    REGRESSION,
    AreaPart,
    Seeds,
    mean_of_known,
    reason_row,
)
from pocketcortex.benchmark.area_settings import AreaSettings
from pocketcortex.benchmark.ceilings import neuron_ceilings
from pocketcortex.benchmark.prediction_bootstrap import bootstrap_predictions
from pocketcortex.benchmark.regression import (
    PEARSON,
    R2,
    RegressionScores,
    regression_scores,
)
from pocketcortex.benchmark.rsa import LEAST_STIMULI
from pocketcortex.core import BrainArea, Session
from pocketcortex.metrics import bootstrap_noise_corrected_r2_ci
from pocketcortex.zoo import NetworkKernels


def score_neurons(
    kernels: NetworkKernels,
    area: BrainArea,
    how: AreaSettings,
    seeds: Seeds,
    layers: pd.DataFrame,
) -> AreaPart:
    """Return how well layers predict an area's neurons, by both protocols.

    Parameters
    ----------
    kernels
        Of the area's images.
    area
        With single neurons.
    how
        Folds, permutations and resamples.
    seeds
        Of folds, permutations and draws.
    layers
        Depth and effective dimensionality of each layer.
    """
    session = area.require_session()
    least = LEAST_STIMULI * how.n_folds
    if area.n_stimuli < least:
        why = f"{area.n_stimuli} images; {how.n_folds} folds need {least} or more"
        return AreaPart([reason_row(REGRESSION, "honest", PEARSON, why)])
    codes = np.unique(np.array(area.stimuli.digests), return_inverse=True)[1]
    groups = codes if codes.max() + 1 < len(codes) else None
    ceiling = neuron_ceilings(session.responses, rng=seeds(0))
    common: dict[str, Any] = {"n_permutations": how.n_permutations, "groups": groups}
    honest = regression_scores(
        kernels, session.responses, rng=seeds(1), n_folds=how.n_folds, **common
    )
    published = regression_scores(
        kernels, session.responses, rng=seeds(1), protocol="published", kind="projected", **common
    )
    scored = [k for k in range(session.n_neurons) if k not in honest.reasons]
    counts = np.bincount(honest.chosen[:, scored].ravel(), minlength=len(layers))
    parts: list[pd.DataFrame] = []
    samples: dict[str, np.ndarray] = {}
    for scores in (honest, published):
        drawn = bootstrap_predictions(
            session.mean_responses, scores.predictions, scores.folds, rng=seeds(2),
            n_resamples=how.n_resamples,
        )  # fmt: skip
        of_metric = {PEARSON: drawn.r, R2: drawn.r2}
        if scores is honest:
            samples = {
                "r": drawn.r, "contributions": drawn.contributions,
                "predictions": scores.predictions, "folds": scores.folds,
            }  # fmt: skip
        for metric, value in scores.values.items():
            top = {PEARSON: ceiling, R2: ceiling**2}.get(metric, np.ones(len(value)))
            ends = _neuron_intervals(scores, metric, of_metric, session, how, seeds)
            rows = _neuron_rows(scores, metric, value, ends, top, layers)
            rows["ceiling_reason"] = _ceiling_reasons(top, session)
            parts.append(rows)
            parts.append(_over_neurons(rows, of_metric.get(metric), how, seeds))
    columns = {
        "r": mean_of_known(honest.layer_r, axis=1),
        "r_published": mean_of_known(published.layer_r, axis=1),
        "chosen": counts / counts.sum(),
    }
    return AreaPart(parts, columns, samples)


def _neuron_intervals(
    scores: RegressionScores,
    metric: str,
    drawn: Mapping[str, Float64[np.ndarray, "n_resamples n_neurons"]],
    session: Session,
    how: AreaSettings,
    seeds: Seeds,
) -> Float64[np.ndarray, "2 n_neurons"]:
    """Return intervals over images."""
    tails = [(1 - how.level) / 2, (1 + how.level) / 2]
    if metric in drawn:
        return np.asarray(np.quantile(drawn[metric], tails, axis=0))
    mean_responses = session.mean_responses
    means = np.zeros(mean_responses.shape)
    for fold in np.unique(scores.folds):
        own = scores.folds == fold
        means[own] = mean_responses[own].mean(axis=0)
    ends = bootstrap_noise_corrected_r2_ci(
        session.responses - means[:, None], scores.predictions, rng=seeds(3),
        n_resamples=how.n_resamples, level=how.level,
    )  # fmt: skip
    return np.stack(ends)


def _neuron_rows(
    scores: RegressionScores,
    metric: str,
    value: Float64[np.ndarray, " n_neurons"],
    ends: Float64[np.ndarray, "2 n_neurons"],
    ceiling: Float64[np.ndarray, " n_neurons"],
    layers: pd.DataFrame,
) -> pd.DataFrame:
    n = len(value)
    null = (
        scores.null.mean(axis=0) if metric == PEARSON and len(scores.null) else np.full(n, np.nan)
    )
    why = [
        scores.reasons.get(k, "" if np.isfinite(v) else "constant predictions, or all noise")
        for k, v in enumerate(value)
    ]
    unscored = np.array([k in scores.reasons for k in range(n)])
    depth, size = (
        np.where(unscored, np.nan, layers[name].to_numpy(np.float64)[scores.chosen].mean(axis=0))
        for name in ("depth", "dimensionality")
    )
    return pd.DataFrame(
        {
            "analysis": REGRESSION, "protocol": scores.protocol, "neuron": np.arange(n),
            "statistic": "", "layer": scores.chosen_layers(), "metric": metric, "value": value,
            "ci_low": ends[0], "ci_high": ends[1], "ci_over": "images", "ceiling": ceiling,
            "null": null, "n_stimuli": scores.n_stimuli, "n_neurons": 1, "depth": depth,
            "dimensionality": size, "reason": why,
        }
    )  # fmt: skip


def _over_neurons(
    rows: pd.DataFrame,
    drawn: Float64[np.ndarray, "n_resamples n_neurons"] | None,
    how: AreaSettings,
    seeds: Seeds,
) -> pd.DataFrame:
    """Return mean and median over neurons, with intervals over images and neurons together."""
    known = np.flatnonzero(np.isfinite(rows["value"]))
    first = rows.iloc[0]
    common = {
        name: first[name] for name in ("analysis", "protocol", "metric", "n_stimuli")
    } | {"neuron": pd.NA, "layer": "", "n_neurons": len(known)}  # fmt: skip
    tails = [(1 - how.level) / 2, (1 + how.level) / 2]
    out = []
    statistics: dict[str, Callable[..., Any]] = {"mean": np.mean, "median": np.median}
    for statistic, take in statistics.items():
        row: dict[str, Any] = common | {
            "statistic": statistic, "value": np.nan, "ci_low": np.nan, "ci_high": np.nan,
            "ci_over": "images and neurons" if drawn is not None else "neurons",
            "reason": "" if len(known) else "no neuron has a score",
        }  # fmt: skip
        row["ceiling_reason"] = first["ceiling_reason"] if len(known) else ""
        for name in ("value", "ceiling", "null", "depth", "dimensionality"):
            values = rows[name].to_numpy(np.float64)[known]
            # one number for all: that of the neurons for which it is known
            values = values[np.isfinite(values)]
            row[name] = float(take(values)) if len(values) else np.nan
        if len(known):
            chosen = neuron_draws(len(known), how.n_resamples, seeds(4))
            if drawn is None:
                values = rows["value"].to_numpy(np.float64)[known][chosen]
            else:
                values = np.take_along_axis(drawn[:, known], chosen, axis=1)
            row["ci_low"], row["ci_high"] = np.nanquantile(take(values, axis=1), tails)
        out.append(row)
    return pd.DataFrame(out)


def _ceiling_reasons(ceiling: Float64[np.ndarray, " n_neurons"], session: Session) -> list[str]:
    why = "repeats do not agree" if session.has_repeats else "no single repeats"
    return ["" if np.isfinite(value) else why for value in ceiling]


def neuron_draws(
    n_neurons: int, n_resamples: int, rng: np.random.Generator
) -> Int[np.ndarray, "n_resamples n_neurons"]:
    """Return which neurons each resample draws, with replacement."""
    return rng.integers(n_neurons, size=(n_resamples, n_neurons))
