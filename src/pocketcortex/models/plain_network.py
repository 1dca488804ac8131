"""An exported model in plain torch: of the libraries only torch, safetensors and Pillow are needed.

This file lies beside ``config.json`` and ``model.safetensors``; `load_network` builds the network
they describe. It takes images as levels 0..255 and names the modules whose outputs are layers.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

STRIDES = (1, 2, 2, 1, 1)
KERNEL = 5
EPS = 1e-3  # of batch normalisation


def load_network(folder: str | Path) -> nn.Module:
    """Return the network of a folder, in evaluation mode."""
    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text())
    kind = config["kind"]
    network: nn.Module
    if kind == "compact":
        network = Compact(config["models"][0]["filters"], config["image_size"])
    elif kind == "shared":
        network = Shared(config["models"][0]["filters"], config["image_size"], config["n_neurons"])
    elif kind == "population":
        network = Population([m["filters"] for m in config["models"]], config["image_size"])
    else:
        backbone = torch.export.load(folder / "backbone.pt2").module()
        network = Ensemble(backbone, config)
    state = load_file(folder / "model.safetensors")
    missing, unexpected = network.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.startswith("backbone.")]
    if missing or unexpected:
        raise ValueError(f"{folder}: weights missing {missing}, unexpected {unexpected}")
    return network.eval().requires_grad_(False)


def load_images(paths: list[str], image_size: tuple[int, int]) -> np.ndarray:
    """Return image files as levels 0..255, (n, 3, height, width), float32, resized (bicubic)."""
    height, width = image_size
    images = []
    for path in paths:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.BICUBIC)
        images.append(np.asarray(picture, dtype=np.float32).transpose(2, 0, 1))
    return np.stack(images)


def same(x: Tensor, stride: int, kernel: int = KERNEL) -> Tensor:
    """Return maps with the zeros around that make ceil(size / stride) positions of a kernel."""
    sides = []
    for size in (x.shape[3], x.shape[2]):  # F.pad begins with the last axis
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        sides += [total // 2, total - total // 2]
    return F.pad(x, sides)


class Layers(nn.Module):
    """Five convolutional layers: one ordinary, four separable; outputs are those of `relus`."""

    image_mean: Tensor

    def __init__(self, filters: list[int]) -> None:
        super().__init__()
        self.register_buffer("image_mean", torch.zeros(1, 3, 1, 1))
        self.conv = nn.Conv2d(3, filters[0], KERNEL)
        self.depthwise: Any = nn.ModuleList(
            nn.Conv2d(n, n, KERNEL, stride, groups=n, bias=False)
            for n, stride in zip(filters, STRIDES[1:], strict=False)
        )
        self.pointwise: Any = nn.ModuleList(
            nn.Conv2d(n, m, 1) for n, m in itertools.pairwise(filters)
        )
        self.norms: Any = nn.ModuleList(nn.BatchNorm2d(n, EPS) for n in filters)
        self.relus: Any = nn.ModuleList(nn.ReLU() for _ in filters)

    def forward(self, images: Tensor) -> Tensor:
        """Return the last layer's maps."""
        filtered = self.conv(same(images - self.image_mean, STRIDES[0]))
        x: Tensor = self.relus[0](self.norms[0](filtered))
        for k, stride in enumerate(STRIDES[1:], 1):
            x = self.pointwise[k - 1](self.depthwise[k - 1](same(x, stride)))
            x = self.relus[k](self.norms[k](x))
        return x


class Compact(nn.Module):
    """One neuron: its layers and a weight for every filter and position of the last one's maps."""

    def __init__(self, filters: list[int], image_size: list[int]) -> None:
        super().__init__()
        self.layers = Layers(filters)
        self.readout = nn.Parameter(torch.zeros(filters[-1], *_grid(image_size)))
        self.readout_bias = nn.Parameter(torch.zeros(()))
        self.responses = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Return responses (n, 1)."""
        response = (self.layers(images) * self.readout).sum((1, 2, 3)) + self.readout_bias
        answer: Tensor = self.responses(response[:, None])
        return answer


class Shared(nn.Module):
    """Many neurons on the same layers: each weighs the filters, and the positions."""

    def __init__(self, filters: list[int], image_size: list[int], n_neurons: int) -> None:
        super().__init__()
        self.layers = Layers(filters)
        self.mixing = nn.Parameter(torch.zeros(n_neurons, filters[-1]))
        self.spatial = nn.Parameter(torch.zeros(n_neurons, *_grid(image_size)))
        self.bias = nn.Parameter(torch.zeros(n_neurons))
        self.responses = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Return responses (n, n_neurons)."""
        pooled = self.layers(images).flatten(2) @ self.spatial.flatten(1).T
        response = torch.einsum("nfk,kf->nk", pooled, self.mixing) + self.bias
        answer: Tensor = self.responses(response)
        return answer


