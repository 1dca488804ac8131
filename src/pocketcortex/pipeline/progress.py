"""Progress bars on stderr."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Advance(Protocol):
    """Moves a bar on."""

    def __call__(self, n: int, total: int | None = None, /) -> None:
        """Go on by `n` units; there are `total` in all if that is given."""


@contextmanager
def progress_bar(name: str, total: int) -> Iterator[Advance]:
    """Show a bar while the block runs; yield the function that advances it."""
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=total)
        yield lambda n, total=None: progress.update(task, advance=n, total=total)


def say(message: str) -> None:
    """Print one line on stderr."""
    Console(stderr=True, highlight=False, markup=False).print(message, soft_wrap=True)
