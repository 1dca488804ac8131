"""The command line, `pocketcortex NOUN VERB`: one file a noun, registered in `_NOUNS`.

Exit codes: 0 done; 1 the work failed; 2 wrong usage or bad input; 130 interrupted. Whatever is
not 0 comes with one line on stderr, made in `main` and nowhere else. A first Ctrl-C lets a command
put its things away; a second ends it on the spot, which loses no more than a kill: nothing.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from pocketcortex.cli import (
    compress,
    data,
    dissect,
    ensemble,
    explore,
    loop,
    mapping,
    models,
    run,
    runs,
    stimuli,
    zoo,
)
from pocketcortex.core import InputError, PocketcortexError

__all__ = ["main"]

# A new noun: write cli/NOUN.py with `app = typer.Typer(...)`, and add its line here. Keep its
# module free of slow imports (torch); import those inside the commands.
_NOUNS = {
    "compress": compress.app,
    "data": data.app,
    "dissect": dissect.app,
    "ensemble": ensemble.app,
    "loop": loop.app,
    "mapping": mapping.app,
    "models": models.app,
    "runs": runs.app,
    "stimuli": stimuli.app,
    "zoo": zoo.app,
}

# Threads that wait for each other must not burn the cores others need: on a shared machine that
# makes training up to ten times slower. Read once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_TRACEBACK_VARIABLE = "POCKETCORTEX_TRACEBACK"

# The base of typer's usage errors is click's own in some versions and typer's in others.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="pocketcortex",
    help="From recordings of visual cortex to models small enough to understand.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for _name, _noun in _NOUNS.items():
    app.add_typer(_noun, name=_name, no_args_is_help=True)


def _version(asked: bool) -> bool:
    if asked:
        from importlib.metadata import version

        typer.echo(f"pocketcortex {version('pocketcortex')}")
        raise typer.Exit
    return asked


@app.callback()
def _top(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print it and leave."),
    ] = False,
) -> None:
    """From recordings of visual cortex to models small enough to understand."""


app.command()(run.run)
app.command()(run.demo)
app.command()(explore.explore)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Set the environment variable `POCKETCORTEX_TRACEBACK` to see where an error came from.

    Parameters
    ----------
    arguments
        What follows `pocketcortex`; None for the words of the command line.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        command = typer.main.get_command(app)
        with _interruptible():
            code = command.main(words, prog_name="pocketcortex", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:
        if os.environ.get(_TRACEBACK_VARIABLE):
            raise
        return _explain(error)
    if code == 130:
        _print_error("interrupted")
    return code if isinstance(code, int) else 0


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let the first Ctrl-C raise KeyboardInterrupt and the second leave at once."""
    own = threading.current_thread() is threading.main_thread()
    if not own or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is _interrupt:  # else it was used
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGINT, _leave_at_once)
    raise KeyboardInterrupt


def _leave_at_once(_number: int, _frame: FrameType | None) -> NoReturn:
    os.write(2, b"pocketcortex: interrupted twice, left at once; the same command goes on\n")
    os._exit(130)


def _explain(error: Exception) -> int:
    """Print an error as one line on stderr and return the exit code it stands for."""
    if isinstance(error, _UsageError):
        _print_error(_describe_usage_error(error))
        return 2
    if isinstance(error, InputError):
        _print_error(str(error))
        return 2
    if isinstance(error, PocketcortexError | OSError):
        _print_error(str(error))
        return 1
    _print_error(
        f"unexpected {type(error).__name__}: {error}; "
        f"set {_TRACEBACK_VARIABLE}=1 and run again to see where"
    )
    return 1


def _describe_usage_error(error: Any) -> str:
    if type(error).__name__ == "NoArgsIsHelpError":  # the help was printed instead
        return "no command given; choose one of those above"
    return f"{error.format_message().rstrip('.')}; run the command with --help for its usage"


def _print_error(message: str) -> None:
    typer.echo(f"pocketcortex: {' '.join(message.split())}", err=True)
