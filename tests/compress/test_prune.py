"""Pruning removes the least filters, keeps means, and stops before it goes too far."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pocketcortex.compress import (
    LayerStatistics,
    fraction_of_variance,
    layer_statistics,
    prune,
    readout_contributions,
)
from pocketcortex.core import InputError
from pocketcortex.models import CompactModel
from pocketcortex.training import refresh_batch_norm

FILTERS = (8, 7, 6, 9, 10)
IMAGES = np.random.default_rng(0).integers(0, 256, (20, 3, 16, 12), dtype=np.uint8)


def random_model(dead: Mapping[int, Sequence[int]] = MappingProxyType({})) -> CompactModel:
    """Return a model of live filters, except those of each layer that answer 0 to every image."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CompactModel(FILTERS, (16, 12))
        with torch.no_grad():
            model.readout.normal_()
            model.readout_bias.normal_()
            for layer, norm in enumerate(model.layers.norms):
                norm.bias.uniform_(0, 1)
                norm.weight.uniform_(0.3, 2)
                norm.weight[list(dead.get(layer, []))] = 0
                norm.bias[list(dead.get(layer, []))] = -1
    refresh_batch_norm(model, IMAGES)
    return model.double().eval()


def depthwise_outputs(model: CompactModel) -> list[np.ndarray]:
    """Return what enters each pointwise layer for all images, channels last."""
    with torch.inference_mode():
        x = model.layers.layer(0, model.layers.centre(torch.from_numpy(IMAGES)))
        outputs = []
        for layer in range(1, 5):
            z = model.layers.filtered(layer, x)
            outputs.append(z.permute(0, 2, 3, 1).flatten(0, 2).numpy())
            x = model.layers.layer(layer, x)
    return outputs


def mixing_of(model: CompactModel, layer: int) -> np.ndarray:
    return model.layers.pointwise[layer].weight.detach().numpy()[..., 0, 0]


def statistics_of(model: CompactModel) -> LayerStatistics:
    return layer_statistics(model.layers, IMAGES)


def contributions_of(model: CompactModel) -> np.ndarray:
    return readout_contributions(model.layers, model.readout[None], IMAGES)[:, 0]


def responses(model: CompactModel) -> np.ndarray:
    with torch.inference_mode():
        return model(torch.from_numpy(IMAGES)).numpy()


def pruned(
    model: CompactModel,
    threshold: float,
    min_filters: int = 1,
    teacher: np.ndarray | None = None,
    refit: bool = True,
) -> CompactModel:
    return prune(
        model, statistics_of(model), contributions_of(model),
        responses(model) if teacher is None else teacher,
        threshold=threshold, min_filters=min_filters, refit=refit,
    )  # fmt: skip


def kept_filters(small: CompactModel, model: CompactModel) -> list[list[int]]:
    """Find the surviving filters by their batch-norm statistics, which pruning copies."""
    kept = []
    for few, all_ in zip(small.layers.norms, model.layers.norms, strict=True):
        values = all_.get_buffer("running_var").tolist()
        kept.append([values.index(v) for v in few.get_buffer("running_var").tolist()])
    return kept


def test_streamed_statistics_equal_those_of_all_activations() -> None:
    model = random_model()
    statistics = statistics_of(model)
    for layer, z in enumerate(depthwise_outputs(model)):
        np.testing.assert_allclose(statistics.means[layer], z.mean(axis=0), rtol=1e-9)
        expected = np.cov(z.T, ddof=0)
        np.testing.assert_allclose(
            statistics.covariances[layer], expected, rtol=1e-9, atol=1e-9 * expected.max()
        )


def test_contributions_add_up_to_the_response() -> None:
    model = random_model()
    total = contributions_of(model).sum(axis=1) + model.readout_bias.item()
    np.testing.assert_allclose(total, responses(model), rtol=1e-9)


