"""Causal effects: exact values by hand, against SciPy, and by simulation of what is claimed."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from pocketcortex.core import InputError
from pocketcortex.metrics import StimulusRoles, causal_effects, population_effects
from pocketcortex.metrics._permutation import sign_flip_p, two_sample_p


def rng(seed=0):
    return np.random.default_rng(seed)


def make_roles(*groups, **more):
    """Roles of groups (role, target, bases): a base a stimulus, or a number of stimuli."""
    role, target, base = [], [], []
    for name, whose, bases in groups:
        own = [-1] * bases if isinstance(bases, int) else list(bases)
        role += [name] * len(own)
        target += [whose] * len(own)
        base += own
    return StimulusRoles(
        tuple(role), np.array(target, dtype=int), np.array(base, dtype=int), **more
    )


def one_row(responses, roles, role=None, **more):
    table = causal_effects(responses, roles, rng=rng(), **more)
    return table.iloc[0] if role is None else table[table["role"] == role].iloc[0]


def column(*values):
    return np.array(values, dtype=float)[:, None]


class TestRoles:
    GOOD = (("random", -1, 3), ("natural_max", 0, 2), ("adversarial+", 1, [0, 1]))

    @pytest.mark.parametrize("form", ["csv", "parquet"])
    def test_a_table_comes_back_from_a_file(self, tmp_path, form):
        roles = make_roles(*self.GOOD, names=tuple("abcdefg"))
        path = tmp_path / f"roles.{form}"
        if form == "csv":
            roles.to_table().to_csv(path, index=False)
            table = pd.read_csv(path)
        else:
            roles.to_table().to_parquet(path)
            table = pd.read_parquet(path)
        again = StimulusRoles.from_table(table)
        assert again.role == roles.role
        assert again.names == roles.names
        assert again.target.tolist() == [-1, -1, -1, 0, 0, 1, 1]
        assert again.base.tolist() == [-1] * 5 + [0, 1]

    def test_the_table_marks_none_as_missing(self):
        table = make_roles(*self.GOOD).to_table()
        assert table["target"].isna().tolist() == [True] * 3 + [False] * 4
        assert table["base"].isna().sum() == 5
        assert "name" not in table

    def test_target_and_base_may_be_absent(self):
        roles = StimulusRoles.from_table(pd.DataFrame({"role": ["random", "natural_max"]}))
        assert roles.target.tolist() == roles.base.tolist() == [-1, -1]

    def test_rows_are_those_for_one_target_and_for_all(self):
        roles = make_roles(("random", -1, 2), ("max", 0, 1), ("max", 1, 2), ("max", -1, 1))
        assert roles.rows("max", 1).tolist() == [3, 4, 5]
        assert roles.rows("random", 1).tolist() == [0, 1]

    def test_what_is_tested(self):
        assert make_roles(*self.GOOD).tested == ("natural_max", "adversarial+")
        # base images without random ones have nothing to be compared with
        assert make_roles(("bases", -1, 2), ("smooth-", 0, [0, 1])).tested == ("smooth-",)

    def test_cannot_be_changed_and_says_what_it_holds(self):
        target = np.array([-1, 0])
        roles = StimulusRoles(("random", "max"), target, np.array([-1, -1]))
        target[1] = 7
        assert roles.target.tolist() == [-1, 0]
        assert not roles.target.flags.writeable
        assert repr(roles) == "StimulusRoles(2 stimuli: 1 random, 1 max)"

    @pytest.mark.parametrize(
        ("groups", "more", "message"),
        [
            ((), {}, "one or more stimuli"),
            ((("random", -1, 1), ("", 0, 1)), {}, "empty role"),
            ((("random", -1, 1), ("max", -2, 1)), {}, "target -2"),
            ((("random", -1, 1), ("max", 3, 1)), {"n_targets": 3}, "target 3; allowed is -1..2"),
            ((("random", -1, 1), ("smooth-", 0, [5])), {}, "base 5, no stimulus"),
            ((("random", -1, 1), ("smooth-", 0, [-2])), {}, "base -2"),
            ((("random", -1, 1), ("smooth-", 0, [1])), {}, "itself"),
            ((("random", -1, 1), ("a", 0, [0]), ("b", 0, [1])), {}, "made from another"),
            ((("random", -1, 1), ("m", 1, 1), ("a", 0, [1])), {}, "its base 1 has target 1"),
            ((("random", -1, 1), ("a", 0, [0, -1])), {}, "1 of 2 stimuli of role 'a'"),
            ((("max", -1, 1), ("random", -1, [0])), {}, "random images have none"),
            ((("max", 0, 2),), {}, "of which there are none"),
            ((("random", -1, 2),), {"names": ("a", "a")}, "2 stimuli are named 'a'"),
            ((("random", -1, 2),), {"names": ("a",)}, "1 names"),
        ],
    )
    def test_refuses(self, groups, more, message):
        with pytest.raises(InputError, match=message):
            make_roles(*groups, **more)

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ({"kind": ["random"]}, "needs a column 'role'"),
            ({"role": ["random", None]}, "row 1 of the table has no 'role'"),
            ({"role": ["random"], "target": [0.5]}, "whole numbers"),
            ({"role": ["random"], "target": [np.inf]}, "whole numbers"),
            ({"role": ["random"], "base": ["first"]}, "must hold numbers"),
        ],
    )
    def test_refuses_a_table(self, columns, message):
        with pytest.raises(InputError, match=message):
            StimulusRoles.from_table(pd.DataFrame(columns))


class TestPermutations:
    def test_two_samples_agree_with_scipy_exactly(self):
        samples = [
            (rng(k).gamma(2.0, size=n), rng(k + 50).gamma(2.0 + k / 4, size=m))
            for k, (n, m) in enumerate([(3, 5), (3, 5), (2, 9), (6, 4), (4, 4)])
        ]
        found = two_sample_p(samples, rng=rng(), n_permutations=1000)
        for pair, p in zip(samples, found, strict=True):
            peer = scipy.stats.permutation_test(
                pair, lambda x, y, axis: scipy.stats.ttest_ind(
                    x, y, axis=axis, equal_var=False).statistic,
                vectorized=True, n_resamples=np.inf,
            )  # fmt: skip
            assert p == pytest.approx(peer.pvalue, rel=1e-12)

    @pytest.mark.parametrize(
        ("x", "y"), [((1, 2, 2), (2, 1, 3, 2)), ((5,), (1, 2, 3, 4)), ((3, 3), (3, 3, 4))]
    )
    def test_ties_and_single_values_agree_with_a_plain_loop(self, x, y):
        both, counts = np.array([*x, *y], dtype=float), np.zeros(3)

        def statistic(chosen):
            rest = np.delete(both, chosen)
            own = both[list(chosen)]
            difference = own.mean() - rest.mean()
            if len(x) == 1:
                return round(difference, 9)
            variance = own.var(ddof=1) / len(own) + rest.var(ddof=1) / len(rest)
            if variance == 0:
                return np.sign(difference) * np.inf
            return round(difference / np.sqrt(variance), 9)

        truth = statistic(range(len(x)))
        for chosen in combinations(range(len(both)), len(x)):
            value = statistic(chosen)
            counts += (value >= truth, value <= truth, 1)
        (found,) = two_sample_p([(np.array(x, float), np.array(y, float))], rng=rng(),
                                n_permutations=1000)  # fmt: skip
        assert found == pytest.approx(min(1, 2 * min(counts[:2]) / counts[2]))

    def test_sign_flips_agree_with_scipy_exactly(self):
        samples = [rng(k).normal(0.4, size=n) for k, n in enumerate([2, 5, 5, 8])]
        samples.append(np.array([1.0, 1.0, 0.0, -1.0, 2.0, 2.0]))
        found = sign_flip_p(samples, rng=rng(), n_permutations=1000)
        for sample, p in zip(samples, found, strict=True):
            peer = scipy.stats.permutation_test(
                (sample,), lambda x, axis: x.mean(axis=axis), vectorized=True,
                permutation_type="samples", n_resamples=np.inf,
            )  # fmt: skip
            assert p == pytest.approx(peer.pvalue, rel=1e-12)

    def test_drawn_permutations_come_close_to_all(self):
        x, y = rng(1).normal(0.7, size=8), rng(2).normal(size=9)  # 24,310 divisions, 2^17 flips
        (exact,) = two_sample_p([(x, y)], rng=rng(), n_permutations=30_000)
        (drawn,) = two_sample_p([(x, y)], rng=rng(), n_permutations=20_000)
        assert drawn == pytest.approx(exact, abs=4 * np.sqrt(2 * exact / 20_000))
        both = np.concatenate([x, y])
        (exact,) = sign_flip_p([both], rng=rng(), n_permutations=2**17)
        (drawn,) = sign_flip_p([both], rng=rng(), n_permutations=20_000)
        assert drawn == pytest.approx(exact, abs=4 * np.sqrt(2 * exact / 20_000))

    def test_drawn_p_is_never_zero(self):
        x, y = np.full(30, 9.0), np.arange(30.0) / 30
        assert two_sample_p([(x, y)], rng=rng(), n_permutations=200)[0] == pytest.approx(2 / 201)
        assert sign_flip_p([x], rng=rng(), n_permutations=200)[0] == pytest.approx(2 / 201)

    def test_chunks_add_up(self, monkeypatch):
        monkeypatch.setattr("pocketcortex.metrics._permutation._CHUNK", 100)
        x, y = np.full(15, 9.0), np.arange(15.0) / 30
        assert two_sample_p([(x, y)], rng=rng(), n_permutations=205)[0] == pytest.approx(2 / 206)
        assert sign_flip_p([np.ones(30)], rng=rng(), n_permutations=205)[0] == pytest.approx(
            2 / 206
        )


class TestByHand:
    def test_against_random_images(self):
        responses = column(1, 2, 3, 6, 4)
        row = one_row(responses, make_roles(("random", -1, 3), ("natural_max", 0, 2)))
        assert (row["neuron"], row["target"], row["role"]) == (0, 0, "natural_max")
        assert (row["reference"], row["n_stimuli"], row["n_reference"]) == ("random", 2, 3)
        assert (row["mean"], row["reference_mean"], row["difference"]) == (5, 2, 3)
        assert row["percent"] == pytest.approx(150)
        se_t, se_r = 1.0, 1 / np.sqrt(3)
        assert row["difference_se"] == pytest.approx(np.hypot(se_t, se_r))
        assert row["percent_se"] == pytest.approx(100 * np.hypot(se_t, 2.5 * se_r) / 2)
        assert row["d_prime"] == pytest.approx(3.0)  # random images have an sd of 1
        # 6 and 4 are the highest of the 10 ways to take two
        assert row["p"] == pytest.approx(2 / 10)
        assert row["reason"] == ""
        assert np.isnan(row["n_repeats"])

    def test_against_base_images(self):
        roles = make_roles(("random", -1, 4), ("adversarial-", 0, [0, 1, 3]))
        row = one_row(column(4, 6, 99, 8, 3, 4, 6.5), roles)
        assert (row["reference"], row["n_stimuli"], row["n_reference"]) == ("base", 3, 3)
        assert (row["mean"], row["reference_mean"]) == (4.5, 6)
        assert row["percent"] == pytest.approx(-25)
        left = np.array([3, 4, 6.5]) - 0.75 * np.array([4, 6, 8])
        assert row["percent_se"] == pytest.approx(100 * left.std(ddof=1) / np.sqrt(3) / 6)
        assert row["p"] == pytest.approx(2 / 8)  # all three of one sign
        assert row["d_prime"] == pytest.approx(-1.5 / np.std([4, 6, 99, 8], ddof=1))

    def test_stimuli_of_one_base_count_as_one(self):
        roles = make_roles(("random", -1, 2), ("adversarial+", 0, [0, 0, 0, 1]))
        row = one_row(column(2, 4, 5, 6, 7, 8), roles)
        assert (row["mean"], row["reference_mean"]) == (7, 3)  # (6 + 8) / 2
        assert (row["n_stimuli"], row["n_reference"]) == (4, 2)
        assert row["p"] == pytest.approx(1 / 2)  # two differences, both upwards: 2 of 4 flips

    def test_each_neuron_has_its_own_stimuli(self):
        roles = make_roles(("random", -1, 2), ("max", 0, 2), ("max", 1, 2))
        responses = np.array([[1.5, 3], [2.5, 5], [8, 0], [8, 0], [0, 6], [0, 10]], dtype=float)
        table = causal_effects(responses, roles, rng=rng())
        assert table["percent"].tolist() == pytest.approx([300, 100])
        swapped = causal_effects(responses, roles, rng=rng(), targets=np.array([1, 0]))
        assert swapped["percent"].tolist() == pytest.approx([-100, -100])
        shared = causal_effects(responses, roles, rng=rng(), targets=np.array([1, 1]))
        assert shared["percent"].tolist() == pytest.approx([-100, 100])

    def test_repeats_are_averaged_first(self):
        responses = np.full((4, 3, 1), np.nan)
        responses[0, :, 0] = [1, 2, 3]
        responses[1, 0, 0] = 4
        responses[2, :2, 0] = [8, 10]
        responses[3, 0, 0] = 6
        roles = make_roles(("random", -1, 2), ("max", 0, 2))
        row = one_row(responses, roles)
        assert (row["reference_mean"], row["mean"], row["n_repeats"]) == (3, 7.5, 1.5)
        averaged = one_row(np.nanmean(responses, axis=1), roles)
        assert averaged["percent_se"] == row["percent_se"]

    def test_stimuli_not_shown_to_a_neuron_are_left_out(self):
        roles = make_roles(("random", -1, 3), ("max", 0, 3), ("smooth-", 0, [0, 1]))
        responses = column(2, np.nan, 4, 5, np.nan, 7, 1, 1)
        assert one_row(responses, roles)["n_stimuli"] == 2
        assert one_row(responses, roles)["percent"] == pytest.approx(100)
        paired = one_row(responses, roles, "smooth-")
        assert (paired["n_stimuli"], paired["percent"]) == (1, -50)
        assert np.isnan(paired["percent_se"])

    def test_base_images_are_the_yardstick_without_random_ones(self):
        roles = make_roles(("bases", -1, 2), ("smooth-", 0, [0, 1]))
        row = one_row(column(2, 4, 1, 2), roles)
        assert row["d_prime"] == pytest.approx(-1.5 / np.sqrt(2))


class TestUndefined:
    ROLES = make_roles(("random", -1, 3), ("max", 0, 2), ("smooth-", 0, [0, 1]))

    @pytest.mark.parametrize(
        ("responses", "role", "reason", "p_defined"),
        [
            ((-1, -2, -3, 4, 5, 1, 1), "max", "not clearly above 0", True),
            ((-2, 0.2, 2, 4, 5, 1, 1), "max", "not clearly above 0", True),
            ((0, 0, 0, 4, 5, 1, 1), "max", "not clearly above 0", True),
            ((2, 2, 2, 2, 2, 2, 2), "max", "constant", False),
            ((1, 2, 3, np.nan, np.nan, 1, 1), "max", "no stimulus of this role", False),
            ((np.nan, np.nan, np.nan, 4, 5, 1, 1), "max", "no stimulus to compare", False),
            ((np.nan, np.nan, 3, 4, 5, 1, 1), "smooth-", "no stimulus to compare", False),
            ((1, 2, 3, 4, 5, np.nan, np.nan), "smooth-", "no stimulus of this role", False),
        ],
    )
    def test_says_why(self, responses, role, reason, p_defined):
        row = one_row(column(*responses), self.ROLES, role)
        assert reason in row["reason"]
        assert np.isnan(row["percent"])
        assert np.isnan(row["percent_se"])
        assert np.isfinite(row["p"]) == p_defined

    def test_z_scored_units_have_a_difference_in_sd(self):
        draw = rng(3)
        roles = make_roles(("random", -1, 200), ("max", 0, 10))
        values = np.concatenate([draw.normal(size=200), draw.normal(2.0, 1.0, size=10)])
        row = one_row(values[:, None] - values[:200].mean(), roles)
        assert np.isnan(row["percent"])
        assert row["d_prime"] == pytest.approx(2.0, abs=0.8)
        assert row["p"] < 0.001

    def test_a_neuron_that_stands_for_no_model(self):
        row = one_row(column(1, 2, 3, 4, 5, 1, 1), self.ROLES, "max", targets=np.array([-1]))
        assert row["reason"] == "neuron stands for no model"
        assert np.isnan(row["p"])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"responses": np.ones((6, 1))}, "of 7 stimuli"),
            ({"responses": np.ones(7)}, "got shape"),
            ({"responses": np.full((7, 1), np.inf)}, "infinite"),
            ({"n_permutations": 50}, "at least 100"),
            ({"targets": np.array([0, 1])}, "one a neuron"),
            ({"targets": np.array([-2])}, "-1 for none"),
            ({"roles": make_roles(("random", -1, 7))}, "no role to test"),
            ({"roles": make_roles(("random", -1, 6), ("max", 1, 1))}, "target 1, but there are 1"),
            (
                {"roles": make_roles(("random", -1, 6), ("max", 1, 1), n_targets=2),
                 "targets": np.array([2])},
                "0..1, got 2 to 2",
            ),
        ],
    )  # fmt: skip
    def test_refuses(self, change, message):
        given = {"responses": np.ones((7, 1)), "roles": self.ROLES} | change
        with pytest.raises(InputError, match=message):
            causal_effects(given.pop("responses"), given.pop("roles"), rng=rng(), **given)


def simulate(n_neurons, *, gain, seed, n_random=60, n_max=8, n_base=12, repeats=(2, 6)):
    """Poisson counts: gamma rates, for the roles scaled by `gain`; unequal numbers of repeats."""
    draw = rng(seed)
    groups = [("random", -1, n_random)]
    for k in range(n_neurons):
        groups += [("natural_max", k, n_max), ("adversarial+", k, range(n_base))]
    roles = make_roles(*groups)
    n = len(roles)
    rates = draw.gamma(3.0, 1.0, size=(n, n_neurons))
    paired = roles.base >= 0
    rates[paired] = rates[roles.base[paired]]
    rates[np.array(roles.role) != "random"] *= gain
    counts = draw.poisson(rates[:, None, :], size=(n, repeats[1], n_neurons)).astype(float)
    shown = draw.integers(repeats[0], repeats[1], size=n, endpoint=True)
    counts[np.arange(repeats[1]) >= shown[:, None]] = np.nan
    return counts, roles, rates


class TestBySimulation:
    def test_no_effect_is_significant_at_the_nominal_rate(self):
        tables = []
        for seed in range(12):
            counts, roles, _ = simulate(40, gain=1.0, seed=seed)
            tables.append(causal_effects(counts, roles, rng=rng(seed), n_permutations=500))
        for _, group in pd.concat(tables).groupby("role"):
            for level in (0.05, 0.2):
                rate = (group["p"] <= level).mean()
                error = np.sqrt(level * (1 - level) / len(group))
                assert rate == pytest.approx(level, abs=3.5 * error)

    @pytest.mark.parametrize("gain", [0.5, 2.0])
    def test_known_effects_are_recovered_and_errors_cover_them(self, gain):
        counts, roles, _ = simulate(100, gain=gain, seed=5, n_random=150, n_max=20, n_base=30)
        table = causal_effects(counts, roles, rng=rng(), n_permutations=200)
        truth = 100 * (gain - 1)
        for _, group in table.groupby("role"):
            error = group["percent"] - truth
            assert error.mean() == pytest.approx(0, abs=4 * error.std() / np.sqrt(100) + 1)
            assert (error.abs() <= 1.96 * group["percent_se"]).mean() > 0.88
            assert error.std() == pytest.approx(group["percent_se"].mean(), rel=0.25)
            assert (group["p"] <= 0.05).mean() > 0.7

    def test_a_scale_changes_no_percent_and_an_offset_no_p(self):
        counts, roles, _ = simulate(5, gain=1.4, seed=8)
        tables = [
            causal_effects(x, roles, rng=rng(1), n_permutations=300)
            for x in (counts, 7.0 * counts, counts + 100.0)
        ]
        for name in ("percent", "percent_se", "d_prime", "p"):
            assert np.allclose(tables[0][name], tables[1][name])
        for name in ("difference", "difference_se", "d_prime", "p"):
            assert np.allclose(tables[0][name], tables[2][name])

    def test_stimuli_shown_less_often_than_random_images_are_not_significant_by_that(self):
        draw = rng(3)
        roles = make_roles(("random", -1, 100), ("natural_max", -1, 10))
        rates = draw.gamma(3.0, size=(110, 500))
        repeats = np.where(np.arange(110) < 100, 10, 1)[:, None]
        averages = draw.poisson(rates * repeats) / repeats
        table = causal_effects(averages, roles, rng=rng(), n_permutations=500)
        # the plain difference of means would be significant in 13 %
        assert (table["p"] <= 0.05).mean() == pytest.approx(0.05, abs=0.035)

    def test_the_same_seed_gives_the_same_table(self):
        counts, roles, _ = simulate(3, gain=1.2, seed=2)
        tables = [causal_effects(counts, roles, rng=rng(4), n_permutations=300) for _ in range(2)]
        pd.testing.assert_frame_equal(*tables)


def make_effects(percent, p=None, **more):
    n = len(percent)
    percent = np.array(percent, dtype=float)
    return pd.DataFrame(
        {"role": "max", "reference": "random", "percent": percent, "d_prime": percent / 50,
         "difference": percent / 10, "p": np.full(n, 0.5) if p is None else p} | more
    )  # fmt: skip


class TestPopulation:
    def test_by_hand(self):
        table = population_effects(make_effects([10, 20, 60, np.nan]), rng=rng())
        row = table.iloc[0]
        assert (row["role"], row["n_neurons"], row["n_undefined"]) == ("max", 3, 1)
        assert (row["percent_mean"], row["percent_median"]) == (30, 20)
        assert row["percent_se"] == pytest.approx(np.std([10, 20, 60], ddof=1) / np.sqrt(3))
        assert row["percent_p"] == pytest.approx(2 / 8)
        assert row["d_prime_mean"] == pytest.approx(0.6)

    def test_p_is_wilcoxon_like_and_agrees_with_scipy(self):
        values = rng(6).normal(0.5, 1.0, size=9)
        found = population_effects(make_effects(values), rng=rng())["percent_p"][0]
        peer = scipy.stats.permutation_test(
            (values,), np.mean, permutation_type="samples", n_resamples=np.inf
        )
        assert found == pytest.approx(peer.pvalue)

    def test_significant_neurons_are_corrected_for_their_number(self):
        # Benjamini and Hochberg at 0.05 of 4: 0.0125, 0.025, 0.0375, 0.05
        p = [0.009, 0.019, 0.045, 0.5, np.nan]
        percent = [100, -50, 80, 1, np.nan]
        row = population_effects(make_effects(percent, p), rng=rng()).iloc[0]
        assert (row["n_tested"], row["n_increased"], row["n_decreased"]) == (4, 1, 1)
        strict = population_effects(make_effects(percent, p), rng=rng(), level=0.01).iloc[0]
        assert (strict["n_increased"], strict["n_decreased"]) == (0, 0)

    def test_roles_keep_their_order_and_one_neuron_has_no_error(self):
        effects = pd.concat(
            [make_effects([5.0]), make_effects([-5.0, -6.0]).assign(role="a", reference="base")]
        )
        table = population_effects(effects, rng=rng())
        assert table["role"].tolist() == ["max", "a"]
        assert table["reference"].tolist() == ["random", "base"]
        assert np.isnan(table["percent_se"][0])

    def test_a_role_without_any_percent_still_has_d_prime(self):
        effects = make_effects([1.0, 2.0]).assign(percent=np.nan)
        row = population_effects(effects, rng=rng()).iloc[0]
        assert (row["n_neurons"], row["n_undefined"], row["d_prime_n"]) == (0, 2, 2)
        assert np.isnan(row["percent_mean"])
        assert row["d_prime_mean"] == pytest.approx(0.03)

    @pytest.mark.parametrize(
        ("effects", "more", "message"),
        [
            (make_effects([1.0]).drop(columns="p"), {}, "lacks p"),
            (make_effects([1.0])[:0], {}, "no row"),
            (make_effects([1.0]), {"level": 1.0}, "level"),
            (make_effects([1.0]), {"n_permutations": 1}, "at least 100"),
        ],
    )
    def test_refuses(self, effects, more, message):
        with pytest.raises(InputError, match=message):
            population_effects(effects, rng=rng(), **more)
