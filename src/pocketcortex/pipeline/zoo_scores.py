"""Networks against recordings: a folder for each network and area, finished whole or not at all."""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pocketcortex.benchmark import AreaSettings, score_area
from pocketcortex.core import (
    BrainArea,
    InputError,
    RunFolder,
    StimulusSet,
    provenance,
    write_json,
)
from pocketcortex.pipeline.progress import progress_bar, say
from pocketcortex.pipeline.zoo_models import ZooModel
from pocketcortex.zoo import KernelStore, Network, StreamPlan, plan_stream

SCORES = "scores"
CODE_VERSION = 2
"""Raise when the numbers in a finished folder would come out differently."""

_RECORDS = "zoo.json"


@dataclass(frozen=True)
class StreamSettings:
    """How kernels are computed; none but `n_layers` changes a number.

    Attributes
    ----------
    n_layers
        So many of a network's layers, spread evenly from the first to the last; None for all.
    memory_gib
        Most memory of a pass.
    device
        Where networks run.
    keep_kernels
        Whether kernels stay on disk (16 bytes a layer and pair of images) once scored.
    """

    n_layers: int | None = None
    memory_gib: float = 2.0
    device: str = "cpu"
    keep_kernels: bool = False

    def __post_init__(self) -> None:
        if self.n_layers is not None and self.n_layers < 1:
            raise InputError(f"n_layers must be 1 or more, got {self.n_layers}")


def score_zoo(
    models: Sequence[ZooModel],
    areas: Sequence[BrainArea],
    out: str | Path,
    *,
    seed: int,
    settings: AreaSettings | None = None,
    stream: StreamSettings | None = None,
) -> dict[str, Any]:
    """Score every network on every area and return the summary.

    Each pair fills the folder ``scores/NETWORK/AREA`` (``scores.parquet``, ``layers.parquet``,
    ``samples.npz``, ``about.json``), which appears when it is whole; its key holds weights,
    preprocessing with input size, layers, the area's content, settings and seed. So a sweep that
    was killed goes on with the first pair that is missing, and ends with the same numbers. Areas
    with the same images share one pass through each network. A network that cannot be built is
    told under ``failed`` and passed over; where one of our own models has seen the responses that
    it is scored on, that is told under ``in_sample``. At the end ``scores.parquet`` and
    ``scores.csv`` hold all pairs in one table.

    Parameters
    ----------
    models
        Rows, from :func:`zoo_models`.
    areas
        Recordings, each with an id of its own.
    out
        Folder; one that exists is gone on with.
    seed
        Of everything random.
    settings
        Of the scores.
    stream
        Of the kernels.

    Raises
    ------
    InputError
        If there is no model or area, two have one name, or no network could be scored.
    """
    how = AreaSettings() if settings is None else settings
    flow = StreamSettings() if stream is None else stream
    _refuse_alike("areas", [area.id for area in areas])
    _refuse_alike("networks", [model.spec.name for model in models])
    folder = RunFolder(out)
    with folder.locked():
        record = provenance(seed) | {
            "settings": asdict(how) | {"n_layers": flow.n_layers},
            "areas": [area.id for area in areas], "models": [m.spec.as_dict() for m in models],
        }  # fmt: skip
        folder.write_json(_RECORDS, record)
        failed: dict[str, str] = {}
        done: list[Path] = []
        n_skipped = 0
        for place, model in enumerate(models):
            say(f"network {place + 1} of {len(models)}: {model.spec.name}")
            try:
                network = model.build()
                for of_images in _by_images(areas):
                    paths, skipped = _score_network(
                        folder, model, network, of_images, how, flow, seed
                    )
                    done += paths
                    n_skipped += skipped
            except InputError as error:
                failed[model.spec.name] = str(error)
                say(f"{model.spec.name} is passed over: {error}")
        if not done:
            raise InputError(f"no network could be scored: {next(iter(failed.values()))}")
        table = pd.concat([pd.read_parquet(path / "scores.parquet") for path in done])
        write_table(table, folder.path, "scores")
        write_json(folder.path / "failed.json", failed)
        seen = [
            {"area": area.id, "model": model.spec.name, "why": model.in_sample(area)}
            for model in models
            for area in areas
            if model.in_sample(area)
        ]
        return _summary(table, folder.path, seed, len(done), n_skipped, failed) | {
            "in_sample": seen
        }


