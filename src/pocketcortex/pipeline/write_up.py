"""The report of a finished run: read the stages' folders, hand finished numbers over."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pocketcortex.models import CompactModel
from pocketcortex.pipeline import compression
from pocketcortex.pipeline.causal import CausalSession
from pocketcortex.pipeline.circuits import read_circuits
from pocketcortex.pipeline.config import StudentsConfig
from pocketcortex.pipeline.scores import LEAST_SPREAD, NOISE_CORRECTED, R2, hardly_varying
from pocketcortex.pipeline.shown_stimuli import TestedStimuli
from pocketcortex.pipeline.stages import COMPACT, Stages
from pocketcortex.pipeline.teacher import BACKBONE_RIDGE, PUBLISHED, TEACHER
from pocketcortex.plots import CompactWeights
from pocketcortex.report import ReportContent, write_report


def write_up(
    folder: Path,
    stages: Stages,
    record: dict[str, Any],
    scores: Path,
    stimuli: Path,
    compact: Path,
    circuits: Path,
    causal: Path | None = None,
) -> None:
    """Write ``report.html`` with its figures and tables into `folder`."""
    summary = json.loads((scores / "summary.json").read_text())
    table = pd.read_parquet(scores / "scores.parquet")
    models = compression.load_models(stages, compact)
    metric = NOISE_CORRECTED if NOISE_CORRECTED in summary["scores"] else R2
    medians = summary["scores"][metric]
    session, best = _best_neuron(table, metric)
    neurons = [(t.fit.id, int(k)) for t in stages.inputs.tests for k in t.usable]
    index = neurons.index((session, best))
    score = table.query(
        "session == @session and neuron == @best and model == @COMPACT and metric == @metric"
    )["value"]
    weak = hardly_varying(table, COMPACT)
    labels = [
        (f"neuron {k}" if len(summary["sessions"]) == 1 else f"{s}, {k}") + " †" * ((s, k) in weak)
        for s, k in neurons
    ]
    tested = TestedStimuli(CausalSession.load(stimuli), stimuli, models, labels, stages.device)
    held_out = sum(s["n_images_held_out"] for s in summary["sessions"].values())
    n = f"{summary['n_neurons']} neurons, {held_out} held-out images"
    counts = summary["n_parameters"]
    headline: list[tuple[str, str | int | float | None, str]] = [
        (
            f"median {metric}, {name}",
            medians[name]["median"],
            n if medians[name]["n_neurons"] else f"no score: {n}, see the table for the reasons",
        )
        for name in (BACKBONE_RIDGE, TEACHER, COMPACT, PUBLISHED)
        if name in medians
    ]
    loss = summary["compact_minus"][metric][TEACHER]
    if loss["median"] is not None:
        low, high = loss["ci"]
        headline.append(
            (
                f"{metric}, compact minus teacher",
                f"{loss['median']:+.3f}",
                f"median of {loss['n_neurons']} differences, interval {low:+.3f} to {high:+.3f}",
            )
        )
    headline.append(
        (
            "parameters, teacher / compact",
            f"{counts[TEACHER] / counts[COMPACT]:,.0f} ×",
            f"{counts[TEACHER]:,.0f} to a median of {counts[COMPACT]:,.0f}",
        )
    )
    write_report(
        ReportContent(
            title=f"Compact models of {_named(list(summary['sessions']))}",
            subtitle=_subtitle(stages, summary),
            headline=headline,
            scores=table,
            parameters=counts,
            sizes=pd.read_parquet(scores / "sizes.parquet"),
            filters=np.array([m.filters_per_layer for m in models]),
            neuron_labels=labels,
            weights=compact_weights(
                models[index], f"{session}, neuron {best}", float(score.iloc[0])
            ),
            methods=_methods(stages, summary) + _of_weak(weak),
            provenance=record | {"config": stages.config.model_dump(mode="json")},
            median_ci={
                name: {m: tuple(entry["ci"]) for m, entry in by_model.items() if entry["n_neurons"]}
                for name, by_model in summary["scores"].items()
            },
            **tested.content(stages.config.stimuli, _strongest_first(table, metric, neurons)),
            causal=None if causal is None else _causal(causal),
            **read_circuits(circuits, labels),
        ),
        folder / "report.html",
    )


def compact_weights(model: CompactModel, name: str, r2: float) -> CompactWeights:
    """Return a model's weights for drawing, signed so that red excites the next stage.

    A filter whose batch-norm scale is negative answers with the opposite sign of its kernel; its
    incoming weights are drawn negated.
    """
    signs = [norm.weight.detach().sign().numpy() for norm in model.layers.norms]
    with torch.no_grad():
        conv = model.layers.conv.weight.numpy() * signs[0][:, None, None, None]
        pointwise = [
            layer.weight[:, :, 0, 0].numpy() * sign[:, None]
            for layer, sign in zip(model.layers.pointwise, signs[1:], strict=True)
        ]
        depthwise = [layer.weight[:, 0].numpy() for layer in model.layers.depthwise]
        readout = model.readout.numpy()
    return CompactWeights(
        name, conv, depthwise, pointwise, readout, r2=r2, n_parameters=model.n_parameters.total
    )


def _best_neuron(table: pd.DataFrame, metric: str) -> tuple[str, int]:
    """Return the neuron that compact models predict best, the one whose weights are drawn.

    Those that are hardly predicted come last.
    """
    rows = table[(table["model"] == COMPACT) & (table["metric"] == metric)]
    values = rows["value"].where(rows["reason"] == "", -9).fillna(-np.inf).to_numpy()
    best = rows.iloc[int(np.argmax(values))]
    return str(best["session"]), int(best["neuron"])


def _strongest_first(
    table: pd.DataFrame, metric: str, neurons: Sequence[tuple[str, int]]
) -> list[int]:
    """Return the places of the neurons in order of their compact models' scores.

    Those that are hardly predicted, or have no score, come last.
    """
    rows = table[(table["model"] == COMPACT) & (table["metric"] == metric)].copy()
    rows["value"] = rows["value"].where(rows["reason"] == "", -9)
    score = rows.set_index(["session", "neuron"])["value"]
    return [int(k) for k in np.argsort([-float(score[n]) for n in neurons], kind="stable")]


def _causal(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the effects of a causal test on every neuron, and over neurons."""
    tables = [pd.read_parquet(folder / f"{name}.parquet") for name in ("effects", "population")]
    return tables[0], tables[1]


