"""One neuron's compact model: five small convolutional layers and a spatial readout."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import safetensors
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from pocketcortex.core import InputError, explained_writes, in_brief, parse_json, write_json
from pocketcortex.models._tensor_files import read_tensors_whole, write_tensors

KERNEL = 5
STRIDES = (1, 2, 2, 1, 1)
BATCH_NORM_EPS = 1e-3
BATCH_NORM_MOMENTUM = 0.01
IMAGE_MEAN = (116.222, 109.270, 100.381)
"""Mean red, green and blue level (0..255) that the published models subtract from an image."""

FilterCounts = tuple[int, int, int, int, int]


def same_padding(size: int, stride: int, kernel: int = KERNEL) -> tuple[int, int]:
    """Return the zeros (before, after) that make a strided kernel cover `size` pixels.

    The output has ``ceil(size / stride)`` positions and an odd total puts the extra zero after
    the image (Keras' and TensorFlow's "same"): a 5-wide kernel at stride 2 pads an even size by 1
    and 2, where torch's symmetric 2 and 2 would shift the whole grid by one pixel.
    """
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def same_conv(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, groups: int) -> Tensor:
    """Convolve with 5 x 5 kernels and "same" padding.

    Where the zeros are uneven, the kernels are widened to 6 x 6 by a row and a column of zeros in
    front and the maps padded evenly by the convolution itself: the same sums, without a padded
    copy of the maps, in half the time on a CPU.
    """
    height, width = same_padding(x.shape[2], stride), same_padding(x.shape[3], stride)
    weight = F.pad(weight, (width[1] - width[0], 0, height[1] - height[0], 0))
    return F.conv2d(x, weight, bias, stride, (height[1], width[1]), groups=groups)


@dataclass(frozen=True)
class ParameterCount:
    """Numbers a compact model stores, by part; `total` counts as Keras' summary does.

    Attributes
    ----------
    convolution
        Kernels and biases of the five layers: the total without readout and batch norm.
    batch_norm
        Scale, offset, moving mean and moving variance: four a filter.
    readout
        The spatial readout's weights and its one bias.
    """

    convolution: int
    batch_norm: int
    readout: int

    @property
    def total(self) -> int:
        """All of them: the figure the paper quotes (median 12,469 of 219 published models)."""
        return self.convolution + self.batch_norm + self.readout

    @property
    def folded(self) -> int:
        """What is left with batch norm folded into the convolutions, as exports have it."""
        return self.convolution + self.readout


def count_parameters(filters: Sequence[int], image_size: tuple[int, int]) -> ParameterCount:
    """Count the parameters of a compact model with these filters per layer, without building it.

    Parameters
    ----------
    filters
        Five counts, first layer first.
    image_size
        Height and width of its images in pixels.
    """
    first, *later = filters
    height, width = readout_size(image_size)
    convolution = (3 * KERNEL**2 + 1) * first
    for inputs, outputs in zip(filters, later, strict=False):
        convolution += KERNEL**2 * inputs + inputs * outputs + outputs
    return ParameterCount(convolution, 4 * sum(filters), height * width * filters[-1] + 1)


def readout_size(image_size: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of the last layer's maps: a quarter of the image's, rounded up."""
    height, width = image_size
    for stride in STRIDES:
        height, width = math.ceil(height / stride), math.ceil(width / stride)
    return height, width


