from itertools import combinations, permutations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketcortex.core import InputError
from pocketcortex.metrics import CKAAccumulator, centre_gram, hsic, linear_cka


def features(seed: int, n: int, p: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, p)) + 1.0


def gram(x: np.ndarray) -> np.ndarray:
    return x @ x.T


def plain_hsic(k: np.ndarray, m: np.ndarray, debiased: bool) -> float:
    n = len(k)
    if not debiased:
        h = np.eye(n) - 1 / n
        return float(np.trace(k @ h @ m @ h) / (n - 1) ** 2)
    k, m, one = k - np.diag(np.diag(k)), m - np.diag(np.diag(m)), np.ones(n)
    middle = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    cross = 2 / (n - 2) * (one @ k @ m @ one)
    return float((np.trace(k @ m) + middle - cross) / (n * (n - 3)))


def plain_cka(x: np.ndarray, y: np.ndarray, debiased: bool) -> float:
    k, m = gram(x), gram(y)
    both = plain_hsic(k, k, debiased) * plain_hsic(m, m, debiased)
    return plain_hsic(k, m, debiased) / np.sqrt(both)


@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize("n", [4, 5, 11])
def test_hsic_and_cka_are_the_formulas(debiased: bool, n: int) -> None:
    x, y = features(0, n, 3), features(1, n, 7)
    expected = plain_hsic(gram(x), gram(y), debiased)
    assert hsic(gram(x), gram(y), debiased=debiased) == pytest.approx(expected, rel=1e-10)
    assert linear_cka(x, y, debiased=debiased) == pytest.approx(plain_cka(x, y, debiased), rel=1e-9)


def test_debiased_hsic_of_all_samples_of_stimuli_has_the_mean_of_the_whole() -> None:
    k, m = gram(features(0, 8, 3)), gram(features(1, 8, 40))
    samples = [np.ix_(rows, rows) for rows in combinations(range(8), 5)]
    mean = np.mean([hsic(k[s], m[s]) for s in samples])
    assert mean == pytest.approx(hsic(k, m), rel=1e-10)
    biased = np.mean([hsic(k[s], m[s], debiased=False) for s in samples])
    assert biased > 1.02 * hsic(k, m, debiased=False)


def test_unrelated_features_are_alike_by_chance_only_if_biased() -> None:
    rng = np.random.default_rng(0)
    pairs = [rng.normal(size=(2, 20, 200)) for _ in range(200)]
    values = [linear_cka(x, y) for x, y in pairs]
    assert abs(scipy.stats.ttest_1samp(values, 0).statistic) < 4
    assert np.mean([linear_cka(x, y, debiased=False) for x, y in pairs]) > 0.85


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 12), st.integers(1, 9), st.booleans())
def test_rotation_scale_shift_and_order_of_the_two_change_nothing(
    seed: int, n: int, p: int, debiased: bool
) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, p)), rng.normal(size=(n, 4))
    value = linear_cka(x, y, debiased=debiased)
    rotation = np.linalg.qr(rng.normal(size=(p, p)))[0]
    moved = 7.3 * x @ rotation + rng.normal(size=p)
    assert linear_cka(moved, y, debiased=debiased) == pytest.approx(value, abs=1e-7)
    assert linear_cka(y, x, debiased=debiased) == pytest.approx(value, abs=1e-12)
    assert linear_cka(x, x, debiased=debiased) == pytest.approx(1)
    order = rng.permutation(n)
    assert linear_cka(x[order], y[order], debiased=debiased) == pytest.approx(value, abs=1e-9)
    assert -1 - 1e-9 <= value <= 1 + 1e-9
    assert debiased or value >= -1e-12


@pytest.mark.parametrize("debiased", [True, False])
def test_batches_are_averaged_by_their_number_of_stimuli_before_the_ratio(debiased: bool) -> None:
    sizes = (6, 9)
    x, y = features(0, 15, 3), features(1, 15, 8)
    y[:, :2] += x[:, :2]
    accumulator = CKAAccumulator(3, debiased=debiased)
    parts = []
    for rows in np.split(np.arange(15), [6]):
        grams = [gram(x[rows]), gram(y[rows]), gram(x[rows] + y[rows][:, :3])]
        accumulator.add(np.stack(grams))
        parts.append([[plain_hsic(a, b, debiased) for a in grams] for b in grams])
    total = np.average(parts, axis=0, weights=sizes)
    expected = total / np.sqrt(np.outer(np.diag(total), np.diag(total)))
    np.testing.assert_allclose(accumulator.cka(), expected, rtol=1e-9)
    assert accumulator.n_stimuli == 15


def test_one_batch_is_the_whole_and_float32_grams_do_nearly() -> None:
    x, y = features(0, 30, 5), features(1, 30, 5)
    accumulator = CKAAccumulator(2)
    accumulator.add(np.stack([gram(x), gram(y)]).astype(np.float32))
    np.testing.assert_allclose(accumulator.cka()[0, 1], linear_cka(x, y), atol=1e-6)


