"""What scores of many networks go with: training, family, task, size, depth, dimensionality."""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
from jaxtyping import Float64
from scipy.stats import rankdata

from pocketcortex.benchmark.ranking import bootstrap_p
from pocketcortex.core import InputError

LEAST_NETWORKS = 5
"""Fewest networks of which a correlation over networks is told."""
_MANY = 12  # networks up to which all exchanges of signs are tried

ALL = "(all)"


def trained_minus_random(
    values: Mapping[str, float],
    samples: Mapping[str, Float64[np.ndarray, " n_resamples"]],
    twins: Mapping[str, Sequence[str]],
    *,
    rng: np.random.Generator,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return how much higher each trained network scores than its random twins' mean.

    Parameters
    ----------
    values, samples
        Score of each network, and in resamples that all share.
    twins
        Names of each trained network's random twins, one or more.
    rng
        Source of the draws of networks, and of exchanges of signs.
    level
        Coverage of intervals.

    Returns
    -------
    pd.DataFrame
        Columns model, trained, random (mean over seeds), random_low, random_high (of seeds),
        n_seeds, difference, ci_low, ci_high (over what samples resample), p (the same). The row
        ``"(all)"``: means over networks; ci as above, for these networks; networks_low,
        networks_high and p_networks for networks like these (networks drawn too; p by exchanging
        trained and random in each network, at least 2 / 2^n_networks).

    Raises
    ------
    InputError
        If a trained network has no twin.
    """
    if not twins or not all(twins.values()):
        raise InputError("give each trained network one random twin or more")
    rows, gaps, drawn = [], [], []
    tails = [(1 - level) / 2, (1 + level) / 2]
    for name, seeds in twins.items():
        random = np.array([values[seed] for seed in seeds])
        gap = samples[name] - np.mean([samples[seed] for seed in seeds], axis=0)
        low, high = np.quantile(gap, tails)
        rows.append(
            {
                "model": name, "trained": values[name], "random": random.mean(),
                "random_low": random.min(), "random_high": random.max(), "n_seeds": len(seeds),
                "difference": values[name] - random.mean(), "ci_low": low, "ci_high": high,
                "p": bootstrap_p(values[name] - float(random.mean()), gap), "n_networks": 1,
            }
        )  # fmt: skip
        gaps.append(values[name] - random.mean())
        drawn.append(gap)
    each = np.stack(drawn)  # (n_networks, n_resamples)
    mean, low_high = each.mean(axis=0), np.quantile(each.mean(axis=0), tails)
    n = len(gaps)
    chosen = rng.integers(n, size=(each.shape[1], n))
    over = np.quantile(each[chosen, np.arange(each.shape[1])[:, None]].mean(axis=1), tails)
    table = pd.DataFrame(rows)
    rows.append(
        {
            "model": ALL, "trained": table["trained"].mean(), "random": table["random"].mean(),
            "random_low": np.nan, "random_high": np.nan, "n_seeds": int(table["n_seeds"].sum()),
            "difference": float(np.mean(gaps)), "ci_low": low_high[0], "ci_high": low_high[1],
            "p": bootstrap_p(float(np.mean(gaps)), mean), "n_networks": n,
            "networks_low": over[0] if n > 1 else np.nan,
            "networks_high": over[1] if n > 1 else np.nan,
            "p_networks": _sign_flip_p(np.array(gaps), rng) if n > 1 else np.nan,
        }
    )  # fmt: skip
    return pd.DataFrame(rows)


def property_effect(
    x: Float64[np.ndarray, " n_networks"],
    y: Float64[np.ndarray, " n_networks"],
    *,
    rng: np.random.Generator,
    n_resamples: int = 2000,
    level: float = 0.95,
) -> dict[str, float | int | str]:
    """Return how scores go with a property of networks: rank correlation and slope.

    Parameters
    ----------
    x
        The property; networks with NaN are left out.
    y
        Their scores; likewise.
    rng
        Source of draws of networks and of permutations.
    n_resamples
        Of networks for the intervals, and permutations for p.
    level
        Coverage of intervals.

    Returns
    -------
    dict[str, float | int | str]
        n_networks, spearman with ci_low, ci_high (percentiles over networks; resamples without
        variation are left out) and p (permutations); slope of least squares with its interval;
        reason. NaN with a reason below 5 networks, or where either does not vary.

    Notes
    -----
    Networks of a zoo are no independent sample of anything: relatives share architectures.
    """
    if x.shape != y.shape or x.ndim != 1:
        raise InputError(f"x and y must be (n_networks,), got {x.shape} and {y.shape}")
    kept = np.isfinite(x) & np.isfinite(y)
    x, y = x[kept], y[kept]
    names = ("spearman", "ci_low", "ci_high", "p", "slope", "slope_low", "slope_high")
    empty = dict.fromkeys(names, float("nan"))
    if len(x) < LEAST_NETWORKS:
        return {"n_networks": len(x), **empty, "reason": f"fewer than {LEAST_NETWORKS} networks"}
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return {"n_networks": len(x), **empty, "reason": "no variation over networks"}
    tails = [(1 - level) / 2, (1 + level) / 2]
    rho, slope = (float(part[0]) for part in _both(x[None], y[None]))
    drawn = rng.integers(len(x), size=(n_resamples, len(x)))
    varied = (np.ptp(x[drawn], axis=1) > 0) & (np.ptp(y[drawn], axis=1) > 0)
    ends = np.quantile(np.stack(_both(x[drawn[varied]], y[drawn[varied]]), axis=1), tails, axis=0)
    orders = rng.permuted(np.tile(np.arange(len(y)), (n_resamples, 1)), axis=1)
    null = _both(np.tile(x, (n_resamples, 1)), y[orders])[0]
    extreme = (np.abs(null) >= abs(rho) - 1e-12).sum()
    return {
        "n_networks": len(x), "spearman": rho, "ci_low": float(ends[0, 0]),
        "ci_high": float(ends[1, 0]), "p": float((extreme + 1) / (n_resamples + 1)),
        "slope": slope, "slope_low": float(ends[0, 1]), "slope_high": float(ends[1, 1]),
        "reason": "",
    }  # fmt: skip


def group_means(
    groups: Sequence[str],
    values: Float64[np.ndarray, " n_networks"],
    *,
    rng: np.random.Generator,
    n_resamples: int = 2000,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return the mean score of each group of networks, with intervals over its networks.

    Parameters
    ----------
    groups
        Group of each network; "" for not known, which is left out.
    values
        Scores; NaN are left out.
    rng
        Source of draws of networks.
    n_resamples, level
        Of the intervals.

    Returns
    -------
    pd.DataFrame
        Columns group, n_networks, mean, ci_low, ci_high, reason; best first. No interval below 3
        networks.
    """
    rows = []
    labels = np.array(groups, dtype=object)
    for name in sorted(set(groups) - {""}):
        own = values[(labels == name) & np.isfinite(values)]
        if not len(own):
            continue
        low = high = float("nan")
        if len(own) >= 3:
            means = own[rng.integers(len(own), size=(n_resamples, len(own)))].mean(axis=1)
            low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
        reason = "" if len(own) >= 3 else "no interval: fewer than 3 networks"
        rows.append((name, len(own), float(own.mean()), float(low), float(high), reason))
    columns = ["group", "n_networks", "mean", "ci_low", "ci_high", "reason"]
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values("mean", ascending=False, kind="stable", ignore_index=True)


def _both(
    x: Float64[np.ndarray, "n_samples n"], y: Float64[np.ndarray, "n_samples n"]
) -> tuple[Float64[np.ndarray, " n_samples"], Float64[np.ndarray, " n_samples"]]:
    """Return Spearman's correlation and the slope of each row."""
    ranks = [np.asarray(rankdata(side, axis=1), dtype=np.float64) for side in (x, y)]
    xy, xx, yy = _products(*ranks)
    rho = xy / np.sqrt(xx * yy)
    xy, xx, _ = _products(x, y)
    return rho, xy / xx


def _products(
    x: Float64[np.ndarray, "n_samples n"], y: Float64[np.ndarray, "n_samples n"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    a, b = (side - side.mean(axis=1, keepdims=True) for side in (x, y))
    return (a * b).sum(axis=1), (a * a).sum(axis=1), (b * b).sum(axis=1)


def _sign_flip_p(gaps: Float64[np.ndarray, " n"], rng: np.random.Generator) -> float:
    """Return the two-sided p of a mean of 0 if signs are as likely either way."""
    if len(gaps) <= _MANY:
        signs = np.array(list(product((-1.0, 1.0), repeat=len(gaps))))
        return float((np.abs(signs @ gaps) >= abs(gaps.sum()) * (1 - 1e-12)).mean())
    signs = rng.choice([-1.0, 1.0], size=(9999, len(gaps)))
    extreme = (np.abs(signs @ gaps) >= abs(gaps.sum()) * (1 - 1e-12)).sum()
    return float((extreme + 1) / (len(signs) + 1))
