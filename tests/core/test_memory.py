"""The limit on memory while a file is read."""

import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pocketcortex.core.memory import limited_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits are kept on Linux only")
GIB = 2**30


def test_no_more_is_given_than_a_file_may_need() -> None:
    """In a process of its own: one that has freed memory may be given that again."""
    code = (
        "from pocketcortex.core.memory import limited_memory\n"
        "with limited_memory('missing'):\n"
        "    bytearray(2**28)\n"
        "    try:\n"
        "        bytearray(5 * 2**28)\n"
        "    except MemoryError:\n"
        "        print('refused')\n"
        "bytearray(5 * 2**28)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"


def test_a_large_file_may_need_more(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(GIB // 4)  # of 8 times that there is room
    with limited_memory(path):
        assert len(bytearray(2 * GIB)) == 2 * GIB


def test_the_limit_ends_with_the_last_of_several_threads(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    entered, leave = threading.Barrier(2), threading.Event()

    def other() -> None:
        with limited_memory(tmp_path):
            entered.wait(10)
            leave.wait(10)

    thread = threading.Thread(target=other)
    with limited_memory(tmp_path):
        thread.start()
        entered.wait(10)
    assert resource.getrlimit(resource.RLIMIT_AS) != before
    leave.set()
    thread.join()
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_the_limit_ends_with_an_error(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(KeyError), limited_memory(tmp_path):
        raise KeyError
    assert resource.getrlimit(resource.RLIMIT_AS) == before
