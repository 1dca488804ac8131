"""A network's layers against one area: every protocol and both analyses, with intervals."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int

from pocketcortex.benchmark._responses import usable_responses
from pocketcortex.benchmark.ceilings import (
    neuron_ceilings,
    split_half_rdm_ceiling,
    subject_rdm_ceiling,
)
from pocketcortex.benchmark.prediction_bootstrap import bootstrap_predictions
from pocketcortex.benchmark.rdms import MIN_CELLS, Comparison, response_rdm
from pocketcortex.benchmark.regression import (
    PEARSON,
    R2,
    RegressionScores,
    regression_scores,
)
from pocketcortex.benchmark.rsa import LEAST_STIMULI, RSAScores, rsa_scores
from pocketcortex.benchmark.rsa_bootstrap import bootstrap_rsa, bootstrap_rsr
from pocketcortex.benchmark.rsr import rsr_predictions, rsr_score
from pocketcortex.core import BrainArea, InputError, Session
from pocketcortex.metrics import bootstrap_noise_corrected_r2_ci, effective_dimensionality
from pocketcortex.zoo import NetworkKernels

Analysis = Literal["regression", "rsa"]

REGRESSION, RSA, RSR = "regression", "rsa", "rsr"
COLUMNS = (
    "area", "model", "analysis", "protocol", "neuron", "statistic", "layer", "metric", "value",
    "ci_low", "ci_high", "ci_over", "ceiling", "null", "n_stimuli", "n_neurons", "depth",
    "dimensionality", "reason", "ceiling_reason",
)  # fmt: skip
"""Of the tidy table: one row a neuron (statistic "") or an area (a statistic over its neurons)."""


@dataclass(frozen=True)
class AreaSettings:
    """How a network is scored against an area.

    Attributes
    ----------
    analyses
        ``"regression"`` (areas with single neurons), ``"rsa"`` or both.
    comparison
        Of dissimilarity matrices.
    n_folds
        Folds of honest regression; 2: chosen on one half of the images, reported on the other.
    n_splits
        Halvings of honest RSA.
    n_permutations
        Of each null.
    n_resamples
        Of each interval.
    level
        Coverage of intervals.
    rsa_stimuli
        Images of RSA at most: more are thinned to so many, drawn by seed.

    Raises
    ------
    InputError
        If an analysis is unknown or none is asked for, or a number is out of range.
    """

    analyses: tuple[str, ...] = ("regression", "rsa")
    comparison: Comparison = "pearson"
    n_folds: int = 2
    n_splits: int = 10
    n_permutations: int = 5
    n_resamples: int = 1000
    level: float = 0.95
    rsa_stimuli: int = 300

    def __post_init__(self) -> None:
        known = get_args(Analysis)
        if not self.analyses or not set(self.analyses) <= set(known):
            raise InputError(f"analyses must be among {', '.join(known)}, got {self.analyses}")
        least = {"n_folds": 2, "n_splits": 1, "n_permutations": 0, "n_resamples": 2}
        for name, value in (least | {"rsa_stimuli": 2 * LEAST_STIMULI}).items():
            if getattr(self, name) < value:
                raise InputError(f"{name} must be {value} or more, got {getattr(self, name)}")
        if not 0 < self.level < 1:
            raise InputError(f"level must be within 0..1, both excluded, got {self.level}")


@dataclass(frozen=True, eq=False, repr=False)
class AreaScores:
    """Scores of one network on one area.

    Attributes
    ----------
    table
        Tidy scores, columns `COLUMNS`.
    layers
        One row a layer: layer, depth (0 first, 1 last), n_features, dimensionality (effective,
        over these images), r (honest, mean over neurons), r_published, chosen (share of neurons and
        choices), rsa (all images), rsa_chosen, reason.
    samples
        What rankings resample: ``r`` (n_resamples, n_neurons), ``contributions`` (n_stimuli,),
        ``rsa`` and ``rsr`` (n_resamples,); and ``predictions`` (n_stimuli, n_neurons) with
        ``folds``. Only what was asked for.
    """

    table: pd.DataFrame
    layers: pd.DataFrame
    samples: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"AreaScores({len(self.table)} scores, {len(self.layers)} layers)"


def score_area(
    kernels: NetworkKernels,
    area: BrainArea,
    *,
    model: str,
    seed: int,
    settings: AreaSettings | None = None,
) -> AreaScores:
    """Return how well a network's layers predict an area's neurons and match its geometry.

    Everything is scored by the published and by the honest protocol (:func:`regression_scores`,
    :func:`rsa_scores`, :func:`rsr_score`). Folds, halves, permutations and draws depend on seed and
    area alone, so that networks are compared on the same ones. Equal images stay in one fold.

    Parameters
    ----------
    kernels
        Of the area's images, in their order.
    area
        What was recorded.
    model
        The network's name.
    seed
        Of all that is random.
    settings
        As above.

    Raises
    ------
    InputError
        If the kernels are of other images, or no layer is usable.
    """
    how = AreaSettings() if settings is None else settings
    if kernels.n_stimuli != area.n_stimuli:
        raise InputError(
            f"the kernels are of {kernels.n_stimuli} images, area {area.id} has {area.n_stimuli}"
        )
    seeds = _Seeds(seed, area.id)
    layers = _layer_table(kernels)
    parts: list[pd.DataFrame] = []
    samples: dict[str, np.ndarray] = {}
    if "regression" in how.analyses and area.session is not None:
        _regression(kernels, area, how, seeds, layers, parts, samples)
    if "rsa" in how.analyses:
        _similarity(kernels, area, how, seeds, layers, parts, samples)
    if not parts:
        parts.append(_reason_row(REGRESSION, "honest", PEARSON, "no single neurons"))
    table = pd.concat(parts, ignore_index=True)
    table["area"], table["model"] = area.id, model
    table["neuron"] = table["neuron"].astype("Int64")
    return AreaScores(table[list(COLUMNS)], layers, samples)


class _Seeds:
    """Generators by purpose, the same for all networks."""

    def __init__(self, seed: int, area: str) -> None:
        self.key = [seed, *area.encode()]

    def __call__(self, purpose: int) -> np.random.Generator:
        return np.random.default_rng([*self.key, 256 + purpose])


def _layer_table(kernels: NetworkKernels) -> pd.DataFrame:
    n = len(kernels)
    sizes = [
        np.nan if name in kernels.reasons else effective_dimensionality(np.asarray(kernel))
        for name, kernel in zip(kernels.layers, kernels.centred, strict=True)
    ]
    return pd.DataFrame(
        {
            "layer": kernels.layers, "depth": np.arange(n) / max(n - 1, 1),
            "n_features": kernels.n_features, "dimensionality": sizes,
            "reason": [kernels.reasons.get(name, "") for name in kernels.layers],
        }
    )  # fmt: skip


def _regression(
    kernels: NetworkKernels,
    area: BrainArea,
    how: AreaSettings,
    seeds: _Seeds,
    layers: pd.DataFrame,
    parts: list[pd.DataFrame],
    samples: dict[str, np.ndarray],
) -> None:
    session = area.require_session()
    least = LEAST_STIMULI * how.n_folds
    if area.n_stimuli < least:
        why = f"{area.n_stimuli} images; {how.n_folds} folds need {least} or more"
        parts.append(_reason_row(REGRESSION, "honest", PEARSON, why))
        return
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
    layers["r"] = _mean(honest.layer_r, axis=1)
    layers["r_published"] = _mean(published.layer_r, axis=1)
    scored = [k for k in range(session.n_neurons) if k not in honest.reasons]
    counts = np.bincount(honest.chosen[:, scored].ravel(), minlength=len(layers))
    layers["chosen"] = counts / counts.sum()
    for scores in (honest, published):
        drawn = bootstrap_predictions(
            session.mean_responses, scores.predictions, scores.folds, rng=seeds(2),
            n_resamples=how.n_resamples,
        )  # fmt: skip
        of_metric = {PEARSON: drawn.r, R2: drawn.r2}
        if scores is honest:
            samples |= {
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


def _neuron_intervals(
    scores: RegressionScores,
    metric: str,
    drawn: Mapping[str, Float64[np.ndarray, "n_resamples n_neurons"]],
    session: Session,
    how: AreaSettings,
    seeds: _Seeds,
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
    seeds: _Seeds,
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


def _similarity(
    kernels: NetworkKernels,
    area: BrainArea,
    how: AreaSettings,
    seeds: _Seeds,
    layers: pd.DataFrame,
    parts: list[pd.DataFrame],
    samples: dict[str, np.ndarray],
) -> None:
    metric = f"rsa {how.comparison}"
    n = area.n_stimuli
    some = np.arange(n)
    if n > how.rsa_stimuli:
        some = np.sort(seeds(5).permutation(n)[: how.rsa_stimuli])
    if len(some) < 2 * LEAST_STIMULI:
        why = f"{n} images; halves need {LEAST_STIMULI} each"
        parts.append(_reason_row(RSA, "honest", metric, why))
        return
    site, why = _site_rdm(area, some)
    if site is None:
        parts.append(_reason_row(RSA, "honest", metric, why))
        return
    rdms = kernels.rdms(some)
    ceiling, ceiling_why = _rdm_ceiling(area, some, how, seeds)
    common: dict[str, Any] = {
        "layers": kernels.layers, "comparison": how.comparison,
        "n_permutations": how.n_permutations,
    }  # fmt: skip
    sites = {area.id: site}
    honest = rsa_scores(rdms, sites, rng=seeds(6), n_splits=how.n_splits, **common)
    published = rsa_scores(rdms, sites, rng=seeds(6), protocol="published", **common)
    layers["rsa"] = honest.layer_scores[:, 0]
    counts = np.bincount(honest.chosen.ravel(), minlength=len(layers))
    layers["rsa_chosen"] = counts / counts.sum()
    tails = [(1 - how.level) / 2, (1 + how.level) / 2]
    for scores in (honest, published):
        drawn = bootstrap_rsa(
            rdms, site[None], scores, rng=seeds(7), n_resamples=how.n_resamples
        )[:, 0]  # fmt: skip
        if scores is honest:
            samples["rsa"] = drawn
        parts.append(
            _area_row(
                RSA, scores.protocol, metric, float(scores.values[0]), np.quantile(drawn, tails),
                ceiling, scores.null[:, 0], area, len(some), scores.reasons.get(area.id, ""),
                ceiling_why,
            ).assign(layer=scores.chosen_layers()[0], **_chosen_of(scores, layers))
        )  # fmt: skip
    n_folds = min(6, len(some) // LEAST_STIMULI)
    for protocol in ("honest", "published"):
        value, null = rsr_score(
            rdms, site, rng=seeds(8), protocol=protocol, n_folds=n_folds,
            n_permutations=how.n_permutations,
        )  # fmt: skip
        ends = np.full(2, np.nan)
        if protocol == "honest":
            predicted, folds = rsr_predictions(rdms, site, rng=seeds(8), n_folds=n_folds)
            samples["rsr"] = bootstrap_rsr(
                predicted, site, folds, rng=seeds(9), n_resamples=how.n_resamples
            )
            ends = np.quantile(samples["rsr"], tails)
        parts.append(
            _area_row(
                RSR, protocol, "rsr pearson", value, ends, ceiling, null, area, len(some),
                "" if np.isfinite(value) else "no layer has a positive weight", ceiling_why,
            )
        )  # fmt: skip


def _site_rdm(
    area: BrainArea, some: Int[np.ndarray, " n_some"]
) -> tuple[Float64[np.ndarray, " n_pairs"] | None, str]:
    """Return the area's dissimilarities (mean over subjects), or None and why there are none."""
    if area.rdms is not None:
        first, second = np.triu_indices(len(some), 1)
        return area.rdms.mean(axis=0)[some[first], some[second]], ""
    usable = usable_responses(area.require_session().responses).mean
    if usable.shape[1] < MIN_CELLS:
        return None, f"{usable.shape[1]} usable neurons; a matrix needs {MIN_CELLS} or more"
    rdm = response_rdm(usable[some])
    return (rdm, "") if np.isfinite(rdm).all() else (None, "an image all neurons answer alike")


