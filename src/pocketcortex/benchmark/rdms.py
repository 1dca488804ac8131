"""Dissimilarity matrices of responses, and how alike they are to those of layers."""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Float64, Int, Shaped
from scipy.sparse import csr_array
from scipy.stats import rankdata

from pocketcortex.core import InputError

Comparison = Literal["pearson", "spearman", "whitened"]

MIN_CELLS = 10
"""Fewest cells of a site; with two cells a correlation distance is 0 or 2."""

_CONSTANT = 1e-12


def response_rdm(
    responses: Float[np.ndarray, "n_stimuli n_cells"], *, min_cells: int = MIN_CELLS
) -> Float64[np.ndarray, " n_pairs"]:
    """Return 1 - Pearson's r between the patterns of every two stimuli over the cells of a site.

    Biased upwards by noise, which makes patterns of a stimulus differ between repeats; alike for
    all pairs if noise is.

    Parameters
    ----------
    responses
        Mean responses, any unit, finite.
    min_cells
        Fewest cells, 2 or more: below it there is no matrix to speak of.

    Returns
    -------
    Float64[np.ndarray, "n_pairs"]
        Upper triangle, row by row; 0 to 2. NaN in pairs with a stimulus that all cells answer
        alike.

    Raises
    ------
    InputError
        If there are fewer than 3 stimuli or `min_cells` cells, `min_cells` is below 2, or a
        response is not finite.

    References
    ----------
    Kriegeskorte, Mur & Bandettini (2008), Representational similarity analysis, Frontiers in
    Systems Neuroscience 2: 4.

    Examples
    --------
    >>> import numpy as np
    >>> responses = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [3.0, 2.0, 1.0]])
    >>> response_rdm(responses, min_cells=3).round(6)
    array([0., 2., 2.])
    """
    if min_cells < 2:
        raise InputError(f"min_cells must be 2 or more, got {min_cells}")
    if responses.ndim != 2 or len(responses) < 3 or responses.shape[1] < min_cells:
        raise InputError(
            f"responses must be (n_stimuli, n_cells) with 3 stimuli and {min_cells} cells or more, "
            f"got {responses.shape}"
        )
    if not np.isfinite(responses).all():
        raise InputError("responses must be finite; leave out cells that missed a stimulus")
    values = responses.astype(np.float64)
    centred = values - values.mean(axis=1, keepdims=True)
    size = np.linalg.norm(centred, axis=1, keepdims=True)
    flat = size <= _CONSTANT * np.linalg.norm(values, axis=1, keepdims=True)
    unit = centred / np.where(flat, np.nan, size)
    return np.asarray(np.clip(1 - (unit @ unit.T)[np.triu_indices(len(values), 1)], 0, 2))


def compare_rdms(
    first: Float[np.ndarray, "n_first n_pairs"],
    second: Float[np.ndarray, "n_second n_pairs"],
    *,
    comparison: Comparison = "pearson",
) -> Float64[np.ndarray, "n_first n_second"]:
    r"""Return how alike dissimilarity matrices of the same stimuli are, every one with every one.

    ``"pearson"`` and ``"spearman"``: correlation of the upper triangles. ``"whitened"``: Pearson's,
    in the metric of the covariance that noise gives to dissimilarities that share a stimulus,
    :math:`V = 2 I + W W^\top` with W saying which stimuli a pair has (4 on the diagonal, 1 for
    pairs with a stimulus in common, 0 otherwise):

    .. math:: \frac{\tilde x^\top V^{-1} \tilde y}
              {\sqrt{\tilde x^\top V^{-1} \tilde x \; \tilde y^\top V^{-1} \tilde y}}

    with tildes for deviations from the mean over pairs. V is never made: its inverse needs only
    each stimulus's sum of dissimilarities.

    Parameters
    ----------
    first, second
        Upper triangles, one matrix a row.
    comparison
        As above.

    Returns
    -------
    Float64[np.ndarray, "n_first n_second"]
        -1..1; NaN for a matrix with NaN, or with all dissimilarities equal.

    Raises
    ------
    InputError
        If the numbers of pairs differ or belong to no number of stimuli, or there are fewer than
        three stimuli, or the comparison is unknown.

    References
    ----------
    Kriegeskorte et al. (2008), as above. Diedrichsen et al. (2021), Comparing representational
    geometries using whitened unbiased-distance-matrix similarity, Neurons, Behavior, Data analysis
    and Theory, Eq. 15 and 16, there `corr_cov`; the closed form of the inverse is our own.

    Examples
    --------
    >>> import numpy as np
    >>> rdms = np.array([[1.0, 2.0, 4.0, 3.0, 1.0, 5.0], [1.0, 2.0, 8.0, 3.0, 1.0, 9.0]])
    >>> [float(compare_rdms(rdms[:1], rdms[1:], comparison=c)[0, 0].round(2))
    ...  for c in ("pearson", "spearman", "whitened")]
    [0.96, 1.0, 0.97]
    """
    n = n_stimuli_of(first.shape[-1])
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise InputError(
            "both must be (n_rdms, n_pairs) over the same stimuli, got "
            f"{first.shape} and {second.shape}"
        )
    pairs = np.stack(np.triu_indices(n, 1))
    return compare_pairs(first, second, pairs, n, comparison)


