"""Every stage of a model for one image: from the pixels to the sum that is the response."""

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from pocketcortex.core import InputError
from pocketcortex.models import CompactModel, fold_batch_norm
from pocketcortex.models.compact import STRIDES, bias_of, same_conv


@dataclass(frozen=True, eq=False)
class LayerTrace:
    """One layer for one image.

    Attributes
    ----------
    inputs
        What enters: the centred image, or the maps of the layer before.
    kernels
        Layer 0: over red, green and blue for each filter; later: one depthwise kernel an input
        map.
    filtered
        Later layers: each input map convolved with its kernel, before they are mixed. Layer 0: the
        convolution without its offset.
    mixing
        Weights of the filtered maps (columns) in the sums (rows), batch norm folded in; for layer
        0 the unit matrix.
    sums
        Mixed maps with offset: what is rectified.
    maps
        The layer's output.
    """

    inputs: Float[np.ndarray, "n_inputs h w"]
    kernels: Float[np.ndarray, "n_kernels ..."]
    filtered: Float[np.ndarray, "n_filtered h2 w2"]
    mixing: Float[np.ndarray, "n_maps n_filtered"]
    sums: Float[np.ndarray, "n_maps h2 w2"]
    maps: Float[np.ndarray, "n_maps h2 w2"]


@dataclass(frozen=True, eq=False)
class Trace:
    """All stages of a model for one image, batch norm folded into the kernels.

    Attributes
    ----------
    image
        Levels 0..255.
    layers
        Layers 0 to 4.
    readout
        Spatial weights of the last layer's maps.
    products
        Maps times readout.
    bias
        Added at the end.
    """

    image: UInt8[np.ndarray, "3 h w"]
    layers: tuple[LayerTrace, ...]
    readout: Float[np.ndarray, "n_maps rows columns"]
    products: Float[np.ndarray, "n_maps rows columns"]
    bias: float

    @property
    def by_filter(self) -> Float[np.ndarray, " n_maps"]:
        """What each map of the last layer adds to the response."""
        return np.asarray(self.products.sum(axis=(1, 2)))

    @property
    def response(self) -> float:
        """The model's response."""
        return float(self.by_filter.sum() + self.bias)

    def around(self, x_px: float, y_px: float, width_px: int) -> "Trace":
        """Return the trace cut to a square about a point of the image, in all stages alike.

        The sums over positions (`by_filter`, `response`) are then those of the square alone.

        Parameters
        ----------
        x_px, y_px
            The point.
        width_px
            Of the square, in pixels of the image, a multiple of 4 and no wider than the image. It
            is moved to lie within the image, and its corner to every fourth pixel.

        Raises
        ------
        InputError
            If the width is not such a number.
        """
        height, width = self.image.shape[1:]
        step = height // self.layers[-1].maps.shape[1]
        if width_px < step or width_px % step or width_px > min(height, width):
            raise InputError(
                f"width_px must be a multiple of {step} up to {min(height, width)}, got {width_px}"
            )
        corner = [
            int(np.clip(round((at - width_px / 2) / step), 0, (side - width_px) // step)) * step
            for at, side in ((y_px, height), (x_px, width))
        ]

        def cut(maps: np.ndarray) -> np.ndarray:
            scale = height // maps.shape[1]
            top, left, n = corner[0] // scale, corner[1] // scale, width_px // scale
            return maps[:, top : top + n, left : left + n]

        layers = tuple(
            replace(
                one, inputs=cut(one.inputs), filtered=cut(one.filtered), sums=cut(one.sums),
                maps=cut(one.maps),
            ) for one in self.layers
        )  # fmt: skip
        return replace(
            self, image=cut(self.image), layers=layers, readout=cut(self.readout),
            products=cut(self.products),
        )  # fmt: skip


@torch.no_grad()
def trace(model: CompactModel, image: UInt8[np.ndarray, "3 h w"]) -> Trace:
    """Return every stage of a compact model for one image.

    Parameters
    ----------
    model
        The compact model, on any device; images whose sides are multiples of 4 can be cut with
        `Trace.around`.
    image
        Levels 0..255.

    Raises
    ------
    InputError
        If the image is of another size than the model's.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Fig. 4f-g and Extended Data Fig. 5d.
    """
    folded = cast(CompactModel, fold_batch_norm(model))
    layers = folded.layers
    x = layers.centre(torch.from_numpy(image)[None].to(folded.readout.device))
    bias = bias_of(layers.conv)
    filtered = same_conv(x, layers.conv.weight, None, STRIDES[0], 1)
    sums = filtered + bias[:, None, None]
    mixing = torch.eye(len(bias), dtype=bias.dtype)
    found = []
    for i in range(len(STRIDES)):
        if i > 0:
            filtered = layers.filtered(i, x)
            sums = layers.pointwise[i - 1](filtered)
            mixing = layers.pointwise[i - 1].weight[:, :, 0, 0]
        kernels = layers.conv.weight if i == 0 else layers.depthwise[i - 1].weight[:, 0]
        maps = F.relu(sums)
        found.append(
            LayerTrace(
                _array(x[0]), _array(kernels), _array(filtered[0]), _array(mixing),
                _array(sums[0]), _array(maps[0]),
            )
        )  # fmt: skip
        x = maps
    readout = _array(folded.readout)
    return Trace(image, tuple(found), readout, found[-1].maps * readout, float(folded.readout_bias))


def _array(values: Tensor) -> np.ndarray:
    return np.asarray(values.detach().double().cpu().numpy())
