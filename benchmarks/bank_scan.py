"""A bank scanned for the images that drive every model most: one pass against the plain way."""

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.stack import SESSIONS, PlainModel
from pocketcortex.core import StimulusSet
from pocketcortex.data import read_bank
from pocketcortex.models import CompactStack, count_macs, import_compact_model, published_models
from pocketcortex.stimuli import MIN_DISTANCE, search_bank, thumbnails

SIZE, K = 112, 9
N_PAPER = 500_000


def bench_bank_scan(
    folder: Path,
    seed: int,
    n_images: int = 128,
    n_peer_models: int = 8,
    n_peer_images: int = 16,
) -> dict[str, Any]:
    """Time `search_bank` with all 219 published models on a sample of two banks.

    Half of the images are small ones, half photographs. The peer decodes the images one after the
    other and runs plain float64 modules model by model; it is timed on some models, drawn at
    random, and scaled by multiply-adds. The answer to compare with scores every image, sorts, and
    drops near-duplicates in turn, from responses of a second pass without streaming.
    """
    banks = [folder / "banks" / "tiny.zip", folder / "banks" / "photos" / "photos.zip"]
    rng = np.random.default_rng(seed)
    bank = StimulusSet.concatenate([
        whole.take(np.sort(rng.permutation(len(whole))[: n_images // 2]))
        for whole in (read_bank(path, SIZE) for path in banks)
    ])  # fmt: skip
    paths = [path for s in SESSIONS for path in published_models(folder / "v4", s).values()]
    models = [import_compact_model(path) for path in paths]
    search_bank(models[:2], bank.take(slice(0, 8)), 1)
    found = search_bank(models, bank, K)

    started = time.perf_counter()
    images = np.concatenate([bank.read([k]) for k in range(n_peer_images)])
    decoding = (time.perf_counter() - started) * len(bank) / n_peer_images
    macs = np.array([sum(count_macs(m.filters, m.image_size)) for m in models])
    chosen = rng.choice(len(models), n_peer_models, replace=False)
    plain = [PlainModel(models[k]).double().eval() for k in chosen]
    few = torch.from_numpy(images).double()
    with torch.inference_mode():
        plain[0](few)
        started = time.perf_counter()
        for model in plain:
            model(few)
        measured = time.perf_counter() - started
        share = float(macs[chosen].sum() / macs.sum()) * n_peer_images / len(bank)
    peer_seconds = decoding + measured / share
    shown = bank.images()
    scores = CompactStack([models[k] for k in chosen]).predict(torch.from_numpy(shown)).numpy()
    expected = np.stack([_brute_force(column, shown) for column in scores.T], axis=1)
    rate = len(bank) / found.seconds
    days = N_PAPER / rate / 86_400
    return {
        "what": f"{K} strongest and weakest of {len(bank)} images (half small ones, half "
        f"photographs) for {len(models)} published models, near-duplicates left out",
        "ours": f"`search_bank` ({rate:.1f} images a second, "
        f"{100 * found.seconds_decoding / found.seconds:.1f} % of it waiting for pixels; "
        f"extrapolated to {N_PAPER:,} images: {days:.1f} days)",
        "peer": "decode, then plain float64 PyTorch modules one by one (timed on "
        f"{n_peer_models} models × {n_peer_images} images, scaled by multiply-adds)",
        "seconds": found.seconds,
        "peer_seconds": peer_seconds,
        "ratio": peer_seconds / found.seconds,
        "difference": float((found.strongest.positions[:, chosen] != expected).mean()),
        "difference_is": "share of places where the strongest images differ from those by scoring "
        f"everything and sorting, {n_peer_models} models",
        "images_per_second": rate,
        "share_waiting_for_decoding": found.seconds_decoding / found.seconds,
        "share_predicting": found.seconds_predicting / found.seconds,
        "extrapolated_days_for_500000_images": days,
        "n_models": len(models),
    }


def _brute_force(scores: np.ndarray, images: np.ndarray) -> list[int]:
    """Return the strongest images by taking them from the top unless near one taken before."""
    places = thumbnails(images).astype(np.float64)
    taken: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        distances = [math.sqrt(np.mean((places[i] - places[j]) ** 2)) for j in taken]
        if len(taken) < K and all(distance >= MIN_DISTANCE for distance in distances):
            taken.append(int(i))
    return taken
