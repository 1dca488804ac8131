"""Factorized maps: planted weights come back, the loss falls, choices stay inside fit."""

import doctest

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.utils.estimator_checks import parametrize_with_checks

from pocketcortex.core.errors import InputError
from pocketcortex.mapping import FactorizedMapping, factorized_estimator
from pocketcortex.mapping._factorized import RankOne, alternate, rank_one_of_ridge

SOLVERS = ["alternating", "gradient"]


def planted(n_stimuli=300, n_neurons=4, noise=0.5, seed=0, shape=(12, 5, 4)):
    """Maps, responses (noise in units of the signal's sd), and the weights that made them."""
    rng = np.random.default_rng(seed)
    channels, rows, columns = shape
    X = rng.normal(size=(n_stimuli, *shape)) + rng.normal(size=shape)
    centre = rng.uniform(0.5, 3, size=(n_neurons, 2))
    i, j = np.mgrid[:rows, :columns]
    spatial = np.exp(-((i - centre[:, :1, None]) ** 2 + (j - centre[:, 1:, None]) ** 2))
    mixing = rng.normal(size=(n_neurons, channels))
    signal = np.einsum("skij,nk,nij->sn", X, mixing, spatial)
    Y = signal + noise * signal.std(axis=0) * rng.normal(size=signal.shape)
    return X, 3 * Y + 10, spatial, mixing


def correlations(a, b):
    return [
        np.corrcoef(x, y)[0, 1]
        for x, y in zip(a.reshape(len(a), -1), b.reshape(len(b), -1), strict=True)
    ]


@parametrize_with_checks(
    [
        FactorizedMapping(inner_folds=2),
        FactorizedMapping(solver="gradient", inner_folds=2, lambda_mix=0.01, lambda_spatial=0.01),
    ]
)
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


def test_held_out_predictions_do_not_see_their_own_response():
    X, Y, *_ = planted(n_neurons=2)
    changed = Y.copy()
    changed[7] += 1000
    penalties = {"relative_penalties": (0.2, 0.2000001)}  # the choice is not the point here
    before = FactorizedMapping(**penalties).fit(X, Y).held_out_predictions_
    after = FactorizedMapping(**penalties).fit(X, changed).held_out_predictions_
    np.testing.assert_allclose(after[7], before[7], rtol=0, atol=1e-2 * Y.std())
    assert np.abs(after - before).max() > Y.std()  # other folds do see it
    assert min(correlations(before.T, Y.T)) > 0.8
    one = FactorizedMapping(relative_penalties=(0.2,)).fit(X, Y)
    assert not hasattr(one, "held_out_predictions_")


@pytest.mark.parametrize("solver", SOLVERS)
def test_planted_weights_come_back(solver):
    X, Y, spatial, mixing = planted()
    mapping = FactorizedMapping(solver=solver).fit(X, Y)
    assert mapping.spatial_.shape == (4, 5, 4)
    assert mapping.mixing_.shape == (4, 12)
    assert min(correlations(mapping.spatial_, spatial)) > 0.95
    assert min(correlations(mapping.mixing_, mixing)) > 0.95
    new, responses, *_ = planted(seed=0, noise=0)
    assert min(correlations(mapping.predict(new).T, responses.T)) > 0.97
    norms = [np.linalg.norm(w.reshape(4, -1), axis=1) for w in (mapping.spatial_, mapping.mixing_)]
    np.testing.assert_allclose(*norms)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("n_components", [None, 7])
def test_predictions_are_the_formula_in_the_responses_units(solver, n_components):
    X, Y, *_ = planted(80)
    mapping = FactorizedMapping(solver=solver, n_components=n_components, max_steps=5).fit(X, Y)
    expected = np.einsum("skij,nk,nij->sn", X, mapping.mixing_, mapping.spatial_)
    np.testing.assert_allclose(mapping.predict(X), expected + mapping.intercept_)
    np.testing.assert_allclose(mapping.predict(X).mean(axis=0), Y.mean(axis=0))
    scaled = FactorizedMapping(solver=solver, n_components=n_components, max_steps=5)
    scaled.fit(X, 100 * Y - 7)
    np.testing.assert_allclose(scaled.predict(X), 100 * mapping.predict(X) - 7, rtol=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3), st.sampled_from([8, 60]))
def test_loss_falls_at_every_step(seed, penalty, channels):
    rng = np.random.default_rng(seed)
    A = torch.from_numpy(rng.normal(size=(6, 30, channels)))
    Y = torch.from_numpy(rng.normal(size=(30, 5)))
    start = RankOne(
        torch.from_numpy(rng.normal(size=(5, 6))), torch.from_numpy(rng.normal(size=(5, channels)))
    )
    penalties = torch.full((5,), penalty, dtype=torch.float64)
    weights, steps, loss = alternate(A, Y, start, penalties, max_steps=30, tol=1e-9)
    assert (loss.diff(dim=0) <= 1e-9 * loss[0]).all()
    predicted = torch.einsum("pik,nk,np->in", A, weights.mixing, weights.spatial)
    size = weights.mixing.square().sum(1) * weights.spatial.square().sum(1)
    expected = (Y - predicted).square().sum(0) + penalties * size
    torch.testing.assert_close(loss[-1], expected)
    assert ((steps >= 1) & (steps <= 30)).all()


