"""What Dask workers add to tasks of about a minute: the same stage in one process and on workers.

``OMP_NUM_THREADS=1 python -m benchmarks.workers OUT`` prints one JSON object. The stage is the
distillation of separate students of a simulated animal, a task a neuron. As in a run, the workers
have done the stage before it (the teacher's answers), so that they have opened the run. Each place
computes with one thread a process; with one worker the work is done one task after the other, as in
one process, and what it takes longer is what Dask, task folders and hashes cost. With two, cores
share caches and memory too. One process does it again at the end: what differs is chance.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import torch

from pocketcortex.core import RunFolder, provenance
from pocketcortex.core.runs import hash_files, read_json_object
from pocketcortex.pipeline import RunConfig, compress

sys.path.append(str(Path(__file__).parents[1] / "tests" / "pipeline"))
from dask_cluster import started_cluster

SEED, N_NEURONS = 7, 2
CONFIG = {
    "seed": SEED,
    "recordings": {"insilico": {"n_sessions": 3, "n_neurons": N_NEURONS, "n_stimuli": 200}},
    "teacher": {"n_members": 2, "width": 32, "bottleneck": 16, "n_blocks": 1, "n_epochs": 2},
    "students": {
        "kind": "separate", "filters": [100, 100, 100, 100, 100], "dead_leaves": 1500,
        "n_epochs": 5, "n_monitor": 200,
    },
}  # fmt: skip


def measure(out: Path) -> dict[str, object]:
    """Return the seconds of the stage in one process, on one worker and on two."""
    config = RunConfig.model_validate(CONFIG)
    here = out / "local"
    compress(config, here, "distil", device="cpu")
    wanted = _files(here)
    told: dict[str, object] = {"n_tasks": N_NEURONS, "seconds_in_process": _seconds(here)}
    for n_workers in (1, 2):
        there = out / f"workers{n_workers}"
        shutil.copytree(here, there, ignore=shutil.ignore_patterns("students*", "labels*"))
        with started_cluster(out, n_workers=n_workers) as cluster:
            compress(config, there, "distil", device="cpu", scheduler=cluster.address)
        overhead = n_workers * _seconds(there) / _seconds(here) - 1
        told |= {
            f"seconds_{n_workers}_workers": _seconds(there),
            f"overhead_{n_workers}_workers": overhead,
            f"same_bits_{n_workers}_workers": _files(there) == wanted,
        }
    again = out / "again"
    shutil.copytree(here, again, ignore=shutil.ignore_patterns("students*"))
    compress(config, again, "distil", device="cpu")
    told["seconds_in_process_again"] = _seconds(again)
    return told | {"load_average": os.getloadavg()[0]}


def _seconds(run: Path) -> float:
    return RunFolder(run).seconds("students")


def _files(run: Path) -> dict[str, str]:
    files = hash_files(run / "students")
    assert files == read_json_object(run / "students" / "manifest.json")["files"]
    return files


if __name__ == "__main__":
    torch.set_num_threads(1)
    (folder,) = sys.argv[1:]
    print(json.dumps(measure(Path(folder)) | provenance(SEED), indent=1))
