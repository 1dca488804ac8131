"""What is inside a population of compact models: compared, tuned, explained, ablated, traced."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, UInt8

from pocketcortex.core import InputError, StimulusSet
from pocketcortex.data import read_v4
from pocketcortex.dissect import (
    FAMILIES,
    Preferences,
    ReceptiveFields,
    Tuning,
    ablate_score,
    ablate_tuning,
    alignment_table,
    alignment_test,
    consolidation_table,
    explain,
    filters_table,
    kernel_similarity,
    kernel_table,
    kernel_test,
    merits,
    model_alignment,
    preferences,
    receptive_fields,
    trace,
    tune,
)
from pocketcortex.pipeline.dissected_figures import (
    ablation_figures,
    circuit_figure,
    comparison_figure,
    family_figures,
    save_figure,
    trace_figure,
    tuning_figures,
)
from pocketcortex.pipeline.progress import progress_bar
from pocketcortex.pipeline.simulated_causal import predictions
from pocketcortex.pipeline.stimuli import StimuliJob, drawn_at_random

N_FIELD_IMAGES = 24
"""Natural images over which receptive fields are averaged."""
N_NATURAL = 200
"""Natural images by which responses to drawn stimuli are judged."""
N_CIRCUIT_IMAGES = 16
"""Natural images over which filters are averaged, and by which a circuit is tried."""


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
        fields = _fields(job, bank)
        with progress_bar("CKA", len(images)) as advance:
            whole = model_alignment(
                job.listed, images, n_permutations=n_permutations, seed=job.seed,
                device=job.device, advance=advance,
            )  # fmt: skip
        few = images.take(slice(0, max(8, n_images // 5)))
        with progress_bar("CKA in receptive fields", len(few)) as advance:
            control = model_alignment(
                job.listed, few, positions="receptive field", centres_px=_centres(fields, job),
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
        fields = _fields(job, bank)
        rows = []
        with progress_bar("tuning", len(job.models)) as advance:
            for k, (name, _) in enumerate(job.models.items()):
                tuning = _tuned(job, k, fields)
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
    of each family ranked; ``figure.png``, the best of each; ``scores.png``; and for each model
    explained ``NAME.txt``, ``NAME.png`` (its circuit) and ``NAME_filters.csv``.

    Raises
    ------
    InputError
        As for `preferences` and `explain`.
    """
    settings = {"bank": bank.fingerprint, "n_circuits": n_circuits, "keep_r2": keep_r2}

    def work(folder: Path) -> dict[str, Any]:
        found = prefer(job, bank)
        names = list(job.models)
        table = found.table.assign(model=names)
        table["rank"] = np.nan
        for family in FAMILIES:
            ranked = found.ranked(family)
            table.loc[ranked, "rank"] = np.arange(1, len(ranked) + 1)
        table["merit"] = merits(table)
        table.to_csv(folder / "families.csv", index=False)
        for file, figure in family_figures(found, names).items():
            save_figure(figure, folder / file)
        chosen = [int(k) for family in FAMILIES for k in found.ranked(family)[:n_circuits]]
        natural = natural_sample(bank, N_CIRCUIT_IMAGES, job.seed)
        circuits = {}
        with progress_bar("circuits", len(chosen)) as advance:
            for k in chosen:
                told = explain(
                    job.listed[k], found.table.iloc[k], natural, name=names[k],
                    rng=np.random.default_rng([job.seed, k]), keep_r2=keep_r2, device=job.device,
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
            "best": {family: [names[k] for k in found.ranked(family)[:3]] for family in FAMILIES},
            "circuits": circuits,
        }  # fmt: skip

    return job.do("explain", settings, work)


def prefer(job: StimuliJob, bank: StimulusSet) -> Preferences:
    """Return what every model prefers, judged by natural images of a bank."""
    fields = _fields(job, bank)
    natural = bank.take(drawn_at_random(bank, min(N_NATURAL, len(bank)), job.seed))
    answers = predictions(job.listed, natural, job.device).astype(np.float64)
    with progress_bar("families", len(job.models)) as advance:
        return preferences(
            job.listed, fields, answers, rng=np.random.default_rng([job.seed, 2]),
            device=job.device, advance=advance,
        )  # fmt: skip


