"""Images that drive a neuron well and look as different from one another as can be."""

import numpy as np
import scipy.ndimage
from jaxtyping import Float, Int, UInt8

from pocketcortex.core import InputError

_BLUR = 2.0
"""Pixels of blur before images are compared: finer texture, and shifts below it, do not count."""


def most_diverse(
    images: UInt8[np.ndarray, "n 3 height width"],
    responses: Float[np.ndarray, " n_responses"],
    k: int,
    *,
    at_least: float = 0.85,
    baseline: float = 0.0,
) -> Int[np.ndarray, " k_or_fewer"]:
    r"""Return indices of up to `k` images that drive a neuron well and differ most.

    Of all images with :math:`r - b \ge a (r_{max} - b)`, b the baseline, the strongest comes
    first; each next one is the image farthest from its nearest chosen neighbour (ties: the
    earlier image). The smallest distance between those chosen is then at least half of the
    largest possible. Distance is the root mean square difference of levels after a Gaussian blur
    of 2 pixels, so images that differ in noise only are not called different. Nothing is random.

    Parameters
    ----------
    images
        Candidates, such as one model's images from many starts.
    responses
        One neuron's responses to them, larger is better; to choose among minimizing images, give
        both with the opposite sign.
    k
        How many images to return; fewer are returned if fewer reach the level asked for.
    at_least
        Share of the best response, above the baseline, that an image must reach; within 0..1.
    baseline
        Response that counts as none, such as the mean over photographs. Responses in z-scored
        units have no natural zero, and a share of them means nothing without it.

    Raises
    ------
    InputError
        If `k` is below 1, `at_least` outside 0..1, the numbers of images and responses differ or
        are 0, or no finite response is above the baseline.

    References
    ----------
    Diverse images at a fixed share of the best response: Cadena et al. (2018), ECCV, "Diverse
    feature visualizations reveal invariances in early layers"; Ding et al. (2023), bioRxiv
    2023.03.15.532836, which ask for 0.85. They optimise diversity, we choose by it: farthest
    points first, Gonzalez (1985), Theor. Comput. Sci. 38, 293. Blur and baseline are our own.
    """
    if k < 1:
        raise InputError(f"k must be 1 or more, got {k}")
    if not 0 <= at_least <= 1:
        raise InputError(f"at_least must be within 0..1, got {at_least}")
    if len(images) != len(responses) or len(images) == 0:
        raise InputError(
            f"need one response for each of one or more images, got {len(responses)} for "
            f"{len(images)}"
        )
    above = np.where(np.isfinite(responses), responses, -np.inf) - baseline
    if not above.max() > 0:
        raise InputError(
            f"no response is above the baseline of {baseline:g}; the best is "
            f"{above.max() + baseline:g}"
        )
    candidates = np.flatnonzero(above >= at_least * above.max())
    levels = images[candidates].astype(np.float32)
    blurred = scipy.ndimage.gaussian_filter(levels, _BLUR, axes=(2, 3)).reshape(len(levels), -1)
    chosen = [int(above[candidates].argmax())]
    nearest = np.full(len(candidates), np.inf)
    while len(chosen) < min(k, len(candidates)):
        apart = np.sqrt(np.mean((blurred - blurred[chosen[-1]]) ** 2, axis=1, dtype=np.float64))
        nearest = np.minimum(nearest, apart)
        nearest[chosen] = -1.0
        chosen.append(int(nearest.argmax()))
    return candidates[chosen]
