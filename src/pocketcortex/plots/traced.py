"""What the stages of a compact model make of images, as plain arrays to draw."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from pocketcortex.core import InputError


@dataclass(frozen=True, eq=False)
class TracedConvolution:
    """What chosen filters of layer 0 make of the images.

    Attributes
    ----------
    channels
        Their numbers, ``(n,)``.
    kernels
        Over red, green and blue, ``(n, 3, k, k)``.
    summed
        Output before rectification, batch normalisation included, ``(n_images, n, h, w)``.
    rectified
        Output, of the same shape.
    """

    channels: Int[np.ndarray, " _"]
    kernels: Float[np.ndarray, "_ 3 _ _"]
    summed: Float[np.ndarray, "_ _ _ _"]
    rectified: Float[np.ndarray, "_ _ _ _"]


@dataclass(frozen=True, eq=False)
class TracedLayer:
    """What a separable layer makes of some of its input maps, for some of its filters.

    Attributes
    ----------
    inputs
        Numbers of the input maps to show, ``(n_in,)``.
    maps
        Those maps, never negative, ``(n_images, n_in, h, w)``.
    kernels
        Depthwise kernel of each, ``(n_in, k, k)``.
    filtered
        Each map convolved with its kernel, ``(n_images, n_in, h2, w2)``.
    outputs
        Numbers of the filters to show, ``(n_out,)``.
    weights
        Pointwise weights from inputs to outputs, with batch normalisation's scale in them,
        ``(n_out, n_in)``.
    summed
        Outputs before rectification: the weighted sum over *all* input maps, shown or not, with
        bias and batch normalisation, ``(n_images, n_out, h2, w2)``.
    rectified
        Outputs, of the same shape.
    """

    inputs: Int[np.ndarray, " _"]
    maps: Float[np.ndarray, "_ _ _ _"]
    kernels: Float[np.ndarray, "_ _ _"]
    filtered: Float[np.ndarray, "_ _ _ _"]
    outputs: Int[np.ndarray, " _"]
    weights: Float[np.ndarray, "_ _"]
    summed: Float[np.ndarray, "_ _ _ _"]
    rectified: Float[np.ndarray, "_ _ _ _"]


@dataclass(frozen=True, eq=False)
class TracedReadout:
    """What the spatial readout makes of the last layer's maps.

    Attributes
    ----------
    channels
        Numbers of the filters to show, ``(n,)``.
    maps
        Their maps, never negative, ``(n_images, n, h, w)``.
    weights
        Spatial weights of each, ``(n, h, w)``.
    total
        Weighted maps summed over *all* filters, shown or not, ``(n_images, h, w)``.
    responses
        To each image: the sum of `total`, and the bias, ``(n_images,)``.
    bias
        Of the readout.
    """

    channels: Int[np.ndarray, " _"]
    maps: Float[np.ndarray, "_ _ _ _"]
    weights: Float[np.ndarray, "_ _ _"]
    total: Float[np.ndarray, "_ _ _"]
    responses: Float[np.ndarray, " _"]
    bias: float


def check_traced(
    images: np.ndarray,
    names: Sequence[str],
    first: TracedConvolution,
    layers: Sequence[TracedLayer],
    readout: TracedReadout,
) -> None:
    """Refuse stages that are empty, do not fit, are not finite, or do not divide the image.

    Raises
    ------
    InputError
        With the first thing that is wrong.
    """
    n, size = len(images), images.shape[-1]
    if not n or len(names) != n or len(readout.responses) != n:
        raise InputError(
            f"need one or more images, each with a name and a response; got {n} images, "
            f"{len(names)} names and {len(readout.responses)} responses"
        )
    parts: list[tuple[str, int, tuple[np.ndarray, ...], tuple[np.ndarray, ...]]] = [
        ("layer 0", len(first.channels), (first.kernels,), (first.summed, first.rectified)),
        ("readout", len(readout.channels), (readout.weights,), (readout.maps,)),
        ("readout", 1, (), (readout.total[:, None],)),
    ]
    for k, one in enumerate(layers, 1):
        into, kernels = len(one.inputs), (one.kernels, one.weights.T)
        parts.append((f"layer {k}", into, kernels, (one.maps, one.filtered)))
        maps = (one.summed, one.rectified)
        parts.append((f"layer {k}", len(one.outputs), (one.weights,), maps))
    for name, n_channels, weights, shown in parts:
        fit = all(len(kernel) == n_channels for kernel in weights)
        if not n_channels or not fit or any(one.shape[:2] != (n, n_channels) for one in shown):
            raise InputError(
                f"{name}: need one or more channels, and for {n_channels} of them as many kernels "
                f"and maps ({n}, {n_channels}, height, width); got kernels "
                f"{[kernel.shape for kernel in weights]} and maps {[one.shape for one in shown]}"
            )
        if not all(np.isfinite(part).all() for part in (*weights, *shown)):
            raise InputError(f"{name}: weights or maps hold NaN or infinite values")
        if any(len({*one.shape[2:]}) > 1 or size % one.shape[-1] for one in shown):
            raise InputError(
                f"{name}: maps must be square and divide the image's {size} pixels evenly, got "
                f"{[one.shape for one in shown]}"
            )
