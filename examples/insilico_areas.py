"""Compress simulated V1, V4 and IT by one recipe, and compare what is found with what was planted.

    python examples/insilico_areas.py runs/areas

Two experiments for each area, each in a file of its own below the folder, not done again if there:

- *recovery*: compact models distilled from the neurons' true rates, so that what they miss is
  lost by compression, not by a teacher's errors or by noise; then pruned once more, all layers
  together, to the least that keeps nine tenths of their r²: the filters *needed*;
- *recordings*: the whole pipeline from spike counts, smaller, to see what the teacher adds to that.

Then ``areas.json`` and ``areas.png`` are written and tables are printed.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import torch
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pocketcortex.compress import layer_statistics, prune, prune_jointly, readout_contributions
from pocketcortex.core import StimulusSet, keep_freed_memory, provenance, write_json
from pocketcortex.data import KINDS, Area, InSilicoCortex, Neuron, dead_leaves, insilico_neurons
from pocketcortex.metrics import bootstrap_ci, pearson_r2
from pocketcortex.models import CompactModel, CompactStack
from pocketcortex.pipeline import run
from pocketcortex.pipeline.config import (
    CompactConfig,
    InSilicoConfig,
    RecordingsConfig,
    RunConfig,
    StudentsConfig,
    TeacherConfig,
)
from pocketcortex.pipeline.progress import progress_bar, say
from pocketcortex.plots import render_figure
from pocketcortex.stimuli import synthesize
from pocketcortex.training import Distillation, distill_shared, retrain

STAGES = ("layer 0", "1", "2", "3", "4", "readout")
PICTURES = ("drawn", "synthesized")
_FRESH_SEED = 90_001  # banks that no distillation sees: images to score on, to search in
_BANK_SEED = 90_002
_PLANTED = 50  # neurons drawn for each one kept, so that every kind is met often enough
_RECORDED = InSilicoConfig(n_sessions=4, n_neurons=12, n_stimuli=1000)
_TEACHER = TeacherConfig(n_members=2, width=96, bottleneck=48, n_blocks=1, n_epochs=8)


@dataclass(frozen=True)
class Setting:
    """Sizes, the same for every area.

    Attributes
    ----------
    image_size
        Pixels.
    n_neurons
        Of each area in *recovery*, as many of each kind as can be.
    filters, n_images, n_epochs
        The shared student: filters per layer, images, passes.
    n_pruning, n_retraining
        Images to prune with and to train the pruned models further.
    n_needed, kept_r2
        Images to prune once more with, and the part of r² to keep.
    n_fresh, n_bank
        Images to score on, and to look for preferred ones in.
    n_gradients
        Fresh images over which the gradient is averaged into a receptive field.
    n_starts, n_steps
        Of synthesis.
    recorded
        The simulated recordings, but for the area.
    teacher, n_distilled, n_student_epochs
        Of *recordings*: the ensemble, dead leaves beside the sessions' images, passes.
    """

    image_size: int = 64
    n_neurons: int = 12
    filters: tuple[int, int, int, int, int] = (24, 24, 32, 32, 32)
    n_images: int = 6000
    n_epochs: int = 10
    n_pruning: int = 1000
    n_retraining: int = 3000
    n_needed: int = 500
    kept_r2: float = 0.9
    n_fresh: int = 1000
    n_bank: int = 2000
    n_gradients: int = 64
    n_starts: int = 2
    n_steps: int = 100
    recorded: InSilicoConfig = _RECORDED
    teacher: TeacherConfig = _TEACHER
    n_distilled: int = 2000
    n_student_epochs: int = 6


@dataclass(frozen=True)
class Laboratory:
    """What the experiments share."""

    out: Path
    seed: int
    setting: Setting = Setting()

    def images(self, n: int, bank: int) -> UInt8[np.ndarray, "n 3 size size"]:
        """Return the first dead-leaves images of a bank; made once."""
        return _leaves(n, self.setting.image_size, bank)


@lru_cache(maxsize=3)
def _leaves(n: int, size: int, bank: int) -> UInt8[np.ndarray, "n 3 size size"]:
    return dead_leaves(n, size=size, seed=bank)


def recovery(lab: Laboratory, area: Area) -> list[dict[str, Any]]:
    """Distil, prune and retrain compact models on true rates; one row a neuron."""
    setting = lab.setting
    cortex = InSilicoCortex(lab.seed, setting.image_size, area)
    neurons = planted(cortex, setting.n_neurons)
    images = lab.images(setting.n_images, lab.seed)
    rates = cortex.rates(images, neurons)
    models = compressed(images, rates, setting, lab.seed)
    rows = compared(lab, cortex, neurons, models)
    seen = slice(0, setting.n_needed)
    needed = []
    with progress_bar("needed filters", len(models)) as advance:
        for k, model in enumerate(models):
            needed.append(
                prune_jointly(
                    model, images[seen], rates[seen, k], threshold=setting.kept_r2, min_filters=1
                )
            )
            advance(1)
    fresh = lab.images(setting.n_fresh, _FRESH_SEED)
    r2 = pearson_r2(cortex.rates(fresh, neurons), predicted(CompactStack(needed), fresh))
    return [
        row | {f"needed_{name}": v for name, v in size(model).items()} | {"needed_r2": float(r2[k])}
        for k, (row, model) in enumerate(zip(rows, needed, strict=True))
    ]


def planted(cortex: InSilicoCortex, n: int) -> list[Neuron]:
    """Return neurons of an area, as many of each kind as can be."""
    drawn = cortex.sample_neurons(_PLANTED + n, rng=np.random.default_rng([cortex.seed, 0]))
    kinds = KINDS[cortex.area]
    of_kind = {kind: iter([one for one in drawn if one.kind == kind]) for kind in kinds}
    return [next(of_kind[kinds[k % len(kinds)]]) for k in range(n)]


def compressed(
    images: UInt8[np.ndarray, "n_stimuli 3 height width"],
    rates: Float[np.ndarray, "n_stimuli n_neurons"],
    setting: Setting,
    seed: int,
) -> list[CompactModel]:
    """Return one compact model a neuron: shared student, pruned for each, trained further."""
    bank = StimulusSet.from_array(images)
    distillation = Distillation(n_epochs=setting.n_epochs)
    with progress_bar("student", setting.n_epochs * len(images)) as advance:
        shared = distill_shared(
            bank, rates, setting.filters, distillation, seed=seed, advance=advance
        )
    seen = images[: setting.n_pruning]
    statistics = layer_statistics(shared.layers, seen)
    readouts = (shared.mixing[:, :, None, None] * shared.spatial[:, None]).detach()
    contributions = readout_contributions(shared.layers, readouts, seen)
    pruned = [
        prune(model, statistics, contributions[:, k], rates[: len(seen), k])
        for k, model in enumerate(shared.compact_models())
    ]
    used = slice(0, setting.n_retraining)
    again = Distillation(n_epochs=1, learning_rate=1e-3, batch_size=8)
    n_used = len(images[used]) * len(pruned)
    with progress_bar("retraining", n_used) as advance:
        return retrain(
            pruned, bank.take(used), rates[used], again, seed=seed, advance=advance
        ).models


def recordings(lab: Laboratory, area: Area) -> list[dict[str, Any]]:
    """Run the pipeline on simulated recordings; one row a neuron of the test session."""
    setting = lab.setting
    recorded = setting.recorded.model_copy(update={"area": area, "image_size": setting.image_size})
    config = RunConfig(
        seed=lab.seed,
        recordings=RecordingsConfig(insilico=recorded),
        teacher=setting.teacher,
        students=StudentsConfig(
            filters=setting.filters,
            n_epochs=setting.n_student_epochs,
            dead_leaves=setting.n_distilled,
        ),
        compact=CompactConfig(n_images=setting.n_distilled, learning_rate=1e-3),
    )
    folder = lab.out / f"run-{area}"
    run(config, folder, device="cpu")
    paths = sorted((folder / "compact").glob("*neuron*"))
    truth = insilico_neurons(
        lab.seed,
        recorded.n_sessions - 1,
        n_neurons=recorded.n_neurons,
        image_size=recorded.image_size,
        area=area,
    )
    cortex = InSilicoCortex(lab.seed, recorded.image_size, area)
    neurons = [truth[int(path.name.rpartition("neuron")[2])] for path in paths]
    return compared(lab, cortex, neurons, [CompactModel.load(path) for path in paths])


def compared(
    lab: Laboratory,
    cortex: InSilicoCortex,
    neurons: Sequence[Neuron],
    models: Sequence[CompactModel],
) -> list[dict[str, Any]]:
    """Return for each neuron its compact model's size, score, field and preferred image.

    True rates of preferred images are given as fractions of the true rate of the neuron's drawing
    and of the best image of a bank; the gradient's centre is at the mean position of the pixels
    where the mean squared gradient is at least half its maximum.
    """
    setting = lab.setting
    fresh = lab.images(setting.n_fresh, _FRESH_SEED)
    bank = lab.images(setting.n_bank, _BANK_SEED)
    stack = CompactStack(models)
    r2 = pearson_r2(cortex.rates(fresh, neurons), predicted(stack, fresh))
    in_bank = cortex.rates(bank, neurons)
    choice = predicted(stack, bank).argmax(axis=0)
    with progress_bar("preferred stimuli", len(models)) as advance:
        found = synthesize(
            models, n_starts=setting.n_starts, n_steps=setting.n_steps, seed=lab.seed,
            advance=advance,
        ).images[:, 0]  # fmt: skip
    drawn = np.stack([neuron.preferred_stimulus(setting.image_size) for neuron in neurons])
    rows = []
    for k, (neuron, model) in enumerate(zip(neurons, models, strict=True)):
        rates = cortex.rates(np.stack([drawn[k], found[k]]), [neuron])[:, 0]
        row, column = gradient_centre(model, fresh[: setting.n_gradients])
        rows.append(
            {
                "area": cortex.area,
                "kind": neuron.kind,
                "n_filters": neuron.n_filters,
                "n_shapes": neuron.n_shapes,
                "field": [neuron.row, neuron.column, neuron.size],
                "found_centre": [row, column],
                "off_centre": float(np.hypot(row - neuron.row, column - neuron.column)),
                "r2": float(r2[k]),
                **size(model),
                "synthesized_of_drawn": float(rates[1] / rates[0]),
                "synthesized_of_best": float(rates[1] / in_bank[:, k].max()),
                "chosen_of_best": float(in_bank[choice[k], k] / in_bank[:, k].max()),
                "drawn": drawn[k],
                "synthesized": found[k],
            }
        )
    return rows


def size(model: CompactModel) -> dict[str, Any]:
    """Return how large a model is: filters by stage as the paper counts them, and parameters."""
    return {
        "filters_per_layer": list(model.filters_per_layer),
        "n_parameters": model.n_parameters.total,
    }


def predicted(
    stack: CompactStack, images: UInt8[np.ndarray, "n 3 height width"]
) -> Float[np.ndarray, "n n_models"]:
    """Return the responses of all models."""
    return stack.predict(torch.from_numpy(images)).numpy().astype(np.float64)


def gradient_centre(
    model: CompactModel, images: UInt8[np.ndarray, "n 3 height width"]
) -> tuple[float, float]:
    """Return row and column about which a model is most sensitive to pixels of these images."""
    x = torch.from_numpy(images).float().requires_grad_()
    (gradient,) = torch.autograd.grad(model.eval()(x).sum(), x)
    power = gradient.square().sum(dim=(0, 1)).numpy()
    rows, columns = np.nonzero(power >= power.max() / 2)
    return float(rows.mean()), float(columns.mean())


# --- summaries ----------------------------------------------------------------------------------

MEASURES: dict[str, Callable[[Mapping[str, Any]], float]] = {
    "r²": lambda row: row["r2"],
    "filters": lambda row: sum(row["filters_per_layer"]),
    "parameters": lambda row: row["n_parameters"],
    "filters needed": lambda row: sum(row.get("needed_filters_per_layer", [np.nan])),
    "parameters needed": lambda row: row.get("needed_n_parameters", np.nan),
    "r² with those": lambda row: row.get("needed_r2", np.nan),
    "synthesized ÷ drawn": lambda row: row["synthesized_of_drawn"],
    "synthesized ÷ best of bank": lambda row: row["synthesized_of_best"],
    "chosen ÷ best of bank": lambda row: row["chosen_of_best"],
    "off centre, pixels": lambda row: row["off_centre"],
}
_FORMS = (".2f", ".0f", ",.0f", ".0f", ",.0f", ".2f", ".2f", ".2f", ".2f", ".1f")


def summary(rows: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Any]:
    """Return medians by area and kind, and how found filters order with planted circuits."""
    groups = {area: [row for row in rows if row["area"] == area] for area in KINDS}
    for area, kinds in KINDS.items():
        for kind in kinds:
            groups[f"{area} {kind}"] = [row for row in rows if row["kind"] == kind]
    medians = {
        name: {"n": len(group), "stayed noise": sum(stayed_noise(row) for row in group)}
        | {
            measure: _median(group, get, seed)
            for measure, get in MEASURES.items()
            if np.isfinite(get(group[0]))
        }
        for name, group in groups.items()
        if group
    }
    orders = {
        name: {
            f"{planted_count} and {found}": _rank_correlation(group, planted_count, found, seed)
            for planted_count in ("n_filters", "n_shapes")
            for found in ("filters", "filters needed")
            if np.isfinite(MEASURES[found](group[0]))
        }
        for name, group in {"all areas": list(rows), **{a: groups[a] for a in KINDS}}.items()
    }
    return {"medians": medians, "rank_correlations": orders, "elsewhere": _elsewhere(groups)}


def stayed_noise(row: Mapping[str, Any]) -> bool:
    """Return whether synthesis came back with the noise (levels 128 to 178) it started from."""
    image = row["synthesized"]
    return bool(image.min() >= 128 and image.max() <= 178)


def _median(
    rows: Sequence[Mapping[str, Any]], get: Callable[[Mapping[str, Any]], float], seed: int
) -> list[float]:
    """Median over neurons with its 95 % bootstrap interval."""
    values = np.array([get(row) for row in rows], dtype=np.float64)
    rng = np.random.default_rng(seed)
    low, high = bootstrap_ci(lambda v: np.median(v, axis=0), values, rng=rng, n_resamples=4000)
    return [float(np.median(values)), float(low), float(high)]


def _rank_correlation(
    rows: Sequence[Mapping[str, Any]], planted_count: str, found: str, seed: int
) -> list[float]:
    """Spearman's over neurons with its 95 % bootstrap interval; 0 where all counts are one."""
    planted_counts = np.array([row[planted_count] for row in rows], dtype=np.float64)
    counts = np.array([MEASURES[found](row) for row in rows], dtype=np.float64)

    def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        ranks = [scipy.stats.rankdata(values) for values in (x, y)]
        if min(np.ptp(one) for one in ranks) == 0:
            return np.array(0.0)
        return np.array(np.corrcoef(*ranks)[0, 1])

    rng = np.random.default_rng(seed)
    low, high = bootstrap_ci(spearman, planted_counts, counts, rng=rng, n_resamples=4000)
    return [float(spearman(planted_counts, counts)), float(low), float(high)]


