"""Stages done by workers: split into tasks over members, sessions, images, neurons or networks."""

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from pocketcortex.core import (
    InputError,
    PocketcortexError,
    keep_freed_memory,
    map_array,
    new_array_file,
    write_json,
)
from pocketcortex.core.runs import MANIFEST, read_json_object
from pocketcortex.pipeline import compression
from pocketcortex.pipeline.bank import answers_to, label_ranges, save_bank
from pocketcortex.pipeline.inputs import prepare_inputs
from pocketcortex.pipeline.opening import config_of, open_backbone, resolve_device
from pocketcortex.pipeline.progress import say
from pocketcortex.pipeline.scheduler import Scheduler
from pocketcortex.pipeline.stages import Stages, join_groups
from pocketcortex.pipeline.tasks import TaskFolder, drop_tasks, keep_only_tasks, plan_tasks
from pocketcortex.training import new_students, student_groups
from pocketcortex.zoo import FeatureStore

_IMAGES_A_TASK = {"cpu": 2_048, "cuda": 16_384}
_NEURONS_A_GPU_TASK = 16
_SHARED_FOLDER_S = 30
"""How long another machine's file may take to be seen here."""


@dataclass(frozen=True)
class Job:
    """What every task of a stage must know; it travels with each.

    Attributes
    ----------
    run, stage
        The run folder, and the stage's folder that is being filled, as all machines see them.
    device
        ``auto``, ``cpu`` or ``cuda``, on the worker.
    bank
        Folder of `save_bank`, empty where a stage reads no bank.
    directory
        Where relative paths of the configuration start.
    config
        Hash of the run's configuration.
    data
        Fingerprint of its sessions.
    version
        Of pocketcortex.
    """

    run: str
    stage: str
    device: str
    bank: str
    directory: str
    config: str
    data: str
    version: str


