"""`pocketcortex run` and `pocketcortex demo`: the whole pipeline."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check everything; tell what is left and what it takes."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Go from recordings to compact models and a report."""
    if dry_run:
        _estimate(settings_of(config, seed), out, device, as_json, scheduler)
    else:
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
    for session, of_session in summary["sessions"].items():
        for neuron in of_session.get("hardly_varying_neurons", ()):  # a run of before has none
            typer.echo(
                f"session {session}: neuron {neuron} was hardly predicted: its model's responses "
                "hardly vary, so its score, stimuli and circuit mean little"
            )
    counts = {name: f"{n:,.0f}" for name, n in summary["n_parameters"].items()}
    typer.echo("parameters: " + ", ".join(f"{name} {n}" for name, n in counts.items()))
    typer.echo(f"report: {summary['report']}")


def _estimate(settings: "RunConfig", out: Path, device: str, as_json: bool, scheduler: str) -> None:
    from pocketcortex.pipeline import estimate_run

    estimate = estimate_run(settings, out, device=device, scheduler=scheduler)
    told = estimate.as_dict()
    if as_json:
        typer.echo(json.dumps(told, allow_nan=False))
        return
    typer.echo(
        f"{'stage':<10} {'CPU time':>10} {'on the clock':>12} {'memory':>10} {'disk':>10}  tasks"
    )
    for stage in estimate.stages:
        if stage.is_done:
            typer.echo(f"{stage.name:<10} {'done':>10}")
            continue
        typer.echo(
            f"{stage.name:<10} {_time(stage.cpu_seconds):>10} {_time(stage.seconds):>12} "
            f"{_bytes(stage.memory_bytes):>10} {_bytes(stage.disk_bytes):>10}  {stage.n_tasks}"
        )
    typer.echo(
        f"left: {_time(told['seconds'])} with {estimate.n_workers} workers of "
        f"{estimate.n_threads} threads, on CPUs; memory a process {_bytes(told['memory_bytes'])}; "
        f"disk {_bytes(told['disk_bytes'])}"
    )


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.0f} h"


def _bytes(n: int) -> str:
    return f"{n / 2**20:,.0f} MiB" if n < 2**30 else f"{n / 2**30:,.1f} GiB"


def _score(score: dict[str, Any]) -> str:
    if score["median"] is None:
        return "no neuron has a score"
    low, high = score["ci"]
    return f"{score['median']:.3f}  (95 % interval {low:.3f} to {high:.3f})"
