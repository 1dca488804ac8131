"""Predictions of a population: the stack against the models one after the other."""

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocketcortex.data import read_v4
from pocketcortex.models import CompactModel, CompactStack, import_compact_model, published_models

N_PEER_IMAGES = 128


class PlainModel(nn.Module):
    """A compact model as one would write it: convolution, batch norm and ReLU modules in turn."""

    def __init__(self, model: CompactModel) -> None:
        super().__init__()
        self.mean = model.layers.image_mean
        self.first = model.layers.conv
        self.depthwise, self.pointwise = model.layers.depthwise, model.layers.pointwise
        self.norms = model.layers.norms
        self.readout = nn.Linear(model.readout.numel(), 1)
        with torch.no_grad():
            self.readout.weight.copy_(model.readout.flatten()[None])
            self.readout.bias.copy_(model.readout_bias[None])

    def forward(self, images: Tensor) -> Tensor:
        """Return the responses to raw images."""
        x = F.conv2d(images - self.mean, self.first.weight, self.first.bias, padding=2)
        x = F.relu(self.norms[0](x))
        for depth, point, norm in zip(self.depthwise, self.pointwise, self.norms[1:], strict=True):
            pad = (1, 2, 1, 2) if depth.stride[0] == 2 else (2, 2, 2, 2)
            x = F.relu(norm(point(depth(F.pad(x, pad)))))
        return self.readout(x.flatten(1))[:, 0]


def bench_published_models(folder: Path, seed: int) -> dict[str, Any]:
    """Time the 33 published models of session 190923 on its second half of images."""
    session = read_v4(folder / "v4")["190923"]
    images = torch.from_numpy(session.require_stimuli().take(slice(600, None)).images())
    models = [import_compact_model(p) for p in published_models(folder / "v4", "190923").values()]
    stack = CompactStack(models)
    stack.predict(images[:16])
    started = time.perf_counter()
    ours = stack.predict(images)
    seconds = time.perf_counter() - started
    plain = [PlainModel(model).double().eval() for model in models]
    few = images[:N_PEER_IMAGES].double()
    with torch.inference_mode():
        plain[0](few[:64])
        started = time.perf_counter()
        columns = [torch.cat([model(batch) for batch in few.split(64)]) for model in plain]
        peer_seconds = (time.perf_counter() - started) * len(images) / N_PEER_IMAGES
    peer = torch.stack(columns, 1)
    return {
        "what": f"{len(models)} published compact models × {len(images)} images",
        "ours": "`CompactStack.predict`, float32",
        "peer": f"plain float64 PyTorch modules one by one, batch 64 (timed on {N_PEER_IMAGES} "
        "images, scaled)",
        "seconds": seconds,
        "peer_seconds": peer_seconds,
        "ratio": peer_seconds / seconds,
        "difference": float((ours[:N_PEER_IMAGES] - peer).abs().max()),
    }
