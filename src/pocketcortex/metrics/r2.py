"""Fractions of variance explained: noise-corrected, plain Pearson, and BrainScore's."""

import numpy as np
from jaxtyping import Float

from pocketcortex.core.errors import InputError
from pocketcortex.metrics._repeats import (
    MIN_STIMULI,
    Repeats,
    centred,
    check_enough_stimuli,
    check_not_infinite,
    check_predictions,
    divide,
    noise_of_mean,
    repeat_moments,
    varies,
)
from pocketcortex.metrics._weighted import stimulus_terms, weighted_r2
from pocketcortex.metrics.reliability import split_half_reliability


def noise_corrected_r2(
    responses: Float[np.ndarray, "n_stimuli n_repeats n_neurons"],
    predictions: Float[np.ndarray, "n_stimuli n_neurons"],
    *,
    repeats: Repeats = "per-stimulus",
) -> Float[np.ndarray, " n_neurons"]:
    r"""Return each neuron's r² between the predictions and its noiseless mean responses.

    With :math:`y_i` the mean of the :math:`n_i` repeats of stimulus :math:`i`, :math:`s_i^2`
    their variance (ddof 1), :math:`v_i = s_i^2 / n_i` the noise of that mean, and tildes for
    deviations from the mean over the :math:`m` stimuli,

    .. math::
        r^2 = \frac{(\sum_i \tilde x_i \tilde y_i)^2 - \sum_i \tilde x_i^2 v_i}
                   {\sum_i \tilde x_i^2 \, [\sum_i \tilde y_i^2 - (1 - 1/m) \sum_i v_i]} .

    For predictions fixed before the responses were recorded, numerator and denominator are both
    unbiased, whatever the noise's distribution and however it differs between stimuli: each
    :math:`s_i^2` is noisy, but enters linearly and with a fixed weight. The ratio keeps a bias of
    order 1/m, upwards and largest for the noisiest neurons (simulated with 300 stimuli, true
    0.50: below 0.002 at SNR 1, up to 0.007 at SNR 0.25 and 0.023 at SNR 0.15 with 2 to 10
    repeats). It is never clipped: values below 0 and above 1 occur and must be kept for averages
    to be right. Predictions fitted to the same responses score too high.

    What it is unbiased for is r² over the stimuli shown. Predictions unrelated to a neuron have an
    r² of 1/(m - 1) over m stimuli on average, and so has this score: exactly 1/(m - 1) averaged
    over all orders of the predictions, whatever the noise, with values on both sides of 0 (0.003
    at 300 stimuli, where :func:`pearson_r2` is centred too).

    Parameters
    ----------
    responses
        One value a repeat, e.g. spike counts; NaN where a repeat is missing. Any unit. A
        stimulus without any repeat for a neuron is dropped for that neuron; one with a single
        repeat takes the neuron's mean variance over stimuli as its :math:`s_i^2`, which is
        unbiased only if single-repeat stimuli are as noisy as the others.
    predictions
        Predicted responses, up to any affine map. NaN makes that neuron's score NaN.
    repeats
        ``"per-stimulus"`` as above. ``"median"`` is the published shortcut
        :math:`v_i = \overline{s^2} / n` with n the median number of repeats: equal to the
        default if all stimuli have equally many, too low otherwise. Published code takes n from
        the first neuron; here each neuron has its own.

    Returns
    -------
    Float[np.ndarray, "n_neurons"]
        float64. NaN where the ratio is undefined: constant predictions or responses, fewer than
        three stimuli, no stimulus with two repeats, or a denominator that is not positive (the
        noise estimate is as large as the variance over stimuli).

    Raises
    ------
    InputError
        If shapes disagree, values are infinite, there are fewer than three stimuli, or
        `repeats` is unknown.
    MissingRepeatsError
        If no neuron has two repeats of any stimulus.

    References
    ----------
    Pospisil & Bair (2021), The unbiased estimation of the fraction of variance explained by a
    model, PLoS Computational Biology 17(8): e1009212; Methods, the estimator r²_ER, there for
    one number of repeats and one noise variance.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> rate = rng.gamma(4.0, 1.0, size=(500, 1))  # the predictions are the true rates
    >>> counts = rng.poisson(rate[:, None, :], size=(500, 5, 1)).astype(float)
    >>> [round(float(r2[0]), 1) for r2 in (
    ...     noise_corrected_r2(counts, rate), pearson_r2(counts.mean(axis=1), rate))]
    [1.0, 0.8]
    """
    moments = repeat_moments(responses)
    check_predictions(predictions, *moments.mean.shape)
    noise = noise_of_mean(moments, repeats)
    terms = stimulus_terms(moments.mean, noise, predictions)
    return np.asarray(weighted_r2(terms, np.ones((1, responses.shape[0])))[0])


