"""The stages that compress: distil, prune, retrain; and shared models of several sizes."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError

from pocketcortex.compress import (
    layer_statistics,
    prune,
    prune_jointly,
    readout_contributions,
)
from pocketcortex.core import InputError, StimulusSet, map_array, read_array, write_json
from pocketcortex.metrics import pearson_r2
from pocketcortex.models import (
    CompactModel,
    SharedCompactModel,
    import_shared_model,
    published_shared_models,
    shared_outputs,
)
from pocketcortex.models._tensor_files import read_tensors_whole, write_tensors
from pocketcortex.pipeline.config import CompactConfig, StudentsConfig
from pocketcortex.pipeline.progress import progress_bar
from pocketcortex.pipeline.scores import medians, score_table
from pocketcortex.pipeline.simulated_causal import predictions
from pocketcortex.pipeline.stages import CHECKPOINT, Stages
from pocketcortex.plots import plot_score_by_filters, render_figure
from pocketcortex.report.tables import metric_label
from pocketcortex.training import (
    Distillation,
    distill_shared,
    distill_students,
    new_students,
    retrain,
)
from pocketcortex.training.distill import N_TRUNK
from pocketcortex.training.optimize import raw_batches

STUDENT = "student"
MONITOR_R2 = "monitor_r2.npy"
_SHARED, _TEACHER = "shared.safetensors", "teacher.npy"
SHARED_KINDS = {"trained": 0, "random": N_TRUNK}
"""Kinds of shared models, and how many first layers stay as they start."""
_BATCH = 16

Predictions: TypeAlias = Float[np.ndarray, "n_stimuli n_neurons"]


def students(stages: Stages, folder: Path, labels: Path) -> None:
    """Distil the teacher: one network for all neurons, or one a neuron."""
    if stages.config.students.kind == "shared":
        distil_shared(stages, folder, folder / CHECKPOINT, labels)
    else:
        every = range(stages.inputs.n_usable)
        distil_columns(stages, folder, folder / CHECKPOINT, labels, every)
    write_student_agreement(stages, folder, labels)
    (folder / CHECKPOINT).unlink(missing_ok=True)


def distil_shared(stages: Stages, folder: Path, checkpoint: Path, labels: Path) -> None:
    """Fit the network for all neurons and write it."""
    network = _shared(stages, labels, stages.config.students, checkpoint)
    _save_shared(network, folder / _SHARED)


def distil_columns(
    stages: Stages, folder: Path, checkpoint: Path, labels: Path, columns: Sequence[int]
) -> None:
    """Fit the students of some neurons and write them, with how they came along."""
    settings = stages.config.students
    size = stages.bank.stimuli.image_size
    fresh = new_students(stages.inputs.n_usable, settings.filters, size, seed=stages.seed)
    images, targets, monitor = _material(stages, labels, columns=columns)
    with progress_bar("students", settings.n_epochs * len(images) * len(columns)) as advance:
        found = distill_students(
            [fresh[k] for k in columns], images, targets, distillation_of(settings),
            seed=stages.seed, monitor=monitor, device=stages.device,
            checkpoint=checkpoint, advance=advance,
        )  # fmt: skip
    _save_models(stages, found.models, folder, columns)
    np.save(folder / MONITOR_R2, found.monitor_r2)


def write_student_agreement(stages: Stages, folder: Path, labels: Path) -> None:
    """Write how well a stage's students agree with the teacher on the monitored images."""
    _write_agreement(stages, folder, labels, predict_students(stages, folder, _monitored(stages)))


def joined_monitors(parts: Sequence[Path]) -> Float[np.ndarray, "n_epochs n_neurons"]:
    """Return the histories that `distil_columns` wrote, side by side, NaN after a part's end."""
    histories = [read_array(part / MONITOR_R2) for part in parts]
    n_epochs = max(map(len, histories))
    padded = [
        np.pad(h, ((0, n_epochs - len(h)), (0, 0)), constant_values=np.nan) for h in histories
    ]
    return np.concatenate(padded, axis=1)


def pruned(stages: Stages, folder: Path, labels: Path, of_students: Path) -> None:
    """Prune each neuron's student; those that an earlier try saved stay."""
    every = range(stages.inputs.n_usable)
    small = prune_columns(stages, folder, labels, of_students, every)
    _write_agreement(stages, folder, labels, predict_models(stages, small, _monitored(stages)))


