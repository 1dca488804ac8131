"""Build a smaller compact model from the filters that stay."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pocketcortex.compress.statistics import N_LAYERS
from pocketcortex.models import CompactModel

_RIDGE = 1e-6
"""Part of the mean channel variance added to the covariance, for channels that are copies."""


@dataclass(frozen=True)
class LinearMap:
    """A pointwise layer, or the sum over the last layer's contributions, with its inputs' moments.

    Attributes
    ----------
    weights
        Ones for the sum, whose inputs are already weighted by the spatial readout.
    means, covariance
        Of the input channels: over images and positions, or over images for the sum.
    """

    weights: Float[np.ndarray, "outputs channels"]
    means: Float[np.ndarray, " channels"]
    covariance: Float[np.ndarray, "channels channels"]

    def precision(self) -> Float[np.ndarray, "channels channels"]:
        """Return the inverse covariance, slightly ridged."""
        return np.linalg.inv(ridged(self.covariance))

    def refitted(self, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return weights of the kept channels, and an offset, closest to all channels' outputs.

        Least squares: what the kept channels can say of the removed ones is added to their
        weights, and what remains of the removed ones' mean is the offset.
        """
        gone = np.setdiff1d(np.arange(self.weights.shape[1]), kept)
        wanted = self.covariance[np.ix_(kept, gone)] @ self.weights[:, gone].T
        of_kept = ridged(self.covariance)[np.ix_(kept, kept)]
        weights = self.weights[:, kept] + np.linalg.solve(of_kept, wanted).T
        return weights, self.weights @ self.means - weights @ self.means[kept]


def ridged(covariance: np.ndarray) -> np.ndarray:
    """Return the covariance with a little added to its diagonal, so that it can be inverted."""
    scale = max(float(covariance.diagonal().mean()), float(np.finfo(np.float32).tiny))
    return np.asarray(covariance + _RIDGE * scale * np.eye(len(covariance)))


def pointwise_weights(model: CompactModel) -> list[Float[np.ndarray, "outputs channels"]]:
    """Return the weights of the four pointwise layers, float64."""
    return [
        layer.weight.detach().cpu().double().numpy()[..., 0, 0] for layer in model.layers.pointwise
    ]


def cut(
    model: CompactModel,
    kept: Sequence[np.ndarray],
    maps: Sequence[LinearMap | None] = (None,) * N_LAYERS,
) -> CompactModel:
    """Return the model of the kept filters, with their weights and batch-norm statistics.

    Parameters
    ----------
    model
        The model to take them from; it stays as it is.
    kept
        For each layer the filters that stay, in ascending order.
    maps
        The four pointwise layers and the sum at the end, to refit the weights that stay to what
        all channels gave; None leaves a layer's weights and biases as they are.
    """
    layers = model.layers
    mean = layers.image_mean.flatten().tolist()
    with torch.random.fork_rng(devices=[]):  # what it draws is replaced
        small = CompactModel([len(k) for k in kept], model.image_size, mean).to(model.readout)
    index = [torch.from_numpy(k) for k in kept]
    state: dict[str, Tensor] = {"readout": model.readout[index[-1]]}
    state["readout_bias"] = model.readout_bias
    state["layers.image_mean"] = layers.image_mean
    state["layers.conv.weight"] = layers.conv.weight[index[0]]
    state["layers.conv.bias"] = layers.conv.get_parameter("bias")[index[0]]
    for k in range(N_LAYERS - 1):
        weight = layers.pointwise[k].weight[index[k + 1]][:, index[k]]
        bias = layers.pointwise[k].get_parameter("bias")[index[k + 1]]
        if (pointwise := maps[k]) is not None:
            refitted, offset = (torch.from_numpy(a).to(bias) for a in pointwise.refitted(kept[k]))
            weight = refitted[index[k + 1]][..., None, None]
            bias = bias + offset[index[k + 1]]
        state[f"layers.depthwise.{k}.weight"] = layers.depthwise[k].weight[index[k]]
        state[f"layers.pointwise.{k}.weight"] = weight
        state[f"layers.pointwise.{k}.bias"] = bias
    if (total := maps[-1]) is not None:
        gains, offset = (torch.from_numpy(a).to(model.readout) for a in total.refitted(kept[-1]))
        state["readout"] = state["readout"] * gains[0, :, None, None]
        state["readout_bias"] = model.readout_bias + offset[0]
    for k, norm in enumerate(layers.norms):
        for name, tensor in norm.state_dict().items():
            whole = tensor if tensor.ndim == 0 else tensor[index[k]]
            state[f"layers.norms.{k}.{name}"] = whole
    small.load_state_dict(state)
    return small.eval()
