"""What each of a population of compact models prefers: tuned and explained."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, UInt8

from pocketcortex.core import InputError, StimulusSet
from pocketcortex.dissect import (
    FAMILIES,
    Preferences,
    ReceptiveFields,
    Tuning,
    dot_search,
    explain,
    has_field,
    merits,
    preferences,
    receptive_fields,
    tune,
)
from pocketcortex.pipeline.dissected_figures import (
    circuit_figure,
    dot_figure,
    family_figures,
    save_figure,
    tuning_figures,
)
from pocketcortex.pipeline.progress import progress_bar
from pocketcortex.pipeline.simulated_causal import predictions
from pocketcortex.pipeline.stimuli import StimuliJob, drawn_at_random

N_FIELD_IMAGES = 24
"""Natural images over which receptive fields are averaged."""
N_CHANCE_IMAGES = 8
"""Natural images over which the fields of shuffled models are averaged."""
N_NATURAL = 200
"""Natural images by which responses to drawn stimuli are judged."""
N_CIRCUIT_IMAGES = 16
"""Natural images over which filters are averaged, and by which a circuit is tried."""


def tune_all(job: StimuliJob, bank: StimulusSet) -> dict[str, Any]:
    """Measure every model's tuning to dots, gratings, borders and colours.

    Parameters
    ----------
    job
        Models and folder.
    bank
        Natural images, for receptive fields.

    Returns
    -------
    The content of ``summary.json``. Beside it: ``tuning.csv``, one row a model with its receptive
    field and indices, and for each model ``NAME.png`` (its tuning) and ``NAME_dots.png``.

    Raises
    ------
    InputError
        As for `tune`.
    """

    def work(folder: Path) -> dict[str, Any]:
        fields = fields_of(job, bank)
        rows = []
        with progress_bar("tuning", len(job.models)) as advance:
            for k, (name, _) in enumerate(job.models.items()):
                tuning = tuned(job, k, fields)
                for suffix, figure in tuning_figures(name, tuning).items():
                    save_figure(figure, folder / f"{name}{suffix}.png")
                rows.append(
                    {"model": name, "x_px": fields.x_px[k], "y_px": fields.y_px[k],
                     "diameter_px": fields.diameter_px[k], **tuning.indices}
                )  # fmt: skip
                advance(1)
        table = pd.DataFrame(rows)
        table.to_csv(folder / "tuning.csv", index=False)
        return {"n_models": len(rows), "median": _medians(table)}

    return job.do("tune", {"bank": bank.fingerprint}, work)


def explain_all(
    job: StimuliJob,
    bank: StimulusSet,
    *,
    n_circuits: int = 1,
    keep_r2: float = 0.9,
) -> dict[str, Any]:
    """Find the family of stimuli that every model prefers, and the circuits of the best of each.

    Parameters
    ----------
    job
        Models and folder.
    bank
        Natural images, for receptive fields and as the measure of responses.
    n_circuits
        Most convincing models of each family to explain.
    keep_r2
        Squared correlation with the intact model that a circuit must keep.

    Returns
    -------
    The content of ``summary.json``. Beside it: ``families.csv``, one row a model, the candidates
    of each family ranked; ``figure.png``, the best of each; ``scores.png``; ``dots.csv``, the
    search for dot detectors, and ``dots.png``, their curves; and for each model explained, the best
    dot detectors among them, ``NAME.txt``, ``NAME.png`` (its circuit) and ``NAME_filters.csv``.

    Raises
    ------
    InputError
        As for `preferences` and `explain`.
    """
    if not 0 < keep_r2 < 1:  # before the long work, not after it
        raise InputError(f"keep_r2 must lie between 0 and 1, got {keep_r2}")
    settings = {"bank": bank.fingerprint, "n_circuits": n_circuits, "keep_r2": keep_r2}

    def work(folder: Path) -> dict[str, Any]:
        fields, answers = fields_and_answers(job, bank)
        found = prefer(job, bank, fields, answers)
        names = list(job.models)
        with progress_bar("dots", len(names)) as advance:
            dots = dot_search(job.listed, fields, answers, device=job.device, advance=advance)
        dots.assign(model=names).sort_values("rank").to_csv(folder / "dots.csv", index=False)
        detectors = np.argsort(dots["rank"].to_numpy())[: int(dots["is_detector"].sum())]
        if len(detectors):
            drawn = dot_figure(dots.iloc[detectors], [names[k] for k in detectors])
            save_figure(drawn, folder / "dots.png")
        table = found.table.assign(model=names)
        table["rank"] = np.nan
        for family in FAMILIES:
            ranked = found.ranked(family)
            table.loc[ranked, "rank"] = np.arange(1, len(ranked) + 1)
        table["merit"] = merits(table)
        table.to_csv(folder / "families.csv", index=False)
        for file, figure in family_figures(found, names).items():
            save_figure(figure, folder / file)
        best = [found.ranked(family) for family in FAMILIES]
        chosen = list(dict.fromkeys(int(k) for own in (detectors, *best) for k in own[:n_circuits]))
        natural = natural_sample(bank, N_CIRCUIT_IMAGES, job.seed)
        circuits = {}
        with progress_bar("circuits", len(chosen)) as advance:
            for k in chosen:
                told = explain(
                    job.listed[k], found.table.iloc[k], natural, name=names[k],
                    rng=np.random.default_rng([job.seed, k]), keep_r2=keep_r2,
                    dots=dots.iloc[k], device=job.device,
                )  # fmt: skip
                (folder / f"{names[k]}.txt").write_text(told.text + "\n")
                save_figure(circuit_figure(told), folder / f"{names[k]}.png")
                pd.DataFrame(
                    [
                        {k: v for k, v in vars(one).items() if k != "weights"}
                        | {"detects": told.detects(one)}
                        for one in told.circuit.filters
                    ]
                ).to_csv(folder / f"{names[k]}_filters.csv", index=False)
                circuits[names[k]] = {
                    "family": str(found.table["family"].iloc[k]),
                    "n_kept": len(told.circuit.filters), "n_filters": told.circuit.n_filters,
                    "kept_r2": told.circuit.kept_r2,
                    "kept_r2_natural": told.circuit.kept_r2_natural,
                    "overlap": told.circuit.overlap, "text": told.text,
                }  # fmt: skip
                advance(1)
        return {
            "n_models": len(names),
            "n_of_family": table["family"].value_counts().to_dict(),
            "n_dot_detectors": len(detectors),
            "best_dot_detectors": [names[k] for k in detectors[:3]],
            "best": {family: [names[k] for k in found.ranked(family)[:3]] for family in FAMILIES},
            "circuits": circuits,
        }  # fmt: skip

    return job.do("explain", settings, work)


def prefer(
    job: StimuliJob,
    bank: StimulusSet,
    fields: ReceptiveFields,
    answers: Float[np.ndarray, "n_images n_models"],
) -> Preferences:
    """Return what every model prefers, from what `fields_and_answers` returns."""
    few = natural_sample(bank, N_CHANCE_IMAGES, job.seed)
    rng = np.random.default_rng([job.seed, 3])
    with_field = has_field(job.listed, few, rng=rng, device=job.device)
    with progress_bar("families", len(job.models)) as advance:
        return preferences(
            job.listed, fields, answers, with_field=with_field,
            rng=np.random.default_rng([job.seed, 2]), device=job.device, advance=advance,
        )  # fmt: skip


def fields_and_answers(
    job: StimuliJob, bank: StimulusSet
) -> tuple[ReceptiveFields, Float[np.ndarray, "n_images n_models"]]:
    """Return receptive fields, and responses to natural images drawn by the job's seed."""
    natural = bank.take(drawn_at_random(bank, min(N_NATURAL, len(bank)), job.seed))
    return fields_of(job, bank), predictions(job.listed, natural, job.device).astype(np.float64)


