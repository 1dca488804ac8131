"""Ridge: exact left-out residuals, per-target alphas, nested cross-validation, estimator."""

import doctest
import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from pocketcortex.core.errors import InputError
from pocketcortex.mapping import (
    RidgeLOO,
    cross_val_predict_mapping,
    fit_ridge_loo,
    predict_ridge,
    ridge_coefficients,
    stimulus_folds,
)

SHAPES = [(30, 80), (30, 30), (30, 29), (30, 7), (2, 5)]


def problem(n_stimuli=30, n_features=80, n_targets=3, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_stimuli, n_features)) + rng.normal(size=n_features)
    weights = rng.normal(size=(n_features, n_targets)) / np.sqrt(n_features)
    return X, X @ weights + rng.normal(size=(n_stimuli, n_targets)) + 10


def refit_left_out(X, Y, alphas, groups):
    """Predictions of every group by scikit-learn's ridge fitted without it."""
    out = np.empty(Y.shape)
    for group in np.unique(groups):
        test = groups == group
        model = Ridge(alphas, solver="cholesky").fit(X[~test], Y[~test])
        out[test] = model.predict(X[test])
    return out


@parametrize_with_checks([RidgeLOO(), RidgeLOO(alphas=[0.1, 1.0], standardize=True)])
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


@pytest.mark.parametrize(("n_stimuli", "n_features"), SHAPES)
@pytest.mark.parametrize("alpha", [1e-3, 1.0, 1e4])
def test_left_out_predictions_equal_refits(n_stimuli, n_features, alpha):
    X, Y = problem(n_stimuli, n_features)
    fit = fit_ridge_loo(X, Y, alphas=[alpha])
    expected = refit_left_out(X, Y, alpha, np.arange(n_stimuli))
    np.testing.assert_allclose(fit.held_out_predictions, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("n_features", [80, 7])
def test_left_out_groups_equal_refits(n_features):
    X, Y = problem(30, n_features)
    groups = np.array(list("aaabbcddddefghijklmnopqrstuvwx"))
    fit = fit_ridge_loo(X, Y, alphas=[0.5], groups=groups)
    np.testing.assert_allclose(
        fit.held_out_predictions, refit_left_out(X, Y, 0.5, groups), rtol=1e-7
    )


@pytest.mark.parametrize("n_features", [80, 7])
def test_folds_as_groups_give_k_fold_selection(n_features):
    X, Y = problem(30, n_features)
    folds = stimulus_folds(30, n_folds=5, rng=np.random.default_rng(0))
    alphas = np.logspace(-2, 3, 6)
    fit = fit_ridge_loo(X, Y, alphas=alphas, groups=folds)
    errors = [((refit_left_out(X, Y, a, folds) - Y) ** 2).sum(axis=0) for a in alphas]
    np.testing.assert_allclose(fit.alpha, alphas[np.argmin(errors, axis=0)])


@pytest.mark.parametrize("n_features", [80, 7])
def test_alphas_coefficients_and_predictions_equal_scikit_learn(n_features):
    X, Y = problem(30, n_features)
    alphas = np.logspace(-2, 3, 11)
    ridge = RidgeLOO(alphas).fit(X, Y)
    reference = RidgeCV(alphas, alpha_per_target=True).fit(X, Y)
    np.testing.assert_allclose(ridge.alpha_, reference.alpha_)
    np.testing.assert_allclose(ridge.coef_, reference.coef_.T, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(ridge.intercept_, reference.intercept_)
    new = problem(9, n_features, seed=1)[0]
    np.testing.assert_allclose(ridge.predict(new), reference.predict(new))
    np.testing.assert_allclose(new @ ridge.coef_ + ridge.intercept_, ridge.predict(new))


@pytest.mark.parametrize("n_features", [80, 7])
def test_standardizing_equals_scaled_features(n_features):
    X, Y = problem(30, n_features)
    X *= np.logspace(-3, 3, n_features)
    X[:, 1] = 0.1  # constant: must stay harmless
    scaler = StandardScaler().fit(X)
    reference = RidgeLOO([1.0, 10.0]).fit(scaler.transform(X), Y)
    ridge = RidgeLOO([1.0, 10.0], standardize=True).fit(X, Y)
    np.testing.assert_allclose(ridge.alpha_, reference.alpha_)
    np.testing.assert_allclose(ridge.loo_predictions_, reference.loo_predictions_)
    new = problem(9, n_features, seed=1)[0]
    np.testing.assert_allclose(ridge.predict(new), reference.predict(scaler.transform(new)))


def test_many_blocks_and_float32_change_little(monkeypatch):
    X, Y = problem(40, 500)
    expected = RidgeLOO().fit(X, Y)
    for blocks, dtype, rtol in ((1000, np.float64, 1e-9), (1000, np.float32, 1e-4)):
        monkeypatch.setattr("pocketcortex.mapping._products._BLOCK", blocks)
        ridge = RidgeLOO().fit(X.astype(dtype), Y)
        assert ridge.coef_.dtype == dtype
        assert ridge.loo_predictions_.dtype == ridge.predict(X).dtype == np.float64
        np.testing.assert_allclose(ridge.alpha_, expected.alpha_, rtol=rtol)
        np.testing.assert_allclose(ridge.loo_predictions_, expected.loo_predictions_, rtol=rtol)
        np.testing.assert_allclose(ridge.predict(X), expected.predict(X), rtol=rtol)
    half = fit_ridge_loo(X.astype(np.float16), Y)
    assert np.isfinite(half.held_out_predictions).all()


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3), st.floats(-10, 10), st.sampled_from([80, 7])
)
def test_default_alphas_follow_the_scale_of_features(seed, scale, offset, n_features):
    X, Y = problem(30, n_features, seed=seed)
    one = fit_ridge_loo(X, Y)
    two = fit_ridge_loo(X * scale + offset, Y)
    np.testing.assert_allclose(two.alpha, one.alpha * scale**2, rtol=1e-6)
    np.testing.assert_allclose(two.held_out_predictions, one.held_out_predictions, rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.permutations(range(30)))
