"""`pocketcortex zoo score` and `zoo rank` on the command line."""

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketcortex.cli import main
from pocketcortex.core import Session, StimulusSet

BUILDERS = """
import torch
from torch import nn

def tiny():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 4, 3))
"""
WORDS = ("--resamples", "30", "--permutations", "1", "--splits", "2", "--device", "cpu")


@pytest.fixture
def lab(tmp_path: Path) -> list[str]:
    """Words that say what to score on what."""
    (tmp_path / "nets.py").write_text(BUILDERS)
    rng = np.random.default_rng(0)
    folder = tmp_path / "sessions"
    folder.mkdir()
    for k in range(2):
        stimuli = StimulusSet.from_array(rng.integers(0, 256, (24, 3, 12, 12), dtype=np.uint8))
        Session(f"day{k}", rng.normal(size=(24, 3, 11)), stimuli).save(folder / f"day{k}.npz")
    return [
        "--models", "tiny", "--twins", "1", "--builders", str(tmp_path / "nets.py"),
        "--recordings", str(folder), "--out", str(tmp_path / "run"), *WORDS,
    ]  # fmt: skip


def run(*words: str) -> dict[str, Any]:
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(io.StringIO()):
        assert main(["zoo", *words, "--json"]) == 0
    answer: dict[str, Any] = json.loads(out.getvalue())
    return answer


def test_score_then_rank(lab: list[str], tmp_path: Path) -> None:
    answer = run("score", *lab)
    assert (answer["n_models"], answer["n_areas"], answer["n_pairs"]) == (2, 2, 4)
    assert {row["metric"] for row in answer["scores"]} == {
        "pearson r", "r2", "noise-corrected r2", "rsa pearson", "rsr pearson",
    }  # fmt: skip
    assert run("score", *lab)["n_done_before"] == 4
    ranked = run("rank", str(tmp_path / "run"), "--correction", "fdr")
    assert "day0, regression" in ranked["leaderboards"]
    assert {row["model"] for row in ranked["trained_random"]} == {"tiny", "(all)"}


def test_fewer_areas_images_and_analyses(lab: list[str]) -> None:
    answer = run(
        "score", *lab, "--areas", "day1", "--limit", "20", "--analyses", "rsa",
        "--comparison", "spearman", "--n-layers", "2",
    )  # fmt: skip
    assert {row["area"] for row in answer["scores"]} == {"day1"}
    assert {row["metric"] for row in answer["scores"]} == {"rsa spearman", "rsr pearson"}


def test_text_for_people(
    lab: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["zoo", "score", *lab, "--areas", "day0"]) == 0
    out = capsys.readouterr().out
    assert "tiny@random:0" in out
    assert "rank them by: pocketcortex zoo rank" in out
    assert main(["zoo", "rank", str(tmp_path / "run")]) == 0
    assert "as good as best" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--areas", "VISp"), "no area matches VISp; there are day0, day1"),
        (("--analyses", "decoding"), "analyses must be among"),
        (("--reliability", "0.99"), "reliability of 0.99 or more"),
    ],
)
def test_bad_input_is_one_line(
    lab: list[str], words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["zoo", "score", *lab, *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1
