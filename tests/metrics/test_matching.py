"""Matching of neurons to models: known pairs are found, and unrelated ones are not."""

import numpy as np
import pytest
from scipy.stats import pearsonr

from pocketcortex.core import InputError
from pocketcortex.metrics import match_neurons, noise_corrected_r2, pearson_r2


def rng(seed=0):
    return np.random.default_rng(seed)


def models(n_stimuli=120, n_models=12, seed=0):
    return rng(seed).gamma(2.0, 1.5, size=(n_stimuli, n_models))


def record(predictions, which, *, n_repeats=5, seed=1):
    rates = predictions[:, which]
    shape = (len(rates), n_repeats, len(which))
    return rng(seed).poisson(rates[:, None, :], size=shape).astype(float)


def test_finds_the_models_neurons_were_made_from():
    predictions, which = models(), [7, 0, 11, 7, 3]
    counts = record(predictions, which)
    table = match_neurons(counts, predictions, rng=rng())
    assert table["model"].tolist() == which == table["best_model"].tolist()
    assert (table["reason"] == "").all()
    assert (table["p"] == 1 / 1001).all()
    assert (table["metric"] == "noise-corrected r2").all()
    expected = noise_corrected_r2(counts, predictions[:, which])
    assert np.allclose(table["r2"], expected)
    assert table["r2"].mean() == pytest.approx(1, abs=0.05)


def test_scores_are_those_of_scipy():
    predictions = models()
    averages = record(predictions, [2, 5])[:, 0]
    table = match_neurons(averages, predictions, rng=rng())
    for k in range(2):
        every = [pearsonr(averages[:, k], x).statistic for x in predictions.T]
        order = np.argsort(every)[::-1]
        row = table.iloc[k]
        assert row["correlation"] == pytest.approx(every[order[0]])
        assert (row["best_model"], row["runner_up"]) == tuple(order[:2])
        assert row["runner_up_correlation"] == pytest.approx(every[order[1]])
    assert (table["metric"] == "r2").all()
    assert np.allclose(table["r2"], pearson_r2(averages, predictions[:, [2, 5]]))


def test_single_repeats_are_scored_without_correction():
    predictions = models()
    table = match_neurons(record(predictions, [1], n_repeats=1), predictions, rng=rng())
    assert table["metric"].tolist() == ["r2"]
    assert table["model"].tolist() == [1]


def test_unrelated_neurons_are_matched_at_the_nominal_rate():
    predictions = models(60, 20, seed=3)
    counts = record(models(60, 600, seed=4), range(600), n_repeats=2)
    table = match_neurons(counts, predictions, rng=rng(), n_permutations=500)
    rate = (table["model"] >= 0).mean()
    assert rate == pytest.approx(0.05, abs=3.5 * np.sqrt(0.05 * 0.95 / 600))
    unmatched = table[table["model"] < 0]
    assert unmatched["reason"].str.contains("by chance").all()
    assert (unmatched["best_model"] >= 0).all()
    assert (table["model"] >= 0).equals(table["p"] <= 0.05)


def test_the_threshold_is_that_of_a_plain_loop():
    predictions = models(30, 4)
    values = record(predictions, [1, 2])[:, 0]
    table = match_neurons(values, predictions, rng=rng(5), n_permutations=200)
    draw, highest = rng(5), []
    for _ in range(200):
        shuffled = values[draw.permutation(30)]
        both = np.corrcoef(shuffled.T, predictions.T)[:2, 2:]
        highest.append(both.max(axis=1))
    expected = np.quantile(highest, 0.95, axis=0, method="higher")
    assert np.allclose(table["threshold"], expected)


def test_a_negative_correlation_is_no_match():
    predictions = models(100, 1)
    table = match_neurons(10 - predictions, predictions, rng=rng())
    assert table["model"].tolist() == [-1]
    assert table["correlation"][0] == pytest.approx(-1)


