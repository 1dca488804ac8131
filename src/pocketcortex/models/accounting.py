"""How large a model is: parameters, filters, multiply-adds and bytes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import safetensors.torch

from pocketcortex.models.compact import (
    KERNEL,
    STRIDES,
    CompactModel,
    ParameterCount,
    count_parameters,
)
from pocketcortex.models.shared import SharedCompactModel


@dataclass(frozen=True)
class ModelSize:
    """The size of a compact model, or of one shared by several neurons.

    Attributes
    ----------
    filters
        Filters of each of the five layers.
    filters_per_stage
        Filters as the paper counts them, in six stages: layer 0's kernels, the depthwise kernels
        of layers 1 to 4, the spatial readouts (a shared model has one a neuron).
    parameters
        Numbers stored, by part: `.convolution` is the total without readout and batch norm.
    macs_per_stage
        Multiply-adds for one image in the five layers and the readout, batch norm folded into
        the convolutions and taps that fall on padding counted.
    n_bytes
        Size of its weights file (safetensors).
    """

    filters: tuple[int, ...]
    filters_per_stage: tuple[int, ...]
    parameters: ParameterCount
    macs_per_stage: tuple[int, ...]
    n_bytes: int

    @property
    def n_filters(self) -> int:
        """Filters in all, as the paper counts them: median 164 of the 219 published models."""
        return sum(self.filters_per_stage)

    @property
    def macs(self) -> int:
        """Multiply-adds for one image: median 57.3 million of the 219 published models."""
        return sum(self.macs_per_stage)


def model_size(model: CompactModel | SharedCompactModel) -> ModelSize:
    """Return how large a model is.

    Parameters
    ----------
    model
        A compact model, or one shared by several neurons.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Fig. 1i and Methods (filters and parameters).
    """
    filters, image_size = model.layers.filters, model.layers.image_size
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    n_bytes = len(safetensors.torch.save(weights))
    counted, macs = count_parameters(filters, image_size), count_macs(filters, image_size)
    n_readouts = filters[-1]
    if isinstance(model, SharedCompactModel):
        n_readouts = len(model.bias)
        stored = model.mixing.numel() + model.spatial.numel() + model.bias.numel()
        counted = ParameterCount(counted.convolution, counted.batch_norm, stored)
        macs = (*macs[:-1], n_readouts * (macs[-1] + filters[-1]))
    stages = (filters[0], *filters[:-1], n_readouts)
    return ModelSize(filters, stages, counted, macs, n_bytes)


def count_macs(filters: Sequence[int], image_size: tuple[int, int]) -> tuple[int, ...]:
    """Return the multiply-adds a compact model needs for one image, in five layers and the readout.

    Batch norm is folded into the convolutions, and taps that fall on padding are counted.

    Parameters
    ----------
    filters
        Five counts, first layer first.
    image_size
        Height and width of its images in pixels.

    Examples
    --------
    >>> count_macs((48, 57, 3, 7, 3), (112, 112))[0]
    45158400
    """
    per_pixel = [3 * KERNEL**2 * filters[0]]
    per_pixel += [KERNEL**2 * n + n * m for n, m in pairwise(filters)]
    height, width = image_size
    macs = []
    for stride, products in zip(STRIDES, per_pixel, strict=True):
        height, width = math.ceil(height / stride), math.ceil(width / stride)
        macs.append(height * width * products)
    return (*macs, height * width * filters[-1])
