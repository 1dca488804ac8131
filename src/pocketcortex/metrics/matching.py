"""Which model each recorded neuron stands for: matched by images that test nothing else."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment

from pocketcortex.core.errors import InputError, MissingRepeatsError
from pocketcortex.metrics._averages import averages
from pocketcortex.metrics._permutation import check_permutations
from pocketcortex.metrics._repeats import (
    MIN_STIMULI,
    centred,
    check_enough_stimuli,
    varies,
)
from pocketcortex.metrics.r2 import noise_corrected_r2, pearson_r2

_UNSCORED = "constant responses or predictions, or fewer than three images shown to the neuron"
_CHANCE = "no model correlates better than the best of as many unrelated models by chance"
_TAKEN = "every model that correlates better than by chance stands for another neuron"


def match_neurons(
    responses: Float[np.ndarray, "..."],
    predictions: Float[np.ndarray, "n_stimuli n_models"],
    *,
    rng: np.random.Generator,
    n_permutations: int = 1000,
    level: float = 0.05,
    one_to_one: bool = False,
    stimuli: Sequence[Hashable] | None = None,
    test_stimuli: Sequence[Hashable] | None = None,
) -> pd.DataFrame:
    """Return for every recorded neuron the model that predicts it best, and whether by chance.

    The best model has the highest correlation with the neuron's mean responses; a negative
    correlation is no match, however strong. Noise correction would divide all models of a neuron
    by the same number, so it does not choose; it is applied to the score reported. The neuron is
    matched if the correlation is above what the best of all models reaches, in all but a fraction
    `level` of cases, when the neuron's responses are dealt out to the images anew: a maximum over
    models, so that choosing the best of many is paid for. Over many neurons expect a fraction
    `level` of those that no model describes to be matched all the same.

    By default several neurons may stand for one model: what is asked is which stimuli, made for a
    model, test this neuron, and two electrodes can pick up the same cell or like cells. Such
    neurons share stimuli, and their effects are not independent. `one_to_one` gives each model to
    one neuron at most, so that the sum of correlations over matched neurons is greatest: for
    models that each stand for one known neuron, recorded again by the same electrodes.

    The images must not be those on which effects are tested, nor those to which the models were
    fitted; the scores are those of a best of many, so a little too high themselves.

    Parameters
    ----------
    responses
        To the images used for matching: (n_stimuli, n_repeats, n_neurons), NaN where a repeat was
        not shown, or averages over repeats (n_stimuli, n_neurons). Any unit.
    predictions
        Each model's response to the same images, up to any increasing affine map. A model whose
        predictions do not vary is never the best.
    rng
        Source of the permutations.
    n_permutations
        Number of permutations, 100 or more.
    level
        Chance of a neuron without any model to be matched, between 0 and 1.
    one_to_one
        Give each model to one neuron at most.
    stimuli, test_stimuli
        Names (or digests, or numbers) of the images used for matching, and of the stimuli that
        effects will be tested on; given both, they are checked to have none in common.

    Returns
    -------
    pd.DataFrame
        One row for each neuron:

        ``neuron``, ``model``
            `model` is -1 for a neuron not matched: the `targets` of :func:`causal_effects`.
        ``correlation``, ``r2``, ``metric``
            Of the model given to the neuron, or of the best one if none was; `metric` says
            whether `r2` is "noise-corrected r2" or "r2".
        ``best_model``, ``runner_up``, ``runner_up_correlation``
            The two best models, whoever has them now; -1 and NaN if there is no second.
        ``threshold``, ``p``
            The correlation that chance reaches in a fraction `level` of cases, and the p of the
            row's own, both for a best of all models.
        ``reason``
            Why the neuron is not matched, else empty.

    Raises
    ------
    InputError
        If shapes disagree, values are infinite or predictions missing, there are fewer than three
        images or no model, `level` or `n_permutations` is out of range, or images for matching
        are among the test stimuli.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, tested models' preferred images in fresh sessions.
    The rule of matching here is our own; the threshold is the maximum-statistic permutation test
    of Westfall & Young (1993), Resampling-Based Multiple Testing.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> models = rng.gamma(2.0, size=(100, 5))
    >>> counts = rng.poisson(models[:, None, [3, 1]], size=(100, 4, 2)).astype(float)
    >>> match_neurons(counts, models, rng=rng)["model"].tolist()
    [3, 1]
    """
    check_permutations(n_permutations)
    if not 0 < level < 1:
        raise InputError(
            f"level must be between 0 and 1, both excluded, got {level}; 0.05 is usual"
        )
    means = _checked_means(responses, predictions)
    _check_disjoint(stimuli, test_stimuli, len(means))
    shown = ~np.isnan(means)
    n_neurons = means.shape[1]
    correlations = np.full((n_neurons, predictions.shape[1]), -np.inf)
    chance = np.full((n_neurons, n_permutations), np.nan)
    scored = (shown.sum(axis=0) >= MIN_STIMULI) & varies(means, shown)
    patterns, which = np.unique(shown.T, axis=0, return_inverse=True)
    for k, pattern in enumerate(patterns):  # neurons shown the same images: usually all of them
        own = np.flatnonzero((which.ravel() == k) & scored)
        if len(own):
            y, x = _unit(means[pattern][:, own]), _unit(predictions[pattern].astype(np.float64))
            usable = np.abs(x).max(axis=0) > 0
            correlations[np.ix_(own, usable)] = (y.T @ x)[:, usable]
            chance[own] = _chance(y, x[:, usable], rng, n_permutations)
    thresholds = np.quantile(chance, 1 - level, axis=1, method="higher")
    order = np.argsort(-correlations, axis=1, kind="stable")
    best = order[:, 0]
    allowed = correlations > np.maximum(thresholds, 0)[:, None]
    given = _assigned(correlations, allowed) if one_to_one else np.where(
        allowed[np.arange(n_neurons), best], best, -1
    )  # fmt: skip
    told = np.where(given >= 0, given, best)
    r2, metric = _scores(responses, means, predictions[:, told])
    rows = []
    for k in range(n_neurons):
        first, second = _two_best(correlations[k], order[k])
        row: dict[str, Any] = {"neuron": k, "model": int(given[k])}
        row |= {"correlation": np.nan, "r2": np.nan, "metric": metric, "p": np.nan}
        if first >= 0:
            correlation = float(correlations[k, told[k]])
            n_above = int((chance[k] >= correlation - 1e-12).sum())
            row |= {"correlation": correlation, "r2": float(r2[k])}
            row |= {"p": (1 + n_above) / (1 + n_permutations)}
        row |= {"threshold": float(thresholds[k]), "best_model": first, "runner_up": second}
        row |= {"runner_up_correlation": correlations[k, second] if second >= 0 else np.nan}
        row |= {"reason": "" if given[k] >= 0 else _reason(first >= 0, bool(allowed[k].any()))}
        rows.append(row)
    return pd.DataFrame(rows)


def _chance(
    y: Float[np.ndarray, "n_shown n_neurons"],
    x: Float[np.ndarray, "n_shown n_models"],
    rng: np.random.Generator,
    n_permutations: int,
) -> Float[np.ndarray, "n_neurons n_permutations"]:
    """Return the highest correlation over models with the images' order shuffled, many times."""
    if not x.shape[1]:
        return np.full((y.shape[1], n_permutations), np.nan)
    out = np.empty((y.shape[1], n_permutations))
    for k in range(n_permutations):
        out[:, k] = (y[rng.permutation(len(y))].T @ x).max(axis=1)
    return out


