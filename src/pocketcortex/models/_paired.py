"""Two ways to run models on images of their own: one after the other, or padded into one batch."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocketcortex.models.compact import (
    KERNEL,
    STRIDES,
    CompactModel,
    bias_of,
    centred,
    same_conv,
    same_padding,
)

_LATER = range(1, len(STRIDES))
_REACH = KERNEL // 2

_T = TypeVar("_T")


class OneByOne(nn.Module):
    """One folded model and the derivative of its response, written out layer by layer: for a CPU.

    It computes what autograd would, in less time: maps stay channels-last, and layer 0 is led back
    as `_first_back` says.

    Parameters
    ----------
    model
        A compact model whose batch norms are folded into its convolutions.
    """

    def __init__(self, model: CompactModel) -> None:
        super().__init__()
        layers = model.layers
        self.image_size = model.image_size
        self.sizes = map_sizes(model.image_size)
        self.register_buffer("mean", layers.image_mean)
        self.register_buffer("kernels_0", _channels_last(layers.conv.weight))
        self.register_buffer("bias_0", bias_of(layers.conv))
        # (3, 5, 5) kernels to 15 filters, vertical tap before channel, flipped for a way back
        back = layers.conv.weight.permute(2, 1, 0, 3).flatten(0, 1)[:, :, None].flip(3)
        self.register_buffer("back_0", _channels_last(back))
        for i in _LATER:
            mixing = layers.pointwise[i - 1].weight
            self.register_buffer(f"kernels_{i}", layers.depthwise[i - 1].weight)
            self.register_buffer(f"mixing_{i}", _channels_last(mixing))
            self.register_buffer(f"back_{i}", _channels_last(mixing.transpose(0, 1)))
            self.register_buffer(f"bias_{i}", bias_of(layers.pointwise[i - 1]))
        self.register_buffer("readout", _channels_last(model.readout[None]))
        self.register_buffer("readout_bias", model.readout_bias)
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the responses ``(n,)`` to images ``(n, 3, h, w)``."""
        return self._read_out(self._maps(images)[-1])

    def gradient(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the responses ``(n,)`` and their gradients ``(n, 3, h, w)``."""
        maps = self._maps(images)
        responses = self._read_out(maps[-1])
        slope = _channels_last(self.get_buffer("readout").repeat(len(images), 1, 1, 1))
        for i in reversed(_LATER):
            slope = F.conv2d(_rectified(slope, maps[i]), self.get_buffer(f"back_{i}"))
            slope = _spread(slope, self.get_buffer(f"kernels_{i}"), STRIDES[i], self.sizes[i - 1])
        return responses, _first_back(_rectified(slope, maps[0]), self.get_buffer("back_0"))

    def _maps(self, images: Tensor) -> list[Tensor]:
        """Return all five layers' rectified maps."""
        x = centred(images, self.get_buffer("mean"), self.image_size)
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.conv2d(x, self.get_buffer("kernels_0"), self.get_buffer("bias_0"), padding=_REACH)
        maps = [F.relu(x, inplace=True)]
        for i in _LATER:
            kernels = self.get_buffer(f"kernels_{i}")
            x = same_conv(maps[-1], kernels, None, STRIDES[i], len(kernels))
            x = F.conv2d(x, self.get_buffer(f"mixing_{i}"), self.get_buffer(f"bias_{i}"))
            maps.append(F.relu(x, inplace=True))
        return maps

    def _read_out(self, x: Tensor) -> Tensor:
        products = x * self.get_buffer("readout")
        return products.sum((1, 2, 3)) + self.get_buffer("readout_bias")


class Padded(nn.Module):
    """All models as one batch, with zero filters up to the largest model's: for accelerators.

    Parameters
    ----------
    models
        Compact models whose batch norms are folded into their convolutions.
    """

    def __init__(self, models: Sequence[CompactModel]) -> None:
        super().__init__()
        self.image_size = models[0].image_size
        self.sizes = map_sizes(self.image_size)
        self.n_models = len(models)
        n = [max(counts) for counts in zip(*(m.filters for m in models), strict=True)]
        layers = [m.layers for m in models]
        self.register_buffer("mean", layers[0].image_mean)
        first = [m.conv.weight.flatten(1) for m in layers]
        self.register_buffer("mixing_0", _filled(first, (n[0], 3 * KERNEL**2)))
        self.register_buffer(
            "bias_0", _filled([bias_of(m.conv)[:, None] for m in layers], (n[0], 1))
        )
        for i in _LATER:
            kernels = [m.depthwise[i - 1].weight for m in layers]
            filled = _filled(kernels, (n[i - 1], 1, KERNEL, KERNEL))
            mixing = [m.pointwise[i - 1].weight.flatten(1) for m in layers]
            biases = [bias_of(m.pointwise[i - 1])[:, None] for m in layers]
            self.register_buffer(f"kernels_{i}", filled.flatten(0, 1))
            self.register_buffer(f"mixing_{i}", _filled(mixing, (n[i], n[i - 1])))
            self.register_buffer(f"bias_{i}", _filled(biases, (n[i], 1)))
        readouts = _filled([m.readout for m in models], (n[-1], *self.sizes[-1]))
        self.register_buffer("readout", readouts.flatten(1))
        self.register_buffer("readout_bias", torch.stack([m.readout_bias for m in models]))
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the responses ``(n_models, n)`` to images ``(n_models, n, 3, h, w)``."""
        x = centred(images.transpose(0, 1).flatten(0, 1), self.get_buffer("mean"), self.image_size)
        x = F.unfold(x, KERNEL, padding=_REACH)  # (n * n_models, 75, h * w)
        x = self._mixed(0, x.unflatten(0, (-1, self.n_models)))
        for i in _LATER:
            kernels = self.get_buffer(f"kernels_{i}")
            x = x.flatten(1, 2).unflatten(2, self.sizes[i - 1])  # (n, n_models * filters, h, w)
            x = same_conv(x, kernels, None, STRIDES[i], len(kernels))
            x = self._mixed(i, x.flatten(2).unflatten(1, (self.n_models, -1)))
        products = torch.einsum("nmp,mp->mn", x.flatten(2), self.get_buffer("readout"))
        return products + self.get_buffer("readout_bias")[:, None]

    def gradient(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the responses and their gradients ``(n_models, n, 3, h, w)``, by autograd."""
        with torch.enable_grad():
            images = images.detach().requires_grad_()
            responses = self(images)
            (gradients,) = torch.autograd.grad(responses.sum(), images)
        return responses.detach(), gradients

    def _mixed(self, i: int, x: Tensor) -> Tensor:
        """Mix each model's channels ``(n, n_models, channels, positions)`` and rectify."""
        return F.relu(self.get_buffer(f"mixing_{i}") @ x + self.get_buffer(f"bias_{i}"))


def each_alone(run: Callable[[int], _T], n: int) -> list[_T]:
    """Return ``run(0) ... run(n - 1)``, as many at once as torch has threads.

    Every call runs on one thread of its own: the operations inside are too small to be shared out.
    """
    n_threads = torch.get_num_threads()
    if min(n, n_threads) == 1:
        return [run(k) for k in range(n)]

    def alone(k: int) -> _T:
        torch.set_num_threads(1)  # of this worker
        try:
            with torch.no_grad():
                return run(k)
        finally:
            torch.set_num_threads(n_threads)  # what threads yet to come begin with

    with ThreadPoolExecutor(min(n, n_threads), thread_name_prefix="alone") as pool:
        return list(pool.map(alone, range(n)))


def map_sizes(image_size: tuple[int, int]) -> list[tuple[int, int]]:
    """Return height and width of each layer's maps."""
    sizes = []
    height, width = image_size
    for stride in STRIDES:
        height, width = -(-height // stride), -(-width // stride)
        sizes.append((height, width))
    return sizes


def _first_back(slope: Tensor, back: Tensor) -> Tensor:
    """Lead slopes of layer 0's maps back to the image.

    A convolution to three channels leaves most lanes of a vector unit idle. So the taps of one
    row of each kernel are summed to 15 maps, one for each row and colour, and these are shifted
    by their row and summed.
    """
    rows = F.conv2d(slope, back, padding=(0, _REACH)).contiguous()  # planar: rows are added whole
    rows = rows.unflatten(1, (KERNEL, 3))
    out: Tensor = rows[:, _REACH].clone()
    for row in range(KERNEL):
        shift = _REACH - row  # out[y] takes rows[y + shift]
        if shift > 0:
            out[:, :, :-shift] += rows[:, row, :, shift:]
        elif shift < 0:
            out[:, :, -shift:] += rows[:, row, :, :shift]
    return out


def _spread(slope: Tensor, kernels: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Lead slopes back through `same_conv` with one kernel a channel."""
    pads = [same_padding(length, stride) for length in size]
    kernels = F.pad(kernels, (pads[1][1] - pads[1][0], 0, pads[0][1] - pads[0][0], 0))
    padding = [after for _, after in pads]
    short = [
        length - ((n - 1) * stride - 2 * pad + kernel)
        for length, n, pad, kernel in zip(
            size, slope.shape[2:], padding, kernels.shape[2:], strict=True
        )
    ]
    return F.conv_transpose2d(slope, kernels, None, stride, padding, short, len(kernels))


def _rectified(slope: Tensor, maps: Tensor) -> Tensor:
    """Set slopes to zero, in place, where the rectified maps are not above it."""
    out: Tensor = torch.ops.aten.threshold_backward.grad_input(slope, maps, 0, grad_input=slope)
    return out


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _filled(tensors: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor:
    """Return the tensors side by side, each in the front corner of zeros of a common shape."""
    out = tensors[0].new_zeros((len(tensors), *shape))
    for whole, tensor in zip(out, tensors, strict=True):
        whole[tuple(slice(length) for length in tensor.shape)] = tensor
    return out
