"""A constraint that keeps a synthesized image as bright, contrasty and coarse as photographs."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from pocketcortex.core import InputError

_ROUNDS = 4
"""Times that mean and contrast are set again after levels beyond 0..255 were clipped."""


@dataclass(frozen=True)
class NaturalConstraint:
    r"""Fixed mean level and contrast, and steps whose amplitude falls with spatial frequency.

    Under it an image cannot drive a neuron by being brighter, more contrasty or noisier than
    photographs are. Each step is shaped in the Fourier domain, :math:`G(f) \leftarrow G(f) /
    |f|^{exponent}` (a channel's mean as its lowest frequency), and so is the noise started from;
    after each step mean and contrast are set again and the image is clipped to 0..255.

    Attributes
    ----------
    mean
        Mean level over all pixels and channels, above 0 and below 255.
    contrast
        Standard deviation of the levels over all pixels and channels (RMS contrast), at most as
        far from `mean` as black and white are.
    exponent
        How steeply amplitude falls with frequency: 1 as in photographs, 0 not at all.

    Raises
    ------
    InputError
        If an attribute is outside its range.

    References
    ----------
    Amplitudes of photographs fall as 1/f: Field (1987), J. Opt. Soc. Am. A 4, 2379. Ascent in
    Fourier coordinates scaled by 1/f: Olah et al. (2017), Feature visualization, Distill. The
    projection to one mean and contrast: Walker et al. (2019), Nat. Neurosci. 22, 2060. Their
    combination is our own choice, and so is clipping in turn with the projection.
    """

    mean: float = 109.0
    contrast: float = 57.0
    exponent: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what no image can have."""
        if not 0 < self.mean < 255:
            raise InputError(f"mean must be a level above 0 and below 255, got {self.mean}")
        most = min(self.mean, 255 - self.mean)
        if not 0 < self.contrast <= most:
            raise InputError(
                f"contrast must be above 0 and at most {most:g} levels around a mean of "
                f"{self.mean:g}, got {self.contrast}"
            )
        if not 0 <= self.exponent <= 4:
            raise InputError(f"exponent must be within 0..4, got {self.exponent}")

    @classmethod
    def of(cls, images: UInt8[np.ndarray, "n 3 height width"]) -> "NaturalConstraint":
        """Return the constraint with the median mean and contrast of these images.

        Raises
        ------
        InputError
            If there is no image, or they do not vary.
        """
        if len(images) == 0:
            raise InputError("mean and contrast need at least one image, got none")
        levels = images.reshape(len(images), -1).astype(np.float64)
        mean, contrast = np.median(levels.mean(axis=1)), np.median(levels.std(axis=1))
        return cls(float(mean), float(min(contrast, mean, 255 - mean)))

    def shaped(self, x: Float[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n 3 h w"]:
        """Return maps whose amplitudes are divided by spatial frequency to the exponent."""
        height, width = x.shape[-2:]
        rows = torch.fft.fftfreq(height, device=x.device, dtype=x.dtype)
        columns = torch.fft.rfftfreq(width, device=x.device, dtype=x.dtype)
        frequency = torch.hypot(rows[:, None], columns)
        frequency[0, 0] = 1 / max(height, width)
        spectrum = torch.fft.rfft2(x) * frequency**-self.exponent
        out: Tensor = torch.fft.irfft2(spectrum, s=(height, width))
        return out

    def projected(self, x: Float[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n 3 h w"]:
        """Return images within 0..255 that have the mean and contrast.

        An image of one level has no contrast to scale and becomes the mean level. Where clipping
        takes more than the rounds give back, contrast stays a little low.
        """
        for _ in range(_ROUNDS):
            x = x - x.mean((-3, -2, -1), keepdim=True)
            spread = x.square().mean((-3, -2, -1), keepdim=True).sqrt()
            x = self.mean + x * (self.contrast / spread.clamp_min(1e-6))
            x = x.clamp(0, 255)
        return x
