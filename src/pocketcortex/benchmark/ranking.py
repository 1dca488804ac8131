"""Networks ranked by one score of one area, every two compared, from resamples they share."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64
from scipy.stats import norm

from pocketcortex.core import InputError

Correction = Literal["holm", "fdr", "none"]

LEADERBOARD_COLUMNS = (
    "rank", "model", "value", "ci_low", "ci_high", "rank_low", "rank_high", "as_good_as_best",
    "reason",
)  # fmt: skip
PAIR_COLUMNS = (
    "first", "second", "difference", "ci_low", "ci_high", "p", "p_corrected", "p_permutation",
    "p_permutation_corrected",
)  # fmt: skip


def rank_models(
    models: Sequence[str],
    values: Float64[np.ndarray, " n_models"],
    samples: Float64[np.ndarray, "n_resamples n_models"],
    *,
    rng: np.random.Generator,
    contributions: Float64[np.ndarray, "n_models n_stimuli"] | None = None,
    correction: Correction = "holm",
    level: float = 0.95,
    n_permutations: int = 10_000,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the leaderboard, best first, and the comparison of every two models.

    p is two-sided, of a normal deviate: the difference over its standard deviation in the resamples
    (no share of resamples could be small enough to survive a correction for many pairs). With
    `contributions` there is also a permutation test: which of two models made an image's
    predictions is exchanged at random, image by image.

    Parameters
    ----------
    models
        Names.
    values
        Scores; NaN come last, without a rank.
    samples
        Scores in resamples, the same resamples for all models. Without interval and pairs where
        one is NaN.
    rng
        Source of the exchanges.
    contributions
        What each image adds to a model's score; :attr:`PredictionBootstrap.contributions`.
    correction
        Of p for the number of pairs: ``"holm"`` (family-wise), ``"fdr"`` (Benjamini-Hochberg) or
        ``"none"``.
    level
        Coverage of intervals; as_good_as_best goes by a corrected p of 1 - level.
    n_permutations
        Random exchanges.

    Returns
    -------
    tuple[pd.DataFrame, pd.DataFrame]
        `LEADERBOARD_COLUMNS`, with the interval of the rank; and `PAIR_COLUMNS`, first minus
        second, the better one first.

    Raises
    ------
    InputError
        If there is no model, names are not unique, shapes disagree, or a setting is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> values = np.array([0.2, 0.6])
    >>> samples = values + 0.05 * rng.normal(size=(500, 2))
    >>> board, pairs = rank_models(["a", "b"], values, samples, rng=rng)
    >>> board["model"].tolist(), float(pairs["p"].iloc[0]) < 0.01
    (['b', 'a'], True)
    """
    _check(models, values, samples, contributions, level)
    order = np.argsort(-np.where(np.isfinite(values), values, -np.inf), kind="stable")
    known = [int(k) for k in order if np.isfinite(values[k])]
    sampled = [k for k in known if np.isfinite(samples[:, k]).all()]
    pairs = _pairs(models, values, samples, contributions, sampled, rng, level, n_permutations)
    for name in ("p", "p_permutation"):
        pairs[f"{name}_corrected"] = adjusted_p(pairs[name].to_numpy(np.float64), correction)
    pairs = pairs[list(PAIR_COLUMNS)]
    tails = [(1 - level) / 2, (1 + level) / 2]
    ranks = (-samples[:, sampled]).argsort(axis=1).argsort(axis=1) + 1
    best = models[sampled[0]] if sampled else None
    worse = set(pairs[(pairs["first"] == best) & (pairs["p_corrected"] <= 1 - level)]["second"])
    rows: list[dict[str, object]] = []
    for place, k in enumerate(map(int, order)):
        row: dict[str, object] = dict.fromkeys(LEADERBOARD_COLUMNS, None)
        row |= {"model": models[k], "value": values[k], "ci_low": np.nan, "ci_high": np.nan}
        row["as_good_as_best"] = k in sampled and models[k] not in worse
        row["reason"] = "" if k in sampled else "undefined in some resamples"
        if k in known:
            row["rank"] = place + 1
        else:
            row["reason"] = "no score"
        if k in sampled:
            of_rank = np.quantile(ranks[:, sampled.index(k)], tails, method="nearest")
            row["ci_low"], row["ci_high"] = np.quantile(samples[:, k], tails)
            row["rank_low"], row["rank_high"] = map(int, of_rank)
        rows.append(row)
    board = pd.DataFrame(rows, columns=list(LEADERBOARD_COLUMNS))
    for name in ("rank", "rank_low", "rank_high"):
        board[name] = board[name].astype("Int64")
    return board, pairs