def _score_network(
    folder: RunFolder,
    model: ZooModel,
    network: Network,
    areas: Sequence[BrainArea],
    how: AreaSettings,
    flow: StreamSettings,
    seed: int,
) -> tuple[list[Path], int]:
    """Score one network on areas that share their images; return folders and how many were done."""
    stimuli = areas[0].stimuli
    store = KernelStore(folder.path / "kernels" / slug(model.spec.name))
    own = model.layers(network)
    key = network.key
    paths, n_skipped = [], 0
    wanted: list[tuple[str, ...] | None] = []  # the layers, once they are needed

    def layers() -> tuple[str, ...] | None:
        if not wanted:
            wanted.append(_spread(network, stimuli, own, flow))
        return wanted[0]

    for area in areas:

        def work(target: Path, area: BrainArea = area) -> None:
            with progress_bar(f"{model.spec.name}, images", len(stimuli)) as advance:

                def announce(plan: StreamPlan) -> None:
                    say(str(plan))
                    advance(0, plan.n_images)

                kernels = store.kernels(
                    network, stimuli, layers=layers(), memory_gib=flow.memory_gib,
                    device=flow.device, announce=announce, advance=advance,
                )  # fmt: skip
            scores = score_area(kernels, area, model=model.spec.name, seed=seed, settings=how)
            write_table(scores.table, target, "scores", csv=False)
            write_table(scores.layers, target, "layers", csv=False)
            arrays: dict[str, Any] = dict(scores.samples)
            np.savez_compressed(target / "samples.npz", **arrays)
            write_json(target / "about.json", _about(model, network, area))

        inputs = {
            "code": CODE_VERSION, "network": key, "name": model.spec.name, "layers": own,
            "n_layers": flow.n_layers, "preprocessing": asdict(network.preprocessing),
            "area": area_digest(area), "settings": asdict(how), "seed": seed,
        }  # fmt: skip
        if model.made_with is not None:  # told beside the scores
            inputs["made_with"] = model.made_with.as_list()
        name = f"{SCORES}/{slug(model.spec.name)}/{slug(area.id)}"
        path, skipped = folder.stage(name, json.loads(json.dumps(inputs)), work)
        say(f"{model.spec.name} on {area.id}: " + ("done before" if skipped else "done"))
        paths.append(path)
        n_skipped += skipped
    if not flow.keep_kernels:
        shutil.rmtree(store.folder, ignore_errors=True)
    return paths, n_skipped


def _spread(
    network: Network, stimuli: StimulusSet, own: tuple[str, ...] | None, flow: StreamSettings
) -> tuple[str, ...] | None:
    """Return the layers wanted: its own choice, or some spread evenly, or None for all.

    They are spread over all outputs, equal ones too, in the order of the modules: a network and its
    random twin have the same, though other outputs may be equal in it.
    """
    if own is not None or flow.n_layers is None:
        return own
    plan = plan_stream(
        network, stimuli, memory_gib=flow.memory_gib, device=flow.device, to_files=True
    )
    order = {name: place for place, (name, _) in enumerate(network.network.named_modules())}
    found = sorted(
        {*plan.layers, *plan.duplicates},
        key=lambda name: (order.get(re.split(r"[#\[]", name)[0], len(order)), name),
    )
    places = np.unique(np.linspace(0, len(found) - 1, flow.n_layers).round().astype(int))
    return tuple(found[place] for place in places)


def _about(model: ZooModel, network: Network, area: BrainArea) -> dict[str, Any]:
    return {
        "model": model.spec.as_dict()
        | {"trained_name": model.trained_name, "n_parameters": network.n_parameters},
        "preprocessing": asdict(network.preprocessing),
        "network_key": network.key,
        "in_sample": model.in_sample(area),
        "area": {
            "id": area.id, "species": area.species, "area": area.area, "layer": area.layer,
            "n_stimuli": area.n_stimuli, "n_neurons": area.n_neurons, "note": area.note,
        },
    }  # fmt: skip


def _summary(
    table: pd.DataFrame, out: Path, seed: int, n_pairs: int, n_skipped: int, failed: dict[str, str]
) -> dict[str, Any]:
    rows = table[table["statistic"].isin(["mean", "area"]) & (table["protocol"] == "honest")]
    kept = ("area", "model", "metric", "value", "ci_low", "ci_high", "ceiling", "null", "reason")
    return {
        "out": str(out), "seed": seed, "n_models": int(table["model"].nunique()),
        "n_areas": int(table["area"].nunique()), "n_pairs": n_pairs, "n_done_before": n_skipped,
        "failed": failed, "scores": [plain(row) for row in rows[list(kept)].to_dict("records")],
    }  # fmt: skip


def plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a table's row as JSON has it: NaN and missing become None."""
    out: dict[str, Any] = {}
    for name, value in row.items():
        scalar = value.item() if isinstance(value, np.generic) else value
        missing = scalar is None or scalar is pd.NA or scalar != scalar
        out[str(name)] = None if missing else scalar
    return out


def write_table(table: pd.DataFrame, folder: Path, name: str, *, csv: bool = True) -> None:
    """Write a table as Parquet, and as CSV for whoever reads by eye."""
    table.to_parquet(folder / f"{name}.parquet", index=False)
    if csv:
        table.to_csv(folder / f"{name}.csv", index=False)


def slug(name: str) -> str:
    """Return a folder's name for any name: readable, and its own."""
    text = re.sub(r"[^A-Za-z0-9.@_-]+", "_", name).strip("._") or "_"
    if text == name:
        return text
    return f"{text[-80:]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def area_digest(area: BrainArea) -> str:
    """Return a hash of an area's images, responses and matrices."""
    digest = hashlib.sha256(f"{area.id}|{area.stimuli.fingerprint}|{area.rdm_ceiling}".encode())
    if area.session is not None:
        digest.update(f"{area.session.has_repeats}".encode())
        digest.update(np.ascontiguousarray(area.session.responses).tobytes())
    if area.rdms is not None:
        digest.update(np.ascontiguousarray(area.rdms).tobytes())
    return digest.hexdigest()


def _by_images(areas: Sequence[BrainArea]) -> list[list[BrainArea]]:
    groups: dict[str, list[BrainArea]] = {}
    for area in areas:
        groups.setdefault(area.stimuli.fingerprint, []).append(area)
    return list(groups.values())


def _refuse_alike(what: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        raise InputError(
            f"{what} of one name: {', '.join(twice)}" if twice else f"no {what} to score"
        )
