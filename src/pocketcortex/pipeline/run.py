"""A whole run: stages in order, each skipped if it is done, and the report at the end."""

import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from pocketcortex.core import (
    InputError,
    RunFolder,
    keep_freed_memory,
    provenance,
    write_json,
)
from pocketcortex.pipeline import compression
from pocketcortex.pipeline.config import RunConfig
from pocketcortex.pipeline.inputs import prepare_inputs
from pocketcortex.pipeline.progress import say
from pocketcortex.pipeline.stages import COMPACT, Stages
from pocketcortex.pipeline.teacher import MappedTeacher, score_sessions
from pocketcortex.pipeline.write_up import write_up
from pocketcortex.zoo import Backbone, FeatureStore, load_network


def run(config: RunConfig, out: str | Path, *, device: str = "auto") -> dict[str, Any]:
    """Do everything a configuration asks for and return the summary of its scores.

    Every stage ends in a folder of its own below `out`; one whose inputs have not changed is not
    done again, so a run that was stopped at any moment goes on where it was and ends, on a CPU
    with the same seed and number of threads, with the same numbers.

    Parameters
    ----------
    config
        What to do.
    out
        The run folder.
    device
        ``auto``, ``cpu`` or ``cuda``.

    Returns
    -------
    The content of ``scores/summary.json`` with the path of the report.

    Raises
    ------
    InputError
        If the recordings, the network or the folder are at fault.
    """
    with _opened(config, out, device, Stages.check) as (folder, stages, record):
        _tell_unusable(stages)
        _Chain(folder, stages).report(record)
    summary: dict[str, Any] = json.loads((Path(out) / "scores" / "summary.json").read_text())
    return summary | {"report": str(Path(out) / "report" / "report.html")}


def fit_ensemble(config: RunConfig, out: str | Path, *, device: str = "auto") -> dict[str, Any]:
    """Train the teacher's members, the first stage of a run, and return what came of it.

    Parameters
    ----------
    config, out, device
        As for `run`, which goes on from here in the same folder; several test sessions may be
        named.

    Raises
    ------
    InputError
        If the recordings, the network or the folder are at fault.
    """
    with _opened(config, out, device) as (folder, stages, _record):
        teacher = _teacher_stage(folder, stages)
        history = json.loads((teacher / "history.json").read_text())
        return {
            "run": str(folder.path),
            "train": [s.id for s in stages.inputs.train],
            "validation": stages.inputs.validation.id,
            "n_members": stages.config.teacher.n_members,
            "n_images": sum(s.n_stimuli for s in stages.inputs.train),
            "validation_r2": history["validation"],
            "seconds": folder.seconds("teacher"),
        }


def score_ensemble(out: str | Path, *, device: str = "auto") -> dict[str, Any]:
    """Score a trained teacher on the held-out half of every test session, beside its peers.

    Peers: ridge and a factorized map from the backbone's best layer (chosen on the validation
    session), ridge from all its layers, and, where the configuration names a release, its shared
    and compact models.

    Parameters
    ----------
    out
        Folder of `fit_ensemble` or `run`.
    device
        ``auto``, ``cpu`` or ``cuda``.

    Returns
    -------
    The content of ``ensemble_scores/summary.json``; ``scores.parquet`` beside it has one row a
    neuron, model and metric.

    Raises
    ------
    InputError
        If the folder holds no run, or what the run was made of is gone.
    """
    config = _config_of(out)
    with _opened(config, out, device) as (folder, stages, record):
        teacher = _teacher_stage(folder, stages)
        scores = stages.teacher_scores(teacher)
        settings = {
            "seed": config.seed,
            "data": stages.inputs.fingerprint,
            "backbone": stages.backbone.key,
            "prior": scores.prior.key if scores.prior else None,
            "shared": {name: answers.key for name, answers in scores.shared.items()},
            "release": scores.release,
        }

        def work(stage: Path) -> None:
            sessions = score_sessions(stage, scores, stages.inputs.tests, stages.seed)
            summary = {"sessions": sessions, "best_layer": scores.best_layer.layers[0]}
            write_json(stage / "summary.json", summary | {"provenance": record})

        folder.stage("ensemble_scores", settings, work, after="teacher")
    summary: dict[str, Any] = json.loads(
        (Path(out) / "ensemble_scores" / "summary.json").read_text()
    )
    return summary


