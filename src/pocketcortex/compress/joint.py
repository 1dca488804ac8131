"""Prune all layers of a compact model together, by what its filters do to the response."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from pocketcortex.compress.prune import (
    check_request,
    correlation_before,
    squared_correlation,
)
from pocketcortex.compress.statistics import N_LAYERS
from pocketcortex.compress.surgery import LinearMap, cut, pointwise_weights
from pocketcortex.core import InputError
from pocketcortex.models import CompactModel, count_parameters

N_ROUNDS = 4
"""Rounds that the allowed loss is spent in, about: statistics are taken anew for each."""
_BATCH = 4
_ROUNDING = 1e-6
"""Squared correlations closer than this are equal: the networks answer in single precision."""


@dataclass(frozen=True)
class _Sensitivity:
    """What every channel of a model does to its response, to first order.

    Attributes
    ----------
    maps
        The four pointwise layers and the sum of the last layer's contributions.
    effects
        For each map ``(channels, n_images, channels)``: entry [j, i, k] is what the response to
        image i gains if channel k, less its mean, is added to channel j at every position.
    responses
        The model's responses, ``(n_images,)``, float64.
    """

    maps: Sequence[LinearMap]
    effects: Sequence[Tensor]
    responses: Float[np.ndarray, " n_images"]


def prune_jointly(
    model: CompactModel,
    images: UInt8[np.ndarray, "n 3 height width"],
    teacher: Float[np.ndarray, " n"],
    *,
    threshold: float = 0.9,
    min_filters: int = 3,
    n_fixed: int = 0,
) -> CompactModel:
    """Return a smaller model that keeps part of the squared correlation with its teacher.

    Filters of all layers compete: the one goes whose removal adds least to the squared change of
    the response for each parameter saved. A removed channel is replaced, in the layer it feeds, by
    what the others can say of it (least squares), so its removal changes the response by

    ``d(image) = -sum_p g_j(p) (z_j(p) - B_j z(p))``

    with z the channels less their means, B_j the regression of z_j on the channels that remain and
    g_j the gradient of the response, at all positions p. This is exact to first order, for any
    number of channels of one layer, and added up over layers. A quarter of the allowed loss at a
    time, the model is made smaller and everything is measured anew; the last round is
    bisected for the most filters that leave at least `threshold` times the squared
    correlation.

    Parameters
    ----------
    model
        A trained model.
    images
        Images never used to score anything. The share kept is that of these images, and smaller on
        others: docs/pruning.md. What enters the first pointwise layer is held in memory: 0.4 GB for
        600 images of 112 x 112 pixels and 50 filters.
    teacher
        The teacher's responses to them.
    threshold
        Part of the squared correlation of responses with the teacher's that is kept, 0 to 1.
    min_filters
        Filters that each layer keeps at least.
    n_fixed
        First layers, 0 to 3, that stay as they are, of a trunk that models share.

    Raises
    ------
    InputError
        If `threshold` is not within 0 and 1, `min_filters` is below 1, `n_fixed` is not within 0
        and 3, the teacher's responses are not finite or not one for each image, or they or the
        model's do not vary.

    References
    ----------
    Removal with refit: Hassibi & Stork, "Second order derivatives for network pruning: Optimal
    Brain Surgeon", NIPS 1992; change of the response to first order: Molchanov et al.,
    arXiv:1611.06440, here with its sign and for sets of channels. Measured against others in
    docs/pruning.md.
    """
    check_request(teacher, len(images), threshold, min_filters)
    if not 0 <= n_fixed < N_LAYERS - 1:
        raise InputError(f"n_fixed must be within 0..{N_LAYERS - 2}, got {n_fixed}")
    first = _first_maps(model, images, n_fixed)
    full = _responses(model, first, n_fixed)
    before = correlation_before(full, teacher)
    budget = (1 - threshold) / N_ROUNDS * float(full.var())

    def keeps(kept: Sequence[np.ndarray], now: _Sensitivity) -> bool:
        smaller = cut(model, kept, [None] * n_fixed + list(now.maps))
        responses = _responses(smaller, first, n_fixed, kept[n_fixed])
        return squared_correlation(responses, teacher) >= threshold * before - _ROUNDING

    while True:
        now = _sensitivity(model, first, n_fixed)
        removed = _plan(now, full, budget, min_filters, model)
        kept = _kept(model, removed)
        if not removed or not keeps(kept, now):
            break
        model = cut(model, kept, [None] * n_fixed + list(now.maps))
        first = first[:, kept[n_fixed]]
    enough, too_many = 0, len(removed)
    while too_many - enough > 1:
        middle = (enough + too_many) // 2
        if keeps(_kept(model, removed[:middle]), now):
            enough = middle
        else:
            too_many = middle
    kept = _kept(model, removed[:enough])
    return cut(model, kept, [None] * n_fixed + list(now.maps)) if enough else model


def _plan(
    now: _Sensitivity,
    full: np.ndarray,
    budget: float,
    min_filters: int,
    model: CompactModel,
) -> list[tuple[int, int]]:
    """Return layer and channel of each removal, first one first: at least one, if any may go.

    The mean square of the response's change from `full` grows by less than `budget`, if more than
    one goes.
    """
    layers = [_Layer(*parts) for parts in zip(now.maps, now.effects, strict=True)]
    fixed = model.filters[: N_LAYERS - len(layers)]
    error = now.responses - full
    error -= error.mean()
    spent = 0.0
    removed: list[tuple[int, int]] = []
    while True:
        best = (np.inf, -1, -1, 0.0)
        filters = [*fixed, *(layer.n_alive for layer in layers)]
        for index, layer in enumerate(layers):
            if layer.n_alive > min_filters:
                channel, cost = layer.cheapest(error)
                n = _n_saved(filters, len(fixed) + index, model.image_size)
                best = min(best, (cost / n if cost > 0 else cost * n, index, channel, cost))
        _, index, channel, cost = best
        if index < 0 or (removed and spent + cost > budget):
            return removed
        spent += cost
        error = error + layers[index].remove(channel)
        removed.append((len(fixed) + index, channel))


def _n_saved(filters: Sequence[int], layer: int, image_size: tuple[int, int]) -> int:
    """Return how many parameters fewer a model has with one filter less in a layer."""
    fewer = [n - (k == layer) for k, n in enumerate(filters)]
    return count_parameters(filters, image_size).total - count_parameters(fewer, image_size).total


class _Layer:
    """A layer's channels while they are being removed."""

    def __init__(self, linear: LinearMap, effects: Tensor) -> None:
        self._precision = linear.precision()
        self._effects = effects.clone()
        self._alive = np.ones(len(effects), bool)
        self._changes: np.ndarray | None = None

    @property
    def n_alive(self) -> int:
        return int(self._alive.sum())

    def cheapest(self, error: Float[np.ndarray, " n"]) -> tuple[int, float]:
        """Return the channel whose removal adds least to the mean square of `error`, and that."""
        changes = self._changes_of_response()
        cost = (changes**2).mean(axis=1) + 2 * changes @ error / len(error)
        cost[~self._alive] = np.inf
        channel = int(cost.argmin())
        return channel, float(cost[channel])

    def remove(self, channel: int) -> Float[np.ndarray, " n"]:
        """Put what the others say of a channel in its place; return the response's change."""
        change: np.ndarray = self._changes_of_response()[channel]
        share = self._precision[channel] / self._precision[channel, channel]
        gone = self._effects[channel].flatten().clone()
        weights = torch.from_numpy(share).to(gone)
        self._effects.view(len(share), -1).addr_(weights, gone, alpha=-1)
        self._precision = self._precision - np.outer(self._precision[:, channel], share)
        self._precision[channel, channel] = 1.0
        self._alive[channel] = False
        self._changes = None
        return change

    def _changes_of_response(self) -> Float[np.ndarray, "channels n"]:
        """Return, for each channel, how its removal changes the response to each image."""
        if self._changes is None:
            shares = torch.from_numpy(self._precision / self._precision.diagonal()[:, None])
            lost = torch.bmm(self._effects, shares.to(self._effects)[:, :, None])[..., 0]
            self._changes = (lost.mean(1, keepdim=True) - lost).double().cpu().numpy()
        return self._changes


