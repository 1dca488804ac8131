"""Percentile intervals over stimuli and over neurons."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from pocketcortex.core.errors import InputError, MissingRepeatsError
from pocketcortex.metrics import (
    bootstrap_ci,
    bootstrap_median_ci,
    bootstrap_noise_corrected_r2_ci,
    noise_corrected_r2,
    pearson_r2,
)
from pocketcortex.metrics._weighted import stimulus_terms, weighted_r2
from pocketcortex.metrics.bootstrap import _defined_interval


def recordings(seed, n_stimuli=80, n_neurons=3, n_repeats=4):
    rng = np.random.default_rng(seed)
    mean, other = rng.normal(size=(2, n_stimuli, n_neurons))
    responses = mean[:, None] + rng.normal(size=(n_stimuli, n_repeats, n_neurons))
    return responses, mean + other  # true r² 0.5


def test_bootstrap_ci_equals_loop():
    responses, predictions = recordings(0)
    y = responses.mean(axis=1)
    rng = np.random.default_rng(1)
    values = []
    for _ in range(50):
        drawn = rng.integers(80, size=80)
        values.append(
            [np.corrcoef(y[drawn, j], predictions[drawn, j])[0, 1] ** 2 for j in range(3)]
        )
    low, high = bootstrap_ci(
        pearson_r2, y, predictions, rng=np.random.default_rng(1), n_resamples=50, level=0.8
    )
    np.testing.assert_allclose(low, np.quantile(values, 0.1, axis=0))
    np.testing.assert_allclose(high, np.quantile(values, 0.9, axis=0))


def test_bootstrap_ci_takes_any_statistic_and_several_arrays():
    values = np.arange(30.0)
    low, high = bootstrap_ci(np.mean, values, rng=np.random.default_rng(0))
    assert low.shape == high.shape == ()
    assert low < values.mean() < high
    standard_error = values.std() / np.sqrt(30)
    assert abs((high - low) / (2 * 1.96 * standard_error) - 1) < 0.15


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_weights_count_copies(seed):
    """Weighting equals stacking copies, apart from the noise the copies share."""
    responses, predictions = recordings(seed, n_stimuli=12, n_neurons=2)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(12, np.full(12, 1 / 12)).astype(float)
    mean = responses.mean(axis=1)
    noise = responses.var(axis=1, ddof=1) / 4
    actual = weighted_r2(stimulus_terms(mean, noise, predictions), weights[None])[0]
    w = weights[:, None]
    x = predictions - (w * predictions).sum(0) / 12
    y = mean - (w * mean).sum(0) / 12
    numerator = (w * x * y).sum(0) ** 2 - (w**2 * x**2 * noise).sum(0)
    explainable = (w * y**2).sum(0) - ((w - w**2 / 12) * noise).sum(0)
    expected = np.where(explainable > 0, numerator / ((w * x**2).sum(0) * explainable), np.nan)
    np.testing.assert_allclose(actual, expected, rtol=1e-8)


def test_the_fast_path_resamples_without_bias():
    """Its resamples centre on the estimate; those of the generic path are too high."""
    responses, predictions = recordings(2, n_stimuli=60, n_neurons=150)
    estimate = noise_corrected_r2(responses, predictions)
    low, high = bootstrap_noise_corrected_r2_ci(
        responses, predictions, rng=np.random.default_rng(0), n_resamples=400
    )
    generic_low, generic_high = bootstrap_ci(
        noise_corrected_r2, responses, predictions, rng=np.random.default_rng(0), n_resamples=100
    )
    middle = ((low + high) / 2 - estimate).mean()
    assert abs(middle) < 0.02
    assert ((generic_low + generic_high) / 2 - estimate).mean() > middle


def test_result_does_not_depend_on_how_resamples_are_batched(monkeypatch):
    responses, predictions = recordings(4)
    whole = bootstrap_noise_corrected_r2_ci(responses, predictions, rng=np.random.default_rng(0))
    monkeypatch.setattr("pocketcortex.metrics.bootstrap._CHUNK", 1000)
    parts = bootstrap_noise_corrected_r2_ci(responses, predictions, rng=np.random.default_rng(0))
    np.testing.assert_allclose(whole, parts, rtol=1e-10)


def test_neurons_without_a_score_have_no_interval():
    responses, predictions = recordings(5)
    responses[:, :, 1] = np.nan
    predictions[:, 2] = 1.0
    for low, high in (
        bootstrap_noise_corrected_r2_ci(responses, predictions, rng=np.random.default_rng(0)),
        bootstrap_ci(
            noise_corrected_r2, responses, predictions, rng=np.random.default_rng(0), n_resamples=9
        ),
    ):
        assert np.isnan(low).tolist() == np.isnan(high).tolist() == [False, True, True]
    with pytest.raises(MissingRepeatsError):
        bootstrap_noise_corrected_r2_ci(responses[:, :1], predictions, rng=np.random.default_rng(0))


def test_the_fast_path_equals_a_loop_with_missing_repeats_and_stimuli():
    """One resample and neuron at a time, from the draws it documents."""
    responses, predictions = recordings(7, n_stimuli=150)
    responses[::3, 2:] = np.nan
    responses[4, :, 1] = np.nan  # not shown to the second neuron
    rng = np.random.default_rng(8)
    values = []
    for drawn in rng.integers(150, size=(200, 150)):
        w = np.bincount(drawn, minlength=150).astype(float)
        values.append([loop_weighted(responses[:, :, j], predictions[:, j], w) for j in range(3)])
    low, high = bootstrap_noise_corrected_r2_ci(
        responses, predictions, rng=np.random.default_rng(8), n_resamples=200, level=0.9
    )
    np.testing.assert_allclose(low, np.quantile(values, 0.05, axis=0), rtol=1e-9)
    np.testing.assert_allclose(high, np.quantile(values, 0.95, axis=0), rtol=1e-9)


def loop_weighted(responses, x, w):
    shown = [i for i, row in enumerate(responses) if not np.isnan(row).all()]
    trials = [responses[i][~np.isnan(responses[i])] for i in shown]
    y = np.array([t.mean() for t in trials])
    v = np.array([t.var(ddof=1) / t.size for t in trials])
    x, w = x[shown], w[shown]
    m = w.sum()
    x, y = x - w @ x / m, y - w @ y / m
    numerator = (w * x @ y) ** 2 - w**2 @ (x**2 * v)
    return numerator / (w @ x**2 * (w @ y**2 - (w - w**2 / m) @ v))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_offsets_and_units_do_not_move_the_interval(scale, offset):
    responses, predictions = recordings(9)
    expected = bootstrap_noise_corrected_r2_ci(responses, predictions, rng=np.random.default_rng(0))
    moved = bootstrap_noise_corrected_r2_ci(
        scale * (responses + offset), scale * (predictions + offset), rng=np.random.default_rng(0)
    )
    np.testing.assert_allclose(moved, expected, rtol=1e-6 if offset else 1e-9, atol=1e-9)


def test_a_few_resamples_without_a_score_count_as_beyond_both_ends():
    values = np.arange(101.0)[:, None] * np.ones(4)
    values[:1, 1] = values[:3, 2] = values[:, 3] = np.nan
    low, high = _defined_interval(values, 0.96)
    np.testing.assert_allclose(low, [2.0, 2.0, np.nan, np.nan])
    np.testing.assert_allclose(high, [98.0, 99.0, np.nan, np.nan])


def test_a_neuron_that_is_mostly_noise_keeps_its_interval():
    rng = np.random.default_rng(10)
    mean = 0.5 * rng.normal(size=(60, 100))
    responses = mean[:, None] + rng.normal(size=(60, 4, 100))
    args = (responses, mean)
    low, high = bootstrap_noise_corrected_r2_ci(*args, rng=np.random.default_rng(0))
    generic, _ = bootstrap_ci(
        noise_corrected_r2, *args, rng=np.random.default_rng(0), n_resamples=200
    )
    lost = np.isnan(low) | np.isnan(high)
    assert lost.sum() < np.isnan(generic).sum()
    assert lost[np.isnan(noise_corrected_r2(*args))].all()


def test_median_ci():
    rng = np.random.default_rng(6)
    scores = rng.normal(0.5, 0.1, size=400)
    scores[::4] = np.nan
    low, high = bootstrap_median_ci(scores, rng=rng)
    assert low < np.nanmedian(scores) < high
    expected = 2 * 1.96 * 1.2533 * 0.1 / np.sqrt(300)  # sd of a normal sample's median
    assert abs((high - low) / expected - 1) < 0.4
    assert np.isnan(bootstrap_median_ci(np.full(5, np.nan), rng=rng)).all()


@pytest.mark.parametrize(
    ("arrays", "settings_", "message"),
    [
        ((), {}, "at least one array"),
        ((np.zeros(3), np.zeros(4)), {}, "same number of stimuli"),
        ((np.zeros(0),), {}, "at least 1"),
        ((np.zeros(3),), {"n_resamples": 1}, "n_resamples must be at least 2, got 1"),
        ((np.zeros(3),), {"level": 95.0}, "level must be between 0 and 1"),
    ],
)
def test_bad_input_is_refused(arrays, settings_, message):
    with pytest.raises(InputError, match=message):
        bootstrap_ci(np.mean, *arrays, rng=np.random.default_rng(0), **settings_)


def test_bad_scores_are_refused():
    with pytest.raises((InputError, TypeCheckError)):
        bootstrap_median_ci(np.zeros((2, 2)), rng=np.random.default_rng(0))
    with pytest.raises(InputError, match="1 infinite"):
        bootstrap_median_ci(np.array([0.1, np.inf]), rng=np.random.default_rng(0))