class Spread:
    """The stages of a run that a scheduler's workers do; each method fills a stage's folder.

    The result is the same, on a CPU bit for bit with the same number of threads, as that of the
    stage done in one process: tasks are cut where that process works on one thing after the other.

    Parameters
    ----------
    stages
        What all stages share, in this process.
    run
        The run folder, seen by all workers under its absolute path.
    scheduler
        Where tasks run.
    device
        ``auto``, ``cpu`` or ``cuda`` for the workers: ``auto`` is ``cuda`` where they have GPUs.
    """

    def __init__(self, stages: Stages, run: Path, scheduler: Scheduler, device: str) -> None:
        self._stages, self._run, self._scheduler = stages, run.resolve(), scheduler
        self._gpu = device == "cuda" or (device == "auto" and scheduler.has_gpus)
        self._device = "cuda" if self._gpu else "cpu"

    def teacher(self, folder: Path) -> None:
        """Compute the sessions' features, then train the groups of members."""
        keep_only_tasks(folder)
        sessions = (*self._stages.inputs.train, self._stages.inputs.validation)
        wanted = {f"features-{k:03d}": (k,) for k in range(len(sessions))}
        self._do(folder, "features", features_task, wanted)
        groups = self._stages.member_groups()
        tasks = {name: (g.start, g.stop) for name, g in groups.items()}
        join_groups(folder, self._do(folder, "teacher", members_task, tasks))
        drop_tasks(folder)

    def mapping(self, folder: Path, teacher: Path) -> None:
        """Map the teacher to each test session's neurons."""
        keep_only_tasks(folder)
        tests = self._stages.inputs.tests
        tasks = {test.name: (k, str(teacher.resolve())) for k, test in enumerate(tests)}
        counts = {}
        for test, part in zip(tests, self._do(folder, "mapping", mapping_task, tasks), strict=True):
            _copy(part / "maps", folder / test.name)
            counts[test.fit.id] = read_json_object(part / "counts.json")
        write_json(folder / "parameters.json", counts)
        drop_tasks(folder)

    def labels(self, folder: Path, teacher: Path, mapping: Path) -> None:
        """Compute the teacher's responses to the bank, some thousands of images a task."""
        keep_only_tasks(folder)
        bank = self._stages.bank
        ranges = label_ranges(bank, _IMAGES_A_TASK[self._device])
        paths = (str(teacher.resolve()), str(mapping.resolve()))
        tasks = {f"part{k}-rows{a:09d}": (k, a, b, *paths) for k, a, b in ranges}
        parts = self._do(folder, "teacher's responses", labels_task, tasks, bank=True)
        shape = (len(bank.stimuli), self._stages.inputs.n_usable)
        responses = new_array_file(folder / "teacher.npy", np.float32, shape)
        start = 0
        for part in parts:
            rows = map_array(part / "rows.npy")
            responses[start : start + len(rows)] = rows
            start += len(rows)
        responses.flush()
        drop_tasks(folder)

    def students(self, folder: Path, labels: Path) -> None:
        """Distil the shared network as one task, separate students a group a task."""
        keep_only_tasks(folder)
        settings, where = self._stages.config.students, str(labels.resolve())
        if settings.kind == "shared":
            tasks: dict[str, tuple[Any, ...]] = {"shared": (where, [])}
        else:
            size = self._stages.inputs.tests[0].fit.require_stimuli().image_size
            fresh = new_students(self._n, settings.filters, size, seed=self._stages.seed)
            tasks = {name: (where, c) for name, c in self._groups(fresh, 0).items()}
        parts = self._do(folder, "students", students_task, tasks, bank=True)
        self._gather(folder, parts)
        if settings.kind == "separate":
            np.save(folder / compression.MONITOR_R2, compression.joined_monitors(parts))
        compression.write_student_agreement(self._stages, folder, labels)
        drop_tasks(folder)

    def pruned(self, folder: Path, labels: Path, of_students: Path) -> None:
        """Prune each neuron's student as a task."""
        keep_only_tasks(folder)
        paths = (str(labels.resolve()), str(of_students.resolve()))
        tasks = {
            name: (*paths, [k]) for k, name in enumerate(compression.model_names(self._stages))
        }
        self._gather(folder, self._do(folder, "pruning", pruned_task, tasks, bank=True))
        compression.pruned(self._stages, folder, labels, of_students)  # finds all saved
        drop_tasks(folder)

    def compact(self, folder: Path, labels: Path, of_pruned: Path) -> None:
        """Train the pruned models further, a group a task."""
        keep_only_tasks(folder)
        models = compression.load_models(self._stages, of_pruned)
        groups = self._groups(models, self._stages.config.compact.n_fixed)
        paths = (str(labels.resolve()), str(of_pruned.resolve()))
        tasks = {name: (*paths, columns) for name, columns in groups.items()}
        parts = self._do(folder, "retraining", compact_task, tasks, bank=True)
        self._gather(folder, parts)
        compression.write_model_agreement(self._stages, folder, labels)
        drop_tasks(folder)

    def shared_models(
        self, folder: Path, labels: Path, sizes: Sequence[int], n_images: int | None = None
    ) -> None:
        """Train shared models of several sizes, each as a task, and score them here."""
        keep_only_tasks(folder)
        where = str(labels.resolve())
        tasks = {
            f"{kind}-{size}": (where, kind, size, n_images)
            for kind in compression.SHARED_KINDS
            for size in sizes
        }
        self._gather(folder, self._do(folder, "shared models", shared_task, tasks, bank=True))
        compression.shared_models(self._stages, folder, labels, sizes, n_images)
        drop_tasks(folder)

    @property
    def _n(self) -> int:
        return self._stages.inputs.n_usable

    def _groups(self, models: Sequence[Any], n_shared: int) -> dict[str, list[int]]:
        """Return which neurons step together, by the group's name."""
        if self._gpu:
            groups = [np.arange(a, min(a + _NEURONS_A_GPU_TASK, self._n))
                      for a in range(0, self._n, _NEURONS_A_GPU_TASK)]  # fmt: skip
        else:
            groups = student_groups(models, n_shared)
        return {f"neurons{g[0]:04d}-{g[-1]:04d}": [int(k) for k in g] for g in groups}

    def _do(
        self,
        folder: Path,
        title: str,
        function: Callable[..., Any],
        tasks: Mapping[str, Sequence[Any]],
        *,
        bank: bool = False,
    ) -> list[Path]:
        """Have tasks done that are not done, and return the folders of all of their results."""
        record = read_json_object(self._run / "manifest.json")
        job = Job(
            run=str(self._run),
            stage=str(folder.resolve()),
            device=self._device,
            bank=str(save_bank(self._stages.bank, self._run / "features")) if bank else "",
            directory=os.getcwd(),
            config=_config_hash(self._run),
            data=str(record["inputs"]),
            version=version("pocketcortex"),
        )
        left = plan_tasks(folder, list(tasks))
        if len(left) < len(tasks):
            say(f"{title}: {len(tasks) - len(left)} of {len(tasks)} tasks done before")
        self._scheduler.map(
            run_task, {name: (job, name, function, *tasks[name]) for name in left},
            title=title, gpu=self._gpu, report=lambda name, told: say(f"{title}: {name} {told}"),
        )  # fmt: skip
        return [_seen(TaskFolder(folder, name)) for name in tasks]

    def _gather(self, folder: Path, parts: Sequence[Path]) -> None:
        """Copy models out of the tasks' results; moved ones would be done again after a kill."""
        for part in parts:
            for path in sorted(part.iterdir()):
                if path.name not in (MANIFEST, compression.MONITOR_R2):
                    _copy(path, folder / path.name)


