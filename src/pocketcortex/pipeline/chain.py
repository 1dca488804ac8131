"""A run folder opened, and the chain of its stages, each done when it is asked for."""

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from pocketcortex.core import InputError, RunFolder, keep_freed_memory, provenance
from pocketcortex.pipeline import compression
from pocketcortex.pipeline.config import RunConfig
from pocketcortex.pipeline.inputs import prepare_inputs
from pocketcortex.pipeline.opening import config_of, open_backbone, resolve_device
from pocketcortex.pipeline.progress import say
from pocketcortex.pipeline.run_status import PRUNING, STAGES
from pocketcortex.pipeline.stages import COMPACT, Stages
from pocketcortex.pipeline.teacher import MappedTeacher
from pocketcortex.pipeline.work import InProcess, Work
from pocketcortex.pipeline.write_up import write_up
from pocketcortex.zoo import FeatureStore


@contextmanager
def opened(
    config: RunConfig,
    out: str | Path,
    device: str,
    check: Callable[[Stages], None] = lambda stages: None,
    *,
    retry: bool = False,
) -> Iterator[tuple[RunFolder, Stages, dict[str, Any]]]:
    """Hold a run folder; yield it, the stages over its inputs and the record of the run.

    With `retry`, what failed stages left in it is thrown away first.
    """
    folder = RunFolder(out)
    keep_freed_memory()
    with folder.locked():
        device = resolve_device(device)
        for name in folder.clear_failed() if retry else ():
            say(f"{name}: failed before; what it left is thrown away")
        config = _with_seed(config, folder)
        assert config.seed is not None  # noqa: S101
        inputs = prepare_inputs(config.recordings, config.seed)
        backbone = open_backbone(config, device)
        stages = Stages(config, inputs, backbone, FeatureStore(folder.path / "features"), device)
        _ = stages.prior  # refused now rather than after the training
        check(stages)
        folder.write_json("config.json", config.model_dump(mode="json"))
        say(f"run in {folder.path} on {device}, seed {config.seed}")
        record = provenance(config.seed) | {"device": device, "inputs": inputs.fingerprint}
        folder.write_json("manifest.json", record)
        yield folder, stages, record


def _with_seed(config: RunConfig, folder: RunFolder) -> RunConfig:
    """Return the configuration with a seed: its own, the folder's earlier one, or a new one."""
    if config.seed is not None:
        return config
    try:
        seed = int(json.loads((folder.path / "config.json").read_text())["seed"])
    except (OSError, ValueError, KeyError, TypeError):
        seed = secrets.randbelow(2**31)
    return config.model_copy(update={"seed": seed})


def teacher_stage(folder: RunFolder, stages: Stages, work: Work | None = None) -> Path:
    """Train the members unless they are trained, and return their folder."""
    done = stages.teacher if work is None else work.teacher
    path, skipped = folder.stage("teacher", teacher_inputs(stages), done)
    _say_done(folder, "teacher", skipped)
    return path


def teacher_inputs(stages: Stages) -> dict[str, Any]:
    """Return everything that the members depend on."""
    settings = stages.config.teacher.model_dump(mode="json")
    del settings["prior"]  # the members do not depend on it
    if settings["group"] is None:
        del settings["group"]
    return {
        "seed": stages.seed,
        "data": stages.inputs.teacher_fingerprint,
        "backbone": stages.backbone.key,
        "teacher": settings,
    }


def _say_done(folder: RunFolder, name: str, skipped: bool) -> None:
    say(f"{name}: {'done before' if skipped else 'done'} ({folder.seconds(name):.0f} s)")


def tell_unusable(stages: Stages) -> None:
    """Say which neurons cannot be modelled, and why."""
    for test in stages.inputs.tests:
        for neuron, why in test.unusable.items():
            say(f"neuron {neuron} of session {test.fit.id} cannot be modelled: {why}")


