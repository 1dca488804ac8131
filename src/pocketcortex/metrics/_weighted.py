"""Noise-corrected r² of many weightings of the stimuli at once: two matrix products."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from pocketcortex.metrics._repeats import MIN_STIMULI, centred, divide, varies

_ROUNDING = 64 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class StimulusTerms:
    """What each stimulus adds to the sums that make up noise-corrected r².

    All are taken from deviations from the means over the whole sample, so that the means of a
    resample, which have to be subtracted from its sums, are small and little is cancelled.

    Attributes
    ----------
    linear
        Terms counted w times: x, y, x², y², xy, v and, unless every stimulus was shown to every
        neuron, 1 where it was; (n_stimuli, 6 or 7 times n_neurons).
    squared
        Terms counted w² times: x²v, xv, v; (n_stimuli, 3 n_neurons).
    usable
        Neurons that have a score at all, (n_neurons,).
    """

    linear: Float[np.ndarray, "n_stimuli n_linear"]
    squared: Float[np.ndarray, "n_stimuli n_squared"]
    usable: Bool[np.ndarray, " n_neurons"]


def stimulus_terms(
    mean: Float[np.ndarray, "n_stimuli n_neurons"],
    noise: Float[np.ndarray, "n_stimuli n_neurons"],
    predictions: Float[np.ndarray, "n_stimuli n_neurons"],
) -> StimulusTerms:
    """Return each stimulus' terms, in float64; those whose `noise` is NaN are left out."""
    x = predictions.astype(np.float64, copy=False)
    kept = ~np.isnan(noise)
    usable = varies(x, kept) & varies(mean, kept) & ~np.isnan(x).any(axis=0)
    usable &= kept.sum(axis=0) >= MIN_STIMULI
    x = centred(x, kept & usable)
    y = centred(mean, kept & usable)
    v = np.where(kept & usable, noise, 0.0)
    linear = [x, y, x**2, y**2, x * y, v]
    if not kept[:, usable].all():
        linear.append(kept.astype(np.float64))
    return StimulusTerms(np.hstack(linear), np.hstack([x**2 * v, x * v, v]), usable)


def weighted_r2(
    terms: StimulusTerms, weights: Float[np.ndarray, "n_resamples n_stimuli"]
) -> Float[np.ndarray, "n_resamples n_neurons"]:
    r"""Return noise-corrected r² with stimulus i counted w_i times, for each row of weights.

    A stimulus counted :math:`w_i` times repeats the same noise :math:`w_i` times, so its share of
    :math:`(\sum w \tilde x \tilde y)^2` is :math:`w_i^2 \tilde x_i^2 v_i`, and
    :math:`(w_i - w_i^2 / m) v_i` of :math:`\sum w \tilde y^2`. With these subtracted, numerator
    and denominator are unbiased given the weights; with all weights 1 they are the plain form.

    NaN where the ratio is undefined: see :func:`noise_corrected_r2`.
    """
    n_neurons = terms.usable.size
    # every sum is (n_resamples, n_neurons)
    x, y, xx, yy, xy, v, *shown = _columns(weights @ terms.linear, n_neurons)
    xxv, xv, vv = _columns(weights**2 @ terms.squared, n_neurons)
    m = np.maximum(shown[0] if shown else weights.sum(axis=1, keepdims=True), 1.0)
    mean_x = x / m
    sum_xx = xx - x * mean_x
    sum_xy = xy - y * mean_x
    sum_yy = yy - y**2 / m
    explainable = sum_yy - (v - vv / m)
    numerator = sum_xy**2 - (xxv - mean_x * (2 * xv - mean_x * vv))
    defined = terms.usable & (sum_xx > _ROUNDING * xx) & (explainable > _ROUNDING * np.abs(sum_yy))
    return divide(numerator, sum_xx * explainable, defined)


def _columns(
    sums: Float[np.ndarray, "n_resamples n_columns"], n_neurons: int
) -> list[Float[np.ndarray, "n_resamples n_neurons"]]:
    """Return the sums' blocks of one column a neuron."""
    return [sums[:, i : i + n_neurons] for i in range(0, sums.shape[1], n_neurons)]
