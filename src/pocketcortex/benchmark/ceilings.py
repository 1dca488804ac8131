"""How far scores could go at most, given the noise of the recordings."""

import numpy as np
from jaxtyping import Float64
from scipy.stats import rankdata

from pocketcortex.benchmark.rdms import Comparison, compare_rdms, n_stimuli_of, response_rdm
from pocketcortex.core import InputError
from pocketcortex.metrics import split_half_reliability


def neuron_ceilings(
    responses: Float64[np.ndarray, "n_stimuli n_repeats n_neurons"],
    *,
    rng: np.random.Generator,
    n_splits: int = 50,
) -> Float64[np.ndarray, " n_neurons"]:
    r"""Return the Pearson's r with each neuron's mean response that the true response would have.

    .. math:: \sqrt{\mathrm{SB}}

    with SB the Spearman-Brown corrected split-half reliability of the mean over repeats. r² has
    the ceiling SB.

    Parameters
    ----------
    responses
        One value a repeat; NaN where a repeat is missing.
    rng
        Source of the splits.
    n_splits
        Random halves of the repeats.

    Returns
    -------
    Float64[np.ndarray, "n_neurons"]
        NaN where there are no repeats, or halves do not correlate positively.

    References
    ----------
    Spearman (1904), American Journal of Psychology 15: 72. Reliability as in
    :func:`pocketcortex.metrics.split_half_reliability`.
    """
    if not (np.isfinite(responses).sum(axis=1) >= 2).any():
        return np.full(responses.shape[2], np.nan)
    reliability = split_half_reliability(responses, rng=rng, n_splits=n_splits)
    return np.sqrt(np.where(reliability > 0, reliability, np.nan))


def split_half_rdm_ceiling(
    responses: Float64[np.ndarray, "n_stimuli n_repeats n_cells"],
    *,
    rng: np.random.Generator,
    comparison: Comparison = "pearson",
    n_splits: int = 50,
) -> float:
    r"""Return how alike to the matrix of mean responses that of noiseless ones would be.

    The matrix of one random half of the repeats is compared with that of the other; the mean c
    over splits is corrected for the whole by Spearman-Brown, and its square root taken:
    :math:`\sqrt{2 c / (1 + c)}`. It is for these cells, not for others of the area. The correction
    takes the noise of dissimilarities as additive, which holds for small noise only.

    Parameters
    ----------
    responses
        One value a repeat; NaN where a repeat is missing. Cells or stimuli without two repeats are
        an error.
    rng
        Source of the splits.
    comparison
        As for :func:`compare_rdms`.
    n_splits
        Random halves, 1 or more, drawn anew for every stimulus, alike for all cells.

    Returns
    -------
    float
        NaN where halves do not agree at all (c of 0 or less).

    Raises
    ------
    InputError
        If a stimulus has fewer than two repeats of all cells, or n_splits is below 1.

    References
    ----------
    Conwell et al. (2021), NeurIPS 34, who split trials in halves; for ceilings from subjects see
    :func:`subject_rdm_ceiling`.
    """
    complete = np.isfinite(responses).all(axis=2)  # (n_stimuli, n_repeats)
    if n_splits < 1:
        raise InputError(f"n_splits must be 1 or more, got {n_splits}")
    if complete.sum(axis=1).min() < 2:
        raise InputError("each stimulus needs two repeats of all cells to halve them")
    agreements = []
    for _ in range(n_splits):
        key = np.where(complete, rng.random(complete.shape), np.inf)
        place = key.argsort(axis=1).argsort(axis=1)
        half = (complete.sum(axis=1) // 2)[:, None]
        masks = place < half, (place >= half) & (place < 2 * half)
        rdms = []
        for mask in masks:
            values = np.where(mask[:, :, None], responses, 0.0).sum(axis=1) / half
            rdms.append(response_rdm(values)[None])
        agreements.append(compare_rdms(*rdms, comparison=comparison)[0, 0])
    c = float(np.mean(agreements))
    return float(np.sqrt(2 * c / (1 + c))) if c > 0 else float("nan")


def subject_rdm_ceiling(
    rdms: Float64[np.ndarray, "n_subjects n_pairs"], *, comparison: Comparison = "pearson"
) -> tuple[float, float]:
    """Return lower and upper bound of how alike to single subjects any one matrix could be.

    Lower: the mean over subjects of the comparison with the mean of the others. Upper: with the
    mean of all. Subjects are z-scored (for ``"spearman"`` ranked) before they are averaged.

    Parameters
    ----------
    rdms
        Upper triangles, two subjects or more.
    comparison
        As for :func:`compare_rdms`.

    Raises
    ------
    InputError
        If there are fewer than two subjects.

    References
    ----------
    Nili et al. (2014), A toolbox for representational similarity analysis, PLoS Computational
    Biology 10: e1003553.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> true = rng.random(190)
    >>> low, high = subject_rdm_ceiling(true + 0.2 * rng.random((6, 190)))
    >>> bool(0.9 < low < high < 1)
    True
    """
    if len(rdms) < 2:
        raise InputError(f"a ceiling from subjects needs two or more, got {len(rdms)}")
    n_stimuli_of(rdms.shape[1])
    z = np.asarray(rankdata(rdms, axis=1)) if comparison == "spearman" else rdms
    z = (z - z.mean(axis=1, keepdims=True)) / z.std(axis=1, keepdims=True)
    others = (z.sum(axis=0) - z) / (len(z) - 1)
    low = [compare_rdms(z[[k]], others[[k]], comparison=comparison)[0, 0] for k in range(len(z))]
    high = compare_rdms(z, z.mean(axis=0, keepdims=True), comparison=comparison)
    return float(np.mean(low)), float(high.mean())
