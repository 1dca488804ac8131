"""What a run will take before it is begun: time, memory and disk of each stage."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from pocketcortex.models import EnsembleShape, count_macs
from pocketcortex.pipeline.bank import label_ranges
from pocketcortex.pipeline.chain import Chain, opened
from pocketcortex.pipeline.cluster_profile import ClusterProfile
from pocketcortex.pipeline.config import RunConfig
from pocketcortex.pipeline.scheduler import LOCAL, parse_scheduler
from pocketcortex.pipeline.stages import Stages
from pocketcortex.training import new_students, student_groups

_GIGA = 1e9
_IMAGES_A_TASK = 2_048

# CPU seconds of one thread of an AMD EPYC, measured by `python -m benchmarks.scaling`
# (docs/scaling.json); each is for a giga multiply-add of one forward pass, so that other networks
# and image sizes can be told from it.
FORWARD_S = 0.025
"""A backbone's or a member's features."""
MEMBER_S = 0.079
"""A step of a member's training."""
STUDENT_S, RETRAIN_S = 0.2, 0.18
"""A step of a student's and of a pruned model's training."""
PRUNE_S = 0.72
"""Pruning, an image of the pruning images."""
SYNTHESIS_S = 0.14
"""A step of an image's synthesis."""
DECODE_S = 6e-4
"""An image of a bank decoded and cropped."""
PRUNED_PART = 0.3
"""Multiply-adds of a pruned model as a part of its student's; it depends on the neurons."""
FIXED_S = 1.0
"""A stage that only draws, scores or writes, however small."""
BASE_BYTES = 600 * 2**20
"""A process with its libraries, and the images being worked on."""


@dataclass(frozen=True)
class StageEstimate:
    """What a stage will take.

    Attributes
    ----------
    name
        The stage.
    is_done
        Whether it will be skipped.
    cpu_seconds
        CPU time of one thread, all tasks together.
    seconds
        Time on the clock: tasks shared by the workers, never less than the longest one.
    n_tasks
        Into how many tasks a scheduler's workers can share it.
    memory_bytes
        Peak of a process that does it.
    disk_bytes
        What it leaves in the run folder.
    """

    name: str
    is_done: bool
    cpu_seconds: float
    seconds: float
    n_tasks: int
    memory_bytes: int
    disk_bytes: int


