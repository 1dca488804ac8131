"""A whole run: stages in order, each skipped if it is done, and the report at the end."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pocketcortex.core import InputError, write_json
from pocketcortex.pipeline import compression
from pocketcortex.pipeline.chain import opened, teacher_stage, tell_unusable
from pocketcortex.pipeline.config import RunConfig
from pocketcortex.pipeline.opened_chain import opened_chain
from pocketcortex.pipeline.opening import config_of
from pocketcortex.pipeline.scheduler import LOCAL
from pocketcortex.pipeline.stages import Stages
from pocketcortex.pipeline.teacher import score_sessions


def run(
    config: RunConfig,
    out: str | Path,
    *,
    device: str = "auto",
    scheduler: str = LOCAL,
    retry: bool = False,
) -> dict[str, Any]:
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
        ``auto``, ``cpu`` or ``cuda``; of the workers where there are some, ``auto`` being ``cuda``
        where they have the Dask resource ``GPU``.
    scheduler
        Where stages that can be split are done: ``local``, ``dask://HOST:PORT``,
        ``slurm:PROFILE.toml`` or ``pbs:PROFILE.toml`` (`open_scheduler`). The numbers are the same.
    retry
        Throw away what stages that failed left, checkpoints too, and do them from their start.

    Returns
    -------
    The content of ``scores/summary.json`` with the path of the report.

    Raises
    ------
    InputError
        If the recordings, the network, the folder or the scheduler are at fault.
    """
    check = Stages.check_whole_run
    with opened_chain(config, out, device, scheduler, check, retry=retry) as held:
        tell_unusable(held.stages)
        held.chain.report(held.record)
    summary: dict[str, Any] = json.loads((Path(out) / "scores" / "summary.json").read_text())
    return summary | {"report": str(Path(out) / "report" / "report.html")}


def fit_ensemble(
    config: RunConfig,
    out: str | Path,
    *,
    device: str = "auto",
    scheduler: str = LOCAL,
    retry: bool = False,
) -> dict[str, Any]:
    """Train the teacher's members, the first stage of a run, and return what came of it.

    Parameters
    ----------
    config, out, device, scheduler, retry
        As for `run`, which goes on from here in the same folder; several test sessions may be
        named.

    Raises
    ------
    InputError
        If the recordings, the network or the folder are at fault.
    """
    with opened_chain(config, out, device, scheduler, retry=retry) as held:
        folder, stages, teacher = held.folder, held.stages, held.chain.teacher
        history = json.loads((teacher / "history.json").read_text())
        return {
            "run": str(folder.path),
            "train": [s.id for s in stages.inputs.train],
            "validation": stages.inputs.validation.id,
            "n_members": stages.config.teacher.n_members,
            "n_images": sum(s.n_stimuli for s in stages.inputs.train),
            "validation_r2": history["validation"],
            "n_groups": len(history.get("groups", [None])),
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
    config = config_of(out)
    with opened(config, out, device) as (folder, stages, record):
        teacher = teacher_stage(folder, stages)
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
    scheduler: str = LOCAL,
    retry: bool = False,
) -> dict[str, Any]:
    """Go on with a run as far as one step of its compression, and return what came of it.

    Parameters
    ----------
    config, out, device, scheduler, retry
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
    with opened_chain(config, out, device, scheduler, Stages.check, retry=retry) as held:
        stages, chain = held.stages, held.chain
        tell_unusable(stages)
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
            "seconds": held.folder.seconds(done.name),
        }


def compress_shared(
    config: RunConfig,
    out: str | Path,
    sizes: Sequence[int],
    *,
    n_images: int | None = None,
    device: str = "auto",
    scheduler: str = LOCAL,
    retry: bool = False,
) -> dict[str, Any]:
    """Train shared models of several sizes, with trained and with random early filters.

    Parameters
    ----------
    config, out, device, scheduler, retry
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
    with opened_chain(config, out, device, scheduler, Stages.check, retry=retry) as held:
        tell_unusable(held.stages)
        chain = held.chain
        labels = chain.labels
        inputs = chain.tables("students") | {"sizes": list(sizes), "n_images": n_images}
        done = chain.do(
            "shared",
            lambda p: chain.work.shared_models(p, labels, sizes, n_images),
            inputs,
            "labels",
        )
        summary: dict[str, Any] = json.loads((done / "summary.json").read_text())
        return summary | {"seconds": held.folder.seconds("shared")}
