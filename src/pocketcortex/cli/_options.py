"""Options that mean the same in every command."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pocketcortex.pipeline import RunConfig

Config = Annotated[Path, typer.Argument(help="TOML file that says what to do.")]
Out = Annotated[Path, typer.Option(help="Run folder; one that exists is gone on with.")]
Seed = Annotated[int | None, typer.Option(min=0, max=2**63 - 1, help="Overrides the file's seed.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Scheduler = Annotated[
    str,
    typer.Option(help="local, dask://HOST:PORT, slurm:PROFILE.toml or pbs:PROFILE.toml."),
]
Retry = Annotated[
    bool, typer.Option("--retry", help="Do stages that failed from their start, not from where.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def settings_of(config: Path, seed: int | None) -> "RunConfig":
    """Return what a file describes, with the seed of the command line where there is one."""
    from pocketcortex.pipeline import read_config

    settings = read_config(config)
    return settings if seed is None else settings.model_copy(update={"seed": seed})
