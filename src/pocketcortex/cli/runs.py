"""`pocketcortex runs`: what run folders hold."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pocketcortex.cli._options import Json

if TYPE_CHECKING:
    from pocketcortex.pipeline import RunStatus

app = typer.Typer(help="Look into run folders.")


@app.callback()
def _runs() -> None:
    """Look into run folders."""


@app.command()
def show(
    run: Annotated[Path, typer.Argument(help="Run folder of `run`, `compress` or `ensemble fit`.")],
    check_files: Annotated[
        bool, typer.Option("--check-files", help="Read every file back and check its hash.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Tell which stages are done, running, failed, stale or waiting."""
    from pocketcortex.pipeline import run_status

    status = run_status(run, check_files=check_files)
    if as_json:
        typer.echo(json.dumps(status.as_dict(), allow_nan=False))
    else:
        _print(status)


def _print(status: "RunStatus") -> None:
    held = "a process is running in it" if status.is_held else "no process is running in it"
    typer.echo(f"{status.path}: {held}; seed {status.seed}, {status.device}, {status.date}")
    for stage in status.stages:
        took = "" if stage.seconds is None else f"{stage.seconds:,.0f} s"
        of = "" if stage.n_tasks is None else f"{stage.n_tasks_done} of {stage.n_tasks} tasks"
        typer.echo(f"  {stage.name:<16} {stage.state:<8} {took:>9}  {of}{stage.why}".rstrip())
        for name, error in (stage.failed_tasks or {}).items():
            typer.echo(f"    task {name}: {error}")
