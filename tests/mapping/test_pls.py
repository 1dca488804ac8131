"""PLS: scikit-learn's answer, from coordinates along the kernel's eigenvectors."""

import doctest

import numpy as np
import pytest
from sklearn.cross_decomposition import PLSRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.utils.estimator_checks import parametrize_with_checks

from pocketcortex.core.errors import InputError
from pocketcortex.mapping import PLSMapping, pls
from pocketcortex.mapping.folds import inner_folds_of


def problem(n_stimuli=40, n_features=90, n_targets=3, seed=0):
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(n_stimuli, 4))
    X = latent @ rng.normal(size=(4, n_features)) + rng.normal(size=(n_stimuli, n_features)) + 5
    return X, latent[:, :n_targets] + 0.5 * rng.normal(size=(n_stimuli, n_targets)) + 10


@parametrize_with_checks([PLSMapping(inner_folds=2), PLSMapping(1, scale=True)])
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


@pytest.mark.parametrize("n_features", [90, 12])
@pytest.mark.parametrize("scale", [False, True])
def test_equals_scikit_learn_on_all_features(n_features, scale):
    X, Y = problem(n_features=n_features)
    ours = PLSMapping(5, scale=scale).fit(X, Y)
    peer = PLSRegression(5, scale=scale).fit(X, Y)
    new = problem(9, n_features, seed=1)[0]
    np.testing.assert_allclose(ours.predict(new), peer.predict(new), rtol=1e-5)
    np.testing.assert_allclose(ours.coef_, peer.coef_.T, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(new @ ours.coef_ + ours.intercept_, ours.predict(new))
    narrow = PLSMapping(5, scale=scale).fit(X.astype(np.float32), Y)
    np.testing.assert_allclose(narrow.predict(new.astype(np.float32)), peer.predict(new), rtol=1e-3)


@pytest.mark.parametrize("n_features", [90, 12])
@pytest.mark.parametrize("groups", [None, np.arange(40) // 2])
def test_number_of_components_has_the_least_held_out_error(n_features, groups):
    X, Y = problem(n_features=n_features)
    ours = PLSMapping(range(1, 9), inner_folds=4).fit(X, Y, groups=groups)
    folds = PredefinedSplit(inner_folds_of(40, 4, groups))
    errors = []
    for n in range(1, 9):
        held_out = cross_val_predict(PLSRegression(n, scale=False), X, Y, cv=folds)
        errors.append((((Y - held_out) / Y.std(axis=0)) ** 2).sum())
    assert ours.n_components_ == 1 + np.argmin(errors)


def test_bad_input_is_refused():
    X, Y = problem()
    with pytest.raises(InputError, match="constant column"):
        PLSMapping().fit(X, np.ones_like(Y))
    with pytest.raises(InputError, match="targets must be finite"):
        PLSMapping().fit(X, np.full_like(Y, np.nan))
    for number in (0, 41, [], [1, 39]):
        with pytest.raises(InputError, match="n_components must be from 1"):
            PLSMapping(number).fit(X, Y)
    with pytest.raises(InputError, match="features must be finite"):
        PLSMapping(2).fit(X, Y).predict(np.full_like(X, np.nan))


def test_examples_run():
    result = doctest.testmod(pls)
    assert result.attempted > 0
    assert result.failed == 0
