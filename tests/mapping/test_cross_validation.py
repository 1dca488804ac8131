"""Nested cross-validation: nothing of the test fold is seen; scores of noise lie about 0."""

import numpy as np
import pytest
from jaxtyping import TypeCheckError
from sklearn.linear_model import Ridge

from pocketcortex.core.errors import InputError
from pocketcortex.mapping import (
    FactorizedMapping,
    PLSMapping,
    RidgeLOO,
    cross_val_predict_mapping,
    fit_ridge_loo,
    recentre_held_out,
    stimulus_folds,
)

ESTIMATORS = [
    RidgeLOO(),
    RidgeLOO(inner_folds=3),
    RidgeLOO(standardize=True),
    FactorizedMapping((10, 3, 3), inner_folds=2),
    FactorizedMapping((10, 3, 3), solver="gradient", inner_folds=2, max_steps=10),
    PLSMapping(inner_folds=2),
    Ridge(10.0),
]


def problem(n_stimuli=48, n_targets=4, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_stimuli, 90))
    return X, X[:, :n_targets] * 2 + rng.normal(size=(n_stimuli, n_targets)) + 5


def correlation(Y, predictions):
    return np.array([np.corrcoef(y, p)[0, 1] for y, p in zip(Y.T, predictions.T, strict=True)])


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_targets_of_the_test_fold_are_not_seen(estimator):
    X, Y = problem()
    folds = stimulus_folds(48, n_folds=3, rng=np.random.default_rng(1))
    clean = cross_val_predict_mapping(estimator, X, Y, n_folds=3, rng=np.random.default_rng(1))
    poisoned = Y + np.where(folds == 1, 1e3 * np.arange(48) ** 2, 0)[:, None]
    after = cross_val_predict_mapping(
        estimator, X, poisoned, n_folds=3, rng=np.random.default_rng(1)
    )
    np.testing.assert_array_equal(after[folds == 1], clean[folds == 1])
    assert not np.allclose(after[folds == 0], clean[folds == 0])
    assert not hasattr(estimator, "n_features_in_")


@pytest.mark.parametrize("estimator", ESTIMATORS[:-1], ids=lambda e: type(e).__name__)
def test_groups_reach_the_inner_choice(estimator):
    X, Y = problem()
    groups = np.repeat(np.arange(24), 2)
    predictions = cross_val_predict_mapping(
        estimator, X, Y, n_folds=3, rng=np.random.default_rng(1), groups=groups
    )
    folds = stimulus_folds(48, n_folds=3, rng=np.random.default_rng(1), groups=groups)
    train, test = folds != 2, folds == 2
    expected = estimator.__class__(**estimator.get_params())
    expected.fit(X[train], Y[train], groups=groups[train])
    np.testing.assert_allclose(predictions[test], expected.predict(X[test]), rtol=1e-7)


def test_inner_folds_of_ridge_are_those_dealt_out():
    X, Y = problem()
    ridge = RidgeLOO(inner_folds=4).fit(X, Y)
    expected = fit_ridge_loo(X, Y, groups=np.arange(48) % 4)
    np.testing.assert_array_equal(ridge.alpha_, expected.alpha)
    np.testing.assert_array_equal(ridge.held_out_predictions_, expected.held_out_predictions)
    assert not hasattr(ridge, "loo_predictions_")


NOISE_STIMULI = 119


@pytest.fixture(scope="module")
def noise():
    rng = np.random.default_rng(0)
    return rng.normal(size=(NOISE_STIMULI, 4096)), rng.normal(size=(NOISE_STIMULI, 1000))


@pytest.mark.parametrize(("alpha", "raw"), [(1.0, -0.05), (1e4, -0.2), (1e7, -1.0)])
def test_leave_one_out_correlation_of_noise_is_negative_and_mended(noise, alpha, raw):
    X, Y = noise
    held_out = fit_ridge_loo(X, Y, alphas=[alpha]).held_out_predictions
    assert correlation(Y, held_out).mean() == pytest.approx(raw, abs=0.05)
    mended = correlation(Y, recentre_held_out(Y, held_out))
    assert abs(mended.mean()) < 4 / np.sqrt(NOISE_STIMULI * 1000)
    # the covariance is what has expectation 0 exactly; -1 variance in the raw predictions
    product = (Y - Y.mean(axis=0)) * held_out
    assert product.sum(axis=0).mean() == pytest.approx(-1, abs=0.5 + 0.1 / alpha)


@pytest.mark.parametrize("alpha", [1.0, 1e7])
def test_k_fold_correlation_of_noise_is_centred(noise, alpha):
    X, Y = noise

    def scores(**kwargs):
        rng = np.random.default_rng(2)
        ridge = RidgeLOO([alpha])
        return correlation(Y, cross_val_predict_mapping(ridge, X, Y, n_folds=5, rng=rng, **kwargs))

    mended = scores(recentre=True)
    assert abs(mended.mean()) < 4 / np.sqrt(NOISE_STIMULI * 1000)
    # Two stimuli predict each other by the same product of features, so r² is up to twice 1/n.
    assert 0.9 < (mended**2).mean() * NOISE_STIMULI < 2.2
    assert scores().mean() < -0.03
    independent = correlation(Y, np.random.default_rng(3).normal(size=Y.shape))
    assert (independent**2).mean() * NOISE_STIMULI == pytest.approx(1, abs=0.15)


def test_recentring_is_the_training_mean_for_the_mean_of_all():
    rng = np.random.default_rng(0)
    Y, shape = rng.normal(size=(12, 3)), np.arange(12) % 5
    means = np.stack([Y[shape != fold].mean(axis=0) for fold in shape])
    rest = rng.normal(size=Y.shape)
    mended = recentre_held_out(Y, means + rest, folds=shape)
    np.testing.assert_allclose(mended, Y.mean(axis=0) + rest)


def test_bad_input_is_refused():
    X, Y = problem()
    rng = np.random.default_rng(0)
    with pytest.raises((InputError, TypeCheckError)):
        cross_val_predict_mapping(RidgeLOO(), X[:5], Y, rng=rng)
    with pytest.raises(InputError, match="n_folds must be"):
        cross_val_predict_mapping(RidgeLOO(), X, Y, n_folds=1, rng=rng)
    with pytest.raises(InputError, match="got one fold"):
        recentre_held_out(Y, Y, folds=np.zeros(48))
    with pytest.raises(InputError, match="one label a stimulus"):
        recentre_held_out(Y, Y, folds=np.zeros(4))
    with pytest.raises((InputError, TypeCheckError)):
        recentre_held_out(Y, Y[:, :2])
    for folds in (0, 1, 60):
        with pytest.raises(InputError, match="inner_folds must be"):
            RidgeLOO(inner_folds=folds).fit(X, Y)
