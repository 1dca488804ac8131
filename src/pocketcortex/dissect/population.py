"""Are early layers more alike between models than late ones? Tables over a population."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64, Int

from pocketcortex.core import InputError
from pocketcortex.dissect.alignment import Alignment
from pocketcortex.dissect.kernels import KernelSimilarity
from pocketcortex.metrics.pairs import (
    bootstrap_pair_mean_ci,
    matched_pairs_p,
    pair_mean,
    random_matchings,
)


def alignment_table(
    alignment: Alignment,
    *,
    rng: np.random.Generator,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return CKA of each layer over all pairs of models, one row a layer.

    Parameters
    ----------
    alignment
        As `model_alignment` returns it.
    rng
        Source of the resamples.
    n_resamples, level
        Of the bootstrap over models.

    Returns
    -------
    pd.DataFrame
        ``layer`` (0 to 4; the paper counts 1 to 5), ``n_models``, ``n_pairs`` (with a CKA),
        ``mean``, ``ci_low``, ``ci_high``, ``sd`` (over pairs), ``dimensionality`` (median over
        models); with permutations also ``null_mean`` and ``p``, of the mean over pairs.

    Raises
    ------
    InputError
        As `metrics.bootstrap_pair_mean_ci` does.
    """
    values = alignment.cka
    low, high = bootstrap_pair_mean_ci(values, rng=rng, n_resamples=n_resamples, level=level)
    rows, columns = np.triu_indices(values.shape[1], 1)
    pairs = values[:, rows, columns]
    known = [layer[~np.isnan(layer)] for layer in pairs]
    table = pd.DataFrame(
        {
            "layer": np.arange(len(values)),
            "n_models": values.shape[1],
            "n_pairs": [len(layer) for layer in known],
            "mean": pair_mean(values),
            "ci_low": low,
            "ci_high": high,
            "sd": [layer.std(ddof=1) if len(layer) > 1 else np.nan for layer in known],
            "dimensionality": [
                np.median(layer[~np.isnan(layer)]) if (~np.isnan(layer)).any() else np.nan
                for layer in alignment.channels.dimensionality
            ],
        }
    )
    if alignment.null is not None:
        table["null_mean"] = alignment.null.pair_mean.mean(axis=0)
        table["p"] = alignment.null.pair_mean_p
    return table