def compress(
    config: RunConfig,
    out: str | Path,
    step: Literal["distil", "prune", "retrain"],
    *,
    device: str = "auto",
) -> dict[str, Any]:
    """Go on with a run as far as one step of its compression, and return what came of it.

    Parameters
    ----------
    config, out, device
        As for `run`, which goes on from here in the same folder.
    step
        ``distil``: students fitted to the teacher's responses. ``prune``: their filters that
        matter least removed. ``retrain``: what is left trained further.

    Returns
    -------
    Where the models are, their sizes, and their squared correlation with the teacher on images
    that none was trained on.

    Raises
    ------
    InputError
        If the recordings, the network or the folder are at fault.
    """
    with _opened(config, out, device, Stages.check) as (folder, stages, _record):
        _tell_unusable(stages)
        chain = _Chain(folder, stages)
        done = {
            "distil": lambda: chain.students,
            "prune": lambda: chain.pruned,
            "retrain": lambda: chain.compact,
        }[step]()
        load = compression.load_students if step == "distil" else compression.load_models
        models = load(stages, done)
        agreement = json.loads((done / "agreement.json").read_text())
        return {
            "models": str(done),
            "n_neurons": len(models),
            "n_images": len(stages.bank.trained),
            "r2_teacher": agreement["median"],
            "n_images_monitored": agreement["n_images"],
            "n_parameters": float(np.median([m.n_parameters.total for m in models])),
            "n_filters": float(np.median([sum(m.filters_per_layer) for m in models])),
            "seconds": folder.seconds(done.name),
        }


