"""What a job of a batch system is: one TOML file, the cluster's own names in it."""

import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from pocketcortex.core import InputError, in_brief
from pocketcortex.pipeline.config import first_fault

Count = Annotated[int, Field(ge=1)]
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class ClusterProfile(BaseModel):
    """A job: its size, its limits, and what to write above and in its script."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    jobs: Count
    """Jobs asked for at once; each brings `workers` worker processes."""
    cores: Count = 1
    """CPU cores of a job, shared evenly by its workers; each runs one task at a time."""
    workers: Count = 1
    """Worker processes of a job; one where it has a GPU."""
    memory: Annotated[str, Field(pattern=r"^\d+(\.\d+)? ?[KMGT]i?B$")]
    """Of a job, such as ``16GiB``."""
    walltime: Annotated[str, Field(pattern=r"^(\d+-)?\d{1,3}:\d{2}(:\d{2})?$")] = "24:00:00"
    queue: str | None = None
    """Queue or partition; None for the cluster's default."""
    account: str | None = None
    gpus: Annotated[int, Field(ge=0, le=1)] = 0
    """1 for jobs with one GPU, told to Dask as the worker's resource ``GPU``; a node with eight
    takes eight such jobs."""
    gpu_directive: str | None = None
    """How the cluster wants it asked for; None for ``--gres=gpu:1`` (SLURM), ``:ngpus=1`` (PBS)."""
    directives: tuple[str, ...] = ()
    """More lines of the script's head, without ``#SBATCH`` or ``#PBS``."""
    setup: tuple[str, ...] = ()
    """Shell lines before the worker starts, such as ``module load`` or ``source .../activate``."""
    python: str = sys.executable
    """The interpreter on the nodes that has pocketcortex; by default the path of this one."""
    interface: str | None = None
    """Network interface by which nodes and this machine reach each other, such as ``ib0``."""
    local_directory: str | None = None
    """Folder on a node's own disk for what Dask puts aside."""

    @pydantic.model_validator(mode="after")
    def _fits(self) -> "ClusterProfile":
        if self.cores < self.workers:
            raise ValueError(
                f"{self.workers} workers need {self.workers} cores or more, got {self.cores}"
            )
        if self.gpus and self.workers != 1:
            raise ValueError(
                f"a job with a GPU has workers = 1, got {self.workers}; ask for more jobs"
            )
        if self.gpu_directive is not None and not self.gpus:
            raise ValueError("gpu_directive is given but gpus is 0; set gpus = 1")
        return self

    @property
    def threads(self) -> int:
        """Threads of each worker's mathematics."""
        return self.cores // self.workers

    def job_arguments(self, kind: str) -> dict[str, Any]:
        """Return what the class of dask-jobqueue for ``slurm`` or ``pbs`` is made with.

        A worker gets one Dask thread, so that tasks run alone in it, and the mathematics' threads
        by the environment.
        """
        directives = list(self.directives)
        prologue = [f"export {name}={self.threads}" for name in _THREADS]
        if self.gpus and kind == "slurm":
            directives.append(self.gpu_directive or "--gres=gpu:1")
        arguments: dict[str, Any] = {
            "queue": self.queue,
            "account": self.account,
            "cores": self.workers,
            "processes": self.workers,
            "memory": self.memory,
            "walltime": self.walltime,
            "interface": self.interface,
            "local_directory": self.local_directory,
            "job_name": "pocketcortex",
            "scheduler_options": {"dashboard_address": ":0"},  # a free port: others may run here
            "python": self.python,
            "job_extra_directives": directives,
            "job_script_prologue": [*prologue, *self.setup],
            "worker_extra_args": ["--resources", "GPU=1"] if self.gpus else [],
        }
        if kind == "slurm":
            return arguments | {"job_cpu": self.cores}
        select = f"select=1:ncpus={self.cores}:mem={self.memory.replace(' ', '').replace('i', '')}"
        if self.gpus:
            select += self.gpu_directive or ":ngpus=1"
        return arguments | {"resource_spec": select}


def read_cluster_profile(path: str | Path) -> ClusterProfile:
    """Return the profile that a TOML file holds.

    Raises
    ------
    InputError
        If the file is missing or not TOML, a key is unknown, or a value cannot be.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text())
    except OSError as error:
        raise InputError(f"cannot read the cluster profile {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML: {in_brief(error)}") from error
    try:
        return ClusterProfile.model_validate(table)
    except pydantic.ValidationError as error:
        raise InputError(f"{path}: {first_fault(error, ClusterProfile)}") from error
