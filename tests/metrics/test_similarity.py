"""Signal correlations and groups: against NumPy's correlation, and populations built of kinds."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr

from pocketcortex.core import InputError
from pocketcortex.metrics import group_by_similarity, signal_correlation2


def population(sizes, n_stimuli=300, noise=0.5, seed=0):
    """Return responses of several kinds of neuron in random order, and the kind of each."""
    rng = np.random.default_rng(seed)
    kinds = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    signals = rng.standard_normal((n_stimuli, len(sizes)))
    sign = rng.choice([-1, 1], len(kinds))
    responses = signals[:, kinds] * sign + noise * rng.standard_normal((n_stimuli, len(kinds)))
    return responses, kinds


class TestSignalCorrelation:
    def test_equals_scipy_pair_by_pair(self):
        responses = np.random.default_rng(0).standard_normal((20, 4)) * [1, 5, 1e-3, 1e3] + 7
        got = signal_correlation2(responses)
        for j, k in np.ndindex(4, 4):
            expected = pearsonr(responses[:, j], responses[:, k])[0] ** 2
            assert got[j, k] == pytest.approx(expected, abs=1e-9)
        assert (got.dtype, np.diag(got).tolist()) == (np.float64, [1.0] * 4)

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 999), st.floats(-10, 10), st.floats(0.1, 10), st.booleans())
    def test_knows_no_scale_shift_sign_or_order(self, seed, shift, scale, turned):
        responses = np.random.default_rng(seed).standard_normal((12, 3))
        changed = (responses * (-scale if turned else scale) + shift)[::-1]
        np.testing.assert_allclose(
            signal_correlation2(responses), signal_correlation2(changed), atol=1e-9
        )

    @pytest.mark.parametrize("level", [0.0, 0.1, 1e6])
    def test_a_constant_neuron_is_undefined(self, level):
        responses = np.random.default_rng(0).standard_normal((30, 3))
        responses[:, 1] = level
        got = signal_correlation2(responses)
        assert np.isnan(got[1]).all()
        assert np.isnan(got[:, 1]).all()
        assert np.isfinite(got[np.ix_([0, 2], [0, 2])]).all()

    def test_refuses_bad_input(self):
        with pytest.raises(InputError, match="two stimuli or more"):
            signal_correlation2(np.ones((1, 3)))
        with pytest.raises(InputError, match="must be finite"):
            signal_correlation2(np.array([[1.0, np.nan], [2.0, 3.0]]))


class TestGroups:
    @pytest.mark.parametrize("sizes", [(20, 20), (10, 5, 25), (8, 8, 8, 8, 8)])
    def test_finds_the_kinds_a_population_was_built_of(self, sizes):
        responses, kinds = population(sizes)
        found = group_by_similarity(signal_correlation2(responses))
        assert found.n_groups == len(sizes)
        for label in range(found.n_groups):
            assert len(set(kinds[found.labels == label])) == 1
        assert found.silhouette > 0.3

    def test_order_keeps_groups_together_and_labels_follow_it(self):
        found = group_by_similarity(signal_correlation2(population((6, 9, 4))[0]))
        assert sorted(found.order) == list(range(19))
        in_order = found.labels[found.order]
        assert (np.diff(in_order) >= 0).all()
        assert in_order[0] == 0
        for label in range(found.n_groups):
            assert found.members(label).tolist() == found.order[in_order == label].tolist()

    def test_number_of_groups_can_be_given(self):
        similarity = signal_correlation2(population((6, 9, 4))[0])
        counts = [group_by_similarity(similarity, n_groups=n).n_groups for n in (1, 2, 7, 19)]
        assert counts == [1, 2, 7, 19]
        assert np.isnan(group_by_similarity(similarity, n_groups=1).silhouette)

    def test_neighbours_are_as_alike_as_a_chain_allows(self):
        # neurons along a line, in random order: the leaves come out in the order of the line
        place = np.random.default_rng(3).permutation(12)
        similarity = 1 - np.abs(place[:, None] - place) / 12
        order = place[group_by_similarity(similarity).order]
        assert np.abs(np.diff(order)).tolist() == [1] * 11

    def test_groups_go_with_the_neurons(self):
        similarity = signal_correlation2(population((6, 9, 4), noise=1.0)[0])
        new = np.random.default_rng(5).permutation(19)
        first = group_by_similarity(similarity, n_groups=5)
        second = group_by_similarity(similarity[np.ix_(new, new)], n_groups=5)
        same = first.labels[:, None] == first.labels
        np.testing.assert_array_equal(
            same[np.ix_(new, new)], second.labels[:, None] == second.labels
        )

    def test_chooses_the_largest_silhouette(self):
        similarity = signal_correlation2(population((7, 7, 7, 7), noise=2.0)[0])
        chosen = group_by_similarity(similarity)
        each = [group_by_similarity(similarity, n_groups=n).silhouette for n in range(2, 6)]
        assert chosen.silhouette == max(each)
        assert chosen.n_groups == 2 + int(np.argmax(each))

    def test_one_and_two_neurons(self):
        one = group_by_similarity(np.ones((1, 1)))
        assert (one.order.tolist(), one.labels.tolist()) == ([0], [0])
        two = group_by_similarity(np.array([[1.0, 0.2], [0.2, 1.0]]))
        assert sorted(two.labels) == [0, 1]

    def test_refuses_bad_input(self):
        good = np.eye(3)
        undefined, above, askew = good.copy(), good.copy(), good.copy()
        undefined[0, 1] = undefined[1, 0] = np.nan
        above[0, 1] = above[1, 0] = 1.5
        askew[0, 1] = 0.5
        for matrix, message in (
            (undefined, "must be finite"), (above, "at most 1"), (askew, "symmetric"),
            (np.empty((0, 0)), "n > 0"),
        ):  # fmt: skip
            with pytest.raises(InputError, match=message):
                group_by_similarity(matrix)
        for n_groups in (0, 4):
            with pytest.raises(InputError, match=r"within 1\.\.3"):
                group_by_similarity(good, n_groups=n_groups)


@pytest.mark.data
def test_recorded_neurons_are_correlated_as_numpy_says(real_data: Path):
    folder = real_data / "v4" / "data_V4_responses" / "responses_repeat_averaged"
    responses = np.load(folder / "responses_190923.npy").T
    got = signal_correlation2(responses)
    np.testing.assert_allclose(got, np.corrcoef(responses.T) ** 2, atol=1e-10)
    assert group_by_similarity(got).order.shape == (33,)
