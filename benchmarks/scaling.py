"""What one image costs each stage: the constants of `run --dry-run` and of docs/scaling.md.

``python -m benchmarks.scaling docs/scaling.json``; ``zoo memory`` after it: only those.

CPU seconds of one thread (`time.process_time`), so that other work on the machine, which stretches
the clock, counts little. Random images and weights, but for the backbone's and those of published
compact models: neither changes the time.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from pocketcortex.compress import prune_jointly
from pocketcortex.core import StimulusSet, held, keep_freed_memory, provenance, write_json
from pocketcortex.data import read_bank
from pocketcortex.models import (
    CompactModel,
    EnsembleMember,
    EnsembleShape,
    count_macs,
    import_compact_model,
    published_models,
)
from pocketcortex.stimuli import synthesize
from pocketcortex.training import (
    Distillation,
    EnsembleTraining,
    SessionFeatures,
    distill_shared,
    distill_students,
    embed,
    fit_members,
    new_students,
    retrain,
)
from pocketcortex.training.schedule import seeded
from pocketcortex.zoo import Backbone, build_network, load_network, stream_kernels

SEED, SIZE = 0, 112
STUDENT = (32, 32, 48, 64, 64)
PUBLISHED_STUDENT = (100, 100, 100, 100, 100)
N_NEURONS = 8
_GIGA = 1e9


def main(out: Path, names: list[str]) -> None:
    """Measure what is named, everything by default, and put it into the file."""
    torch.set_num_threads(1)
    keep_freed_memory()
    data = Path(os.environ["POCKETCORTEX_DATA"])
    for name in names or [*MEASUREMENTS, "memory"]:
        found = _memory(data) if name == "memory" else MEASUREMENTS[name](data)
        with held(out.with_suffix(".lock")):
            record = json.loads(out.read_text()) if out.exists() else {"constants": {}}
            if name == "memory":
                record["peak_rss"] = found
            else:
                record["constants"][name] = found
            record["provenance"] = provenance(SEED)
            write_json(out, record)


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU time of the second of two calls."""
    work()
    started = time.process_time()
    work()
    return time.process_time() - started


def told(name: str, seconds: float, gmacs: float | None, what: str) -> dict[str, Any]:
    """Return one constant, and print it."""
    per_gmac = None if gmacs is None else seconds / gmacs
    print(f"{name}: {seconds:.5f} CPU s a {what}", file=sys.stderr, flush=True)
    return {"seconds": seconds, "per": what, "gmacs": gmacs, "seconds_per_gmac": per_gmac}


