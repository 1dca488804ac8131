"""`pocketcortex run` and `pocketcortex demo`: the whole pipeline."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from pocketcortex.pipeline import RunConfig


def run(
    config: Config,
    out: Out,
    seed: Seed = None,
    device: Device = "auto",
    scheduler: Scheduler = "local",
    retry: Retry = False,
    as_json: Json = False,
) -> None:
    """Go from recordings to compact models and a report."""
    _run(settings_of(config, seed), out, device, as_json, scheduler, retry)


def demo(out: Out = Path("runs/demo"), device: Device = "auto", as_json: Json = False) -> None:
    """Run the whole pipeline on the embedded in-silico cortex; needs no data."""
    from pocketcortex.pipeline import demo_config

    _run(demo_config(), out, device, as_json)


def _run(
    settings: "RunConfig",
    out: Path,
    device: str,
    as_json: bool,
    scheduler: str = "local",
    retry: bool = False,
) -> None:
    from pocketcortex.pipeline import run as run_pipeline

    summary = run_pipeline(settings, out, device=device, scheduler=scheduler, retry=retry)
    if as_json:
        typer.echo(json.dumps(summary, allow_nan=False))
        return
    for metric, models in summary["scores"].items():
        typer.echo(
            f"held-out median {metric}, {summary['n_neurons']} neurons of session "
            + ", ".join(summary["sessions"])
        )
        for model, score in models.items():
            typer.echo(f"  {model:<14} {_score(score)}")
        for model, gain in summary["compact_minus"].get(metric, {}).items():
            if gain["median"] is not None:
                typer.echo(f"  compact minus {model:<14} {_score(gain)} (paired)")
    counts = {name: f"{n:,.0f}" for name, n in summary["n_parameters"].items()}
    typer.echo("parameters: " + ", ".join(f"{name} {n}" for name, n in counts.items()))
    typer.echo(f"report: {summary['report']}")


def _score(score: dict[str, Any]) -> str:
    if score["median"] is None:
        return "no neuron has a score"
    low, high = score["ci"]
    return f"{score['median']:.3f}  (95 % interval {low:.3f} to {high:.3f})"
