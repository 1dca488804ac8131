"""Measure how small each pruning method makes a model for the response that is left.

    python examples/pruning_experiments.py "$POCKETCORTEX_DATA/v4" runs/pruning

The students are one published shared compact model's copies for single neurons, the teacher is that
model itself, so squared correlation starts at 1. Images of some sessions choose what goes, those of
another score what is left; no recorded response is read. Each method's curve ends in a file of
its own, and one that is there is not measured again. With all there, ``pruning.json``, the tables
``pruning.md`` and ``pruning.png`` are written beside them.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from pocketcortex.compress import layer_statistics, prune, prune_jointly, readout_contributions
from pocketcortex.core import provenance, write_json
from pocketcortex.data import read_v4
from pocketcortex.metrics import pearson_r2
from pocketcortex.models import (
    CompactModel,
    CompactStack,
    import_shared_model,
    published_shared_models,
    shared_outputs,
)
from pocketcortex.plots import render_figure

SESSION = "190923"
PRUNING_SESSIONS = ("190925", "190927")
SCORING_SESSION = "190929"
LEVELS = (0.7, 0.8, 0.85)
"""Squared correlations that sizes are compared at."""

Prune = Callable[[int, float], CompactModel]


@dataclass(frozen=True)
class Setting:
    """Sizes of the experiment.

    Attributes
    ----------
    n_filters
        Filters of the first three layers of the published shared model.
    n_neurons
        Neurons, evenly spread over the session's.
    n_pruning, n_scoring
        Images that choose what goes, and others that score what is left.
    thresholds
        Of the methods that go layer by layer.
    joint_thresholds
        Of the method that takes all layers together.
    seed
        Draws the images.
    """

    n_filters: int = 50
    n_neurons: int = 6
    n_pruning: int = 600
    n_scoring: int = 400
    thresholds: tuple[float, ...] = (0.8, 0.9, 0.95, 0.98, 0.99)
    joint_thresholds: tuple[float, ...] = (0.6, 0.8, 0.9, 0.95)
    seed: int = 0


@dataclass(frozen=True)
class Bench:
    """The models, what each method takes, and what scores them."""

    methods: Mapping[str, tuple[tuple[float, ...], Prune]]
    images: UInt8[np.ndarray, "n_scoring 3 height width"]
    responses: Float[np.ndarray, "n_scoring n_neurons"]


def prepare(release: Path, setting: Setting) -> Bench:
    """Read models and images, and make every method a function of neuron and threshold."""
    path = published_shared_models(release)["from_ensemble_model"][setting.n_filters]
    shared = import_shared_model(path)
    outputs = range(*shared_outputs(SESSION).indices(len(shared.bias)))
    chosen = np.linspace(outputs[0], outputs[-1], setting.n_neurons).round().astype(int).tolist()
    every = list(shared.compact_models())
    models = [every[k] for k in chosen]
    rng = np.random.default_rng(setting.seed)
    images = drawn_images(release, PRUNING_SESSIONS, setting.n_pruning, rng)
    new_images = drawn_images(release, [SCORING_SESSION], setting.n_scoring, rng)
    statistics = layer_statistics(shared.layers, images)
    readouts = torch.stack([model.readout.detach() for model in models])
    contributions = readout_contributions(shared.layers, readouts, images)
    teacher = contributions.sum(axis=2)

    def jointly(k: int, threshold: float) -> CompactModel:
        return prune_jointly(models[k], images, teacher[:, k], threshold=threshold)

    def by_layer(k: int, threshold: float, **options: Any) -> CompactModel:
        return prune(
            models[k], statistics, contributions[:, k], teacher[:, k],
            threshold=threshold, **options,
        )  # fmt: skip

    methods: dict[str, tuple[tuple[float, ...], Prune]] = {}
    for method in ("published", "greedy"):
        for order in ("late-to-early", "early-to-late"):
            one = partial(by_layer, method=method, order=order)
            methods[f"{method}, {order}"] = (setting.thresholds, one)
    methods["joint"] = (setting.joint_thresholds, jointly)
    with torch.inference_mode():
        batches = torch.from_numpy(new_images).split(16)
        responses = torch.cat([shared(batch)[:, chosen] for batch in batches]).double().numpy()
    return Bench(methods, new_images, responses)


def drawn_images(
    release: Path, sessions: Sequence[str], n: int, rng: np.random.Generator
) -> UInt8[np.ndarray, "n 3 height width"]:
    """Return images drawn from sessions, without their responses."""
    recordings = read_v4(release)
    images = np.concatenate([recordings[s].require_stimuli().images() for s in sessions])
    return np.ascontiguousarray(images[np.sort(rng.permutation(len(images))[:n])])


def curve(bench: Bench, name: str) -> dict[str, Any]:
    """Return sizes and scores of one method, ``(thresholds, neurons)`` each."""
    thresholds, method = bench.methods[name]
    rows: dict[str, list[list[float]]] = {"r2": [], "filters": [], "parameters": []}
    seconds = 0.0
    for threshold in thresholds:
        started = time.process_time()
        models = [method(k, threshold) for k in range(bench.responses.shape[1])]
        seconds += time.process_time() - started
        predicted = CompactStack(models).predict(torch.from_numpy(bench.images)).double().numpy()
        rows["r2"].append(pearson_r2(bench.responses, predicted).tolist())
        rows["filters"].append([float(sum(m.filters_per_layer)) for m in models])
        rows["parameters"].append([float(m.n_parameters.total) for m in models])
        print(f"{name}, {threshold}: r² {np.median(rows['r2'][-1]):.3f}", flush=True)
    n_models = len(thresholds) * bench.responses.shape[1]
    return {"thresholds": thresholds, "seconds_a_model": seconds / n_models, **rows}


def size_at(found: Mapping[str, Any], size: str, level: float) -> float:
    """Return the median over neurons of the size at which a method leaves r² = `level`.

    Interpolated linearly in r² within each neuron's curve; NaN unless all curves pass the level.
    """
    sizes = []
    for r2, n in zip(np.transpose(found["r2"]), np.transpose(found[size]), strict=True):
        order = np.argsort(r2)
        sizes.append(np.interp(level, r2[order], n[order], left=np.nan, right=np.nan))
    return float(np.median(sizes))


def tables(curves: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the sizes at equal r², and every method's points, as Markdown."""
    lines = [
        "| method | " + " | ".join(f"r² = {level}" for level in LEVELS) + " | CPU s a model |",
        "|---|" + "---|" * (len(LEVELS) + 1),
    ]
    for name, found in curves.items():
        cells = []
        for level in LEVELS:
            n, parameters = (size_at(found, size, level) for size in ("filters", "parameters"))
            cells.append("–" if np.isnan(n) else f"{n:.0f} / {parameters:,.0f}")
        lines.append(f"| {name} | {' | '.join(cells)} | {found['seconds_a_model']:.1f} |")
    lines += ["", "| method | threshold | r² | filters | parameters |", "|---|---|---|---|---|"]
    for name, found in curves.items():
        for k, threshold in enumerate(found["thresholds"]):
            r2, n, parameters = (
                np.median(found[what][k]) for what in ("r2", "filters", "parameters")
            )
            lines.append(f"| {name} | {threshold} | {r2:.3f} | {n:.0f} | {parameters:,.0f} |")
    return "\n".join(lines) + "\n"


