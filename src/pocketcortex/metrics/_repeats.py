"""What every estimator needs from single repeats: means, counts and noise variances."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Int

from pocketcortex.core.errors import InputError, MissingRepeatsError

Repeats = Literal["per-stimulus", "median"]
"""How the noise of a mean response is found: from its own repeats, or from the median count."""

MIN_STIMULI = 3


@dataclass(frozen=True)
class RepeatMoments:
    """Mean, count and variance over the repeats of each stimulus, for each neuron.

    Attributes
    ----------
    mean
        Mean over repeats, (n_stimuli, n_neurons); NaN where no repeat was recorded.
    count
        Repeats recorded, (n_stimuli, n_neurons).
    variance
        Variance over repeats (ddof 1), (n_stimuli, n_neurons); NaN below two repeats.
    pooled_variance
        Mean of `variance` over the stimuli that have one, (n_neurons,); NaN if none has.
    """

    mean: Float[np.ndarray, "n_stimuli n_neurons"]
    count: Int[np.ndarray, "n_stimuli n_neurons"]
    variance: Float[np.ndarray, "n_stimuli n_neurons"]
    pooled_variance: Float[np.ndarray, " n_neurons"]

    @property
    def shown(self) -> Bool[np.ndarray, "n_stimuli n_neurons"]:
        """Where a neuron has at least one repeat."""
        return self.count > 0


def divide(
    numerator: Float[np.ndarray, "*shape"],
    denominator: Float[np.ndarray, "*shape"],
    where: Bool[np.ndarray, "*shape"],
) -> Float[np.ndarray, "*shape"]:
    """Return the ratio where allowed and NaN elsewhere, without a warning."""
    out = np.full(denominator.shape, np.nan)
    np.divide(numerator, denominator, out=out, where=where)
    return out


def varies(
    values: Float[np.ndarray, "n_stimuli n_neurons"],
    kept: Bool[np.ndarray, "n_stimuli n_neurons"],
) -> Bool[np.ndarray, " n_neurons"]:
    """Return which neurons differ between kept stimuli by more than float64 rounding."""
    high = np.where(kept, values, -np.inf).max(axis=0)
    low = np.where(kept, values, np.inf).min(axis=0)
    seen = kept.any(axis=0)
    span = np.where(seen, high, 0.0) - np.where(seen, low, 0.0)
    largest = np.abs(np.where(kept, values, 0.0)).max(axis=0)
    return np.asarray(span > 16 * np.finfo(np.float64).eps * largest)


def centred(
    values: Float[np.ndarray, "n_stimuli n_neurons"],
    kept: Bool[np.ndarray, "n_stimuli n_neurons"],
) -> Float[np.ndarray, "n_stimuli n_neurons"]:
    """Return deviations from the mean over kept stimuli, 0 elsewhere."""
    filled = np.where(kept, values, 0.0)
    mean = filled.sum(axis=0) / np.maximum(kept.sum(axis=0), 1)
    return np.where(kept, filled - mean, 0.0)


def repeat_moments(
    responses: Float[np.ndarray, "n_stimuli n_repeats n_neurons"],
) -> RepeatMoments:
    """Return means, counts and variances over repeats in float64, skipping NaN.

    Raises
    ------
    InputError
        If `responses` is not three-dimensional, has fewer than three stimuli, or holds
        infinite values.
    MissingRepeatsError
        If no neuron has two repeats of any stimulus.
    """
    check_responses(responses)
    values = responses.astype(np.float64, copy=False)
    recorded = ~np.isnan(values)
    count = recorded.sum(axis=1)  # (n_stimuli, n_neurons)
    if not (count >= 2).any():
        raise MissingRepeatsError(
            "too few repeats: no neuron has two repeats of any stimulus, got at most "
            f"{count.max(initial=0)}; a noise-corrected figure needs at least 2 repeats of some "
            "stimuli. Give single-repeat responses, or use pearson_r2 on the averages"
        )
    total = np.where(recorded, values, 0.0).sum(axis=1)
    mean = divide(total, count.astype(np.float64), count > 0)
    deviation = np.where(recorded, values - mean[:, None, :], 0.0)
    squares = np.einsum("srn,srn->sn", deviation, deviation)
    repeated = count >= 2
    variance = divide(squares, count - 1.0, repeated)
    n_repeated = repeated.sum(axis=0).astype(np.float64)
    pooled = divide(np.where(repeated, variance, 0.0).sum(axis=0), n_repeated, n_repeated > 0)
    return RepeatMoments(mean, count, variance, pooled)


def noise_of_mean(
    moments: RepeatMoments, repeats: Repeats
) -> Float[np.ndarray, "n_stimuli n_neurons"]:
    """Return the noise variance of each mean response; NaN where a stimulus has no repeat.

    ``per-stimulus``: `s_i² / n_i`, and the pooled variance for a stimulus with one repeat.
    ``median``: pooled variance over the neuron's median repeat count, for all stimuli alike.

    Raises
    ------
    InputError
        If `repeats` is not one of the two forms.
    """
    if repeats not in get_args(Repeats):
        raise InputError(
            f"repeats must be one of {', '.join(map(repr, get_args(Repeats)))}, got {repeats!r}"
        )
    if repeats == "median":
        noise = np.broadcast_to(
            moments.pooled_variance / median_count(moments), moments.count.shape
        )
        return np.where(moments.shown, noise, np.nan)
    variance = np.where(moments.count >= 2, moments.variance, moments.pooled_variance)
    return divide(variance, moments.count.astype(np.float64), moments.shown)


def median_count(moments: RepeatMoments) -> Float[np.ndarray, " n_neurons"]:
    """Return each neuron's median number of repeats over the stimuli it was shown."""
    counts = np.where(moments.shown, moments.count, np.nan)
    out = np.full(counts.shape[1], np.nan)
    seen = moments.shown.any(axis=0)
    out[seen] = np.nanmedian(counts[:, seen], axis=0)
    return out


def check_responses(responses: Float[np.ndarray, "..."]) -> None:
    """Raise InputError unless responses are (n_stimuli, n_repeats, n_neurons), finite or NaN."""
    if responses.ndim != 3:
        raise InputError(
            "responses must be (n_stimuli, n_repeats, n_neurons), got shape "
            f"{responses.shape}; repeat averages have no repeats, so use pearson_r2 for them"
        )
    check_enough_stimuli(responses.shape[0])
    check_not_infinite(responses, "responses")


def check_enough_stimuli(n_stimuli: int) -> None:
    """Raise InputError below three stimuli, where every correlation is ±1 or undefined."""
    if n_stimuli < MIN_STIMULI:
        raise InputError(
            f"a score needs at least {MIN_STIMULI} stimuli, got {n_stimuli}; stimuli are axis 0"
        )


def check_not_infinite(values: Float[np.ndarray, "..."], name: str) -> None:
    """Raise InputError if any value is infinite."""
    n_infinite = int(np.isinf(values).sum())
    if n_infinite:
        raise InputError(
            f"{name} must be finite or NaN, got {n_infinite} infinite value(s); mark what is "
            "missing with NaN"
        )


def check_predictions(
    predictions: Float[np.ndarray, "..."], n_stimuli: int, n_neurons: int
) -> None:
    """Raise InputError unless predictions are (n_stimuli, n_neurons) and hold no infinity."""
    if predictions.shape != (n_stimuli, n_neurons):
        raise InputError(
            f"predictions must be (n_stimuli, n_neurons) = ({n_stimuli}, {n_neurons}) like the "
            f"responses, got shape {predictions.shape}"
        )
    check_not_infinite(predictions, "predictions")
