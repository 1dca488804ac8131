"""`pocketcortex dissect`: what each verb writes and answers, from small models made here."""

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

SIDE, N_MODELS, N_BANK = 40, 4, 24
FILTERS = (4, 3, 3, 3, 3)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models with random kernels that read about one place each."""
    folder = tmp_path_factory.mktemp("models")
    rows, columns = np.mgrid[: SIDE // 4, : SIDE // 4]
    for k in range(N_MODELS):
        with torch.random.fork_rng():
            torch.manual_seed(k)
            model = CompactModel(FILTERS, (SIDE, SIDE))
            blob = np.exp(-((rows - 4 - k % 2) ** 2 + (columns - 5) ** 2) / 4)
            with torch.no_grad():
                model.readout.copy_(torch.randn(FILTERS[-1], 1, 1) * torch.from_numpy(blob))
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


def answered(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["dissect", *map(str, words), "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_compare_counts_every_pair(
    capsys: pytest.CaptureFixture[str], models: Path, bank: Path, tmp_path: Path
) -> None:
    words = ("compare", models, "--bank", bank, "--out", tmp_path, "--images", 16)
    told = answered(capsys, *words, "--permutations", 2)
    folder = Path(told["folder"])
    assert told["n_pairs"] == N_MODELS * (N_MODELS - 1) // 2
    assert told["median_filters"] == [4, 4, 3, 3, 3, 3]
    cka = np.load(folder / "cka.npy")
    assert cka.shape == (5, N_MODELS, N_MODELS)
    np.testing.assert_allclose(np.diagonal(cka, axis1=1, axis2=2), 1, atol=1e-6)
    layers = pd.read_csv(folder / "layers.csv")
    rows, columns = np.triu_indices(N_MODELS, 1)
    np.testing.assert_allclose(layers["mean"], cka[:, rows, columns].mean(axis=1), atol=1e-9)
    assert set(told["early_minus_late"]) == {"CKA", "CKA, receptive field", "kernel similarity"}
    assert (folder / "figure.png").stat().st_size > 1000
    assert answered(capsys, *words, "--permutations", 2) == told  # not done again


def test_tune_tells_each_models_indices(
    capsys: pytest.CaptureFixture[str], models: Path, bank: Path, tmp_path: Path
) -> None:
    told = answered(
        capsys, "tune", models, "--bank", bank, "--out", tmp_path, "--only", "neuron1"
    )  # fmt: skip
    table = pd.read_csv(Path(told["folder"]) / "tuning.csv")
    assert table["model"].tolist() == ["neuron1"]
    assert 0 <= table["x_px"].iloc[0] < SIDE
    assert (Path(told["folder"]) / "neuron1_dots.png").exists()


def test_ablate_tells_every_filter(
    capsys: pytest.CaptureFixture[str], models: Path, bank: Path, tmp_path: Path
) -> None:
    told = answered(
        capsys, "ablate", models, "--bank", bank, "--out", tmp_path, "--only", "neuron0"
    )  # fmt: skip
    filters = pd.read_csv(Path(told["folder"]) / "filters.csv")
    assert filters["stage"].value_counts().sort_index().tolist() == [4, 4, 3, 3, 3, 3]
    strongest = told["strongest_filter"]["neuron0"]
    assert strongest["size_invariance"] == pytest.approx(filters["size_invariance"].max())


def test_trace_sums_to_the_response(
    capsys: pytest.CaptureFixture[str], models: Path, bank: Path, tmp_path: Path
) -> None:
    told = answered(
        capsys, "trace", models, "--bank", bank, "--out", tmp_path, "--only", "neuron2",
        "--image", "photo03.png",
    )  # fmt: skip
    with Image.open(bank / "photo03.png") as image:
        pixels = np.asarray(image).transpose(2, 0, 1)[None]
    with torch.inference_mode():
        expected = CompactModel.load(models / "neuron2")(torch.from_numpy(pixels.copy()))
    assert told["responses"]["neuron2"]["photo03.png"] == pytest.approx(float(expected), rel=1e-4)


def test_explain_ranks_every_model(
    capsys: pytest.CaptureFixture[str], models: Path, bank: Path, tmp_path: Path
) -> None:
    told = answered(capsys, "explain", models, "--bank", bank, "--out", tmp_path)
    folder = Path(told["folder"])
    table = pd.read_csv(folder / "families.csv", keep_default_na=False)
    assert table["model"].tolist() == [f"neuron{k}" for k in range(N_MODELS)]
    assert sum(told["n_of_family"].values()) == N_MODELS
    assert ((table["family"] == "none") == (table["reason"] != "")).all()
    dots = pd.read_csv(folder / "dots.csv")
    assert len(dots) == len(table)
    assert dots["is_detector"].sum() == told["n_dot_detectors"] == dots["rank"].notna().sum()
    for name, circuit in told["circuits"].items():
        kept = pd.read_csv(folder / f"{name}_filters.csv")
        assert len(kept) == circuit["n_kept"] <= circuit["n_filters"] == 20
        assert (folder / f"{name}.txt").read_text().startswith(name)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trace", "--image", "none.png"], "no image 'none.png'"),
        (["compare", "--only", "neuron0"], "two"),
        (["explain", "--keep", "2"], "keep_r2"),
    ],
)
def test_bad_input_is_one_line(
    capsys: pytest.CaptureFixture[str],
    models: Path,
    bank: Path,
    tmp_path: Path,
    words: list[str],
    said: str,
) -> None:
    verb, *rest = words
    arguments = ["dissect", verb, str(models), "--bank", str(bank), "--out", str(tmp_path), *rest]
    assert main(arguments) == 2
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("pocketcortex:")]
    assert len(lines) == 1
    assert said in lines[0]
