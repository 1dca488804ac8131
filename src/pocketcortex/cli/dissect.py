"""`pocketcortex dissect`: read the circuits inside compact models."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pocketcortex.cli._options import Device, Json, Out
from pocketcortex.cli.models import Models
from pocketcortex.cli.stimuli import Bank, Limit, Only, Seed, answer, bank_of, job_of

app = typer.Typer(help="Read the circuits inside compact models.")


@app.callback()
def _dissect() -> None:
    """Read the circuits inside compact models."""


@app.command()
def compare(
    models: Models,
    out: Out,
    bank: Bank,
    only: Only = "*",
    images: Annotated[int, typer.Option(min=8, help="Images of the bank for CKA.")] = 1000,
    permutations: Annotated[int, typer.Option(min=0, help="Of the null of CKA.")] = 100,
    limit: Limit = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Compare all pairs of models layer by layer: filters, kernels, CKA, consolidation."""
    from pocketcortex.pipeline.comparison import compare as compare_all

    job = job_of(models, only, out, seed, device)
    result = compare_all(
        job, bank_of(bank, job, limit), n_images=images, n_permutations=permutations
    )
    answer(result, as_json)


@app.command()
def tune(
    models: Models,
    out: Out,
    bank: Bank,
    only: Only = "*",
    limit: Limit = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure each model's tuning to dots, gratings, borders and colours."""
    from pocketcortex.pipeline.dissection import tune_all

    job = job_of(models, only, out, seed, device)
    answer(tune_all(job, bank_of(bank, job, limit)), as_json)


@app.command()
def ablate(
    models: Models,
    out: Out,
    bank: Bank,
    only: Only = "*",
    release: Annotated[
        Path | None,
        typer.Option(help="V4 release with responses to the second half of each session's images."),
    ] = None,
    limit: Limit = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Take out each filter, each stage, and one after the other: dot tuning and held-out r²."""
    from pocketcortex.pipeline.ablation import ablate_all, held_out_of_release

    job = job_of(models, only, out, seed, device)
    recorded = {} if release is None else held_out_of_release(release, list(job.models))
    answer(ablate_all(job, bank_of(bank, job, limit), recorded), as_json)


@app.command()
def trace(
    models: Models,
    out: Out,
    bank: Bank,
    only: Only = "*",
    image: Annotated[
        str | None, typer.Option(help="Name of an image of the bank; else a small and a large dot.")
    ] = None,
    channels: Annotated[int, typer.Option(min=1, max=12, help="Most channels a stage.")] = 4,
    limit: Limit = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Draw every stage of each model for an image, from pixels to response."""
    from pocketcortex.pipeline.ablation import trace_all

    job = job_of(models, only, out, seed, device)
    answer(trace_all(job, bank_of(bank, job, limit), image=image, channels=channels), as_json)


@app.command()
def explain(
    models: Models,
    out: Out,
    bank: Bank,
    only: Only = "*",
    circuits: Annotated[
        int, typer.Option(min=0, help="Best models of each family to explain in full.")
    ] = 1,
    keep: Annotated[
        float, typer.Option(help="Squared correlation with the whole model a circuit must keep.")
    ] = 0.9,
    limit: Limit = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Rank models by the family of stimuli they prefer; find the circuits of the best."""
    from pocketcortex.pipeline.dissection import explain_all

    job = job_of(models, only, out, seed, device)
    bank_read = bank_of(bank, job, limit)
    told = explain_all(job, bank_read, n_circuits=circuits, keep_r2=keep)
    answer(told if as_json else _in_words(told), as_json)


def _in_words(told: dict[str, Any]) -> dict[str, Any]:
    """Return what `explain` found as lines to read: families, dot detectors, circuits."""
    counts = {name: n for name, n in told["n_of_family"].items() if name != "none"}
    lines = {"folder": told["folder"], "seconds": told["seconds"], "models": told["n_models"]}
    lines["prefer"] = counts | {"no family": told["n_of_family"].get("none", 0)}
    lines["dot detectors"] = ", ".join(told["best_dot_detectors"]) or "none"
    lines |= {f"best of {name}": ", ".join(own) for name, own in told["best"].items() if own}
    return lines | {name: one["text"] for name, one in told["circuits"].items()}
