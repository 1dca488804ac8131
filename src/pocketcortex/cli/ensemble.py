"""`pocketcortex ensemble`: train the teacher and score it."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pocketcortex.cli._options import (
    Config,
    Device,
    Json,
    Out,
    Retry,
    Scheduler,
    Seed,
    settings_of,
)

app = typer.Typer(help="Train the deep ensemble over sessions and score it on others.")


@app.callback()
def _ensemble() -> None:
    """Train the deep ensemble over sessions and score it on others."""


@app.command()
def fit(
    config: Config,
    out: Out,
    seed: Seed = None,
    device: Device = "auto",
    scheduler: Scheduler = "local",
    retry: Retry = False,
    as_json: Json = False,
) -> None:
    """Train the members over the training sessions, stopped early by the validation session."""
    from pocketcortex.pipeline import fit_ensemble

    result = fit_ensemble(
        settings_of(config, seed), out, device=device, scheduler=scheduler, retry=retry
    )
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False))
        return
    history = result["validation_r2"]
    typer.echo(
        f"{result['n_members']} members, {result['n_images']:,} images of "
        f"{len(result['train'])} sessions, {result['seconds']:.0f} s\n"
        f"median r² on session {result['validation']} at each validation: "
        + ", ".join(f"{value:.3f}" for value in history)
        + (
            f"; kept number {1 + history.index(max(history))}"
            if result["n_groups"] == 1
            else f"; means of {result['n_groups']} groups, each of which kept its own best"
        )
    )


@app.command()
def score(
    run: Annotated[Path, typer.Argument(help="Run folder of `ensemble fit` or `run`.")],
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Score the teacher on the held-out half of each test session, beside its peers."""
    from pocketcortex.pipeline import score_ensemble

    result = score_ensemble(run, device=device)
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False))
        return
    for session, summary in result["sessions"].items():
        for metric, models in summary["scores"].items():
            typer.echo(
                f"session {session}, held-out {metric}: {summary['n_neurons']} neurons, "
                f"{summary['n_images_fit']} images to fit, {summary['n_images_held_out']} held out"
            )
            for model, entry in models.items():
                typer.echo(f"  {model:<42} {_line(entry)}")


def _line(entry: dict[str, Any]) -> str:
    if entry["median"] is None:
        return "no neuron has a score"
    return f"median {entry['median']:.3f}  mean {entry['mean']:.3f}  (of {entry['n_neurons']})"
