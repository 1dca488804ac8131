"""Gaudy images: every pixel pushed to black or white in each channel, edges and all."""

from typing import Literal, get_args

import numpy as np
import scipy.ndimage
from jaxtyping import UInt8

from pocketcortex.core import InputError

Threshold = Literal["channel", "image"]
"""Over what the mean is taken: each channel of an image, or the whole image."""


def gaudy(
    images: UInt8[np.ndarray, "n_stimuli 3 height width"],
    *,
    blur: float = 0.0,
    threshold: Threshold = "channel",
) -> UInt8[np.ndarray, "n_stimuli 3 height width"]:
    r"""Return images whose levels are 0 below their mean and 255 at or above it.

    .. math:: g_c(i, j) = 255 \cdot [x_c(i, j) \ge \bar x]

    with :math:`\bar x` the mean over positions, of the channel c or of all channels together. So
    edges become as strong as they can be. ``"channel"`` gives every channel its own mean, and
    keeps some of both levels in each channel that varies; ``"image"`` keeps a blue image blue.

    A channel (or image) of one level is nowhere below its mean, and becomes 255 all over: black
    turns white.

    Parameters
    ----------
    images
        RGB, 0..255.
    blur
        Standard deviation, in pixels, of a Gaussian blur of each channel before the threshold; 0
        for none. It takes away fine texture and makes the patches of one colour larger. Blurred
        levels are not rounded; beyond the border the image is mirrored, its edge pixels repeated.
    threshold
        Over what the mean is taken.

    Returns
    -------
    UInt8[np.ndarray, "n_stimuli 3 height width"]
        Levels 0 and 255 only.

    Raises
    ------
    InputError
        If `blur` is negative or not finite, `threshold` is unknown, or images have no pixels.

    References
    ----------
    Cowley & Pillow (2020), High-contrast "gaudy" images improve the training of deep neural
    network models of visual cortex, NeurIPS 33 (one mean: ``"image"``). Cowley et al., bioRxiv
    2023.11.22.568315, released code (a mean for each channel, and the blur).

    Examples
    --------
    >>> import numpy as np
    >>> image = np.array([[[[10, 20]], [[30, 50]], [[90, 90]]]], dtype=np.uint8)
    >>> gaudy(image)[0, :, 0].tolist()
    [[0, 255], [0, 255], [255, 255]]
    >>> gaudy(image, threshold="image")[0, :, 0].tolist()
    [[0, 0], [0, 255], [255, 255]]
    """
    if not (np.isfinite(blur) and blur >= 0):
        raise InputError(f"blur must be 0 or more pixels, got {blur}; 0 is no blur")
    if threshold not in get_args(Threshold):
        raise InputError(
            f"threshold must be one of {', '.join(map(repr, get_args(Threshold)))}, "
            f"got {threshold!r}"
        )
    if 0 in images.shape[1:]:
        raise InputError(f"images must have pixels, got shape {images.shape}")
    out = np.empty_like(images)
    for image, gaudy_image in zip(images, out, strict=True):
        gaudy_image[:] = _gaudy(image, blur, (1, 2) if threshold == "channel" else (0, 1, 2))
    return out


def _gaudy(
    image: UInt8[np.ndarray, "3 height width"], blur: float, axes: tuple[int, ...]
) -> UInt8[np.ndarray, "3 height width"]:
    """Return one image thresholded at its mean over `axes`."""
    n = int(np.prod([image.shape[axis] for axis in axes]))
    if blur == 0:  # in whole numbers, so that a level equal to the mean is found equal
        levels = image.astype(np.int64)
        above = n * levels >= levels.sum(axis=axes, keepdims=True)
    else:
        levels = scipy.ndimage.gaussian_filter(image.astype(np.float64), blur, axes=(1, 2))
        mean = levels.mean(axis=axes, keepdims=True)
        above = levels >= mean - 1e-9 * (1 + mean)  # blurring rounds a constant channel
    return np.where(above, 255, 0).astype(np.uint8)
