"""What is done to raw images before a network sees them."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from pocketcortex.core import InputError

_INTERPOLATIONS = ("bilinear", "bicubic", "nearest")

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Of red, green and blue, images in 0..1."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of red, green and blue, images in 0..1."""


@dataclass(frozen=True)
class Preprocessing:
    """How raw images (0..255) become a network's input.

    Attributes
    ----------
    size
        Height and width in pixels that the network sees; None leaves images as they are.
    short_side
        Pixels to which an image's short side is resized, before the middle is cut out at `size`.
        None: the whole image is resized to `size`, whatever its proportions, and nothing is cut.
    interpolation
        ``"bilinear"`` or ``"bicubic"``, both antialiased, or ``"nearest"``.
    mean, std
        Of red, green and blue, images in 0..1: taken off and divided by. None leaves the levels
        0..255, for networks that normalise for themselves.

    Raises
    ------
    InputError
        If a size is below one pixel, the short side is shorter than what is cut from it or comes
        without a size, the interpolation has another name, only one of mean and std is given, or
        a deviation is not above zero.
    """

    size: tuple[int, int] | None
    short_side: int | None = None
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] | None = IMAGENET_MEAN
    std: tuple[float, float, float] | None = IMAGENET_STD

    def __post_init__(self) -> None:
        if self.size is not None and min(self.size) < 1:
            raise InputError(f"input size must be 1 x 1 pixels or more, got {self.size}")
        if self.short_side is not None and self.short_side < max(self.size or (math.inf,)):
            raise InputError(
                f"short_side {self.short_side} must not be smaller than the size cut from it, got "
                f"size {self.size}"
            )
        if self.interpolation not in _INTERPOLATIONS:
            raise InputError(
                f"interpolation {self.interpolation!r} is not one of {', '.join(_INTERPOLATIONS)}"
            )
        if (self.mean is None) != (self.std is None):
            raise InputError("give both mean and std, or neither")
        if self.std is not None and min(self.std) <= 0:
            raise InputError(f"std must be above 0 for each colour, got {self.std}")


RAW = Preprocessing(size=None, mean=None, std=None)
"""Nothing is done: for networks that take levels 0..255 and normalise for themselves."""

PUBLISHED = Preprocessing(size=(224, 224))
"""What the published benchmark gave to all networks but the Taskonomy encoders."""

TASKONOMY = Preprocessing(size=(256, 256), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
"""What the Taskonomy encoders take: 256 x 256, levels from -1 to 1."""


class Preprocess(nn.Module):
    """Preprocessing as a module without weights.

    Resizing is done on floats and not rounded to whole levels, as Pillow would; levels that bicubic
    interpolation puts outside 0..255 are clipped.

    Parameters
    ----------
    preprocessing
        What to do.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.preprocessing = preprocessing

    def extra_repr(self) -> str:
        """Return all settings, so that a printed network says what its input goes through."""
        return str(self.preprocessing)

    def forward(
        self, images: UInt8[Tensor, "n 3 h w"] | Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, "n 3 rows columns"]:
        """Return float32 network input for raw images (0..255)."""
        how = self.preprocessing
        x = images.to(torch.float32)
        if how.size is not None:
            x = self._resized(x, how.size)
        if how.mean is not None and how.std is not None:
            mean, std = x.new_tensor([how.mean, how.std])[:, :, None, None] * 255
            x = (x - mean) / std
        return x

    def _resized(
        self, x: Float[Tensor, "n 3 h w"], size: tuple[int, int]
    ) -> Float[Tensor, "n 3 rows columns"]:
        height, width = x.shape[2:]
        whole = size
        if self.preprocessing.short_side is not None:
            side, short = self.preprocessing.short_side, min(height, width)
            whole = (int(side * height / short), int(side * width / short))
        if (height, width) != whole:
            mode = self.preprocessing.interpolation
            if mode == "nearest":
                x = F.interpolate(x, whole, mode=mode)
            else:
                x = F.interpolate(x, whole, mode=mode, antialias=True).clamp(0, 255)
        top, left = (round((w - s) / 2) for w, s in zip(whole, size, strict=True))
        return x[:, :, top : top + size[0], left : left + size[1]]