def test_order_of_stimuli_changes_nothing(seed, order):
    X, Y = problem(seed=seed)
    one, two = fit_ridge_loo(X, Y), fit_ridge_loo(X[order], Y[order])
    np.testing.assert_allclose(two.held_out_predictions, one.held_out_predictions[order], rtol=1e-6)


def test_arguments_are_left_as_they_are():
    X, Y = problem()
    copies = X.copy(), Y.copy()
    fit = fit_ridge_loo(X, Y, standardize=True)
    predict_ridge(X, ridge_coefficients(X, fit), fit)
    cross_val_predict_mapping(RidgeLOO(), X, Y, n_folds=3, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(X, copies[0])
    np.testing.assert_array_equal(Y, copies[1])


@pytest.mark.parametrize("n_features", [80, 7])
def test_constant_targets_and_features_predict_the_mean(n_features):
    X, Y = problem(30, n_features)
    Y[:, 1] = 0.1
    ridge = RidgeLOO().fit(X, Y)
    for predictions in (ridge.predict(X), ridge.loo_predictions_):
        assert (predictions[:, 1] == 0.1).all()
    assert (ridge.coef_[:, 1] == 0).all()
    assert ridge.alpha_[1] == ridge.alphas_.max()
    rng = np.random.default_rng(0)
    assert (cross_val_predict_mapping(RidgeLOO(), X, Y, n_folds=5, rng=rng)[:, 1] == 0.1).all()
    flat = RidgeLOO().fit(np.ones((30, n_features)), Y)
    np.testing.assert_allclose(flat.predict(X), np.broadcast_to(Y.mean(axis=0), Y.shape))


def test_one_dimensional_targets_drop_the_axis():
    X, Y = problem()
    one, all_ = RidgeLOO().fit(X, Y[:, 0]), RidgeLOO().fit(X, Y)
    assert np.ndim(one.alpha_) == np.ndim(one.intercept_) == 0
    np.testing.assert_allclose(one.coef_, all_.coef_[:, 0])
    np.testing.assert_allclose(one.loo_predictions_, all_.loo_predictions_[:, 0])


@pytest.mark.parametrize("n_features", [80, 7])
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
def test_cross_validation_is_nested(n_features, standardize, grouped):
    X, Y = problem(30, n_features)
    groups = np.repeat(np.arange(15), 2) if grouped else None
    predictions = cross_val_predict_mapping(
        RidgeLOO(standardize=standardize),
        X,
        Y,
        n_folds=4,
        rng=np.random.default_rng(3),
        groups=groups,
    )
    folds = stimulus_folds(30, n_folds=4, rng=np.random.default_rng(3), groups=groups)
    for fold in range(4):
        train, test = folds != fold, folds == fold
        fit = fit_ridge_loo(
            X[train],
            Y[train],
            standardize=standardize,
            groups=None if groups is None else groups[train],
        )
        expected = predict_ridge(X[test], ridge_coefficients(X[train], fit), fit)
        np.testing.assert_allclose(predictions[test], expected, rtol=1e-8)


def test_copies_of_an_image_do_not_leak():
    """Each image twice, with independent targets that only share the image: nothing to learn."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(60, 400))
    image_effect = rng.normal(size=(60, 8))
    X, Y = np.repeat(images, 2, axis=0), np.repeat(image_effect, 2, axis=0)
    Y = Y + 0.1 * rng.normal(size=Y.shape)
    groups = np.repeat(np.arange(60), 2)

    def score(**kwargs):
        predictions = cross_val_predict_mapping(RidgeLOO(), X, Y, n_folds=6, rng=rng, **kwargs)
        return np.mean([np.corrcoef(p, y)[0, 1] for p, y in zip(predictions.T, Y.T, strict=True)])

    assert score() > 0.8
    assert score(groups=groups) < 0.1


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 20), min_size=10, max_size=60), st.integers(2, 4), st.integers(0, 99)
)
def test_folds_keep_groups_whole_and_lose_no_stimulus(labels, n_folds, seed):
    groups = np.array(labels)
    rng = np.random.default_rng(seed)
    if np.unique(groups).size < n_folds:
        with pytest.raises(InputError, match="n_folds must be from 2"):
            stimulus_folds(groups.size, n_folds=n_folds, rng=rng, groups=groups)
        return
    folds = stimulus_folds(groups.size, n_folds=n_folds, rng=rng, groups=groups)
    assert set(folds) == set(range(n_folds))
    assert all(np.unique(folds[groups == label]).size == 1 for label in groups)
    plain = np.bincount(stimulus_folds(groups.size, n_folds=n_folds, rng=rng))
    assert plain.max() - plain.min() <= 1


def test_targets_with_nan_are_refused_by_column():
    X, Y = problem()
    Y[3, 2] = np.nan
    rng = np.random.default_rng(0)
    for attempt in (
        lambda: fit_ridge_loo(X, Y),
        lambda: RidgeLOO().fit(X, Y),
        lambda: cross_val_predict_mapping(RidgeLOO(), X, Y, n_folds=3, rng=rng),
    ):
        with pytest.raises(InputError, match=r"1 of 3 column\(s\), first \[2\]"):
            attempt()


@pytest.mark.parametrize("n_features", [80, 7])
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_with_nan_are_refused_by_column(n_features, standardize, bad):
    X, Y = problem(30, n_features)
    X[0, 5] = bad
    with pytest.raises(InputError, match=r"1 feature\(s\), first \[5\]"):
        fit_ridge_loo(X, Y, standardize=standardize)


@pytest.mark.parametrize("alphas", [[], [0.0], [-1.0, 1.0], [np.nan], [[1.0], [2.0]]])
def test_bad_alphas_are_refused(alphas):
    with pytest.raises(InputError, match="alphas must be"):
        fit_ridge_loo(*problem(), alphas=alphas)


def test_bad_shapes_and_groups_are_refused():
    X, Y = problem()
    for features, targets in ((X[:20], Y), (X, Y[:, 0]), (X[:1], Y[:1])):
        with pytest.raises((InputError, TypeCheckError)):
            fit_ridge_loo(features, targets)
    with pytest.raises(InputError, match="got one group"):
        fit_ridge_loo(X, Y, groups=np.zeros(30))
    with pytest.raises(InputError, match="one label a stimulus"):
        stimulus_folds(30, n_folds=3, rng=np.random.default_rng(0), groups=np.zeros(4))
    fit = fit_ridge_loo(X, Y)
    with pytest.raises(InputError, match="X must be the features"):
        ridge_coefficients(X[:5], fit)
    with pytest.raises((InputError, TypeCheckError)):
        predict_ridge(X[:, :5], ridge_coefficients(X, fit), fit)


@pytest.mark.parametrize("name", ["ridge", "ridge_estimator", "cross_validation", "folds"])
def test_examples_run(name):
    result = doctest.testmod(importlib.import_module(f"pocketcortex.mapping.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
