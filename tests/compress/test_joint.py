"""Joint pruning takes the filters that matter least to the response for what they cost."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from small_models import FILTERS, IMAGES, kept_filters, random_model, responses

from pocketcortex.compress import prune_jointly
from pocketcortex.compress.joint import (
    _first_maps,
    _Layer,
    _plan,
    _Sensitivity,
    _sensitivity,
)
from pocketcortex.compress.surgery import cut
from pocketcortex.core import InputError, StimulusSet
from pocketcortex.models import CompactModel
from pocketcortex.training import refresh_batch_norm


def r2(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.corrcoef(x, y)[0, 1] ** 2)


def linear_model() -> CompactModel:
    """Return a model whose rectifiers never bite: first order is then all there is."""
    model = random_model()
    with torch.no_grad():
        for norm in model.layers.norms:
            norm.bias.fill_(100)
        for depthwise in model.layers.depthwise:  # no zeros enter from beyond the edge
            centre = depthwise.weight[..., 2, 2].clone()
            depthwise.weight.zero_()
            depthwise.weight[..., 2, 2] = centre
    refresh_batch_norm(model.train(), StimulusSet.from_array(IMAGES))
    return model


def sensitivity(model: CompactModel) -> _Sensitivity:
    return _sensitivity(model, _first_maps(model, IMAGES))


def change_without(model: CompactModel, layer: int, gone: Sequence[int]) -> np.ndarray:
    """Return what the response changes by, less its mean, if filters of a layer are cut out."""
    kept = [np.arange(n) for n in FILTERS]
    kept[layer] = np.setdiff1d(kept[layer], gone)
    change = responses(cut(model, kept, sensitivity(model).maps)) - responses(model)
    return np.asarray(change - change.mean())


@pytest.mark.parametrize("layer", range(5))
def test_change_of_response_is_exact_where_the_network_is_linear(layer: int) -> None:
    model = linear_model()
    now = sensitivity(model)
    np.testing.assert_allclose(now.responses, responses(model))
    channels = _Layer(now.maps[layer], now.effects[layer])
    error = np.zeros(len(IMAGES))
    for gone in ([2], [2, 0], [2, 0, 5]):
        error = error + channels.remove(gone[-1])
        expected = change_without(model, layer, gone)
        np.testing.assert_allclose(error, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_the_first_to_go_costs_least_for_each_parameter_saved() -> None:
    model = linear_model()
    full = responses(model)
    costs = {}
    for layer, n in enumerate(FILTERS):
        for channel in range(n):
            fewer = [m - (k == layer) for k, m in enumerate(FILTERS)]
            saved = model.n_parameters.total - CompactModel(fewer, (16, 12)).n_parameters.total
            costs[layer, channel] = change_without(model, layer, [channel]).var() / saved
    [first, *_] = _plan(sensitivity(model), full, 0.0, 1, model)
    assert first == min(costs, key=costs.__getitem__)


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
def test_what_is_left_keeps_its_share_of_the_squared_correlation(threshold: float) -> None:
    model = random_model()
    teacher = responses(model) + np.random.default_rng(2).normal(size=len(IMAGES))
    small = prune_jointly(model, IMAGES, teacher, threshold=threshold, min_filters=1)
    assert r2(responses(small), teacher) >= threshold * r2(responses(model), teacher) - 1e-6
    assert small.n_parameters.total < model.n_parameters.total
    stored = {k: v for k, v in small.state_dict().items() if not k.endswith("image_mean")}
    n_stored = sum(v.numel() for v in stored.values() if v.is_floating_point())
    assert n_stored == small.n_parameters.total


def test_one_more_filter_would_be_too_many() -> None:
    model = random_model()
    teacher = responses(model)
    sizes = [
        prune_jointly(model, IMAGES, teacher, threshold=t, min_filters=1).n_parameters.total
        for t in (0.99, 0.9, 0.7, 0.4)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)


def test_dead_filters_go_and_answers_stay() -> None:
    dead = {0: [0, 5], 1: [2], 2: [1, 3], 3: [8], 4: [0, 4, 9]}
    model = random_model(dead)
    small = prune_jointly(model, IMAGES, responses(model), threshold=1.0, min_filters=1)
    alive = [[c for c in range(n) if c not in dead[k]] for k, n in enumerate(FILTERS)]
    assert kept_filters(small, model) == alive
    np.testing.assert_allclose(responses(small), responses(model), rtol=1e-4)


@pytest.mark.parametrize("min_filters", [1, 3, 7, 100])
def test_no_layer_goes_below_min_filters(min_filters: int) -> None:
    model = random_model()
    small = prune_jointly(model, IMAGES, responses(model), threshold=0.0, min_filters=min_filters)
    assert small.filters == tuple(min(min_filters, n) for n in FILTERS)


def test_pruning_leaves_the_model_alone() -> None:
    model = random_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    small = prune_jointly(model, IMAGES, responses(model), threshold=0.8)
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.zero_()
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_what_cannot_be_pruned_by_is_refused() -> None:
    model = random_model()
    teacher = responses(model)
    with pytest.raises(InputError, match=r"threshold must be within 0\.\.1"):
        prune_jointly(model, IMAGES, teacher, threshold=1.5)
    with pytest.raises(InputError, match="one finite response for each of 20 images"):
        prune_jointly(model, IMAGES, np.where(teacher > teacher.mean(), teacher, np.nan))
    with pytest.raises(InputError, match="squared correlation of 0"):
        prune_jointly(model, IMAGES, np.zeros(len(IMAGES)))
