"""How much of a neuron's response is stimulus: split-half reliability and signal to noise."""

import numpy as np
from jaxtyping import Bool, Float

from pocketcortex.core.errors import InputError
from pocketcortex.metrics._repeats import (
    MIN_STIMULI,
    Repeats,
    divide,
    noise_of_mean,
    repeat_moments,
    varies,
)


def split_half_reliability(
    responses: Float[np.ndarray, "n_stimuli n_repeats n_neurons"],
    *,
    rng: np.random.Generator,
    n_splits: int = 50,
    corrected: bool = True,
) -> Float[np.ndarray, " n_neurons"]:
    r"""Return each neuron's correlation over stimuli between means of random halves of repeats.

    .. math:: c = \frac{1}{S} \sum_s r(\bar y^{A_s}, \bar y^{B_s}), \qquad
              \mathrm{SB} = \frac{2c}{1 + c}

    In each split every stimulus has its repeats drawn anew, in one order for all neurons;
    with an odd number one repeat is left out. Spearman-Brown's SB estimates the reliability
    of the mean over both halves; it is applied to the mean c, not to each split.

    Biased: SB of a mean of correlations is not the mean reliability (low by order 1/m), and with
    an odd number of repeats it is that of one repeat fewer.

    Parameters
    ----------
    responses
        One value a repeat; NaN where a repeat is missing. Any unit. Stimuli with fewer than two
        repeats of a neuron are dropped for that neuron.
    rng
        Source of the random splits.
    n_splits
        Number of random splits, at least 1.
    corrected
        Whether to return SB rather than c.

    Returns
    -------
    Float[np.ndarray, "n_neurons"]
        float64, at most 1, possibly negative. NaN below three stimuli with two repeats, and where
        a half was constant over stimuli in some split.

    Raises
    ------
    InputError
        If `responses` has a wrong shape or infinite values, there are fewer than three stimuli,
        or `n_splits` is below 1.
    MissingRepeatsError
        If no neuron has two repeats of any stimulus.

    References
    ----------
    Spearman (1910), Correlation calculated from faulty data, British Journal of Psychology 3:
    271-295. Brown (1910), ibid. 296-322.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> responses = rng.normal(size=(2000, 1, 1)) + rng.normal(size=(2000, 4, 1))
    >>> split_half_reliability(responses, rng=rng).round(1)  # 1 / (1 + 1 / 4)
    array([0.8])
    """
    if n_splits < 1:
        raise InputError(f"n_splits must be at least 1, got {n_splits}; 50 is usual")
    repeat_moments(responses)  # refuses what has no repeats
    values = responses[:, ~np.isnan(responses).all(axis=(0, 2)), :].astype(np.float64)
    recorded = ~np.isnan(values)
    shared = bool((recorded == recorded[:, :, :1]).all())
    pattern = recorded[:, :, :1] if shared else recorded
    half = pattern.sum(axis=1, keepdims=True) // 2  # (n_stimuli, 1, n_patterns)
    kept = np.broadcast_to(half[:, 0, :] > 0, (values.shape[0], values.shape[2]))
    values = np.where(recorded, values, 0.0)
    total = np.zeros(values.shape[2])
    for _ in range(n_splits):
        rank = _random_rank(pattern, rng)
        first = _mean_where(values, rank < half, half)
        second = _mean_where(values, (rank >= half) & (rank < 2 * half), half)
        total += _correlation(first, second, kept)
    c = total / n_splits
    return divide(2 * c, 1 + c, c > -1) if corrected else c


