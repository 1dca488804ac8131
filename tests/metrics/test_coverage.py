"""How often intervals hold the truth, and where scores of unrelated predictions lie: simulated."""

import itertools

import numpy as np
import pytest
from scipy import stats

from pocketcortex.data import InSilicoCortex, dead_leaves
from pocketcortex.metrics import bootstrap_noise_corrected_r2_ci, noise_corrected_r2, pearson_r2

COVERAGE = (0.93, 0.96)
"""Coverage that intervals of level 0.95 are documented to have with 300 stimuli, and some."""
CHANCE = 1e-3


def assert_coverage(hits):
    """Refuse a count of hits that a coverage within the documented range makes this unlikely."""
    n, low, high = len(hits), *COVERAGE
    assert stats.binom.ppf(CHANCE, n, low) <= hits.sum() <= stats.binom.ppf(1 - CHANCE, n, high)


def poisson_recording(rng, n_neurons, *, n_repeats, snr, true, n_stimuli=300, mean=2.5):
    """Counts at gamma rates, and predictions whose r² over all conceivable stimuli is `true`."""
    shape = mean / snr  # variance over stimuli mean² / shape is snr times the Poisson variance
    rates = rng.gamma(shape, mean / shape, size=(n_stimuli, n_neurons))
    signal = (rates - mean) / (mean / np.sqrt(shape))
    other = rng.normal(size=rates.shape)
    predictions = np.sqrt(true) * signal + np.sqrt(1 - true) * other
    responses = rng.poisson(rates[:, None], size=(n_stimuli, n_repeats, n_neurons))
    return responses.astype(float), predictions, rates


@pytest.mark.parametrize("n_repeats", [4, 10])
@pytest.mark.parametrize("snr", [0.25, 1.0])
@pytest.mark.parametrize("true", [0.2, 0.5, 0.8])
def test_intervals_cover_r2_over_the_population_of_stimuli(n_repeats, snr, true):
    rng = np.random.default_rng(0)
    responses, predictions, _ = poisson_recording(
        rng, 1000, n_repeats=n_repeats, snr=snr, true=true
    )
    low, high = bootstrap_noise_corrected_r2_ci(responses, predictions, rng=rng, n_resamples=400)
    assert_coverage((low <= true) & (true <= high))


def test_intervals_are_wide_for_r2_over_the_stimuli_shown():
    rng = np.random.default_rng(1)
    responses, predictions, rates = poisson_recording(rng, 1000, n_repeats=10, snr=1.0, true=0.5)
    shown = pearson_r2(rates, predictions)
    low, high = bootstrap_noise_corrected_r2_ci(responses, predictions, rng=rng, n_resamples=400)
    assert ((low <= shown) & (shown <= high)).mean() > 0.99


def test_intervals_cover_r2_of_the_in_silico_cortex():
    """Images drawn anew for every neuron and session from a bank over which the truth is known."""
    rng = np.random.default_rng(2)
    cortex = InSilicoCortex(3, 32)
    neurons = cortex.sample_neurons(25, rng=rng)
    rates = cortex.rates(dead_leaves(1000, size=32, seed=4), neurons)
    scaled = (rates - rates.mean(0)) / rates.std(0)
    confused = np.linspace(0.3, 2.0, len(neurons))  # with another neuron
    predicted = scaled + confused * np.roll(scaled, 1, axis=1)
    truth = pearson_r2(rates, predicted)
    assert truth.min() < 0.3
    assert truth.max() > 0.8
    hits = []
    for _ in range(40):
        drawn = rng.integers(len(rates), size=(300, len(neurons)))
        mean = np.take_along_axis(rates, drawn, axis=0)
        responses = rng.poisson(mean[:, None], size=(300, 6, len(neurons))).astype(float)
        low, high = bootstrap_noise_corrected_r2_ci(
            responses, np.take_along_axis(predicted, drawn, axis=0), rng=rng, n_resamples=400
        )
        hits.append((low <= truth) & (truth <= high))
    assert_coverage(np.concatenate(hits))


@pytest.mark.slow
@pytest.mark.parametrize("n_stimuli", [100, 300, 600])
@pytest.mark.parametrize("snr", [0.25, 1.0])
@pytest.mark.parametrize("true", [0.2, 0.5, 0.8])
def test_intervals_cover_r2_for_other_numbers_of_stimuli(n_stimuli, snr, true):
    rng = np.random.default_rng(5)
    hits = []
    for _ in range(20):
        responses, predictions, _ = poisson_recording(
            rng, 500, n_repeats=6, snr=snr, true=true, n_stimuli=n_stimuli
        )
        low, high = bootstrap_noise_corrected_r2_ci(responses, predictions, rng=rng)
        defined = ~np.isnan(low + high)
        hits.append(((low <= true) & (true <= high))[defined])
    assert_coverage(np.concatenate(hits))


# Predictions that have nothing to do with the responses.


def test_unrelated_predictions_average_to_one_over_m_minus_one_over_all_orders():
    rng = np.random.default_rng(6)
    responses = rng.poisson(rng.gamma(3.0, 2.0, size=(6, 1, 1)), size=(6, 5, 1)).astype(float)
    responses[0, 3:] = np.nan
    x = rng.normal(size=6)
    orders = np.array(list(itertools.permutations(x))).T  # (stimuli, orders): orders as neurons
    many = np.broadcast_to(responses, (6, 5, orders.shape[1])).copy()
    corrected = noise_corrected_r2(many, orders)
    np.testing.assert_allclose(corrected.mean(), 1 / 5, rtol=1e-9)
    assert corrected.min() < 0
    np.testing.assert_allclose(
        pearson_r2(np.nanmean(many, axis=1), orders).mean(), 1 / 5, rtol=1e-9
    )


@pytest.mark.parametrize("snr", [0.25, 1.0])
@pytest.mark.parametrize("n_repeats", [4, 10])
def test_unrelated_predictions_score_about_zero(snr, n_repeats):
    """Both scores centre on 1/(m - 1); only the noise-corrected one falls below 0."""
    rng = np.random.default_rng(7)
    responses, predictions, _ = poisson_recording(rng, 2000, n_repeats=n_repeats, snr=snr, true=0.0)
    for values in (
        noise_corrected_r2(responses, predictions),
        pearson_r2(responses.mean(axis=1), predictions),
    ):
        standard_error = values.std() / np.sqrt(values.size)
        assert abs(values.mean() - 1 / 299) < 3.5 * standard_error
        assert standard_error < 4e-4
    assert (noise_corrected_r2(responses, predictions) < 0).mean() > 0.1


def test_predictions_uncorrelated_with_the_rates_shown_score_zero():
    rng = np.random.default_rng(8)
    responses, predictions, rates = poisson_recording(rng, 3000, n_repeats=4, snr=0.5, true=0.0)
    a = rates - rates.mean(axis=0)
    x = predictions - predictions.mean(axis=0)
    x -= a * (a * x).sum(axis=0) / (a**2).sum(axis=0)
    values = noise_corrected_r2(responses, x)
    assert abs(values.mean()) < 3.5 * values.std() / np.sqrt(values.size)
    assert 0.5 < (values < 0).mean() < 0.8  # skewed: most below, the mean at 0
