"""Prune a compact model layer by layer, by the variance that its filters explain."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from pocketcortex.core import InputError
from pocketcortex.models import CompactLayers, CompactModel

N_LAYERS = 5
_BATCH = 16
_REFIT_RIDGE = 1e-6
"""Part of the mean channel variance added to the covariance, for channels that are copies."""


@dataclass(frozen=True)
class LayerStatistics:
    """First and second moments of what enters the pointwise half of layers 1 to 4.

    Attributes
    ----------
    means
        For each layer the mean of every channel of its depthwise output over images and positions.
    covariances
        For each layer their covariances, ``(channels, channels)``, float64.
    """

    means: tuple[Float[np.ndarray, " _channels"], ...]
    covariances: tuple[Float[np.ndarray, "_channels _channels"], ...]


def layer_statistics(
    layers: CompactLayers, images: UInt8[np.ndarray, "n 3 height width"]
) -> LayerStatistics:
    """Accumulate the statistics that pruning needs, in one streaming pass over images.

    Parameters
    ----------
    layers
        The convolutional layers of a trained model, or those that many models share.
    images
        Images never used to score anything.
    """
    counts = [0] * (N_LAYERS - 1)
    sums: list[Tensor] = [torch.zeros(n, dtype=torch.float64) for n in layers.filters[:-1]]
    products = [torch.zeros(n, n, dtype=torch.float64) for n in layers.filters[:-1]]
    for _, filtered in _passes(layers, images):
        for k, z in enumerate(filtered):
            flat = z.permute(0, 2, 3, 1).flatten(0, 2).double().cpu()  # (positions, channels)
            counts[k] += len(flat)
            sums[k] += flat.sum(0)
            products[k] += flat.T @ flat
    means = [s / n for s, n in zip(sums, counts, strict=True)]
    covariances = [
        p / n - torch.outer(m, m) for p, n, m in zip(products, counts, means, strict=True)
    ]
    return LayerStatistics(tuple(m.numpy() for m in means), tuple(c.numpy() for c in covariances))


def readout_contributions(
    layers: CompactLayers,
    readouts: Float[Tensor, "n_neurons filters h4 w4"],
    images: UInt8[np.ndarray, "n 3 height width"],
) -> Float[np.ndarray, "n n_neurons filters"]:
    """Return what each last-layer filter adds to each neuron's response to each image."""
    parts = [
        torch.einsum("nfhw,kfhw->nkf", maps, readouts.detach().to(maps)).double().cpu().numpy()
        for maps, _ in _passes(layers, images)
    ]
    return np.concatenate(parts)


def fraction_of_variance(
    mixing: Float[np.ndarray, "outputs channels"],
    covariance: Float[np.ndarray, "channels channels"],
    order: Sequence[int] | Int[np.ndarray, " n_removed"],
) -> Float[np.ndarray, " n_removed_plus_1"]:
    """Return the variance of a pointwise layer's outputs left after removing channels in order.

    ``FV(S) = 1 - tr(W_S' Sigma_SS W_S) / tr(W' Sigma W)`` with S the channels removed, W the
    pointwise weights and Sigma the covariance of the channels: entry k is FV of the first k.

    Parameters
    ----------
    mixing
        Pointwise weights, only of outputs that stay.
    covariance
        Covariance of the input channels over images and positions.
    order
        Channels, first to be removed first.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Methods, "Pruning", in closed form.
    """
    index = np.asarray(order)
    weighted = mixing.T @ mixing * covariance
    total = weighted.sum()
    removed = np.cumsum(np.cumsum(weighted[np.ix_(index, index)], axis=0), axis=1).diagonal()
    return 1 - np.concatenate([[0.0], removed]) / total if total > 0 else np.ones(len(index) + 1)


def prune(
    model: CompactModel,
    statistics: LayerStatistics,
    contributions: Float[np.ndarray, "n filters"],
    teacher: Float[np.ndarray, " n"],
    *,
    threshold: float = 0.9,
    min_filters: int = 3,
    refit: bool = True,
) -> CompactModel:
    """Return a smaller model without the filters that matter least, last layer first.

    The last layer loses filters, smallest contribution to the response first, while the squared
    correlation with the teacher stays at or above `threshold` times what it was. Then each layer
    from the fourth to the first loses filters, least important first, while the fraction of
    variance left in the next layer's pointwise outputs is at or above `threshold`. The pointwise
    weights that stay are refitted to the outputs that all channels gave, and the mean of what is
    removed goes into the biases of the next layer and the readout.

    Departures from the published procedure: it stops before the filter that crosses the threshold,
    not after; it refits and keeps the removed mean; and a filter's importance is its variance about
    its mean over images and positions, not about its mean image.

    Parameters
    ----------
    model
        A trained model.
    statistics
        `layer_statistics` of its layers.
    contributions
        `readout_contributions` of its readout.
    teacher
        The teacher's responses to the same images.
    threshold
        Part of the variance that every step keeps, 0 to 1.
    min_filters
        Filters that each layer keeps at least.
    refit
        Whether the pointwise weights that stay are fitted anew, by least squares from the same
        statistics, to the outputs that all channels gave; else they stay as they are (published).

    Raises
    ------
    InputError
        If `threshold` is not within 0 and 1 or `min_filters` is below 1.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Methods, "Pruning".
    """
    if not 0 <= threshold <= 1 or min_filters < 1:
        raise InputError(
            f"threshold must be within 0..1 and min_filters at least 1; got {threshold}, "
            f"{min_filters}"
        )
    kept: list[np.ndarray] = [np.arange(n) for n in model.filters]
    order = np.argsort(contributions.std(axis=0), kind="stable")
    left = [_r2(contributions[:, order[k:]].sum(axis=1), teacher) for k in range(len(order))]
    kept[-1] = _surviving(order, np.array(left), threshold * left[0], min_filters)
    gone = np.setdiff1d(order, kept[-1])
    lost = float(contributions[:, gone].mean(axis=0).sum())
    for layer in range(N_LAYERS - 2, -1, -1):
        mixing = model.layers.pointwise[layer].weight.detach().cpu().double().numpy()[..., 0, 0]
        mixing = mixing[kept[layer + 1]]
        covariance = statistics.covariances[layer]
        importance = covariance.diagonal() * (mixing**2).sum(axis=0)
        order = np.argsort(importance, kind="stable")
        left_fv = fraction_of_variance(mixing, covariance, order)[:-1]
        kept[layer] = _surviving(order, left_fv, threshold, min_filters)
    return _cut(model, kept, statistics, lost, refit)


