"""`pocketcortex loop`: from a trained teacher to images, back in, and simulated."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketcortex.cli import main
from pocketcortex.core import Session, StimulusSet
from pocketcortex.data import read_recordings
from pocketcortex.pipeline import LoopConfig, loop_gain, simulated_loop

TINY = """
seed = 1
[recordings]
path = "HERE"
[teacher]
n_members = 2
width = 8
bottleneck = 4
n_blocks = 0
n_epochs = 1
"""


def shown(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images, and spikes of two neurons that like bright and red ones."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 3, 16, 16), dtype=np.uint8)
    images //= rng.integers(1, 4, (n, 3, 1, 1), dtype=np.uint8)
    level = images.mean(axis=(2, 3)) / 16
    rates = np.stack([level.sum(1), 2 * level[:, 0]], axis=1)
    return images, rng.poisson(rates[:, None], (n, 3, 2)).astype(np.float64)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make recordings, a bank and a trained teacher."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "sessions").mkdir()
    for seed, role in enumerate(("train", "validation", "test")):
        images, responses = shown(32, seed)
        session = Session(role, responses, StimulusSet.from_array(images), role=role)
        session.save(folder / "sessions" / f"{role}.npz")
    np.save(folder / "bank.npy", shown(40, 9)[0])
    (folder / "run.toml").write_text(TINY.replace("HERE", str(folder / "sessions")))
    words = ["ensemble", "fit", str(folder / "run.toml"), "--out", str(folder / "run")]
    assert main([*words, "--device", "cpu"]) == 0
    return folder


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["loop", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


def proposal(lab: Path, out: Path, *words: str) -> list[str]:
    return [
        "propose", str(lab / "run"), str(lab / "bank.npy"), "--out", str(out), "--seed", "3",
        "--disagreement", "8", "--random", "12", "--device", "cpu", *words,
    ]  # fmt: skip


def test_propose_then_ingest(lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "next"
    code, told, _ = call(capsys, *proposal(lab, out, "--json"))
    assert code == 0
    proposed = json.loads(told)
    assert proposed["arms"] in (
        {"random": 12, "disagreement": 8}, {"disagreement": 8, "random": 12},
    )  # fmt: skip
    code, told, _ = call(capsys, *proposal(lab, out))
    assert "20 images in" in told
    assert "28 candidates; seed 3" in told
    np.save(tmp_path / "r.npy", np.random.default_rng(0).poisson(4.0, (20, 2, 2)).astype(float))
    words = (
        "ingest", str(out), str(tmp_path / "r.npy"), "--out", str(tmp_path / "sessions"),
        "--session", "day2", "--run", str(lab / "run"), "--same-as", "test", "--device", "cpu",
    )  # fmt: skip
    code, told, _ = call(capsys, *words)
    assert code == 0
    assert "2 neurons, 20 images, 2 repeats" in told
    assert "same neurons" in told
    assert "disagreement       8 images  too few images" in told
    code, told, _ = call(capsys, *words, "--json")
    before: dict[str, Any] = json.loads(told)["before_retraining"]
    assert before["arms"]["random"]["n_images"] == 12
    assert read_recordings(tmp_path / "sessions")["day2"].role == "train"


def test_errors_are_one_line_and_code_2(
    lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told, why = call(capsys, *proposal(lab, tmp_path / "x", "--core", "luck"))
    assert (code, told) == (2, "")
    assert "'luck'" in why
    code, _, why = call(capsys, *proposal(lab, tmp_path / "x", "--diverse", "50"))
    assert code == 2
    assert "larger bank" in why.splitlines()[-1]
    code, _, why = call(
        capsys, "ingest", str(tmp_path), "r.npy", "--out", str(tmp_path), "--session", "s"
    )
    assert code == 2
    assert "holds no proposal" in why


def test_simulate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed = {"n_neurons": 2, "n_first": 10, "n_members": 2, "n_bank": 50, "n_test": 20}

    def tiny(**asked: Any) -> LoopConfig:
        return LoopConfig(**(fixed | asked))

    monkeypatch.setattr("pocketcortex.pipeline.LoopConfig", tiny)
    monkeypatch.setattr(loop_gain, "_N_RESAMPLES", 50)
    words = ("simulate", "--out", str(tmp_path), "--animals", "2", "--sessions", "1")
    words += ("--images", "10", "--seed", "2", "--plain-bank")
    code, told, _ = call(capsys, *words)
    assert code == 0
    for name in simulated_loop.STRATEGIES:
        assert f"  {name} " in told
    code, told, _ = call(capsys, *words, "--json")
    summary = json.loads(told)
    assert summary["n_images"] == [10, 20]
    assert Path(summary["figure"]).is_file()
