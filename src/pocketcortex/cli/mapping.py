"""`pocketcortex mapping`: score task-driven layers with linear maps."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Score linear maps from a task-driven network's layers to neurons.")


class Mapping(StrEnum):
    """Kinds of map."""

    ridge = "ridge"
    factorized = "factorized"
    pls = "pls"


@app.callback()
def _mapping() -> None:
    """Score linear maps from a task-driven network's layers to neurons."""


@app.command()
def score(
    path: Annotated[Path, typer.Argument(help="V4 release or folder of .npz sessions.")],
    session: Annotated[str, typer.Option(help="Session to predict.")],
    network: Annotated[str, typer.Option(help="file.py:builder or module:builder.")],
    layer: Annotated[list[str], typer.Option(help="Layer; repeat to stack several.")],
    mapping: Annotated[Mapping, typer.Option(help="Kind of map.")] = Mapping.ridge,
    input_size: Annotated[
        int | None, typer.Option(min=1, help="Side images are resized to; as they are without it.")
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Folds over images.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Of folds and bootstrap.")] = 0,
    features: Annotated[Path | None, typer.Option(help="Folder that keeps features.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Score a mapping by nested cross-validation over all of a session's images."""
    from pocketcortex.core import keep_freed_memory
    from pocketcortex.pipeline import resolve_device
    from pocketcortex.pipeline.mapping import score_mapping
    from pocketcortex.zoo import Backbone, load_network

    keep_freed_memory()
    backbone = Backbone(
        load_network(network), layer, input_size=input_size, device=resolve_device(device)
    )
    result = score_mapping(
        path, session, backbone, mapping.value, n_folds=folds, seed=seed, features=features
    )
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False))
        return
    for metric, entry in result["scores"].items():
        typer.echo(
            f"session {session}, {' + '.join(layer)}, {mapping.value}, {folds} folds: {metric} "
            f"median {entry['median']:.4f}, mean {entry['mean']:.4f} (of {entry['n_neurons']})"
        )