def signal_to_noise(
    responses: Float[np.ndarray, "n_stimuli n_repeats n_neurons"],
    *,
    repeats: Repeats = "per-stimulus",
) -> Float[np.ndarray, " n_neurons"]:
    r"""Return each neuron's variance over stimuli divided by its variance over repeats.

    .. math:: \mathrm{SNR} = \frac{\frac{1}{m} \sum_i \tilde y_i^2
              - \frac{m - 1}{m} \bar v}{\overline{s^2}}

    with :math:`\bar v` the mean over stimuli of the noise :math:`v_i = s_i^2 / n_i` of a mean
    response. The numerator is unbiased for the variance over the stimuli shown (ddof 0), so
    unresponsive neurons scatter around 0 and may be negative; the ratio is biased by order 1/m.
    The published rule keeps neurons with SNR > 0.15.

    Parameters
    ----------
    responses
        One value a repeat; NaN where a repeat is missing. Any unit. Stimuli without repeats of
        a neuron are dropped for it; those with one count in the numerator only.
    repeats
        ``"median"`` is the published :math:`\bar v = \overline{s^2} / n` with n the median
        number of repeats (there of the first neuron, here of each).

    Returns
    -------
    Float[np.ndarray, "n_neurons"]
        float64. NaN below three stimuli, without two repeats of any, or without any variance
        over repeats.

    Raises
    ------
    InputError
        If `responses` has a wrong shape or infinite values, there are fewer than three stimuli,
        or `repeats` is unknown.
    MissingRepeatsError
        If no neuron has two repeats of any stimulus.

    References
    ----------
    Pospisil & Bair (2021), PLoS Computational Biology 17(8): e1009212; Methods, SNR.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> responses = 0.5 * rng.normal(size=(4000, 1, 1)) + rng.normal(size=(4000, 6, 1))
    >>> signal_to_noise(responses).round(1)  # 0.5² / 1²
    array([0.2])
    """
    moments = repeat_moments(responses)
    kept = moments.shown
    m = kept.sum(axis=0).astype(np.float64)
    some = np.maximum(m, 1.0)
    noise = np.where(kept, noise_of_mean(moments, repeats), 0.0).sum(axis=0) / some
    filled = np.where(kept, moments.mean, 0.0)
    deviation = np.where(kept, filled - filled.sum(axis=0) / some, 0.0)
    signal = (deviation**2).sum(axis=0) / some - (some - 1) / some * noise
    defined = (m >= MIN_STIMULI) & (moments.pooled_variance > 0)
    return divide(signal, moments.pooled_variance, defined)


def _random_rank(
    pattern: Bool[np.ndarray, "n_stimuli n_repeats n_patterns"], rng: np.random.Generator
) -> np.ndarray:
    """Return the place of each recorded repeat in a random order, missing ones last."""
    key = rng.random(pattern.shape[:2])[:, :, None]
    order = np.where(pattern, key, np.inf).argsort(axis=1)
    return order.argsort(axis=1)


def _mean_where(
    values: Float[np.ndarray, "n_stimuli n_repeats n_neurons"],
    chosen: Bool[np.ndarray, "n_stimuli n_repeats n_patterns"],
    size: np.ndarray,
) -> Float[np.ndarray, "n_stimuli n_neurons"]:
    """Return means over the chosen repeats; 0 where none is chosen."""
    weights = chosen / np.maximum(size, 1)
    if weights.shape[2] == 1:  # one pattern for all neurons: a product of (1, r) and (r, n)
        return np.asarray(np.matmul(weights.transpose(0, 2, 1), values)[:, 0, :])
    return np.asarray(np.einsum("srn,srn->sn", weights, values))


def _correlation(
    first: Float[np.ndarray, "n_stimuli n_neurons"],
    second: Float[np.ndarray, "n_stimuli n_neurons"],
    kept: Bool[np.ndarray, "n_stimuli n_neurons"],
) -> Float[np.ndarray, " n_neurons"]:
    """Return Pearson's r over kept stimuli; NaN for a constant half or fewer than three."""
    m = kept.sum(axis=0)
    defined = varies(first, kept) & varies(second, kept) & (m >= MIN_STIMULI)
    n = np.maximum(m, 1)
    a = np.where(kept, first - np.where(kept, first, 0.0).sum(axis=0) / n, 0.0)
    b = np.where(kept, second - np.where(kept, second, 0.0).sum(axis=0) / n, 0.0)
    scale = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return divide((a * b).sum(axis=0), scale, defined)
