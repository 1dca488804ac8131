"""`pocketcortex stimuli`: what each verb writes and answers, from models made here."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pocketcortex.cli import main
from pocketcortex.models import CompactModel

SIDE, N_MODELS, N_BANK = 32, 3, 24


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models with random weights whose units answer to all images."""
    folder = tmp_path_factory.mktemp("models")
    for k in range(N_MODELS):
        with torch.random.fork_rng():
            torch.manual_seed(k)
            model = CompactModel((6, 5, 4, 4, 3), (SIDE, SIDE))
            with torch.no_grad():
                model.readout.normal_()
                for norm in model.layers.norms:
                    norm.bias.uniform_(0.5, 1)
        model.save(folder / f"neuron{k}")
    return folder


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("bank")
    for k in range(N_BANK):
        small = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((SIDE, SIDE)).save(folder / f"photo{k:02d}.png")
    return folder


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["stimuli", *map(str, words), "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    folder = Path(told["folder"])
    assert (folder / "figure.png").stat().st_size > 1000
    return told


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).transpose(2, 0, 1)


def responses(models: Path, name: str, files: list[Path]) -> np.ndarray:
    """Return what a model says to images as they lie on disk."""
    images = np.stack([pixels(file) for file in files])
    with torch.inference_mode():
        return CompactModel.load(models / name)(torch.from_numpy(images)).numpy()


def test_maximize_writes_what_drives_and_the_table_says_how_much(
    capsys: pytest.CaptureFixture[str], models: Path, bank: Path, tmp_path: Path
) -> None:
    words = ("maximize", models, "--bank", bank, "--out", tmp_path, "--natural", 2)
    words += ("--starts", 2, "--steps", 5)
    told = answer(capsys, *words)
    folder = Path(told["folder"])
    table = pd.read_csv(folder / "stimuli.csv")
    assert len(table) == N_MODELS * (2 + 2)
    for name, own in table.groupby("model"):
        found = responses(models, str(name), [folder / f for f in own["file"]])
        np.testing.assert_allclose(own["response"], found, rtol=1e-4, atol=1e-5)
        everything = responses(models, str(name), sorted(bank.iterdir()))
        natural = own[own["kind"] == "natural"].sort_values("rank")
        assert natural["response"].iloc[0] == pytest.approx(everything.max(), rel=1e-4)
        z = (natural["response"] - everything.mean()) / everything.std()
        np.testing.assert_allclose(natural["sd_above_mean"], z, rtol=1e-3)
        made = own[own["kind"] == "synthesized"].sort_values("rank")["response"]
        assert made.is_monotonic_decreasing
    best = table[table["rank"] == 1].pivot(index="model", columns="kind", values="response")
    assert told["n_synthesized_beyond_natural"] == (best["synthesized"] > best["natural"]).sum()
    assert told["n_bank"] == N_BANK
    assert (folder / "gallery.png").exists()
    assert not list(folder.glob("part*"))

    stamp = (folder / "stimuli.csv").stat().st_mtime_ns
    assert answer(capsys, *words) == told  # the same again is not done again
    assert (folder / "stimuli.csv").stat().st_mtime_ns == stamp


def test_minimize_is_its_opposite_and_needs_no_bank(
    capsys: pytest.CaptureFixture[str], models: Path, bank: Path, tmp_path: Path
) -> None:
    words = (models, "--bank", bank, "--out", tmp_path, "--natural", 1, "--starts", 1, "--steps", 5)
    tables = {
        verb: pd.read_csv(Path(answer(capsys, verb, *words)["folder"]) / "stimuli.csv")
        for verb in ("maximize", "minimize")
    }
    low, high = (
        tables[verb].query("kind == 'natural'").set_index("model")["response"]
        for verb in ("minimize", "maximize")
    )
    assert (low < high).all()
    alone = answer(
        capsys, "minimize", models, "--out", tmp_path / "b", "--starts", 1, "--steps", 2,
        "--constrained", "--grayscale", "--only", "neuron1",
    )  # fmt: skip
    assert alone["n_models"] == 1
    made = next((Path(alone["folder"]) / "images").glob("*.png"))
    red, green, blue = pixels(made)
    assert np.array_equal(red, green)
    assert np.array_equal(red, blue)


