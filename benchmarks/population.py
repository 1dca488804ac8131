"""Training a whole population on a GPU, beside the pace of its memory."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pocketcortex.core import StimulusSet
from pocketcortex.models import CompactModel, CompactStack
from pocketcortex.models.compact import STRIDES
from pocketcortex.training import Distillation, distill_students, new_students

SIZE, N_PROBED = 112, 64
N_PUBLISHED_IMAGES = 12_000_000
N_GPU_IMAGES = 1024


def bench_population_gpu(folder: Path, seed: int) -> dict[str, Any]:
    """Time training 219 students of the published models' sizes on a GPU, beside its memory's pace.

    Needs CUDA; elsewhere the record says why there is none, and `make bench` leaves it out.
    """
    if not torch.cuda.is_available():
        return {"skipped": "there is no CUDA device"}
    counts = sorted((folder / "v4" / "data_compact_models" / "nums_filters").glob("*.npy"))
    filters = [np.load(path).astype(int).ravel().tolist() for path in counts]
    record = population_throughput(filters, N_GPU_IMAGES, seed, torch.device("cuda"))
    return record | {"device": torch.cuda.get_device_name()}


def population_throughput(
    filters: Sequence[Sequence[int]], n_images: int, seed: int, device: torch.device
) -> dict[str, Any]:
    """Return the record of training students of these filters on a device, from random images.

    Images are decoded beforehand, targets are random. Timed is the difference between three passes
    and one, so that what comes once, as the statistics at the end, cancels. The bound: each layer
    reads its inputs and writes its outputs once forward and once backward, float32, at the speed at
    which the device copies one large array. The batch is the largest power of two, at most the
    published 64, whose maps take a third of a GPU's free memory.
    """
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (n_images, 3, SIZE, SIZE), dtype=np.uint8)
    stimuli, responses = StimulusSet.from_array(pixels), rng.normal(size=(n_images, len(filters)))
    students = [new_students(1, f, (SIZE, SIZE), seed=seed + k)[0] for k, f in enumerate(filters)]
    moved = 2 * bytes_of_maps(filters)
    batch = 64
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        batch = 2 ** min(6, max(0, int(np.log2(free / 3 / moved))))

    def train(n: int, n_epochs: int) -> tuple[float, CompactModel]:
        training = Distillation(
            n_epochs, 1e-4, batch_size=batch, schedule="constant", smoothing=0.0
        )
        _wait(device)
        started = time.perf_counter()
        found = distill_students(
            students[:n], stimuli, responses[:, :n], training, seed=seed, device=device
        )
        _wait(device)
        return time.perf_counter() - started, found.models[0]

    first = [train(n, 1)[1] for n in (1, len(filters))]  # first calls choose algorithms too
    shown = torch.from_numpy(pixels[:N_PROBED])
    alone, together = (CompactStack([model.cpu()]).predict(shown) for model in first)
    n_seen = 2 * (n_images // min(batch, n_images)) * min(batch, n_images)
    seconds = train(len(filters), 3)[0] - train(len(filters), 1)[0]
    copied, rate = copy_rate(device), n_seen / seconds
    hours = N_PUBLISHED_IMAGES / rate / 3600
    return {
        "what": f"training {len(filters)} students of the published models' filters, {n_seen:,} "
        f"images, batch {batch}, {device.type}",
        "ours": f"`distill_students`, {rate * len(filters):,.0f} images × students a second "
        f"({len(filters)} neurons × 12 million images: {hours:.1f} h by extrapolation)",
        "peer": "memory-bandwidth bound, every map read and written once forward and once "
        f"backward ({moved / 1e9:.2f} GB an image, {copied / 1e9:,.0f} GB/s as copied)",
        "seconds": seconds,
        "peer_seconds": n_seen * moved / copied,
        "ratio": n_seen * moved / copied / seconds,
        "ratio_is": "share of the memory-bandwidth bound",
        "difference": float((alone - together).abs().max()),
        "difference_is": "largest |prediction of a student trained with the others - that of it "
        "trained alone|, targets of sd 1",
        "images_students_per_second": rate * len(filters),
        "bytes_an_image": moved,
        "copy_bytes_per_second": copied,
        "hours_for_12_million_images": hours,
    }


def bytes_of_maps(filters: Sequence[Sequence[int]]) -> int:
    """Return the bytes of all layers' inputs and outputs for one image, float32, all models."""
    n_values = 0
    for own in filters:
        side, inputs = SIZE, 3 * SIZE**2
        for n, stride in zip(own, STRIDES, strict=True):
            side = -(-side // stride)
            n_values += inputs + n * side**2
            inputs = n * side**2
    return 4 * n_values


def copy_rate(device: torch.device, n_bytes: int = 2**30) -> float:
    """Return bytes read and written a second in copying an array, the best of five."""
    array = torch.ones(n_bytes // 4, device=device)
    other = torch.empty_like(array)
    best = np.inf
    for _ in range(5):
        _wait(device)
        started = time.perf_counter()
        other.copy_(array)
        _wait(device)
        best = min(best, time.perf_counter() - started)
    return float(2 * n_bytes / best)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
