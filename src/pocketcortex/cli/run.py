"""`pocketcortex run` and `pocketcortex demo`: the whole pipeline."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pocketcortex.pipeline import RunConfig

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
_Out = Annotated[Path, typer.Option(help="Run folder; one that exists is gone on with.")]


def run(
    config: Annotated[Path, typer.Argument(help="TOML file that says what to do.")],
    out: _Out,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**63 - 1, help="Overrides the file's seed.")
    ] = None,
    device: _Device = "auto",
    as_json: _Json = False,
) -> None:
    """Go from recordings to compact models and a report."""
    from pocketcortex.pipeline import read_config

    settings = read_config(config)
    if seed is not None:
        settings = settings.model_copy(update={"seed": seed})
    _run(settings, out, device, as_json)


def demo(out: _Out = Path("runs/demo"), device: _Device = "auto", as_json: _Json = False) -> None:
    """Run the whole pipeline on the embedded in-silico cortex; needs no data."""
    from pocketcortex.pipeline import demo_config

    _run(demo_config(), out, device, as_json)


def _run(settings: "RunConfig", out: Path, device: str, as_json: bool) -> None:
    from pocketcortex.pipeline import run as run_pipeline

    summary = run_pipeline(settings, out, device=device)
    if as_json:
        typer.echo(json.dumps(summary, allow_nan=False))
        return
    for metric, models in summary["scores"].items():
        typer.echo(
            f"held-out median {metric}, session {summary['session']}, "
            f"{summary['n_neurons']} neurons, {summary['n_images_held_out']} images"
        )
        for model, score in models.items():
            typer.echo(f"  {model:<14} {_score(score)}")
    counts = {name: f"{n:,.0f}" for name, n in summary["n_parameters"].items()}
    typer.echo("parameters: " + ", ".join(f"{name} {n}" for name, n in counts.items()))
    typer.echo(f"report: {summary['report']}")


def _score(score: dict[str, Any]) -> str:
    if score["median"] is None:
        return "no neuron has a score"
    low, high = score["ci"]
    return f"{score['median']:.3f}  (95 % interval {low:.3f} to {high:.3f})"