def _surviving(
    order: np.ndarray, left: np.ndarray, threshold: float, min_filters: int
) -> np.ndarray:
    """Return, sorted, what remains after removing while `left[k]` (k removed) is enough."""
    below = np.flatnonzero(~(left >= threshold))
    n_removed = int(below[0]) - 1 if len(below) else len(order) - 1
    n_removed = max(0, min(n_removed, len(order) - min_filters))
    return np.sort(order[n_removed:])


def _cut(
    model: CompactModel,
    kept: Sequence[np.ndarray],
    statistics: LayerStatistics,
    lost_readout: float,
    refit: bool,
) -> CompactModel:
    """Build the model of the kept filters, with their weights and batch-norm statistics."""
    layers = model.layers
    mean = layers.image_mean.flatten().tolist()
    small = CompactModel([len(k) for k in kept], model.image_size, mean).to(model.readout)
    index = [torch.from_numpy(k) for k in kept]
    state: dict[str, Tensor] = {"readout": model.readout[index[-1]]}
    state["readout_bias"] = model.readout_bias + lost_readout
    state["layers.image_mean"] = layers.image_mean
    state["layers.conv.weight"] = layers.conv.weight[index[0]]
    state["layers.conv.bias"] = layers.conv.get_parameter("bias")[index[0]]
    for k in range(N_LAYERS - 1):
        weight = layers.pointwise[k].weight[index[k + 1], :, 0, 0].detach().double().cpu().numpy()
        left = (
            _refitted(weight, statistics.covariances[k], kept[k]) if refit else weight[:, kept[k]]
        )
        lost = weight @ statistics.means[k] - left @ statistics.means[k][kept[k]]
        bias = layers.pointwise[k].get_parameter("bias")[index[k + 1]]
        state[f"layers.depthwise.{k}.weight"] = layers.depthwise[k].weight[index[k]]
        state[f"layers.pointwise.{k}.weight"] = torch.from_numpy(left[:, :, None, None]).to(bias)
        state[f"layers.pointwise.{k}.bias"] = bias + torch.from_numpy(lost).to(bias)
    for k, norm in enumerate(layers.norms):
        for name, tensor in norm.state_dict().items():
            whole = tensor if tensor.ndim == 0 else tensor[index[k]]
            state[f"layers.norms.{k}.{name}"] = whole
    small.load_state_dict(state)
    return small.eval()


def _refitted(weight: np.ndarray, covariance: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return the weights of the kept channels that come closest to all channels' outputs.

    Least squares: what the kept channels can say of the removed ones is added to their weights.
    """
    gone = np.setdiff1d(np.arange(weight.shape[1]), kept)
    of_kept = covariance[np.ix_(kept, kept)]
    ridge = _REFIT_RIDGE * max(float(of_kept.diagonal().mean()), np.finfo(np.float64).tiny)
    wanted = covariance[np.ix_(kept, gone)] @ weight[:, gone].T
    added = np.linalg.solve(of_kept + ridge * np.eye(len(kept)), wanted).T
    return np.asarray(weight[:, kept] + added)


def _r2(x: np.ndarray, y: np.ndarray) -> float:
    """Return the squared correlation, 0 where one of them is constant."""
    x, y = x - x.mean(), y - y.mean()
    power = (x @ x) * (y @ y)
    return float((x @ y) ** 2 / power) if power > 0 else 0.0


def _passes(layers: CompactLayers, images: np.ndarray) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Yield for each batch the last maps and the depthwise outputs of layers 1 to 4."""
    device = layers.conv.weight.device
    layers.eval()
    for start in range(0, len(images), _BATCH):
        with torch.inference_mode():
            x = layers.centre(torch.from_numpy(images[start : start + _BATCH]).to(device))
            x = layers.layer(0, x.contiguous(memory_format=torch.channels_last))
            filtered = []
            for index in range(1, N_LAYERS):
                filtered.append(layers.filtered(index, x))
                x = layers.layer(index, x)
        yield x, filtered