def kernel_table(
    similarity: KernelSimilarity,
    *,
    rng: np.random.Generator,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return the similarity of kernels of each layer, one row a layer.

    Parameters
    ----------
    similarity
        As `kernel_similarity` or `readout_similarity` returns it.
    rng
        Source of the resamples.
    n_resamples, level
        Of the bootstrap over models.

    Returns
    -------
    pd.DataFrame
        ``layer``, ``n_models``, ``n_kernels``, ``n_runs``; ``mean`` of the runs with ``ci_low`` and
        ``ci_high``; ``reference``, of normal kernels; ``excess`` with ``excess_ci_low`` and
        ``excess_ci_high``; ``best_match`` and ``best_match_reference``, means over all pairs.

    Raises
    ------
    InputError
        As `metrics.bootstrap_pair_mean_ci` does.
    """
    low, high = similarity.mean_ci(rng=rng, n_resamples=n_resamples, level=level)
    reference = similarity.reference_mean
    return pd.DataFrame(
        {
            "layer": similarity.layers,
            "n_models": similarity.best_match.shape[1],
            "n_kernels": similarity.n_kernels,
            "n_runs": similarity.pairs.shape[0],
            "mean": similarity.mean,
            "ci_low": low,
            "ci_high": high,
            "reference": reference,
            "excess": similarity.excess,
            "excess_ci_low": low - reference,
            "excess_ci_high": high - reference,
            "best_match": pair_mean(similarity.best_match),
            "best_match_reference": pair_mean(similarity.best_match_reference),
        }
    )


def alignment_test(
    alignment: Alignment,
    *,
    rng: np.random.Generator,
    early: Sequence[int] = (0, 1),
    late: Sequence[int] = (2, 3),
    n_draws: int = 500,
    n_permutations: int = 10_000,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> pd.DataFrame:
    """Test whether early layers have a higher CKA between models than late ones.

    Parameters
    ----------
    alignment
        As `model_alignment` returns it.
    rng
        Source of draws, flips and resamples.
    early, late
        Layers whose mean is compared; the paper's 1-2 against 3-4 by default.
    n_draws
        How often the models are put into pairs that share none.
    n_permutations
        Most flips of the signs of one draw's pairs.
    n_resamples, level
        Of the bootstrap over models.

    Returns
    -------
    pd.DataFrame
        One row: ``early``, ``late`` (their names), ``n_models``, ``n_pairs`` (of a draw),
        ``n_draws``; ``early_mean``, ``late_mean``, ``difference`` over all pairs of models and its
        ``ci_low`` and ``ci_high`` when models are resampled; and two p values.

        ``p_valid``, two-sided: signs of the differences of pairs that share no model are flipped,
        and the draws combined (`metrics.matched_pairs_p`).

        ``p_draws``, one-sided, as far as we can tell the published kind of figure: one more than
        the draws whose mean over pairs is not higher early than late, over n_draws + 1 (so never
        below 1 / 501 < 0.002 for 500). Draws use the same models over and over, so it does not
        tell what other models would show: with more pairs a draw it goes to its least value for
        whatever difference these models happen to have.

    Raises
    ------
    InputError
        If `early` or `late` is empty, names a layer that there is not, or shares one with the
        other; or as `metrics` does for the numbers of draws, flips and resamples.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Fig. 3c: higher in layers 1-2 than 3-4, p < 0.002.
    """
    names = [f"layer {k}" for k in range(len(alignment.cka))]
    groups = _groups(names, [f"layer {k}" for k in early], [f"layer {k}" for k in late])
    sides = [alignment.cka[group].mean(axis=0) for group in groups]
    pairs = random_matchings(alignment.cka.shape[1], n_draws, rng=rng)
    drawn = (sides[0] - sides[1])[pairs[..., 0], pairs[..., 1]]
    return _row(names, groups, sides, None, pairs, drawn, rng, n_permutations, n_resamples, level)


def kernel_test(
    similarity: KernelSimilarity,
    *,
    rng: np.random.Generator,
    early: Sequence[str] = ("layer 1", "layer 2"),
    late: Sequence[str] = ("layer 3", "layer 4"),
    n_permutations: int = 10_000,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> pd.DataFrame:
    """Test whether early layers' kernels are more alike between models than those of late layers.

    Draws are the runs of `similarity`. Parameters and the row returned are otherwise as in
    `alignment_test`; means and interval weigh a pair by how often it was drawn.

    Parameters
    ----------
    similarity
        As `kernel_similarity` returns it.
    rng
        Source of flips and resamples.
    early, late
        Layers whose mean is compared; the paper's 2-3 against 4-5 by default.
    n_permutations, n_resamples, level
        As in `alignment_test`.

    Raises
    ------
    InputError
        As `alignment_test`.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Fig. 3b: higher in layers 2-3 than 4-5, p < 0.002.
    """
    names = list(similarity.layers)
    groups = _groups(names, early, late)
    values, counts = similarity.pair_sums()
    sides = [values[group].mean(axis=0) for group in groups]
    drawn = np.subtract(*(similarity.values[group].mean(axis=0) for group in groups))
    return _row(
        names, groups, sides, counts, similarity.pairs, drawn, rng, n_permutations, n_resamples,
        level,
    )  # fmt: skip


def _groups(names: list[str], early: Sequence[str], late: Sequence[str]) -> list[list[int]]:
    for side in (early, late):
        if not side or not set(side) <= set(names) or set(early) & set(late):
            raise InputError(
                f"early and late must name different ones of {names}; got {list(early)} and "
                f"{list(late)}"
            )
    return [[names.index(name) for name in side] for side in (early, late)]


def _row(
    names: list[str],
    groups: list[list[int]],
    sides: list[Float64[np.ndarray, "n_models n_models"]],
    counts: Float64[np.ndarray, "n_models n_models"] | None,
    pairs: Int[np.ndarray, "n_draws n_pairs 2"],
    drawn: Float[np.ndarray, "n_draws n_pairs"],
    rng: np.random.Generator,
    n_permutations: int,
    n_resamples: int,
    level: float,
) -> pd.DataFrame:
    difference = sides[0] - sides[1]
    known = np.where(np.isnan(difference), np.nan, 1.0)  # both sides of the same pairs
    low, high = bootstrap_pair_mean_ci(
        difference, counts, rng=rng, n_resamples=n_resamples, level=level
    )
    n_known = (~np.isnan(drawn)).sum(axis=1)
    means = np.nansum(drawn, axis=1) / np.maximum(n_known, 1)
    p = matched_pairs_p(drawn, rng=rng, n_permutations=n_permutations)
    row = {
        "early": ", ".join(names[k] for k in groups[0]),
        "late": ", ".join(names[k] for k in groups[1]),
        "n_models": len(difference),
        "n_pairs": pairs.shape[1],
        "n_draws": len(pairs),
        "early_mean": float(pair_mean(sides[0] * known, counts)),
        "late_mean": float(pair_mean(sides[1] * known, counts)),
        "difference": float(pair_mean(difference, counts)),
        "ci_low": float(low),
        "ci_high": float(high),
        "p_valid": p,
        "p_draws": (1 + int((means <= 0).sum())) / (1 + len(pairs)),
    }
    return pd.DataFrame([row])
