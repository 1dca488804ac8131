"""What pruning must know of a model's channels, in one streaming pass over images."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from pocketcortex.models import CompactLayers

N_LAYERS = 5
_BATCH = 16


@dataclass(frozen=True)
class LayerStatistics:
    """First and second moments of what enters the pointwise half of layers 1 to 4.

    Attributes
    ----------
    means
        For each layer the mean of every channel of its depthwise output over images and positions.
    covariances
        For each layer their covariances, ``(channels, channels)``, float64.
    variances
        For each layer the variance of every channel about its mean image (the mean over images at
        each position), averaged over positions: what the published procedure ranks by.
    """

    means: tuple[Float[np.ndarray, " _channels"], ...]
    covariances: tuple[Float[np.ndarray, "_channels _channels"], ...]
    variances: tuple[Float[np.ndarray, " _channels"], ...]


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
    sums: list[Tensor] = []
    products: list[Tensor] = []
    for _, filtered in _passes(layers, images):
        if not sums:
            sums = [torch.zeros_like(z[0], dtype=torch.float64) for z in filtered]
            products = [z.new_zeros(z.shape[1], z.shape[1], dtype=torch.float64) for z in filtered]
        for k, z in enumerate(filtered):
            flat = z.permute(0, 2, 3, 1).flatten(0, 2).double()  # (positions, channels)
            sums[k] += z.sum(0, dtype=torch.float64)
            products[k] += flat.T @ flat
    means, covariances, variances = [], [], []
    for total, product in zip(sums, products, strict=True):
        mean_image = (total / len(images)).flatten(1)  # (channels, positions)
        mean = mean_image.mean(1)
        second = product / (len(images) * mean_image.shape[1])
        means.append(mean.cpu().numpy())
        covariances.append((second - torch.outer(mean, mean)).cpu().numpy())
        variances.append((second.diagonal() - mean_image.square().mean(1)).cpu().numpy())
    return LayerStatistics(tuple(means), tuple(covariances), tuple(variances))


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
