"""Every layer's maps of one model for a batch of images, held once and computed in small tiles."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from threadpoolctl import ThreadpoolController
from torch import Tensor

from pocketcortex.core import InputError
from pocketcortex.models import CompactModel, fold_batch_norm
from pocketcortex.models._paired import each_alone, map_sizes
from pocketcortex.models.compact import STRIDES, bias_of, same_conv, same_padding

N_LAYERS = len(STRIDES)

_TILE = 2
"""Images a thread runs at once on a CPU: their maps stay in its cache."""

_COLUMNS = 2**15
"""Features whose products are summed in float32 before they are added up in float64."""


@dataclass(frozen=True)
class Window:
    """Which rows and columns of a layer's maps are looked at."""

    rows: slice
    columns: slice

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start


@dataclass(frozen=True)
class Moments:
    """Sums over images and positions.

    Of a layer's maps, of products of two maps, and of its depthwise outputs and their squares;
    layer 0 has none of these.
    """

    n: int
    sums: Float64[np.ndarray, " channels"]
    products: Float64[np.ndarray, "channels channels"]
    filtered: Float64[np.ndarray, "2 inputs"]

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            self.n + other.n,
            self.sums + other.sums,
            self.products + other.products,
            self.filtered + other.filtered,
        )


@dataclass(frozen=True)
class View:
    """What of an image a model is shown, and where its maps are looked at.

    Attributes
    ----------
    offset
        Rows and columns by which images are moved down and to the right, their edges repeated.
    windows
        Of each layer's maps.
    """

    offset: tuple[int, int]
    windows: tuple[Window, ...]


def whole(image_size: tuple[int, int]) -> View:
    """Return the view of images in place and of all positions."""
    sizes = map_sizes(image_size)
    return View((0, 0), tuple(Window(slice(0, h), slice(0, w)) for h, w in sizes))


def around(
    centre_px: tuple[float, float], image_size: tuple[int, int], window_px: float, moved: bool
) -> View:
    """Return the view of a square window around a row and column of the image.

    Its middle lies a whole number of pixels from the image's middle. A position belongs to it if
    the middle of what it sees lies less than half of `window_px` away; it ends with the image.

    Parameters
    ----------
    centre_px
        Row and column.
    image_size
        Height and width.
    window_px
        Side of the window.
    moved
        Whether the image's middle is moved there.
    """
    middle = [(length - 1) / 2 for length in image_size]
    down, right = (round(at - mid) for at, mid in zip(centre_px, middle, strict=True))
    found = []
    starts, steps = np.zeros(2), 1
    inputs = image_size
    for stride, size in zip(STRIDES, map_sizes(image_size), strict=True):
        # an output o sees inputs o * stride - before + 0..4, whose middle is 2 further
        before = np.array([same_padding(n, stride)[0] for n in inputs])
        starts, steps = starts + steps * (2 - before), steps * stride
        rows, columns = (
            _inside(start + steps * np.arange(n), mid + by, window_px / 2)
            for start, n, mid, by in zip(starts, size, middle, (down, right), strict=True)
        )
        found.append(Window(rows, columns))
        inputs = size
    return View((down, right) if moved else (0, 0), tuple(found))


def _inside(centres: np.ndarray, middle: float, reach: float) -> slice:
    (within,) = np.nonzero(np.abs(centres - middle) < reach)
    if len(within) == 0:
        raise InputError(f"a window of {2 * reach} px holds no position of a layer; widen it")
    return slice(int(within[0]), int(within[-1]) + 1)


class MapBuffer:
    """Room for the windows of one model, the widest of several, and one batch of images.

    Parameters
    ----------
    filters
        Filters per layer of each model that will be run.
    views
        Each model's view.
    batch_size
        Most images of a batch.
    device
        Where to compute.
    """

    def __init__(
        self,
        filters: Sequence[Sequence[int]],
        views: Sequence[View],
        batch_size: int,
        device: torch.device,
    ) -> None:
        values = [
            [n * math.prod(window.size) for n, window in zip(own, view.windows, strict=True)]
            for own, view in zip(filters, views, strict=True)
        ]
        self._room = [
            torch.empty(batch_size * max(layer), device=device)
            for layer in zip(*values, strict=True)
        ]

    def maps(
        self, filters: Sequence[int], view: View, n_images: int
    ) -> list[Float32[Tensor, "n channels h w"]]:
        """Return room for each layer's maps, channels last in memory."""
        found = []
        for room, channels, window in zip(self._room, filters, view.windows, strict=True):
            height, width = window.size
            own = room[: n_images * height * width * channels]
            found.append(own.view(n_images, height, width, channels).permute(0, 3, 1, 2))
        return found