def pearson_r2(
    responses: Float[np.ndarray, "n_stimuli n_neurons"],
    predictions: Float[np.ndarray, "n_stimuli n_neurons"],
) -> Float[np.ndarray, " n_neurons"]:
    r"""Return each neuron's squared Pearson correlation, with no correction for noise.

    .. math:: r^2 = \frac{(\sum_i \tilde x_i \tilde y_i)^2}{\sum_i \tilde x_i^2 \sum_i \tilde y_i^2}

    Biased as an estimate of r² with the noiseless responses: too low by the noise left in
    the averages, too high by about 1/m when the true value is near 0. For unrelated predictions it
    is 1/(m - 1) on average (exactly so averaged over all orders of the predictions) and never
    below 0. Blind to the sign of the correlation. It is not the coefficient of determination
    1 - SSE/SST.

    Parameters
    ----------
    responses
        Responses averaged over repeats, any unit; NaN where a stimulus was not shown to a
        neuron, which drops that stimulus for that neuron.
    predictions
        Predicted responses, up to any affine map. NaN makes that neuron's score NaN.

    Returns
    -------
    Float[np.ndarray, "n_neurons"]
        float64 in 0..1; NaN for constant predictions or responses and below three stimuli.

    Raises
    ------
    InputError
        If shapes disagree, values are infinite or there are fewer than three stimuli.

    References
    ----------
    Pearson (1895), Notes on regression and inheritance in the case of two parents, Proceedings
    of the Royal Society of London 58: 240-242.

    Examples
    --------
    >>> import numpy as np
    >>> responses = np.array([[1.0, 2.0], [2.0, 2.0], [4.0, 2.0]])
    >>> pearson_r2(responses, 3 - 2 * responses)
    array([ 1., nan])
    """
    if responses.ndim != 2:
        raise InputError(
            f"responses must be (n_stimuli, n_neurons), got shape {responses.shape}; average "
            "over repeats first, or use noise_corrected_r2"
        )
    check_enough_stimuli(responses.shape[0])
    check_not_infinite(responses, "responses")
    check_predictions(predictions, *responses.shape)
    y = responses.astype(np.float64, copy=False)
    x = predictions.astype(np.float64, copy=False)
    kept = ~np.isnan(y)
    usable = varies(x, kept) & varies(y, kept) & ~np.isnan(x).any(axis=0)
    usable &= kept.sum(axis=0) >= MIN_STIMULI
    x, y = centred(x, kept & usable), centred(y, kept & usable)
    numerator = (x * y).sum(axis=0) ** 2
    return divide(numerator, (x**2).sum(axis=0) * (y**2).sum(axis=0), usable)


def brainscore_r2(
    responses: Float[np.ndarray, "n_stimuli n_repeats n_neurons"],
    predictions: Float[np.ndarray, "n_stimuli n_neurons"],
    *,
    rng: np.random.Generator,
    n_splits: int = 50,
) -> Float[np.ndarray, " n_neurons"]:
    r"""Return each neuron's squared Pearson correlation over its reliability, as BrainScore does.

    .. math:: r(x, y)^2 / \mathrm{SB}, \qquad \mathrm{SB} = 2c / (1 + c)

    with y the mean over repeats and c the mean split-half correlation of
    :func:`split_half_reliability`. SB already is a fraction of variance, so it divides once;
    dividing by its square, as BrainScore's library did until late 2025, gives larger scores.

    Biased. With equally many repeats of every stimulus it agrees with
    :func:`noise_corrected_r2` to about 0.01 on average. An odd repeat is dropped from the splits
    but not from y, which raises the score; stimuli with a single repeat count in y only, which
    lowers it; with unequal repeats SB is an average over unequal halves (0.51 to 0.56 for a true
    0.50 with 2 to 10 repeats). Not clipped.

    Parameters
    ----------
    responses
        One value a repeat; NaN where a repeat is missing. Any unit.
    predictions
        Predicted responses, up to any affine map. NaN makes that neuron's score NaN.
    rng
        Source of the random splits.
    n_splits
        Number of random splits, at least 1.

    Returns
    -------
    Float[np.ndarray, "n_neurons"]
        float64. NaN where either factor is, and where the reliability is not positive.

    Raises
    ------
    InputError
        If shapes disagree, values are infinite, there are fewer than three stimuli, or
        `n_splits` is below 1.
    MissingRepeatsError
        If no neuron has two repeats of any stimulus.

    References
    ----------
    Schrimpf et al. (2018), Brain-Score: which artificial neural network for object recognition is
    most brain-like?, bioRxiv 407007. Spearman (1910), British Journal of Psychology 3: 271-295.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> rate = rng.gamma(4.0, 1.0, size=(500, 1))
    >>> counts = rng.poisson(rate[:, None, :], size=(500, 6, 1)).astype(float)
    >>> brainscore_r2(counts, rate, rng=rng).round(1)
    array([1.])
    """
    moments = repeat_moments(responses)
    check_predictions(predictions, *moments.mean.shape)
    reliability = split_half_reliability(responses, rng=rng, n_splits=n_splits)
    return divide(pearson_r2(moments.mean, predictions), reliability, reliability > 0)
