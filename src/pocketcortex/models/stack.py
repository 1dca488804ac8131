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
    CompactLayers,
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

    Models that were grown on one trunk have equal first layers: with `n_shared` those layers are
    kept once and run once an image for all models.

    Parameters
    ----------
    models
        Compact models for the same image size; their weights are copied.
    n_shared
        How many of the first layers, 0 to 4, are the same in all models.

    Raises
    ------
    InputError
        If there is no model, they take images of different sizes or means, or the shared layers
        differ.
    """

    image_mean: Tensor
    mixing: Sequence[nn.ParameterList]
    norms: Sequence[nn.BatchNorm2d]

    def __init__(self, models: Sequence[CompactModel], n_shared: int = 0) -> None:
        super().__init__()
        if not models:
            raise InputError("a stack needs at least one compact model, got none")
        if len({(m.image_size, tuple(m.layers.image_mean.flatten().tolist())) for m in models}) > 1:
            raise InputError("stacked models must share one image size and one image mean")
        if not 0 <= n_shared < len(STRIDES):
            raise InputError(f"n_shared must be within 0..{len(STRIDES) - 1}, got {n_shared}")
        self.filters = tuple(m.filters for m in models)
        self.image_size = models[0].image_size
        self.n_shared = n_shared
        layers = [m.layers for m in models]
        for index in range(n_shared):
            _refuse_different(layers, index)
        self.register_buffer("image_mean", layers[0].image_mean.clone())
        owners = [layers[:1] if i < n_shared else layers for i in range(len(STRIDES))]
        self.kernels = nn.ParameterList(
            [_joined([m.conv.weight for m in owners[0]])]
            + [_joined([m.depthwise[i - 1].weight for m in owners[i]]) for i in _LATER]
        )
        mixing = nn.ModuleList(
            nn.ParameterList(
                [m.pointwise[i - 1].weight.detach().flatten(1).clone() for m in owners[i]]
            )
            for i in _LATER
        )
        self.biases = nn.ParameterList(
            [_joined([bias_of(m.conv) for m in owners[0]])]
            + [_joined([bias_of(m.pointwise[i - 1]) for m in owners[i]]) for i in _LATER]
        )
        self.mixing = cast(Sequence[nn.ParameterList], mixing)
        norms = []
        for layer in range(len(STRIDES)):
            parts = [m.norms[layer] for m in owners[layer]]
            channels = sum(part.num_features for part in parts)
            norm = nn.BatchNorm2d(channels, BATCH_NORM_EPS, BATCH_NORM_MOMENTUM)
            norm.to(layers[0].conv.weight)  # before values are copied: double stays double
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
        return self.read_out(self.trunk(images))

    def trunk(
        self, images: Float[Tensor, "n 3 h w"] | UInt8[Tensor, "n 3 h w"]
    ) -> Float[Tensor, "n channels rows columns"]:
        """Return what the shared layers make of raw images; centred images if none are shared."""
        x = centred(images, self.image_mean, self.image_size)
        x = x.contiguous(memory_format=torch.channels_last)
        for layer in range(self.n_shared):
            x = self._layer(layer, x)
        return x

    def read_out(self, x: Float[Tensor, "n channels rows columns"]) -> Float[Tensor, "n n_models"]:
        """Return every model's response from what `trunk` returned."""
        for layer in range(self.n_shared, len(STRIDES)):
            x = self._layer(layer, x)
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

    def trunk_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the shared layers."""
        for layer in range(self.n_shared):
            yield self.kernels[layer]
            yield self.biases[layer]
            yield from self.norms[layer].parameters()
            if layer > 0:
                yield from self.mixing[layer - 1]

    def split(self, n_filters: int) -> list["CompactStack"]:
        """Return stacks of consecutive models with about `n_filters` first-layer filters each.

        A stack that shares layers stays whole.
        """
        if self.n_shared:
            return [self]
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
        mean = self.image_mean.flatten().tolist()
        for index, filters in enumerate(self.filters):
            with torch.random.fork_rng(devices=[]):  # what it draws is replaced
                model = CompactModel(filters, self.image_size, mean).to(self.readout)
            state = model.state_dict()
            starts = [sum(f[layer] for f in self.filters[:index]) for layer in range(len(STRIDES))]
            for layer, count in enumerate(filters):
                shared = layer < self.n_shared
                first = 0 if shared else starts[layer]
                here = slice(first, first + count)
                if layer == 0:
                    state["layers.conv.weight"] = self.kernels[0][here]
                    state["layers.conv.bias"] = self.biases[0][here]
                else:
                    first = 0 if shared else starts[layer - 1]
                    inputs = slice(first, first + filters[layer - 1])
                    mixing = self.mixing[layer - 1][0 if shared else index]
                    state[f"layers.depthwise.{layer - 1}.weight"] = self.kernels[layer][inputs]
                    state[f"layers.pointwise.{layer - 1}.weight"] = mixing[:, :, None, None]
                    state[f"layers.pointwise.{layer - 1}.bias"] = self.biases[layer][here]
                norm = self.norms[layer].state_dict()
                for name in _NORM:
                    state[f"layers.norms.{layer}.{name}"] = norm[name][here]
            state["readout"] = self.readout[here]
            state["readout_bias"] = self.readout_bias[index]
            model.load_state_dict(state)
            yield model.train(self.training)

    def _layer(self, layer: int, x: Tensor) -> Tensor:
        norm, kernels, stride = self.norms[layer], self.kernels[layer], STRIDES[layer]
        scale, shift = None, self.biases[layer]
        if not norm.training:
            scale = norm.weight * torch.rsqrt(norm.get_buffer("running_var") + norm.eps)
            shift = (shift - norm.get_buffer("running_mean")) * scale + norm.bias
        if layer == 0:
            weight = kernels if scale is None else kernels * scale[:, None, None, None]
            x = same_conv(x, weight, shift, stride, 1)
        else:
            x = self._separable(layer, x, scale, shift)
        return F.relu(x if scale is not None else norm(x), inplace=True)

    def _separable(self, layer: int, x: Tensor, scale: Tensor | None, shift: Tensor) -> Tensor:
        """Filter every channel, then apply each model's pointwise weights to its own channels."""
        kernels, stride, weights = self.kernels[layer], STRIDES[layer], self.mixing[layer - 1]
        owners = self.filters[:1] if layer < self.n_shared else self.filters
        inputs, outputs = [f[layer - 1] for f in owners], [f[layer] for f in owners]
        if layer == self.n_shared:  # every model filters the same maps with its own kernels
            parts = [same_conv(x, k, None, stride, len(k)) for k in kernels.split(inputs)]
        else:
            parts = list(same_conv(x, kernels, None, stride, len(kernels)).split(inputs, dim=1))
        scales = [None] * len(parts) if scale is None else scale.split(outputs)
        mixed = []
        for part, weight, factor, bias in zip(
            parts, weights, scales, shift.split(outputs), strict=True
        ):
            weight = weight if factor is None else weight * factor[:, None]
            mixed.append(F.conv2d(part, weight[:, :, None, None], bias))
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=1)


_LATER = range(1, len(STRIDES))
_NORM = ("weight", "bias", "running_mean", "running_var")


def _joined(tensors: Sequence[Tensor]) -> nn.Parameter:
    return nn.Parameter(torch.cat([t.detach() for t in tensors]))


def _refuse_different(layers: Sequence[CompactLayers], index: int) -> None:
    """Raise InputError unless layer `index` has the same weights in all models."""
    wanted = _layer_state(layers[0], index)
    for number, other in enumerate(layers[1:], 1):
        found = _layer_state(other, index)
        if any(not torch.equal(tensor, found[name]) for name, tensor in wanted.items()):
            raise InputError(
                f"models 0 and {number} differ in layer {index}; shared layers must be equal"
            )


def _layer_state(layers: CompactLayers, index: int) -> dict[str, Tensor]:
    """Return the tensors of one layer."""
    state = {f"norm.{name}": t for name, t in layers.norms[index].state_dict().items()}
    state.pop("norm.num_batches_tracked")
    if index == 0:
        return state | layers.conv.state_dict()
    depthwise, pointwise = layers.depthwise[index - 1], layers.pointwise[index - 1]
    return state | {"depthwise": depthwise.weight} | pointwise.state_dict()
