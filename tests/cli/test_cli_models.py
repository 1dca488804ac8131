"""`pocketcortex models score`: published models against the recordings they were made for."""

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketcortex.cli import main
from pocketcortex.core import Session, StimulusSet

pytestmark = pytest.mark.data


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


def test_published_median_is_found_again(scored: dict[str, Any]) -> None:
    assert scored["median"] == pytest.approx(0.4039, abs=2e-4)
    assert scored["median"] == np.median(scored["values"])


def test_every_model_has_a_score(scored: dict[str, Any]) -> None:
    assert scored["session"] == 190923
    assert scored["metric"] == "r2"
    assert scored["n_neurons"] == len(scored["values"]) == len(set(scored["neurons"])) == 33
    assert scored["n_stimuli"] == 600
    assert scored["reasons"] == {}
    assert all(0 <= value <= 1 for value in scored["values"])


@pytest.mark.slow
def test_published_median_of_the_larger_session(real_data: Path) -> None:
    code, answer, _ = score(real_data / "v4", "201025")
    assert code == 0
    result = json.loads(answer)
    assert result["n_neurons"] == len(result["values"]) == 89
    assert result["median"] == pytest.approx(0.4738, abs=2e-4)


def expect_one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("pocketcortex: ")
    assert captured.err.count("\n") == 1
    assert captured.err.endswith("\n")
    return captured.err


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
