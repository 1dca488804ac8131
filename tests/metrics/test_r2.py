"""Noise-corrected, Pearson and BrainScore r², reliability and SNR."""

import doctest
import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from pocketcortex.core.errors import InputError, MissingRepeatsError
from pocketcortex.metrics import (
    brainscore_r2,
    noise_corrected_r2,
    pearson_r2,
    signal_to_noise,
    split_half_reliability,
)

SEEDS = st.integers(0, 2**32 - 1)


def simulate(rng, n_stimuli, n_neurons, counts, *, noise, snr, true=0.5):
    """Responses with exactly `true` r² between predictions and mean responses."""
    a, b = rng.normal(size=(2, n_stimuli, n_neurons))
    a = (a - a.mean(0)) / a.std(0)
    b = b - b.mean(0) - a * (a * b).mean(0)
    predictions = np.sqrt(true) * a + np.sqrt(1 - true) * b / b.std(0)
    shape = (n_stimuli, counts.max(), n_neurons)
    if noise == "poisson":  # mean 25 snr and sd 5 snr: variance over stimuli is snr times the mean
        responses = rng.poisson(np.maximum(25 * snr + 5 * snr * a, 0)[:, None], size=shape)
        responses = responses.astype(float)
    else:  # noise that differs between stimuli
        sd = rng.uniform(0.5, 1.5, size=a.shape)
        sd /= np.sqrt((sd**2).mean(0) * snr)
        responses = a[:, None] + sd[:, None] * rng.normal(size=shape)
    responses[np.arange(shape[1]) >= counts[:, None]] = np.nan
    return responses, predictions


def ragged(seed, n_stimuli=20, n_neurons=3, n_repeats=5):
    """Noisy responses with missing repeats, one to five of each stimulus."""
    rng = np.random.default_rng(seed)
    mean = rng.normal(size=(n_stimuli, 1, n_neurons))
    responses = 3 * mean + rng.normal(size=(n_stimuli, n_repeats, n_neurons))
    missing = rng.random(responses.shape) < 0.3
    missing[:, 0] = False
    responses[missing] = np.nan
    return responses, mean[:, 0] + rng.normal(size=(n_stimuli, n_neurons))


def loop_noise_corrected_r2(responses, predictions, repeats):
    """The formula, one neuron and stimulus at a time."""
    out = []
    for j in range(predictions.shape[1]):
        trials = [row[~np.isnan(row)] for row in responses[:, :, j]]
        shown = [i for i, t in enumerate(trials) if t.size]
        pooled = np.mean([t.var(ddof=1) for t in trials if t.size > 1])
        n = np.median([trials[i].size for i in shown])
        v = {
            "per-stimulus": [
                (trials[i].var(ddof=1) if trials[i].size > 1 else pooled) / trials[i].size
                for i in shown
            ],
            "median": [pooled / n for _ in shown],
        }[repeats]
        y = np.array([trials[i].mean() for i in shown])
        x = predictions[shown, j]
        x, y, m = x - x.mean(), y - y.mean(), len(shown)
        numerator = (x @ y) ** 2 - np.sum(x**2 * v)
        out.append(numerator / (x @ x * (y @ y - (1 - 1 / m) * np.sum(v))))
    return np.array(out)


@pytest.mark.parametrize("repeats", ["per-stimulus", "median"])
def test_noise_corrected_r2_equals_loop(repeats):
    responses, predictions = ragged(0)
    responses[3, :, 1] = np.nan  # a stimulus the second neuron never saw
    np.testing.assert_allclose(
        noise_corrected_r2(responses, predictions, repeats=repeats),
        loop_noise_corrected_r2(responses, predictions, repeats),
        rtol=1e-10,
    )


def test_both_forms_agree_for_equal_repeats():
    rng = np.random.default_rng(0)
    responses, predictions = simulate(
        rng, 100, 4, np.full(100, 6), noise="gaussian", snr=1.0, true=0.7
    )
    np.testing.assert_allclose(
        noise_corrected_r2(responses, predictions),
        noise_corrected_r2(responses, predictions, repeats="median"),
        rtol=0.02,
    )


