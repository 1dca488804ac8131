"""Are planted circuits found? Explain compact models whose truth is known, and shuffled ones.

    python examples/insilico_circuits.py runs/circuits

Three experiments; one file each below the folder, and ``circuits.json`` with all figures, those of
an earlier call kept:

- *families*: compact models distilled from the true rates of simulated V4 neurons of one animal;
  is the planted kind (dot, edge, curve, texture, colour) the family that is found? The rule's
  thresholds were settled on animal 101; animal 102 was seen on the way, animal 103 is the test.
- *shuffled*: the same models with their weights shuffled within each array: none should be found.
  And with all but the readout shuffled: a field, but random filters.
- *filters*: circuits wired by hand into compact models beside as many filters that matter little:
  is it the planted filters that `find_circuit` keeps?
"""

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from insilico_areas import Setting, compressed

from pocketcortex.core import keep_freed_memory, provenance, write_json
from pocketcortex.data import InSilicoCortex, Neuron, dead_leaves
from pocketcortex.dissect import (
    FAMILIES,
    NONE,
    Elimination,
    explain,
    has_field,
    preferences,
    receptive_fields,
    shuffled_weights,
)
from pocketcortex.metrics import bootstrap_ci, pearson_r2
from pocketcortex.models import N_STAGES, CompactModel, CompactStack
from pocketcortex.pipeline.progress import progress_bar

SETTING = Setting(n_retraining=2000)
CALIBRATION, SEEN, TEST = 101, 102, 103
_FRESH_SEED, _NATURAL_SEED = 90_001, 77
_N_NATURAL, _N_FIELDS, _N_CHANCE, _N_CIRCUIT = 400, 48, 8, 16
_SIZE = SETTING.image_size
_PLANTED = (14, 14, 10, 8, 5)
KEPT = (0.99, 0.9)
_WEAK = 0.03  # of a planted weight: how strongly other filters reach the response


def neurons_of(seed: int, n: int) -> list[Neuron]:
    """Return the neurons of an animal, kinds equally likely."""
    cortex = InSilicoCortex(seed, _SIZE)
    return list(cortex.sample_neurons(n, rng=np.random.default_rng([seed, 0])))


def models_of(out: Path, seed: int, n: int) -> list[CompactModel]:
    """Return compact models distilled from the true rates of an animal's neurons, made once."""
    folder = out / f"animal{seed}"
    if not (folder / "models.json").exists():
        cortex, neurons = InSilicoCortex(seed, _SIZE), neurons_of(seed, n)
        images = dead_leaves(SETTING.n_images, size=_SIZE, seed=seed)
        models = compressed(images, cortex.rates(images, neurons), SETTING, seed)
        fresh = dead_leaves(SETTING.n_fresh, size=_SIZE, seed=_FRESH_SEED)
        r2 = pearson_r2(cortex.rates(fresh, neurons), answers(models, fresh))
        for k, model in enumerate(models):
            model.save(folder / f"neuron{k:03d}")
        write_json(folder / "models.json", {"n": n, "r2": r2.tolist()})
    return [CompactModel.load(folder / f"neuron{k:03d}") for k in range(n)]


def answers(models: list[CompactModel], images: np.ndarray) -> np.ndarray:
    """Return all models' responses in float64."""
    return CompactStack(models).predict(torch.from_numpy(images)).double().numpy()


def found_families(models: list[CompactModel], natural: np.ndarray, seed: int) -> pd.DataFrame:
    """Return the table of preferences."""
    fields = receptive_fields(models, natural[:_N_FIELDS])
    with_field = has_field(models, natural[:_N_CHANCE], rng=np.random.default_rng([seed, 4]))
    rng = np.random.default_rng(seed)
    told = answers(models, natural)
    return preferences(models, fields, told, with_field=with_field, rng=rng).table


