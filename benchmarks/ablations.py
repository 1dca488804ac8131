"""Every filter of a published model taken out in turn: shared work against a loop of models."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pocketcortex.data import read_v4
from pocketcortex.models import Ablations, CompactModel, import_compact_model, published_models

SESSION, N_MODELS, N_IMAGES = "190923", 4, 32


def bench_ablations(folder: Path, seed: int) -> dict[str, Any]:
    """Time all single-filter ablations of a few published models, drawn at random.

    The peer sets one kernel to zero and runs the whole model, all images in one batch, filter by
    filter; both in float32.
    """
    rng = np.random.default_rng(seed)
    paths = published_models(folder / "v4", SESSION)
    images = read_v4(folder / "v4")[SESSION].require_stimuli().take(slice(0, N_IMAGES)).images()
    shown = torch.from_numpy(images)
    seconds = peer_seconds = difference = n_filters = 0
    for k in rng.permutation(len(paths))[:N_MODELS]:
        model = import_compact_model(paths[k]).eval()
        started = time.perf_counter()
        ours = Ablations(model).without_each(shown)
        seconds += time.perf_counter() - started
        started = time.perf_counter()
        peer = _one_by_one(model, shown)
        peer_seconds += time.perf_counter() - started
        difference = max(difference, float((ours - peer).abs().max() / peer.std()))
        n_filters += len(ours)
    return {
        "what": f"responses without each of {n_filters} filters of {N_MODELS} published models, "
        f"{N_IMAGES} images",
        "ours": "`Ablations.without_each`",
        "peer": "a loop: kernel set to zero, the whole model run in one batch",
        "seconds": seconds,
        "peer_seconds": peer_seconds,
        "ratio": peer_seconds / seconds,
        "difference": difference,
        "difference_is": "largest difference of a response, in sd of responses",
    }


@torch.inference_mode()
def _one_by_one(model: CompactModel, shown: torch.Tensor) -> torch.Tensor:
    layers = model.layers
    stages = [layers.conv.weight, *(one.weight for one in layers.depthwise), model.readout]
    rows = []
    for kernels in stages:
        for number in range(len(kernels)):
            kept = kernels[number].clone()
            kernels[number] = 0
            rows.append(model(shown))
            kernels[number] = kept
    return torch.stack(rows)
