"""Tables and tests over a population: similarities whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest
from population_models import population

from pocketcortex.core import InputError
from pocketcortex.dissect import (
    Alignment,
    alignment_table,
    alignment_test,
    kernel_similarity,
    kernel_table,
    kernel_test,
    model_alignment,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def alignment() -> Alignment:
    shown = rng().integers(0, 256, (16, 3, 14, 17), dtype=np.uint8)
    return model_alignment(population(5), shown, n_permutations=19)


def with_cka(alignment: Alignment, n_models: int, effect: float, seed: int = 0) -> Alignment:
    """Return CKA that depends on each model, not only the pair, higher by `effect` early."""
    own = rng(seed).normal(size=(5, n_models))
    values = 0.1 * (own[:, :, None] + own[:, None])
    values[:2] += effect
    return replace(alignment, cka=values, null=None)


def test_the_table_of_layers(alignment: Alignment) -> None:
    table = alignment_table(alignment, rng=rng())
    upper = np.triu_indices(5, 1)
    pairs = alignment.cka[:, *upper]
    np.testing.assert_allclose(table["mean"], pairs.mean(axis=1))
    np.testing.assert_allclose(table["sd"], pairs.std(axis=1, ddof=1))
    assert table["layer"].tolist() == [0, 1, 2, 3, 4]
    assert (table["n_pairs"] == 10).all()
    assert (table["ci_low"] <= table["ci_high"]).all()
    np.testing.assert_allclose(
        table["dimensionality"], np.median(alignment.channels.dimensionality, axis=1)
    )
    assert alignment.null is not None
    np.testing.assert_array_equal(table["p"], alignment.null.pair_mean_p)
    assert "p" not in alignment_table(replace(alignment, null=None), rng=rng())


def test_models_without_a_layer_are_left_out(alignment: Alignment) -> None:
    values = alignment.cka.copy()
    values[2, 1] = values[2, :, 1] = np.nan
    some = replace(alignment, cka=values)
    table = alignment_table(some, rng=rng())
    assert table["n_pairs"].tolist() == [10, 10, 6, 10, 10]
    row = alignment_test(some, rng=rng(), n_draws=20).iloc[0]
    others = np.array([0, 2, 3, 4])
    kept = values[:, others][:, :, others][:, *np.triu_indices(4, 1)]
    assert row["early_mean"] == pytest.approx(kept[:2].mean())
    assert row["late_mean"] == pytest.approx(kept[2:4].mean())
    assert row["difference"] == pytest.approx(row["early_mean"] - row["late_mean"])


def test_a_difference_is_found(alignment: Alignment) -> None:
    known = with_cka(alignment, 40, 0.4)
    row = alignment_test(known, rng=rng()).iloc[0]
    assert (row["early"], row["late"]) == ("layer 0, layer 1", "layer 2, layer 3")
    upper = known.cka[:, *np.triu_indices(40, 1)]
    assert row["difference"] == pytest.approx(upper[:2].mean() - upper[2:4].mean())
    assert row["ci_low"] < row["difference"] < row["ci_high"]
    assert row["p_valid"] == pytest.approx(4 / 10_001)
    assert row["p_draws"] == pytest.approx(1 / 501)
    assert (row["n_models"], row["n_pairs"], row["n_draws"]) == (40, 20, 500)
    turned = alignment_test(known, rng=rng(), early=[2, 3], late=[0, 1]).iloc[0]
    assert turned["difference"] == pytest.approx(-row["difference"])
    assert turned["p_draws"] == 1


def test_only_the_valid_p_holds_its_level_when_models_differ(alignment: Alignment) -> None:
    valid, drawn = [], []
    for seed in range(60):
        row = alignment_test(
            with_cka(alignment, 24, 0.0, seed), rng=rng(seed), n_draws=60, n_permutations=500,
            n_resamples=20,
        ).iloc[0]  # fmt: skip
        valid.append(row["p_valid"])
        drawn.append(row["p_draws"])
    assert np.mean(np.array(valid) <= 0.05) <= 0.07
    assert np.mean(np.array(drawn) <= 0.05) > 0.3  # one-sided, and far too often


def test_kernels(alignment: Alignment) -> None:
    found = kernel_similarity(population(10), rng=rng(), n_runs=30)
    table = kernel_table(found, rng=rng())
    np.testing.assert_allclose(table["mean"], found.mean)
    np.testing.assert_allclose(table["excess"], table["mean"] - table["reference"])
    np.testing.assert_allclose(table["excess_ci_low"], table["ci_low"] - table["reference"])
    assert table["layer"].tolist() == list(found.layers)
    row = kernel_test(found, rng=rng()).iloc[0]
    assert (row["early"], row["late"]) == ("layer 1, layer 2", "layer 3, layer 4")
    assert row["early_mean"] == pytest.approx(found.mean[:2].mean())
    assert row["difference"] == pytest.approx(found.mean[:2].mean() - found.mean[2:].mean())
    assert row["p_valid"] > 0.05  # random kernels
    values = found.values.copy()
    values[:2] += 1
    higher = kernel_test(replace(found, values=values), rng=rng()).iloc[0]
    assert higher["difference"] == pytest.approx(row["difference"] + 1)
    assert higher["p_valid"] == pytest.approx(4 / 2**5)  # five pairs have no less
    assert higher["p_draws"] == pytest.approx(1 / 31)


def test_bad_input_is_refused(alignment: Alignment) -> None:
    for early, late in (((), (2,)), ((0,), (5,)), ((0, 2), (2, 3))):
        with pytest.raises(InputError, match="must name different ones"):
            alignment_test(alignment, rng=rng(), early=early, late=late)
    found = kernel_similarity(population(4), rng=rng(), n_runs=2)
    with pytest.raises(InputError, match="must name different ones"):
        kernel_test(found, rng=rng(), early=("layer 0",))
    with pytest.raises(InputError, match="one draw or more"):
        alignment_test(alignment, rng=rng(), n_draws=0)