def _assigned(
    correlations: Float[np.ndarray, "n_neurons n_models"],
    allowed: Bool[np.ndarray, "n_neurons n_models"],
) -> Int[np.ndarray, " n_neurons"]:
    """Return one model for each neuron, none twice, with the greatest sum over allowed pairs."""
    gain = np.where(allowed, correlations, 0.0)
    neurons, models = linear_sum_assignment(gain, maximize=True)
    given = np.full(len(gain), -1)
    given[neurons] = np.where(allowed[neurons, models], models, -1)
    return given


def _scores(
    responses: Float[np.ndarray, "..."],
    means: Float[np.ndarray, "n_stimuli n_neurons"],
    predictions: Float[np.ndarray, "n_stimuli n_neurons"],
) -> tuple[Float[np.ndarray, " n_neurons"], str]:
    """Return r² of each neuron with its model, noise-corrected if there are repeats."""
    if responses.ndim == 3:
        try:
            return noise_corrected_r2(responses, predictions), "noise-corrected r2"
        except MissingRepeatsError:
            pass
    return pearson_r2(means, predictions), "r2"


def _two_best(
    correlations: Float[np.ndarray, " n_models"], order: Int[np.ndarray, " n_models"]
) -> tuple[int, int]:
    """Return the two best models that have a correlation, -1 where there is none."""
    known = [int(model) for model in order[:2] if np.isfinite(correlations[model])]
    first, second = [*known, -1, -1][:2]
    return first, second


def _reason(scored: bool, any_allowed: bool) -> str:
    if not scored:
        return _UNSCORED
    return _TAKEN if any_allowed else _CHANCE


def _unit(values: Float[np.ndarray, "n_shown n_columns"]) -> Float[np.ndarray, "n_shown n_columns"]:
    """Return columns centred and scaled to length 1; zeros where they do not vary."""
    kept = np.ones(values.shape, dtype=bool)
    usable = varies(values, kept)
    deviations = centred(values, kept & usable)
    length = np.sqrt((deviations**2).sum(axis=0))
    return np.asarray(deviations / np.where(usable, length, 1.0))


def _checked_means(
    responses: Float[np.ndarray, "..."], predictions: Float[np.ndarray, "n_stimuli n_models"]
) -> Float[np.ndarray, "n_stimuli n_neurons"]:
    """Return each neuron's mean response to every image, NaN where it was not shown."""
    if len(predictions) != len(responses) or not predictions.shape[1]:
        raise InputError(
            f"predictions must be ({len(responses)}, n_models) with one model or more, one row for "
            f"each image of the responses, got shape {predictions.shape}"
        )
    check_enough_stimuli(len(responses))
    if not np.isfinite(predictions).all():
        raise InputError("predictions must be finite: a model answers every image")
    return averages(responses, len(responses))[0]


def _check_disjoint(
    stimuli: Sequence[Hashable] | None, test_stimuli: Sequence[Hashable] | None, n: int
) -> None:
    if stimuli is not None and len(stimuli) != n:
        raise InputError(f"`stimuli` must name the {n} images of the responses, got {len(stimuli)}")
    if test_stimuli is not None and stimuli is None:
        raise InputError("`test_stimuli` can be checked only if `stimuli` names the images, too")
    common = set(stimuli or ()) & set(test_stimuli or ())
    if common:
        raise InputError(
            f"{len(common)} images used for matching are among the test stimuli, such as "
            f"{min(common, key=str)!r}; a neuron chosen by its responses to an image cannot be "
            "tested with it"
        )