def test_a_killed_synthesis_goes_on(
    capsys: pytest.CaptureFixture[str],
    models: Path,
    bank: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pocketcortex.pipeline import driving_stimuli

    monkeypatch.setattr(driving_stimuli, "_MODELS_A_PART", 1)
    words = ["maximize", models, "--starts", 1, "--steps", 3, "--out"]
    whole = answer(capsys, *words, tmp_path / "whole")
    calls = []

    def counted(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise OSError("killed")
        return driving_stimuli_synthesize(*arguments, **named)

    driving_stimuli_synthesize = driving_stimuli.synthesize
    monkeypatch.setattr(driving_stimuli, "synthesize", counted)
    assert main(["stimuli", *map(str, words), str(tmp_path / "cut")]) == 1
    told = answer(capsys, *words, tmp_path / "cut")
    assert len(calls) == 1 + 1 + (N_MODELS - 1)  # the first model was not done again
    one, other = (Path(t["folder"]) / "stimuli.csv" for t in (whole, told))
    assert one.read_bytes() == other.read_bytes()


def test_adversarial_stays_within_its_budget_and_beats_chance(
    capsys: pytest.CaptureFixture[str], models: Path, bank: Path, tmp_path: Path
) -> None:
    told = answer(
        capsys, "adversarial", models, "--bank", bank, "--out", tmp_path, "--images", 2,
        "--budget", 6, "--steps", 10,
    )  # fmt: skip
    folder = Path(told["folder"])
    table = pd.read_csv(folder / "stimuli.csv")
    assert len(table) == N_MODELS * 2 * 2
    assert (table["rms_levels"] <= 6).all()
    for row in table.to_dict("records"):
        found = responses(models, row["model"], [folder / row["file"], bank / row["source"]])
        np.testing.assert_allclose(
            [row["response"], row["base_response"]], found, rtol=1e-4, atol=1e-5
        )
    raised = table[table["kind"] == "adversarial+"]
    assert (raised["change"] > raised["random_change"]).all()
    assert told["share_in_direction"] == {"adversarial+": 1.0, "adversarial-": 1.0}


def test_saliency_and_smoothing(
    capsys: pytest.CaptureFixture[str], models: Path, bank: Path, tmp_path: Path
) -> None:
    told = answer(capsys, "saliency", models, "--bank", bank, "--out", tmp_path)
    table = pd.read_csv(Path(told["folder"]) / "patches.csv")
    maps = np.load(Path(told["folder"]) / "maps.npy")
    assert maps.shape[:2] == (N_MODELS, 1)
    first = table[table["rank"] == 1].set_index("model")["change"].abs()
    np.testing.assert_allclose(first, np.abs(maps).max(axis=(1, 2, 3)), rtol=1e-5)

    told = answer(
        capsys, "smooth", models, "--bank", bank, "--out", tmp_path, "--images", 2,
        "--patches", 4,
    )  # fmt: skip
    table = pd.read_csv(Path(told["folder"]) / "stimuli.csv")
    lowered = table[table["kind"] == "smooth-"]
    assert len(lowered) == len(table) / 2 == N_MODELS * 2
    share = (lowered["change"] < lowered["random_change"]).mean()
    assert told["share_below_random"] == pytest.approx(share)
    assert share > 0.9


def test_make_writes_every_kind(
    capsys: pytest.CaptureFixture[str], bank: Path, tmp_path: Path
) -> None:
    told = answer(capsys, "make", "--out", tmp_path, "--size", SIDE, "--bank", bank)
    table = pd.read_csv(Path(told["folder"]) / "stimuli.csv")
    assert table["kind"].value_counts().to_dict() == told["n_images"]
    assert {"natural", "gaudy", "dot size", "curve", "noise"} <= set(told["n_images"])
    for file in table["file"]:
        assert pixels(Path(told["folder"]) / file).shape == (3, SIDE, SIDE)


def test_words_for_people(capsys: pytest.CaptureFixture[str], models: Path, tmp_path: Path) -> None:
    words = ["stimuli", "maximize", str(models), "--out", str(tmp_path), "--steps", "2"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "n models: 3" in said
    assert "median response: synthesized" in said


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("maximize", "{models}", "--only", "other*"), "none of the 3 models"),
        (("maximize", "{models}", "--bank", "nowhere"), "nowhere does not exist"),
        (("adversarial", "{models}", "--bank", "{bank}", "--images", "99"), "within 1 and"),
        (("adversarial", "{models}", "--bank", "{bank}", "--budget", "-1"), "budget"),
        (("smooth", "{models}", "--bank", "{bank}", "--patches", "999"), "number of patches"),
        (("make", "--size", "8"), "32"),
    ],
)
def test_bad_input_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str],
    models: Path,
    bank: Path,
    tmp_path: Path,
    words: tuple[str, ...],
    error: str,
) -> None:
    given = [word.format(models=models, bank=bank) for word in words]
    assert main(["stimuli", *given, "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert error in said
