"""Intervals over stimuli for how models compare with a site, and with each other."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from pocketcortex.benchmark.rdms import (
    Comparison,
    compare_pairs,
    compare_rdms,
    n_stimuli_of,
    square_of,
)
from pocketcortex.core import InputError


@dataclass(frozen=True)
class RDMBootstrap:
    """Scores of models, and what they would be for other samples of stimuli.

    Attributes
    ----------
    scores
        Of each model, all stimuli, (n_models,).
    samples
        Of each model in each resample, (n_resamples, n_models).
    low, high
        Ends of the percentile interval, (n_models,).
    p
        Two-sided p of each pair of models scoring alike, (n_models, n_models); 1 on the diagonal.
    """

    scores: Float64[np.ndarray, " n_models"]
    samples: Float64[np.ndarray, "n_resamples n_models"]
    low: Float64[np.ndarray, " n_models"]
    high: Float64[np.ndarray, " n_models"]
    p: Float64[np.ndarray, "n_models n_models"]


def bootstrap_rdm_scores(
    models: Float[np.ndarray, "n_models n_pairs"],
    site: Float[np.ndarray, " n_pairs"],
    *,
    rng: np.random.Generator,
    comparison: Comparison = "pearson",
    n_resamples: int = 1000,
    level: float = 0.95,
) -> RDMBootstrap:
    """Return how models compare with a site, with intervals over stimuli and pairs of models.

    Each resample draws stimuli with replacement and compares all models with the site on the pairs
    of two different stimuli among those drawn, a pair as often as it occurs. The same stimuli are
    drawn for all models, so that two of them can be compared: p is twice the share of resamples in
    which the lower one is the higher, at least 2 / (n_resamples + 1). It is for the population of
    stimuli, with the cells as recorded, and not corrected for the number of pairs of models. Models
    should be given by one matrix each, chosen on other data.

    Parameters
    ----------
    models
        One matrix a model, upper triangles, finite.
    site
        The matrix of responses.
    rng
        Source of the resamples.
    comparison
        As for :func:`compare_rdms`.
    n_resamples
        Number of resamples, 2 or more.
    level
        Coverage aimed at, between 0 and 1, both excluded.

    Returns
    -------
    RDMBootstrap
        Intervals tend to be too wide: a stimulus drawn twice counts as if it were two.

    Raises
    ------
    InputError
        If shapes disagree, a dissimilarity is not finite, or n_resamples, level or comparison is
        out of range.

    References
    ----------
    Nili et al. (2014), A toolbox for representational similarity analysis, PLoS Computational
    Biology 10: e1003553 (bootstrap over stimuli, pairs of copies left out). That it is too wide:
    Schütt et al. (2023), eLife 12: e82566.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> site = rng.normal(size=190)
    >>> models = np.stack([site + rng.normal(size=190), rng.normal(size=190)])
    >>> found = bootstrap_rdm_scores(models, site, rng=rng, n_resamples=200)
    >>> bool(found.p[0, 1] < 0.05), bool(found.low[1] < 0 < found.high[1])
    (True, True)
    """
    scores = compare_rdms(models, site[None], comparison=comparison)[:, 0]
    if not (np.isfinite(models).all() and np.isfinite(site).all()):
        raise InputError("dissimilarities must be finite; leave out such models, sites or stimuli")
    if n_resamples < 2 or not 0 < level < 1:
        raise InputError(
            f"n_resamples must be 2 or more and level within 0..1, got {n_resamples}, {level}"
        )
    n = n_stimuli_of(len(site))
    place = square_of(np.arange(len(site)), n)
    all_pairs = np.stack(np.triu_indices(n, 1))
    samples = np.empty((n_resamples, len(models)))
    for sample in samples:
        drawn = rng.integers(n, size=n)
        a, b = drawn[all_pairs]
        different = a != b
        taken = place[a[different], b[different]]
        sample[:] = compare_pairs(
            models[:, taken], site[None, taken], all_pairs[:, different], n, comparison
        )[:, 0]
    tails = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2], axis=0)
    higher = (samples[:, :, None] >= samples[:, None]).sum(axis=0)
    extreme = np.minimum(higher, higher.T)
    p = np.minimum(1.0, 2 * (extreme + 1) / (n_resamples + 1))
    np.fill_diagonal(p, 1.0)
    return RDMBootstrap(scores, samples, tails[0], tails[1], p)
