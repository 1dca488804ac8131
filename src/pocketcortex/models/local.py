"""How patches pasted into an image change a response, computing only what each one changes."""

import math
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from pocketcortex.core import InputError
from pocketcortex.models._paired import each_alone, map_sizes
from pocketcortex.models.compact import (
    KERNEL,
    STRIDES,
    CompactModel,
    bias_of,
    same_conv,
    same_padding,
)
from pocketcortex.models.export import fold_batch_norm

_CPU_VALUES, _VALUES = 2**20, 2**26
"""Values in the first layer's windows computed at once; on a CPU about what its cache holds."""

_AROUND = KERNEL - 1
"""Zeros around a window of changes for a convolution to compute all that they reach."""


class LocalChanges(nn.Module):
    r"""Tell how one model's response changes when a patch is pasted into an image.

    A patch changes a window of each layer's maps, which grows by the kernel and shrinks by the
    stride from layer to layer. Convolutions are linear. So with :math:`a_l` a layer's sums (what
    it rectifies) for the image as it is and :math:`\delta_l` the change of its rectified maps,

    .. math:: \delta_l = [a_l + W_l * \delta_{l-1}]_+ - [a_l]_+

    within the window, and the response changes by the last :math:`\delta` times the readout: up
    to rounding what two full forward passes give, for any size of image and patch. The windows of
    all patches are equally large and begin on the grid of the strided layers, so that a layer is
    one batched convolution.

    The model is copied, in evaluation mode, batch norm folded into the convolutions; its weights
    get no gradients.

    Parameters
    ----------
    model
        The compact model.
    """

    def __init__(self, model: CompactModel) -> None:
        super().__init__()
        self.image_size = model.image_size
        self.folded = cast(CompactModel, fold_batch_norm(model))

    @torch.no_grad()
    def changes(
        self,
        image: Float[Tensor, "3 h w"] | UInt8[Tensor, "3 h w"],
        patches: Float[Tensor, "n 3 p q"] | UInt8[Tensor, "n 3 p q"],
        corners: Int[Tensor, "n_corners 2"],
    ) -> Float[Tensor, " n"]:
        """Return the response with each patch pasted, one at a time, minus that without any.

        Parameters
        ----------
        image
            Levels 0..255, on the model's device.
        patches
            Levels that replace the image's, on the same device; at most as large as the image.
        corners
            Top and left pixel of each patch.

        Raises
        ------
        InputError
            If the image is of another size than the model's, there is no patch or not one corner
            for each, or a patch is empty or reaches beyond the image.
        """
        _check(patches, corners, self.image_size)
        x, corners = self.folded.layers.centre(image[None]), corners.to(image.device)
        if x.device.type != "cpu":
            return self._changes(x, patches, corners, _VALUES)
        share = math.ceil(len(patches) / torch.get_num_threads())

        def run(k: int) -> Tensor:
            own = slice(k * share, (k + 1) * share)
            return self._changes(x, patches[own], corners[own], _CPU_VALUES)

        return torch.cat(each_alone(run, math.ceil(len(patches) / share)))

    def _changes(self, x: Tensor, patches: Tensor, corners: Tensor, n_values: int) -> Tensor:
        """Return the changes of a centred image's response, so many values at once."""
        layers = self.folded.layers
        sums = [_table(layer, -torch.inf) for layer in self._sums(x)]  # rectified to 0 outside
        pixels, readout = _table(x, 0.0), _table(self.folded.readout[None], 0.0)
        windows = _windows(corners, (patches.shape[2], patches.shape[3]), self.image_size)
        at_once = max(1, n_values // (self.folded.filters[0] * windows[1].area))
        changes = []
        for first in range(0, len(patches), at_once):
            own = slice(first, first + at_once)
            index = [window.index(own) for window in windows]
            before = _gather(pixels, index[0])
            levels = patches[own].to(x) - layers.image_mean
            delta = _pasted(before, levels, corners[own] - windows[0].starts[own]) - before
            for i, layer in enumerate(sums):
                old, delta = _gather(layer, index[i + 1]), self._convolved(i, delta)
                delta.add_(old).relu_().sub_(old.relu_())
            changes.append((delta * _gather(readout, index[-1])).sum((1, 2, 3)))
        return torch.cat(changes)

    def _sums(self, x: Tensor) -> list[Tensor]:
        """Return what each layer rectifies for a centred image."""
        layers = self.folded.layers
        sums = [same_conv(x, layers.conv.weight, bias_of(layers.conv), STRIDES[0], 1)]
        for i, pointwise in enumerate(layers.pointwise, 1):
            sums.append(pointwise(layers.filtered(i, F.relu(sums[-1]))))
        return sums

    def _convolved(self, i: int, delta: Tensor) -> Tensor:
        """Return what changes of layer i's input add to its sums, wherever they reach."""
        layers = self.folded.layers
        if i == 0:
            return F.conv2d(delta, layers.conv.weight, None, STRIDES[0], _AROUND)
        kernels, mixing = layers.depthwise[i - 1].weight, layers.pointwise[i - 1].weight
        filtered = F.conv2d(delta, kernels, None, STRIDES[i], _AROUND, groups=len(kernels))
        return F.conv2d(filtered, mixing)


@dataclass(frozen=True)
class _Windows:
    """A window for each patch in maps of one size, which it may stick out of."""

    starts: Int[Tensor, "n 2"]
    size: tuple[int, int]
    map_size: tuple[int, int]

    @property
    def area(self) -> int:
        """Positions in a window."""
        return self.size[0] * self.size[1]

    def index(self, own: slice) -> Int[Tensor, "some height width"]:
        """Return the rows of a table (see `_table`) where the positions of some windows stand."""
        (rows, no_row), (columns, no_column) = (
            self._along(axis, self.starts[own, axis]) for axis in (0, 1)
        )
        index = rows[:, :, None] * self.map_size[1] + columns[:, None, :]
        outside = no_row[:, :, None] | no_column[:, None, :]
        return index.masked_fill_(outside, self.map_size[0] * self.map_size[1])

    def _along(self, axis: int, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Return the windows' positions along one axis and which of them are outside the map."""
        positions = starts[:, None] + torch.arange(self.size[axis], device=starts.device)
        return positions, (positions < 0) | (positions >= self.map_size[axis])


def _windows(
    corners: Int[Tensor, "n 2"], patch: tuple[int, int], image_size: tuple[int, int]
) -> list[_Windows]:
    """Return the windows of image and layers that patches change.

    A layer's output o reads the inputs from ``o * stride - before``. So the outputs that a window
    of inputs from s on reaches begin with o, ``o * stride - before = s - 4``: a whole number in
    every layer if the window of the image begins at ``step * j + shift`` for some j.
    """
    sizes = [image_size, *map_sizes(image_size)]
    before = corners.new_tensor(
        [
            [same_padding(n, stride)[0] for n in size]
            for size, stride in zip(sizes[:-1], STRIDES, strict=True)
        ]
    )
    step, shift = 1, torch.zeros_like(before[0])
    for stride, pad in zip(reversed(STRIDES), before.flip(0), strict=True):
        step, shift = step * stride, shift * stride + _AROUND - pad
    starts = (corners - shift).div(step, rounding_mode="floor") * step + shift
    height, width = (
        length + extra
        for length, extra in zip(patch, (corners - starts).amax(0).tolist(), strict=True)
    )
    windows = [_Windows(starts, (height, width), image_size)]
    for stride, pad, map_size in zip(STRIDES, before, sizes[1:], strict=True):
        starts = (starts + pad - _AROUND).div(stride, rounding_mode="floor")
        height, width = ((length + _AROUND - 1) // stride + 1 for length in (height, width))
        windows.append(_Windows(starts, (height, width), map_size))
    return windows


def _table(maps: Tensor, outside: float) -> Tensor:
    """Return maps ``(1, c, h, w)`` as ``(h * w + 1, c)``; the last row is for all outside them."""
    return F.pad(maps[0].flatten(1).T, (0, 0, 0, 1), value=outside)


def _gather(table: Tensor, index: Tensor) -> Tensor:
    """Return the windows ``(n, c, height, width)`` with these rows of a table, channels last."""
    rows: Tensor = table.index_select(0, index.flatten()).unflatten(0, index.shape)
    return rows.permute(0, 3, 1, 2)


def _pasted(windows: Tensor, patches: Tensor, corners: Tensor) -> Tensor:
    """Return windows with one patch in each."""
    n, _, height, width = patches.shape
    one = torch.arange(n, device=patches.device)[:, None, None]
    rows, columns = (
        corners[:, axis, None] + torch.arange(length, device=patches.device)
        for axis, length in enumerate((height, width))
    )
    pasted: Tensor = windows.clone()
    pasted[one, :, rows[:, :, None], columns[:, None, :]] = patches.permute(0, 2, 3, 1)
    return pasted


def _check(patches: Tensor, corners: Tensor, image_size: tuple[int, int]) -> None:
    n, _, height, width = patches.shape
    if min(n, height, width) < 1 or len(corners) != n:
        raise InputError(
            "patches must be one or more, (n, 3, height, width), none empty, with a corner each; "
            f"got {tuple(patches.shape)} and {len(corners)} corners"
        )
    first, last = corners.amin(0).tolist(), corners.amax(0).tolist()
    if min(first) < 0 or last[0] + height > image_size[0] or last[1] + width > image_size[1]:
        raise InputError(
            f"patches of {height} x {width} must lie within images of {image_size[0]} x "
            f"{image_size[1]}, got corners from {first} to {last}"
        )
