"""The command line's contract: answers on stdout, one line on stderr, exit codes 0, 1, 2, 130."""

import io
import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketcortex.cli import main
from pocketcortex.core import PocketcortexError, Session

Break = Callable[[Path], None]


def make_release(folder: Path, n_images: int = 6) -> Path:
    """Write one session of four neurons and six images."""
    inner = folder / "v4" / "data_V4_responses"
    (inner / "responses_repeat_averaged").mkdir(parents=True)
    (inner / "images").mkdir()
    responses = np.random.default_rng(0).normal(size=(4, 6))
    responses[1] = np.nan
    responses[3] = 2.0
    np.save(inner / "responses_repeat_averaged" / "responses_210224.npy", responses)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, format="JPEG")
    with zipfile.ZipFile(inner / "images" / "images_210224.zip", "w") as archive:
        for k in range(1, n_images + 1):
            archive.writestr(f"image{k:04d}.jpg", buffer.getvalue())
    return folder / "v4"


def expect_one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("pocketcortex: ")
    assert captured.err.count("\n") == 1
    assert captured.err.endswith("\n")
    return captured.err


def test_json_is_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", str(make_release(tmp_path)), "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert json.loads(captured.out) == {
        "sessions": [
            {
                "session": "210224",
                "animal": "PE",
                "role": "validation",
                "n_neurons": 4,
                "n_stimuli": 6,
                "n_repeats": 1,
                "has_images": True,
                "has_repeats": False,
                "unusable_neurons": {"1": "all responses are NaN", "3": "constant response"},
            }
        ]
    }


def test_table_names_unusable_neurons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", str(make_release(tmp_path))]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == ["210224", "PE", "validation", "4", "2", "6", "yes", "averages"]
    assert ["session", "210224,", "neuron", "3:", "constant", "response"] in lines


def test_shows_a_saved_session(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Session("[red]", np.arange(12.0).reshape(3, 2, 2)).save(tmp_path / "mine.npz")
    assert main(["data", "show", str(tmp_path / "mine.npz")]) == 0
    row = capsys.readouterr().out.splitlines()[1]
    assert row.split() == ["[red]", "?", "?", "2", "0", "3", "no", "2"]


def truncate_zip(release: Path) -> None:
    path = release / "data_V4_responses" / "images" / "images_210224.zip"
    path.write_bytes(path.read_bytes()[:-100])


def add_member_outside(release: Path) -> None:
    path = release / "data_V4_responses" / "images" / "images_210224.zip"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../image0007.jpg", b"")


def drop_column(release: Path) -> None:
    path = release / "data_V4_responses" / "responses_repeat_averaged" / "responses_210224.npy"
    np.save(path, np.load(path)[:, :-1])


def pickle_responses(release: Path) -> None:
    path = release / "data_V4_responses" / "responses_repeat_averaged" / "responses_210224.npy"
    path.write_bytes(pickle.dumps(np.load(path)))


def remove_responses(release: Path) -> None:
    (release / "data_V4_responses" / "responses_repeat_averaged" / "responses_210224.npy").unlink()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate_zip, "images_210224.zip is not a zip file, or is truncated"),
        (add_member_outside, "member '../image0007.jpg' climbs out"),
        (drop_column, "holds 6 images but there are responses to 5"),
        (pickle_responses, "holds pickled objects where a plain array is expected"),
        (remove_responses, "holds no V4 responses"),
    ],
)
def test_bad_release_is_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Break, reason: str
) -> None:
    release = make_release(tmp_path)
    damage(release)
    assert main(["data", "show", str(release), "--json"]) == 2
    assert reason in expect_one_line(capsys)


def test_session_without_images_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release = make_release(tmp_path)
    (release / "data_V4_responses" / "images" / "images_210224.zip").unlink()
    assert main(["data", "show", str(release), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sessions"][0]["has_images"] is False


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["data", "show", "absent"], "absent does not exist"),
        (["data", "show", "line\nbreak"], "line break does not exist"),
        (["data", "show", __file__], "is no recording that can be read"),
        (["data", "show"], "Missing argument"),
        (["data", "show", "x", "--loud"], "No such option"),
        (["data", "hide"], "No such command"),
        (["brain"], "No such command"),
    ],
)
def test_wrong_usage_is_exit_2(
    capsys: pytest.CaptureFixture[str], words: list[str], reason: str
) -> None:
    assert main(words) == 2
    assert reason in expect_one_line(capsys)


@pytest.mark.parametrize("words", [[], ["data"]])
def test_no_verb_shows_the_help(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert "Usage" in captured.out
    assert captured.err == "pocketcortex: no command given; choose one of those above\n"


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (PocketcortexError("did not\nconverge"), 1, "did not converge"),
        (OSError("disk full"), 1, "disk full"),
        (ZeroDivisionError("oops"), 1, "unexpected ZeroDivisionError: oops; set POCKETCORTEX_"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_failures_are_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    reason: str,
) -> None:
    def fail(path: Path) -> None:
        raise error

    monkeypatch.delenv("POCKETCORTEX_TRACEBACK", raising=False)
    monkeypatch.setattr("pocketcortex.data.read_recordings", fail)
    assert main(["data", "show", "x"]) == code
    assert reason in expect_one_line(capsys)
    if isinstance(error, Exception):
        monkeypatch.setenv("POCKETCORTEX_TRACEBACK", "1")
        with pytest.raises(type(error)):
            main(["data", "show", "x"])


def test_starting_does_not_import_torch() -> None:
    code = "import sys, pocketcortex.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.data
def test_shows_the_released_sessions(real_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", str(real_data / "v4"), "--json"]) == 0
    sessions = json.loads(capsys.readouterr().out)["sessions"]
    assert sum(session["n_neurons"] for session in sessions) == 667
    assert sum(session["has_images"] for session in sessions) == 11
