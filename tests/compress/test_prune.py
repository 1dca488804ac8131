"""Pruning removes the least filters, keeps means, and stops before it goes too far."""

from typing import Literal

import numpy as np
import pytest
import torch
from small_models import FILTERS, IMAGES, kept_filters, random_model, responses
from torch import Tensor

from pocketcortex.compress import (
    LayerStatistics,
    fraction_of_variance,
    layer_statistics,
    prune,
    readout_contributions,
)
from pocketcortex.core import InputError
from pocketcortex.models import CompactModel


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


def pruned(
    model: CompactModel,
    threshold: float,
    min_filters: int = 1,
    teacher: np.ndarray | None = None,
    method: Literal["greedy", "published"] = "greedy",
    order: Literal["late-to-early", "early-to-late"] = "late-to-early",
) -> CompactModel:
    return prune(
        model, statistics_of(model), contributions_of(model),
        responses(model) if teacher is None else teacher,
        threshold=threshold, min_filters=min_filters, method=method, order=order,
    )  # fmt: skip


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


def left_after_refit(z: np.ndarray, wanted: np.ndarray, kept: list[int]) -> float:
    """Return the part of the variance of `wanted` that the kept channels give by least squares."""
    weights = np.linalg.lstsq(z[:, kept], wanted)[0]
    return float(1 - np.square(wanted - z[:, kept] @ weights).sum() / np.square(wanted).sum())


@pytest.mark.parametrize("order", ["late-to-early", "early-to-late"])
@pytest.mark.parametrize("threshold", [0.8, 0.98])
def test_greedy_takes_the_cheapest_channel_after_refit_and_stops_before_the_threshold(
    order: Literal["late-to-early", "early-to-late"], threshold: float
) -> None:
    model = random_model()
    teacher = responses(model) + np.random.default_rng(2).normal(size=len(IMAGES))
    kept = kept_filters(pruned(model, threshold, teacher=teacher, order=order), model)
    for layer in range(4):
        z = depthwise_outputs(model)[layer]
        z = z - z.mean(axis=0)
        outputs = kept[layer + 1] if order == "late-to-early" else range(FILTERS[layer + 1])
        wanted = z @ mixing_of(model, layer)[list(outputs)].T
        alive = list(range(FILTERS[layer]))
        while len(alive) > 1:
            left = [left_after_refit(z, wanted, [c for c in alive if c != j]) for j in alive]
            if max(left) < threshold:
                break
            alive.pop(int(np.argmax(left)))
        assert kept[layer] == alive
    assert sum(map(len, kept)) < sum(FILTERS)


def published_survivors(
    model: CompactModel, teacher: np.ndarray, threshold: float, late_to_early: bool
) -> list[list[int]]:
    """Follow the published procedure on activations in memory, filter by filter."""
    with torch.inference_mode():
        x = model.layers.layer(0, model.layers.centre(torch.from_numpy(IMAGES)))
        depthwise = []
        for layer in range(1, 5):
            depthwise.append(model.layers.filtered(layer, x).numpy())
            x = model.layers.layer(layer, x)
    contributions = np.einsum("ijkl,jkl->ij", x.numpy(), model.readout.detach().numpy())
    kept = [list(range(n)) for n in FILTERS]

    ranked = np.argsort(contributions.std(axis=0))
    fv0 = np.corrcoef(contributions.sum(axis=1), teacher)[0, 1] ** 2
    marked: list[int] = []
    for f in ranked:
        left = np.delete(contributions, marked, axis=1).sum(axis=1)
        if not np.corrcoef(left, teacher)[0, 1] ** 2 > threshold * fv0:
            break
        marked.append(int(f))
    while FILTERS[4] - len(marked) < 3:
        marked.pop()
    last = [f for f in kept[4] if f not in marked]
    if late_to_early:
        kept[4] = last

    for layer in (3, 2, 1, 0) if late_to_early else range(4):
        z = depthwise[layer].astype(np.float64)  # (images, channels, rows, columns)
        W = mixing_of(model, layer).copy()
        W[[o for o in range(FILTERS[layer + 1]) if o not in kept[layer + 1]]] = 0
        about_mean_image = np.square(z - z.mean(axis=0)).sum(axis=(0, 2, 3))
        ranked = np.argsort(about_mean_image * np.square(W).sum(axis=0))
        whole = np.einsum("oc,icxy->oixy", W, z)
        whole -= whole.mean(axis=(1, 2, 3), keepdims=True)
        n_gone = 0
        for n_gone in range(1, FILTERS[layer] + 1):
            silenced = z.copy()
            silenced[:, ranked[:n_gone]] = 0
            left = np.einsum("oc,icxy->oixy", W, silenced)
            left -= left.mean(axis=(1, 2, 3), keepdims=True)
            if 1 - np.square(left - whole).sum() / np.square(whole).sum() < threshold:
                break
        n_gone = min(n_gone, FILTERS[layer] - 3)
        kept[layer] = sorted(ranked[n_gone:].tolist())
    kept[4] = last
    return kept


