"""A run that is killed at random times, again and again, ends with the same numbers."""

import os
from pathlib import Path

import pytest
from kills import CONFIG, STAGES, contents, drawn_kills, run_with_kills

SEED = 20
FEW, MANY = 4, 50


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    path = tmp_path_factory.mktemp("config") / "run.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def whole(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that nobody killed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert run_with_kills(config, out, []) == []
    return out


def check(config: Path, whole: Path, out: Path, n: int) -> None:
    told = run_with_kills(config, out, drawn_kills(whole, n, SEED))
    assert len(told) == n
    hits = [one for one in told if one.killed]
    assert len(hits) >= 0.9 * n  # the others had just ended
    assert {one.asked for one in hits} == {stage for stage, _ in drawn_kills(whole, n, SEED)}
    assert contents(out) == contents(whole)
    assert not list(out.rglob("*.partial"))
    assert not list(out.rglob("*.lock")) or [p.name for p in out.rglob("*.lock")] == [".lock"]


def test_a_run_killed_at_random_times_ends_with_the_same_numbers(
    config: Path, whole: Path, tmp_path: Path
) -> None:
    assert {path.split("/")[0] for path in contents(whole)} == {*STAGES, "features"}
    check(config, whole, tmp_path / "run", FEW)


@pytest.mark.slow
def test_a_run_killed_at_fifty_random_times_ends_with_the_same_numbers(
    config: Path, whole: Path, tmp_path: Path
) -> None:
    check(config, whole, tmp_path / "run", MANY)
