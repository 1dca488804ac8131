"""A task's folder: filled once, whole or not at all, however often the task runs."""

import os
import shutil
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from socket import gethostname
from typing import Any
from uuid import uuid4

from pocketcortex.core import parse_json, sync, write_json
from pocketcortex.core.runs import INPUTS, MANIFEST, hash_files

TASKS = "tasks"
_PLAN = "tasks.json"
_ALONE = threading.Lock()


@dataclass(frozen=True)
class TaskFolder:
    """Where one task of a stage leaves its result.

    The result is a folder of that name which appears by renaming, with the hash of each file in
    it. A task that runs twice, because Dask lost sight of a worker, works in folders of its own;
    the first to end gives the result, the other's is thrown away.

    Attributes
    ----------
    stage
        The stage's folder that is being filled; it is thrown away when what the stage is made from
        changes, so names need only differ within it.
    name
        Letters, digits, ``-`` and ``_``; what is in it must follow from the name and the stage.
    """

    stage: Path
    name: str

    @property
    def path(self) -> Path:
        """The folder of the result."""
        return self.stage / TASKS / self.name

    def is_whole(self) -> bool:
        """Return whether the result is there as it was written, by the hashes of its files."""
        try:
            written = parse_json((self.path / MANIFEST).read_text())["files"]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return bool(written == hash_files(self.path))

    def fill(self, work: Callable[[Path, Path], object]) -> None:
        """Do the work unless its result is there.

        Parameters
        ----------
        work
            Called with the folder to fill and with a file for checkpoints, which may hold the last
            one of an attempt that was killed.
        """
        with _ALONE:  # torch's generator and threads are the process's
            if self.is_whole():
                return
            self._failure.unlink(missing_ok=True)
            attempt = self.path.with_name(f"{self.name}.{uuid4().hex}.partial")
            attempt.parent.mkdir(exist_ok=True)  # but no stage that was thrown away
            attempt.mkdir()
            try:
                work(attempt, self._checkpoint(attempt))
            except Exception as error:
                if attempt.exists():  # else the stage was thrown away; this is not of its successor
                    self._note(error)
                shutil.rmtree(attempt, ignore_errors=True)
                raise
            self._publish(attempt)

    def failure(self) -> str | None:
        """Return what the last attempt failed of, None if it did not."""
        try:
            return str(parse_json(self._failure.read_text())["error"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @property
    def _failure(self) -> Path:
        return self.path.with_name(f"{self.name}.failed.json")

    def _note(self, error: Exception) -> None:
        said = f"{type(error).__name__}: {error}"
        where = {"host": gethostname(), "process": os.getpid()}
        write_json(self._failure, {"error": said, **where, "traceback": traceback.format_exc()})

    def _checkpoint(self, attempt: Path) -> Path:
        """Return this attempt's checkpoint file, taking over the newest one there is."""
        own = attempt.with_suffix(".checkpoint")
        left = sorted(
            self.path.parent.glob(f"{self.name}.*.checkpoint"), key=lambda p: p.stat().st_mtime
        )
        if left:
            os.replace(left[-1], own)
        return own

    def _publish(self, attempt: Path) -> None:
        for path in (*attempt.rglob("*"), attempt):
            sync(path)
        write_json(attempt / MANIFEST, {"files": hash_files(attempt)})
        if self.path.exists() and not self.is_whole():
            os.replace(self.path, self.path.with_name(f"{self.name}.{uuid4().hex}.damaged"))
        try:
            os.rename(attempt, self.path)
        except OSError:
            if not self.is_whole():
                raise
            shutil.rmtree(attempt)  # another attempt was first


def plan_tasks(stage: Path, names: list[str]) -> list[str]:
    """Write down which tasks a stage has, and return those without a whole result."""
    (stage / TASKS).mkdir(parents=True, exist_ok=True)
    write_json(stage / TASKS / _PLAN, {"names": names})
    return [name for name in names if not TaskFolder(stage, name).is_whole()]


def planned_tasks(stage: Path) -> list[TaskFolder]:
    """Return the tasks of a stage that is being filled; none if it is not split."""
    try:
        plan: dict[str, Any] = parse_json((stage / TASKS / _PLAN).read_text())
        return [TaskFolder(stage, str(name)) for name in plan["names"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def drop_tasks(stage: Path) -> None:
    """Take the tasks' folders away, if there are any, once the stage holds what was in them."""
    if (stage / TASKS).exists():
        shutil.rmtree(stage / TASKS)


def keep_only_tasks(stage: Path) -> None:
    """Take away what a try without tasks left in a stage's folder that is being filled."""
    for path in stage.iterdir():
        if path.name not in (TASKS, INPUTS):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
