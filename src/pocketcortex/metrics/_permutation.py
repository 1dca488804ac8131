"""Permutation p values of many small samples at once: samples of one size share their shuffles."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import combinations
from math import comb
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int, Shaped

from pocketcortex.core.errors import InputError

_CHUNK = 4_000_000  # float64 values held at once, 32 MB
_ROUNDING = 64 * float(np.finfo(np.float64).eps)
_TINY = float(np.finfo(np.float64).tiny)
_TIE = 1e-10

_Weights: TypeAlias = Float[np.ndarray, "n_shuffles n_values"]


def two_sample_p(
    samples: Sequence[tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"]]],
    *,
    rng: np.random.Generator,
    n_permutations: int,
) -> Float[np.ndarray, " n_samples"]:
    """Return two-sided p values of a difference of two means, labels exchanged between values.

    The statistic is Welch's t, so that variances may differ, or, where a sample has one value
    only, the difference itself. p is twice the smaller one-sided p, at most 1, as
    `scipy.stats.permutation_test` counts. All ways to divide the values are gone through where
    they are no more than `n_permutations`; otherwise that many are drawn, and the division
    observed is counted among them, so that no p is 0.

    Parameters
    ----------
    samples
        Pairs of two samples, each with one value or more and free of NaN.
    rng
        Source of the shuffles.
    n_permutations
        Most shuffles of one sample.
    """
    check_permutations(n_permutations)
    values = [np.concatenate(pair) for pair in samples]
    centred = [pooled - pooled.mean() for pooled in values]
    out = np.full(len(samples), np.nan)
    sizes = [(len(first), len(second)) for first, second in samples]
    for n_first, n_second in sorted(set(sizes)):
        members = [k for k, size in enumerate(sizes) if size == (n_first, n_second)]
        table = np.stack([centred[k] for k in members], axis=1)  # (n_values, n_members)
        statistic = _Welch(table, n_first)
        n = n_first + n_second
        if comb(n, n_first) <= n_permutations:
            every = np.array(list(combinations(range(n), n_first)))
            out[members] = _p_values(statistic, np.arange(n) < n_first, [_ones(every, n)], 0)
        else:
            drawn = (
                _ones(rng.random((rows, n)).argpartition(n_first - 1, axis=1)[:, :n_first], n)
                for rows in _chunks(n_permutations, n)
            )
            out[members] = _p_values(statistic, np.arange(n) < n_first, drawn, 1)
    return out


def sign_flip_p(
    differences: Sequence[Float[np.ndarray, " _"]],
    *,
    rng: np.random.Generator,
    n_permutations: int,
) -> Float[np.ndarray, " n_samples"]:
    """Return two-sided p values of a mean of differences, their signs flipped.

    Exact over all 2^n flips where they are no more than `n_permutations`. With n differences no p
    is below 2 / 2^n.

    Parameters
    ----------
    differences
        Samples of one value or more, free of NaN.
    rng
        Source of the flips.
    n_permutations
        Most flips of one sample.
    """
    check_permutations(n_permutations)
    out = np.full(len(differences), np.nan)
    for n in sorted({len(sample) for sample in differences}):
        members = [k for k, sample in enumerate(differences) if len(sample) == n]
        table = np.stack([differences[k] for k in members], axis=1).astype(np.float64)
        scaled = table / np.maximum(np.abs(table).sum(axis=0), _TINY)
        if 2.0**n <= n_permutations:
            every = 1.0 - 2.0 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
            out[members] = _p_values(partial(_sums, scaled), np.ones(n), [every], 0)
        else:
            drawn = (
                rng.choice(np.array([-1.0, 1.0]), size=(rows, n))
                for rows in _chunks(n_permutations, n)
            )
            out[members] = _p_values(partial(_sums, scaled), np.ones(n), drawn, 1)
    return out


def check_permutations(n_permutations: int) -> None:
    """Raise InputError unless there are enough shuffles for a p value below 0.05."""
    if n_permutations < 100:
        raise InputError(
            f"n_permutations must be at least 100, got {n_permutations}; 10000 is usual"
        )


class _Welch:
    """Welch's t of many divisions of the same values, for many columns of values at once."""

    def __init__(self, table: Float[np.ndarray, "n_values n_members"], n_first: int) -> None:
        self.table, self.squares = table, table**2
        self.n_first, self.n_second = n_first, len(table) - n_first

    def __call__(self, chosen: _Weights) -> Float[np.ndarray, "n_shuffles n_members"]:
        """Return the statistic where each row of `chosen` has ones for the first sample."""
        first = chosen @ self.table
        second = self.table.sum(axis=0) - first
        difference = first / self.n_first - second / self.n_second
        if min(self.n_first, self.n_second) < 2:
            return np.asarray(difference / np.abs(self.table).max(axis=0).clip(_TINY))
        squares = chosen @ self.squares
        variance = _variance_of_mean(squares, first, self.n_first)
        variance += _variance_of_mean(self.squares.sum(axis=0) - squares, second, self.n_second)
        least = _ROUNDING * self.squares.sum(axis=0) + _TINY
        return np.asarray(difference / np.sqrt(np.maximum(variance, least)))


def _variance_of_mean(squares: np.ndarray, total: np.ndarray, n: int) -> np.ndarray:
    return np.asarray((squares - total**2 / n) / (n * (n - 1)))


def _sums(
    table: Float[np.ndarray, "n_values n_members"], flips: _Weights
) -> Float[np.ndarray, "n_shuffles n_members"]:
    return np.asarray(flips @ table)


def _p_values(
    statistic: Callable[[_Weights], Float[np.ndarray, "n_shuffles n_members"]],
    observed: Shaped[np.ndarray, " n_values"],
    shuffles: Iterable[_Weights],
    n_observed: int,
) -> Float[np.ndarray, " n_members"]:
    """Return twice the smaller share of shuffles at least as high, or as low, as what was observed.

    `n_observed` is 1 where what was observed is to be counted among the shuffles.
    """
    (truth,) = statistic(observed.astype(np.float64)[None])
    slack = _TIE * np.maximum(np.abs(truth), 1.0)  # ties come out unequal by rounding
    above, below, total = np.zeros(len(truth)), np.zeros(len(truth)), n_observed
    for some in shuffles:
        values = statistic(some)
        above += (values >= truth - slack).sum(axis=0)
        below += (values <= truth + slack).sum(axis=0)
        total += len(some)
    return np.minimum(1.0, 2 * (np.minimum(above, below) + n_observed) / total)


def _ones(positions: Int[np.ndarray, "n_shuffles n_chosen"], n: int) -> _Weights:
    """Return rows of zeros with ones at the positions."""
    rows = np.zeros((len(positions), n))
    np.put_along_axis(rows, positions, 1.0, axis=1)
    return rows


def _chunks(n_permutations: int, n: int) -> Iterator[int]:
    """Yield numbers of rows that add up to the permutations wanted."""
    step = max(1, _CHUNK // n)
    for start in range(0, n_permutations, step):
        yield min(step, n_permutations - start)
