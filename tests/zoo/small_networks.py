"""A small network with everything that makes hooks go wrong, and its features by plain means."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pocketcortex.core import StimulusSet


class Block(nn.Module):
    """Residual, its activation used twice and in place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.norm1(self.conv1(x)))
        return self.relu(self.conv2(out) + x)


class Split(nn.Module):
    """Gives a tuple of a mapping and a tensor, and a number that is no tensor."""

    def forward(self, x: Tensor) -> tuple[dict[str, Any], Tensor, float]:
        return {"low": x[:, :3].tanh(), "count": 7}, x[:, 3:].sigmoid(), 0.5


class Windows(nn.Module):
    """Gives four windows of each image, one image's windows after the other's."""

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        cut = x.reshape(n, c, 2, h // 2, 2, w // 2).permute(0, 2, 4, 1, 3, 5)
        return cut.reshape(n * 4, c, h // 2, w // 2).contiguous()


class TimeFirst(nn.Module):
    """Gives stimuli on the second axis, twice as many rows as stimuli."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return torch.cat([flat, flat.square()])


class Everything(nn.Module):
    """Convolutions, in-place and shared activations, tuples, windows, tokens, a classifier."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, stride=2, padding=1), nn.ReLU(True))
        self.identity = nn.Identity()
        self.block = Block(width)
        self.drop = nn.Dropout(0.5, inplace=True)
        self.split = Split()
        self.windows = Windows()
        self.time_first = TimeFirst()
        self.tokens = nn.TransformerEncoderLayer(width, 2, 12, batch_first=True)
        self.argmax = nn.MaxPool2d(2, return_indices=True)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(width * 2, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = self.identity(self.stem(images / 128 - 1))
        x = self.drop(self.block(x))
        low, high, _ = self.split(x)
        self.windows(x)
        self.time_first(x)
        self.argmax(x)
        tokens = self.tokens(x.flatten(2).transpose(1, 2))  # (n, tokens, width)
        pooled = torch.cat([tokens.mean(1), tokens.amax(1)], 1)
        return self.head(self.flatten(pooled)) + low["low"].mean() * 0 + high.mean() * 0


EVERYTHING = (
    "stem.0", "stem.1", "block.conv1", "block.norm1", "block.relu", "block.conv2", "block.relu#2",
    "split[0][low]", "split[1]", "windows", "argmax[0]", "tokens.self_attn[0]", "tokens.norm1",
    "tokens.linear1", "tokens.dropout", "tokens.linear2", "tokens.norm2", "flatten", "head",
)  # fmt: skip
"""What `Everything` computes that is new, in order."""


def everything(dtype: torch.dtype = torch.float64, seed: int = 0) -> Everything:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Everything()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return network.to(dtype)


class In(nn.Module):
    """Casts images to the network's own precision first."""

    def __init__(self, network: nn.Module, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.net, self.dtype = network, dtype

    def forward(self, images: Tensor) -> Any:
        return self.net(images.to(self.dtype))


def pictures(n: int, size: int = 12, seed: int = 0) -> StimulusSet:
    rng = np.random.default_rng(seed)
    return StimulusSet.from_array(rng.integers(0, 256, (n, 3, size, size), dtype=np.uint8))


def plain_features(network: nn.Module, stimuli: StimulusSet, path: str) -> np.ndarray:
    """Features of one layer by one hook of its own that copies; `path#k[i][key]` as named."""
    module_path, _, places = path.replace("[", "|", 1).partition("|")
    module_path, _, call = module_path.partition("#")
    wanted, calls, kept = int(call or 1), [0], []

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        calls[0] += 1
        if calls[0] == wanted:
            for key in places.rstrip("]").split("][") if places else []:
                output = output[int(key)] if key.isdigit() else output[key]
            kept.append(output.detach().clone())

    handle = network.get_submodule(module_path).register_forward_hook(keep)
    with torch.no_grad():
        network.eval()(torch.from_numpy(stimuli.images()).float())
    handle.remove()
    return kept[0].reshape(len(stimuli), -1).numpy()