def images(n: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(SEED).integers(0, 256, (n, 3, size, size), dtype=np.uint8)


def gmacs(filters: tuple[int, ...]) -> float:
    return sum(count_macs(filters, (SIZE, SIZE))) / _GIGA


def targets(n: int, n_neurons: int = N_NEURONS) -> np.ndarray:
    return np.random.default_rng(SEED).normal(size=(n, n_neurons)).astype(np.float32)


def _decode(data: Path) -> dict[str, Any]:
    bank = read_bank(str(data / "banks" / "photos" / "photos.zip"), SIZE, crops=4, seed=SEED)
    part = bank.take(slice(0, 64))
    return told("decode", cpu_seconds(part.images) / 64, None, "image (crop of a photograph)")


def _backbone(data: Path) -> dict[str, Any]:
    network = load_network(f"{data}/weights/backbones.py:resnet50v2")
    backbone = Backbone(network, ("stage3.3", "stage2"), input_size=SIZE)
    batch = torch.from_numpy(images(16))
    with FlopCounterMode(display=False) as counter:
        backbone(batch[:1])
    work = counter.get_total_flops() / 2 / _GIGA
    return told("backbone", cpu_seconds(lambda: backbone(batch)) / 16, work, "image (ResNet50-v2)")


def _member(data: Path) -> dict[str, Any]:
    shape, n, n_members = EnsembleShape(1536, 256, n_blocks=0, stride=0), 64, 8
    features = np.random.default_rng(SEED).random((n, 1536, 7, 7), dtype=np.float32)
    session = SessionFeatures("s", features.astype(np.float16), targets(n).astype(np.float64))
    small = SessionFeatures("v", session.features[:32], session.responses[:32])

    def trained(n_epochs: int) -> float:
        started = time.process_time()
        fit_members(
            [session], small, shape, n_members=n_members, seed=SEED,
            training=EnsembleTraining(n_epochs=n_epochs, learning_rate=1e-3),
        )  # fmt: skip
        return time.process_time() - started

    trained(1)
    seconds = (trained(3) - trained(1)) / 2 / n / n_members
    members = [seeded(SEED, lambda: EnsembleMember(shape))]
    forward = cpu_seconds(lambda: embed(members, session.features)) / n
    answer = told("member, training", seconds, 1536 * 256 * 49 / _GIGA, "image and member")
    return answer | {"forward_seconds": forward}


def _per_image(trained: Callable[[int], object], n: int) -> float:
    """Return the CPU time of an epoch without that of what comes before and after it."""
    trained(1)
    times = []
    for n_epochs in (1, 3):
        started = time.process_time()
        trained(n_epochs)
        times.append(time.process_time() - started)
    return (times[1] - times[0]) / 2 / n


def _shared(data: Path) -> dict[str, Any]:
    n = 96
    bank = StimulusSet.from_array(images(n))
    seconds = _per_image(
        lambda e: distill_shared(bank, targets(n), STUDENT, Distillation(n_epochs=e), seed=SEED), n
    )
    return told("shared student", seconds, gmacs(STUDENT), f"image, filters {STUDENT}")


def _separate(data: Path) -> dict[str, Any]:
    n = 64
    bank = StimulusSet.from_array(images(n))
    model = seeded(SEED, lambda: CompactModel(PUBLISHED_STUDENT, (SIZE, SIZE)))
    seconds = _per_image(
        lambda e: distill_students(
            [model], bank, targets(n, 1), Distillation(n_epochs=e), seed=SEED
        ),
        n,
    )
    what = "image and neuron, 100 filters a layer"
    return told("separate student", seconds, gmacs(PUBLISHED_STUDENT), what)


def _pruned(data: Path) -> dict[str, Any]:
    model = new_students(1, STUDENT, (SIZE, SIZE), seed=SEED)[0].eval()
    pictures = images(600)
    with torch.inference_mode():
        parts = [model(torch.from_numpy(pictures[a : a + 50])) for a in range(0, 600, 50)]
    teacher = torch.cat(parts).double().numpy()
    started = time.process_time()
    prune_jointly(model, pictures, teacher, threshold=0.9, min_filters=3)
    seconds = time.process_time() - started
    return told("pruned", seconds, 600 * gmacs(STUDENT), f"neuron, 600 images, from {STUDENT}")


def _some_published(data: Path) -> list[CompactModel]:
    paths = published_models(data / "v4", "190923")
    return [import_compact_model(path) for path in list(paths.values())[:N_NEURONS]]


def _retrained(data: Path) -> dict[str, Any]:
    models, n = _some_published(data), 96
    bank = StimulusSet.from_array(images(n))
    seconds = _per_image(
        lambda e: retrain(
            models, bank, targets(n), Distillation(n_epochs=e, batch_size=8), seed=SEED
        ),
        n * len(models),
    )
    work = float(np.mean([gmacs(model.filters) for model in models]))
    return told("retrained", seconds, work, "image and neuron, published compact models")


def _synthesis(data: Path) -> dict[str, Any]:
    models = _some_published(data)
    n_steps = 20

    def made(steps: int) -> None:
        synthesize(models, n_starts=2, n_steps=steps, seed=SEED)

    made(1)
    times = []
    for steps in (1, 1 + n_steps):
        started = time.process_time()
        made(steps)
        times.append(time.process_time() - started)
    seconds = (times[1] - times[0]) / n_steps / (2 * len(models))
    return told("synthesis", seconds, None, "step, image and published compact model")


def _zoo(data: Path) -> dict[str, Any]:
    n = 24
    network = build_network("resnet50@random:0")
    stimuli = StimulusSet.from_array(images(n, 224))
    started = time.process_time()
    kernels = stream_kernels(network, stimuli, memory_gib=1.0)
    seconds = (time.process_time() - started) / n
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network.network(torch.zeros(1, 3, 224, 224))
    work = counter.get_total_flops() / 2 / _GIGA
    return told("zoo", seconds, work, f"image, ResNet50, {len(kernels.layers)} layers, {n} images")


MEASUREMENTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "decode": _decode,
    "backbone": _backbone,
    "member": _member,
    "student_shared": _shared,
    "student_separate": _separate,
    "pruned": _pruned,
    "retrained": _retrained,
    "synthesis_step": _synthesis,
    "zoo": _zoo,
}

_MEASURED = """
import resource, sys
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from pocketcortex.core import keep_freed_memory
from pocketcortex.data import read_bank
from pocketcortex.training import Distillation, distill_shared
torch.set_num_threads(1)
keep_freed_memory()
path, crops, n_neurons, folder = sys.argv[1], *map(int, sys.argv[2:4]), sys.argv[4]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
bank = read_bank(path, 56, crops=crops, seed=0)
targets = np.lib.format.open_memmap(f"{folder}/t.npy", "w+", np.float32, (len(bank), n_neurons))
targets[:] = np.random.default_rng(0).normal(size=targets.shape)
distill_shared(bank, targets, (8, 8, 8, 8, 8), Distillation(n_epochs=1), seed=0)
print(len(bank), before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def _memory(data: Path) -> list[dict[str, int]]:
    """Return the peak resident memory of distilling from banks of 1 and 10 times as many images."""
    found = []
    path = str(data / "banks" / "photos" / "photos.zip")
    for crops in (1, 10):
        with tempfile.TemporaryDirectory() as folder:
            answer = subprocess.run(  # noqa: S603 - our own program
                [sys.executable, "-c", _MEASURED, path, str(crops), "20", folder],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
        n, before, peak = map(int, answer.stdout.split())
        found.append({"n_images": n, "before_kib": before, "peak_kib": peak})
        print(f"{n} images: peak {peak / 1024:.0f} MiB", file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