def _rdm_ceiling(
    area: BrainArea, some: Int[np.ndarray, " n_some"], how: AreaSettings, seeds: _Seeds
) -> tuple[float, str]:
    """Return the noise ceiling of the area's matrix, NaN with why where it cannot be known."""
    if area.rdms is not None and len(area.rdms) > 1:
        first, second = np.triu_indices(len(some), 1)
        triangles = area.rdms[:, some[first], some[second]]
        return subject_rdm_ceiling(triangles, comparison=how.comparison)[1], ""
    if area.rdms is not None:
        if area.rdm_ceiling is None or len(some) < area.n_stimuli:
            return np.nan, "one matrix, none published"
        return float(area.rdm_ceiling), ""
    session = area.require_session()
    complete = np.isfinite(session.responses[some]).all(axis=2).sum(axis=1)
    if not session.has_repeats or complete.min() < 2:
        return np.nan, "no single repeats"
    usable = usable_responses(session.responses).neurons
    responses = session.responses[some][:, :, usable]
    return split_half_rdm_ceiling(responses, rng=seeds(10), comparison=how.comparison), ""


def _area_row(
    analysis: str,
    protocol: str,
    metric: str,
    value: float,
    ends: Float64[np.ndarray, " 2"],
    ceiling: float,
    null: Float64[np.ndarray, " n_permutations"],
    area: BrainArea,
    n_stimuli: int,
    reason: str,
    ceiling_reason: str,
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "analysis": analysis, "protocol": protocol, "neuron": pd.NA, "statistic": "area",
            "layer": "", "metric": metric, "value": value, "ci_low": ends[0], "ci_high": ends[1],
            "ci_over": "images" if np.isfinite(ends).all() else "", "ceiling": ceiling,
            "null": null.mean() if len(null) else np.nan, "n_stimuli": n_stimuli,
            "n_neurons": area.n_neurons, "depth": np.nan, "dimensionality": np.nan,
            "reason": reason, "ceiling_reason": ceiling_reason,
        },
        index=[0],
    )  # fmt: skip


def _chosen_of(scores: RSAScores, layers: pd.DataFrame) -> dict[str, float]:
    chosen = scores.chosen[:, 0]
    return {
        name: float(layers[name].to_numpy(np.float64)[chosen].mean())
        for name in ("depth", "dimensionality")
    }


def _reason_row(analysis: str, protocol: str, metric: str, reason: str) -> pd.DataFrame:
    empty = dict.fromkeys(
        ("value", "ci_low", "ci_high", "ceiling", "null", "depth", "dimensionality"), np.nan
    )
    return pd.DataFrame(
        {
            "analysis": analysis, "protocol": protocol, "neuron": pd.NA, "statistic": "area",
            "layer": "", "metric": metric, **empty, "ci_over": "", "n_stimuli": 0, "n_neurons": 0,
            "reason": reason, "ceiling_reason": "",
        },
        index=[0],
    )  # fmt: skip


def _mean(values: Float64[np.ndarray, "..."], axis: int) -> Float64[np.ndarray, "..."]:
    """Return the mean over what is known, NaN where nothing is."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=axis)
    count = known.sum(axis=axis)
    return np.asarray(total / np.where(count > 0, count, np.nan))
