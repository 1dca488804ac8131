"""Percentile bootstrap intervals over stimuli (per neuron) and over neurons (for a median)."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Shaped

from pocketcortex.core.errors import InputError
from pocketcortex.metrics._repeats import (
    Repeats,
    check_not_infinite,
    check_predictions,
    noise_of_mean,
    repeat_moments,
)
from pocketcortex.metrics._weighted import stimulus_terms, weighted_r2

_CHUNK = 4_000_000  # float64 values held at once by the batched paths, 32 MB


def bootstrap_ci(
    statistic: Callable[..., np.ndarray],
    *arrays: Shaped[np.ndarray, "..."],
    rng: np.random.Generator,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    r"""Return the percentile interval of a statistic when stimuli are resampled.

    Each resample draws n_stimuli stimuli with replacement, the same ones from every array
    (axis 0), and calls ``statistic(*resampled)``. The interval runs from the
    :math:`(1 - \mathrm{level}) / 2` to the :math:`(1 + \mathrm{level}) / 2` quantile. Since a
    stimulus brings its own repeats, trial noise is resampled with it.

    Percentile intervals are first-order accurate: their coverage is off by order 1/m. A
    resample holds copies of a stimulus that share their noise, which a statistic correcting for
    noise does not know of: each resampled noise-corrected r² is too high by order 1/m. Use
    :func:`bootstrap_noise_corrected_r2_ci` for that one; it counts copies right and is faster.

    Parameters
    ----------
    statistic
        Function of the resampled arrays; returns one value or an array of values, such as one a
        neuron.
    *arrays
        One or more arrays with stimuli on axis 0.
    rng
        Source of the resamples.
    n_resamples
        Number of resamples, at least 2.
    level
        Coverage aimed at, between 0 and 1, both excluded.

    Returns
    -------
    tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]
        Lower and upper end, float64, each of the shape of the statistic. NaN for an element that
        is NaN in any resample.

    Raises
    ------
    InputError
        If there is no array, their numbers of stimuli differ, or `n_resamples` or `level` is out
        of range.

    References
    ----------
    Efron & Tibshirani (1993), An Introduction to the Bootstrap, chapter 13 (percentile intervals).

    Examples
    --------
    >>> import numpy as np
    >>> from pocketcortex.metrics import pearson_r2
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(400, 1))
    >>> low, high = bootstrap_ci(pearson_r2, x + rng.normal(size=x.shape), x, rng=rng)
    >>> bool(low[0] < 0.5 < high[0])
    True
    """
    _check_settings(n_resamples, level)
    if not arrays:
        raise InputError("bootstrap_ci needs at least one array to resample, got none")
    sizes = [array.shape[0] if array.ndim else 0 for array in arrays]
    if len(set(sizes)) > 1 or sizes[0] < 1:
        raise InputError(
            "all arrays must have the same number of stimuli on axis 0, at least 1, got shapes "
            f"{[array.shape for array in arrays]}"
        )
    values = []
    for _ in range(n_resamples):
        drawn = rng.integers(sizes[0], size=sizes[0])
        values.append(np.asarray(statistic(*(array[drawn] for array in arrays)), dtype=np.float64))
    return _interval(np.stack(values), level)


def bootstrap_noise_corrected_r2_ci(
    responses: Float[np.ndarray, "n_stimuli n_repeats n_neurons"],
    predictions: Float[np.ndarray, "n_stimuli n_neurons"],
    *,
    rng: np.random.Generator,
    n_resamples: int = 1000,
    level: float = 0.95,
    repeats: Repeats = "per-stimulus",
) -> tuple[Float[np.ndarray, " n_neurons"], Float[np.ndarray, " n_neurons"]]:
    r"""Return each neuron's percentile interval of noise-corrected r² over stimuli.

    A resample in which stimulus i was drawn :math:`w_i` times has

    .. math::
        r^2 = \frac{(\sum_i w_i \tilde x_i \tilde y_i)^2 - \sum_i w_i^2 \tilde x_i^2 v_i}
                   {\sum_i w_i \tilde x_i^2 \, [\sum_i w_i \tilde y_i^2
                    - \sum_i (w_i - w_i^2 / m) v_i]}

    with deviations from the weighted means. The squares of :math:`w_i` are there because copies
    of a stimulus share their noise; given the weights both parts are unbiased, so resampling
    adds no bias of its own. All resamples are two matrix products in float64 (10,000 for 219
    neurons and 600 stimuli: about a second), equal to a loop over them up to rounding.

    The interval covers r² over the population of stimuli from which those shown were drawn
    independently: what another set of images would give in the long run. It is too wide for r²
    over the very stimuli shown, the more so the less noise there is.

    Simulated (Poisson counts of mean 2.5, gamma rates, 4 or 10 repeats, SNR 0.25 or 1, true r²
    0.2, 0.5 or 0.8, 4,000 neurons each, standard error 0.4 %), an interval of level 0.95 holds
    the truth in 93.9 to 94.7 % of cases with 300 stimuli, and in 93.5 to 94.8 % of those where it
    is defined with 60 or 100 stimuli and 4 repeats (with 60 at SNR 0.25, 14 % were not). r² over
    the 300 stimuli shown is held in 94.7 to 100 %, and a true r² of 0 in 99 %. Bias-corrected
    accelerated (BCa) and jackknife intervals did no better.

    Repeats are not resampled within stimuli. A stimulus brings its repeats along, so trial noise
    already varies between resamples; drawing repeats again would count it twice (intervals too
    wide) and shrink :math:`s_i^2` by :math:`1 - 1/n_i` (values too high).

    Parameters
    ----------
    responses
        One value a repeat; NaN where a repeat is missing. Any unit.
    predictions
        Predicted responses, up to any affine map. NaN makes that neuron's interval NaN.
    rng
        Source of the resamples.
    n_resamples
        Number of resamples, at least 2.
    level
        Coverage aimed at, between 0 and 1, both excluded.
    repeats
        As in :func:`noise_corrected_r2`.

    Returns
    -------
    tuple[Float[np.ndarray, "n_neurons"], Float[np.ndarray, "n_neurons"]]
        Lower and upper end, float64, not clipped. A resample whose score is undefined (see
        :func:`noise_corrected_r2`) counts as beyond both ends; an end is NaN if it falls among
        such resamples, as for neurons with hardly any variance over stimuli beyond their noise.

    Raises
    ------
    InputError
        If shapes disagree, values are infinite, there are fewer than three stimuli, or
        `repeats`, `n_resamples` or `level` is out of range.
    MissingRepeatsError
        If no neuron has two repeats of any stimulus.

    References
    ----------
    Efron & Tibshirani (1993), An Introduction to the Bootstrap, chapter 13 (percentile
    intervals); the estimator is that of :func:`noise_corrected_r2`.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> rate = rng.gamma(4.0, 1.0, size=(500, 1))
    >>> counts = rng.poisson(rate[:, None, :], size=(500, 5, 1)).astype(float)
    >>> low, high = bootstrap_noise_corrected_r2_ci(counts, rate, rng=rng)
    >>> bool(low[0] < 1 < high[0])
    True
    """
    _check_settings(n_resamples, level)
    moments = repeat_moments(responses)
    check_predictions(predictions, *moments.mean.shape)
    noise = noise_of_mean(moments, repeats)
    n_stimuli, n_neurons = predictions.shape
    terms = stimulus_terms(moments.mean, noise, predictions)
    values = np.empty((n_resamples, n_neurons))
    step = max(1, _CHUNK // (2 * n_stimuli + 12 * n_neurons))
    for start in range(0, n_resamples, step):
        size = min(step, n_resamples - start)
        values[start : start + size] = weighted_r2(terms, _multinomial(n_stimuli, size, rng))
    return _defined_interval(values, level)


def bootstrap_median_ci(
    scores: Float[np.ndarray, " n_neurons"],
    *,
    rng: np.random.Generator,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the percentile interval of the median score when neurons are resampled.

    Covers which neurons happened to be recorded, as if drawn independently; neither the noise of
    each score nor what neurons of one session share is in it, so it is too narrow when
    neurons are alike. The median's bootstrap distribution is coarse below about 20 neurons.

    Parameters
    ----------
    scores
        One score a neuron. Neurons whose score is NaN have none, and are left out as they are of
        the median itself.
    rng
        Source of the resamples.
    n_resamples
        Number of resamples, at least 2.
    level
        Coverage aimed at, between 0 and 1, both excluded.

    Returns
    -------
    tuple[float, float]
        Lower and upper end; both NaN if no neuron has a score.

    Raises
    ------
    InputError
        If `scores` is not one-dimensional or holds infinite values, or `n_resamples` or `level`
        is out of range.

    References
    ----------
    Efron & Tibshirani (1993), An Introduction to the Bootstrap, chapter 13 (percentile intervals).

    Examples
    --------
    >>> import numpy as np
    >>> bootstrap_median_ci(np.full(9, 0.5), rng=np.random.default_rng(0))
    (0.5, 0.5)
    """
    _check_settings(n_resamples, level)
    if scores.ndim != 1:
        raise InputError(f"scores must be (n_neurons,), got shape {scores.shape}")
    check_not_infinite(scores, "scores")
    known = scores[~np.isnan(scores)].astype(np.float64)
    if known.size == 0:
        return float("nan"), float("nan")
    values = np.empty(n_resamples)
    step = max(1, _CHUNK // known.size)
    for start in range(0, n_resamples, step):
        size = min(step, n_resamples - start)
        drawn = rng.integers(known.size, size=(size, known.size))
        values[start : start + size] = np.median(known[drawn], axis=1)
    low, high = _interval(values, level)
    return float(low), float(high)


def _check_settings(n_resamples: int, level: float) -> None:
    if n_resamples < 2:
        raise InputError(f"n_resamples must be at least 2, got {n_resamples}; 1000 is usual")
    if not 0 < level < 1:
        raise InputError(
            f"level must be between 0 and 1, both excluded, got {level}; 0.95 is usual"
        )


def _interval(
    values: Float[np.ndarray, "_ ..."], level: float
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Return the two quantiles over axis 0."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.asarray(low), np.asarray(high)


def _multinomial(
    n_stimuli: int, n_resamples: int, rng: np.random.Generator
) -> Float[np.ndarray, "n_resamples n_stimuli"]:
    """Return how often each stimulus comes up in n_stimuli draws with replacement."""
    drawn = rng.integers(n_stimuli, size=(n_resamples, n_stimuli))
    drawn += np.arange(n_resamples)[:, None] * n_stimuli
    counts = np.bincount(drawn.ravel(), minlength=n_resamples * n_stimuli)
    return counts.reshape(n_resamples, n_stimuli).astype(np.float64)


def _defined_interval(
    values: Float[np.ndarray, "n_resamples n_neurons"], level: float
) -> tuple[Float[np.ndarray, " n_neurons"], Float[np.ndarray, " n_neurons"]]:
    """Return the quantiles over axis 0 with NaN counted below the lower and above the upper end.

    An end that would fall among the NaN is NaN.
    """
    ranked = np.sort(values.T, axis=1)  # (n_neurons, n_resamples), NaN last
    n_undefined = np.isnan(ranked).sum(axis=1)
    last = values.shape[0] - 1
    lower = (1 - level) / 2 * last - n_undefined
    return _at(ranked, lower), _at(ranked, np.full(len(ranked), (1 + level) / 2 * last))


def _at(
    ranked: Float[np.ndarray, "n_neurons n_resamples"], place: Float[np.ndarray, " n_neurons"]
) -> Float[np.ndarray, " n_neurons"]:
    """Return each row's value at a fractional place, NaN for a place before the first."""
    before = np.clip(place.astype(np.intp), 0, ranked.shape[1] - 2)
    rows = np.arange(len(ranked))
    low, high = ranked[rows, before], ranked[rows, before + 1]
    part = place - before
    value = np.where(part > 0, low + part * (high - low), low)
    return np.where(place < 0, np.nan, value)
