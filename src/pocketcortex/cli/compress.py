"""`pocketcortex compress`: distil, prune and retrain; shared models of several sizes."""

import json
from typing import Annotated, Any, Literal

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

app = typer.Typer(help="Distil the teacher into small models and prune them.")
_SIZES = "5,10,25,50,100,200"


@app.callback()
def _compress() -> None:
    """Distil the teacher into small models and prune them."""


@app.command()
def distil(
    config: Config,
    out: Out,
    seed: Seed = None,
    device: Device = "auto",
    scheduler: Scheduler = "local",
    retry: Retry = False,
    as_json: Json = False,
) -> None:
    """Fit students to the teacher's responses to the image banks."""
    _go("distil", config, out, seed, device, scheduler, retry, as_json)


@app.command()
def prune(
    config: Config,
    out: Out,
    seed: Seed = None,
    device: Device = "auto",
    scheduler: Scheduler = "local",
    retry: Retry = False,
    as_json: Json = False,
) -> None:
    """Remove the filters of each neuron's student that matter least."""
    _go("prune", config, out, seed, device, scheduler, retry, as_json)


@app.command()
def retrain(
    config: Config,
    out: Out,
    seed: Seed = None,
    device: Device = "auto",
    scheduler: Scheduler = "local",
    retry: Retry = False,
    as_json: Json = False,
) -> None:
    """Train the pruned models further: these are the compact models."""
    _go("retrain", config, out, seed, device, scheduler, retry, as_json)


@app.command()
def shared(
    config: Config,
    out: Out,
    filters: Annotated[
        str, typer.Option(help="Filters in each of the first three layers, one model each.")
    ] = _SIZES,
    images: Annotated[
        int | None, typer.Option(min=1, help="Images of an epoch; all without it.")
    ] = None,
    seed: Seed = None,
    device: Device = "auto",
    scheduler: Scheduler = "local",
    retry: Retry = False,
    as_json: Json = False,
) -> None:
    """Train shared models of several sizes, with trained and with random early filters."""
    from pocketcortex.core import InputError
    from pocketcortex.pipeline import compress_shared

    try:
        sizes = [int(word) for word in filters.split(",")]
    except ValueError as error:
        raise InputError(f"filters must be numbers like {_SIZES}, got {filters!r}") from error
    result = compress_shared(
        settings_of(config, seed), out, sizes,
        n_images=images, device=device, scheduler=scheduler, retry=retry,
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False))
        return
    metric = list(result["scores"])[-1]
    typer.echo(f"{'shared model':<14} {'r² to teacher':>13}   held-out {metric}")
    for name, agreement in result["agreement"].items():
        score = result["scores"][metric][name]["median"]
        typer.echo(f"{name:<14} {_number(agreement):>13}   {_number(score)}")


def _go(
    step: Literal["distil", "prune", "retrain"],
    config: Config,
    out: Out,
    seed: int | None,
    device: str,
    scheduler: str,
    retry: bool,
    as_json: bool,
) -> None:
    from pocketcortex.pipeline import compress

    result = compress(
        settings_of(config, seed), out, step, device=device, scheduler=scheduler, retry=retry
    )
    typer.echo(json.dumps(result, allow_nan=False) if as_json else _told(result))


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _told(result: dict[str, Any]) -> str:
    shown = _number(result["r2_teacher"])
    return (
        f"{result['n_neurons']} models in {result['models']}, {result['n_images']:,} images, "
        f"{result['seconds']:.0f} s\nmedian: {result['n_parameters']:,.0f} parameters, "
        f"{result['n_filters']:.0f} filters, squared correlation with the teacher {shown} "
        f"({result['n_images_monitored']} images that no model was trained on)"
    )