def _kept(model: CompactModel, removed: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """Return each layer's filters that are not removed."""
    return [
        np.setdiff1d(np.arange(n), [channel for layer, channel in removed if layer == k])
        for k, n in enumerate(model.filters)
    ]


def _first_maps(model: CompactModel, images: np.ndarray, n_fixed: int = 0) -> Tensor:
    """Return what the first layer that is pruned gives to the next one's pointwise half.

    Its other filters change none of that, so it is computed once and kept for all rounds.
    """
    layers, device = model.layers.eval(), model.readout.device
    parts = []
    with torch.no_grad():
        for batch in torch.from_numpy(images).split(_BATCH):
            x = layers.centre(batch.to(device)).contiguous(memory_format=torch.channels_last)
            for index in range(n_fixed + 1):
                x = layers.layer(index, x)
            parts.append(layers.filtered(n_fixed + 1, x).contiguous())
    return torch.cat(parts)


def _responses(
    model: CompactModel, first: Tensor, n_fixed: int, channels: np.ndarray | None = None
) -> Float[np.ndarray, " n"]:
    """Return the responses, from some channels of the first maps."""
    parts = []
    with torch.no_grad():
        for z in first.split(_BATCH):
            z = z if channels is None else z[:, channels]
            *_, contributions = _forward(model, z, n_fixed)
            parts.append(contributions.sum(1, dtype=torch.float64))
    return np.asarray(torch.cat(parts).cpu().numpy() + model.readout_bias.item())


def _forward(
    model: CompactModel, z: Tensor, n_fixed: int
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Return what enters and leaves each pointwise layer, and the last filters' contributions."""
    layers, inputs, outputs = model.layers, [z], []
    for k in range(n_fixed + 1, N_LAYERS):
        outputs.append(layers.pointwise[k - 1](inputs[-1]))
        x = F.relu(layers.norms[k](outputs[-1]))
        if k < N_LAYERS - 1:
            inputs.append(layers.filtered(k + 1, x))
    return inputs, outputs, (x * model.readout).sum((2, 3))


def _sensitivity(model: CompactModel, first: Tensor, n_fixed: int = 0) -> _Sensitivity:
    """Return what every channel does to the response, in one pass forward and backward."""
    filters, n = model.filters[n_fixed:], len(first)
    effects = [first.new_empty(c, n, c) for c in filters]
    gradients = [first.new_ones(c, n) for c in filters]
    sums = [first.new_zeros(c, dtype=torch.float64) for c in filters]
    products = [first.new_zeros(c, c, dtype=torch.float64) for c in filters]
    counts = [0] * len(filters)
    responses = []
    for start in range(0, n, _BATCH):
        here = slice(start, start + _BATCH)
        inputs, gradient = _inputs_and_gradients(model, first[here], n_fixed)
        for k, (z, g) in enumerate(zip(inputs, gradient, strict=True)):
            # z, g: (images, channels, positions)
            effects[k][:, here] = (g @ z.transpose(1, 2)).transpose(0, 1)
            gradients[k][:, here] = g.sum(2).T
            flat = z.transpose(0, 1).flatten(1)
            sums[k] += flat.sum(1, dtype=torch.float64)
            products[k] += (flat @ flat.T).double()
            counts[k] += flat.shape[1]
        responses.append(inputs[-1].sum((1, 2), dtype=torch.float64))
    weights = [*pointwise_weights(model)[n_fixed:], np.ones((1, filters[-1]))]
    maps = []
    for k, weight in enumerate(weights):
        mean = sums[k] / counts[k]
        covariance = products[k] / counts[k] - torch.outer(mean, mean)
        effects[k] -= gradients[k][..., None] * mean.to(first)
        maps.append(LinearMap(weight, mean.cpu().numpy(), covariance.cpu().numpy()))
    answers = torch.cat(responses).cpu().numpy() + model.readout_bias.item()
    return _Sensitivity(maps, effects, answers)


def _inputs_and_gradients(
    model: CompactModel, z: Tensor, n_fixed: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Return what enters each linear map, and the gradient of the response to it.

    Both are ``(images, channels, positions)``; the last map's inputs are the filters'
    contributions to the response, at one position.
    """
    with torch.enable_grad():
        inputs, outputs, contributions = _forward(model, z.detach().requires_grad_(), n_fixed)
        of_outputs = torch.autograd.grad(contributions.sum(), outputs)
    gradients = [
        layer.weight.detach()[..., 0, 0].T @ g.flatten(2)
        for layer, g in zip(list(model.layers.pointwise)[n_fixed:], of_outputs, strict=True)
    ]
    one = contributions.detach()[..., None]
    return [*(z.detach().flatten(2) for z in inputs), one], [*gradients, torch.ones_like(one)]
