"""Damaged files of every format are read or refused: no crash, no hang, no unbounded memory."""

import pytest
from fuzz_formats import FORMATS
from fuzz_harness import Outcome, case_of, fuzz

SEED = 1
FEW, MANY = 200, 100_000
GROWTH_BYTES = 2**30  # the largest image allowed, decoded and converted, takes 0.7 GiB


def check(outcome: Outcome, n: int) -> None:
    assert outcome.failures == {}
    assert outcome.n_executions == outcome.n_read + outcome.n_refused == n
    assert outcome.growth_bytes < GROWTH_BYTES


@pytest.mark.parametrize("name", FORMATS)
def test_whole_files_are_read(name: str) -> None:
    n = len(FORMATS[name].seeds())
    outcome = fuzz(FORMATS[name], n, seed=SEED)
    assert (outcome.failures, outcome.n_read) == ({}, n)


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_are_read_or_refused(name: str) -> None:
    outcome = fuzz(FORMATS[name], FEW, seed=SEED)
    check(outcome, FEW)
    assert outcome.n_refused > 0 or name in ("checkpoint",)  # of which a damaged one counts as none


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_many_damaged_files_are_read_or_refused(name: str) -> None:
    check(fuzz(FORMATS[name], MANY, seed=SEED), MANY)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("similarities", 339), ("similarities", 10_997), ("similarities", 52_046),
        ("similarities", 92_867),
        ("proposal", 6_211), ("proposal", 14_737), ("proposal", 16_327), ("h5 weights", 10_978),
        ("netcdf", 4_753), ("netcdf", 12_447), ("netcdf", 24_730),
    ],
)  # fmt: skip
def test_what_many_executions_found_stays_mended(name: str, number: int) -> None:
    outcome = fuzz(FORMATS[name], 1, seed=SEED, first=number)
    check(outcome, 1)
    assert outcome.n_refused == 1
    assert outcome.slowest_s < 10


def test_an_execution_is_the_same_every_time() -> None:
    for form in FORMATS.values():
        cases = [case_of(form, SEED, k) for k in range(20)]
        assert cases == [case_of(form, SEED, k) for k in range(20)]
        assert cases != [case_of(form, SEED + 1, k) for k in range(20)]


# The harness itself sees what it must.


@pytest.mark.parametrize(
    ("code", "seen"),
    [
        ("raise KeyError('x')", "KeyError"),
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
        ("import os; os._exit(3)", "ended with code 3"),
        ("while True: pass", "no answer"),
        ("b = bytearray(8 * 2**30)", "MemoryError"),
        ("b = b'1' * 2**29", "memory grew by"),
    ],
)
def test_a_bad_reader_is_found_out(code: str, seen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import fuzz_harness

    monkeypatch.setattr(fuzz_harness, "HANG_S", 1.0)
    monkeypatch.setattr(fuzz_harness, "GROWTH_BYTES", 2**28)
    form = FORMATS["tar"]
    bad = type(form)(form.name, form.seeds, lambda folder: exec(code), form.mutate)  # noqa: S102
    outcome = fuzz(bad, 1, seed=SEED)
    assert seen in outcome.failures[0]


def test_a_reader_that_dies_is_gone_on_with() -> None:
    form = FORMATS["tar"]
    seen = 0

    def read(folder: object) -> None:
        nonlocal seen
        seen += 1
        if seen == 2:
            raise SystemExit(1)

    outcome = fuzz(type(form)(form.name, form.seeds, read, form.mutate), 10, seed=SEED)
    assert outcome.n_executions == 10
    assert list(outcome.failures) == [1]
