"""Networks ranked and compared; what scores go with."""

import numpy as np
import pandas as pd
import pytest
from jaxtyping import TypeCheckError
from scipy.stats import false_discovery_control, spearmanr

from pocketcortex.benchmark import (
    adjusted_p,
    group_means,
    property_effect,
    rank_models,
    trained_minus_random,
)
from pocketcortex.core import InputError


def test_corrections() -> None:
    p = np.random.default_rng(0).random(30) ** 3
    np.testing.assert_allclose(adjusted_p(p, "fdr"), false_discovery_control(p))
    with_nan = np.append(p, np.nan)
    np.testing.assert_allclose(adjusted_p(with_nan, "fdr")[:-1], false_discovery_control(p))
    expected, worst = [], 0.0
    for rank, value in enumerate(np.sort(p)):  # Holm by its definition
        worst = max(worst, min(1.0, value * (len(p) - rank)))
        expected.append(worst)
    np.testing.assert_allclose(np.sort(adjusted_p(p, "holm")), expected)
    np.testing.assert_array_equal(adjusted_p(p, "none"), p)
    with pytest.raises((InputError, TypeCheckError)):
        adjusted_p(p, "bonferroni")  # type: ignore[arg-type]


def test_a_leaderboard_tells_what_can_be_told_apart() -> None:
    rng = np.random.default_rng(1)
    shared = rng.normal(size=(1000, 1))  # images that are easy for all networks
    values = np.array([0.30, 0.31, np.nan, 0.10, 0.25])
    samples = values + 0.05 * shared + 0.004 * rng.normal(size=(1000, 5))
    samples[0, 4] = np.nan
    board, pairs = rank_models(list("abcde"), values, samples, rng=rng)
    assert board["model"].tolist() == list("baedc")
    assert board["rank"].tolist() == [1, 2, 3, 4, pd.NA]
    assert board.set_index("model")["as_good_as_best"].to_dict() == {
        "b": True, "a": True, "e": False, "d": False, "c": False,
    }  # fmt: skip
    assert board.set_index("model")["reason"].to_dict()["e"] == "undefined in some resamples"
    assert len(pairs) == 3
    told = pairs.set_index(["first", "second"])
    assert told.loc[("b", "d"), "p_corrected"] < 0.01  # though their intervals overlap
    assert board["ci_low"].iloc[0] < 0.25 < 0.15 + board["ci_high"].iloc[3]
    assert told.loc[("b", "a"), "p_corrected"] > 0.05
    assert (told["p_corrected"] >= told["p"]).all()
    low, high = told.loc[("b", "d"), ["ci_low", "ci_high"]]
    assert low < 0.21 < high


def test_p_of_equal_networks_is_uniform() -> None:
    """Scores of two networks, equally good: p by resamples and by exchanges."""
    found = []
    for seed in range(120):
        rng = np.random.default_rng([2, seed])
        each = rng.normal(size=(2, 80)) / 80  # images' shares
        counts = rng.multinomial(80, np.full(80, 1 / 80), size=300)
        samples = counts @ each.T
        _, pairs = rank_models(
            ["a", "b"], each.sum(axis=1), samples, rng=rng, contributions=each, n_permutations=300
        )
        found.append(pairs[["p", "p_permutation"]].iloc[0].to_numpy(float))
    below = (np.array(found) < 0.1).mean(axis=0)
    assert (below < 0.1 + 3 * (0.09 / 120) ** 0.5).all()
    assert (np.array(found).mean(axis=0) > 0.4).all()


def test_trained_against_random() -> None:
    rng = np.random.default_rng(3)
    values = {"a": 0.5, "b": 0.4, "a0": 0.2, "a1": 0.3, "b0": 0.3}
    samples = {name: value + 0.01 * rng.normal(size=500) for name, value in values.items()}
    table = trained_minus_random(values, samples, {"a": ["a0", "a1"], "b": ["b0"]}, rng=rng)
    rows = table.set_index("model")
    assert rows["difference"].round(6).to_dict() == {"a": 0.25, "b": 0.1, "(all)": 0.175}
    assert (rows["ci_low"] < rows["difference"]).all()
    assert (rows["difference"] < rows["ci_high"]).all()
    assert rows.loc["(all)", "p"] < 0.01
    assert rows.loc["(all)", "p_networks"] == 0.5  # two networks cannot give less
    with pytest.raises(InputError, match="twin"):
        trained_minus_random(values, samples, {"a": []}, rng=rng)


def test_properties() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=40)
    y = 0.5 * x + 0.3 * rng.normal(size=40)
    found = property_effect(np.append(x, np.nan), np.append(y, 1.0), rng=rng, n_resamples=400)
    assert found["n_networks"] == 40
    np.testing.assert_allclose(found["spearman"], spearmanr(x, y).statistic)
    np.testing.assert_allclose(found["slope"], np.polyfit(x, y, 1)[0])
    assert found["ci_low"] < found["spearman"] < found["ci_high"]
    assert found["slope_low"] < 0.5 < found["slope_high"]
    assert found["p"] < 0.01
    few = property_effect(x[:4], y[:4], rng=rng)
    assert np.isnan(few["spearman"])
    assert few["reason"] == "fewer than 5 networks"
    assert property_effect(np.ones(9), x[:9], rng=rng)["reason"] == "no variation over networks"
    groups = group_means(["a"] * 5 + ["b"] * 2 + [""], np.append(x[:7], np.nan), rng=rng)
    assert groups["group"].tolist() in (["a", "b"], ["b", "a"])
    assert groups.set_index("group")["reason"].to_dict() == {
        "a": "", "b": "no interval: fewer than 3 networks",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("models", "values", "samples", "match"),
    [
        ([], np.empty(0), np.empty((3, 0)), "names"),
        (["a", "a"], np.zeros(2), np.zeros((3, 2)), "names"),
        (["a", "b"], np.zeros(2), np.zeros((1, 2)), "values"),
    ],
)
def test_bad_input_is_refused(
    models: list[str], values: np.ndarray, samples: np.ndarray, match: str
) -> None:
    with pytest.raises(InputError, match=match):
        rank_models(models, values, samples, rng=np.random.default_rng(0))