def test_neurons_do_not_influence_each_other(monkeypatch):
    X, Y, *_ = planted(60, 6)
    together = FactorizedMapping().fit(X, Y)
    monkeypatch.setattr("pocketcortex.mapping._factorized._VALUES_AT_ONCE", 60 * 12 * 2)
    np.testing.assert_allclose(FactorizedMapping().fit(X, Y).mixing_, together.mixing_, rtol=1e-6)
    alone = FactorizedMapping().fit(X, Y[:, 2])
    np.testing.assert_allclose(alone.mixing_, together.mixing_[2], rtol=1e-6)
    np.testing.assert_allclose(alone.predict(X), together.predict(X)[:, 2], rtol=1e-6)


def test_start_is_the_first_singular_pair():
    weights = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 6, 9)))
    start = rank_one_of_ridge(weights)
    left, singular, right = torch.linalg.svd(weights, full_matrices=False)
    best = singular[:, 0, None, None] * left[:, :, :1] * right[:, :1]
    torch.testing.assert_close(start.spatial[:, :, None] * start.mixing[:, None], best)
    torch.testing.assert_close(start.spatial.norm(dim=1), start.mixing.norm(dim=1))


def test_one_position_is_ridge():
    X, Y, *_ = planted(60, shape=(12, 4, 4))
    flat = X[:, :, 0, 0]
    mapping = FactorizedMapping(relative_penalties=[1.0]).fit(flat, Y)
    for neuron, alpha in enumerate(mapping.ridge_alpha_):
        expected = Ridge(alpha).fit(flat, Y[:, neuron])
        np.testing.assert_allclose(mapping.predict(flat)[:, neuron], expected.predict(flat))


def test_flat_and_narrow_maps_give_the_same():
    X, Y, *_ = planted(60)
    mapping = FactorizedMapping().fit(X, Y)
    flat = FactorizedMapping(map_shape=(12, 5, 4)).fit(X.reshape(60, -1), Y)
    np.testing.assert_array_equal(flat.spatial_, mapping.spatial_)
    np.testing.assert_array_equal(flat.predict(X.reshape(60, -1)), mapping.predict(X))
    narrow = FactorizedMapping().fit(X.astype(np.float32), Y)
    np.testing.assert_allclose(narrow.predict(X.astype(np.float32)), mapping.predict(X), rtol=1e-2)
    half = FactorizedMapping().fit(X.astype(np.float16), Y)
    assert np.isfinite(half.predict(X.astype(np.float16))).all()


def test_stronger_penalties_shrink():
    X, Y, *_ = planted(60)
    size = [
        np.linalg.norm(FactorizedMapping(relative_penalties=[p]).fit(X, Y).mixing_)
        for p in (0.1, 1.0, 10.0)
    ]
    assert size[0] > size[1] > size[2]


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"solver": "newton"}, "solver must be"),
        ({"n_components": 0}, "n_components must be"),
        ({"max_steps": 0}, "max_steps must be"),
        ({"relative_penalties": [0.0]}, "relative_penalties must be"),
        ({"solver": "gradient", "lambda_mix": -1.0}, "lambda_mix"),
        ({"inner_folds": 1}, "inner_folds must be"),
        ({"inner_folds": 99}, "inner_folds must be"),
        ({"map_shape": (3, 3, 3)}, "map_shape"),
    ],
)
def test_bad_settings_are_refused(settings_, message):
    X, Y, *_ = planted(20)
    with pytest.raises(InputError, match=message):
        FactorizedMapping(**settings_).fit(X, Y)


def test_bad_maps_and_responses_are_refused():
    X, Y, *_ = planted(20)
    with pytest.raises(InputError, match="constant column"):
        FactorizedMapping().fit(X, np.where(np.arange(4) == 2, 1.0, Y))
    with pytest.raises(InputError, match="targets must be finite"):
        FactorizedMapping().fit(X, np.where(np.arange(4) == 2, np.nan, Y))
    bad = X.copy()
    bad[0, 1, 0, 0] = np.nan
    with pytest.raises(InputError, match=r"features must be finite.*first \[20\]"):
        FactorizedMapping().fit(bad, Y)
    with pytest.raises(InputError, match="X must be"):
        FactorizedMapping().fit(X[..., 0], Y)
    mapping = FactorizedMapping(relative_penalties=[1.0]).fit(X, Y)
    with pytest.raises(InputError, match="maps must be"):
        mapping.predict(X[..., :2])
    with pytest.raises(InputError, match="features must be finite"):
        mapping.predict(bad)


def test_examples_run():
    result = doctest.testmod(factorized_estimator)
    assert result.attempted > 0
    assert result.failed == 0