def compare_pairs(
    first: Float[np.ndarray, "n_first n_pairs"],
    second: Float[np.ndarray, "n_second n_pairs"],
    pairs: Int[np.ndarray, "2 n_pairs"],
    n_stimuli: int,
    comparison: Comparison,
) -> Float64[np.ndarray, "n_first n_second"]:
    """Return the same for any list of pairs of stimuli."""
    if comparison not in get_args(Comparison):
        raise InputError(
            f"comparison must be one of {', '.join(get_args(Comparison))}, got {comparison!r}"
        )
    sides = [np.asarray(side, dtype=np.float64) for side in (first, second)]
    if comparison == "spearman":
        sides = [_ranks(side) for side in sides]
    centred = [side - side.mean(axis=1, keepdims=True) for side in sides]
    for k, side in enumerate(sides):
        small = _CONSTANT * np.linalg.norm(side, axis=1)
        centred[k][np.linalg.norm(centred[k], axis=1) <= small] = np.nan
    if comparison == "whitened":
        weighted = [_whitened(side, pairs, n_stimuli) for side in centred]
    else:
        weighted = centred
    lengths = [
        np.sqrt(np.einsum("ij,ij->i", side, w)) for side, w in zip(centred, weighted, strict=True)
    ]
    return np.asarray(centred[0] @ weighted[1].T / (lengths[0][:, None] * lengths[1]))


def _ranks(rdms: Float64[np.ndarray, "n_rdms n_pairs"]) -> Float64[np.ndarray, "n_rdms n_pairs"]:
    ranks = rankdata(rdms, axis=1)
    return np.where(np.isnan(rdms).any(axis=1, keepdims=True), np.nan, ranks)


def _whitened(
    rdms: Float64[np.ndarray, "n_rdms n_pairs"], pairs: Int[np.ndarray, "2 n_pairs"], n: int
) -> Float64[np.ndarray, "n_rdms n_pairs"]:
    """Return V⁻¹ of each row, by Woodbury: (I - W (2 I + WᵀW)⁻¹ Wᵀ) / 2."""
    n_pairs = pairs.shape[1]
    places = (pairs.ravel(), np.tile(np.arange(n_pairs), 2))
    Wt = csr_array((np.ones(2 * n_pairs), places), shape=(n, n_pairs))
    # WᵀW: in how many pairs a stimulus is, and two stimuli are together
    solved = np.linalg.solve((Wt @ Wt.T).toarray() + 2 * np.eye(n), Wt @ rdms.T).T
    return np.asarray((rdms - solved[:, pairs[0]] - solved[:, pairs[1]]) / 2)


def n_stimuli_of(n_pairs: int) -> int:
    """Return the number of stimuli that have so many pairs.

    Raises
    ------
    InputError
        If there is none, or it is below three.
    """
    n = round((1 + np.sqrt(1 + 8 * n_pairs)) / 2)
    if n * (n - 1) // 2 != n_pairs or n < 3:
        raise InputError(
            f"an upper triangle has n (n - 1) / 2 entries with n of 3 or more, got {n_pairs}"
        )
    return int(n)


def pairs_among(
    stimuli: Shaped[np.ndarray, "..."], n_stimuli: int
) -> Int[np.ndarray, " n_pairs_among"]:
    """Return the places, in an upper triangle, of the pairs of two of some stimuli (a mask)."""
    first, second = np.triu_indices(n_stimuli, 1)
    return np.flatnonzero(stimuli[first] & stimuli[second])


def square_of(triangle: np.ndarray, n: int) -> np.ndarray:
    """Return the symmetric matrix of an upper triangle, 0 on the diagonal."""
    out = np.zeros((n, n), dtype=triangle.dtype)
    first, second = np.triu_indices(n, 1)
    out[first, second] = out[second, first] = triangle
    return out
