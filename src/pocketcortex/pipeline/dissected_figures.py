"""Dissected models as the plots take them: arrays and words, nothing computed but selections."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from pocketcortex.dissect import (
    FAMILIES,
    AblatedTuning,
    Alignment,
    Explanation,
    KernelSimilarity,
    Preferences,
    Trace,
    Tuning,
    merits,
)
from pocketcortex.models import N_STAGES, CompactModel
from pocketcortex.plots import (
    CircuitNode,
    DotTuning,
    LayerComparison,
    RenderedFigure,
    TracedConvolution,
    TracedLayer,
    TracedReadout,
    TuningMap,
    figure_ablation,
    figure_circuit,
    figure_comparison,
    figure_cumulative_ablation,
    figure_dot_tuning,
    figure_families,
    figure_trace,
    figure_tuning,
    plot_dot_curves,
    plot_family_scores,
    render_figure,
)

_UNITS = "model units"
_N_BEST = 10
_N_CURVES = 5
_WINDOW_PX = 48
_KEPT_R2 = 0.9
_INDEX_NAMES = {
    "preferred_radius_px": "best radius (px)",
    "size_selectivity": "size selectivity",
    "number_gain": "gain by number",
    "orientation_selectivity": "orientation",
    "phase_invariance": "phase invariance",
    "colour_selectivity": "colour",
}


def save_figure(figure: RenderedFigure, path: Path) -> None:
    """Write a figure as PNG."""
    path.write_bytes(figure.png)


def comparison_figure(
    models: Sequence[CompactModel],
    alignment: Alignment,
    kernels: KernelSimilarity,
    tables: Mapping[str, pd.DataFrame],
) -> RenderedFigure:
    """Return filters per layer, kernel similarity and CKA of every pair, side by side."""
    rows, columns = np.triu_indices(len(models), 1)
    tests = tables["tests"].set_index("measure")["p_valid"]
    of_kernels, of_layers = tables["kernels"], tables["layers"]
    runs = [row[np.isfinite(row)] for row in kernels.runs]
    spread = kernels.reference.mean(axis=2)
    pairs = [layer[rows, columns] for layer in alignment.cka]
    by_kernel = LayerComparison(
        "kernel similarity (|cosine|)", list(kernels.layers), runs,
        interval=of_kernels[["ci_low", "ci_high"]].to_numpy(np.float64),
        reference=np.stack([np.quantile(spread, q, axis=1) for q in (0.025, 0.975)], axis=1),
        reference_name="N(0, 1) kernels",
        tests=[((0, 1), (2, 3), float(tests["kernel similarity"]))],
    )  # fmt: skip
    by_layer = LayerComparison(
        "CKA, debiased", [f"layer {k}" for k in range(len(pairs))],
        [pair[np.isfinite(pair)] for pair in pairs],
        interval=of_layers[["ci_low", "ci_high"]].to_numpy(np.float64),
        tests=[((0, 1), (2, 3), float(tests["CKA"]))],
    )  # fmt: skip
    filters = np.array([model.filters_per_layer for model in models])
    return render_figure(figure_comparison(filters, [by_kernel, by_layer]))


def tuning_figures(name: str, tuning: Tuning) -> dict[str, RenderedFigure]:
    """Return a model's tuning to everything, and to dots, by the end of a file's name."""
    dots, indices = _dots(tuning), tuning.indices
    gratings = TuningMap(
        tuning.grating.mean(axis=2), tuning.orientations_deg, tuning.cycles_per_image,
        "orientation (°)", "cycles per image",
    )  # fmt: skip
    curves = TuningMap(
        tuning.contour, np.round(tuning.curvatures_per_px, 2), tuning.directions_deg,
        "curvature (1/px)", "direction (°)",
    )  # fmt: skip
    sheet = figure_tuning(
        name, dots, gratings, curves, np.array(tuning.hue_colours, np.uint8), tuning.hue,
        indices={said: indices[k] for k, said in _INDEX_NAMES.items() if np.isfinite(indices[k])},
        units=_UNITS,
    )  # fmt: skip
    of_dots = figure_dot_tuning(dots, pictures=tuning.size_stimuli, title=name, units=_UNITS)
    return {"": render_figure(sheet), "_dots": render_figure(of_dots)}


def _dots(tuning: Tuning) -> DotTuning:
    x, y = (float(along) for along in tuning.dot_px)
    return DotTuning(
        tuning.radii_px, {"dots": tuning.dot_size}, tuning.dot_place, (x, y),
        np.array(tuning.numbers), tuning.dot_number, float(tuning.grey),
        tuning.size_stimuli.shape[-1],
    )  # fmt: skip


def ablation_figures(name: str, tuning: Tuning, found: AblatedTuning) -> dict[str, RenderedFigure]:
    """Return each filter's effect on the dot-size curve, and the curve with ever fewer filters."""
    effects = [found.size_invariance[found.stages == stage] for stage in range(N_STAGES)]
    strongest = np.argsort(-found.size_invariance, kind="stable")[:_N_CURVES]
    filters = {
        f"{_STAGE_NAMES[found.stages[k]]}, no. {found.numbers[k]}": found.dot_size[k]
        for k in strongest
    }
    layers = dict(zip(_STAGE_NAMES, found.dot_size_without_stage, strict=True))
    single = figure_ablation(
        effects, tuning.radii_px, tuning.dot_size, filters, layers, title=name, units=_UNITS
    )
    steps = found.cumulative
    told = np.flatnonzero(~np.isnan(steps.harm))
    left = np.stack([
        np.bincount(found.stages[steps.kept(int(k))], minlength=N_STAGES) for k in told
    ])  # fmt: skip
    some = left.sum(axis=1) > 0
    kept = 1 - steps.harm[told]
    enough = np.flatnonzero(some & (kept >= _KEPT_R2))
    cumulative = figure_cumulative_ablation(
        tuning.radii_px, steps.responses[told][some], left[some], kept[some],
        chosen=int(enough[-1]) if len(enough) else None, title=name, units=_UNITS,
    )  # fmt: skip
    return {"": render_figure(single), "_cumulative": render_figure(cumulative)}