def families(out: Path, seed: int, n: int, natural: np.ndarray) -> dict[str, Any]:
    """Compare found families with planted kinds, of the models as they are and shuffled."""
    models, neurons = models_of(out, seed, n), neurons_of(seed, n)
    r2 = np.array(json.loads((out / f"animal{seed}" / "models.json").read_text())["r2"])
    table = found_families(models, natural, seed).assign(
        kind=[neuron.kind for neuron in neurons],
        chromatic=[abs(sum(neuron.colour)) < 0.5 for neuron in neurons], r2=r2,
    )  # fmt: skip
    table.to_csv(out / f"families{seed}.csv", index=False)
    right = (table["kind"] == table["family"]).to_numpy()
    rng = np.random.default_rng([seed, 1])
    mixed = [shuffled_weights(model, rng=rng) for model in models]
    shuffled = found_families(mixed, natural, seed)
    shuffled.to_csv(out / f"shuffled{seed}.csv", index=False)
    half = [shuffled_weights(model, rng=rng, keep_readout=True) for model in models]
    filters_shuffled = found_families(half, natural, seed)
    return {
        "n_neurons": n, "n_right": int(right.sum()), "accuracy": float(right.mean()),
        "accuracy_ci": interval(right, seed),
        "n_none": int((table["family"] == NONE).sum()),
        "accuracy_r2_above_0.4": float(right[r2 > 0.4].mean()),
        "n_r2_above_0.4": int((r2 > 0.4).sum()),
        "confusion": pd.crosstab(table["kind"], table["family"]).to_dict("index"),
        "shuffled_n_found": int((shuffled["family"] != NONE).sum()),
        "filters_shuffled_n_found": int((filters_shuffled["family"] != NONE).sum()),
        "filters_shuffled_families": filters_shuffled["family"].value_counts().to_dict(),
        "shuffled_families": shuffled["family"].value_counts().to_dict(),
    }  # fmt: skip


def interval(values: np.ndarray, seed: int) -> list[float]:
    """Return the 95 % bootstrap interval of a mean over neurons."""
    low, high = bootstrap_ci(
        lambda v: v.mean(axis=0), values.astype(np.float64), rng=np.random.default_rng(seed),
        n_resamples=4000,
    )  # fmt: skip
    return [float(low), float(high)]


# --- circuits wired by hand ---------------------------------------------------------------------


