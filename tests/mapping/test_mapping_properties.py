"""What holds for every mapping, whatever the features and responses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketcortex.mapping import PLSMapping, RidgeLOO, stimulus_folds


def drawn(seed: int, n: int, p: int, q: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    Y = X @ rng.normal(size=(p, q)) + 0.3 * rng.normal(size=(n, q))
    return X, Y, rng.normal(size=(5, p))


SIZES = {
    "seed": st.integers(0, 2**16),
    "n": st.integers(12, 25),
    "p": st.integers(2, 8),
    "q": st.integers(1, 3),
}


@pytest.mark.parametrize("mapping", [PLSMapping, RidgeLOO])
@settings(deadline=None, max_examples=15)
@given(**SIZES, scale=st.floats(0.01, 100), shift=st.floats(-50, 50))
def test_units_of_the_responses_change_nothing_else(
    mapping: type, seed: int, n: int, p: int, q: int, scale: float, shift: float
) -> None:
    X, Y, new = drawn(seed, n, p, q)
    found = mapping().fit(X, Y).predict(new)
    other = mapping().fit(X, scale * Y + shift).predict(new)
    np.testing.assert_allclose(other, scale * found + shift, rtol=1e-6, atol=1e-6 * scale)


@pytest.mark.parametrize("mapping", [PLSMapping, RidgeLOO])
@settings(deadline=None, max_examples=15)
@given(**SIZES)
def test_the_order_of_features_changes_nothing(
    mapping: type, seed: int, n: int, p: int, q: int
) -> None:
    X, Y, new = drawn(seed, n, p, q)
    order = np.random.default_rng(seed + 1).permutation(p)
    found = mapping().fit(X, Y).predict(new)
    np.testing.assert_allclose(
        mapping().fit(X[:, order], Y).predict(new[:, order]), found, rtol=1e-6, atol=1e-8
    )


@settings(deadline=None, max_examples=60)
@given(data=st.data(), n=st.integers(2, 60), seed=st.integers(0, 99))
def test_folds_hold_every_stimulus_once(data: st.DataObject, n: int, seed: int) -> None:
    n_folds = data.draw(st.integers(2, min(n, 10)))
    folds = stimulus_folds(n, n_folds=n_folds, rng=np.random.default_rng(seed))
    sizes = np.bincount(folds, minlength=n_folds)
    assert sizes.sum() == n
    assert sizes.max() - sizes.min() <= 1
    again = stimulus_folds(n, n_folds=n_folds, rng=np.random.default_rng(seed))
    np.testing.assert_array_equal(again, folds)
