"""Kernel similarity: against loops, and populations whose kernels are known."""

from itertools import combinations, permutations
from math import gamma, pi, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from population_models import population

from pocketcortex.core import InputError
from pocketcortex.dissect import KernelSimilarity, kernel_similarity, readout_similarity
from pocketcortex.dissect.kernels import _best_matching, _in_the_middle, _unit
from pocketcortex.models import CompactModel, import_compact_model, published_models


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(abs((a * b).sum()) / np.linalg.norm(a) / np.linalg.norm(b))


def depthwise(model: CompactModel, layer: int) -> np.ndarray:
    return model.layers.depthwise[layer - 1].weight.detach().double().numpy()[:, 0]


@pytest.mark.parametrize("k", [1, 3, 5, 7])
def test_the_best_matching_is_that_of_all_orders(k: int) -> None:
    first, second = (np.stack([_unit(rng(s + i).normal(size=(k, 9))) for i in range(4)])
                     for s in (0, 50))  # fmt: skip
    found = _best_matching(first, second)
    for a, b, value in zip(first, second, found, strict=True):
        orders = permutations(range(k))
        best = max(np.mean([cosine(a[i], b[j]) for i, j in enumerate(order)]) for order in orders)
        assert value == pytest.approx(best)


def test_all_kernels_of_a_layer_drawn_give_the_matching_of_the_layers() -> None:
    models = population(4)
    for model in models:  # three kernels in layer 2's input everywhere is what the draw allows
        assert min(model.filters[:4]) >= 3
    found = kernel_similarity(models, rng=rng(), n_runs=40)
    assert (found.n_kernels, found.values.shape) == (3, (4, 40, 2))
    assert found.layers == ("layer 1", "layer 2", "layer 3", "layer 4")
    for run in range(40):
        for p, (i, j) in enumerate(found.pairs[run]):
            a, b = depthwise(models[i], 3), depthwise(models[j], 3)
            if len(a) == len(b) == 3:
                best = max(
                    np.mean([cosine(x, b[o]) for x, o in zip(a, order, strict=True)])
                    for order in permutations(range(3))
                )
                assert found.values[2, run, p] == pytest.approx(best)
    np.testing.assert_allclose(found.runs, found.values.mean(axis=2))
    np.testing.assert_allclose(found.mean, found.runs.mean(axis=1))
    np.testing.assert_allclose(found.excess, found.mean - found.reference_mean)


def test_best_matches_of_all_pairs_equal_a_loop() -> None:
    models = population(5)
    found = kernel_similarity(models, rng=rng(), n_runs=1)
    for layer in range(1, 5):
        for i in range(5):
            for j in range(5):
                table = np.array([
                    [cosine(a, b) for b in depthwise(models[j], layer)]
                    for a in depthwise(models[i], layer)
                ])  # fmt: skip
                expected = (table.max(axis=0).mean() + table.max(axis=1).mean()) / 2
                assert found.best_match[layer - 1, i, j] == pytest.approx(expected)


def test_sign_scale_and_order_of_kernels_do_not_count() -> None:
    models = population(3)
    twin = population(3)
    with torch.no_grad():
        for model in twin:
            for conv in model.layers.depthwise:
                weight = conv.weight
                sign = torch.where(torch.arange(len(weight)) % 2 == 0, -2.5, 0.3)
                weight.copy_((weight * sign[:, None, None, None]).flip(0))
    one, other = (kernel_similarity(m, rng=rng(), n_runs=2).best_match for m in (models, twin))
    np.testing.assert_allclose(one, other, atol=1e-6)
    np.testing.assert_allclose(one[:, range(3), range(3)], 1)


def test_models_with_one_set_of_kernels_are_alike_and_kernels_of_zeros_are_like_none() -> None:
    models = [population(1)[0] for _ in range(4)]
    found = kernel_similarity(models, rng=rng(), n_kernels=3, n_runs=30)
    assert (found.values[1] < 1 - 1e-9).any()  # 6 kernels, of which other three may be drawn
    np.testing.assert_allclose(found.values[2], 1)  # all three are drawn
    with torch.no_grad():
        models[0].layers.depthwise[2].weight.zero_()
    found = kernel_similarity(models[:2], rng=rng(), n_runs=3)
    np.testing.assert_array_equal(found.values[2], 0)
    assert np.isfinite(found.best_match).all()


