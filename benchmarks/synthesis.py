"""Synthesized images of many neurons at once: the batched job against one image at a time."""

import copy
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage
import torch

from benchmarks.stack import PlainModel, product_rate
from pocketcortex.models import CompactModel, count_macs, import_compact_model, published_models
from pocketcortex.stimuli import synthesize

N_STARTS, N_PUBLISHED_STEPS = 4, 1000
N_CHECKED_STEPS = 10


def bench_synthesis(folder: Path, seed: int) -> dict[str, Any]:
    """Time the images of 33 published models from 4 starts each on the CPU."""
    return synthesis_seconds(folder, seed, torch.device("cpu"), n_steps=10, n_peer_steps=2)


def bench_synthesis_gpu(folder: Path, seed: int) -> dict[str, Any]:
    """Time the same on a GPU.

    Needs CUDA; elsewhere the record says why there is none, and `make bench` leaves it out.
    """
    if not torch.cuda.is_available():
        return {"skipped": "there is no CUDA device"}
    record = synthesis_seconds(folder, seed, torch.device("cuda"), n_steps=100, n_peer_steps=20)
    return record | {"device": torch.cuda.get_device_name()}


def synthesis_seconds(
    folder: Path, seed: int, device: torch.device, *, n_steps: int, n_peer_steps: int
) -> dict[str, Any]:
    """Return the record of both ways, each timed on a few steps and scaled to 1,000.

    Ours is the median of three differences between `n_steps` steps more and none, so that what
    comes once (folding batch norm, noise, the last evaluation) does not count. The peer is timed
    before and after each of ours, on one start of each model, and scaled by the number of starts
    too. The floor is the multiply-adds of one forward pass and of the gradient of the image, which
    are as many, at the rate of a large float32 matrix product in this process and on this device.
    """
    paths = published_models(folder / "v4", "190923").values()
    models = [import_compact_model(path) for path in paths]
    macs = 2 * sum(sum(count_macs(m.filters, m.image_size)) for m in models) * N_STARTS
    plain = [PlainModel(copy.deepcopy(model).to(device)).eval().to(device) for model in models]
    noise = [
        np.random.default_rng([seed, k, 0]).uniform(128, 178, (3, *models[0].image_size))
        for k in range(len(models))
    ]

    def ours(n: int) -> float:
        started = time.perf_counter()
        synthesize(models, n_starts=N_STARTS, n_steps=n, seed=seed, device=device)
        return time.perf_counter() - started

    def peer() -> float:
        started = time.perf_counter()
        for model, image in zip(plain, noise, strict=True):
            ascend(model, image, n_peer_steps)
        return (time.perf_counter() - started) * N_STARTS / n_peer_steps

    ascend(plain[0], noise[0], 2)
    steps, peer_steps = [], [peer()]
    for _ in range(3):
        steps.append((ours(1 + n_steps) - ours(1)) / n_steps)
        peer_steps.append(peer())
    seconds = float(np.median(steps)) * N_PUBLISHED_STEPS
    peer_seconds = float(np.median(peer_steps)) * N_PUBLISHED_STEPS
    floor = macs * N_PUBLISHED_STEPS / product_rate(device=device)
    return {
        "what": f"synthesized images of {len(models)} published compact models × {N_STARTS} "
        f"starts × {N_PUBLISHED_STEPS:,} steps, {device.type}",
        "ours": f"`synthesize`, one batched job (timed on {n_steps} steps, scaled; "
        f"{seconds / floor:.1f}× the {floor:.0f} s of a large matrix product with as many "
        "multiply-adds)",
        "peer": "one model and one image at a time: plain float32 PyTorch modules, autograd, "
        "SciPy smoothing, a second forward pass to evaluate (timed on one start and "
        f"{n_peer_steps} steps, scaled)",
        "seconds": seconds,
        "peer_seconds": peer_seconds,
        "ratio": peer_seconds / seconds,
        "difference": difference(models, plain, noise, seed, device),
        "difference_is": f"largest |response after {N_CHECKED_STEPS} steps, one start - the "
        "peer's| over the peer's, three models",
        "seconds_a_step": steps,
        "peer_seconds_a_step": peer_steps,
        "n_steps_timed": n_steps,
        "n_peer_steps_timed": n_peer_steps,
        "macs": macs * N_PUBLISHED_STEPS,
        "floor_seconds": floor,
        "seconds_over_floor": seconds / floor,
    }


def difference(
    models: Sequence[CompactModel],
    plain: Sequence[PlainModel],
    noise: Sequence[np.ndarray],
    seed: int,
    device: torch.device,
) -> float:
    """Return how far the best responses of both ways are apart, at most, relative to the peer's."""
    found = synthesize(models[:3], n_starts=1, n_steps=N_CHECKED_STEPS, seed=seed, device=device)
    wanted = [ascend(plain[k], noise[k], N_CHECKED_STEPS)[1] for k in range(3)]
    return float(np.max(np.abs(found.responses[:, 0] - wanted) / np.abs(wanted)))


def ascend(model: PlainModel, image: np.ndarray, n_steps: int) -> tuple[np.ndarray, float]:
    """Return one model's best image from one start and its response, as one would write it.

    This is the published recipe step by step; a step evaluates the image it led to.
    """
    device = model.mean.device
    best, best_response = image, -np.inf
    for step in range(n_steps):
        x = torch.from_numpy(image[None]).float().to(device).requires_grad_()
        (gradient,) = torch.autograd.grad(model(x).sum(), x)
        g = gradient[0].cpu().numpy()
        g = g / (np.sqrt(np.mean(g**2)) + 1e-5)
        image = np.clip(image + 10 * scipy.ndimage.gaussian_filter(g, (0, 1, 1)), 0, 255)
        with torch.no_grad():
            response = float(model(torch.from_numpy(image[None]).float().to(device))[0])
        if response > best_response:
            best, best_response = image, response
        if step and step % 50 == 0:
            image = scipy.ndimage.gaussian_filter(image, (0, 1, 1))
    return best, best_response