def ablate_all(
    job: StimuliJob,
    bank: StimulusSet,
    recorded: dict[str, tuple[UInt8[np.ndarray, "n 3 h w"], Float[np.ndarray, " n"]]],
) -> dict[str, Any]:
    """Take filters out of every model, and see what becomes of its tuning to dots and its r².

    Parameters
    ----------
    job
        Models and folder.
    bank
        Natural images, for receptive fields.
    recorded
        By model: images that no training saw, and its neuron's mean responses. May be empty.

    Returns
    -------
    The content of ``summary.json``. Beside it: ``filters.csv``, one row a model and filter with
    its dot-size and dot-number invariance index (and ``r2_change``); ``stages.csv``, the same of
    whole stages; for each model ``NAME.png`` and ``NAME_cumulative.png``.

    Raises
    ------
    InputError
        As for `ablate_tuning` and `ablate_score`.
    """
    settings = {
        "bank": bank.fingerprint,
        "recorded": {name: [len(r), float(r.sum())] for name, (_, r) in recorded.items()},
    }

    def work(folder: Path) -> dict[str, Any]:
        fields = _fields(job, bank)
        filters, stages = [], []
        with progress_bar("ablations", len(job.models)) as advance:
            for k, name in enumerate(job.models):
                tuning = _tuned(job, k, fields)
                found = ablate_tuning(job.listed[k], tuning, device=job.device)
                table = pd.DataFrame({
                    "model": name, "stage": found.stages, "number": found.numbers,
                    "size_invariance": found.size_invariance,
                    "number_invariance": found.number_invariance,
                })  # fmt: skip
                whole = pd.DataFrame({
                    "model": name, "stage": np.arange(6),
                    "size_invariance": found.stage_size_invariance,
                    "number_invariance": found.stage_number_invariance,
                })  # fmt: skip
                if name in recorded:
                    r2, each, by_stage = ablate_score(
                        job.listed[k], *recorded[name], device=job.device
                    )
                    table = table.assign(r2=r2, r2_change=each - r2)
                    whole = whole.assign(r2=r2, r2_change=by_stage - r2)
                filters.append(table)
                stages.append(whole)
                for suffix, figure in ablation_figures(name, tuning, found).items():
                    save_figure(figure, folder / f"{name}{suffix}.png")
                advance(1)
        every = pd.concat(filters, ignore_index=True)
        every.to_csv(folder / "filters.csv", index=False)
        of_stages = pd.concat(stages, ignore_index=True)
        of_stages.to_csv(folder / "stages.csv", index=False)
        strongest = every.loc[every.groupby("model", sort=False)["size_invariance"].idxmax()]
        return {
            "n_models": len(job.models), "n_filters": len(every),
            "strongest_filter": {
                str(row["model"]): {"stage": int(row["stage"]), "number": int(row["number"]),
                                    "size_invariance": float(row["size_invariance"])}
                for row in strongest.to_dict("records")
            },
        }  # fmt: skip

    return job.do("ablate", settings, work)


def trace_all(
    job: StimuliJob, bank: StimulusSet, *, image: str | None = None, channels: int = 4
) -> dict[str, Any]:
    """Draw every stage of every model for an image, or for its best small dot and a large one.

    Parameters
    ----------
    job
        Models and folder.
    bank
        Natural images, for receptive fields; `image` is one of them.
    image
        Name of an image of the bank; None draws the model's best dot, and one four times as large.
    channels
        Most channels shown of each stage: those that matter most for the response.

    Returns
    -------
    The content of ``summary.json``. Beside it, for each model, ``NAME.png`` and ``NAME.npz``, every
    stage's maps cut about the receptive field.

    Raises
    ------
    InputError
        If there is no such image, or as for `tune`.
    """
    if image is not None and image not in bank.names:
        raise InputError(f"the bank has no image {image!r}; the first is {bank.names[0]!r}")

    def work(folder: Path) -> dict[str, Any]:
        fields = _fields(job, bank)
        responses = {}
        with progress_bar("traces", len(job.models)) as advance:
            for k, name in enumerate(job.models):
                shown = _to_trace(job, bank, k, fields, image)
                traces = {said: trace(job.listed[k], pixels) for said, (pixels, _) in shown.items()}
                at = next(iter(shown.values()))[1]
                figure, kept = trace_figure(name, job.listed[k], traces, at, channels)
                save_figure(figure, folder / f"{name}.png")
                np.savez(folder / f"{name}.npz", **kept)  # type: ignore[arg-type]
                responses[name] = {said: one.response for said, one in traces.items()}
                advance(1)
        return {"n_models": len(job.models), "responses": responses}

    settings = {"bank": bank.fingerprint, "image": image, "channels": channels}
    return job.do("trace", settings, work)