def run_task(job: Job, name: str, function: Callable[..., None], *arguments: Any) -> str:
    """Do one task on a worker, unless its result is there; return how long that took.

    Raises
    ------
    InputError
        If the worker has another version of pocketcortex, or sees other files than the process
        that sent the task.
    """
    started = time.monotonic()
    if (here := version("pocketcortex")) != job.version:
        raise InputError(f"the worker has pocketcortex {here}, the run {job.version}; install one")
    if not Path(job.stage).is_dir():
        raise InputError(
            f"the worker does not see {job.stage}; the run folder must lie on a disk that all "
            "machines share under one path"
        )
    os.chdir(job.directory)
    if _config_hash(Path(job.run)) != job.config:
        raise InputError(f"the worker reads another configuration in {job.run} than the run's")

    def work(folder: Path, checkpoint: Path) -> None:
        function(_stages_of(job), folder, checkpoint, *arguments)

    TaskFolder(Path(job.stage), name).fill(work)
    return f"done ({time.monotonic() - started:.0f} s, {os.uname().nodename})"


def features_task(stages: Stages, folder: Path, checkpoint: Path, number: int) -> None:
    """Compute one session's features into the run's store."""
    sessions = (*stages.inputs.train, stages.inputs.validation)
    stages.session_features(sessions[number])


def members_task(stages: Stages, folder: Path, checkpoint: Path, start: int, stop: int) -> None:
    """Train a group of members."""
    stages.fit_group(folder, checkpoint, range(start, stop))


def mapping_task(stages: Stages, folder: Path, checkpoint: Path, number: int, teacher: str) -> None:
    """Map the teacher to one test session's neurons."""
    members = stages.load_members(Path(teacher))
    counts = stages.map_session(folder / "maps", stages.inputs.tests[number], members)
    write_json(folder / "counts.json", counts)


def labels_task(
    stages: Stages, folder: Path, checkpoint: Path,
    number: int, first: int, stop: int, teacher: str, mapping: str,
) -> None:  # fmt: skip
    """Compute the teacher's responses to some images of one part of the bank."""
    teachers = stages.load_teachers(Path(teacher), Path(mapping))
    of_range = answers_to(
        stages.bank, number, first, stop, stages.backbone, stages.store, stages.prior, teachers
    )
    np.save(folder / "rows.npy", np.concatenate([answers for _, answers in of_range]))


def students_task(
    stages: Stages, folder: Path, checkpoint: Path, labels: str, columns: list[int]
) -> None:
    """Distil the shared network, or the students of some neurons."""
    if stages.config.students.kind == "shared":
        compression.distil_shared(stages, folder, checkpoint, Path(labels))
    else:
        compression.distil_columns(stages, folder, checkpoint, Path(labels), columns)


def pruned_task(
    stages: Stages, folder: Path, checkpoint: Path, labels: str, students: str, columns: list[int]
) -> None:
    """Prune the students of some neurons."""
    compression.prune_columns(stages, folder, Path(labels), Path(students), columns)


def compact_task(
    stages: Stages, folder: Path, checkpoint: Path, labels: str, pruned: str, columns: list[int]
) -> None:
    """Train the pruned models of some neurons further."""
    compression.retrain_columns(stages, folder, checkpoint, Path(labels), Path(pruned), columns)


def shared_task(
    stages: Stages, folder: Path, checkpoint: Path,
    labels: str, kind: str, size: int, n_images: int | None,
) -> None:  # fmt: skip
    """Train one of several shared models."""
    compression.distil_size(stages, folder, checkpoint, Path(labels), kind, size, n_images)


def _stages_of(job: Job) -> Stages:
    """Return the stages over a run's inputs, kept while the worker gets tasks of that run."""
    return _opened_stages(job.run, job.device, job.bank, job.config, job.data)


@lru_cache(maxsize=1)
def _opened_stages(run: str, device: str, bank: str, config_hash: str, data: str) -> Stages:
    config = config_of(run)
    assert config.seed is not None  # noqa: S101 - drawn before the configuration was written
    keep_freed_memory()  # Dask tells its workers to give it back at once, which halves their speed
    device = resolve_device(device)
    inputs = prepare_inputs(config.recordings, config.seed)
    if inputs.fingerprint != data:
        raise InputError(
            "the worker reads other recordings than those that the run was started with; all "
            "machines must see the same files"
        )
    store = FeatureStore(Path(run) / "features")
    saved = Path(bank) if bank else None
    return Stages(config, inputs, open_backbone(config, device), store, device, saved)


def _config_hash(run: Path) -> str:
    return hashlib.sha256((run / "config.json").read_bytes()).hexdigest()


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, target)


def _seen(task: TaskFolder) -> Path:
    """Return a task's result; a shared folder may show another machine's files late."""
    for _ in range(_SHARED_FOLDER_S):
        if task.is_whole():
            return task.path
        time.sleep(1)
    raise PocketcortexError(
        f"task {task.name} ended, but its result is not in {task.path}; the run folder must lie on "
        "a disk that all machines share"
    )
