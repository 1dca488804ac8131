"""A whole run: stages in order, each skipped if it is done, and the report at the end."""

import json
import secrets
from pathlib import Path
from typing import Any

import torch

from pocketcortex.core import InputError, RunFolder, keep_freed_memory, provenance
from pocketcortex.pipeline.config import RunConfig
from pocketcortex.pipeline.inputs import prepare_inputs
from pocketcortex.pipeline.progress import say
from pocketcortex.pipeline.stages import Stages
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
    folder = RunFolder(out)
    keep_freed_memory()
    with folder.locked():
        device = resolve_device(device)
        config = _with_seed(config, folder)
        assert config.seed is not None  # noqa: S101
        inputs = prepare_inputs(config.recordings, config.seed)
        backbone = Backbone(
            load_network(config.backbone.network),
            config.backbone.layer,
            input_size=config.backbone.input_size,
            device=device,
        )
        stages = Stages(config, inputs, backbone, FeatureStore(folder.path / "features"), device)
        stages.check()
        folder.write_json("config.json", config.model_dump(mode="json"))
        say(f"run in {folder.path} on {device}, seed {config.seed}")
        for neuron, why in inputs.unusable.items():
            say(f"neuron {neuron} of session {inputs.fit.id} cannot be modelled: {why}")
        record = provenance(config.seed) | {"device": device, "inputs": inputs.fingerprint}
        folder.write_json("manifest.json", record)
        _do_stages(folder, stages, record)
    summary: dict[str, Any] = json.loads((folder.path / "scores" / "summary.json").read_text())
    return summary | {"report": str(folder.path / "report" / "report.html")}


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


def _do_stages(folder: RunFolder, stages: Stages, record: dict[str, Any]) -> None:
    config = stages.config
    common = {"seed": config.seed, "data": stages.inputs.fingerprint}

    def stage(name: str, work: Any, tables: str, after: str = "") -> Path:
        whole = config.model_dump(mode="json")
        settings = {table: whole[table] for table in tables.split()}
        path, skipped = folder.stage(name, common | settings, work, after=after)
        seconds = folder.seconds(name)
        say(f"{name}: {'done before' if skipped else 'done'} ({seconds:.0f} s)")
        return path

    common["backbone"] = stages.backbone.key
    teacher = stage("teacher", stages.teacher, "teacher")
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
