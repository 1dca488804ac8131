"""Predictions of a population: the stack against the models one after the other."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocketcortex.data import read_v4
from pocketcortex.models import (
    CompactModel,
    CompactStack,
    count_macs,
    import_compact_model,
    published_models,
)

N_PEER_IMAGES = 128
SESSIONS = ("190923", "201025", "210225", "211022")


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


def bench_published_population(
    folder: Path, seed: int, n_images: int = 64, n_peer_models: int = 20, n_peer_images: int = 16
) -> dict[str, Any]:
    """Time all 219 published models on 64 images of session 190923, beside what arithmetic allows.

    The floor is the models' multiply-adds divided by the rate of a large float32 matrix product in
    this process: what the same products would take as one such product. The peer is timed on some
    of the models, drawn at random, and scaled by multiply-adds.
    """
    shown = read_v4(folder / "v4")["190923"].require_stimuli()
    images = torch.from_numpy(shown.take(slice(0, n_images)).images())
    paths = [path for s in SESSIONS for path in published_models(folder / "v4", s).values()]
    models = [import_compact_model(path) for path in paths]
    macs = np.array([sum(count_macs(m.filters, m.image_size)) for m in models])
    stack = CompactStack(models)
    CompactStack(models[:3]).predict(images[:16])
    seconds, ours = np.inf, torch.empty(0)
    for _ in range(2):
        started = time.perf_counter()
        ours = stack.predict(images)
        seconds = min(seconds, time.perf_counter() - started)
    floor = float(macs.sum()) * n_images / product_rate()
    chosen = np.random.default_rng(seed).choice(len(models), n_peer_models, replace=False)
    plain = [PlainModel(models[k]).double().eval() for k in chosen]
    few = images[:n_peer_images].double()
    with torch.inference_mode():
        plain[0](few)
        started = time.perf_counter()
        peer = torch.stack([model(few) for model in plain], dim=1)
        measured = time.perf_counter() - started
    share = float(macs[chosen].sum() / macs.sum()) * n_peer_images / n_images
    return {
        "what": f"all {len(models)} published compact models of {len(SESSIONS)} sessions × "
        f"{n_images} images, {macs.sum() / 1e9:.1f} billion multiply-adds an image",
        "ours": f"`CompactStack.predict`, float32 ({seconds / floor:.1f}× the {floor:.2f} s of a "
        "large matrix product with as many multiply-adds)",
        "peer": "plain float64 PyTorch modules one by one (timed on "
        f"{n_peer_models} models × {n_peer_images} images, scaled by multiply-adds)",
        "seconds": seconds,
        "peer_seconds": measured / share,
        "ratio": measured / share / seconds,
        "difference": float((ours[:n_peer_images, chosen] - peer).abs().max()),
        "difference_is": "largest |prediction - that of the plain model|, z-scored responses",
        "macs_per_image": int(macs.sum()),
        "floor_seconds": floor,
        "seconds_over_floor": seconds / floor,
        "gigamacs_per_second": float(macs.sum()) * n_images / seconds / 1e9,
    }


def product_rate(n: int = 2048, device: torch.device | str = "cpu") -> float:
    """Return multiply-adds a second of an n x n float32 matrix product, the best of five."""
    a, b = torch.ones(2, n, n, device=device)
    best = np.inf
    for _ in range(5):
        started = time.perf_counter()
        torch.mm(a, b)[0, 0].item()  # a GPU is waited for
        best = min(best, time.perf_counter() - started)
    return float(n**3 / best)
