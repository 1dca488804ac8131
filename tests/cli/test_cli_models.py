"""`pocketcortex models`: sizes, exports, and published models' scores on their recordings."""

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketcortex.cli import main
from pocketcortex.core import Session, StimulusSet
from pocketcortex.models import CompactModel, count_macs, count_parameters

FILTERS = {"neuron10": (4, 3, 5, 2, 6), "neuron2": (1, 2, 1, 2, 1), "neuron0": (3, 3, 3, 3, 3)}


def run(*words: str | Path) -> dict[str, Any]:
    """Return the JSON object that a command answers with, nothing else on stdout or stderr."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(["models", *map(str, words), "--json"])
    assert (code, err.getvalue()) == (0, "")
    answer: dict[str, Any] = json.loads(out.getvalue())
    return answer


def expect_one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("pocketcortex: ")
    assert captured.err.count("\n") == 1
    assert captured.err.endswith("\n")
    return captured.err


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Return a folder of three saved models."""
    for name, filters in FILTERS.items():
        CompactModel(filters, (16, 16)).save(tmp_path / "models" / name)
    return tmp_path / "models"


def test_show_lists_models_in_order_with_medians(saved: Path) -> None:
    answer = run("show", saved)
    names = ["neuron0", "neuron2", "neuron10"]
    assert [row["name"] for row in answer["models"]] == names
    assert [tuple(row["filters"]) for row in answer["models"]] == [FILTERS[n] for n in names]
    totals = [count_parameters(FILTERS[n], (16, 16)).total for n in names]
    assert [row["parameters"] for row in answer["models"]] == totals
    assert answer["n_models"] == 3
    assert answer["median"]["parameters"] == sorted(totals)[1]
    assert run("show", saved / "neuron2")["models"] == [answer["models"][1]]


def test_show_prints_a_table(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "show", str(saved)]) == 0
    heading, *rows, medians = capsys.readouterr().out.splitlines()
    assert heading.split()[0] == "model"
    assert [row.split()[0] for row in rows] == ["neuron0", "neuron2", "neuron10"]
    assert medians.startswith("median of 3")
    macs = f"{sum(count_macs(FILTERS['neuron10'], (16, 16))):,}"
    total = str(count_parameters(FILTERS["neuron10"], (16, 16)).total)
    assert rows[2].startswith("neuron10     4, 3, 5, 2, 6 ")
    assert rows[2].split()[6:-1] == ["24", total, macs]


@pytest.mark.data
def test_show_reads_published_models(real_data: Path) -> None:
    folder = real_data / "v4" / "data_compact_models"
    for kind in ("models_h5", "models_keras"):
        answer = run("show", folder / kind)
        assert answer["n_models"] == 4
        assert answer["models"][0]["parameters"] == 12_466
    path = folder / "models_torch" / "compact_model_190923_neuron0.pt"
    (row,) = run("show", path)["models"]
    assert (row["name"], row["n_filters"]) == ("compact_model_190923_neuron0", 165)


@pytest.mark.parametrize("format", ["torch", "numpy", "hub"])
def test_export_writes_every_model(saved: Path, tmp_path: Path, format: str) -> None:
    out, card = tmp_path / "out", tmp_path / "card.json"
    card.write_text('{"license": "cc0-1.0", "scores": {"r2": 0.5}}')
    words = ["--card", str(card)] if format == "hub" else []
    answer = run("export", saved, "--format", format, "--out", out, *words)
    names = {"neuron0", "neuron2", "neuron10"}
    if format == "torch":
        names = {f"{name}.pt2" for name in (*names, "population")}
    assert {path.name for path in out.iterdir()} == names
    assert {Path(path).name for path in answer["written"]} == names
    if format == "hub":
        assert 'license: "cc0-1.0"' in (out / "neuron2" / "README.md").read_text()
        assert CompactModel.load(out / "neuron2").filters == FILTERS["neuron2"]