def test_small_batches_go_to_the_value_of_the_whole_only_if_debiased() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(4000, 60))
    y = x @ rng.normal(size=(60, 60)) / 8 + rng.normal(size=(4000, 60))
    whole = linear_cka(x, y)
    for debiased in (True, False):
        accumulator = CKAAccumulator(2, debiased=debiased)
        for rows in np.split(np.arange(4000), 200):
            accumulator.add(np.stack([gram(x[rows]), gram(y[rows])]))
        error = abs(accumulator.cka()[0, 1] - whole)
        assert (error < 0.02) if debiased else (error > 0.2)


def test_shuffled_stimuli_are_centred_on_zero_and_keep_each_gram_together() -> None:
    x, y = features(0, 12, 3), features(1, 12, 6)
    y[:, :3] += 2 * x
    accumulator = CKAAccumulator(3, n_permutations=400, rng=np.random.default_rng(0))
    for rows in np.split(np.arange(12), 2):
        accumulator.add(np.stack([gram(x[rows]), gram(y[rows]), gram(x[rows])]))
    drawn = accumulator.shuffled()
    assert drawn.shape == (400, 3)
    assert (abs(drawn.mean(axis=0)) < 4 * drawn.std(axis=0) / 20).all()
    # every draw of one batch is a value that some order of the stimuli gives
    k, m = gram(x[:5]), gram(y[:5])
    one = CKAAccumulator(2, n_permutations=20, rng=np.random.default_rng(0))
    one.add(np.stack([k, m]))
    orders = [list(order) for order in permutations(range(5))]
    possible = [plain_hsic(k, m[np.ix_(o, o)], True) for o in orders]
    possible /= np.sqrt(plain_hsic(k, k, True) * plain_hsic(m, m, True))
    distance = abs(one.shuffled() - possible).min(axis=1)
    assert distance.max() < 1e-10
    assert len(np.unique(one.shuffled().round(9))) > 5


def test_biased_shuffles_keep_the_diagonal() -> None:
    k, m = gram(features(0, 4, 9)), gram(features(1, 4, 9))
    one = CKAAccumulator(2, debiased=False, n_permutations=60, rng=np.random.default_rng(0))
    one.add(np.stack([k, m]))
    values = {
        round(plain_hsic(k, m[np.ix_(o, o)], False), 9)
        for o in (list(order) for order in permutations(range(4)))
    }
    scale = np.sqrt(plain_hsic(k, k, False) * plain_hsic(m, m, False))
    drawn = set((one.shuffled()[:, 0] * scale).round(9))
    assert drawn <= values
    assert one.shuffled().mean() > 0.2


def test_equal_generators_shuffle_alike() -> None:
    grams = np.stack([gram(features(s, 8, 3)) for s in range(3)])
    draws = []
    for _ in range(2):
        one = CKAAccumulator(3, n_permutations=5, rng=np.random.default_rng(4))
        one.add(grams)
        draws.append(one.shuffled())
    np.testing.assert_array_equal(draws[0], draws[1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_never_varies_has_no_cka(dtype: type) -> None:
    rng = np.random.default_rng(0)
    same = np.tile(rng.normal(size=(1, 50)), (9, 1)).astype(dtype)
    grams = np.stack([gram(same), gram(features(1, 9, 3)), gram(features(2, 9, 3))])
    accumulator = CKAAccumulator(3, n_permutations=2, rng=rng)
    assert np.isnan(accumulator.cka()).all()
    accumulator.add(grams.astype(dtype))
    found = accumulator.cka()
    assert np.isnan(found[0]).all()
    assert np.isnan(found[:, 0]).all()
    assert np.isfinite(found[1:, 1:]).all()
    assert np.isnan(accumulator.shuffled()).tolist() == [[True, True, False]] * 2
    assert np.isnan(linear_cka(same, features(1, 9, 3).astype(dtype)))


def test_centred_grams_have_no_mean() -> None:
    k = gram(features(0, 6, 3))
    for debiased in (True, False):
        centred = centre_gram(np.stack([k, 2 * k]), debiased=debiased)
        assert abs(centred.sum(axis=1)).max() < 1e-10
        np.testing.assert_allclose(centred[1], 2 * centred[0])
    assert np.diag(centre_gram(k)).tolist() == [0.0] * 6


def test_bad_input_is_refused() -> None:
    k = gram(features(0, 3, 3))
    with pytest.raises(InputError, match="4 stimuli or more"):
        hsic(k, k)
    with pytest.raises(InputError, match="2 stimuli or more"):
        hsic(k[:1, :1], k[:1, :1], debiased=False)
    with pytest.raises(InputError, match="one size"):
        hsic(k, k[:2, :2])
    with pytest.raises(InputError, match="same stimuli"):
        linear_cka(features(0, 5, 2), features(0, 6, 2))
    with pytest.raises(InputError, match="two representations"):
        CKAAccumulator(1)
    with pytest.raises(InputError, match="take an rng"):
        CKAAccumulator(2, n_permutations=3)
    with pytest.raises(InputError, match="2 Gram matrices are needed, got 3"):
        CKAAccumulator(2).add(np.zeros((3, 5, 5)))