def _pairs(
    models: Sequence[str],
    values: Float64[np.ndarray, " n_models"],
    samples: Float64[np.ndarray, "n_resamples n_models"],
    contributions: Float64[np.ndarray, "n_models n_stimuli"] | None,
    known: Sequence[int],
    rng: np.random.Generator,
    level: float,
    n_permutations: int,
) -> pd.DataFrame:
    flipped = None
    if contributions is not None:
        signs = rng.choice([-1.0, 1.0], size=(n_permutations, contributions.shape[1]))
        flipped = signs @ contributions.T  # (n_permutations, n_models)
    rows = []
    for place, a in enumerate(known):
        for b in known[place + 1 :]:
            gap = samples[:, a] - samples[:, b]
            low, high = np.quantile(gap, [(1 - level) / 2, (1 + level) / 2])
            exchanged = np.nan
            if flipped is not None and contributions is not None:
                gap_of_sums = abs(contributions[a].sum() - contributions[b].sum())
                extreme = np.abs(flipped[:, a] - flipped[:, b]) >= gap_of_sums - 1e-12
                exchanged = (extreme.sum() + 1) / (n_permutations + 1)
            rows.append(
                {
                    "first": models[a], "second": models[b], "difference": values[a] - values[b],
                    "ci_low": low, "ci_high": high, "p": bootstrap_p(values[a] - values[b], gap),
                    "p_permutation": exchanged,
                }
            )  # fmt: skip
    columns = [name for name in PAIR_COLUMNS if not name.endswith("corrected")]
    return pd.DataFrame(rows, columns=columns)


def bootstrap_p(difference: float, gaps: Float64[np.ndarray, " n_resamples"]) -> float:
    """Return the two-sided p of a difference, given what it is in resamples.

    That of a normal deviate: the difference over the standard deviation of the resampled ones.

    References
    ----------
    Schütt et al. (2023), Statistical inference on representational geometries, eLife 12: e82566
    (tests from the bootstrap's variance).
    """
    spread = float(np.std(gaps, ddof=1))
    if spread == 0:
        return 1.0 if difference == 0 else 0.0
    return float(2 * norm.sf(abs(difference) / spread))


def adjusted_p(
    p: Float[np.ndarray, " n_tests"], correction: Correction
) -> Float64[np.ndarray, " n_tests"]:
    """Return p-values corrected for their number; NaN stays NaN and does not count.

    Parameters
    ----------
    p
        From one family of tests.
    correction
        ``"holm"``, ``"fdr"`` or ``"none"``.

    Raises
    ------
    InputError
        If the correction is unknown.

    References
    ----------
    Holm (1979), Scandinavian Journal of Statistics 6: 65. Benjamini & Hochberg (1995), Journal of
    the Royal Statistical Society B 57: 289.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.array([0.01, 0.04, 0.03])
    >>> adjusted_p(p, "holm").round(3).tolist(), adjusted_p(p, "fdr").round(3).tolist()
    ([0.03, 0.06, 0.06], [0.03, 0.04, 0.04])
    """
    if correction not in get_args(Correction):
        raise InputError(
            f"correction must be one of {', '.join(get_args(Correction))}, got {correction!r}"
        )
    out = p.astype(np.float64)
    known = np.flatnonzero(np.isfinite(out))
    n = len(known)
    if correction == "none" or not n:
        return out
    order = known[np.argsort(out[known], kind="stable")]
    ranks = np.arange(1, n + 1)
    if correction == "holm":
        stepped = np.maximum.accumulate(out[order] * (n - ranks + 1))
    else:
        stepped = np.minimum.accumulate((out[order] * n / ranks)[::-1])[::-1]
    out[order] = np.minimum(stepped, 1.0)
    return out


def _check(
    models: Sequence[str],
    values: Float64[np.ndarray, "..."],
    samples: Float64[np.ndarray, "..."],
    contributions: Float64[np.ndarray, "..."] | None,
    level: float,
) -> None:
    n = len(models)
    if not n or len(set(models)) < n:
        raise InputError(f"models need names of their own, one or more; got {list(models)}")
    if values.shape != (n,) or samples.ndim != 2 or samples.shape[1] != n or len(samples) < 2:
        raise InputError(
            f"values must be ({n},) and samples (n_resamples, {n}), got {values.shape} and "
            f"{samples.shape}"
        )
    if contributions is not None and (contributions.ndim != 2 or len(contributions) != n):
        raise InputError(f"contributions must be ({n}, n_stimuli), got {contributions.shape}")
    if not 0 < level < 1:
        raise InputError(f"level must be within 0..1, both excluded, got {level}; 0.95 is usual")