@pytest.mark.parametrize("noise", ["gaussian", "poisson"])
@pytest.mark.parametrize("snr", [0.25, 1.0])
@pytest.mark.parametrize("n_repeats", [4, 10, 20, "2 to 10", "2 or 12"])
def test_noise_corrected_r2_is_unbiased(noise, snr, n_repeats):
    rng = np.random.default_rng(2)
    n_stimuli = 600
    counts = {
        "2 to 10": rng.integers(2, 11, size=n_stimuli),
        "2 or 12": np.where(np.arange(n_stimuli) < 0.4 * n_stimuli, 2, 12),
    }.get(n_repeats, np.full(n_stimuli, n_repeats))
    responses, predictions = simulate(rng, n_stimuli, 800, counts, noise=noise, snr=snr)
    values = noise_corrected_r2(responses, predictions)
    standard_error = values.std() / np.sqrt(values.size)
    assert abs(values.mean() - 0.5) < 0.01
    assert standard_error < 0.004


def test_numerator_and_denominator_are_unbiased_for_noise_that_follows_the_signal():
    """Poisson with two repeats, the noisiest s_i²: a wide spread of rates, and true r² of 0, 1."""
    rng = np.random.default_rng(3)
    rate = rng.gamma(1.0, 4.0, size=(600, 1)) * np.ones((1, 600))
    responses = rng.poisson(rate[:, None], size=(600, 2, 600)).astype(float)
    assert abs(noise_corrected_r2(responses, rate).mean() - 1) < 0.01
    unrelated = rng.normal(size=rate.shape)
    truth = pearson_r2(rate, unrelated).mean()
    assert abs(noise_corrected_r2(responses, unrelated).mean() - truth) < 0.001


def test_median_form_is_biased_for_unequal_repeats():
    rng = np.random.default_rng(4)
    counts = np.where(np.arange(300) < 120, 2, 12)
    responses, predictions = simulate(rng, 300, 500, counts, noise="poisson", snr=1.0)
    assert abs(noise_corrected_r2(responses, predictions).mean() - 0.5) < 0.01
    assert noise_corrected_r2(responses, predictions, repeats="median").mean() < 0.46


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.floats(0.01, 100), st.booleans(), st.floats(-100, 100))
def test_affine_maps_of_predictions_and_scaling_of_responses_change_nothing(
    seed, slope, flip, offset
):
    responses, predictions = ragged(seed)
    moved = (-slope if flip else slope) * predictions + offset
    for score in (noise_corrected_r2, lambda r, p: pearson_r2(r[:, 0], p)):
        expected = score(responses, predictions)
        np.testing.assert_allclose(score(responses, moved), expected, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(
            score(slope * responses + offset, predictions), expected, rtol=1e-6, atol=1e-8
        )


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.permutations(range(3)), st.permutations(range(20)), st.integers(0, 3))
def test_neuron_and_stimulus_order_and_padding_change_nothing(seed, neurons, stimuli, n_padding):
    responses, predictions = ragged(seed)
    padding = np.full((20, n_padding, 3), np.nan)
    padded = np.concatenate([responses, padding], axis=1)[:, :, neurons]
    expected = noise_corrected_r2(responses, predictions)[neurons]
    actual = noise_corrected_r2(padded[stimuli], predictions[:, neurons][stimuli])
    np.testing.assert_allclose(actual, expected, rtol=1e-8, atol=1e-10)
    expected = split_half_reliability(responses, rng=np.random.default_rng(0))[neurons]
    actual = split_half_reliability(padded, rng=np.random.default_rng(0))
    np.testing.assert_allclose(actual, expected, rtol=1e-10)


