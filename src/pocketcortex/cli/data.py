"""`pocketcortex data`: look at recordings."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pocketcortex.core import Recordings

app = typer.Typer(help="Look at recordings.")

_FLAGS = {True: "yes", False: "no"}


@app.callback()
def _data() -> None:
    """Look at recordings."""


@app.command()
def show(
    path: Annotated[
        Path,
        typer.Argument(help="A saved session (.npz), a folder of them, or a V4 release."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the sessions of some recordings, and the neurons that cannot be scored."""
    from pocketcortex.data import read_recordings

    rows = describe(read_recordings(path))
    if as_json:
        typer.echo(json.dumps({"sessions": rows}, allow_nan=False))
    else:
        _print_table(rows)


def describe(recordings: Recordings) -> list[dict[str, Any]]:
    """Return `Recordings.summary()` with each session's unusable neurons, ready for JSON."""
    return [
        row | {"unusable_neurons": {str(k): why for k, why in session.unusable_neurons().items()}}
        for row, session in zip(recordings.summary(), recordings.values(), strict=True)
    ]


def _print_table(rows: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("session", "animal", "role", box=None, pad_edge=False)
    for heading in ("neurons", "unusable", "stimuli"):
        table.add_column(heading, justify="right")
    table.add_column("images")
    table.add_column("repeats", justify="right")
    for row in rows:
        table.add_row(
            row["session"],
            row["animal"] or "?",
            row["role"] or "?",
            str(row["n_neurons"]),
            str(len(row["unusable_neurons"])),
            str(row["n_stimuli"]),
            _FLAGS[row["has_images"]],
            str(row["n_repeats"]) if row["has_repeats"] else "averages",
        )
    console = Console(markup=False)
    console.print(table)
    for row in rows:
        for neuron, why in row["unusable_neurons"].items():
            console.print(f"session {row['session']}, neuron {neuron}: {why}", soft_wrap=True)
