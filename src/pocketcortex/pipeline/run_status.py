"""What a run folder holds: which stages are done, running, failed, stale or waiting, and why."""

import fcntl
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pocketcortex.core import InputError
from pocketcortex.core.runs import FAILED, MANIFEST, digest_of, hash_files, read_json_object
from pocketcortex.pipeline.tasks import planned_tasks

STAGES = (
    "teacher", "mapping", "labels", "students", "pruned", "compact", "scores", "stimuli", "causal",
    "circuits", "report",
)  # fmt: skip
"""Stages of a whole run, in their order."""
_OTHERS = ("shared", "ensemble_scores")
PRUNING = ("method", "n_fixed", "threshold", "min_filters", "n_pruning_images")
"""Settings of the table ``compact`` that the stage ``pruned`` depends on."""

State = Literal["done", "running", "stopped", "failed", "stale", "waiting"]


@dataclass(frozen=True)
class StageStatus:
    """One stage of a run.

    Attributes
    ----------
    name
        The stage.
    state
        ``done``; ``running``: being filled by a process that holds the folder; ``stopped``: begun
        and left by a process that was killed or interrupted, to be gone on with; ``failed``;
        ``stale``: done, but from other inputs than there are now, or damaged; ``waiting``: not
        begun.
    why
        What it failed of, or what makes it stale; empty otherwise.
    seconds
        How long it took, if it was ever done.
    n_tasks, n_tasks_done
        Of a stage that is split into tasks and not done; None of others.
    failed_tasks
        Task to error.
    """

    name: str
    state: State
    why: str = ""
    seconds: float | None = None
    n_tasks: int | None = None
    n_tasks_done: int | None = None
    failed_tasks: dict[str, str] | None = None


@dataclass(frozen=True)
class RunStatus:
    """A run folder.

    Attributes
    ----------
    path
        The folder.
    is_held
        Whether a process is running in it; a process on another machine is seen only where the
        file system passes on locks.
    seed, date, device, version
        Of the last process that ran in it.
    stages
        Those of a whole run in their order, then others that were begun.
    """

    path: str
    is_held: bool
    seed: int | None
    date: str | None
    device: str | None
    version: str | None
    stages: tuple[StageStatus, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def run_status(path: str | Path, *, check_files: bool = False) -> RunStatus:
    """Return what is done, running, failed, stale and waiting in a run folder; changes nothing.

    Whether a stage is stale is told from the folder alone: by its settings against
    ``config.json``, the data that the last process read, the stages it was made from, and the
    version of pocketcortex. Recordings that changed since are seen by ``run --dry-run``, which
    reads them.

    Parameters
    ----------
    path
        The run folder.
    check_files
        Whether to read every file of finished stages and compare it with the hash it was written
        with, which takes as long as reading the disk.

    Raises
    ------
    InputError
        If the folder holds no run.
    """
    path = Path(path)
    config = read_json_object(path / "config.json")
    if not config:
        raise InputError(f"{path} holds no run: config.json is missing or cannot be read")
    record = read_json_object(path / MANIFEST)
    held = _is_held(path)
    stages: list[StageStatus] = []
    states: dict[str, State] = {}
    for name in (*STAGES, *_OTHERS):
        found = _stage_status(path, name, config, record, states, held, check_files)
        states[name] = found.state
        if name == "causal" and not config["recordings"].get("insilico"):
            continue  # only a simulated animal can be shown more
        if name in STAGES or found.state != "waiting":
            stages.append(found)
    packages = record.get("packages", {})
    return RunStatus(
        str(path), held, config.get("seed"), record.get("date"), record.get("device"),
        packages.get("pocketcortex"), tuple(stages),
    )  # fmt: skip


def _stage_status(
    path: Path,
    name: str,
    config: dict[str, Any],
    record: dict[str, Any],
    states: dict[str, State],
    held: bool,
    check_files: bool,
) -> StageStatus:
    manifest = read_json_object(path / name / MANIFEST)
    seconds = manifest.get("seconds")
    partial = path / f"{name}.partial"
    if partial.is_dir():
        tasks = planned_tasks(partial)
        errors = {task.name: why for task in tasks if (why := task.failure()) is not None}
        n_done = sum(task.path.is_dir() for task in tasks)
        failure = read_json_object(partial / FAILED).get("error")
        state: State = "failed" if failure else "running" if held else "stopped"
        return StageStatus(
            name, state, str(failure or ""), seconds, len(tasks) or None,
            n_done if tasks else None, errors or None,
        )  # fmt: skip
    if not manifest:
        return StageStatus(name, "waiting")
    why = _stale_because(path, manifest, config, record, states)
    if not why and check_files and hash_files(path / name) != manifest.get("files"):
        why = "files are not as they were written"
    return StageStatus(name, "stale" if why else "done", why, seconds)


def _stale_because(
    path: Path,
    manifest: dict[str, Any],
    config: dict[str, Any],
    record: dict[str, Any],
    states: dict[str, State],
) -> str:
    """Return the first reason why a finished stage would be done again, empty if there is none."""
    if manifest.get("version") != version("pocketcortex"):
        return f"made by pocketcortex {manifest.get('version')}"
    inputs: dict[str, Any] = manifest.get("inputs", {})
    if "seed" in inputs and inputs["seed"] != config.get("seed"):
        return f"made with seed {inputs['seed']}"
    if "prior" in inputs and inputs.get("data") != record.get("inputs"):
        return "the recordings have changed"
    for table, value in inputs.items():
        now = _settings(config, table)
        if now is not None and (changed := _changed(value, now)):
            return f"settings have changed: {', '.join(f'{table}.{key}' for key in changed)}"
    for other, digest in manifest.get("upstream", {}).items():
        files = read_json_object(path / other / MANIFEST).get("files")
        if files is None or digest_of(files) != digest:
            return f"made from another {other}"
        if states.get(other) == "stale":
            return f"{other} is stale"
    return ""


def _settings(config: dict[str, Any], table: str) -> dict[str, Any] | None:
    """Return the settings that a stage's manifest keeps under a name, None for other inputs."""
    if table == "pruning":
        return {name: config["compact"][name] for name in PRUNING}
    found = config.get(table)
    if not isinstance(found, dict) or table == "backbone":
        return None
    return {k: v for k, v in found.items() if (table, k) != ("teacher", "prior")}


def _changed(before: Any, now: dict[str, Any]) -> list[str]:
    if not isinstance(before, dict):
        return []
    return [key for key in now if key in before and before[key] != now[key]]


def _is_held(path: Path) -> bool:
    try:
        with (path / ".lock").open("r") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    except OSError:
        return False
    return False