def test_what_cannot_be_computed_is_nan_and_spoils_no_other_neuron():
    rng = np.random.default_rng(5)
    predictions = rng.normal(size=(40, 6))
    responses = predictions[:, None] + rng.normal(size=(40, 4, 6))
    good = noise_corrected_r2(responses, predictions)
    responses[:, :, 1] = np.nan  # never recorded
    responses[:, :, 2] = 0.1  # constant
    responses[:, 1:, 3] = np.nan  # single repeats
    predictions[:, 4] = 0.1
    predictions[7, 5] = np.nan
    bad = [False, True, True, True, True, True]
    for repeats in ("per-stimulus", "median"):
        values = noise_corrected_r2(responses, predictions, repeats=repeats)
        np.testing.assert_array_equal(np.isnan(values), bad)
    np.testing.assert_allclose(noise_corrected_r2(responses, predictions)[0], good[0])
    assert np.isnan(brainscore_r2(responses, predictions, rng=rng)).tolist() == bad
    assert np.isnan(signal_to_noise(responses)).tolist() == [False, True, True, True, False, False]
    single = pearson_r2(responses[:, 0], predictions)
    assert np.isnan(single).tolist() == [False, True, True, False, True, True]


def test_noise_as_large_as_the_variance_over_stimuli_is_nan():
    responses = np.array([[0.0, 4.0], [4.0, 0.0], [1.0, 3.0], [3.0, 2.0]])[:, :, None]
    predictions = np.arange(4.0)[:, None]
    assert np.isnan(noise_corrected_r2(responses, predictions)).all()


def test_scores_are_not_clipped():
    rng = np.random.default_rng(6)
    responses, predictions = simulate(
        rng, 60, 300, np.full(60, 3), noise="gaussian", snr=0.5, true=1.0
    )
    assert noise_corrected_r2(responses, predictions).max() > 1
    assert noise_corrected_r2(responses, rng.normal(size=predictions.shape)).min() < 0


def test_float32_is_summed_in_float64():
    responses, predictions = ragged(7)
    narrow = noise_corrected_r2(responses.astype(np.float32), predictions.astype(np.float32))
    assert narrow.dtype == np.float64
    np.testing.assert_allclose(narrow, noise_corrected_r2(responses, predictions), atol=1e-5)


def test_too_few_repeats_are_refused():
    with pytest.raises(MissingRepeatsError, match=r"too few repeats.*at most 1"):
        noise_corrected_r2(np.zeros((5, 1, 2)), np.zeros((5, 2)))
    with pytest.raises(MissingRepeatsError, match=r"too few repeats.*at most 0"):
        signal_to_noise(np.full((5, 3, 2), np.nan))


@pytest.mark.parametrize(
    ("responses", "predictions", "message"),
    [
        (np.zeros((5, 2)), np.zeros((5, 2)), "got shape"),
        (np.zeros((2, 3, 1)), np.zeros((2, 1)), "at least 3 stimuli, got 2"),
        (np.full((5, 3, 1), np.inf), np.zeros((5, 1)), "15 infinite"),
        (np.zeros((5, 3, 1)), np.full((5, 1), np.inf), "5 infinite"),
        (np.zeros((5, 3, 2)), np.zeros((5, 1)), "got shape"),
    ],
)
def test_bad_input_is_refused(responses, predictions, message):
    with pytest.raises((InputError, TypeCheckError)) as caught:
        noise_corrected_r2(responses, predictions)
    if isinstance(caught.value, InputError):
        assert message in str(caught.value)


def test_bad_settings_are_refused():
    responses, predictions = ragged(0)
    with pytest.raises((InputError, TypeCheckError)):
        noise_corrected_r2(responses, predictions, repeats="mean")
    with pytest.raises(InputError, match="n_splits"):
        split_half_reliability(responses, rng=np.random.default_rng(0), n_splits=0)


def test_pearson_r2_equals_numpy():
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(2, 30, 4)) + 1e3
    expected = [np.corrcoef(x[:, j], y[:, j])[0, 1] ** 2 for j in range(4)]
    np.testing.assert_allclose(pearson_r2(y, x), expected, rtol=1e-8)
    y[:10, 0] = np.nan
    np.testing.assert_allclose(pearson_r2(y, x)[0], np.corrcoef(x[10:, 0], y[10:, 0])[0, 1] ** 2)


