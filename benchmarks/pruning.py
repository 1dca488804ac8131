"""Variance explained by the filters that stay: closed form against kept activations."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pocketcortex.compress import fraction_of_variance, layer_statistics
from pocketcortex.data import read_v4
from pocketcortex.models import import_compact_model, published_models

N_IMAGES, LAYER = 64, 1


def bench_fraction_of_variance(folder: Path, seed: int) -> dict[str, Any]:
    """Time the variance left after removing 1, 2, … filters of the first layer of one model.

    The peer is the published procedure: it keeps the depthwise outputs of all images and forms the
    pointwise outputs anew for every number of removed filters.
    """
    images = read_v4(folder / "v4")["190923"].require_stimuli().take(slice(0, N_IMAGES)).images()
    model = import_compact_model(published_models(folder / "v4", "190923")[0])
    mixing = model.layers.pointwise[LAYER - 1].weight.detach().double().numpy()[..., 0, 0]
    order = list(np.random.default_rng(seed).permutation(model.filters[0]))
    started = time.perf_counter()
    statistics = layer_statistics(model.layers, images)
    ours = fraction_of_variance(mixing, statistics.covariances[LAYER - 1], order)
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    with torch.inference_mode():
        x = model.layers.layer(0, model.layers.centre(torch.from_numpy(images)))
        z = model.layers.filtered(LAYER, x).permute(1, 0, 2, 3).flatten(1).double().numpy()
    whole = mixing @ z
    whole -= whole.mean(axis=1, keepdims=True)
    peer = []
    for k in range(len(order) + 1):
        z_left = z.copy()
        z_left[order[:k]] = 0
        left = mixing @ z_left
        left -= left.mean(axis=1, keepdims=True)
        peer.append(1 - ((left - whole) ** 2).sum() / (whole**2).sum())
    peer_seconds = time.perf_counter() - started
    return {
        "what": f"variance left after removing 0 to {len(order)} filters, {N_IMAGES} images",
        "ours": "`layer_statistics` (all four layers) + `fraction_of_variance`",
        "peer": "published procedure, activations of one layer kept in memory",
        "seconds": seconds,
        "peer_seconds": peer_seconds,
        "ratio": peer_seconds / seconds,
        "difference": float(np.abs(ours - np.array(peer)).max()),
    }
