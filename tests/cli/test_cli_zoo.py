"""`pocketcortex zoo`: the list, and what a network is."""

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch

from pocketcortex.cli import main
from pocketcortex.zoo import list_networks


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("POCKETCORTEX_WEIGHTS", raising=False)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))


def run(*words: str) -> dict[str, Any]:
    """Return the JSON object that a command answers with, nothing else on stdout or stderr."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(["zoo", *words, "--json"])
    assert (code, err.getvalue()) == (0, "")
    answer: dict[str, Any] = json.loads(out.getvalue())
    return answer


def test_list_gives_the_table() -> None:
    rows = run("list")["networks"]
    assert rows == [spec.as_dict() for spec in list_networks()]
    some = run("list", "--source", "timm", "--task", "classification", "--family", "transformer")
    names = [row["name"] for row in some["networks"]]
    assert len(names) == 27
    assert "cait_s24_224" in names


def test_list_prints_one_line_a_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "list", "--task", "self-supervised"]) == 0
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["network", "architecture", "task"]
    assert len(rows) == 19
    assert rows[-1].split() == ["dino_vitb8", "ViT", "self-supervised/dino"]


def test_show_tells_layers_preprocessing_and_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = run("show", "squeezenet1_1")
    assert answer["n_parameters"] == answer["published_parameters"] == 1_235_496
    assert answer["n_layers"] == answer["published_layers"] == len(answer["layers"]) == 64
    assert answer["layers"][0] == {"name": "features.0", "kind": "Conv2d", "shape": [64, 111, 111]}
    assert answer["preprocessing"]["size"] == [224, 224]
    assert answer["preprocessing"]["short_side"] == 256
    assert answer["weights_file"] == "squeezenet1_1-b8a52dc0.pth"
    assert answer["weights_path"] is None
    monkeypatch.setenv("POCKETCORTEX_WEIGHTS", str(tmp_path))
    (tmp_path / answer["weights_file"]).touch()
    again = run("show", "squeezenet1_1", "--protocol", "published", "--input-size", "64")
    assert again["weights_path"] == str(tmp_path / answer["weights_file"])
    assert (again["preprocessing"]["size"], again["preprocessing"]["short_side"]) == (
        [64, 64],
        None,
    )
    assert again["layers"][0]["shape"] == [64, 31, 31]


def test_show_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "show", "timm:test_vit@random:2"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("timm:test_vit@random:2: untrained\nsource timm:test_vit\n")
    assert "preprocessing: short side to 168, bicubic, middle 160 x 160, mean 0.5" in out
    assert "weights: drawn by seed 2\n" in out
    assert main(["zoo", "show", "taskonomy_normal", "--input-size", "64"]) == 0
    out = capsys.readouterr().out
    assert "convolutional, ResNet, trained on taskonomy/normal with Taskonomy" in out
    assert "weights: not here; normal_encoder.safetensors, published at https://github" in out
    assert out.splitlines()[-1].split() == ["groupnorm", "GroupNorm", "8", "x", "4", "x", "4"]


@pytest.mark.data
def test_show_knows_networks_of_your_own(real_data: Path) -> None:
    answer = run("show", f"{real_data / 'weights' / 'backbones.py'}:resnet18", "--input-size", "64")
    assert answer["n_parameters"] == 2_780_544
    assert answer["weights_file"] is None
    assert answer["layers"][-1] == {"name": "layer3.1.relu2", "kind": "ReLU", "shape": [256, 4, 4]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("show", "alexnett"), "no network 'alexnett' in the zoo; similar names are alexnet"),
        (("list", "--family", "cubist"), "no network has 'cubist'; there are AlexNet"),
        (("show", "timm:resnt"), "has no network 'resnt'"),
    ],
)
def test_errors_are_one_line(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["zoo", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("pocketcortex: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1
