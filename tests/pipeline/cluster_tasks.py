"""Functions that the tests of schedulers send to worker processes, which import them by name."""

import os
import time
from pathlib import Path

from pocketcortex.core import InputError


def doubled(x: int) -> int:
    return 2 * x


def where(x: int) -> int:
    time.sleep(0.2)
    return os.getpid()


def fails(kind: str) -> None:
    if kind == "input":
        raise InputError("the file is empty; give another")
    if kind == "other":
        raise ZeroDivisionError("by zero")


def dies_once(mark: str) -> str:
    """Kill the worker process the first time; the second time say that all is well."""
    path = Path(mark)
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), 9)
    return "alive"


def dies(x: int) -> None:
    os.kill(os.getpid(), 9)