def prune_columns(
    stages: Stages, folder: Path, labels: Path, of_students: Path, columns: Sequence[int]
) -> list[CompactModel]:
    """Prune the students of some neurons, unless they are saved, and return what is left."""
    settings = stages.config.compact
    names, small = model_names(stages), {}
    for k in columns:
        with suppress(InputError):
            small[k] = CompactModel.load(folder / names[k])
    if missing := [k for k in columns if k not in small]:
        rng = np.random.default_rng([stages.seed, 1])
        chosen = np.sort(rng.permutation(stages.bank.trained)[: settings.n_pruning_images])
        images = stages.bank.stimuli.take(chosen).images()
        targets = map_array(labels / _TEACHER)[chosen].astype(np.float64)
        models = load_students(stages, of_students)
        with progress_bar("pruning", len(missing)) as advance:
            for k in missing:
                model = models[k].to(stages.device)
                small[k] = _pruned(model, images, targets[:, k], settings).cpu()
                small[k].save(folder / names[k])
                advance(1)
    return [small[k] for k in columns]


def _pruned(
    model: CompactModel,
    images: UInt8[np.ndarray, "n 3 height width"],
    teacher: Float[np.ndarray, " n"],
    settings: CompactConfig,
) -> CompactModel:
    if settings.method == "joint":
        return prune_jointly(
            model, images, teacher,
            threshold=settings.threshold, min_filters=settings.min_filters,
            n_fixed=settings.n_fixed,
        )  # fmt: skip
    statistics = layer_statistics(model.layers, images)
    contributions = readout_contributions(model.layers, model.readout[None], images)[:, 0]
    return prune(
        model, statistics, contributions, teacher,
        threshold=settings.threshold, min_filters=settings.min_filters, method=settings.method,
    )  # fmt: skip


def compact(stages: Stages, folder: Path, labels: Path, of_pruned: Path) -> None:
    """Train each pruned model further."""
    every = range(stages.inputs.n_usable)
    retrain_columns(stages, folder, folder / CHECKPOINT, labels, of_pruned, every)
    write_model_agreement(stages, folder, labels)
    (folder / CHECKPOINT).unlink(missing_ok=True)


def retrain_columns(
    stages: Stages,
    folder: Path,
    checkpoint: Path,
    labels: Path,
    of_pruned: Path,
    columns: Sequence[int],
) -> None:
    """Train the pruned models of some neurons further and write them."""
    settings = stages.config.compact
    images, targets, monitor = _material(stages, labels, settings.n_images, columns)
    models = load_models(stages, of_pruned)
    with progress_bar("retraining", settings.n_epochs * len(images) * len(columns)) as advance:
        found = retrain(
            [models[k] for k in columns], images, targets, distillation_of(settings),
            seed=stages.seed, n_shared=settings.n_fixed,
            monitor=monitor if settings.patience else None,
            device=stages.device, checkpoint=checkpoint, advance=advance,
        )  # fmt: skip
    _save_models(stages, found.models, folder, columns)


def write_model_agreement(stages: Stages, folder: Path, labels: Path) -> None:
    """Write how well a stage's models, one a neuron, agree with the teacher."""
    models = load_models(stages, folder)
    _write_agreement(stages, folder, labels, predict_models(stages, models, _monitored(stages)))


