"""Ctrl-C twice, and a clock that jumps: clear words, and the same numbers in the end."""

import ctypes.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pocketcortex.core import RunFolder

BUSY = """
import signal, sys, time
import typer
from pocketcortex import cli

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's is ignored

@cli.app.command()
def busy(slow: bool = False) -> None:
    try:
        print("begun", flush=True)
        while True:
            time.sleep(0.01)
    finally:
        print("putting away", flush=True)
        while slow:
            time.sleep(0.01)

sys.exit(cli.main(sys.argv[1:]))
"""


def interrupted(n: int, *words: str) -> tuple[int, str]:
    """Interrupt a command n times, once it has begun; return its exit code and what it says."""
    command = [sys.executable, "-c", BUSY, "busy", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "putting away\n"
        for _ in range(n - 1):
            process.send_signal(signal.SIGINT)
        return process.wait(60), process.stderr.read()


def test_one_interruption_lets_a_command_put_its_things_away() -> None:
    assert interrupted(1) == (130, "pocketcortex: interrupted\n")


def test_a_second_one_ends_it_on_the_spot_in_one_line() -> None:
    code, words = interrupted(2, "--slow")
    assert code == 130
    assert words == "pocketcortex: interrupted twice, left at once; the same command goes on\n"


STAGES = """
import os, signal, sys, time
from pathlib import Path
from pocketcortex import cli
from pocketcortex.core import RunFolder

signal.signal(signal.SIGINT, signal.default_int_handler)

@cli.app.command()
def work(out: Path) -> None:
    folder = RunFolder(out)
    def second(stage):
        found = [int(p.name) for p in stage.iterdir() if p.name.isdigit()]
        for k in range(len(found), 40):
            (stage / str(k)).write_text(str(k * k))
            print(k, flush=True)
            time.sleep(0.02)
    with folder.locked():
        folder.stage("first", {}, lambda stage: (stage / "a").write_text("a"))
        folder.stage("second", {}, second, after="first")

sys.exit(cli.main(["work", sys.argv[1]]))
"""


def test_interrupted_twice_in_the_middle_of_a_stage_it_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STAGES, str(tmp_path / "run")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        while process.stdout.readline() != "5\n":
            pass
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) in (130, -signal.SIGINT)  # the latter while it ends by itself
        words = process.stderr.read()
    assert words.count("\n") == 1
    assert words.startswith("pocketcortex: interrupted")
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    assert int(done.stdout.split()[0]) >= 5  # from where it was
    assert (tmp_path / "run" / "second" / "39").read_text() == "1521"
    assert RunFolder(tmp_path / "run").finished("second")


# A clock that goes back two days at every look, as the C library shows it to a program.

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <sys/time.h>
#include <time.h>

static long back;

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int answer = real(clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec -= (back += 172800) % 2000000000;
    return answer;
}

time_t time(time_t *where) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where) *where = now.tv_sec;
    return now.tv_sec;
}
"""

CLOCKED = """
import sys, time
from pathlib import Path
import numpy as np
from pocketcortex.core import RunFolder, provenance, Session
print(time.time() > time.time())
folder = RunFolder(sys.argv[1])
with folder.locked():
    _, first = folder.stage("first", {}, lambda p: np.savez(p / "a.npz", x=np.arange(9)))
    _, second = folder.stage("second", {}, lambda p: (p / "b").write_text("b"), after="first")
Session("s", np.ones((3, 2, 1))).save(Path(sys.argv[1]) / "s.npz")
provenance(1)
print(first, second, folder.seconds("first") >= 0)
"""


@pytest.fixture
def jumping_clock(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a program whose clock jumps."""
    compiler = shutil.which("cc")
    if compiler is None or ctypes.util.find_library("c") is None:
        pytest.skip("there is no C compiler to make a jumping clock with")
    (tmp_path / "clock.c").write_text(SHIM)
    library = tmp_path / "clock.so"
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(tmp_path / "clock.c"), "-ldl"]
    subprocess.run(command, check=True)
    return os.environ | {"LD_PRELOAD": str(library)}


def test_a_clock_that_jumps_changes_nothing(jumping_clock: dict[str, str], tmp_path: Path) -> None:
    def go(out: str, environment: dict[str, str]) -> list[str]:
        command = [sys.executable, "-c", CLOCKED, str(tmp_path / out)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=100
        )
        return done.stdout.splitlines()

    assert go("run", jumping_clock) == ["True", "False False True"]
    assert go("run", jumping_clock) == ["True", "True True True"]
    assert go("run", dict(os.environ)) == ["False", "True True True"]
    assert go("other", dict(os.environ)) == ["False", "False False True"]
    names = ("first/a.npz", "second/b", "s.npz")
    for name in names:
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_files_from_the_future_and_the_past_are_as_good_as_others(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.stage("first", {}, lambda path: (path / "a").write_text("a"))
    for moment in (0, time.time() + 10**9):
        for path in tmp_path.rglob("*"):
            os.utime(path, (moment, moment))
        assert RunFolder(tmp_path).stage("first", {}, lambda path: path.rmdir())[1]