def _named(sessions: list[str]) -> str:
    return f"session{'s' * (len(sessions) > 1)} {', '.join(sessions)}"


def _subtitle(stages: Stages, summary: dict[str, Any]) -> str:
    kind = "in-silico cortex" if stages.config.recordings.insilico else "recordings"
    tests = summary["sessions"].values()
    fit, held_out = (sum(s[f"n_images_{half}"] for s in tests) for half in ("fit", "held_out"))
    return (
        f"{kind}: {len(stages.inputs.train)} training sessions, {fit} images "
        f"to fit and {held_out} held out, seed {summary['seed']}"
    )


def _methods(stages: Stages, summary: dict[str, Any]) -> list[str]:
    config = stages.config
    drawn = f"{summary['n_images_distilled']:,}"
    lines = [
        "Scores are on the second half of each test session's images, which nothing else in the "
        "run has used. r2 is the squared Pearson correlation with the mean over repeats; "
        "noise-corrected r2 is the unbiased estimator with each image's own noise and number of "
        "repeats. Neither is clipped. Intervals: 95 % bootstrap over images "
        "(neurons) and over neurons (medians).",
        f"Backbone ridge: all features of {' + '.join(config.backbone.layers)}, one alpha a "
        "neuron chosen by leave-one-out error on the first half.",
        f"Teacher: {config.teacher.n_members} members trained on "
        f"{', '.join(s.id for s in stages.inputs.train)}, stopped by session "
        f"{stages.inputs.validation.id}; each member's embedding mapped to the neurons by a "
        "factorized map (channels times positions) fitted to the first half, predictions averaged"
        + (
            "."
            if config.teacher.prior is None
            else ", summed with a published shared model mapped to them too, by weights of least "
            "held-out error within the first half."
        ),
        _of_students(config.students, drawn),
        "Compact: each neuron's copy of the student, pruned at "
        f"{config.compact.threshold:.0%} of the variance a layer, then trained further by itself. "
        "Parameters count everything stored, batch-norm statistics and spatial readout included.",
    ]
    if PUBLISHED in summary["n_parameters"]:
        lines.append("Published: the released compact models of the same neurons.")
    return lines


def _of_weak(neurons: Sequence[tuple[str, int]]) -> list[str]:
    """Return what † beside a neuron means; nothing if none bears it."""
    if not neurons:
        return []
    named = ", ".join(f"{session} {neuron}" for session, neuron in neurons)
    return [
        f"† ({named}): the compact model's predictions vary by less than {LEAST_SPREAD:.0%} of the "
        "responses' standard deviation. The regression found next to nothing to predict in the "
        "first half and shrank them; r2 does not see scale. Such a score, and the stimuli and the "
        "circuit of such a model, mean little. The medians keep the score."
    ]


def _of_students(settings: StudentsConfig, n_images: str) -> str:
    filters = list(settings.filters)
    if settings.kind == "separate":
        return (
            f"Student: one network of {filters} filters for each neuron, fitted to the teacher's "
            f"responses to {n_images} images."
        )
    start = "" if settings.start is None else ", its layers started from a published shared model's"
    return (
        f"Student: one network of {filters} filters with a factorized readout for each "
        f"neuron{start}, fitted to the teacher's responses to {n_images} images."
    )