def shared_models(
    stages: Stages, folder: Path, labels: Path, sizes: Sequence[int], n_images: int | None = None
) -> dict[str, Any]:
    """Train shared models of S filters in the first three layers, trained and fixed random; score.

    Published shared models (from the ensemble) of the same neurons are scored beside them where
    the configuration names a release. Returns the content of ``summary.json``: for each model, by
    kind and S, the median squared correlation with the teacher on the monitored images and the
    scores on the held-out halves.
    """
    tables: list[pd.DataFrame] = []
    agreement: dict[str, float | None] = {}
    teacher = map_array(labels / _TEACHER)[stages.bank.monitored].astype(np.float64)
    stops = np.cumsum([len(test.usable) for test in stages.inputs.tests])
    in_order = [
        np.arange(stop - len(test.usable), stop)
        for test, stop in zip(stages.inputs.tests, stops, strict=True)
    ]

    def score(name: str, network: SharedCompactModel, outputs: Sequence[np.ndarray]) -> None:
        network = network.to(stages.device)
        monitored = _predict_shared(stages, network, _monitored(stages))
        agreement[name] = _median(pearson_r2(teacher, monitored[:, np.concatenate(outputs)]))
        for test, own in zip(stages.inputs.tests, outputs, strict=True):
            answers = _predict_shared(stages, network, test.held_out.require_stimuli())
            tables.append(
                score_table(
                    test.held_out, {name: answers[:, own]}, test.usable, test.unusable, stages.seed
                )
            )

    for kind in SHARED_KINDS:
        for size in sizes:
            path = folder / shared_file(kind, size)
            checkpoint = folder / f"{path.stem}.{CHECKPOINT}"
            if not _is_whole(path):
                distil_size(stages, folder, checkpoint, labels, kind, size, n_images)
            checkpoint.unlink(missing_ok=True)
            filters = _filters_of_size(stages.config.students, size)
            score(f"{kind} {size}", _load_shared(stages, path, filters), in_order)
    for size, network, outputs in _published_shared(stages):
        score(f"published {size}", network, outputs)
    table = pd.concat(tables, ignore_index=True)
    table.to_parquet(folder / "scores.parquet", index=False)
    scores = medians(table, stages.seed)
    summary = {"agreement": agreement, "scores": scores}
    write_json(folder / "summary.json", summary)
    _draw_sizes(folder, scores)
    return summary


def distil_size(
    stages: Stages,
    folder: Path,
    checkpoint: Path,
    labels: Path,
    kind: str,
    size: int,
    n_images: int | None,
) -> None:
    """Train one shared model of `shared_models` and write it."""
    settings = stages.config.students
    filters = _filters_of_size(settings, size)
    asked = settings.model_copy(update={"filters": filters, "start": None})
    network = _shared(stages, labels, asked, checkpoint, SHARED_KINDS[kind], n_images)
    _save_shared(network, folder / shared_file(kind, size))


def shared_file(kind: str, size: int) -> str:
    """Return the name of the file that `distil_size` writes."""
    return f"{kind}{size:03d}.safetensors"


def _filters_of_size(settings: StudentsConfig, size: int) -> tuple[int, int, int, int, int]:
    *_, third, last = settings.filters
    return size, size, size, third, last