def test_export_of_one_model_to_onnx_writes_one_file_quietly(saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    answer = run("export", saved / "neuron2", "--format", "onnx", "--out", out)
    assert answer == {
        "format": "onnx", "models": ["neuron2"], "written": [str(out / "neuron2.onnx")]
    }  # fmt: skip
    assert [path.name for path in out.iterdir()] == ["neuron2.onnx"]


def test_export_to_brainscore_writes_one_plugin(saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    answer = run("export", saved, "--format", "brainscore", "--out", out, "--region", "V4")
    assert answer["models"] == ["neuron0", "neuron2", "neuron10"]
    assert answer["written"] == [str(out / "pocketcortex_population")]
    config = json.loads((out / "pocketcortex_population" / "config.json").read_text())
    assert [model["filters"] for model in config["models"]] == [
        list(FILTERS[name]) for name in answer["models"]
    ]
    assert (config["regions"], config["visual_degrees"]) == ({"V4": "responses"}, 8.0)
    words = ["--format", "brainscore", "--out", out, "--degrees", "4"]
    (folder,) = run("export", saved / "neuron2", *words)["written"]
    assert Path(folder) == out / "pocketcortex_neuron2"
    config = json.loads((Path(folder) / "config.json").read_text())
    assert (config["regions"], config["visual_degrees"]) == (None, 4.0)


def test_export_to_brainscore_refuses_a_region(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--format", "brainscore", "--out", str(tmp_path / "out"), "--region", "MT"]
    assert main(["models", "export", str(saved), *words]) == 2
    assert "regions are V1, V2, V4, IT" in expect_one_line(capsys)


@pytest.mark.data
def test_export_of_a_shared_model_to_brainscore(real_data: Path, tmp_path: Path) -> None:
    release = real_data / "v4" / "data_shared_compact_models" / "from_ensemble_model"
    path = release / "shared_compact_model_5filters.keras"
    (folder,) = run("export", path, "--format", "brainscore", "--out", tmp_path)["written"]
    assert Path(folder).name == "pocketcortex_shared_compact_model_5filters"
    assert json.loads((Path(folder) / "config.json").read_text())["n_neurons"] == 219


CARDS = {
    "{": "the file: Invalid JSON",
    "[]": "the file: Input should be an object",
    '{"neuron": "a"}': "license: Field required",
    '{"license": " "}': "license: String should have at least 1 character",
    '{"license": "mit", "score": {}}': "score: Extra inputs are not permitted",
    '{"license": "mit", "scores": {"r2": "good"}}': "scores.r2",
}


@pytest.mark.parametrize("text", CARDS)
def test_bad_cards_are_exit_2_and_nothing_is_written(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    card, out = tmp_path / "card.json", tmp_path / "out"
    card.write_text(text)
    words = ["--format", "hub", "--out", str(out), "--card", str(card)]
    assert main(["models", "export", str(saved), *words]) == 2
    assert CARDS[text] in expect_one_line(capsys)
    assert not out.exists()


def test_bad_models_are_exit_2(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(path: Path, reason: str) -> None:
        for command in (["show"], ["export", "--format", "numpy", "--out", str(tmp_path / "out")]):
            assert main(["models", *command, str(path)]) == 2
            assert reason in expect_one_line(capsys)
        assert not (tmp_path / "out").exists()

    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "holds no compact model")
    refused(tmp_path / "absent.pt", "does not exist")
    for name in ("a.txt", "a.pt", "a.npy", "a.h5", "a.keras"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 neither weights nor an archive")
    refused(tmp_path / "a.txt", "unknown model format '.txt'")
    for name in ("a.pt", "a.npy", "a.h5", "a.keras"):
        refused(tmp_path / name, "is not a readable compact model")
    weights = saved / "neuron2" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    refused(saved, "neuron2 does not hold a saved compact model")  # one bad model of three
    (saved / "neuron0" / "config.json").write_text(
        '{"filters": [90000, 90000, 90000, 90000, 90000], "image_size": [16, 16]}'
    )
    refused(saved / "neuron0", "parameters described")  # refused before it takes the memory


def test_hub_export_without_a_card_is_exit_2(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--format", "hub", "--out", str(tmp_path / "out")]
    assert main(["models", "export", str(saved), *words]) == 2
    assert "names the licence" in expect_one_line(capsys)
    assert main(["models", "export", str(saved), *words, "--card", str(tmp_path / "no")]) == 2
    assert "cannot read the model card" in expect_one_line(capsys)
    assert not (tmp_path / "out").exists()


def score(release: Path, session: str) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of scoring a session's second half."""
    out, err = io.StringIO(), io.StringIO()
    words = ["models", "score", str(release), "--session", session, "--images", "second-half"]
    with redirect_stdout(out), redirect_stderr(err):
        code = main([*words, "--device", "cpu", "--json"])
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def scored(real_data: Path) -> dict[str, Any]:
    """Return the JSON object for the session of 33 models: the slow part, done once."""
    code, answer, messages = score(real_data / "v4", "190923")
    assert code == 0
    assert messages == ""
    result: dict[str, Any] = json.loads(answer)  # nothing else is on stdout
    return result


@pytest.mark.data
def test_published_median_is_found_again(scored: dict[str, Any]) -> None:
    assert scored["median"] == pytest.approx(0.4039, abs=2e-4)
    assert scored["median"] == np.median(scored["values"])


@pytest.mark.data
def test_every_model_has_a_score(scored: dict[str, Any]) -> None:
    assert scored["session"] == 190923
    assert scored["metric"] == "r2"
    assert scored["n_neurons"] == len(scored["values"]) == len(set(scored["neurons"])) == 33
    assert scored["n_stimuli"] == 600
    assert scored["reasons"] == {}
    assert all(0 <= value <= 1 for value in scored["values"])


@pytest.mark.data
@pytest.mark.slow
def test_published_median_of_the_larger_session(real_data: Path) -> None:
    code, answer, _ = score(real_data / "v4", "201025")
    assert code == 0
    result = json.loads(answer)
    assert result["n_neurons"] == len(result["values"]) == 89
    assert result["median"] == pytest.approx(0.4738, abs=2e-4)


@pytest.mark.data
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--session", "999999"], "no session 999999; there are"),
        (["--session", "210224"], "no published compact models of session '210224'"),
        (["--session", "211022"], "session 211022 has no images"),
        (["--session", "190923", "--images", "third-half"], "Invalid value for '--images'"),
        (["--session", "190923", "--device", "tpu"], "device must be auto, cpu or cuda"),
        ([], "Missing option '--session'"),
    ],
)
def test_bad_requests_are_exit_2(
    real_data: Path, capsys: pytest.CaptureFixture[str], words: list[str], reason: str
) -> None:
    assert main(["models", "score", str(real_data / "v4"), *words, "--json"]) == 2
    assert reason in expect_one_line(capsys)


def test_a_missing_folder_is_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["models", "score", str(tmp_path / "absent"), "--session", "190923"]
    assert main(words) == 2
    assert "absent is not a folder; a V4 release" in expect_one_line(capsys)


def test_a_folder_without_recordings_is_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = StimulusSet.from_array(np.zeros((2, 3, 8, 8), dtype=np.uint8))
    Session("190923", np.ones((2, 1, 1)), images).save(tmp_path / "190923.npz")
    assert main(["models", "score", str(tmp_path), "--session", "190923"]) == 2
    assert "holds no V4 responses" in expect_one_line(capsys)
