"""A run's stage that says what its compact models prefer, and how the best one does it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pocketcortex.core import StimulusSet, parse_json, read_array, write_json
from pocketcortex.dissect import FAMILIES, LEAST_SIZE, explain, merits
from pocketcortex.models import CompactModel
from pocketcortex.pipeline.dissected_figures import circuit_drawing, families_drawing
from pocketcortex.pipeline.dissection import (
    N_CIRCUIT_IMAGES,
    fields_and_answers,
    natural_sample,
    prefer,
)
from pocketcortex.pipeline.stimuli import StimuliJob
from pocketcortex.plots import CircuitNode

_PLAIN = ("title", "explanation", "link_name")


def find_circuits(
    folder: Path, models: Sequence[CompactModel], bank: StimulusSet, seed: int, device: str
) -> None:
    """Write what every model prefers, and the circuit of the most convincing one.

    Beside ``families.csv``: ``best_FAMILY.npy``, the preferred stimuli of each family's candidates;
    ``circuit.json`` and ``circuit.npy`` (its image), if any model has a preference. For images too
    small to draw on, ``skipped.json`` says why there is nothing.
    """
    height, width = models[0].image_size
    if height != width or height < LEAST_SIZE:
        why = f"stimuli are drawn on squares of {LEAST_SIZE} pixels or more, not {height} x {width}"
        write_json(folder / "skipped.json", {"reason": why})
        return
    names = [str(k) for k in range(len(models))]
    job = StimuliJob(dict(zip(names, models, strict=True)), folder, seed, device)
    found = prefer(job, bank, *fields_and_answers(job, bank))
    table = found.table.assign(merit=merits(found.table))
    table.to_csv(folder / "families.csv", index=False)
    for family in FAMILIES:
        own = found.ranked(family)
        np.save(folder / f"best_{family}.npy", found.stimuli[own, FAMILIES.index(family)])
        np.save(folder / f"ranked_{family}.npy", own)
    told_apart = np.flatnonzero(table["reason"] == "")
    if not len(told_apart):
        return
    k = int(told_apart[table["merit"].to_numpy()[told_apart].argmax()])
    told = explain(
        models[k], found.table.iloc[k], natural_sample(bank, N_CIRCUIT_IMAGES, seed), name=names[k],
        rng=np.random.default_rng([seed, k]), device=device,
    )  # fmt: skip
    drawn = circuit_drawing(told)
    np.save(folder / "circuit.npy", drawn["image"])
    nodes = [vars(one) | {"kernel": one.kernel.tolist()} for one in drawn["nodes"]]
    write_json(
        folder / "circuit.json",
        {"model": k, "nodes": nodes, "links": drawn["links"].tolist(),
         "weights": drawn["weights"].tolist(), **{name: drawn[name] for name in _PLAIN}},
    )  # fmt: skip


def read_circuits(folder: Path, labels: Sequence[str]) -> dict[str, Any]:
    """Return what `ReportContent` takes of the stage; nothing where it was skipped."""
    if (folder / "skipped.json").exists():
        return {}
    table = pd.read_csv(folder / "families.csv", keep_default_na=False, na_values=[""])
    stimuli = {family: read_array(folder / f"best_{family}.npy") for family in FAMILIES}
    ranked = {family: read_array(folder / f"ranked_{family}.npy") for family in FAMILIES}
    found: dict[str, Any] = {
        "families": families_drawing(table, ranked, stimuli, labels),
        "family_scores": table[[f"score_{family}" for family in FAMILIES]].to_numpy(np.float64),
        "family_names": FAMILIES,
    }
    path = folder / "circuit.json"
    if path.exists():
        told = parse_json(path.read_text())
        label = labels[told["model"]]
        nodes = [
            CircuitNode(**one | {"kernel": np.array(one["kernel"], np.float64)})
            for one in told["nodes"]
        ]
        found["circuit"] = {
            "nodes": nodes, "links": np.array(told["links"], np.int64).reshape(-1, 3),
            "weights": np.array(told["weights"], np.float64),
            "image": read_array(folder / "circuit.npy"), "link_name": told["link_name"],
            "title": label,
            "explanation": told["explanation"].replace(told["title"], label, 1),
        }  # fmt: skip
    return found