def _draw_sizes(folder: Path, scores: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Draw the medians of shared models against their numbers of filters, a figure a metric."""
    for metric, models in scores.items():
        kinds: dict[str, dict[int, tuple[float, float, float]]] = {}
        for name, found in models.items():
            kind, number = name.split()
            if found["median"] is not None:
                kinds.setdefault(kind, {})[int(number)] = (found["median"], *found["ci"])
        if kinds:
            drawn = render_figure(
                plot_score_by_filters(kinds, metric=f"median {metric_label(metric)}")
            )
            (folder / f"{metric.replace(' ', '_')}.png").write_bytes(drawn.png)


def _published_shared(
    stages: Stages,
) -> Iterator[tuple[int, SharedCompactModel, list[np.ndarray]]]:
    """Yield the release's shared models with their outputs, if it has all test sessions'."""
    release = stages.config.recordings.published_models
    if release is None:
        return
    try:
        slices = [shared_outputs(test.fit.id) for test in stages.inputs.tests]
    except InputError:
        return
    for size, path in published_shared_models(release).get("from_ensemble_model", {}).items():
        network = import_shared_model(path)
        every = np.arange(network.bias.numel())
        yield (
            size,
            network,
            [
                every[own][test.usable]
                for own, test in zip(slices, stages.inputs.tests, strict=True)
            ],
        )


def predict_students(stages: Stages, folder: Path, stimuli: StimulusSet) -> Predictions:
    """Return the responses of a finished stage's students, of all neurons side by side."""
    settings = stages.config.students
    if settings.kind == "separate":
        return predict_models(stages, load_models(stages, folder), stimuli)
    network = _load_shared(stages, folder / _SHARED, settings.filters)
    return _predict_shared(stages, network.to(stages.device), stimuli)


def predict_models(
    stages: Stages, models: Sequence[CompactModel], stimuli: StimulusSet
) -> Predictions:
    """Return the responses of models, side by side."""
    return predictions(models, stimuli, stages.device)


def load_students(stages: Stages, folder: Path) -> list[CompactModel]:
    """Return the students of a finished stage, one a neuron."""
    settings = stages.config.students
    if settings.kind == "shared":
        return list(_load_shared(stages, folder / _SHARED, settings.filters).compact_models())
    return load_models(stages, folder)


def load_models(stages: Stages, folder: Path) -> list[CompactModel]:
    """Return the models that a stage saved one a neuron, test session after test session."""
    return [CompactModel.load(folder / name) for name in model_names(stages)]


def model_names(stages: Stages) -> list[str]:
    """Return the folder of each neuron's model within a stage's."""
    return [f"{test.name}_neuron{int(k):03d}" for test in stages.inputs.tests for k in test.usable]


def distillation_of(settings: StudentsConfig | CompactConfig) -> Distillation:
    """Return the optimisation that a table of the configuration describes."""
    whole = settings.model_dump()
    names = Distillation.__dataclass_fields__
    return Distillation(**{name: whole[name] for name in names if name in whole})


def _material(
    stages: Stages, labels: Path, most: int | None = None, columns: Sequence[int] | None = None
) -> Any:
    """Return images to train on, the teacher's responses to them, and what is monitored.

    Responses of the neurons `columns`, all if None.
    """
    responses = map_array(labels / _TEACHER)
    trained = stages.bank.trained
    if most is not None:
        order = np.random.default_rng([stages.seed, 3]).permutation(trained)
        trained = np.sort(order[:most])
    chosen = np.arange(responses.shape[1]) if columns is None else np.asarray(columns)
    monitor = stages.bank.monitor(responses, columns)
    return stages.bank.stimuli.take(trained), responses[np.ix_(trained, chosen)], monitor


def _shared(
    stages: Stages,
    labels: Path,
    settings: StudentsConfig,
    checkpoint: Path,
    n_frozen: int = 0,
    n_images: int | None = None,
) -> SharedCompactModel:
    images, targets, _ = _material(stages, labels, n_images)
    start = None if settings.start is None else import_shared_model(settings.start).layers
    name = "students" if not n_frozen else "students, random early filters"
    with progress_bar(name, settings.n_epochs * len(images)) as advance:
        return distill_shared(
            images, targets, settings.filters, distillation_of(settings),
            seed=stages.seed, start=start, n_frozen=n_frozen, device=stages.device,
            checkpoint=checkpoint, advance=advance,
        )  # fmt: skip


def _save_shared(network: SharedCompactModel, path: Path) -> None:
    write_tensors(path, network.state_dict())


def _load_shared(stages: Stages, path: Path, filters: Sequence[int]) -> SharedCompactModel:
    size = stages.bank.stimuli.image_size
    with torch.random.fork_rng(devices=[]):  # what it draws is replaced
        network = SharedCompactModel(filters, stages.inputs.n_usable, size)
    network.load_state_dict(read_tensors_whole(path)[0])
    return network.eval()


def _is_whole(path: Path) -> bool:
    """Return whether a file of tensors is there as it was written."""
    try:
        read_tensors_whole(path)
    except (OSError, InputError, SafetensorError):
        return False
    return True


def _save_models(
    stages: Stages, models: Sequence[CompactModel], folder: Path, columns: Sequence[int]
) -> None:
    names = model_names(stages)
    for k, model in zip(columns, models, strict=True):
        model.cpu().save(folder / names[k])


def _predict_shared(
    stages: Stages, network: SharedCompactModel, stimuli: StimulusSet
) -> Predictions:
    with torch.inference_mode():
        batches = raw_batches(stimuli, _BATCH)
        parts = [network(torch.from_numpy(b).to(stages.device)) for b in batches]
    return np.asarray(torch.cat(parts).double().cpu().numpy())


def _monitored(stages: Stages) -> StimulusSet:
    return stages.bank.stimuli.take(stages.bank.monitored)


def _write_agreement(stages: Stages, folder: Path, labels: Path, predicted: Predictions) -> None:
    """Write ``agreement.json``: squared correlation with the teacher on the monitored images."""
    teacher = map_array(labels / _TEACHER)[stages.bank.monitored].astype(np.float64)
    r2 = pearson_r2(teacher, predicted)
    neurons = {
        name: float(value) if np.isfinite(value) else None
        for name, value in zip(model_names(stages), r2, strict=True)
    }
    write_json(
        folder / "agreement.json",
        {"median": _median(r2), "n_images": len(teacher), "neurons": neurons},
    )


def _median(values: Float[np.ndarray, " n"]) -> float | None:
    """Return the median of what is defined, None if nothing is."""
    defined = values[np.isfinite(values)]
    return float(np.median(defined)) if len(defined) else None