_STAGE_NAMES = ("layer 0", "layer 1", "layer 2", "layer 3", "layer 4", "readout")


def family_figures(found: Preferences, names: Sequence[str]) -> dict[str, RenderedFigure]:
    """Return the best models of each family, and all models' scores, by the name of a file."""
    ranked = {family: found.ranked(family) for family in FAMILIES}
    stimuli = {family: found.stimuli[own, FAMILIES.index(family)] for family, own in ranked.items()}
    table = found.table.assign(merit=merits(found.table))
    best = families_drawing(table, ranked, stimuli, [_short(name) for name in names])
    scores = found.table[[f"score_{family}" for family in FAMILIES]].to_numpy(np.float64)
    figures = {"scores.png": render_figure(plot_family_scores(np.nan_to_num(scores), FAMILIES))}
    if best is not None:
        figures["figure.png"] = render_figure(figure_families(**best))
    return figures


def dot_figure(detectors: pd.DataFrame, names: Sequence[str]) -> RenderedFigure:
    """Return the curves of dot detectors (rows of `dot_search`, best first)."""
    curves = detectors.filter(like="curve_")
    radii = np.array([float(str(name).removeprefix("curve_")) for name in curves])
    labels = [
        f"{_short(name)}: {row['foreground']}, {row['sd_above_mean']:.1f} sd"
        for name, row in zip(names, detectors.to_dict("records"), strict=True)
    ]
    return render_figure(plot_dot_curves(curves.to_numpy(np.float64), radii, labels))


def families_drawing(
    table: pd.DataFrame,
    ranked: Mapping[str, Int[np.ndarray, " _"]],
    stimuli: Mapping[str, np.ndarray],
    names: Sequence[str],
) -> dict[str, Any] | None:
    """Return what `plots.figure_families` takes of candidates, best first; None without any."""
    some = {family: own[:_N_BEST] for family, own in ranked.items() if len(own)}
    if not some:
        return None
    merit = table["merit"].to_numpy(np.float64)
    return {
        "images": {family: stimuli[family][:_N_BEST] for family in some},
        "scores": {family: merit[own] for family, own in some.items()},
        "names": {family: [names[k] for k in own] for family, own in some.items()},
        "title": "Best candidates of each family",
        "score_name": "confidence × margin × standard deviations above images of the bank",
    }


def _short(name: str) -> str:
    return name.removeprefix("compact_model_").replace("_neuron", ", ")


