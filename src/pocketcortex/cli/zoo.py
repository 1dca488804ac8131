"""`pocketcortex zoo`: the networks of the zoo, and what each needs and gives."""

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pocketcortex.cli._options import Json

if TYPE_CHECKING:
    from pocketcortex.zoo import NetworkSpec

app = typer.Typer(help="Look at the zoo of task-driven networks.")


class ProtocolChoice(StrEnum):
    """Whose preprocessing."""

    own = "own"
    published = "published"


@app.callback()
def _zoo() -> None:
    """Look at the zoo of task-driven networks."""


@app.command("list")
def list_(
    family: Annotated[
        str | None, typer.Option(help="Only this family or architecture, such as transformer.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="Only this task or kind of task, such as self-supervised."),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Only those of torchvision, timm, taskonomy or trunk.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the networks that have a name; NAME@random:SEED is the same one untrained."""
    from pocketcortex.zoo import list_networks

    specs = list_networks(family=family, task=task, source=source)
    if as_json:
        typer.echo(json.dumps({"networks": [spec.as_dict() for spec in specs]}))
    else:
        _print_list(specs)


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            help="A name that list shows, timm:NAME, torchvision:NAME, hf:ORG/NAME, "
            "file.py:builder or module:builder; @random:SEED after it for the untrained one."
        ),
    ],
    protocol: Annotated[
        ProtocolChoice, typer.Option(help="Preprocessing: the weights' own, or as published.")
    ] = ProtocolChoice.own,
    input_size: Annotated[
        int | None, typer.Option(min=1, help="Side in pixels to resize whole images to.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a network is: its layers, parameters, preprocessing, and where its weights go.

    Weights are neither needed nor fetched: layers and shapes are those of the untrained network.
    """
    result = describe(name, protocol.value, input_size)
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False))
    else:
        _print_network(result)


def describe(name: str, protocol: str, input_size: int | None) -> dict[str, Any]:
    """Return what is known of a network as a JSON object.

    Raises
    ------
    InputError
        If there is no such network, or it cannot take the preprocessing.
    """
    import dataclasses

    from pocketcortex.zoo import build_network, find_network, network_layers, network_source

    spec = find_network(name)
    source = network_source(spec)
    file = source.file
    builds = spec if file is None or spec.seed is not None else spec.random(0)
    network = build_network(builds, protocol=protocol, input_size=input_size)
    how = network.preprocessing
    layers = network_layers(network, image_size=how.size or (224, 224))
    trained = spec.seed is None and file is not None
    found = source.find() if trained else None
    return spec.as_dict() | {
        "n_parameters": network.n_parameters,
        "preprocessing": dataclasses.asdict(how),
        "weights_file": file.names[0] if trained and file else None,
        "weights_address": (file.address or None) if trained and file else None,
        "weights_path": None if found is None else str(found),
        "n_layers": len(layers),
        "layers": [dataclasses.asdict(layer) for layer in layers],
    }


def _print_list(specs: "Sequence[NetworkSpec]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("network", "architecture", "task"):
        table.add_column(heading, overflow="fold")
    for spec in specs:
        table.add_row(spec.name, spec.architecture, spec.task)
    Console(markup=False).print(table)


def _print_network(result: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False)
    console.print(f"{result['name']}: {_what(result)}", soft_wrap=True)
    console.print(f"source {result['source']}", soft_wrap=True)
    if result["note"]:
        console.print(f"note: {result['note']}", soft_wrap=True)
    console.print(f"preprocessing: {_preprocessing(result['preprocessing'])}", soft_wrap=True)
    console.print(f"weights: {_weights(result)}", soft_wrap=True)
    console.print(f"{result['n_parameters']:,} parameters, {result['n_layers']} layers\n")
    table = Table(box=None, pad_edge=False)
    table.add_column("layer", overflow="fold")
    table.add_column("kind")
    table.add_column("features of an image", justify="right", no_wrap=True)
    for layer in result["layers"]:
        table.add_row(layer["name"], layer["kind"], " x ".join(map(str, layer["shape"])))
    console.print(table)


def _what(result: Mapping[str, Any]) -> str:
    known = [result[field] for field in ("family", "architecture") if result[field]]
    task = {"": "", "none": "untrained"}.get(result["task"], f"trained on {result['task']}")
    data = f" with {result['data']}" if task.startswith("trained") and result["data"] else ""
    return ", ".join([*known, *([task + data] if task else [])]) or "a network of your own"


def _preprocessing(how: Mapping[str, Any]) -> str:
    parts = ["images as they are"]
    if how["size"] is not None:
        height, width = how["size"]
        parts = [f"whole image to {height} x {width}, {how['interpolation']}"]
        if how["short_side"] is not None:
            parts = [
                f"short side to {how['short_side']}, {how['interpolation']}",
                f"middle {height} x {width}",
            ]
    if how["mean"] is None:
        return ", ".join([*parts, "levels 0..255"])
    mean, std = (", ".join(f"{value:g}" for value in how[field]) for field in ("mean", "std"))
    return ", ".join([*parts, f"mean {mean}, std {std} of levels in 0..1"])


def _weights(result: Mapping[str, Any]) -> str:
    from pocketcortex.zoo import WEIGHTS_VARIABLE

    if result["weights"].startswith("random:"):
        return f"drawn by seed {result['weights'].partition(':')[2]}"
    if result["weights_file"] is None:
        return "the builder's own"
    if result["weights_path"] is not None:
        return str(result["weights_path"])
    address = f", published at {result['weights_address']}" if result["weights_address"] else ""
    return (
        f"not here; {result['weights_file']}{address}, is looked for in the folder that "
        f"{WEIGHTS_VARIABLE} names"
    )
