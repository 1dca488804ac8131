"""`pocketcortex explore`: a page to look at model neurons with, served here or written as files."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from pocketcortex.cli._options import Json

RunOrModels = Annotated[
    Path,
    typer.Argument(
        help="A run folder, a V4 release, a folder of compact models, one model, or a scored zoo."
    ),
]


def explore(
    path: RunOrModels,
    bank: Annotated[
        Path | None,
        typer.Option(
            help="Natural images among which preferred ones are sought; else images made by code."
        ),
    ] = None,
    images: Annotated[int, typer.Option(min=2, help="So many of them.")] = 200,
    export: Annotated[
        Path | None, typer.Option(help="Write plain files into this folder instead of serving.")
    ] = None,
    zoo: Annotated[
        Path | None, typer.Option(help="Folder of zoo score and zoo rank, for the page Zoo.")
    ] = None,
    explained: Annotated[
        Path | None,
        typer.Option(
            help="Folder of dissect explain, for families; else what is beside the models."
        ),
    ] = None,
    recordings: Annotated[
        Path | None,
        typer.Option(help="V4 release, for r² of its models; else the one that they lie in."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    cache: Annotated[
        Path | None, typer.Option(help="Where pictures and curves are kept; else ~/.cache.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Open a local page to look at model neurons, or write it as plain files."""
    from pocketcortex.core import InputError

    try:
        from pocketcortex.explorer import Explorer, NaturalImages, serve
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "starlette", "uvicorn"):
            raise
        raise InputError(
            f"the explorer needs {error.name}; install it with: pip install 'pocketcortex[explore]'"
        ) from error
    explorer = Explorer(
        path, natural=NaturalImages(bank, images), cache=cache, zoo=zoo,
        explained=explained, recordings=recordings,
    )  # fmt: skip
    if export is not None:
        from pocketcortex.explorer import export_site

        told = export_site(explorer, export, advance=_progress)
        typer.echo(json.dumps(told) if as_json else f"{told['page']}: {told['n_neurons']} neurons")
        return

    def ready(address: str) -> None:
        typer.echo(json.dumps({"address": address}) if as_json else address)
        sys.stdout.flush()
        typer.echo("open this address in a browser; press Ctrl+C to end", err=True)

    serve(explorer, host=host, port=port, ready=ready)


def _progress(done: int, n: int) -> None:
    typer.echo(f"\r{done} of {n} neurons", nl=done == n, err=True)