def test_a_model_may_stand_for_several_neurons_or_for_one():
    predictions = models()
    better = predictions[:, [4]] + 0.05 * rng(1).normal(size=(120, 1))
    worse = predictions[:, [4]] + 0.8 * predictions[:, [9]] + rng(2).normal(size=(120, 1))
    taken = predictions[:, [4]] + rng(3).normal(size=(120, 1))
    values = np.hstack([worse, better, taken])
    shared = match_neurons(values, predictions, rng=rng())
    assert shared["model"].tolist() == [4, 4, 4]
    single = match_neurons(values, predictions, rng=rng(), one_to_one=True)
    assert single["model"].tolist() == [9, 4, -1]
    assert "stands for another neuron" in single["reason"][2]
    assert single["best_model"].tolist() == [4, 4, 4]
    assert single["correlation"][0] == pytest.approx(
        pearsonr(worse[:, 0], predictions[:, 9]).statistic
    )
    assert single["p"][0] <= 0.05


def test_more_neurons_than_models():
    predictions = models(80, 2)
    values = predictions[:, [0, 1, 0]] + 0.2 * rng(1).normal(size=(80, 3))
    table = match_neurons(values, predictions, rng=rng(), one_to_one=True)
    assert sorted(table["model"]) == [-1, 0, 1]


def test_images_not_shown_are_left_out_neuron_by_neuron():
    predictions = models()
    counts = record(predictions, [3, 6, 3, 3])
    counts[:40, :, 1] = np.nan
    counts[2:, :, 2] = np.nan  # two images left
    counts[:, :, 3] = 4.0
    table = match_neurons(counts, predictions, rng=rng())
    assert table["model"].tolist() == [3, 6, -1, -1]
    alone = counts[40:, :, 1].mean(axis=1)
    assert table["correlation"][1] == pytest.approx(pearsonr(alone, predictions[40:, 6]).statistic)
    for k in (2, 3):
        assert "fewer than three images" in table["reason"][k]
        assert np.isnan([table["correlation"][k], table["p"][k], table["r2"][k]]).all()
        assert table["best_model"][k] == -1


def test_a_constant_model_is_never_the_best():
    predictions = models()
    predictions[:, 0] = 2.0
    table = match_neurons(record(models(), [0, 5]), predictions, rng=rng())
    assert table["best_model"][0] != 0
    assert table["model"][1] == 5
    only = match_neurons(record(models(), [5]), predictions[:, :1], rng=rng())
    assert "constant" in only["reason"][0]


def test_images_must_not_be_those_of_the_test():
    predictions = models()
    counts, names = record(predictions, [1]), [f"image{k}" for k in range(120)]
    match_neurons(counts, predictions, rng=rng(), stimuli=names, test_stimuli=["other"])
    with pytest.raises(InputError, match=r"1 images used for matching .* 'image7'"):
        match_neurons(counts, predictions, rng=rng(), stimuli=names, test_stimuli=["image7"])
    with pytest.raises(InputError, match="got 2"):
        match_neurons(counts, predictions, rng=rng(), stimuli=names[:2])
    with pytest.raises(InputError, match="only if `stimuli`"):
        match_neurons(counts, predictions, rng=rng(), test_stimuli=names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"responses": np.ones(9)}, "got shape"),
        ({"responses": np.ones((8, 1))}, "one row for each image"),
        ({"predictions": np.ones((9, 0))}, "one model or more"),
        ({"predictions": np.full((9, 2), np.nan)}, "must be finite"),
        ({"responses": np.full((9, 1), np.inf)}, "infinite"),
        ({"responses": np.ones((2, 1)), "predictions": np.ones((2, 1))}, "at least 3 stimuli"),
        ({"level": 0.0}, "level"),
        ({"n_permutations": 10}, "at least 100"),
    ],
)
def test_refuses(change, message):
    given = {"responses": np.ones((9, 1)), "predictions": models(9, 2)} | change
    with pytest.raises(InputError, match=message):
        match_neurons(given.pop("responses"), given.pop("predictions"), rng=rng(), **given)
