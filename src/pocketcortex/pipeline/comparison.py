"""All pairs of compact models compared, layer by layer."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pocketcortex.core import InputError, StimulusSet
from pocketcortex.dissect import (
    alignment_table,
    alignment_test,
    consolidation_table,
    filters_table,
    kernel_similarity,
    kernel_table,
    kernel_test,
    model_alignment,
)
from pocketcortex.pipeline.dissected_figures import (
    comparison_figure,
    save_figure,
)
from pocketcortex.pipeline.dissection import centres_of, fields_of
from pocketcortex.pipeline.progress import progress_bar
from pocketcortex.pipeline.stimuli import StimuliJob, drawn_at_random


def compare(
    job: StimuliJob, bank: StimulusSet, *, n_images: int = 1000, n_permutations: int = 100
) -> dict[str, Any]:
    """Compare the layers of all pairs of models: filters, kernels, CKA, consolidation.

    Parameters
    ----------
    job
        Two models or more, and folder.
    bank
        Natural images; so many, drawn by seed, are used.
    n_images, n_permutations
        Of CKA. The control by receptive fields takes a fifth of the images.

    Returns
    -------
    The content of ``summary.json``. Beside it: ``layers.csv`` (CKA), ``kernels.csv``,
    ``control.csv`` (CKA of what lies in the receptive fields), ``tests.csv`` (early against late
    layers), ``filters.csv``, ``consolidation.csv``, ``cka.npy`` (layers, models, models) and
    ``figure.png``.

    Raises
    ------
    InputError
        If there are fewer than two models or eight images, or the bank has too few.
    """
    if len(job.models) < 2:
        raise InputError(f"a comparison needs two models or more, got {len(job.models)}")
    settings = {
        "bank": bank.fingerprint, "n_images": n_images, "n_permutations": n_permutations,
    }  # fmt: skip

    def work(folder: Path) -> dict[str, Any]:
        images = bank.take(drawn_at_random(bank, n_images, job.seed))
        rng = np.random.default_rng([job.seed, 1])
        fields = fields_of(job, bank)
        with progress_bar("CKA", len(images)) as advance:
            whole = model_alignment(
                job.listed, images, n_permutations=n_permutations, seed=job.seed,
                device=job.device, advance=advance,
            )  # fmt: skip
        few = images.take(slice(0, max(8, n_images // 5)))
        with progress_bar("CKA in receptive fields", len(few)) as advance:
            control = model_alignment(
                job.listed, few, positions="receptive field", centres_px=centres_of(fields, job),
                seed=job.seed, device=job.device, advance=advance,
            )  # fmt: skip
        kernels = kernel_similarity(job.listed, rng=rng)
        layers = alignment_table(whole, rng=rng)
        tests = pd.concat([
            alignment_test(whole, rng=rng).assign(measure="CKA"),
            alignment_test(control, rng=rng).assign(measure="CKA, receptive field"),
            kernel_test(kernels, rng=rng).assign(measure="kernel similarity"),
        ], ignore_index=True)  # fmt: skip
        tables = {
            "layers": layers, "control": alignment_table(control, rng=rng),
            "kernels": kernel_table(kernels, rng=rng), "tests": tests,
            "filters": filters_table(job.listed, whole.channels),
            "consolidation": consolidation_table(job.listed, whole.channels),
        }  # fmt: skip
        for name, table in tables.items():
            table.to_csv(folder / f"{name}.csv", index=False)
        np.save(folder / "cka.npy", whole.cka)
        save_figure(comparison_figure(job.listed, whole, kernels, tables), folder / "figure.png")
        narrow = tables["consolidation"]["layer"]
        return {
            "n_models": len(job.models), "n_images": whole.n_images,
            "n_pairs": len(job.models) * (len(job.models) - 1) // 2,
            "median_filters": [float(np.median(f)) for f in zip(
                *(m.filters_per_layer for m in job.listed), strict=True)],
            "cka": _told(layers["mean"]),
            "cka_in_receptive_fields": _told(tables["control"]["mean"]),
            "kernel_similarity": _told(tables["kernels"]["mean"]),
            "kernel_reference": _told(tables["kernels"]["reference"]),
            "early_minus_late": {
                str(row["measure"]): {name: _told([row[name]])[0] for name in (
                    "difference", "ci_low", "ci_high", "p_valid", "p_draws")}
                for row in tests.to_dict("records")
            },
            "share_narrowing_most_at_layer_2": float((narrow == 2).mean()),
            "seconds_of": {"maps": whole.seconds_maps, "grams": whole.seconds_grams,
                           "similarity": whole.seconds_similarity},
        }  # fmt: skip

    return job.do("compare", settings, work)


def _told(values: Iterable[float]) -> list[float | None]:
    """Return numbers as JSON has them: None for what is not defined."""
    return [float(value) if np.isfinite(value) else None for value in values]