@contextmanager
def opened_teachers(
    out: str | Path, *, device: str = "auto"
) -> Iterator[tuple[Stages, list[MappedTeacher], str]]:
    """Hold a run folder with its teacher as it was trained, mapped to each test session.

    The teacher is never trained again here, so sessions may have been added to its recordings
    since. The maps are made if there are none.

    Parameters
    ----------
    out
        Folder of `fit_ensemble` or `run`.
    device
        ``auto``, ``cpu`` or ``cuda``.

    Yields
    ------
    The stages over the recordings as they are now, one teacher for each test session, and a hash
    of members and maps.

    Raises
    ------
    InputError
        If the folder holds no trained teacher, or the recordings changed before it was mapped.
    """
    with opened(config_of(out), out, device) as (folder, stages, _record):
        _ensure_mapped(folder, stages)
        members = stages.load_members(folder.path / "teacher")
        teachers = [
            MappedTeacher.load(folder.path / "mapping" / test.name / "teacher", members)
            for test in stages.inputs.tests
        ]
        yield stages, teachers, f"{folder.digests['teacher']} {folder.digests['mapping']}"


def _ensure_mapped(folder: RunFolder, stages: Stages) -> None:
    """Map the teacher that there is to the test sessions' neurons, unless it is mapped."""
    teacher, mapping = folder.finished("teacher"), folder.finished("mapping")
    if not teacher:
        raise InputError(
            f"{folder.path} holds no trained teacher; train it with `pocketcortex ensemble fit`"
        )
    neurons = {test.fit.id: test.usable.tolist() for test in stages.inputs.tests}
    if (
        mapping
        and mapping["upstream"] == {"teacher": folder.digests["teacher"]}
        and mapping["inputs"]["neurons"] == neurons
    ):
        return
    if teacher["inputs"]["data"] != stages.inputs.teacher_fingerprint:
        raise InputError(
            f"the recordings have changed since the teacher in {folder.path} was trained, and it "
            "is not mapped to their test sessions; train one on them in another folder"
        )
    _ = Chain(folder, stages).mapping


