"""Where independent tasks run: in this process, on a Dask cluster, or in jobs of a batch system."""

import importlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from pocketcortex.core import InputError, PocketcortexError
from pocketcortex.pipeline.cluster_profile import ClusterProfile, read_cluster_profile
from pocketcortex.pipeline.progress import progress_bar, say

LOCAL = "local"
GPU = "GPU"
"""The Dask resource of a worker with a GPU, one of it for each task that needs one."""
_CONNECT_S, _PATIENCE_S = 20, 60
_EXTRA = "install the extra: pip install 'pocketcortex[cluster]'"

Report = Callable[[str, Any], None]
"""Told the name and the result of each task as it ends."""


class Scheduler(ABC):
    """Runs one function over independent tasks that find their data in a shared folder.

    Attributes
    ----------
    is_remote
        Whether tasks run outside this process, so that arguments are pickled, and the folder must
        be seen by other machines under the same path.
    """

    is_remote: bool

    @abstractmethod
    def map(
        self,
        function: Callable[..., Any],
        tasks: Mapping[str, Sequence[Any]],
        *,
        title: str = "tasks",
        gpu: bool = False,
        report: Report = lambda name, result: None,
    ) -> dict[str, Any]:
        """Return what `function` gives for each task, by the task's name, in the tasks' order.

        Parameters
        ----------
        function
            A function of a module's top level, which the workers import.
        tasks
            Name to arguments. They travel to the workers: names, numbers and paths, not arrays.
        title
            What the tasks are, for the progress bar.
        gpu
            Whether each task needs a GPU of its own.
        report
            Told the name and result of each task as it ends.

        Raises
        ------
        InputError
            If a task raised one; the message begins with the task's name.
        PocketcortexError
            If a task raised anything else, its worker died too often, or the cluster was lost.
        """

    @property
    @abstractmethod
    def has_gpus(self) -> bool:
        """Whether workers say that they have GPUs, or are asked for with some."""


class LocalScheduler(Scheduler):
    """One task after the other in this process; needs nothing else."""

    is_remote = False

    def map(
        self,
        function: Callable[..., Any],
        tasks: Mapping[str, Sequence[Any]],
        *,
        title: str = "tasks",
        gpu: bool = False,
        report: Report = lambda name, result: None,
    ) -> dict[str, Any]:
        """Return what `function` gives for each task; see `Scheduler.map`."""
        results = {}
        with progress_bar(title, len(tasks)) as advance:
            for name, arguments in tasks.items():
                try:
                    results[name] = function(*arguments)
                except Exception as error:
                    raise named(error, name) from error
                report(name, results[name])
                advance(1)
        return results

    @property
    def has_gpus(self) -> bool:
        """False: a run in this process takes its device from ``--device`` alone."""
        return False


class DaskScheduler(Scheduler):
    """Tasks on the workers of a Dask cluster.

    A task whose worker dies is run again on another; one that kills several is given up. Several
    tasks that Dask hands to one worker process run one after the other there (`run_alone`).

    Parameters
    ----------
    client
        A connected `distributed.Client`.
    asks_for_gpus
        Whether the cluster's workers are started with the resource ``GPU``, though none may be
        there yet.
    """

    is_remote = True

    def __init__(self, client: Any, *, asks_for_gpus: bool = False) -> None:
        self._client, self._asks_for_gpus = client, asks_for_gpus

    @property
    def has_gpus(self) -> bool:
        """Whether a worker has the resource ``GPU`` or will have it; waits for the first worker."""
        if not self._asks_for_gpus and not self._workers():
            say("waiting for the Dask cluster's first worker")
            with suppress(TimeoutError, _import("distributed").TimeoutError):
                self._client.wait_for_workers(1, timeout=_PATIENCE_S)
        return self._asks_for_gpus or any(GPU in w["resources"] for w in self._workers())

    def map(
        self,
        function: Callable[..., Any],
        tasks: Mapping[str, Sequence[Any]],
        *,
        title: str = "tasks",
        gpu: bool = False,
        report: Report = lambda name, result: None,
    ) -> dict[str, Any]:
        """Return what `function` gives for each task; see `Scheduler.map`."""
        if not tasks:
            return {}
        distributed = _import("distributed")
        names = {}
        for name, arguments in tasks.items():
            future = self._client.submit(
                function, *arguments, key=f"{title}-{name}-{time.time_ns()}", pure=False,
                resources={GPU: 1} if gpu else None,
            )  # fmt: skip
            names[future] = name
        results: dict[str, Any] = {}
        try:
            with progress_bar(title, len(tasks)) as advance:
                for future in self._ended(distributed, list(names), gpu):
                    name = names[future]
                    results[name] = self._result(distributed, future, name)
                    report(name, results[name])
                    advance(1)
        finally:
            if len(results) < len(tasks):
                self._forget(list(names))
        return {name: results[name] for name in tasks}

    def _ended(self, distributed: Any, futures: list[Any], gpu: bool) -> Iterator[Any]:
        """Yield futures as they end, and say so while there is nobody to run them."""
        left = set(futures)
        while left:
            try:
                with self._client.as_current():
                    found = distributed.wait(left, _PATIENCE_S, return_when="FIRST_COMPLETED")
            except (TimeoutError, distributed.TimeoutError):
                self._tell_missing(gpu)
                continue
            except (OSError, ValueError, RuntimeError) as error:
                raise self._lost(error) from error
            yield from found.done
            left -= found.done

    def _result(self, distributed: Any, future: Any, name: str) -> Any:
        try:
            return future.result(timeout=_CONNECT_S)
        except distributed.KilledWorker as error:
            raise PocketcortexError(
                f"task {name} was given up: its worker died several times, most often for want of "
                "memory; give workers more memory, then run the same command again"
            ) from error
        except Exception as error:
            if future.status == "error":
                raise named(error, name) from error
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> PocketcortexError:
        return PocketcortexError(
            f"the Dask scheduler was lost ({error}); start it and its workers again and run the "
            "same command: what has ended is kept"
        )

    def _forget(self, futures: list[Any]) -> None:
        try:
            self._client.cancel(futures, force=True)
        except Exception as error:
            say(f"could not cancel the tasks left: {error}")

    def _workers(self) -> list[dict[str, Any]]:
        return list(self._client.scheduler_info(n_workers=-1)["workers"].values())

    def _tell_missing(self, gpu: bool) -> None:
        workers = self._workers()
        if not workers:
            say("waiting: the Dask cluster has no worker yet")
        elif gpu and not any(GPU in worker["resources"] for worker in workers):
            say(
                f"waiting: none of {len(workers)} workers has the resource {GPU}; start some with "
                f"--resources {GPU}=1, or run with --device cpu"
            )