def compress_shared(
    config: RunConfig,
    out: str | Path,
    sizes: Sequence[int],
    *,
    n_images: int | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Train shared models of several sizes, with trained and with random early filters.

    Parameters
    ----------
    config, out, device
        As for `run`; ``students`` says how they are trained and how many filters the last two
        layers have.
    sizes
        Filters in each of the first three layers, one model of each kind for each.
    n_images
        Images of an epoch, drawn by seed from those that students see; None for all.

    Returns
    -------
    The content of ``shared/summary.json``.

    Raises
    ------
    InputError
        As `run`; if a size is below 1 or given twice, or `n_images` below 1.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Fig. 3d-f.
    """
    if not sizes or min(sizes) < 1 or len(set(sizes)) < len(sizes):
        raise InputError(f"sizes must be different numbers of filters, 1 or more; got {sizes}")
    if n_images is not None and n_images < 1:
        raise InputError(f"n_images must be 1 or more, or None for all; got {n_images}")
    with _opened(config, out, device, Stages.check) as (folder, stages, _record):
        _tell_unusable(stages)
        chain = _Chain(folder, stages)
        labels = chain.labels
        inputs = chain.tables("students") | {"sizes": list(sizes), "n_images": n_images}
        done = chain.do(
            "shared",
            lambda p: compression.shared_models(stages, p, labels, sizes, n_images),
            inputs,
            "labels",
        )
        summary: dict[str, Any] = json.loads((done / "summary.json").read_text())
        return summary | {"seconds": folder.seconds("shared")}


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
    with _opened(_config_of(out), out, device) as (folder, stages, _record):
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
    _ = _Chain(folder, stages).mapping


def _config_of(out: str | Path) -> RunConfig:
    """Return the configuration that a run folder was made from."""
    path = Path(out) / "config.json"
    try:
        return RunConfig.model_validate_json(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{out} holds no run ({path} cannot be read); make one with `pocketcortex ensemble fit`"
        ) from error


@contextmanager
def _opened(
    config: RunConfig,
    out: str | Path,
    device: str,
    check: Callable[[Stages], None] = lambda stages: None,
) -> Iterator[tuple[RunFolder, Stages, dict[str, Any]]]:
    """Hold a run folder; yield it, the stages over its inputs and the record of the run."""
    folder = RunFolder(out)
    keep_freed_memory()
    with folder.locked():
        device = resolve_device(device)
        config = _with_seed(config, folder)
        assert config.seed is not None  # noqa: S101
        inputs = prepare_inputs(config.recordings, config.seed)
        backbone = Backbone(
            load_network(config.backbone.network),
            config.backbone.layers,
            input_size=config.backbone.input_size,
            device=device,
        )
        stages = Stages(config, inputs, backbone, FeatureStore(folder.path / "features"), device)
        _ = stages.prior  # refused now rather than after the training
        check(stages)
        folder.write_json("config.json", config.model_dump(mode="json"))
        say(f"run in {folder.path} on {device}, seed {config.seed}")
        record = provenance(config.seed) | {"device": device, "inputs": inputs.fingerprint}
        folder.write_json("manifest.json", record)
        yield folder, stages, record


def resolve_device(device: str) -> str:
    """Return ``cpu`` or ``cuda`` for ``auto``, ``cpu`` or ``cuda``.

    Raises
    ------
    InputError
        If the name is another one or there is no such device.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"device must be auto, cpu or cuda; got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda was asked for, but PyTorch sees no GPU; use --device cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def _with_seed(config: RunConfig, folder: RunFolder) -> RunConfig:
    """Return the configuration with a seed: its own, the folder's earlier one, or a new one."""
    if config.seed is not None:
        return config
    try:
        seed = int(json.loads((folder.path / "config.json").read_text())["seed"])
    except (OSError, ValueError, KeyError, TypeError):
        seed = secrets.randbelow(2**31)
    return config.model_copy(update={"seed": seed})


def _teacher_stage(folder: RunFolder, stages: Stages) -> Path:
    settings = stages.config.teacher.model_dump(mode="json")
    del settings["prior"]  # the members do not depend on it
    inputs = {
        "seed": stages.seed,
        "data": stages.inputs.teacher_fingerprint,
        "backbone": stages.backbone.key,
        "teacher": settings,
    }
    path, skipped = folder.stage("teacher", inputs, stages.teacher)
    _say_done(folder, "teacher", skipped)
    return path


def _say_done(folder: RunFolder, name: str, skipped: bool) -> None:
    say(f"{name}: {'done before' if skipped else 'done'} ({folder.seconds(name):.0f} s)")


def _tell_unusable(stages: Stages) -> None:
    for test in stages.inputs.tests:
        for neuron, why in test.unusable.items():
            say(f"neuron {neuron} of session {test.fit.id} cannot be modelled: {why}")


class _Chain:
    """The stages of a run in their order, each done when it is asked for."""

    def __init__(self, folder: RunFolder, stages: Stages) -> None:
        self.folder, self.stages = folder, stages
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

    def tables(self, *names: str) -> dict[str, Any]:
        """Return tables of the configuration as a stage's inputs."""
        whole = self.stages.config.model_dump(mode="json")
        return {name: whole[name] for name in names}

    @cached_property
    def teacher(self) -> Path:
        return _teacher_stage(self.folder, self.stages)

    @cached_property
    def mapping(self) -> Path:
        teacher = self.teacher
        inputs = {"neurons": {t.fit.id: t.usable.tolist() for t in self.stages.inputs.tests}}
        return self.do("mapping", lambda p: self.stages.mapping(p, teacher), inputs, "teacher")

    @cached_property
    def labels(self) -> Path:
        teacher, mapping = self.teacher, self.mapping
        inputs = {"bank": self.stages.bank.stimuli.fingerprint}
        return self.do(
            "labels", lambda p: self.stages.labels(p, teacher, mapping), inputs, "teacher mapping"
        )

    @cached_property
    def students(self) -> Path:
        labels = self.labels
        return self.do(
            "students",
            lambda p: compression.students(self.stages, p, labels),
            self.tables("students"),
            "labels",
        )

    @cached_property
    def pruned(self) -> Path:
        labels, students = self.labels, self.students
        settings = self.stages.config.compact
        names = {"method", "n_fixed", "threshold", "min_filters", "n_pruning_images"}
        inputs = settings.model_dump(include=names)
        return self.do(
            "pruned",
            lambda p: compression.pruned(self.stages, p, labels, students),
            {"pruning": inputs},
            "labels students",
        )

    @cached_property
    def compact(self) -> Path:
        labels, pruned = self.labels, self.pruned
        return self.do(
            "compact",
            lambda p: compression.compact(self.stages, p, labels, pruned),
            self.tables("compact"),
            "labels pruned",
        )

    @cached_property
    def scores(self) -> Path:
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

        return self.do("scores", work, self.tables("recordings"), "mapping students compact")

    @cached_property
    def stimuli(self) -> Path:
        compact = self.compact

        def work(folder: Path) -> None:
            self.stages.stimuli(folder, compression.load_models(self.stages, compact))

        return self.do("stimuli", work, self.tables("stimuli"), "compact")

    @cached_property
    def causal(self) -> Path | None:
        """The causal test, which only a simulated animal can be given."""
        if self.stages.config.recordings.insilico is None:
            return None
        compact, stimuli = self.compact, self.stimuli

        def work(folder: Path) -> None:
            small = compression.load_models(self.stages, compact)
            self.stages.causal(folder, stimuli, small)

        return self.do("causal", work, {}, "stimuli compact")

    def report(self, record: dict[str, Any]) -> Path:
        scores, stimuli, compact = self.scores, self.stimuli, self.compact
        causal = self.causal
        return self.do(
            "report",
            lambda p: write_up(p, self.stages, record, scores, stimuli, compact, causal),
            self.tables("recordings", "backbone", "teacher", "students", "compact", "stimuli"),
            "scores stimuli compact" + (" causal" if causal is not None else ""),
        )