def _to_trace(
    job: StimuliJob, bank: StimulusSet, k: int, fields: ReceptiveFields, image: str | None
) -> dict[str, tuple[UInt8[np.ndarray, "3 h w"], tuple[float, float]]]:
    """Return images by what they are called, each with the point of interest."""
    centre = _centres(fields, job)[k]
    if image is not None:
        return {image: (bank.read([list(bank.names).index(image)])[0], (centre[0], centre[1]))}
    tuning = _tuned(job, k, fields)
    best = int(tuning.dot_size.argmax())
    large = int(np.abs(tuning.radii_px - 4 * tuning.radii_px[best]).argmin())
    return {
        f"dot of radius {tuning.radii_px[one]:.1f} px": (tuning.size_stimuli[one], tuning.dot_px)
        for one in (best, large)
    }


def _tuned(job: StimuliJob, k: int, fields: ReceptiveFields) -> Tuning:
    x, y = _centres(fields, job)[k]
    rng = np.random.default_rng([job.seed, k])
    return tune(job.listed[k], (float(x), float(y)), rng=rng, device=job.device)


def _fields(job: StimuliJob, bank: StimulusSet) -> ReceptiveFields:
    natural = natural_sample(bank, N_FIELD_IMAGES, job.seed)
    return receptive_fields(job.listed, natural, device=job.device)


def _centres(fields: ReceptiveFields, job: StimuliJob) -> Float[np.ndarray, "n_models 2"]:
    """Return x and y of the fields; the image's middle for a model that nothing changes."""
    height, width = job.listed[0].image_size
    found = np.stack([fields.x_px, fields.y_px], axis=1)
    return np.asarray(np.where(np.isnan(found), [(width - 1) / 2, (height - 1) / 2], found))


def natural_sample(bank: StimulusSet, n: int, seed: int) -> UInt8[np.ndarray, "n 3 h w"]:
    """Return so many images of a bank, or all it has, drawn by seed."""
    places: Int[np.ndarray, " n"] = drawn_at_random(bank, min(n, len(bank)), seed)
    return bank.read(places)


def _told(values: Iterable[float]) -> list[float | None]:
    """Return numbers as JSON has them: None for what is not defined."""
    return [float(value) if np.isfinite(value) else None for value in values]


def _medians(table: pd.DataFrame) -> dict[str, float | None]:
    medians = table.drop(columns="model").median()
    return {str(name): None if np.isnan(v) else float(v) for name, v in medians.items()}


def held_out_of_release(
    release: Path, names: Sequence[str]
) -> dict[str, tuple[UInt8[np.ndarray, "n 3 h w"], Float[np.ndarray, " n"]]]:
    """Return images and mean responses of the second half of each model's session, by model.

    Parameters
    ----------
    release
        Folder of a V4 release.
    names
        Models called ``..._SESSION_neuronK``, as the release calls them.

    Raises
    ------
    InputError
        If no model is called so or has a session with images there.
    """
    recordings = read_v4(release)
    found = {}
    for name in names:
        stem, _, number = name.rpartition("_neuron")
        session = stem.rpartition("_")[2]
        if (
            not number.isdigit()
            or session not in list(recordings)
            or recordings[session].stimuli is None
        ):
            continue
        held_out = recordings[session].take(slice(recordings[session].n_stimuli // 2, None))
        if int(number) < held_out.n_neurons:
            images = held_out.require_stimuli().images()
            found[name] = (images, held_out.mean_responses[:, int(number)])
    if not found:
        raise InputError(
            f"none of the models ({names[0]!r}, ...) belongs to a session of {release} with "
            "images; models are called ..._SESSION_neuronK"
        )
    return found