def figure_curves(curves: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw r² against filters and against parameters, medians over neurons."""
    figure = Figure(figsize=(9.6, 4.0), layout="constrained")
    axes: Sequence[Axes] = figure.subplots(1, 2, sharey=True)
    colours = {"published": "#009E73", "greedy": "#0072B2", "joint": "#D55E00"}
    labels = {"filters": "filters (count)", "parameters": "parameters (count, logarithmic)"}
    for ax, (size, label) in zip(axes, labels.items(), strict=True):
        ax.spines[["top", "right"]].set_visible(False)
        for name, found in curves.items():
            kind, _, order = name.partition(", ")
            ax.plot(
                np.median(found[size], axis=1), np.median(found["r2"], axis=1), marker="o",
                markersize=4, color=colours[kind], label=name,
                linestyle="--" if order == "early-to-late" else "-",
            )  # fmt: skip
        ax.set(xlabel=label, ylim=(0, 1))
    axes[0].set_ylabel("r² with the unpruned model, new images")
    axes[1].set_xscale("log")
    axes[1].xaxis.set_major_locator(FixedLocator((5_000, 10_000, 20_000, 50_000, 100_000)))
    axes[1].xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes[1].xaxis.set_minor_locator(NullLocator())
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=5,
        frameon=False,
        fontsize=8.5,
    )
    return figure


def main(release: Path, out: Path, setting: Setting) -> None:
    """Measure every method, then write the record, the tables and the figure."""
    out.mkdir(parents=True, exist_ok=True)
    bench = prepare(release, setting)
    curves = {}
    for name in bench.methods:
        path = out / f"{name.replace(', ', '-')}.json"
        if not path.exists():
            write_json(path, curve(bench, name))
        curves[name] = json.loads(path.read_text())
    write_json(out / "pruning.json", curves | {"provenance": provenance(setting.seed)})
    (out / "pruning.md").write_text(tables(curves))
    (out / "pruning.png").write_bytes(render_figure(figure_curves(curves)).png)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("release", type=Path, help="folder of the published V4 release")
    parser.add_argument("out", type=Path, help="folder for records, tables and the figure")
    arguments = parser.parse_args()
    main(arguments.release, arguments.out, Setting())