class Chain:
    """The stages of a run in their order, each done when it is asked for.

    Parameters
    ----------
    folder
        The run folder, held.
    stages
        The stages over its inputs.
    work
        Who does the stages that can be split; None for this process.
    """

    def __init__(self, folder: RunFolder, stages: Stages, work: Work | None = None) -> None:
        self.folder, self.stages = folder, stages
        self.work = InProcess(stages) if work is None else work
        self._common = {
            "seed": stages.seed,
            "data": stages.inputs.fingerprint,
            "backbone": stages.backbone.key,
            "prior": stages.prior.key if stages.prior else None,
        }

    def do(
        self, name: str, work: Callable[[Path], object], settings: dict[str, Any], after: str
    ) -> Path:
        """Do one stage unless it is done."""
        path, skipped = self.folder.stage(name, self._common | settings, work, after=after)
        _say_done(self.folder, name, skipped)
        return path

    def _done(self, name: str, work: Callable[[Path], object]) -> Path:
        return self.do(name, work, *self.needs(name))

    def needs(self, name: str) -> tuple[dict[str, Any], str]:
        """Return what a stage depends on of its own, and the stages that it reads."""
        tables = self.tables
        if name == "mapping":
            neurons = {t.fit.id: t.usable.tolist() for t in self.stages.inputs.tests}
            return {"neurons": neurons}, "teacher"
        if name == "labels":
            return {"bank": self.stages.bank.stimuli.fingerprint}, "teacher mapping"
        if name == "pruned":
            settings = self.stages.config.compact.model_dump(include=set(PRUNING))
            return {"pruning": settings}, "labels students"
        if name == "report":
            causal = self.stages.config.recordings.insilico is not None
            of = ("recordings", "backbone", "teacher", "students", "compact", "stimuli")
            return tables(*of), "scores stimuli compact circuits" + (" causal" if causal else "")
        return {
            "students": (tables("students"), "labels"),
            "compact": (tables("compact"), "labels pruned"),
            "scores": (tables("recordings"), "mapping students compact"),
            "stimuli": (tables("stimuli"), "compact"),
            "causal": ({}, "stimuli compact"),
            "circuits": ({}, "compact"),
        }[name]

    def plan(self) -> dict[str, bool]:
        """Return the stages of a whole run in their order, with whether each is done already."""
        done = {"teacher": self.folder.is_done("teacher", teacher_inputs(self.stages))}
        for name in STAGES[1:]:
            if name == "causal" and self.stages.config.recordings.insilico is None:
                continue
            settings, after = self.needs(name)
            done[name] = self.folder.is_done(name, self._common | settings, after=after)
        return done

    def tables(self, *names: str) -> dict[str, Any]:
        """Return tables of the configuration as a stage's inputs."""
        whole = self.stages.config.model_dump(mode="json")
        return {name: whole[name] for name in names}

    @cached_property
    def teacher(self) -> Path:
        """The trained members."""
        return teacher_stage(self.folder, self.stages, self.work)

    @cached_property
    def mapping(self) -> Path:
        """The maps to the test sessions' neurons, and held-out predictions."""
        teacher = self.teacher
        return self._done("mapping", lambda p: self.work.mapping(p, teacher))

    @cached_property
    def labels(self) -> Path:
        """The teacher's responses to the images to distil with."""
        teacher, mapping = self.teacher, self.mapping
        return self._done("labels", lambda p: self.work.labels(p, teacher, mapping))

    @cached_property
    def students(self) -> Path:
        """The students."""
        labels = self.labels
        return self._done("students", lambda p: self.work.students(p, labels))

    @cached_property
    def pruned(self) -> Path:
        """The students without the filters that matter least."""
        labels, students = self.labels, self.students
        return self._done("pruned", lambda p: self.work.pruned(p, labels, students))

    @cached_property
    def compact(self) -> Path:
        """The compact models: pruned ones trained further."""
        labels, pruned = self.labels, self.pruned
        return self._done("compact", lambda p: self.work.compact(p, labels, pruned))

    @cached_property
    def scores(self) -> Path:
        """The scores on the held-out halves."""
        mapping, students, compact = self.mapping, self.students, self.compact

        def work(folder: Path) -> None:
            stages = self.stages
            small = compression.load_models(stages, compact)
            stages.scores(
                folder,
                mapping,
                {
                    compression.STUDENT: lambda s: compression.predict_students(
                        stages, students, s
                    ),
                    COMPACT: lambda s: compression.predict_models(stages, small, s),
                },
                {compression.STUDENT: compression.load_students(stages, students), COMPACT: small},
            )

        return self._done("scores", work)

    @cached_property
    def stimuli(self) -> Path:
        """The stimuli of a causal test of the compact models."""
        compact = self.compact

        def work(folder: Path) -> None:
            self.stages.stimuli(folder, compression.load_models(self.stages, compact))

        return self._done("stimuli", work)

    @cached_property
    def causal(self) -> Path | None:
        """The causal test, which only a simulated animal can be given."""
        if self.stages.config.recordings.insilico is None:
            return None
        compact, stimuli = self.compact, self.stimuli

        def work(folder: Path) -> None:
            small = compression.load_models(self.stages, compact)
            self.stages.causal(folder, stimuli, small)

        return self._done("causal", work)

    @cached_property
    def circuits(self) -> Path:
        """What the compact models prefer, and the circuit of the most convincing one."""
        compact = self.compact

        def work(folder: Path) -> None:
            self.stages.circuits(folder, compression.load_models(self.stages, compact))

        return self._done("circuits", work)

    def report(self, record: dict[str, Any]) -> Path:
        """Write the report, doing before whatever is not done, and return its folder."""
        scores, stimuli, compact = self.scores, self.stimuli, self.compact
        causal, circuits = self.causal, self.circuits
        return self._done(
            "report",
            lambda p: write_up(p, self.stages, record, scores, stimuli, compact, circuits, causal),
        )
