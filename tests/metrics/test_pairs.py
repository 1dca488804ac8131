import numpy as np
import pytest

from pocketcortex.core import InputError
from pocketcortex.metrics import (
    bootstrap_pair_mean_ci,
    matched_pairs_p,
    pair_mean,
    random_matchings,
)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def additive(n: int, seed: int, sd: float = 1.0) -> np.ndarray:
    """Pairs that are as alike as their two models say: far from independent."""
    own = np.random.default_rng(seed).normal(size=n) * sd
    return own[:, None] + own


@pytest.mark.parametrize("n", [6, 7])
def test_a_matching_shares_no_model(n: int) -> None:
    pairs = random_matchings(n, 50, rng=rng())
    assert pairs.shape == (50, 3, 2)
    assert all(len(set(draw.ravel())) == 6 for draw in pairs)
    assert set(pairs.ravel()) == set(range(n))


def test_the_mean_is_over_pairs_that_have_a_value() -> None:
    values = additive(5, 0)
    values[1, 3] = values[3, 1] = np.nan
    np.fill_diagonal(values, 1000)
    upper = values[np.triu_indices(5, 1)]
    assert float(pair_mean(values)) == pytest.approx(np.nanmean(upper))
    both = pair_mean(np.stack([values, 2 * values]))
    np.testing.assert_allclose(both, [np.nanmean(upper), 2 * np.nanmean(upper)])
    assert np.isnan(pair_mean(np.full((3, 3), np.nan)))
    counts = np.zeros((5, 5))
    counts[0, 2] = counts[2, 0] = 3
    counts[0, 4] = counts[4, 0] = 1
    expected = (3 * values[0, 2] + values[0, 4]) / 4
    assert float(pair_mean(values, counts)) == pytest.approx(expected)


def test_the_interval_covers_what_other_models_would_give() -> None:
    draws = rng()
    held = 0
    for seed in range(200):
        low, high = bootstrap_pair_mean_ci(additive(30, seed), rng=draws, n_resamples=300)
        held += bool(low <= 0 <= high)
    assert 0.88 <= held / 200 <= 0.99


def test_groups_share_their_resamples() -> None:
    values = additive(12, 1)
    low, high = bootstrap_pair_mean_ci(np.stack([values, values + 1]), rng=rng())
    np.testing.assert_allclose(low[1] - low[0], 1)
    np.testing.assert_allclose(high[1] - high[0], 1)


def test_p_of_matched_pairs_is_valid_when_nothing_differs_and_small_when_it_does() -> None:
    draws = rng()
    small = 0
    for seed in range(300):
        difference = additive(20, seed, 0.5)
        pairs = random_matchings(20, 15, rng=draws)
        drawn = difference[pairs[..., 0], pairs[..., 1]]
        small += matched_pairs_p(drawn, rng=draws, n_permutations=2000) <= 0.05
    assert small / 300 <= 0.06
    shifted = 1.5 + draws.normal(size=(15, 10))
    assert matched_pairs_p(shifted, rng=draws, n_permutations=2000) < 0.02


def test_missing_pairs_are_left_out() -> None:
    values = np.random.default_rng(1).normal(0.5, 1, size=(9, 8))
    some = np.concatenate([values, np.full((9, 3), np.nan)], axis=1)
    assert matched_pairs_p(some, rng=rng()) == matched_pairs_p(values, rng=rng())
    assert matched_pairs_p(np.full((3, 4), np.nan), rng=rng()) == 1.0


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="two models or more"):
        random_matchings(1, 3, rng=rng())
    with pytest.raises(InputError, match="one draw or more"):
        random_matchings(4, 0, rng=rng())
    with pytest.raises(InputError, match="at least one pair"):
        matched_pairs_p(np.zeros((3, 0)), rng=rng())
    with pytest.raises(InputError, match="n_permutations"):
        matched_pairs_p(np.ones((3, 2)), rng=rng(), n_permutations=9)
    with pytest.raises(InputError, match=r"must be \(n, n\)"):
        pair_mean(np.zeros((3, 4)))
    with pytest.raises(InputError, match=r"\(2, 2\)"):
        pair_mean(np.zeros((3, 3)), np.zeros((2, 2)))
    with pytest.raises(InputError, match="level"):
        bootstrap_pair_mean_ci(np.zeros((3, 3)), rng=rng(), level=1.0)