def circuit_figure(told: Explanation) -> RenderedFigure:
    """Return the diagram of a circuit with its explanation."""
    return render_figure(figure_circuit(**circuit_drawing(told)))


def circuit_drawing(told: Explanation) -> dict[str, Any]:
    """Return what `plots.figure_circuit` takes of an explanation."""
    nodes = [
        CircuitNode(one.stage, one.number, one.weights, one.effect, _label(told, one.prefers))
        for one in told.circuit.filters
    ]
    table = told.circuit.connections
    table = table[table["from_stage"] > 0]
    return {
        "nodes": nodes,
        "links": table[["from_stage", "from_number", "to_number"]].to_numpy(np.int64),
        "weights": table["strength"].to_numpy(np.float64), "image": told.stimuli[0],
        "title": told.name, "explanation": told.text,
        "link_name": "relative strength (weight × sd)",
    }  # fmt: skip


def _label(told: Explanation, prefers: int) -> str:
    """Return in a word or two what drives the map that a filter reads most."""
    row = told.probes.iloc[prefers]
    if row["shape"] in ("disc", "ringed disc", "plain"):
        return f"{row['family']} {row['radius_px']:.0f} px"
    if row["shape"] == "grating":
        return f"grating {row['orientation_deg']:.0f}°"
    return f"{row['family']} {row['direction_deg']:.0f}°"


def trace_figure(
    name: str,
    model: CompactModel,
    traces: Mapping[str, Trace],
    at: tuple[float, float],
    channels: int,
) -> tuple[RenderedFigure, dict[str, np.ndarray]]:
    """Return the sheet of one or two images' traces, and their maps cut about the point."""
    listed = list(traces.values())
    chosen = _channels(listed[0], channels)
    first = TracedConvolution(
        chosen[0], listed[0].layers[0].kernels[chosen[0]].astype(np.float64),
        np.stack([one.layers[0].sums[chosen[0]] for one in listed]),
        np.stack([one.layers[0].maps[chosen[0]] for one in listed]),
    )  # fmt: skip
    layers = []
    for i in range(1, len(listed[0].layers)):
        inputs, outputs = chosen[i - 1], chosen[i]
        own = [one.layers[i] for one in listed]
        layers.append(TracedLayer(
            inputs, np.stack([one.inputs[inputs] for one in own]), own[0].kernels[inputs],
            np.stack([one.filtered[inputs] for one in own]), outputs,
            own[0].mixing[np.ix_(outputs, inputs)],
            np.stack([one.sums[outputs] for one in own]),
            np.stack([one.maps[outputs] for one in own]),
        ))  # fmt: skip
    last = chosen[-1]
    readout = TracedReadout(
        last, np.stack([one.layers[-1].maps[last] for one in listed]), listed[0].readout[last],
        np.stack([one.products.sum(axis=0) for one in listed]),
        np.array([one.response for one in listed]), float(listed[0].bias),
    )  # fmt: skip
    side = model.image_size[0]
    width = min(_WINDOW_PX, side) if side % 4 == 0 else None
    figure = figure_trace(
        np.stack([one.image for one in listed]), list(traces), first, layers, readout,
        centre_px=(float(at[0]), float(at[1])), window_px=width, title=name, units=_UNITS,
    )  # fmt: skip
    cut = {}
    for number, one in enumerate(listed):
        around = one if width is None else one.around(float(at[0]), float(at[1]), width)
        for i, layer in enumerate(around.layers):
            for part in ("filtered", "sums", "maps"):
                cut[f"image{number}_layer{i}_{part}"] = getattr(layer, part)
        cut[f"image{number}_products"] = around.products
    return render_figure(figure), cut


def _channels(one: Trace, most: int) -> list[Int[np.ndarray, " n"]]:
    """Return the maps of each layer that matter most for the response to an image.

    From the readout backwards: a map matters by the spread of what it passes on to the maps chosen
    after it.
    """
    weight: Float[np.ndarray, " n"] = np.abs(one.by_filter)
    chosen = [np.sort(np.argsort(-weight, kind="stable")[:most])]
    for layer in reversed(one.layers[1:]):
        passed = np.abs(layer.mixing[chosen[0]]).sum(axis=0) * layer.filtered.std(axis=(1, 2))
        chosen.insert(0, np.sort(np.argsort(-passed, kind="stable")[:most]))
    return chosen
