"""A network of fixed filters that needs no download: oriented, colour-opponent, pooled."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

_TO_OPPONENT = torch.tensor(
    [[1 / 3, 1 / 3, 1 / 3], [0.5, -0.5, 0.0], [0.25, 0.25, -0.5]], dtype=torch.float32
)
"""Red, green, blue to luminance, red-green and blue-yellow."""


def gabor_kernels(
    size: int, n_orientations: int, cycles_per_pixel: float
) -> Float[Tensor, "n_kernels size size"]:
    """Return even and odd Gabor kernels, zero mean and unit norm, all orientations of each."""
    axis = torch.arange(size) - (size - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    envelope = torch.exp(-(x**2 + y**2) / (2 * (size / 5) ** 2))
    kernels = []
    for phase in (0.0, math.pi / 2):
        for k in range(n_orientations):
            angle = math.pi * k / n_orientations
            along = x * math.cos(angle) + y * math.sin(angle)
            kernel = envelope * torch.cos(2 * math.pi * cycles_per_pixel * along + phase)
            kernel = kernel - envelope * (kernel.sum() / envelope.sum())
            kernels.append(kernel / kernel.norm())
    return torch.stack(kernels)


class FilterBank(nn.Module):
    """Rectified and pooled Gabor responses of three opponent channels at three scales.

    A stand-in for a trained backbone where none can be had: V1-like, no learned weight. The output
    is ``(n, 114, height / 4, width / 4)``: for each of three scales 8 orientations x 2 phases x 2
    signs of luminance, and for each opponent channel its blurred positive and
    negative part. Each unit is the mean of its rectified response over 4 x 4 pixels.

    References
    ----------
    Gabor model of simple cells: Jones & Palmer (1987), J. Neurophysiol. 58, eq. 1.
    """

    SIZES = (5, 9, 13)

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("opponent", _TO_OPPONENT)
        for size in self.SIZES:
            self.register_buffer(f"gabor{size}", gabor_kernels(size, 8, 1.2 / size)[:, None])
        self.maps = nn.Identity()

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n channels h4 w4"]:
        """Return the pooled maps of raw images (0..255)."""
        x = torch.einsum("oc,nchw->nohw", self.opponent, (images - 128) / 64)
        parts = []
        for size in self.SIZES:
            kernels = self.get_buffer(f"gabor{size}")
            y = F.conv2d(F.pad(x[:, :1], [size // 2] * 4, mode="reflect"), kernels)
            parts += [y.relu(), (-y).relu()]
            blurred = F.avg_pool2d(x, size, 1, size // 2, count_include_pad=False)
            parts += [blurred.relu(), (-blurred).relu()]
        maps: Tensor = self.maps(F.avg_pool2d(torch.cat(parts, dim=1), 4))
        return maps


def filter_bank() -> FilterBank:
    """Build the fixed filter bank; its layer is ``maps``."""
    return FilterBank()