@contextmanager
def open_scheduler(where: str = LOCAL) -> Iterator[Scheduler]:
    """Yield the scheduler that ``--scheduler`` names, and end what was started for it.

    Parameters
    ----------
    where
        ``local``; ``dask://HOST:PORT``, a Dask scheduler that runs; ``slurm:PROFILE.toml`` or
        ``pbs:PROFILE.toml``, jobs started for this run as the file says (`ClusterProfile`) and
        ended with it.

    Raises
    ------
    InputError
        If the word is none of these, the file is at fault, Dask is not installed, or nothing
        answers at the address.
    """
    kind, rest = parse_scheduler(where)
    if isinstance(rest, ClusterProfile):
        with _jobs(kind, rest) as client:
            yield DaskScheduler(client, asks_for_gpus=rest.gpus > 0)
    elif kind == "dask":
        with _connected(rest) as client:
            yield DaskScheduler(client)
    else:
        yield LocalScheduler()


def parse_scheduler(where: str) -> tuple[str, str | ClusterProfile]:
    """Return the kind of scheduler that a word names, with its address or profile.

    Raises
    ------
    InputError
        If the word is not one of those of `open_scheduler`, or its profile is at fault.
    """
    kind, _, rest = where.partition(":")
    if where == LOCAL:
        return LOCAL, ""
    if kind == "dask" and rest.startswith("//") and len(rest) > 2:
        return kind, f"tcp:{rest}"
    if kind in ("slurm", "pbs") and rest:
        return kind, read_cluster_profile(rest)
    raise InputError(
        "scheduler must be local, dask://HOST:PORT, slurm:PROFILE.toml or pbs:PROFILE.toml; "
        f"got {where!r}"
    )


def named(error: Exception, name: str) -> PocketcortexError:
    """Return an error of a task with the task's name in front, an InputError where it is one."""
    kind = InputError if isinstance(error, InputError) else PocketcortexError
    said = (
        str(error) if isinstance(error, PocketcortexError) else f"{type(error).__name__}: {error}"
    )
    return kind(f"task {name}: {said}")


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    distributed = _import("distributed")
    try:
        client = distributed.Client(address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(
            f"no Dask scheduler answers at {address} ({error}); start one with `dask scheduler`"
        ) from error
    with client:
        yield client


@contextmanager
def _jobs(kind: str, profile: ClusterProfile) -> Iterator[Any]:
    """Start a scheduler here and jobs for its workers; yield the client; end them all."""
    distributed = _import("distributed")
    with job_cluster(kind, profile) as cluster:
        cluster.scale(jobs=profile.jobs)
        say(f"{profile.jobs} {kind} jobs asked for; dashboard {cluster.dashboard_link}")
        with distributed.Client(cluster, set_as_default=False) as client:
            yield client


def job_cluster(kind: str, profile: ClusterProfile) -> Any:
    """Return the dask-jobqueue cluster of a profile, with no job asked for yet.

    Parameters
    ----------
    kind
        ``slurm`` or ``pbs``.
    profile
        What a job is.

    Raises
    ------
    InputError
        If dask-jobqueue is not installed, or the machine has no network interface of that name.
    """
    jobqueue = _import("dask_jobqueue")
    make = {"slurm": jobqueue.SLURMCluster, "pbs": jobqueue.PBSCluster}[kind]
    try:
        return make(**profile.job_arguments(kind))
    except ValueError as error:
        raise InputError(f"the cluster profile cannot be used: {error}") from error


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"--scheduler other than local needs Dask ({error}); {_EXTRA}") from error