class Population(nn.Module):
    """Many neurons, each with layers of its own; `maps` are their last layers' side by side."""

    def __init__(self, filters: list[list[int]], image_size: list[int]) -> None:
        super().__init__()
        self.models: Any = nn.ModuleList(Compact(f, image_size) for f in filters)
        self.maps, self.responses = nn.Identity(), nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Return responses (n, n_models)."""
        maps = [model.layers(images) for model in self.models]
        self.maps(torch.cat(maps, dim=1))
        response = [
            (x * model.readout).sum((1, 2, 3)) + model.readout_bias
            for x, model in zip(maps, self.models, strict=True)
        ]
        answer: Tensor = self.responses(torch.stack(response, dim=1))
        return answer


class Frozen(nn.Module):
    """A program saved by torch.export, which knows no training mode."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def train(self, mode: bool = True) -> "Frozen":
        """Change nothing: the program was exported for evaluation."""
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return the features."""
        features: Tensor = self.program(images)
        return features


class Block(nn.Module):
    """Two separable convolutions and a pointwise one, added to their input."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            separable(width, bottleneck), nn.BatchNorm2d(bottleneck, EPS), nn.ReLU(),
            separable(bottleneck, bottleneck), nn.BatchNorm2d(bottleneck, EPS), nn.ReLU(),
            nn.Conv2d(bottleneck, width, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Return maps of the input's size."""
        added: Tensor = self.branch(x)
        return x + added


class Member(nn.Module):
    """One member of the ensemble: features to an embedding."""

    feature_scale: Tensor

    def __init__(self, shape: dict[str, int]) -> None:
        super().__init__()
        self.stride = shape["stride"]
        channels, width = shape["in_channels"], shape["width"]
        self.register_buffer("feature_scale", torch.ones(channels))
        self.reduce = nn.Sequential(
            nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width, EPS), nn.ReLU()
        )
        self.pool = (
            separable(width, width, self.stride, padding=0) if self.stride else nn.Sequential()
        )
        self.blocks = nn.Sequential(
            *(Block(width, shape["bottleneck"]) for _ in range(shape["n_blocks"]))
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return the embedding."""
        x = self.reduce(features / self.feature_scale[:, None, None])
        if self.stride:
            x = same(x, self.stride, kernel=3)
        embedding: Tensor = self.blocks(self.pool(x))
        return embedding


class Ensemble(nn.Module):
    """A backbone and members, each with a linear map to the neurons; responses are their mean."""

    weights: Tensor
    intercepts: Tensor

    def __init__(self, backbone: nn.Module, config: dict[str, Any]) -> None:
        super().__init__()
        self.backbone = Frozen(backbone)
        self.members: Any = nn.ModuleList(
            Member(config["shape"]) for _ in range(config["n_members"])
        )
        n_features, n_neurons = config["n_features"], config["n_neurons"]
        self.register_buffer("weights", torch.zeros(len(self.members), n_features, n_neurons))
        self.register_buffer("intercepts", torch.zeros(len(self.members), n_neurons))
        self.embedding, self.responses = nn.Identity(), nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Return responses (n, n_neurons)."""
        features = self.backbone(images)
        embedded = [member(features) for member in self.members]
        self.embedding(torch.cat(embedded, dim=1))
        answers = [
            x.flatten(1) @ weight + intercept
            for x, weight, intercept in zip(embedded, self.weights, self.intercepts, strict=True)
        ]
        answer: Tensor = self.responses(torch.stack(answers).mean(0))
        return answer


def separable(inputs: int, outputs: int, stride: int = 1, padding: int = 1) -> nn.Sequential:
    """Return a 3 x 3 convolution of each channel and a pointwise one of all."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, padding, groups=inputs, bias=False),
        nn.Conv2d(inputs, outputs, 1),
    )


def _grid(image_size: list[int]) -> tuple[int, int]:
    height, width = image_size
    for stride in STRIDES:
        height, width = -(-height // stride), -(-width // stride)
    return height, width
