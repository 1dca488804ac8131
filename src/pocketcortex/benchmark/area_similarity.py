"""An area's geometry beside a network's layers: rows, layers and resamples."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int

from pocketcortex.benchmark._area_parts import RSA, RSR, AreaPart, Seeds, reason_row
from pocketcortex.benchmark._responses import usable_responses
from pocketcortex.benchmark.area_settings import AreaSettings
from pocketcortex.benchmark.ceilings import split_half_rdm_ceiling, subject_rdm_ceiling
from pocketcortex.benchmark.rdms import MIN_CELLS, response_rdm
from pocketcortex.benchmark.rsa import LEAST_STIMULI, RSAScores, rsa_scores
from pocketcortex.benchmark.rsa_bootstrap import bootstrap_rsa, bootstrap_rsr
from pocketcortex.benchmark.rsr import rsr_predictions, rsr_score
from pocketcortex.core import BrainArea
from pocketcortex.zoo import NetworkKernels


def score_geometry(
    kernels: NetworkKernels,
    area: BrainArea,
    how: AreaSettings,
    seeds: Seeds,
    layers: pd.DataFrame,
) -> AreaPart:
    """Return how alike layers' dissimilarities and an area's are: one layer, and all of them.

    Parameters
    ----------
    kernels
        Of the area's images.
    area
        With published matrices, or with neurons.
    how
        Comparison, halvings, permutations and resamples.
    seeds
        Of images kept, halves, permutations and draws.
    layers
        Depth and effective dimensionality of each layer.
    """
    metric = f"rsa {how.comparison}"
    n = area.n_stimuli
    some = np.arange(n)
    if n > how.rsa_stimuli:
        some = np.sort(seeds(5).permutation(n)[: how.rsa_stimuli])
    if len(some) < 2 * LEAST_STIMULI:
        why = f"{n} images; halves need {LEAST_STIMULI} each"
        return AreaPart([reason_row(RSA, "honest", metric, why)])
    site, why = _site_rdm(area, some)
    if site is None:
        return AreaPart([reason_row(RSA, "honest", metric, why)])
    rdms = kernels.rdms(some)
    ceiling, ceiling_why = _rdm_ceiling(area, some, how, seeds)
    common: dict[str, Any] = {
        "layers": kernels.layers, "comparison": how.comparison,
        "n_permutations": how.n_permutations,
    }  # fmt: skip
    sites = {area.id: site}
    honest = rsa_scores(rdms, sites, rng=seeds(6), n_splits=how.n_splits, **common)
    published = rsa_scores(rdms, sites, rng=seeds(6), protocol="published", **common)
    counts = np.bincount(honest.chosen.ravel(), minlength=len(layers))
    columns = {"rsa": honest.layer_scores[:, 0], "rsa_chosen": counts / counts.sum()}
    parts: list[pd.DataFrame] = []
    samples: dict[str, np.ndarray] = {}
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
    return AreaPart(parts, columns, samples)


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
    area: BrainArea, some: Int[np.ndarray, " n_some"], how: AreaSettings, seeds: Seeds
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