@dataclass(frozen=True)
class RunEstimate:
    """What a run will take.

    Attributes
    ----------
    n_workers
        Worker processes that share the tasks.
    n_threads
        Threads of each.
    stages
        Each stage in order.
    """

    n_workers: int
    n_threads: int
    stages: tuple[StageEstimate, ...]

    @property
    def left(self) -> tuple[StageEstimate, ...]:
        """Stages that are not done."""
        return tuple(stage for stage in self.stages if not stage.is_done)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values, with the totals of what is not done."""
        left = self.left
        return asdict(self) | {
            "seconds": sum(stage.seconds for stage in left),
            "memory_bytes": max((stage.memory_bytes for stage in left), default=0),
            "disk_bytes": sum(stage.disk_bytes for stage in left),
        }


def estimate_run(
    config: RunConfig, out: str | Path, *, device: str = "auto", scheduler: str = LOCAL
) -> RunEstimate:
    """Read and check all inputs of a run, and return what is left to do; begin nothing.

    Times are of CPUs: multiply-adds counted for each stage, times seconds that were measured for
    one; some are guesses (docs/scaling.md), so take them for the order of a run's time. They say
    nothing of GPUs, which take a fraction. The run folder gets its configuration, which `run` then
    finds.

    Parameters
    ----------
    config, out, device, scheduler
        As for `run`. No job is asked for; of a Dask cluster that runs, one worker is counted.

    Raises
    ------
    InputError
        As `run` before its first stage.
    """
    profile = parse_scheduler(scheduler)[1]
    n_workers, n_threads = 1, torch.get_num_threads()
    if isinstance(profile, ClusterProfile):
        n_workers, n_threads = profile.jobs * profile.workers, profile.threads
    with opened(config, out, device, Stages.check_whole_run) as (folder, stages, _record):
        done = Chain(folder, stages).plan()
        costs = _Costs(stages)
        return RunEstimate(
            n_workers,
            n_threads,
            tuple(
                _estimated(name, is_done, costs.of(name), n_workers, n_threads)
                for name, is_done in done.items()
            ),
        )


def _estimated(
    name: str, is_done: bool, cost: "_Cost", n_workers: int, n_threads: int
) -> StageEstimate:
    rounds = math.ceil(cost.n_tasks / n_workers) if cost.n_tasks > 1 else 1
    seconds = cost.seconds / max(cost.n_tasks, 1) * rounds / n_threads
    return StageEstimate(
        name, is_done, cost.seconds, seconds, cost.n_tasks, int(BASE_BYTES + cost.memory),
        int(cost.disk),
    )  # fmt: skip


@dataclass(frozen=True)
class _Cost:
    """CPU seconds, tasks, and bytes of memory beyond the base and of disk."""

    seconds: float
    n_tasks: int = 1
    memory: float = 0
    disk: float = 0


class _Costs:
    """Counts the work of each stage from the inputs and the configuration."""

    def __init__(self, stages: Stages) -> None:
        self._stages, self._config, self._inputs = stages, stages.config, stages.inputs
        self._n = stages.inputs.n_usable
        first = stages.inputs.train[0].require_stimuli()
        self._size = first.image_size
        raw = torch.from_numpy(first.read([0]))
        with FlopCounterMode(display=False) as counter:
            features = stages.backbone(raw)
        self._backbone = counter.get_total_flops() / 2 / _GIGA
        self._maps = tuple(features.shape[1:])
        teacher = self._config.teacher
        shape = EnsembleShape(
            features.shape[1], teacher.width, teacher.bottleneck, teacher.n_blocks, teacher.stride
        )
        rows, columns = features.shape[2:]
        self._embedding = teacher.width * math.prod(shape.grid(rows, columns))
        per_pixel = features.shape[1] * teacher.width
        per_pixel += teacher.n_blocks * 3 * teacher.width * teacher.bottleneck
        self._member = per_pixel * rows * columns / _GIGA
        self._student = sum(count_macs(self._config.students.filters, self._size)) / _GIGA
        self._bank = len(stages.bank.stimuli)
        weights = sum(p.numel() for p in stages.backbone.network.parameters())
        self._weights = 4 * weights

    def of(self, name: str) -> _Cost:
        """Return what a stage costs."""
        known = {
            "teacher": self._teacher, "mapping": self._mapping, "labels": self._labels,
            "students": self._students, "pruned": self._pruned, "compact": self._compact,
            "stimuli": self._stimuli,
        }  # fmt: skip
        return known[name]() if name in known else _Cost(FIXED_S + self._n * 0.5)

    def _teacher(self) -> _Cost:
        settings = self._config.teacher
        sessions = (*self._inputs.train, self._inputs.validation)
        n_images = sum(session.n_stimuli for session in sessions)
        passes = settings.n_epochs
        if settings.schedule == "published":
            passes = settings.n_epochs * (settings.n_epochs + 1) // 2
        new = self._unstored([session.require_stimuli() for session in sessions])
        seconds = new * self._backbone * FORWARD_S
        seconds += passes * n_images * settings.n_members * self._member * MEMBER_S
        features = 2 * n_images * math.prod(self._maps)
        members = 4 * settings.n_members * self._member * _GIGA / math.prod(self._maps[1:])
        largest = max(session.n_stimuli for session in sessions)
        embeddings = 8 * largest * (self._embedding + largest)
        groups = len(self._stages.member_groups())
        memory = self._weights + 6 * members / groups + embeddings
        return _Cost(seconds, groups, memory, features + members)

    def _mapping(self) -> _Cost:
        tests = self._inputs.tests
        sets = [half.require_stimuli() for t in tests for half in (t.fit, t.held_out)]
        seconds = self._unstored(sets) * self._backbone * FORWARD_S
        n_images = sum(map(len, sets))
        seconds += self._config.teacher.n_members * n_images * self._member * FORWARD_S
        seconds += FIXED_S * len(tests) * self._config.teacher.n_members
        maps = 4 * self._n * self._config.teacher.n_members * self._embedding
        features = 2 * n_images * math.prod(self._maps)
        return _Cost(seconds, len(tests), self._weights + 4 * features, maps + features)

    def _labels(self) -> _Cost:
        members = self._config.teacher.n_members * self._member
        each = (self._backbone + members) * FORWARD_S + DECODE_S
        n_tasks = len(label_ranges(self._stages.bank, _IMAGES_A_TASK))
        maps = 4 * self._n * self._config.teacher.n_members * self._embedding
        return _Cost(self._bank * each, n_tasks, self._weights + maps, 4 * self._bank * self._n)

    def _students(self) -> _Cost:
        settings = self._config.students
        seen = settings.n_epochs * len(self._stages.bank.trained)
        parameters = 4e6
        if settings.kind == "shared":
            memory = 4 * self._bank * self._n
            return _Cost(seen * (self._student * STUDENT_S + DECODE_S), 1, memory, parameters)
        size = self._size
        groups = len(student_groups(new_students(self._n, settings.filters, size, seed=0)))
        seconds = seen * (self._n * self._student * STUDENT_S + groups * DECODE_S)
        return _Cost(seconds, groups, 4 * self._bank * self._n / groups, self._n * 4e5)

    def _pruned(self) -> _Cost:
        settings = self._config.compact
        seconds = self._n * settings.n_pruning_images * self._student * PRUNE_S
        memory = settings.n_pruning_images * 3 * math.prod(self._size)
        return _Cost(seconds, self._n, memory, self._n * 1e5)

    def _compact(self) -> _Cost:
        settings = self._config.compact
        n = min(settings.n_images or self._bank, len(self._stages.bank.trained))
        each = self._student * PRUNED_PART * RETRAIN_S
        groups = max(1, self._n // 3)
        seconds = settings.n_epochs * n * (self._n * each + groups * DECODE_S)
        return _Cost(seconds, groups, 4 * n * self._n, self._n * 1e5)

    def _stimuli(self) -> _Cost:
        settings = self._config.stimuli
        steps = settings.n_synthesized * settings.n_synthesis_steps + 50 * settings.n_adversarial
        each = self._student * PRUNED_PART
        seconds = self._n * each * (steps * SYNTHESIS_S + settings.n_candidates * FORWARD_S)
        n_images = settings.counts.n_stimuli(self._n)
        return _Cost(seconds, 1, settings.n_candidates * 4 * self._n, n_images * 3e4)

    def _unstored(self, sets: list[Any]) -> int:
        """Return how many images' features are not on disk."""
        store, backbone = self._stages.store, self._stages.backbone
        return sum(len(s) for s in sets if not store.path(backbone, s).exists())