def planted_model(family: str, rng: np.random.Generator) -> tuple[CompactModel, set, set]:
    """Return a compact model with a known circuit, its filters, and those that inhibit.

    A filter is (stage, number). Planted channels come at random places among the others, whose
    random kernels reach the response through weights of a few per cent of the planted ones.
    """
    kernels, signs, bias = _first_stage(family, rng)
    n = len(kernels)
    model = CompactModel(_PLANTED, (_SIZE, _SIZE), (128.0, 128.0, 128.0))
    own = [np.sort(rng.permutation(count)[:n]) for count in _PLANTED[:2]]
    own[1] = own[0]  # a map of layer 0 has its kernel in layer 1
    first = own[0]
    second = np.sort(rng.permutation(_PLANTED[1])[:n])
    third, fourth, last = (int(rng.integers(count)) for count in _PLANTED[2:])
    blob = _gaussian(1.2)
    delta = np.zeros((5, 5))
    delta[2, 2] = 1
    layers = model.layers
    with torch.no_grad():
        for norm in layers.norms:
            norm.get_buffer("running_var").fill_(1 - norm.eps)
        conv = rng.normal(size=(_PLANTED[0], 3, 5, 5))
        conv /= np.abs(conv).sum(axis=(1, 2, 3), keepdims=True)
        conv[first] = kernels
        layers.conv.weight.copy_(torch.from_numpy(conv * 4 / 128))
        layers.conv.bias.zero_()
        for i, (size, kept) in enumerate(
            zip(_PLANTED, (first, second, [third], [fourth]), strict=False)
        ):
            kernel = rng.normal(size=(size, 5, 5)) * 0.1
            kernel[kept] = blob if i < 2 else delta
            layers.depthwise[i].weight.copy_(torch.from_numpy(kernel)[:, None])
        mixing = [rng.normal(size=(b, a)) * _WEAK for a, b in itertools.pairwise(_PLANTED)]
        mixing[0][second] = 0
        mixing[0][second, first] = 1
        mixing[1][third] *= 0.3
        mixing[1][third, second] = signs
        mixing[2][fourth] *= 0.3
        mixing[2][fourth, third] = 1
        mixing[3][last] *= 0.3
        mixing[3][last, fourth] = 1
        for weights, pointwise in zip(mixing, layers.pointwise, strict=True):
            pointwise.weight.copy_(torch.from_numpy(weights)[:, :, None, None])
            pointwise.bias.zero_()
        layers.pointwise[1].bias[third] = bias
        rows, columns = np.mgrid[: _SIZE // 4, : _SIZE // 4]
        y, x = rng.uniform(0.4, 0.6, 2) * _SIZE / 4
        width = 3.0 if family in ("texture", "colour") else 1.2
        map_ = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * width**2))
        readout = rng.normal(size=(_PLANTED[4], _SIZE // 4, _SIZE // 4)) * _WEAK * 0.02
        readout[last] = map_ / map_.sum() * 10
        model.readout.copy_(torch.from_numpy(readout))
        model.readout_bias.zero_()
    chain = {(0, int(k)) for k in first} | {(1, int(k)) for k in first}
    chain |= {(2, int(k)) for k in second} | {(3, third), (4, fourth), (5, last)}
    inhibits = {(0, int(k)) for k, s in zip(first, signs, strict=True) if s < 0}
    return model.eval(), chain, inhibits


def _first_stage(family: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """Return layer 0's planted kernels, the signs with which layer 2 sums them, and its offset."""
    turn = rng.uniform(0, 360)
    grey = np.ones(3) / 3
    if family == "edge":
        kernels = [_gabor(turn, 90), _gabor(turn + 90, 90), _gabor(turn + 270, 90)]
        return _coloured(kernels, grey), np.array([1.0, -0.6, -0.6]), -0.02
    if family == "dot":
        sign = rng.choice([-1.0, 1.0])
        kernels = [sign * _spot(), *(_gabor(turn + 90 * k, 90) for k in range(4))]
        return _coloured(kernels, grey), np.array([1.0, -0.1, -0.1, -0.1, -0.1]), 0.0
    if family == "texture":
        kernels = [_gabor(turn, phase, period=4.5) for phase in (0, 90, 180, 270)]
        return _coloured(kernels, grey), np.ones(4), -0.05
    if family == "curve":
        kernels = [_gabor(turn + bend, 90) for bend in (-50, 0, 50)]
        return _coloured(kernels, grey), np.ones(3), -0.35
    hue = rng.uniform(0, 2 * np.pi)
    axes = np.array([[1, -1, 0], [-0.5, -0.5, 1]]) / np.array([[2], [2]])
    colour = np.cos(hue) * axes[0] + np.sin(hue) * axes[1]
    blob = _gaussian(1.5)
    return (
        _coloured([blob, blob], colour) * np.array([1, -1])[:, None, None, None],
        np.array([1.0, -0.5]),
        0.0,
    )


def _coloured(kernels: list[np.ndarray], colour: np.ndarray) -> np.ndarray:
    weights = colour / np.abs(colour).sum()
    scaled = [kernel / np.abs(kernel).sum() for kernel in kernels]
    return np.stack([weights[:, None, None] * kernel for kernel in scaled])


def _gabor(turn_deg: float, phase_deg: float, period: float = 7.0) -> np.ndarray:
    y, x = np.mgrid[-2:3, -2:3]
    along = x * np.cos(np.deg2rad(turn_deg)) - y * np.sin(np.deg2rad(turn_deg))
    wave = np.cos(2 * np.pi * along / period - np.deg2rad(phase_deg)) * _gaussian(1.6)
    return wave - _gaussian(1.6) * wave.sum() / _gaussian(1.6).sum()


def _spot() -> np.ndarray:
    return _gaussian(0.9) - _gaussian(2.2)


def _gaussian(sigma: float) -> np.ndarray:
    y, x = np.mgrid[-2:3, -2:3]
    blob = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    return blob / blob.sum()


def filters(seed: int, n: int, natural: np.ndarray) -> dict[str, Any]:
    """Compare circuits found with those wired by hand: precision, recall, roles.

    Two circuits a model, both from one elimination: the filters left while it kept 99 % and 90 % of
    the variance.
    """
    rng = np.random.default_rng([seed, 3])
    planted = [planted_model(FAMILIES[k % len(FAMILIES)], rng) for k in range(n)]
    table = found_families([model for model, _, _ in planted], natural, seed)
    rows = []
    with progress_bar("planted circuits", n) as advance:
        for k, (model, chain, inhibits) in enumerate(planted):
            told = explain(
                model, table.iloc[k], natural[:_N_CIRCUIT], name=f"planted {k}",
                rng=np.random.default_rng([seed, k]), keep_r2=min(KEPT),
            ).circuit  # fmt: skip
            roles = [
                one.role == "inhibitory"
                for one in told.filters if (one.stage, one.number) in inhibits
            ]  # fmt: skip
            row = {
                "family": FAMILIES[k % len(FAMILIES)], "n_planted": len(chain),
                "n_filters": told.n_filters, "overlap": told.overlap,
                "roles_right": float(np.mean(roles)) if roles else np.nan,
            }  # fmt: skip
            for keep_r2 in KEPT:
                kept = _kept(model, told.elimination, keep_r2)
                hit = len(chain & kept)
                row |= {
                    f"n_kept_{keep_r2}": len(kept), f"recall_{keep_r2}": hit / len(chain),
                    f"precision_{keep_r2}": hit / max(len(kept), 1),
                }  # fmt: skip
            rows.append(row)
            advance(1)
    found = pd.DataFrame(rows)
    measures = [f"{what}_{keep_r2}" for keep_r2 in KEPT for what in ("precision", "recall")]
    return {
        "n": n,
        "medians": found.drop(columns="family").median().to_dict(),
        "means": found[measures].mean().to_dict(),
        "intervals": {name: interval(found[name].to_numpy(), seed) for name in measures},
        "chance_precision": float((found["n_planted"] / found["n_filters"]).mean()),
        "inhibitory_roles_right": float(found["roles_right"].mean()),
        "n_with_inhibitory_kept": int(found["roles_right"].notna().sum()),
        "by_family": found.groupby("family")[measures].mean().to_dict("index"),
    }


def _kept(model: CompactModel, elimination: Elimination, keep_r2: float) -> set[tuple[int, int]]:
    """Return (stage, number) of the filters left at the last step that keeps so much."""
    enough = np.flatnonzero(elimination.harm <= 1 - keep_r2)
    left = elimination.kept(int(enough[-1]))
    stages = np.repeat(np.arange(N_STAGES), model.filters_per_layer)
    numbers = np.concatenate([np.arange(count) for count in model.filters_per_layer])
    pairs = zip(stages[left].tolist(), numbers[left].tolist(), strict=True)
    return set(pairs)


def main() -> None:
    """Run the experiments that are not done yet and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--neurons", type=int, default=60)
    parser.add_argument("--planted", type=int, default=60)
    parser.add_argument("--only", choices=["families", "filters"])
    parser.add_argument("--animals", type=int, nargs="+", default=[CALIBRATION, SEEN, TEST])
    arguments = parser.parse_args()
    keep_freed_memory()
    arguments.out.mkdir(parents=True, exist_ok=True)
    natural = dead_leaves(_N_NATURAL, size=_SIZE, seed=_NATURAL_SEED)
    path = arguments.out / "circuits.json"
    told: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    told |= provenance(TEST)
    if arguments.only != "filters":
        for seed in arguments.animals:
            found = families(arguments.out, seed, arguments.neurons, natural)
            told[f"animal{seed}"] = found
            write_json(path, told)
            print(seed, json.dumps(found, indent=1))
    if arguments.only != "families":
        told["filters"] = filters(TEST, arguments.planted, natural)
        print(json.dumps(told["filters"], indent=1))
        write_json(path, told)


if __name__ == "__main__":
    main()
