"""A sweep over networks on a scheduler's workers, a network a task."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pocketcortex.benchmark import AreaSettings
from pocketcortex.core import BrainArea, InputError, parse_json, write_json
from pocketcortex.core.runs import MANIFEST, read_json_object
from pocketcortex.pipeline.opening import resolve_device
from pocketcortex.pipeline.progress import say
from pocketcortex.pipeline.scheduler import LOCAL, Scheduler, open_scheduler
from pocketcortex.pipeline.tasks import TaskFolder, drop_tasks, plan_tasks
from pocketcortex.pipeline.zoo_models import ZooModel
from pocketcortex.pipeline.zoo_scores import SCORES, StreamSettings, score_zoo, slug

_FAILED = "failed.json"


@dataclass(frozen=True)
class ZooSweep:
    """A sweep over networks, as it travels to workers.

    Attributes
    ----------
    models, areas
        Return the rows and the recordings: functions of a module's top level with their arguments,
        which a worker calls itself; the files that they read lie on a shared disk.
    seed, settings, stream
        As for `score_zoo`; the stream's device is that of the workers.
    """

    models: partial[list[ZooModel]]
    areas: partial[list[BrainArea]]
    seed: int
    settings: AreaSettings
    stream: StreamSettings


def spread_zoo(
    sweep: ZooSweep, out: str | Path, *, scheduler: str = LOCAL, device: str = "auto"
) -> dict[str, Any]:
    """Score every network on every area where a scheduler says, and return the summary.

    The numbers and the folder are those of `score_zoo`, which joins what the workers made: a pair
    that it finds is taken by the content of weights, recordings and settings, as after a kill.

    Parameters
    ----------
    sweep
        What to score.
    out
        Folder that all workers see under the same path.
    scheduler
        As for `open_scheduler`; with ``local`` this is `score_zoo`.
    device
        ``auto``, ``cpu`` or ``cuda`` for the workers: ``auto`` is ``cuda`` where they have GPUs.

    Raises
    ------
    InputError
        As `score_zoo` and `open_scheduler`.
    """
    models, areas = sweep.models(), sweep.areas()
    with open_scheduler(scheduler) as where:
        if where.is_remote:
            left = [m.spec.name for m in models if not _is_scored(sweep, m, areas, Path(out))]
            _fill(sweep, left, Path(out), where, device)
            device = "auto" if device == "cuda" else device
    stream = replace(sweep.stream, device=resolve_device(device))
    return score_zoo(models, areas, out, seed=sweep.seed, settings=sweep.settings, stream=stream)


def _fill(sweep: ZooSweep, names: Sequence[str], out: Path, where: Scheduler, device: str) -> None:
    """Have the workers score networks, and put what they made where `score_zoo` looks."""
    out.mkdir(parents=True, exist_ok=True)
    gpu = device == "cuda" or (device == "auto" and where.has_gpus)
    kind = "cuda" if gpu else "cpu"
    tasks = {_task_name(sweep, name): name for name in names}
    left = plan_tasks(out, list(tasks))
    whole, here = str(out.resolve()), (kind, os.getcwd(), version("pocketcortex"))
    sent = {task: (whole, task, sweep, tasks[task], *here) for task in left}
    where.map(
        network_task, sent, title="networks", gpu=gpu,
        report=lambda task, told: say(f"{tasks[task]}: {told}"),
    )  # fmt: skip
    for task in tasks:
        made = TaskFolder(out, task).path / SCORES
        for pair in sorted(made.glob("*/*")):
            _take_over(pair, out / SCORES / pair.relative_to(made))
    drop_tasks(out)


def network_task(
    out: str, task: str, sweep: ZooSweep, name: str, device: str, directory: str, wanted: str
) -> str:
    """Score one network on a worker; return ``scored``, or why it cannot be.

    Raises
    ------
    InputError
        If the worker has another version of pocketcortex or does not see the folder.
    """
    if (here := version("pocketcortex")) != wanted:
        raise InputError(f"the worker has pocketcortex {here}, the sweep {wanted}; install one")
    if not Path(out).is_dir():
        raise InputError(f"the worker does not see {out}; it must lie on a disk that all share")
    os.chdir(directory)

    def work(folder: Path, checkpoint: Path) -> None:
        rows = [row for row in sweep.models() if row.spec.name == name]
        stream = replace(sweep.stream, device=resolve_device(device))
        try:
            score_zoo(
                rows, sweep.areas(), folder, seed=sweep.seed, settings=sweep.settings, stream=stream
            )
        except InputError as error:  # such as weights that are not here: told, and passed over
            write_json(folder / _FAILED, {name: str(error)})

    found = TaskFolder(Path(out), task)
    found.fill(work)
    failed = parse_json((found.path / _FAILED).read_text())
    return str(failed.get(name, "scored"))


def _is_scored(sweep: ZooSweep, model: ZooModel, areas: Sequence[BrainArea], out: Path) -> bool:
    """Return whether a network seems scored as asked; weights and recordings are not looked at."""
    asked = {"seed": sweep.seed, "settings": json.loads(json.dumps(asdict(sweep.settings)))}
    for area in areas:
        path = out / SCORES / slug(model.spec.name) / slug(area.id)
        inputs = read_json_object(path / MANIFEST).get("inputs", {})
        if {name: inputs.get(name) for name in asked} != asked:
            return False
    return True


def _take_over(made: Path, final: Path) -> None:
    """Copy one pair's finished folder to where `score_zoo` looks, in place of another one."""
    if read_json_object(final / MANIFEST).get("key") == read_json_object(made / MANIFEST)["key"]:
        return
    copied = final.with_name(f"{final.name}.partial")
    shutil.rmtree(copied, ignore_errors=True)
    shutil.copytree(made, copied)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(copied, final)


def _task_name(sweep: ZooSweep, name: str) -> str:
    """Return a name that follows from everything a network's scores depend on but files' contents.

    Of those, `score_zoo` makes sure when it joins.
    """
    calls = [
        (call.func.__module__, call.func.__qualname__, call.args, sorted(call.keywords.items()))
        for call in (sweep.models, sweep.areas)
    ]
    said = repr((calls, sweep.seed, sweep.settings, sweep.stream, name))
    return f"{slug(name)}-{hashlib.sha256(said.encode()).hexdigest()[:12]}"
