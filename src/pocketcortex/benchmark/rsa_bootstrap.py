"""Intervals over stimuli for how alike chosen layers, or weighted sums of layers, are to a site."""

import numpy as np
from jaxtyping import Bool, Float64, Int
from scipy.stats import rankdata

from pocketcortex.benchmark.rdms import Comparison, compare_pairs, n_stimuli_of, square_of
from pocketcortex.benchmark.rsa import RSAScores
from pocketcortex.core import InputError


def bootstrap_rsa(
    layer_rdms: Float64[np.ndarray, "n_layers n_pairs"],
    site_rdms: Float64[np.ndarray, "n_sites n_pairs"],
    scores: RSAScores,
    *,
    rng: np.random.Generator,
    n_resamples: int = 1000,
) -> Float64[np.ndarray, "n_resamples n_sites"]:
    """Return the chosen layers' scores when stimuli are drawn anew, with replacement.

    Layers stay as they were chosen. Each is compared with the site on the pairs of two different
    stimuli among those drawn from the half that it is reported on, a pair as often as it occurs,
    and scores are averaged over choices, as :func:`rsa_scores` does. A generator of the same seed
    draws the same stimuli for all networks. With ``"spearman"`` ranks are those among all of the
    half's pairs. Intervals are too wide, more so for fewer stimuli: a stimulus drawn twice counts
    as if it were two.

    Parameters
    ----------
    layer_rdms, site_rdms
        Upper triangles, what `scores` were made from.
    scores
        From :func:`rsa_scores`.
    rng
        Source of the draws.
    n_resamples
        Number of resamples, 2 or more.

    Returns
    -------
    Float64[np.ndarray, "n_resamples n_sites"]
        NaN for sites without a score.

    Raises
    ------
    InputError
        If shapes disagree with the scores, or n_resamples is below 2.

    References
    ----------
    Nili et al. (2014), PLoS Computational Biology 10: e1003553 (pairs of copies left out). That it
    is too wide: Schütt et al. (2023), eLife 12: e82566.
    """
    n = scores.n_stimuli
    shapes = (len(scores.layers), n * (n - 1) // 2), (len(scores.sites), n * (n - 1) // 2)
    if (layer_rdms.shape, site_rdms.shape) != shapes:
        raise InputError(
            f"the scores are of layers and sites {shapes}, got {layer_rdms.shape} and "
            f"{site_rdms.shape}"
        )
    weights = _stimulus_weights(n, n_resamples, rng)
    out = np.full((n_resamples, len(scores.sites)), np.nan)
    for site, name in enumerate(scores.sites):
        if name in scores.reasons:
            continue
        choices = zip(scores.chosen[:, site], scores.reported, strict=True)
        parts = [(layer_rdms[layer], np.flatnonzero(half)) for layer, half in choices]
        samples = [
            _half_samples(rdm, site_rdms[site], half, n, weights, scores.comparison)
            for rdm, half in parts
        ]
        out[:, site] = np.mean(samples, axis=0)
    return out


def bootstrap_rsr(
    predicted: Float64[np.ndarray, " n_pairs"],
    site_rdm: Float64[np.ndarray, " n_pairs"],
    folds: Int[np.ndarray, " n_pairs"],
    *,
    rng: np.random.Generator,
    n_resamples: int = 1000,
) -> Float64[np.ndarray, " n_resamples"]:
    """Return Pearson's r of predicted dissimilarities when stimuli are drawn anew.

    Parameters
    ----------
    predicted, folds
        From :func:`rsr_predictions`. Weights of layers stay as fitted; folds' means are taken out.
    site_rdm
        Upper triangle of the site.
    rng
        Source of the draws.
    n_resamples
        Number of resamples, 2 or more.

    Raises
    ------
    InputError
        If shapes disagree, or n_resamples is below 2.
    """
    if not predicted.shape == site_rdm.shape == folds.shape:
        raise InputError(
            "predicted, site_rdm and folds must be of the same pairs, got "
            f"{predicted.shape}, {site_rdm.shape}, {folds.shape}"
        )
    n = n_stimuli_of(len(site_rdm))
    weights = _stimulus_weights(n, n_resamples, rng)
    sums = np.zeros((3, n_resamples))
    for fold in np.unique(folds[folds >= 0]):
        own = folds == fold
        x, y = (np.where(own, rdm - rdm[own].mean(), 0.0) for rdm in (predicted, site_rdm))
        sums += _pair_sums(square_of(x, n), square_of(y, n), square_of(own, n), weights)
    return _correlation(sums)


def _stimulus_weights(
    n: int, n_resamples: int, rng: np.random.Generator
) -> Float64[np.ndarray, "n_resamples n"]:
    if n_resamples < 2:
        raise InputError(f"n_resamples must be 2 or more, got {n_resamples}; 1000 is usual")
    return rng.multinomial(n, np.full(n, 1 / n), size=n_resamples).astype(np.float64)


def _half_samples(
    layer: Float64[np.ndarray, " n_pairs"],
    site: Float64[np.ndarray, " n_pairs"],
    half: Int[np.ndarray, " n_half"],
    n: int,
    weights: Float64[np.ndarray, "n_resamples n"],
    comparison: Comparison,
) -> Float64[np.ndarray, " n_resamples"]:
    x, y = (square_of(rdm, n)[np.ix_(half, half)] for rdm in (layer, site))
    own = weights[:, half]
    if comparison == "whitened":
        return np.array([_whitened(x, y, w) for w in own.astype(np.int64)])
    upper = np.triu_indices(len(half), 1)
    sides = [side[upper] for side in (x, y)]
    if comparison == "spearman":
        sides = [np.asarray(rankdata(side), dtype=np.float64) for side in sides]
    x, y = (square_of(side - side.mean(), len(half)) for side in sides)
    different = ~np.eye(len(half), dtype=bool)
    return _correlation(_pair_sums(x, y, different, own))


def _pair_sums(
    x: Float64[np.ndarray, "n n"],
    y: Float64[np.ndarray, "n n"],
    used: Bool[np.ndarray, "n n"],
    weights: Float64[np.ndarray, "n_resamples n"],
) -> Float64[np.ndarray, "3 n_resamples"]:
    """Return sums over pairs, each w_i w_j times, of xy, xx and yy about the weighted means."""

    def summed(values: np.ndarray) -> np.ndarray:
        return np.asarray(((weights @ values) * weights).sum(axis=1) / 2)

    total, sx, sy, xy, xx, yy = map(summed, (used.astype(np.float64), x, y, x * y, x * x, y * y))
    total = np.where(total > 0, total, 1.0)  # no pair drawn: all sums are 0
    return np.stack([xy - sx * sy / total, xx - sx**2 / total, yy - sy**2 / total])


def _correlation(sums: Float64[np.ndarray, "3 n_resamples"]) -> Float64[np.ndarray, " n_resamples"]:
    size = np.sqrt(np.maximum(sums[1], 0) * np.maximum(sums[2], 0))
    return np.asarray(sums[0] / np.where(size > 0, size, np.nan))


def _whitened(
    x: Float64[np.ndarray, "n n"],
    y: Float64[np.ndarray, "n n"],
    counts: Int[np.ndarray, " n"],
) -> float:
    """Return the whitened comparison of the pairs of different stimuli among those drawn."""
    drawn = np.repeat(np.arange(len(counts)), counts)
    pairs = np.stack(np.triu_indices(len(drawn), 1))
    a, b = drawn[pairs]
    keep = a != b
    if not keep.any():
        return float("nan")
    first, second = (side[a[keep], b[keep]][None] for side in (x, y))
    return float(compare_pairs(first, second, pairs[:, keep], len(drawn), "whitened")[0, 0])