def loop_split_half(responses, rng, n_splits):
    """One neuron, stimulus and split at a time, from the same random keys."""
    n_stimuli, n_repeats, n_neurons = responses.shape
    c = np.zeros(n_neurons)
    for _ in range(n_splits):
        keys = rng.random((n_stimuli, n_repeats))
        for j in range(n_neurons):
            halves = []
            for row, key in zip(responses[:, :, j], keys, strict=True):
                trials = row[np.argsort(key)]
                trials = trials[~np.isnan(trials)]
                half = trials.size // 2
                if half:
                    halves.append((trials[:half].mean(), trials[half : 2 * half].mean()))
            c[j] += np.corrcoef(*np.array(halves).T)[0, 1] / n_splits
    return c


@pytest.mark.parametrize("shared", [True, False])
def test_split_half_and_brainscore_equal_loop(shared):
    responses, predictions = ragged(9)
    if shared:
        responses[np.isnan(responses).any(axis=2)] = np.nan
    c = loop_split_half(responses, np.random.default_rng(1), 7)
    sb = 2 * c / (1 + c)
    for corrected, expected in ((False, c), (True, sb)):
        actual = split_half_reliability(
            responses, rng=np.random.default_rng(1), n_splits=7, corrected=corrected
        )
        np.testing.assert_allclose(actual, expected, rtol=1e-10)
    y = np.nanmean(responses, axis=1)
    r2 = [np.corrcoef(predictions[:, j], y[:, j])[0, 1] ** 2 for j in range(3)]
    actual = brainscore_r2(responses, predictions, rng=np.random.default_rng(1), n_splits=7)
    np.testing.assert_allclose(actual, r2 / sb, rtol=1e-10)


def test_spearman_brown_is_the_reliability_of_the_mean():
    rng = np.random.default_rng(10)
    responses = rng.normal(size=(3000, 1, 5)) + rng.normal(size=(3000, 6, 5))
    c = split_half_reliability(responses, rng=rng, corrected=False)
    np.testing.assert_allclose(c, 1 / (1 + 1 / 3), atol=0.02)
    sb = split_half_reliability(responses, rng=rng)
    np.testing.assert_allclose(sb, 1 / (1 + 1 / 6), atol=0.02)


def test_brainscore_agrees_with_noise_corrected_r2_for_many_equal_repeats():
    rng = np.random.default_rng(11)
    responses, predictions = simulate(rng, 300, 100, np.full(300, 10), noise="poisson", snr=1.0)
    difference = brainscore_r2(responses, predictions, rng=rng) - noise_corrected_r2(
        responses, predictions
    )
    assert abs(difference.mean()) < 0.01


def test_signal_to_noise_equals_the_published_form_for_equal_repeats():
    rng = np.random.default_rng(12)
    responses = rng.normal(size=(50, 1, 3)) + rng.normal(size=(50, 5, 3))
    s2 = responses.var(axis=1, ddof=1).mean(axis=0)
    expected = (responses.mean(axis=1).var(axis=0) - 49 / 50 * s2 / 5) / s2
    for repeats in ("per-stimulus", "median"):
        np.testing.assert_allclose(signal_to_noise(responses, repeats=repeats), expected)


@pytest.mark.parametrize("snr", [0.0, 0.25, 1.0])
def test_signal_to_noise_is_unbiased_for_unequal_repeats(snr):
    rng = np.random.default_rng(13)
    counts = rng.integers(1, 9, size=300)
    signal = rng.normal(size=(300, 400))
    signal = (signal - signal.mean(axis=0)) / signal.std(axis=0)
    responses = np.sqrt(snr) * signal[:, None] + rng.normal(size=(300, 8, 400))
    responses[np.arange(8) >= counts[:, None]] = np.nan
    assert abs(signal_to_noise(responses).mean() - snr) < 0.01


@pytest.mark.parametrize("name", ["r2", "reliability", "bootstrap"])
def test_examples_run(name):
    module = importlib.import_module(f"pocketcortex.metrics.{name}")
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