class FoldedLayers:
    """One model's five layers, batch norm folded in, channels last.

    Parameters
    ----------
    model
        The model, which is copied.
    device
        Where to run.
    """

    def __init__(self, model: CompactModel, device: torch.device) -> None:
        folded = cast(CompactModel, fold_batch_norm(model)).float().to(device)
        self.filters, self.layers = model.filters, folded.layers
        for conv in (self.layers.conv, *self.layers.pointwise):
            conv.weight.data = conv.weight.data.contiguous(memory_format=torch.channels_last)
        sizes = map_sizes(model.image_size)
        # positions of the last layer's grid within each layer's maps
        self._steps = [sizes[k][0] // sizes[-1][0] for k in range(N_LAYERS)]

    def fill(self, maps: list[Tensor], images: Tensor, view: View) -> tuple[Moments, ...]:
        """Write all layers' rectified maps where there is room for them; return their moments.

        Parameters
        ----------
        maps
            As `MapBuffer.maps` returns them.
        images
            Raw, uint8 or float, on the layers' device.
        view
            What to show, and where to look.
        """
        n = len(images)
        tile = _TILE if images.device.type == "cpu" else n

        def run(k: int) -> list[Moments]:
            own = slice(k * tile, (k + 1) * tile)
            return self._fill_tile([m[own] for m in maps], images[own], view)

        parts = each_alone(run, math.ceil(n / tile))
        return tuple(sum(layer[1:], layer[0]) for layer in zip(*parts, strict=True))

    @torch.no_grad()
    def _fill_tile(self, maps: list[Tensor], images: Tensor, view: View) -> list[Moments]:
        """Fill the maps of some images and return their moments."""
        shown = view.windows
        x = self.layers.centre(_moved(images, view.offset))
        x = x.contiguous(memory_format=torch.channels_last)
        x = same_conv(x, self.layers.conv.weight, bias_of(self.layers.conv), STRIDES[0], 1)
        x = _rectified(x, maps[0], shown[0])
        moments = [_moments(self._on_grid(0, maps[0]), maps[0][:, :0])]
        for k in range(1, N_LAYERS):
            x = self.layers.filtered(k, x)
            seen = self._on_grid(k, x[:, :, shown[k].rows, shown[k].columns])
            x = _rectified(self.layers.pointwise[k - 1](x), maps[k], shown[k])
            moments.append(_moments(self._on_grid(k, maps[k]), seen))
        return moments

    def _on_grid(self, layer: int, x: Tensor) -> Tensor:
        """Return the maps at as many positions as the last layer has."""
        step = self._steps[layer]
        row, column = (min(step // 2, length - 1) for length in x.shape[2:])
        grid: Tensor = x[:, :, row::step, column::step]
        return grid


def gram(features: Float32[Tensor, "n channels h w"]) -> Float64[np.ndarray, "n n"]:
    """Return the scalar products of images' maps (channels last in memory).

    Products are float32, summed over some thousand features at a time, and then float64. On a CPU
    half of the symmetric matrix is computed, blocks of features shared out over torch's threads.
    """
    flat = features.permute(0, 2, 3, 1).flatten(1)
    if flat.device.type != "cpu":
        total = torch.zeros(len(flat), len(flat), dtype=torch.float64, device=flat.device)
        for part in flat.split(_COLUMNS, dim=1):
            total += part @ part.T
        return total.cpu().numpy()
    values = flat.numpy()
    n_blocks = math.ceil(values.shape[1] / _COLUMNS)
    n_tasks = min(n_blocks, torch.get_num_threads())

    def run(task: int) -> Float64[np.ndarray, "n n"]:
        total = np.zeros((len(values), len(values)))
        for block in range(task, n_blocks, n_tasks):
            part = values[:, block * _COLUMNS : (block + 1) * _COLUMNS]
            total += part @ part.T  # numpy computes one triangle
        return total

    with _CONTROLLER.limit(limits=1, user_api="blas"):
        return np.asarray(sum(each_alone(run, n_tasks)))


_CONTROLLER = ThreadpoolController()


def _moments(
    x: Float32[Tensor, "n channels h w"], filtered: Float32[Tensor, "n inputs h2 w2"]
) -> Moments:
    flat, inputs = (maps.permute(0, 2, 3, 1).flatten(0, 2) for maps in (x, filtered))
    squares = torch.stack([inputs.sum(0), inputs.square().sum(0)])
    return Moments(len(flat), _on_cpu(flat.sum(0)), _on_cpu(flat.T @ flat), _on_cpu(squares))


def _on_cpu(x: Tensor) -> np.ndarray:
    return np.asarray(x.double().cpu().numpy())


def _moved(images: Tensor, offset: tuple[int, int]) -> Tensor:
    """Return images moved down and to the right, their edges repeated."""
    for dim, (by, length) in enumerate(zip(offset, images.shape[2:], strict=True), 2):
        if by:
            index = torch.arange(length, device=images.device).sub_(by).clamp_(0, length - 1)
            images = images.index_select(dim, index)
    return images


def _rectified(x: Tensor, out: Tensor, window: Window) -> Tensor:
    """Return maps with negative values set to 0, and write those of the window to `out`."""
    if out.shape == x.shape:
        return torch.clamp_min(x, 0, out=out)
    x = x.relu_()
    out.copy_(x[:, :, window.rows, window.columns])
    return x


def covariance(moments: Moments) -> Float[np.ndarray, "channels channels"]:
    """Return the covariance of channels over images and positions, dividing by n."""
    mean = moments.sums / moments.n
    return np.asarray(moments.products / moments.n - np.outer(mean, mean))


def filtered_sd(moments: Moments) -> Float64[np.ndarray, " inputs"]:
    """Return the standard deviation of each depthwise output, dividing by n."""
    mean, square = moments.filtered / moments.n
    return np.asarray(np.sqrt(np.maximum(square - mean**2, 0)))
