"""Run a format's reader on damaged files, in processes that may not crash, hang or grow.

Every execution must end in success or in a `PocketcortexError`. A worker process reads case after
case; one that dies or makes no headway is ended, its case kept, and a new one goes on behind it.
"""

import contextlib
import ctypes
import multiprocessing
import os
import random
import resource
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz_formats import Format
from fuzz_mutations import Case

HANG_S = 20.0
"""How long one execution may compute, in seconds of the processor; all files are small."""
STUCK_S = 600.0
"""How long one may take by the clock, as one that waits for something does."""
GROWTH_BYTES = 3 * 2**29
"""Most that a process's resident memory may grow by, whether or not the reader ends well."""
_ROOM_BYTES = 2 * GROWTH_BYTES
_MAX_FAILURES = 20
_MAX_WORDS = 2000


@dataclass
class Outcome:
    """What came of a format's executions.

    Attributes
    ----------
    n_executions, n_read, n_refused
        How many there were; of these, how many files were read and how many refused.
    failures
        Number of the execution to what went wrong.
    seconds, slowest_s, slowest
        Time of all and of the slowest, and its number.
    growth_bytes
        Most that a process's resident memory grew by.
    """

    n_executions: int = 0
    n_read: int = 0
    n_refused: int = 0
    failures: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0
    slowest_s: float = 0.0
    slowest: int = 0
    growth_bytes: int = 0


def case_of(form: Format, seed: int, number: int) -> Case:
    """Return the input of one execution; the first ones are the whole files themselves."""
    seeds = form.seeds()
    if number < len(seeds):
        return seeds[number]
    rng = random.Random(f"{seed}/{form.name}/{number}")  # noqa: S311
    return form.mutate(rng, rng.choice(seeds))


def write_case(case: Case, folder: Path) -> None:
    """Write a case's files, and nothing else, into a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in case.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def fuzz(form: Format, n: int, *, seed: int, first: int = 0) -> Outcome:
    """Run executions `first` to `first + n` of a format."""
    started, outcome, at = time.monotonic(), Outcome(), first
    context = multiprocessing.get_context("fork")
    _ = form.seeds()
    with _scratch() as folder:
        while at < first + n and len(outcome.failures) < _MAX_FAILURES:
            state = context.Array("d", 5, lock=False)  # number, reads, refusals, slowest, which
            receiver, sender = context.Pipe(duplex=False)
            worker = context.Process(
                target=_work, args=(form, seed, at, first + n, folder, state, sender)
            )
            worker.start()
            sender.close()
            ended = _watch(worker, state, receiver, outcome)
            outcome.n_read += int(state[1])
            outcome.n_refused += int(state[2])
            if state[3] > outcome.slowest_s:
                outcome.slowest_s, outcome.slowest = state[3], int(state[4])
            at = int(state[0]) + 1
            if ended is not None:
                outcome.failures[int(state[0])] = ended
    outcome.n_executions = at - first
    outcome.seconds = time.monotonic() - started
    return outcome


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    memory = Path("/dev/shm")  # noqa: S108 - many small files
    parent = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        yield Path(folder) / "case"


def _watch(worker: Any, state: Any, receiver: Any, outcome: Outcome) -> str | None:
    """Wait for a worker and hear what it says; return how it ended if that was no good end."""
    last, since, spent = -1.0, 0.0, 0.0
    while True:
        with contextlib.suppress(EOFError):
            while receiver.poll(0.1):
                failures, growth = receiver.recv()
                outcome.failures |= failures
                outcome.growth_bytes = max(outcome.growth_bytes, growth)
        if not worker.is_alive():
            break
        worker.join(0.1)
        if state[0] != last:
            last, since, spent = state[0], time.monotonic(), _spent(worker.pid)
        elif _spent(worker.pid) - spent > HANG_S or time.monotonic() - since > STUCK_S:
            worker.kill()
            worker.join()
            return f"no answer in {HANG_S:.0f} s"
    if worker.exitcode == 0:
        return None
    if worker.exitcode < 0:
        return f"killed by {signal.Signals(-worker.exitcode).name}"
    return f"ended with code {worker.exitcode}"


def _spent(process: int) -> float:
    """Return how many seconds of the processor a process has had, 0 for one that is gone."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _forget_peak() -> None:
    """Begin to count anew: what the process that this one was forked from had is not its own."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes() -> int:
    """Return the most resident memory that this process had."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _work(
    form: Format, seed: int, at: int, stop: int, folder: Path, state: Any, sender: Any
) -> None:
    from pocketcortex.core import PocketcortexError

    _forget_peak()
    at_first = _peak_bytes()
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    limit = size + _ROOM_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    n_failures, known = 0, 0

    def grown() -> int:
        return _peak_bytes() - at_first

    def tell(failures: dict[int, str]) -> None:
        sender.send((failures, grown()))

    for number in range(at, stop):
        state[0] = number
        write_case(case_of(form, seed, number), folder)
        started = time.monotonic()
        said = None
        try:
            form.read(folder)
            state[1] += 1
        except PocketcortexError as error:
            state[2] += 1
            if not str(error).strip() or len(str(error)) > _MAX_WORDS:
                said = f"words of {len(str(error))} letters: {str(error)[:300]}"
        except BaseException:
            said = traceback.format_exc(limit=-6)
        if (now := grown()) > max(GROWTH_BYTES, known):
            known = now + GROWTH_BYTES // 8  # told once
            said = said or f"memory grew by {now:,} bytes"
        if (took := time.monotonic() - started) > state[3]:
            state[3], state[4] = took, number
        if said is not None:
            n_failures += 1
            tell({number: said[-4000:]})
        if n_failures >= _MAX_FAILURES:
            break
    tell({})