@pytest.mark.parametrize("layer", range(4))
def test_fraction_of_variance_equals_brute_force(layer: int) -> None:
    model = random_model()
    z, W = depthwise_outputs(model)[layer], mixing_of(model, layer)
    covariance = statistics_of(model).covariances[layer]
    order = np.random.default_rng(1).permutation(z.shape[1])
    whole = z @ W.T
    whole -= whole.mean(axis=0)
    expected = []
    for k in range(len(order) + 1):
        left = z.copy()
        left[:, order[:k]] = 0
        left = left @ W.T
        left -= left.mean(axis=0)
        expected.append(1 - np.square(left - whole).sum() / np.square(whole).sum())
    got = fraction_of_variance(W, covariance, order)
    np.testing.assert_allclose(got, expected, atol=1e-9)


def test_fraction_of_variance_of_some_channels_is_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    W, z = rng.normal(size=(3, 5)), rng.normal(size=(50, 5))
    covariance = np.cov(z.T, ddof=0)
    every = fraction_of_variance(W, covariance, [3, 0, 4, 1, 2])
    np.testing.assert_allclose(fraction_of_variance(W, covariance, [3, 0]), every[:3])


def test_nothing_to_explain_leaves_all_of_it() -> None:
    left = fraction_of_variance(np.zeros((2, 3)), np.eye(3), [0, 1, 2])
    assert left.tolist() == [1, 1, 1, 1]


def expected_survivors(order: np.ndarray, left: list[float], threshold: float) -> list[int]:
    """Walk filter by filter; stop before the first that takes `left` below the threshold."""
    n_removed = 0
    while n_removed < len(order) - 1 and left[n_removed + 1] >= threshold:
        n_removed += 1
    return sorted(order[n_removed:].tolist())


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
def test_each_layer_stops_before_the_threshold_last_layer_first(threshold: float) -> None:
    model = random_model()
    teacher = responses(model) + np.random.default_rng(2).normal(size=len(IMAGES))
    kept = kept_filters(pruned(model, threshold, teacher=teacher), model)

    contributions = contributions_of(model)
    order = np.argsort(contributions.std(axis=0))
    r2 = []
    for k in range(len(order)):
        sums = contributions[:, order[k:]].sum(axis=1)
        r2.append(np.corrcoef(sums, teacher)[0, 1] ** 2)
    assert kept[4] == expected_survivors(order, r2, threshold * r2[0])

    for layer in (3, 2, 1, 0):
        z = depthwise_outputs(model)[layer]
        W = mixing_of(model, layer)[kept[layer + 1]]  # only outputs that stay count
        order = np.argsort(z.var(axis=0) * np.square(W).sum(axis=0))
        whole = (z - z.mean(axis=0)) @ W.T
        left = [
            1 - np.square((z - z.mean(axis=0))[:, order[:k]] @ W[:, order[:k]].T).sum()
            / np.square(whole).sum()
            for k in range(len(order))
        ]  # fmt: skip
        assert kept[layer] == expected_survivors(order, left, threshold)
    assert sum(map(len, kept)) < sum(FILTERS)


def test_pruned_model_puts_means_in_the_place_of_what_is_gone() -> None:
    model = random_model()
    small = pruned(model, 0.8, refit=False)
    kept, statistics = kept_filters(small, model), statistics_of(model)
    x = model.layers.layer(0, model.layers.centre(torch.from_numpy(IMAGES)))
    for layer in range(1, 5):
        gone = np.setdiff1d(np.arange(FILTERS[layer - 1]), kept[layer - 1])
        z: Tensor = model.layers.filtered(layer, x).clone()
        z[:, gone] = torch.from_numpy(statistics.means[layer - 1][gone])[:, None, None]
        y = model.layers.pointwise[layer - 1](z)
        x = F.relu(model.layers.norms[layer](y))
    gone = np.setdiff1d(np.arange(FILTERS[4]), kept[4])
    answer = torch.einsum("nchw,chw->n", x[:, kept[4]], model.readout[kept[4]])
    answer = answer + model.readout_bias + contributions_of(model)[:, gone].mean(axis=0).sum()
    np.testing.assert_allclose(responses(small), answer.detach().numpy(), rtol=1e-9)
    assert len(gone) > 0


def first_pointwise_means(model: CompactModel) -> Tensor:
    x = model.layers.layer(0, model.layers.centre(torch.from_numpy(IMAGES)))
    return model.layers.pointwise[0](model.layers.filtered(1, x)).mean((0, 2, 3))


