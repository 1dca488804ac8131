"""The encoder that all Taskonomy tasks share."""

from jaxtyping import Float
from torch import Tensor, nn

TASKS = {
    "autoencoding": "2D",
    "class_object": "semantic",
    "class_scene": "semantic",
    "curvature": "3D",
    "denoising": "other",
    "depth_euclidean": "3D",
    "depth_zbuffer": "3D",
    "edge_occlusion": "3D",
    "edge_texture": "2D",
    "egomotion": "geometric",
    "fixated_pose": "geometric",
    "inpainting": "2D",
    "jigsaw": "geometric",
    "keypoints2d": "2D",
    "keypoints3d": "3D",
    "nonfixated_pose": "geometric",
    "normal": "3D",
    "point_matching": "geometric",
    "reshading": "3D",
    "room_layout": "geometric",
    "segment_semantic": "semantic",
    "segment_unsup25d": "3D",
    "segment_unsup2d": "2D",
    "vanishing_point": "geometric",
}
"""The 24 tasks whose encoders the benchmark used, each with its cluster.

A 25th, colorization, takes grey images only and was left out.
"""


class Bottleneck(nn.Module):
    """Three convolutions beside a shortcut; the 3 x 3 one in the middle may take strides.

    Unlike torchvision's, a block changes either the channels (by a 1 x 1 convolution in the
    shortcut) or, in the last block of a stage, the size (by taking every other pixel).
    """

    def __init__(self, n_inputs: int, n_middle: int, stride: int) -> None:
        super().__init__()
        n_outputs = 4 * n_middle
        self.conv1 = nn.Conv2d(n_inputs, n_middle, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_middle)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(n_middle, n_middle, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_middle)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(n_middle, n_outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(n_outputs)
        self.downsample: nn.Module = nn.Identity()
        if n_inputs != n_outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(n_inputs, n_outputs, 1, bias=False), nn.BatchNorm2d(n_outputs)
            )
        elif stride > 1:
            self.downsample = nn.MaxPool2d(1, stride)
        self.relu3 = nn.ReLU()

    def forward(self, x: Float[Tensor, "n inputs h w"]) -> Float[Tensor, "n outputs h2 w2"]:
        """Return the sum of the convolved and the short-cut maps, rectified."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.relu2(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        maps: Tensor = self.relu3(y + self.downsample(x))
        return maps


class TaskonomyEncoder(nn.Module):
    """A ResNet-50 without final pooling, and a convolution down to eight maps.

    Takes images in -1..1, 256 x 256 as trained; gives ``(n, 8, height / 16, width / 16)``, each map
    of each image with zero mean and unit variance. Parameters have the names of the published
    weights. Stages one and two halve the size in their last block, three and four keep it.

    References
    ----------
    Zamir et al. (2018), Taskonomy, CVPR; weights and their PyTorch form: Sax et al. (2018),
    Mid-level visual representations.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.layer1 = _stage(64, 64, n_blocks=3, stride=2)
        self.layer2 = _stage(256, 128, n_blocks=4, stride=2)
        self.layer3 = _stage(512, 256, n_blocks=6, stride=1)
        self.layer4 = _stage(1024, 512, n_blocks=3, stride=1)
        self.compress1 = nn.Conv2d(2048, 8, 3, padding=1, bias=False)
        self.compress_bn = nn.BatchNorm2d(8)
        self.relu1 = nn.ReLU()
        self.groupnorm = nn.GroupNorm(8, 8, affine=False)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 8 h16 w16"]:
        """Return the eight maps of images in -1..1."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        maps: Tensor = self.groupnorm(self.relu1(self.compress_bn(self.compress1(x))))
        return maps


def _stage(n_inputs: int, n_middle: int, *, n_blocks: int, stride: int) -> nn.Sequential:
    blocks = [
        Bottleneck(n_inputs if k == 0 else 4 * n_middle, n_middle, 1) for k in range(n_blocks)
    ]
    blocks[-1] = Bottleneck(4 * n_middle, n_middle, stride)
    return nn.Sequential(*blocks)