def tuned(job: StimuliJob, k: int, fields: ReceptiveFields) -> Tuning:
    """Return a model's tuning about its receptive field."""
    x, y = centres_of(fields, job)[k]
    rng = np.random.default_rng([job.seed, k])
    return tune(job.listed[k], (float(x), float(y)), rng=rng, device=job.device)


def fields_of(job: StimuliJob, bank: StimulusSet) -> ReceptiveFields:
    """Return the receptive fields of a job's models, by natural images drawn by its seed."""
    natural = natural_sample(bank, N_FIELD_IMAGES, job.seed)
    return receptive_fields(job.listed, natural, device=job.device)


def centres_of(fields: ReceptiveFields, job: StimuliJob) -> Float[np.ndarray, "n_models 2"]:
    """Return x and y of the fields; the image's middle for a model that nothing changes."""
    height, width = job.listed[0].image_size
    found = np.stack([fields.x_px, fields.y_px], axis=1)
    return np.asarray(np.where(np.isnan(found), [(width - 1) / 2, (height - 1) / 2], found))


def natural_sample(bank: StimulusSet, n: int, seed: int) -> UInt8[np.ndarray, "n 3 h w"]:
    """Return so many images of a bank, or all it has, drawn by seed."""
    places: Int[np.ndarray, " n"] = drawn_at_random(bank, min(n, len(bank)), seed)
    return bank.read(places)


def _medians(table: pd.DataFrame) -> dict[str, float | None]:
    medians = table.drop(columns="model").median()
    return {str(name): None if np.isnan(v) else float(v) for name, v in medians.items()}