def test_pointwise_means_of_the_first_pruned_layer_are_kept() -> None:
    model = random_model()
    small = pruned(model, 0.8)
    kept = kept_filters(small, model)
    before, after = first_pointwise_means(model)[kept[1]], first_pointwise_means(small)
    assert len(kept[0]) < FILTERS[0]
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9)


def test_mean_response_survives_pruning_of_the_last_layer() -> None:
    model = random_model()
    statistics = LayerStatistics(  # every other filter is worth keeping
        tuple(np.zeros(n) for n in FILTERS[:-1]), tuple(np.eye(n) for n in FILTERS[:-1])
    )
    for pointwise in model.layers.pointwise:
        torch.nn.init.orthogonal_(pointwise.weight)
    contributions = contributions_of(model)
    small = prune(model, statistics, contributions, responses(model), threshold=0.99, min_filters=6)
    assert small.filters[4] < FILTERS[4]
    if small.filters[:4] == FILTERS[:4]:
        np.testing.assert_allclose(responses(small).mean(), responses(model).mean(), rtol=1e-9)
    else:
        pytest.fail("only the last layer was to lose filters")


def test_refitted_weights_are_the_least_squares_of_what_all_channels_gave() -> None:
    model = random_model()
    small, plain = pruned(model, 0.8), pruned(model, 0.8, refit=False)
    kept = kept_filters(small, model)
    for layer, z in enumerate(depthwise_outputs(model)):
        z = z - z.mean(axis=0)
        wanted = z @ mixing_of(model, layer)[kept[layer + 1]].T
        best = np.linalg.lstsq(z[:, kept[layer]], wanted)[0].T
        np.testing.assert_allclose(mixing_of(small, layer), best, rtol=1e-3, atol=1e-4)
        left = [
            np.square(z[:, kept[layer]] @ mixing_of(m, layer).T - wanted).sum()
            for m in (small, plain)
        ]
        assert left[0] < left[1]


@pytest.mark.parametrize("threshold", [1.0, 0.999999])
def test_dead_filters_go_and_answers_stay(threshold: float) -> None:
    dead = {0: [0, 5], 1: [2], 2: [1, 3], 3: [8], 4: [0, 4, 9]}
    model = random_model(dead)
    small = pruned(model, threshold)
    alive = [[c for c in range(n) if c not in dead[k]] for k, n in enumerate(FILTERS)]
    assert kept_filters(small, model) == alive
    np.testing.assert_allclose(responses(small), responses(model), rtol=1e-9)


def test_threshold_one_keeps_a_model_without_dead_filters() -> None:
    model = random_model()
    small = pruned(model, 1.0)
    assert small.filters == FILTERS
    np.testing.assert_allclose(responses(small), responses(model), rtol=1e-9)


@pytest.mark.parametrize("min_filters", [1, 3, 7])
def test_threshold_zero_leaves_the_least_allowed(min_filters: int) -> None:
    small = pruned(random_model(), 0.0, min_filters)
    assert min(small.filters) >= min(min_filters, 6)
    assert small.filters[4] == min_filters


@pytest.mark.parametrize("min_filters", [1, 3, 7, 100])
def test_no_layer_goes_below_min_filters(min_filters: int) -> None:
    small = pruned(random_model(), 0.5, min_filters)
    assert all(n >= min(min_filters, m) for n, m in zip(small.filters, FILTERS, strict=True))


def test_pruned_model_is_smaller_in_every_count() -> None:
    model = random_model()
    small = pruned(model, 0.8)
    assert small.n_parameters.total < model.n_parameters.total
    stored = {k: v for k, v in small.state_dict().items() if not k.endswith("image_mean")}
    n_stored = sum(v.numel() for v in stored.values() if v.is_floating_point())
    assert n_stored == small.n_parameters.total


def test_pruning_leaves_the_model_alone() -> None:
    model = random_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    small = pruned(model, 0.8)
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.zero_()
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


@pytest.mark.parametrize(
    ("threshold", "min_filters"), [(-0.1, 3), (1.1, 3), (float("nan"), 3), (0.9, 0)]
)
def test_impossible_settings_are_refused(threshold: float, min_filters: int) -> None:
    with pytest.raises(InputError, match=r"threshold must be within 0\.\.1 and min_filters"):
        pruned(random_model(), threshold, min_filters)