@pytest.mark.parametrize("order", ["late-to-early", "early-to-late"])
@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.9, 0.99, 1.0])
def test_published_method_is_that_of_activations_in_memory(
    order: Literal["late-to-early", "early-to-late"], threshold: float
) -> None:
    model = random_model()
    teacher = responses(model) + np.random.default_rng(2).normal(size=len(IMAGES))
    small = pruned(model, threshold, 3, teacher, "published", order)
    kept = published_survivors(model, teacher, threshold, order == "late-to-early")
    assert kept_filters(small, model) == kept
    for layer in range(4):  # weights and biases stay as they were
        rows, columns = np.array(kept[layer + 1]), np.array(kept[layer])
        assert np.array_equal(mixing_of(small, layer), mixing_of(model, layer)[rows][:, columns])
        bias = model.layers.pointwise[layer].get_parameter("bias")[rows]
        assert torch.equal(small.layers.pointwise[layer].get_parameter("bias"), bias)
    assert torch.equal(small.readout, model.readout[kept[4]])
    assert sum(map(len, kept)) < sum(FILTERS)  # at threshold 1 as well: one of each layer goes


def test_published_importance_is_not_that_about_the_overall_mean() -> None:
    statistics = statistics_of(random_model())
    for variance, covariance in zip(statistics.variances, statistics.covariances, strict=True):
        assert (variance < covariance.diagonal()).all()
        assert (variance > 0).all()


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


def test_weights_left_by_greedy_are_the_least_squares_of_what_all_channels_gave() -> None:
    model = random_model()
    small = pruned(model, 0.8)
    kept = kept_filters(small, model)
    for layer, z in enumerate(depthwise_outputs(model)):
        z = z - z.mean(axis=0)
        wanted = z @ mixing_of(model, layer)[kept[layer + 1]].T
        best = np.linalg.lstsq(z[:, kept[layer]], wanted)[0].T
        np.testing.assert_allclose(mixing_of(small, layer), best, rtol=1e-3, atol=1e-4)
    contributions = contributions_of(model)
    y = contributions.sum(axis=1)
    left = np.column_stack([contributions[:, kept[4]], np.ones(len(y))])
    *gains, offset = np.linalg.lstsq(left, y)[0]
    got = small.readout / model.readout[kept[4]]
    np.testing.assert_allclose(got.detach().numpy().mean((1, 2)), gains, rtol=1e-3)
    np.testing.assert_allclose(small.readout_bias.item() - model.readout_bias.item(), offset, 1e-3)
    assert len(kept[4]) < FILTERS[4]


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


def test_responses_that_do_not_vary_are_refused() -> None:
    with pytest.raises(InputError, match="squared correlation of 0"):
        pruned(random_model(), 0.9, teacher=np.zeros(len(IMAGES)))
