"""Images smoothed where it lowers a response most: local changes against full forward passes."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage
import scipy.signal
import torch

from pocketcortex.data import read_v4
from pocketcortex.models import PairedStack, import_compact_model, published_models
from pocketcortex.stimuli import smooth_minus

N_MODELS, N_PATCHES, BATCH = 2, 25, 16
IMAGE = 1000
PATCH, STRIDE, SIGMA = 12, 6, 4.0


def bench_smoothing(folder: Path, seed: int) -> dict[str, Any]:
    """Time 25 patches smoothed in an image for two published models, both ways on one thread.

    Both ways ask for every free patch at every step and end with the same image unless two
    patches tie to rounding.
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return smoothing_seconds(folder)
    finally:
        torch.set_num_threads(n_threads)


def smoothing_seconds(folder: Path) -> dict[str, Any]:
    """Return the record of both ways, each timed once from the first step to the last."""
    paths = published_models(folder / "v4", "190923")
    models = [import_compact_model(paths[k]) for k in sorted(paths)[:N_MODELS]]
    image = read_v4(folder / "v4")["190923"].require_stimuli().read(np.array([IMAGE]))[0]
    images = np.repeat(image[None, None], N_MODELS, axis=0)
    smooth_minus(models, images, n_patches=1)
    started = time.perf_counter()
    ours = smooth_minus(models, images, n_patches=N_PATCHES)
    seconds = time.perf_counter() - started
    whole = [PairedStack([model]) for model in models]
    whole[0].responses(torch.from_numpy(images[:1]))
    started = time.perf_counter()
    peer = [smoothed_greedily(model, image) for model in whole]
    peer_seconds = time.perf_counter() - started
    wanted = np.array([responses for _, responses in peer])
    return {
        "what": f"{N_PATCHES} patches of an image smoothed one after the other, {N_MODELS} "
        "published compact models, on one thread",
        "ours": "`smooth_minus`, only what a patch changes",
        "peer": "the same search by a full forward pass for each free patch at each step "
        "(`PairedStack.responses`, float32)",
        "seconds": seconds,
        "peer_seconds": peer_seconds,
        "ratio": peer_seconds / seconds,
        "difference": float(np.abs(ours.responses[:, 0] - wanted).max()),
        "same_images": [
            bool((own == other).all())
            for own, (other, _) in zip(ours.images[:, 0], peer, strict=True)
        ],
    }


def smoothed_greedily(model: PairedStack, image: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Return an image smoothed greedily, and its responses, as one would write it."""
    blurred = scipy.ndimage.gaussian_filter(image.astype(np.float64), SIGMA, axes=(1, 2))
    edge = scipy.signal.windows.tukey(PATCH + 2, 0.5)[1:-1]
    weight = edge[:, None] * edge
    along = range((image.shape[1] - PATCH) % STRIDE // 2, image.shape[1] - PATCH + 1, STRIDE)
    free = [(top, left) for top in along for left in along]
    current, responses = image, [float(model.responses(torch.from_numpy(image[None, None]))[0, 0])]
    for _ in range(N_PATCHES):
        answers = []
        for first in range(0, len(free), BATCH):
            corners = free[first : first + BATCH]
            variants = np.repeat(current[None], len(corners), axis=0)
            for variant, (top, left) in zip(variants, corners, strict=True):
                here = np.s_[:, top : top + PATCH, left : left + PATCH]
                variant[here] = (current[here] * (1 - weight) + blurred[here] * weight).round()
            answers.append(model.responses(torch.from_numpy(variants[None]))[0].numpy())
        best = int(np.concatenate(answers).argmin())
        responses.append(float(np.concatenate(answers)[best]))
        top, left = free[best]
        here = np.s_[:, top : top + PATCH, left : left + PATCH]
        current = current.copy()
        current[here] = (current[here] * (1 - weight) + blurred[here] * weight).round()
        free = [(y, x) for y, x in free if abs(y - top) >= PATCH or abs(x - left) >= PATCH]
    return current, responses
