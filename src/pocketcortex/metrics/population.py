"""Causal effects over a population of neurons: one row for each role of stimuli."""

from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
from jaxtyping import Float

from pocketcortex.core.errors import InputError
from pocketcortex.metrics._permutation import check_permutations, sign_flip_p


def population_effects(
    effects: pd.DataFrame,
    *,
    rng: np.random.Generator,
    n_permutations: int = 10_000,
    level: float = 0.05,
) -> pd.DataFrame:
    """Return the mean effect of each role over neurons, its error and its p, one row a role.

    Standard errors are over neurons, as if drawn independently; neurons of one session, and more
    so neurons that stand for one model and share its stimuli, are not quite. p is that of flipping
    the signs of the neurons' effects, two-sided: exact while 2^n flips are no more than
    `n_permutations` (13 neurons by default), and never below 2 / 2^n. It takes effects to be
    symmetric about 0 if there is none; percent changes, which end at -100 but have no upper end,
    are so only when small.

    Parameters
    ----------
    effects
        As :func:`causal_effects` returns them; those of several sessions may be put together.
    rng
        Source of the flips.
    n_permutations
        Most flips.
    level
        False discovery rate at which neurons count as significant, between 0 and 1.

    Returns
    -------
    pd.DataFrame
        One row for each role, in order of appearance:

        ``role``, ``reference``
            As in `effects`.
        ``n_neurons``, ``n_undefined``
            Neurons with a percent change, and neurons without.
        ``percent_mean``, ``percent_se``, ``percent_median``, ``percent_p``
            Over neurons with a percent change; NaN where too few (the error needs two).
        ``d_prime_n``, ``d_prime_mean``, ``d_prime_se``, ``d_prime_median``, ``d_prime_p``
            The same of d', which exists in any unit.
        ``n_tested``, ``n_increased``, ``n_decreased``
            Neurons with a p, and how many of them changed significantly upwards and downwards
            after Benjamini and Hochberg's correction over the neurons of the role.

    Raises
    ------
    InputError
        If columns are missing, there is no row, or `level` or `n_permutations` is out of range.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Fig. 2 (mean over neurons and its standard error).
    Benjamini & Hochberg (1995), Controlling the false discovery rate, JRSS B 57: 289-300. The
    permutation test and the correction are our own choices.

    Examples
    --------
    >>> import numpy as np
    >>> effects = pd.DataFrame({"role": ["natural_max"] * 3, "reference": ["random"] * 3,
    ...     "percent": [100.0, 140.0, np.nan], "d_prime": [1.0, 2.0, 0.0],
    ...     "difference": [2.0, 3.0, 0.0], "p": [0.01, 0.2, 1.0]})
    >>> table = population_effects(effects, rng=np.random.default_rng(0))
    >>> table[["percent_mean", "percent_se", "n_neurons", "n_increased"]].values.tolist()
    [[120.0, 20.0, 2.0, 1.0]]
    """
    check_permutations(n_permutations)
    if not 0 < level < 1:
        raise InputError(
            f"level must be between 0 and 1, both excluded, got {level}; 0.05 is usual"
        )
    needed = ("role", "reference", "percent", "d_prime", "difference", "p")
    if missing := [column for column in needed if column not in effects]:
        raise InputError(f"the table of effects lacks {', '.join(missing)}; see causal_effects")
    if effects.empty:
        raise InputError("the table of effects has no row; see causal_effects")
    rows = []
    for role, group in effects.groupby("role", sort=False):
        percent = _summary(group["percent"].to_numpy(np.float64), rng, n_permutations)
        d_prime = _summary(group["d_prime"].to_numpy(np.float64), rng, n_permutations)
        n = percent.pop("n")
        rows.append(
            {"role": role, "reference": group["reference"].iloc[0], "n_neurons": n}
            | {"n_undefined": len(group) - n}
            | {f"percent_{name}": value for name, value in percent.items()}
            | {f"d_prime_{name}": value for name, value in d_prime.items()}
            | _significant(group, level)
        )
    return pd.DataFrame(rows)


def _summary(
    values: Float[np.ndarray, " n_neurons"], rng: np.random.Generator, n_permutations: int
) -> dict[str, Any]:
    known = values[~np.isnan(values)]
    n = len(known)
    found: dict[str, Any] = {"n": n} | dict.fromkeys(("mean", "se", "median", "p"), np.nan)
    if n:
        found |= {"mean": float(known.mean()), "median": float(np.median(known))}
        (found["p"],) = sign_flip_p([known], rng=rng, n_permutations=n_permutations)
    if n > 1:
        found["se"] = float(known.std(ddof=1) / np.sqrt(n))
    return found


def _significant(group: pd.DataFrame, level: float) -> dict[str, int]:
    tested = group[group["p"].notna()]
    adjusted = scipy.stats.false_discovery_control(tested["p"].to_numpy(np.float64))
    change = tested["difference"].to_numpy(np.float64)[adjusted <= level]
    return {
        "n_tested": len(tested),
        "n_increased": int((change > 0).sum()),
        "n_decreased": int((change < 0).sum()),
    }
