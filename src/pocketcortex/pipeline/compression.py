"""The stages that compress: distil, prune, retrain; and shared models of several sizes."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from jaxtyping import Float, UInt8

from pocketcortex.compress import (
    layer_statistics,
    prune,
    prune_jointly,
    readout_contributions,
)
from pocketcortex.core import InputError, StimulusSet, read_array, write_json
from pocketcortex.metrics import pearson_r2
from pocketcortex.models import (
    CompactModel,
    SharedCompactModel,
    import_shared_model,
    published_shared_models,
    shared_outputs,
)
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
_SHARED = "shared.safetensors"
_BATCH = 16

Predictions: TypeAlias = Float[np.ndarray, "n_stimuli n_neurons"]


def students(stages: Stages, folder: Path, labels: Path) -> None:
    """Distil the teacher: one network for all neurons, or one a neuron."""
    settings = stages.config.students
    if settings.kind == "shared":
        network = _shared(stages, labels, settings, folder / CHECKPOINT)
        _save_shared(network, folder / _SHARED)
    else:
        n = stages.inputs.n_usable
        size = stages.bank.stimuli.image_size
        fresh = new_students(n, settings.filters, size, seed=stages.seed)
        images, targets, monitor = _material(stages, labels)
        with progress_bar("students", settings.n_epochs * len(images) * n) as advance:
            found = distill_students(
                fresh, images, targets, distillation_of(settings),
                seed=stages.seed, monitor=monitor, device=stages.device,
                checkpoint=folder / CHECKPOINT, advance=advance,
            )  # fmt: skip
        _save_models(stages, found.models, folder)
        np.save(folder / "monitor_r2.npy", found.monitor_r2)
    _write_agreement(stages, folder, labels, predict_students(stages, folder, _monitored(stages)))
    (folder / CHECKPOINT).unlink(missing_ok=True)


def pruned(stages: Stages, folder: Path, labels: Path, of_students: Path) -> None:
    """Prune each neuron's student; those that an earlier try saved stay."""
    settings = stages.config.compact
    rng = np.random.default_rng([stages.seed, 1])
    chosen = np.sort(rng.permutation(stages.bank.trained)[: settings.n_pruning_images])
    images = stages.bank.stimuli.take(chosen).images()
    targets = read_array(labels / "teacher.npy")[chosen].astype(np.float64)
    small = []
    models = load_students(stages, of_students)
    with progress_bar("pruning", len(models)) as advance:
        for k, (name, model) in enumerate(zip(model_names(stages), models, strict=True)):
            try:
                small.append(CompactModel.load(folder / name))
            except InputError:
                made = _pruned(model.to(stages.device), images, targets[:, k], settings).cpu()
                made.save(folder / name)
                small.append(made)
            advance(1)
    _write_agreement(stages, folder, labels, predict_models(stages, small, _monitored(stages)))


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
    settings = stages.config.compact
    images, targets, monitor = _material(stages, labels, settings.n_images)
    small = load_models(stages, of_pruned)
    with progress_bar("retraining", settings.n_epochs * len(images) * len(small)) as advance:
        found = retrain(
            small, images, targets, distillation_of(settings),
            seed=stages.seed, n_shared=settings.n_fixed,
            monitor=monitor if settings.patience else None,
            device=stages.device, checkpoint=folder / CHECKPOINT, advance=advance,
        )  # fmt: skip
    models = [model.cpu() for model in found.models]
    _save_models(stages, models, folder)
    _write_agreement(stages, folder, labels, predict_models(stages, models, _monitored(stages)))
    (folder / CHECKPOINT).unlink(missing_ok=True)


def shared_models(
    stages: Stages, folder: Path, labels: Path, sizes: Sequence[int], n_images: int | None = None
) -> dict[str, Any]:
    """Train shared models of S filters in the first three layers, trained and fixed random; score.

    Published shared models (from the ensemble) of the same neurons are scored beside them where
    the configuration names a release. Returns the content of ``summary.json``: for each model, by
    kind and S, the median squared correlation with the teacher on the monitored images and the
    scores on the held-out halves.
    """
    settings = stages.config.students
    *_, third, last = settings.filters
    tables: list[pd.DataFrame] = []
    agreement: dict[str, float | None] = {}
    teacher = read_array(labels / "teacher.npy")[stages.bank.monitored].astype(np.float64)
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

    for kind, n_frozen in (("trained", 0), ("random", N_TRUNK)):
        for size in sizes:
            filters = (size, size, size, third, last)
            asked = settings.model_copy(update={"filters": filters, "start": None})
            path = folder / f"{kind}{size:03d}.safetensors"
            checkpoint = folder / f"{path.stem}.{CHECKPOINT}"
            if not path.exists():
                network = _shared(stages, labels, asked, checkpoint, n_frozen, n_images)
                _save_shared(network, path)
            checkpoint.unlink(missing_ok=True)
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


def _material(stages: Stages, labels: Path, most: int | None = None) -> Any:
    """Return images to train on, the teacher's responses to them, and what is monitored."""
    responses = read_array(labels / "teacher.npy")
    trained = stages.bank.trained
    if most is not None:
        order = np.random.default_rng([stages.seed, 3]).permutation(trained)
        trained = np.sort(order[:most])
    monitor = stages.bank.monitor(responses)
    return stages.bank.stimuli.take(trained), responses[trained], monitor


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
    partial = path.with_suffix(".partial")
    state = {k: v.cpu().contiguous() for k, v in network.state_dict().items()}
    safetensors.torch.save_file(state, partial)
    partial.replace(path)


def _load_shared(stages: Stages, path: Path, filters: Sequence[int]) -> SharedCompactModel:
    size = stages.bank.stimuli.image_size
    with torch.random.fork_rng(devices=[]):  # what it draws is replaced
        network = SharedCompactModel(filters, stages.inputs.n_usable, size)
    network.load_state_dict(safetensors.torch.load_file(path))
    return network.eval()


def _save_models(stages: Stages, models: Sequence[CompactModel], folder: Path) -> None:
    for name, model in zip(model_names(stages), models, strict=True):
        model.cpu().save(folder / name)


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
    teacher = read_array(labels / "teacher.npy")[stages.bank.monitored].astype(np.float64)
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
