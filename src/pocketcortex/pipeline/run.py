"""A whole run: stages in order, each skipped if it is done, and the report at the end."""

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pocketcortex.core import (
    InputError,
    RunFolder,
    keep_freed_memory,
    provenance,
    write_json,
)
from pocketcortex.pipeline.config import RunConfig
from pocketcortex.pipeline.inputs import prepare_inputs
from pocketcortex.pipeline.progress import say
from pocketcortex.pipeline.stages import Stages
from pocketcortex.pipeline.teacher import score_sessions
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
        for neuron, why in stages.inputs.unusable.items():
            say(f"neuron {neuron} of session {stages.inputs.fit.id} cannot be modelled: {why}")
        _do_stages(folder, stages, record)
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
    path = Path(out) / "config.json"
    try:
        config = RunConfig.model_validate_json(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{out} holds no run ({path} cannot be read); make one with `pocketcortex ensemble fit`"
        ) from error
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


def _do_stages(folder: RunFolder, stages: Stages, record: dict[str, Any]) -> None:
    config = stages.config
    common = {
        "seed": config.seed,
        "data": stages.inputs.fingerprint,
        "backbone": stages.backbone.key,
        "prior": stages.prior.key if stages.prior else None,
    }

    def stage(name: str, work: Any, tables: str, after: str = "") -> Path:
        whole = config.model_dump(mode="json")
        settings = {table: whole[table] for table in tables.split()}
        path, skipped = folder.stage(name, common | settings, work, after=after)
        _say_done(folder, name, skipped)
        return path

    teacher = _teacher_stage(folder, stages)
    common["bank"] = stages.bank.fingerprint
    mapping = stage("mapping", lambda p: stages.mapping(p, teacher), "backbone", "teacher")
    students = stage("students", lambda p: stages.students(p, mapping), "students", "mapping")
    compact = stage(
        "compact", lambda p: stages.compact(p, mapping, students), "compact", "mapping students"
    )
    scores = stage(
        "scores",
        lambda p: stages.scores(p, mapping, students, compact),
        "recordings",
        "mapping students compact",
    )
    stimuli = stage(
        "stimuli", lambda p: stages.stimuli(p, mapping, compact), "stimuli", "mapping compact"
    )
    stage(
        "report",
        lambda p: write_up(p, stages, record, scores, stimuli, compact),
        "recordings backbone teacher students compact stimuli",
        "scores stimuli compact",
    )