@pytest.mark.parametrize("sigma", [0.0, 0.8])
def test_the_reference_is_that_of_normal_kernels(sigma: float) -> None:
    found = kernel_similarity(
        population(6), rng=rng(), n_kernels=1, n_runs=1500, reference_sigma_px=sigma
    )
    d = 25
    expected = gamma(d / 2) / (sqrt(pi) * gamma((d + 1) / 2))  # mean |cosine| in d dimensions
    if sigma:
        assert (found.reference_mean > 1.2 * expected).all()
    else:
        np.testing.assert_allclose(found.reference_mean, expected, rtol=0.03)
        # the best of several is above one, and of sets of one size all pairs are as good
        assert (found.best_match_reference.mean(axis=(1, 2)) > 1.3 * expected).all()


def test_as_many_kernels_in_every_layer_make_random_layers_equal() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        models = [CompactModel((30, 3, 20, 4, 3), (8, 8)) for _ in range(30)]
        with torch.no_grad():
            for model in models:
                for conv in model.layers.depthwise:
                    conv.weight.normal_()
    found = kernel_similarity(models, rng=rng(), n_runs=200)
    low, high = found.mean_ci(rng=rng(1))
    assert (abs(found.excess) < 0.02).all()
    assert ((low - 0.01 < found.reference_mean) & (found.reference_mean < high + 0.01)).all()
    assert found.best_match[0].mean() > found.best_match[1].mean() + 0.1  # these do not compare


def test_pair_sums_hold_every_run() -> None:
    found = kernel_similarity(population(10), rng=rng(), n_runs=7)
    mean, counts = found.pair_sums()
    assert counts.sum() == 2 * 7 * 5
    np.testing.assert_array_equal(counts, counts.T)
    for i, j in combinations(range(10), 2):
        expected = [
            found.values[3, run, p]
            for run, p in np.ndindex(7, 5)
            if set(found.pairs[run, p]) == {i, j}
        ]
        assert counts[i, j] == len(expected)
        wanted = np.mean(expected) if expected else np.nan
        assert mean[3, i, j] == pytest.approx(wanted, nan_ok=True)
    low, high = found.mean_ci(rng=rng())
    assert (low <= found.mean).all()
    assert (found.mean <= high).all()
    assert "7 runs of 5 pairs" in repr(found)


def test_alike_readouts_elsewhere_are_alike_only_when_aligned() -> None:
    models = population(2, (80, 80))
    spot = np.exp(-((np.arange(20)[:, None] - 6.2) ** 2 + (np.arange(20) - 5.2) ** 2) / 4)
    spots = torch.from_numpy(np.stack([spot, spot**2, -spot])).float()
    with torch.no_grad():
        models[0].readout.copy_(spots)
        models[1].readout.zero_()
        models[1].readout[:3] = spots.roll((7, 8), (1, 2))
        models[1].readout[3:] = models[1].readout[:3]
    apart, together = (
        readout_similarity(models, rng=rng(), n_runs=3, aligned=aligned)
        for aligned in (False, True)
    )
    assert together.layers == ("readout",)
    assert apart.best_match[0, 0, 1] < 0.05
    assert together.best_match[0, 0, 1] > 0.999


def test_the_middle_is_where_the_mass_goes() -> None:
    maps = np.zeros((2, 9, 9))
    maps[0, 1, 8], maps[1, 3, 8] = 2.0, -2.0
    moved = _in_the_middle(maps)
    assert (moved[0, 3, 4], moved[1, 5, 4]) == (2.0, -2.0)
    assert abs(moved).sum() == 4
    np.testing.assert_array_equal(_in_the_middle(np.zeros((1, 4, 5))), np.zeros((1, 4, 5)))


def test_bad_input_is_refused() -> None:
    models = population(3)
    with pytest.raises(InputError, match="two models or more"):
        kernel_similarity(models[:1], rng=rng())
    with pytest.raises(InputError, match=r"within 1\.\.3"):
        kernel_similarity(models, rng=rng(), n_kernels=4)
    with pytest.raises(InputError, match="n_runs"):
        kernel_similarity(models, rng=rng(), n_runs=0)
    with pytest.raises(InputError, match="reference_sigma_px"):
        kernel_similarity(models, rng=rng(), reference_sigma_px=-1.0)
    with pytest.raises(InputError, match="one size"):
        readout_similarity([models[0], population(1, (40, 40))[0]], rng=rng())


@pytest.mark.data
def test_early_kernels_of_published_models_are_more_alike_than_late_ones(real_data: Path) -> None:
    models = [
        import_compact_model(p) for p in published_models(real_data / "v4", "190923").values()
    ]
    found: KernelSimilarity = kernel_similarity(models, rng=rng(), n_runs=50)
    assert found.n_kernels == 3
    assert found.excess[:2].mean() > found.excess[2:].mean() + 0.05
    assert (found.excess > 0.1).all()
