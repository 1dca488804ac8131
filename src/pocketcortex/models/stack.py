"""Many compact models run as one network."""

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from pocketcortex.core import InputError
from pocketcortex.models.compact import (
    BATCH_NORM_EPS,
    BATCH_NORM_MOMENTUM,
    STRIDES,
    CompactModel,
    bias_of,
    centred,
    same_conv,
)

_TILE_FILTERS, _TILE_IMAGES = 48, 8
"""First-layer filters and images predicted at once on a CPU: their maps fit in its cache."""


class CompactStack(nn.Module):
    """Predict the responses of many neurons at once, each from its own compact model.

    The first layer is one convolution to all models' filters, depthwise layers and batch norms
    act on all models' channels side by side, and pointwise layers keep the models apart. Models
    may differ in filters per layer. Outputs and gradients equal those of the models run one by
    one, so one optimiser over the stack trains each as it would be trained alone.

    Parameters
    ----------
    models
        Compact models for the same image size; their weights are copied.

    Raises
    ------
    InputError
        If there is no model or they take images of different sizes or means.
    """

    image_mean: Tensor
    mixing: Sequence[nn.ParameterList]
    norms: Sequence[nn.BatchNorm2d]

    def __init__(self, models: Sequence[CompactModel]) -> None:
        super().__init__()
        if not models:
            raise InputError("a stack needs at least one compact model, got none")
        if len({(m.image_size, tuple(m.layers.image_mean.flatten().tolist())) for m in models}) > 1:
            raise InputError("stacked models must share one image size and one image mean")
        self.filters = tuple(m.filters for m in models)
        self.image_size = models[0].image_size
        layers = [m.layers for m in models]
        self.register_buffer("image_mean", layers[0].image_mean.clone())
        self.kernels = nn.ParameterList(
            [_joined([m.conv.weight for m in layers])]
            + [_joined([m.depthwise[i].weight for m in layers]) for i in range(len(STRIDES) - 1)]
        )
        mixing = nn.ModuleList(
            nn.ParameterList([m.pointwise[i].weight.detach().flatten(1).clone() for m in layers])
            for i in range(len(STRIDES) - 1)
        )
        self.biases = nn.ParameterList(
            [_joined([bias_of(m.conv) for m in layers])]
            + [_joined([bias_of(m.pointwise[i]) for m in layers]) for i in range(len(STRIDES) - 1)]
        )
        self.mixing = cast(Sequence[nn.ParameterList], mixing)
        norms = []
        for layer in range(len(STRIDES)):
            parts = [m.norms[layer] for m in layers]
            channels = sum(part.num_features for part in parts)
            norm = nn.BatchNorm2d(channels, BATCH_NORM_EPS, BATCH_NORM_MOMENTUM)
            merged = {name: torch.cat([p.state_dict()[name] for p in parts]) for name in _NORM}
            norm.load_state_dict(norm.state_dict() | merged)
            norms.append(norm)
        self.norms = cast(Sequence[nn.BatchNorm2d], nn.ModuleList(norms))
        self.readout = _joined([m.readout for m in models])
        self.readout_bias = nn.Parameter(torch.stack([m.readout_bias.detach() for m in models]))
        self.to(models[0].readout)

    def __len__(self) -> int:
        """Return the number of models."""
        return len(self.filters)

    def forward(
        self, images: Float[Tensor, "n 3 h w"] | UInt8[Tensor, "n 3 h w"]
    ) -> Float[Tensor, "n n_models"]:
        """Predict every model's response to raw images (0..255), differentiably.

        Batch normalisation uses batch statistics in training mode and is folded into the
        convolutions in evaluation mode.
        """
        x = centred(images, self.image_mean, self.image_size)
        x = x.contiguous(memory_format=torch.channels_last)
        for layer, stride in enumerate(STRIDES):
            x = self._layer(layer, stride, x)
        products = x * self.readout
        parts = products.sum((2, 3)).split([f[-1] for f in self.filters], dim=1)
        return torch.stack([part.sum(1) for part in parts], dim=1) + self.readout_bias

    def predict(
        self, images: Float[Tensor, "n 3 h w"] | UInt8[Tensor, "n 3 h w"]
    ) -> Float[Tensor, "n n_models"]:
        """Predict without gradients, in tiles of models and images small enough to stay in cache.

        Parameters
        ----------
        images
            Levels 0..255, on the stack's device.

        Returns
        -------
        responses, ``(n_stimuli, n_models)``.
        """
        on_cpu = self.readout.device.type == "cpu"
        n_filters, n_images = (_TILE_FILTERS, _TILE_IMAGES) if on_cpu else (2**62, 64)
        columns = []
        with torch.inference_mode():
            for tile in self.split(n_filters):
                tile.eval()
                columns.append(torch.cat([tile(x) for x in torch.split(images, n_images)]))
            return torch.cat(columns, dim=1)

    def split(self, n_filters: int) -> list["CompactStack"]:
        """Return stacks of consecutive models with about `n_filters` first-layer filters each."""
        groups: list[list[CompactModel]] = []
        room = 0
        for model in self.models():
            if not groups or model.filters[0] > room:
                groups.append([])
                room = n_filters
            groups[-1].append(model)
            room -= model.filters[0]
        return [CompactStack(group).train(self.training) for group in groups]

    def models(self) -> Iterator[CompactModel]:
        """Yield each model with its own copy of its weights."""
        starts = [0] * (len(STRIDES) + 1)
        mean = self.image_mean.flatten().tolist()
        for index, filters in enumerate(self.filters):
            model = CompactModel(filters, self.image_size, mean).to(self.readout)
            state = model.state_dict()
            for layer, count in enumerate(filters):
                here = slice(starts[layer], starts[layer] + count)
                if layer == 0:
                    state["layers.conv.weight"] = self.kernels[0][here]
                    state["layers.conv.bias"] = self.biases[0][here]
                else:
                    mixing = self.mixing[layer - 1][index]
                    state[f"layers.pointwise.{layer - 1}.weight"] = mixing[:, :, None, None]
                    state[f"layers.pointwise.{layer - 1}.bias"] = self.biases[layer][here]
                if layer < len(STRIDES) - 1:
                    state[f"layers.depthwise.{layer}.weight"] = self.kernels[layer + 1][here]
                for name in _NORM:
                    state[f"layers.norms.{layer}.{name}"] = self.norms[layer].state_dict()[name][
                        here
                    ]
                if layer == len(STRIDES) - 1:
                    state["readout"] = self.readout[here]
                starts[layer] += count
            state["readout_bias"] = self.readout_bias[index]
            model.load_state_dict(state)
            yield model.train(self.training)

    def _layer(self, layer: int, stride: int, x: Tensor) -> Tensor:
        norm = self.norms[layer]
        scale, shift = None, self.biases[layer]
        if not self.training:
            scale = norm.weight * torch.rsqrt(norm.get_buffer("running_var") + norm.eps)
            shift = (shift - norm.get_buffer("running_mean")) * scale + norm.bias
        kernels = self.kernels[layer]
        if layer == 0:
            weight = kernels if scale is None else kernels * scale[:, None, None, None]
            x = same_conv(x, weight, shift, stride, 1)
        else:
            x = same_conv(x, kernels, None, stride, kernels.shape[0])
            x = self._mix(layer, x, scale, shift)
        return F.relu(x if scale is not None else norm(x), inplace=True)

    def _mix(self, layer: int, x: Tensor, scale: Tensor | None, shift: Tensor) -> Tensor:
        """Apply each model's pointwise weights to its own channels."""
        outputs = [f[layer] for f in self.filters]
        parts = x.split([f[layer - 1] for f in self.filters], dim=1)
        scales = [None] * len(parts) if scale is None else scale.split(outputs)
        mixed = []
        for part, weight, factor, bias in zip(
            parts, self.mixing[layer - 1], scales, shift.split(outputs), strict=True
        ):
            weight = weight if factor is None else weight * factor[:, None]
            mixed.append(F.conv2d(part, weight[:, :, None, None], bias))
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=1)


_NORM = ("weight", "bias", "running_mean", "running_var")


def _joined(tensors: Sequence[Tensor]) -> nn.Parameter:
    return nn.Parameter(torch.cat([t.detach() for t in tensors]))
