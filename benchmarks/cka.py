"""CKA between all pairs of published models: one pass over the images against a loop over pairs.

Each side runs in a process of its own, so that its peak memory is its own.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.stack import SESSIONS
from pocketcortex.core import StimulusSet
from pocketcortex.data import read_bank
from pocketcortex.dissect import model_alignment
from pocketcortex.models import (
    CompactModel,
    count_macs,
    fold_batch_norm,
    import_compact_model,
    published_models,
)

SIZE, BATCH, N_LAYERS = 112, 100, 5


def bench_cka(
    folder: Path, seed: int, n_models: int = 219, n_images: int = 1000, n_peer_pairs: int = 3
) -> dict[str, Any]:
    """Time debiased CKA in all five layers for all pairs of models, images of two banks.

    Half of the images are small ones, half photographs. Both sides average unbiased HSICs over
    batches of 100 images and run float32 models on the same number of threads. The peer is a loop
    over pairs that runs both models and calls ckatorch's `linear_kernel` and `hsic1` on the maps
    of all five layers at once; it is timed on some pairs, drawn at random, and scaled by the
    multiply-adds of models and Gram matrices. Its images are decoded before the clock starts, ours
    are not. A loop that keeps every model's Gram matrices instead is worked out from its parts.
    """
    n_threads = torch.get_num_threads()
    settings = [str(folder), seed, n_models, n_images, n_threads, n_peer_pairs]
    ours, peer = (_in_a_process([side, *settings]) for side in ("ours", "peer"))
    costs = np.array(ours["costs"])
    chosen = np.array(peer["pairs"])
    n_pairs = n_models * (n_models - 1) // 2
    # every model is in n_models - 1 pairs
    scale = (n_models - 1) * costs.sum() / costs[chosen].sum()
    features = peer["seconds_features"] * scale
    cross = peer["seconds_cross"] * n_pairs / n_peer_pairs
    alone = peer["seconds_self"] * n_pairs / n_peer_pairs
    peer_seconds = features + cross + alone
    cached = features / (n_models - 1) + cross + alone / (n_models - 1)
    similarity = ours["seconds_similarity"]
    found = np.array(ours["cka"])[:, chosen[:, 0], chosen[:, 1]]
    per = 1000 / (n_models * n_images)
    return {
        "what": f"debiased CKA in {N_LAYERS} layers for all {n_pairs:,} pairs of {n_models} "
        f"published models, {n_images} images in batches of {BATCH}",
        "ours": f"`model_alignment` (maps {ours['seconds_maps'] * per:.2f} ms and Gram matrices "
        f"{ours['seconds_grams'] * per:.2f} ms a model and image, similarity {similarity:.1f} s in "
        f"all; peak memory {ours['peak_mb']:.0f} MB)",
        "peer": f"loop over pairs, maps and ckatorch {peer['version']} `hsic1` (timed on "
        f"{n_peer_pairs} pairs, scaled by multiply-adds; peak memory {peer['peak_mb']:.0f} MB)",
        "seconds": ours["seconds"],
        "peer_seconds": peer_seconds,
        "ratio": peer_seconds / ours["seconds"],
        "difference": float(np.abs(found - np.array(peer["cka"])).max()),
        "difference_is": f"largest |CKA - that of the peer|, {n_peer_pairs} pairs, all layers",
        "peak_mb": ours["peak_mb"],
        "peer_peak_mb": peer["peak_mb"],
        "seconds_decoding": ours["seconds_decoding"],
        "seconds_maps": ours["seconds_maps"],
        "seconds_grams": ours["seconds_grams"],
        "similarity_seconds": similarity,
        "peer_similarity_seconds": cross + alone,
        "similarity_ratio": (cross + alone) / similarity,
        "peer_with_kept_grams_seconds": cached,
        "ratio_to_peer_with_kept_grams": cached / ours["seconds"],
        "n_models": n_models,
        "n_images": n_images,
    }


def _in_a_process(arguments: Sequence[object]) -> dict[str, Any]:
    """Run one side in a new process and return what it says."""
    command = [sys.executable, "-m", "benchmarks.cka", *map(str, arguments)]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, check=True, text=True)  # noqa: S603
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _main(side: str, folder: str, *numbers: str) -> None:
    seed, n_models, n_images, n_threads, n_pairs = map(int, numbers)
    torch.set_num_threads(n_threads)
    rng = np.random.default_rng(seed)
    banks = [Path(folder) / "banks" / "tiny.zip", Path(folder) / "banks" / "photos" / "photos.zip"]
    bank = StimulusSet.concatenate([
        whole.take(np.sort(rng.permutation(len(whole))[: n_images // 2]))
        for whole in (read_bank(path, SIZE) for path in banks)
    ])  # fmt: skip
    bank = bank.take(rng.permutation(len(bank)))  # both banks in every batch
    v4 = Path(folder) / "v4"
    paths = [path for s in SESSIONS for path in published_models(v4, s).values()]
    models = [import_compact_model(paths[k]) for k in rng.permutation(len(paths))[:n_models]]
    every = list(combinations(range(n_models), 2))
    pairs = [every[k] for k in rng.choice(len(every), n_pairs, replace=False)]
    answer = _ours(models, bank) if side == "ours" else _peer(models, bank.images(), pairs)
    answer["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(json.dumps(answer))


def _ours(models: list[CompactModel], bank: StimulusSet) -> dict[str, Any]:
    model_alignment(models[:2], bank.take(slice(0, 8)))
    found = model_alignment(models, bank, batch_size=BATCH)
    return {
        "seconds": found.seconds,
        "seconds_decoding": found.seconds_decoding,
        "seconds_maps": found.seconds_maps,
        "seconds_grams": found.seconds_grams,
        "seconds_similarity": found.seconds_similarity,
        "cka": found.cka.tolist(),
        "costs": [_cost(model) for model in models],
    }


def _cost(model: CompactModel) -> int:
    """Return multiply-adds for one image, its row of the five Gram matrices counted."""
    sizes = [SIZE, SIZE // 2, *[SIZE // 4] * 3]
    n_features = sum(n * size**2 for n, size in zip(model.filters, sizes, strict=True))
    return sum(count_macs(model.filters, model.image_size)) + BATCH * n_features


def _peer(
    models: list[CompactModel], images: np.ndarray, pairs: list[tuple[int, int]]
) -> dict[str, Any]:
    from importlib.metadata import version

    from ckatorch.hsic import hsic1
    from ckatorch.utils import linear_kernel

    def grams(model: torch.nn.Module, batch: Tensor) -> Tensor:
        x = model.layers.centre(batch)
        found = []
        for k in range(N_LAYERS):
            x = model.layers.layer(k, x)
            found.append(linear_kernel(x.flatten(1)).double())
        return torch.stack(found)

    folded = {k: fold_batch_norm(models[k]).float() for pair in pairs for k in pair}
    spent = {"features": 0.0, "cross": 0.0, "self": 0.0}
    found = []
    batches = torch.from_numpy(images).split(BATCH)
    with torch.inference_mode():
        grams(folded[pairs[0][0]], batches[0][:8])
        for i, j in pairs:
            sums = torch.zeros(3, N_LAYERS, dtype=torch.float64)
            for batch in batches:
                times = [time.perf_counter()]
                k, m = grams(folded[i], batch), grams(folded[j], batch)
                times.append(time.perf_counter())
                sums[0] += hsic1(k, m)
                times.append(time.perf_counter())
                sums[1] += hsic1(k, k)
                sums[2] += hsic1(m, m)
                times.append(time.perf_counter())
                for name, seconds in zip(spent, np.diff(times), strict=True):
                    spent[name] += float(seconds)
            found.append((sums[0] / (sums[1] * sums[2]).sqrt()).tolist())
    return {f"seconds_{name}": seconds for name, seconds in spent.items()} | {
        "cka": np.array(found).T.tolist(),
        "pairs": pairs,
        "version": version("ckatorch"),
    }


if __name__ == "__main__":
    _main(*sys.argv[1:])
