"""Statistics of pairs of models, which are not independent: each model is in many pairs."""

import numpy as np
from jaxtyping import Float, Float64, Int

from pocketcortex.core.errors import InputError
from pocketcortex.metrics._permutation import sign_flip_p


def random_matchings(
    n: int, n_matchings: int, *, rng: np.random.Generator
) -> Int[np.ndarray, "n_matchings n_pairs 2"]:
    """Return n models in pairs that share none, drawn over and over.

    Parameters
    ----------
    n
        Models, 2 or more; of an odd number, one is left out of each matching.
    n_matchings
        How many times, 1 or more.
    rng
        Source of the draws.

    Raises
    ------
    InputError
        If `n` or `n_matchings` is too small.
    """
    if n < 2 or n_matchings < 1:
        raise InputError(
            f"a matching needs two models or more, and one draw or more; got {n} and {n_matchings}"
        )
    orders = rng.permuted(np.tile(np.arange(n), (n_matchings, 1)), axis=1)
    return np.asarray(orders[:, : n // 2 * 2].reshape(n_matchings, n // 2, 2))


def matched_pairs_p(
    differences: Float[np.ndarray, "n_matchings n_pairs"],
    *,
    rng: np.random.Generator,
    n_permutations: int = 10_000,
) -> float:
    r"""Return a p value for a mean difference within pairs of models, from many matchings.

    Pairs of one matching share no model, so their differences are independent if the models are,
    and flipping signs is a valid two-sided test if a difference is as likely as its opposite. A
    matching uses few of the :math:`n (n - 1) / 2` pairs, so p depends on which was drawn; twice
    the median of the matchings' p, at most 1, is valid however they depend on each other: if it is
    a or less, half of the matchings or more have p of a / 2 or less, which by Markov's inequality
    happens with probability a at most. It is conservative.

    Parameters
    ----------
    differences
        One value a pair, NaN where there is none; a matching with NaN alone counts as p = 1.
    rng
        Source of the flips.
    n_permutations
        Most flips, 100 or more; p is never below 4 / (n_permutations + 1), nor below 4 / 2^n_pairs.

    Raises
    ------
    InputError
        If there is no pair or `n_permutations` is below 100.

    References
    ----------
    Rüger (1978), Metrika 25 (twice the median). Meinshausen, Meier & Bühlmann (2009), JASA 104,
    Theorem 3.1 with gamma = 1/2.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> matched_pairs_p(rng.normal(1, 1, size=(20, 50)), rng=rng) < 0.001
    True
    """
    if differences.size == 0:
        raise InputError(f"at least one pair is needed, got differences {differences.shape}")
    known = [row[~np.isnan(row)].astype(np.float64) for row in differences]
    tested = [row for row in known if len(row)]
    p = np.ones(len(known))
    p[: len(tested)] = sign_flip_p(tested, rng=rng, n_permutations=n_permutations)
    return float(min(1.0, 2 * np.median(p)))


def pair_mean(
    values: Float[np.ndarray, "*groups n columns"],
    counts: Float[np.ndarray, "m m"] | None = None,
) -> Float64[np.ndarray, "*groups"]:
    """Return the mean over all pairs of different models; pairs whose value is NaN are left out.

    Parameters
    ----------
    values
        Symmetric; what stands on the diagonal is not looked at.
    counts
        Weight of each pair, symmetric and 0 or more; None for 1.
    """
    n = values.shape[-1]
    return _weighted_means(*_parts(values, counts), np.ones((1, n)))[..., 0]


def bootstrap_pair_mean_ci(
    values: Float[np.ndarray, "*groups n columns"],
    counts: Float[np.ndarray, "m m"] | None = None,
    *,
    rng: np.random.Generator,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> tuple[Float64[np.ndarray, "*groups"], Float64[np.ndarray, "*groups"]]:
    r"""Return the percentile interval of the mean over pairs when *models* are resampled.

    With :math:`w_i` how often model i was drawn,
    :math:`\sum_{i<j} w_i w_j v_{ij} / \sum_{i<j} w_i w_j`: pairs of a model with its own copy are
    left out. Resampling pairs as if they were independent would give an interval much too narrow.

    Parameters
    ----------
    values, counts
        As in :func:`pair_mean`; groups (such as layers) share their resamples.
    rng
        Source of the resamples.
    n_resamples
        Number of resamples, 2 or more.
    level
        Coverage aimed at, between 0 and 1, both excluded.

    Returns
    -------
    tuple
        Lower and upper end, one a group. NaN if a resample had no pair with a value.

    Raises
    ------
    InputError
        If there are fewer than two models, or `n_resamples` or `level` is out of range.

    References
    ----------
    Efron & Tibshirani (1993), chapter 13. Resampling the units of which pairs are made: Snijders &
    Borgatti (1999), Connections 22.
    """
    n = values.shape[-1]
    if n < 2 or n_resamples < 2 or not 0 < level < 1:
        raise InputError(
            "two models or more, two resamples or more and a level between 0 and 1 are needed; got "
            f"{n}, {n_resamples} and {level}"
        )
    weights = rng.multinomial(n, np.full(n, 1 / n), size=n_resamples).astype(np.float64)
    means = _weighted_means(*_parts(values, counts), weights)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=-1)
    return np.asarray(low), np.asarray(high)


def _parts(
    values: Float[np.ndarray, "*groups n columns"], counts: Float[np.ndarray, "m m"] | None
) -> tuple[Float64[np.ndarray, "*groups n n"], Float64[np.ndarray, "*groups n n"]]:
    """Return values times weights, and weights, both 0 where there is no value."""
    n = values.shape[-1]
    if values.shape[-2] != n or (counts is not None and counts.shape != (n, n)):
        raise InputError(
            f"values (and counts) must be (n, n) for n models, got {values.shape}"
            + ("" if counts is None else f" and {counts.shape}")
        )
    weight = (np.ones((n, n)) if counts is None else counts.astype(np.float64)) * (1 - np.eye(n))
    known = ~np.isnan(values)
    return np.where(known, values, 0.0) * weight, known * weight


def _weighted_means(
    sums: Float64[np.ndarray, "*groups n n"],
    counts: Float64[np.ndarray, "*groups n n"],
    weights: Float64[np.ndarray, "n_resamples n"],
) -> Float64[np.ndarray, "*groups n_resamples"]:
    above = ((weights @ sums) * weights).sum(axis=-1)
    below = ((weights @ counts) * weights).sum(axis=-1)
    return np.asarray(above / np.where(below > 0, below, np.nan))
