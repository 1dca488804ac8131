"""Filters taken out of compact models, and what goes on inside them, stage by stage."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8

from pocketcortex.core import InputError, StimulusSet
from pocketcortex.data import read_v4
from pocketcortex.dissect import (
    ReceptiveFields,
    ablate_score,
    ablate_tuning,
    trace,
)
from pocketcortex.pipeline.dissected_figures import (
    ablation_figures,
    save_figure,
    trace_figure,
)
from pocketcortex.pipeline.dissection import centres_of, fields_of, tuned
from pocketcortex.pipeline.progress import progress_bar
from pocketcortex.pipeline.stimuli import StimuliJob


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
        fields = fields_of(job, bank)
        filters, stages = [], []
        with progress_bar("ablations", len(job.models)) as advance:
            for k, name in enumerate(job.models):
                tuning = tuned(job, k, fields)
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
        fields = fields_of(job, bank)
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
    centre = centres_of(fields, job)[k]
    if image is not None:
        return {image: (bank.read([list(bank.names).index(image)])[0], (centre[0], centre[1]))}
    tuning = tuned(job, k, fields)
    best = int(tuning.dot_size.argmax())
    large = int(np.abs(tuning.radii_px - 4 * tuning.radii_px[best]).argmin())
    return {
        f"dot of radius {tuning.radii_px[one]:.1f} px": (tuning.size_stimuli[one], tuning.dot_px)
        for one in (best, large)
    }


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