def _elsewhere(groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, float]:
    """Median distance of found centres from the planted centres of the area's other neurons."""
    result = {}
    for area in KINDS:
        found = np.array([row["found_centre"] for row in groups[area]])
        fields = np.array([row["field"][:2] for row in groups[area]])
        apart = np.hypot(*(found[:, None] - fields[None]).transpose(2, 0, 1))
        result[area] = float(np.median(apart[~np.eye(len(found), dtype=bool)]))
    return result


def table(name: str, found: Mapping[str, Any]) -> str:
    """Return the medians of one experiment as a Markdown table, without what was not measured."""
    medians = found["medians"]
    forms = {
        measure: form
        for measure, form in zip(MEASURES, _FORMS, strict=True)
        if all(measure in row for row in medians.values())
    }
    lines = [
        f"| {name} | neurons | {' | '.join(forms)} | stayed noise |",
        "|---" * (len(forms) + 3) + "|",
    ]
    for group, row in medians.items():
        cells = [_with_interval(row[measure], form) for measure, form in forms.items()]
        lines.append(f"| {group} | {row['n']} | {' | '.join(cells)} | {row['stayed noise']} |")
    return "\n".join(lines)


def _with_interval(row: Sequence[float], form: str) -> str:
    value, low, high = (format(number, form) for number in row)
    return f"{value} ({low} to {high})"


