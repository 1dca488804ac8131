"""A Dask cluster of its own processes, as a user would start it by hand."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DaskCluster:
    """Where its scheduler is, and the processes that keep it up."""

    address: str
    processes: list["subprocess.Popen[bytes]"]


@contextmanager
def started_cluster(
    folder: Path, *, n_workers: int = 2, resources: str = ""
) -> Iterator[DaskCluster]:
    """Start a scheduler and workers of one thread each that can import what lies beside this."""
    found = folder / "scheduler.json"
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parent),
        "DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE": "false",
    }
    run = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    scheduler = [*run, "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads", "1"]
    worker += ["--nworkers", str(n_workers), "--local-directory", str(folder), "--no-dashboard"]
    worker += ["--resources", resources] if resources else []
    processes = []
    with (folder / "cluster.log").open("wb") as log:
        try:
            for command in (scheduler, worker):
                words = [*command, "--scheduler-file", str(found)]
                processes.append(
                    subprocess.Popen(words, env=environment, stdout=log, stderr=log, cwd=folder)
                )
                for _ in range(600):
                    if found.exists() and found.stat().st_size:
                        break
                    time.sleep(0.1)
            address = json.loads(found.read_text())["address"]
            yield DaskCluster(address.replace("tcp:", "dask:"), processes)
        finally:
            for process in reversed(processes):
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
