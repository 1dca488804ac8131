"""Receptive fields of compact models: where in the image a response can be changed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from scipy.ndimage import gaussian_filter

from pocketcortex.core import InputError
from pocketcortex.models import CompactModel, PairedStack

PLACES = ((0, 0), (1, 1), (-1, 1), (1, -1), (-1, -1))
"""Where drawn stimuli are shown: a field's centre and four places around it, in `SHIFT`."""

SHIFT = 0.045
"""Distance of `PLACES` from the centre along each axis, in image sides."""

MODELS_AT_ONCE = 8
"""Models that are shown drawn stimuli as one stack."""

_BLUR = 1 / 56  # of the energy, in image sides: 2 of 112 pixels
_IMAGES_AT_ONCE = 4


@dataclass(frozen=True, eq=False)
class ReceptiveFields:
    """Where models look.

    Attributes
    ----------
    energy
        Squared gradient of the response by the pixels, summed over colours and averaged over
        images: per squared level.
    x_px, y_px
        Centre: mean position, weighted by energy, of the pixels where the energy, slightly
        blurred, is at least half its maximum. (0, 0) is the middle of the top left pixel. NaN for
        a model whose response nothing changes.
    diameter_px
        Of the disc as large as the smallest set of pixels that holds half of the energy.
    """

    energy: Float[np.ndarray, "n_models height width"]
    x_px: Float[np.ndarray, " n_models"]
    y_px: Float[np.ndarray, " n_models"]
    diameter_px: Float[np.ndarray, " n_models"]

    @property
    def share_of_image(self) -> Float[np.ndarray, " n_models"]:
        """Share of the image's pixels that holds half of the energy; 0.5 is no field at all."""
        return np.asarray(np.pi / 4 * self.diameter_px**2 / self.energy[0].size)


def receptive_fields(
    models: Sequence[CompactModel],
    images: UInt8[np.ndarray, "n 3 h w"],
    *,
    device: str | torch.device = "cpu",
) -> ReceptiveFields:
    """Return where each model's response changes with the pixels, averaged over images.

    Parameters
    ----------
    models
        Compact models for one image size.
    images
        Natural images, levels 0..255, of that size; some dozens do.
    device
        Where to compute.

    Raises
    ------
    InputError
        If there is no model or no image, or the sizes differ.

    References
    ----------
    Gradient maps as receptive fields: Simonyan et al., arXiv 1312.6034, section 3. Averaging,
    centre and diameter are our definitions; the publication has none.
    """
    if len(images) < 1:
        raise InputError("receptive fields need one or more images, got none")
    stack = PairedStack(models).to(device)
    energy = np.zeros((len(models), *images.shape[2:]))
    for first in range(0, len(images), _IMAGES_AT_ONCE):
        some = torch.from_numpy(images[first : first + _IMAGES_AT_ONCE]).to(device).float()
        _, slopes = stack.gradients(some.expand(len(models), *some.shape))
        energy += slopes.square().sum((1, 2)).double().cpu().numpy()
    energy /= len(images)
    found = np.array([_centre_and_diameter(one) for one in energy])
    return ReceptiveFields(energy, found[:, 0], found[:, 1], found[:, 2])


def _centre_and_diameter(energy: Float[np.ndarray, "height width"]) -> tuple[float, float, float]:
    if not energy.max() > 0:
        return float("nan"), float("nan"), float("nan")
    blurred = gaussian_filter(energy, _BLUR * len(energy), mode="constant")
    weights = np.where(blurred >= blurred.max() / 2, blurred, 0.0)
    rows, columns = np.indices(energy.shape)
    x, y = ((weights * along).sum() / weights.sum() for along in (columns, rows))
    descending = np.sort(energy, axis=None)[::-1].cumsum()
    n_half = int(np.searchsorted(descending, descending[-1] / 2)) + 1
    return float(x), float(y), float(2 * np.sqrt(n_half / np.pi))
