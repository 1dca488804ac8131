"""Large runs on paper: ``python -m benchmarks.extrapolation docs/scaling.json`` prints the table.

From the constants of `benchmarks.scaling`. CPU columns are measured seconds times numbers of
images; GPU columns take multiply-adds at an assumed rate, and nothing of them was run.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

N_IMAGES, N_NEURONS, N_MEMBERS = 12_000_000, 219, 25
N_NETWORKS, N_MOUSE_IMAGES = 300, 118
GPU_GMACS = 2_500.0
"""Giga multiply-adds a second of one GPU: a tenth of an H100's 25,600 in float32, assumed."""
DECODERS = 16
"""CPU threads that decode for one GPU."""
CORES_A_NODE = 32
_TRAINING = 3
"""Multiply-adds of a training step in those of a forward pass."""


@dataclass(frozen=True)
class Job:
    """One kind of work: CPU seconds of one thread, multiply-adds, images decoded, tasks."""

    name: str
    cpu_seconds: float
    gmacs: float
    n_decoded: float
    n_tasks: int

    def hours_on_cpus(self, n_threads: int) -> float:
        """Return hours on so many threads, no more of them than tasks."""
        return self.cpu_seconds / min(n_threads, self.n_tasks) / 3600

    def hours_on_gpus(self, n_gpus: int, decode_s: float) -> float:
        """Return hours on so many GPUs, each fed by its decoders, whichever is slower."""
        n = min(n_gpus, self.n_tasks)
        computing = self.gmacs / GPU_GMACS / n
        decoding = self.n_decoded * decode_s / DECODERS / n
        return max(computing, decoding) / 3600


def jobs(constants: Mapping[str, Any]) -> list[Job]:
    """Return the work of both examples."""
    decode = constants["decode"]["seconds"]
    backbone, member = constants["backbone"], constants["member"]
    shared, separate = constants["student_shared"], constants["student_separate"]
    retrained, zoo = constants["retrained"], constants["zoo"]
    per_label = backbone["seconds"] + N_MEMBERS * member["forward_seconds"] + decode
    label_gmacs = backbone["gmacs"] + N_MEMBERS * member["gmacs"]
    groups = N_NEURONS  # students of 100 filters step alone
    return [
        Job("teacher's responses", N_IMAGES * per_label, N_IMAGES * label_gmacs, N_IMAGES, 5_860),
        Job(
            "219 separate students of 100 filters (published way)",
            N_IMAGES * N_NEURONS * (separate["seconds"] + decode),
            N_IMAGES * N_NEURONS * separate["gmacs"] * _TRAINING,
            N_IMAGES * groups / 16, groups,
        ),
        Job(
            f"one shared student {shared['per'].partition('filters ')[2]} (default)",
            N_IMAGES * (shared["seconds"] + decode),
            N_IMAGES * shared["gmacs"] * _TRAINING, N_IMAGES, 1,
        ),
        Job(
            "retraining 219 pruned models on 1.2 million images",
            N_IMAGES / 10 * N_NEURONS * retrained["seconds"],
            N_IMAGES / 10 * N_NEURONS * retrained["gmacs"] * _TRAINING,
            N_IMAGES / 10 * N_NEURONS / 8, N_NEURONS // 3,
        ),
        Job(
            "300 networks like ResNet50, kernels of all layers for 118 images",
            N_NETWORKS * N_MOUSE_IMAGES * zoo["seconds"],
            N_NETWORKS * N_MOUSE_IMAGES * zoo["gmacs"], N_NETWORKS * N_MOUSE_IMAGES, N_NETWORKS,
        ),
    ]  # fmt: skip


def table(constants: Mapping[str, Any]) -> str:
    """Return the rows in Markdown."""
    decode = constants["decode"]["seconds"]
    lines = [
        "| work | 1 thread | 64 nodes of 32 | 1 GPU | 8 GPUs | 64 nodes of 8 GPUs | tasks |",
        "|---|---|---|---|---|---|---|",
    ]
    for job in jobs(constants):
        hours = [
            job.hours_on_cpus(1), job.hours_on_cpus(64 * CORES_A_NODE),
            *(job.hours_on_gpus(n, decode) for n in (1, 8, 512)),
        ]  # fmt: skip
        shown = " | ".join(_told(h) for h in hours)
        lines.append(f"| {job.name} | {shown} | {job.n_tasks:,} |")
    return "\n".join(lines)


def _told(hours: float) -> str:
    if hours >= 8760:
        return f"{hours / 8760:,.1f} years"
    if hours >= 48:
        return f"{hours / 24:,.1f} days"
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{hours * 60:.0f} min" if hours * 60 >= 1 else "< 1 min"


if __name__ == "__main__":
    sys.stdout.write(table(json.loads(Path(sys.argv[1]).read_text())["constants"]) + "\n")