# --- figure -------------------------------------------------------------------------------------

COLOURS: dict[Area, str] = {"V1": "#009E73", "V4": "#0072B2", "IT": "#D55E00"}
INK, MUTED = "#222222", "#6A6A6A"
N_EXAMPLES = 5


def figure_areas(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Draw filters by stage, agreement, planted against found circuits, and preferred images."""
    rows = results["recovery"]
    figure = Figure(figsize=(12.4, 8.6), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1.0, 1.35])
    axes = above.subplots(1, 3, width_ratios=[1.25, 1.0, 1.15])
    titles = ("a  Filters kept", "b  Agreement with true rates", "c  Planted and found circuits")
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=9, color=MUTED, labelcolor=INK)
    _draw_stages(axes[0], rows)
    _draw_r2(axes[1], results)
    _draw_orders(axes[2], rows)
    _draw_examples(below, rows)
    return figure


def _of(area: str, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["area"] == area]


def _draw_stages(ax: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    for shift, (area, colour) in zip((-0.22, 0.0, 0.22), COLOURS.items(), strict=True):
        places = np.arange(len(STAGES)) + shift
        for name, style in (("filters_per_layer", ":"), ("needed_filters_per_layer", "-")):
            counts = np.array([row[name] for row in _of(area, rows)])
            middle = np.median(counts, axis=0)
            ax.hlines(middle, places - 0.1, places + 0.1, color=colour, lw=2.5, ls=style)
        spread = np.linspace(-0.07, 0.07, len(counts))
        for place, column in zip(places, counts.T, strict=True):
            ax.scatter(place + spread, np.sort(column), s=7, color=colour, alpha=0.35, lw=0)
    for k, (area, colour) in enumerate(COLOURS.items()):
        ax.text(0.99, 0.97 - 0.075 * k, area, transform=ax.transAxes, color=colour, fontsize=10,
                ha="right", va="top", fontweight="bold")  # fmt: skip
    ax.set_xticks(range(len(STAGES)), STAGES)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylim(0, None)
    ax.set_ylabel("filters (dotted: first pruning)", fontsize=10)


def _draw_r2(ax: Axes, results: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    apart = 0.17 if len(results) > 1 else 0.0
    shifts = {"recovery": -apart, "recordings": apart}
    for name, rows in results.items():
        for k, (area, colour) in enumerate(COLOURS.items()):
            values = np.sort([row["r2"] for row in _of(area, rows)])
            x = k + shifts[name] + np.linspace(-0.11, 0.11, len(values))
            face = colour if name == "recovery" else "none"
            ax.scatter(x, values, s=16, alpha=0.6, lw=1, facecolor=face, edgecolor=colour)
            middle = k + shifts[name]
            ax.hlines(np.median(values), middle - 0.14, middle + 0.14, color=INK, lw=2)
    if len(results) > 1:
        ax.text(0.02, 0.10, "● from true rates", transform=ax.transAxes, fontsize=9, color=INK)
        ax.text(0.02, 0.03, "○ from recordings", transform=ax.transAxes, fontsize=9, color=INK)
    ax.set_xticks(range(len(COLOURS)), list(COLOURS))
    ax.set_xlim(-0.5, len(COLOURS) - 0.5)
    ax.set_ylim(0, 1.02)
    ax.set_ylabel("r² with true rates, fresh images", fontsize=10)


def _draw_orders(ax: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    of_kind = {
        (a, kind): [r for r in rows if r["kind"] == kind] for a in KINDS for kind in KINDS[a]
    }
    order = sorted(of_kind.items(), key=lambda item: item[1][0]["n_filters"])
    for x, ((area, _), own) in enumerate(order):
        counts = np.sort([MEASURES["filters needed"](row) for row in own])
        spread = np.linspace(-0.22, 0.22, len(counts))
        ax.scatter(x + spread, counts, s=14, color=COLOURS[area], alpha=0.55, lw=0)
        ax.hlines(np.median(counts), x - 0.3, x + 0.3, color=INK, lw=2)
    names = [f"{kind}  {own[0]['n_filters']}" for (_, kind), own in order]
    ax.set_xticks(range(len(order)), names, rotation=50, ha="right", rotation_mode="anchor")
    for tick, ((area, _), _) in zip(ax.get_xticklabels(), order, strict=True):
        tick.set_color(COLOURS[area])
    ax.set_ylim(0, None)
    ax.set_xlabel("kind, linear filters in its circuit", fontsize=10)
    ax.set_ylabel("filters needed", fontsize=10)


def _draw_examples(figure: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    grid = figure.subplots(len(COLOURS), 2 * N_EXAMPLES)
    figure.suptitle(
        "d  Preferred images: drawn from the planted circuit (left of each pair) and synthesized "
        "from the compact model (right)",
        x=0.01, ha="left", fontsize=11, fontweight="bold", color=INK,
    )  # fmt: skip
    for line, (area, colour) in zip(grid, COLOURS.items(), strict=True):
        for pair, row in zip(line.reshape(-1, 2), _of(area, rows), strict=False):
            for ax, name in zip(pair, PICTURES, strict=True):
                ax.imshow(row[name].transpose(1, 2, 0))
                ax.set(xticks=[], yticks=[])
                for spine in ax.spines.values():
                    spine.set_visible(False)
            share = f"rate {row['synthesized_of_drawn']:.2f} of drawn's"
            pair[0].set_title(row["kind"], fontsize=9, color=INK, loc="left", pad=3)
            pair[1].set_title(share, fontsize=8, color=MUTED, loc="right", pad=3)
        line[0].set_ylabel(area, fontsize=12, color=colour, fontweight="bold", rotation=0,
                           ha="right", va="center", labelpad=10)  # fmt: skip


EXPERIMENTS: dict[str, Callable[[Laboratory, Area], list[dict[str, Any]]]] = {
    "recovery": recovery,
    "recordings": recordings,
}


def do(lab: Laboratory, names: Sequence[str]) -> None:
    """Do experiments that are not done, and write all up if none is missing."""
    lab.out.mkdir(parents=True, exist_ok=True)
    paths = {name: {area: lab.out / f"{name}-{area}.json" for area in KINDS} for name in names}
    for name, files in paths.items():
        for area, path in files.items():
            if path.exists():
                say(f"{name} {area}: done before ({path})")
                continue
            save(path, EXPERIMENTS[name](lab, area), lab.seed)
            say(f"{name} {area}: done ({path})")
    results = {
        name: [row for path in files.values() for row in load(path)]
        for name, files in paths.items()
    }
    found = {name: summary(rows, lab.seed) for name, rows in results.items()}
    for name, one in found.items():
        print(table(name, one), end="\n\n")
        for group, orders in one["rank_correlations"].items():
            for pair, row in orders.items():
                print(f"rank correlation, {group}, {pair}: {_with_interval(row, '.2f')}")
        print(f"distance to other neurons' centres: {one['elsewhere']}", end="\n\n")
    everything = {
        name: {"summary": found[name], "rows": [_numbers(row) for row in rows]}
        for name, rows in results.items()
    }
    write_json(lab.out / "areas.json", everything | {"provenance": provenance(lab.seed)})
    if "recovery" not in results:
        return
    picture = lab.out / "areas.png"
    picture.write_bytes(render_figure(figure_areas(results)).png)
    say(f"written: {picture}")


def save(path: Path, rows: Sequence[Mapping[str, Any]], seed: int) -> None:
    """Write an experiment's rows: images into an archive beside, then the numbers."""
    pictures = {name: np.stack([row[name] for row in rows]) for name in PICTURES}
    np.savez(path.with_suffix(".npz"), **pictures)
    write_json(path, {"rows": [_numbers(row) for row in rows], "provenance": provenance(seed)})


def load(path: Path) -> list[dict[str, Any]]:
    """Read what `save` wrote."""
    rows = json.loads(path.read_text())["rows"]
    with np.load(path.with_suffix(".npz")) as archive:
        pictures = {name: archive[name] for name in PICTURES}
    return [row | {name: pictures[name][k] for name in PICTURES} for k, row in enumerate(rows)]


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in PICTURES}


def main(argv: Sequence[str] | None = None) -> None:
    """Do the experiments asked for, then write the record and the figure if all are done."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", help="folder for results")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--experiments", default=",".join(EXPERIMENTS), help="separated by commas")
    given = parser.parse_args(argv)
    keep_freed_memory()
    do(Laboratory(Path(given.out), given.seed), given.experiments.split(","))


if __name__ == "__main__":
    main()