class CompactLayers(nn.Module):
    """The five convolutional layers of a compact model, without the readout.

    Layer 0 is an ordinary 5 x 5 convolution of the centred image; layers 1 to 4 are separable
    (5 x 5 depthwise, then 1 x 1 pointwise), layers 1 and 2 with stride 2; each is followed by
    batch normalisation (eps 1e-3) and ReLU.

    Parameters
    ----------
    filters
        Filters per layer, first layer first.
    image_size
        Height and width of the images in pixels.
    image_mean
        Red, green and blue level subtracted from every image (0..255).

    Raises
    ------
    InputError
        If `filters` is not five positive counts.
    """

    image_mean: Tensor
    depthwise: Sequence[nn.Conv2d]
    pointwise: Sequence[nn.Conv2d]
    norms: Sequence[nn.BatchNorm2d]

    def __init__(
        self,
        filters: Sequence[int],
        image_size: tuple[int, int] = (112, 112),
        image_mean: Sequence[float] = IMAGE_MEAN,
    ) -> None:
        super().__init__()
        self.filters = checked_filters(filters)
        self.image_size = (int(image_size[0]), int(image_size[1]))
        first, *later = self.filters
        self.register_buffer("image_mean", torch.tensor(image_mean).reshape(1, 3, 1, 1))
        self.conv = nn.Conv2d(3, first, KERNEL)
        depthwise = nn.ModuleList(
            nn.Conv2d(n, n, KERNEL, stride, groups=n, bias=False)
            for n, stride in zip(self.filters, STRIDES[1:], strict=False)
        )
        pointwise = nn.ModuleList(
            nn.Conv2d(n, m, 1) for n, m in zip(self.filters, later, strict=False)
        )
        norms = nn.ModuleList(
            nn.BatchNorm2d(n, BATCH_NORM_EPS, BATCH_NORM_MOMENTUM) for n in self.filters
        )
        self.depthwise = cast(Sequence[nn.Conv2d], depthwise)
        self.pointwise = cast(Sequence[nn.Conv2d], pointwise)
        self.norms = cast(Sequence[nn.BatchNorm2d], norms)

    def forward(
        self, images: Float[Tensor, "n 3 h w"] | UInt8[Tensor, "n 3 h w"]
    ) -> Float[Tensor, "n filters h4 w4"]:
        """Return the last layer's maps for raw images (0..255)."""
        x = self.centre(images)
        for index in range(len(STRIDES)):
            x = self.layer(index, x)
        return x

    def centre(
        self, images: Float[Tensor, "n 3 h w"] | UInt8[Tensor, "n 3 h w"]
    ) -> Float[Tensor, "n 3 h w"]:
        """Return images minus the channel means.

        Raises
        ------
        InputError
            If the images are not of this model's size.
        """
        return centred(images, self.image_mean, self.image_size)

    def layer(self, index: int, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 h2 w2"]:
        """Apply layer `index` (0..4): convolution, batch normalisation and ReLU."""
        if index == 0:
            x = same_conv(x, self.conv.weight, self.conv.bias, STRIDES[0], 1)
        else:
            x = self.pointwise[index - 1](self.filtered(index, x))
        return F.relu(self.norms[index](x))

    def filtered(self, index: int, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
        """Return the depthwise half of layer `index` (1..4), before channels are mixed."""
        kernels = self.depthwise[index - 1].weight
        return same_conv(x, kernels, None, STRIDES[index], kernels.shape[0])


class CompactModel(nn.Module):
    """Predict one neuron's response to an image with five layers of few filters.

    The response is the sum over all filters and positions of the last layer's maps, each weighted
    by the spatial readout, plus a bias. It is linear at the end, so it may be negative: published
    models answer in z-scored units.

    Parameters
    ----------
    filters
        Filters per layer, first layer first; the published models start from 100 each.
    image_size
        Height and width of the images in pixels.
    image_mean
        Red, green and blue level subtracted from every image (0..255).

    Raises
    ------
    InputError
        If `filters` is not five positive counts.

    References
    ----------
    Cowley et al., "Compact deep neural network models of visual cortex", bioRxiv
    2023.11.22.568315, Methods, "Compact models".
    """

    def __init__(
        self,
        filters: Sequence[int],
        image_size: tuple[int, int] = (112, 112),
        image_mean: Sequence[float] = IMAGE_MEAN,
    ) -> None:
        super().__init__()
        self.layers = CompactLayers(filters, image_size, image_mean)
        self.filters = self.layers.filters
        self.image_size = self.layers.image_size
        height, width = readout_size(self.image_size)
        self.readout = nn.Parameter(torch.zeros(self.filters[-1], height, width))
        self.readout_bias = nn.Parameter(torch.zeros(()))

    def forward(
        self, images: Float[Tensor, "n 3 h w"] | UInt8[Tensor, "n 3 h w"]
    ) -> Float[Tensor, " n"]:
        """Predict the responses to raw images.

        Parameters
        ----------
        images
            Levels 0..255, uint8 or float, ``(n_stimuli, 3, height, width)``.

        Returns
        -------
        responses, ``(n_stimuli,)``, in the units the model was trained in.

        Raises
        ------
        InputError
            If the images are not of this model's size.
        """
        return torch.einsum("nchw,chw->n", self.layers(images), self.readout) + self.readout_bias

    @property
    def n_parameters(self) -> ParameterCount:
        """Parameters by part; `.total` is the figure to quote."""
        return count_parameters(self.filters, self.image_size)

    @property
    def filters_per_layer(self) -> tuple[int, ...]:
        """Kernels per stage as the paper counts them: convolution, four depthwise, readout."""
        return (self.filters[0], *self.filters)

    def extra_repr(self) -> str:
        """Describe the model in one line."""
        return f"filters={self.filters}, {self.n_parameters.total:,} parameters"

    def save(self, folder: str | Path) -> Path:
        """Write ``config.json`` and ``model.safetensors`` into `folder`, which may be new.

        The weights' file holds their SHA-256.

        Raises
        ------
        PocketcortexError
            If the disk is full, read-only or at fault.
        """
        folder = Path(folder)
        with explained_writes("the model", folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_tensors(folder / "model.safetensors", self.state_dict())
            config = {"filters": self.filters, "image_size": self.image_size}
            write_json(folder / "config.json", config)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> "CompactModel":
        """Read a model that `save` wrote.

        Raises
        ------
        InputError
            If a file is missing, damaged or altered, or does not hold this architecture.
        """
        folder = Path(folder)
        try:
            config: dict[str, Any] = parse_json((folder / "config.json").read_text())
            filters, image_size = config["filters"], tuple(config["image_size"])
            weights, _ = read_tensors_whole(folder / "model.safetensors", of_others=True)
            described = count_parameters(checked_filters(filters), image_size).total
            if described > (held := sum(t.numel() for t in weights.values())):
                raise InputError(f"{described:,} parameters described, {held:,} numbers held")
            with torch.random.fork_rng(devices=[]):  # what it draws is replaced
                model = cls(filters, image_size)
            model.load_state_dict(weights)
        except (
            OSError, LookupError, TypeError, ValueError, RuntimeError, OverflowError,
            AttributeError, MemoryError, safetensors.SafetensorError,
        ) as error:  # fmt: skip
            raise InputError(
                f"{folder} does not hold a saved compact model ({in_brief(error)}); expected "
                "config.json and model.safetensors as CompactModel.save writes them"
            ) from error
        return model.eval()


def bias_of(conv: nn.Conv2d) -> Tensor:
    """Return the bias of a convolution that has one."""
    return conv.get_parameter("bias")


def checked_filters(filters: Sequence[int]) -> FilterCounts:
    """Return `filters` as a tuple of five positive integers or say what is wrong with them."""
    if len(filters) != len(STRIDES) or any(int(n) != n or n < 1 for n in filters):
        raise InputError(f"filters must be five positive counts, one a layer; got {list(filters)}")
    a, b, c, d, e = (int(n) for n in filters)
    return a, b, c, d, e


def centred(images: Tensor, mean: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Return images minus the channel means, in the means' dtype; wrong sizes are refused."""
    if tuple(images.shape[1:]) != (3, *image_size):
        raise InputError(
            f"the model takes images (n, 3, {image_size[0]}, {image_size[1]}), "
            f"got {tuple(images.shape)}; resize them first (StimulusSet's `size` does)"
        )
    return images.to(mean.dtype) - mean
