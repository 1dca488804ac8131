"""`pocketcortex run`: one line for whatever is wrong, and neurons that cannot be modelled."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pocketcortex.cli import main
from pocketcortex.core import RunFolder, Session, StimulusSet

SESSIONS = {"190930": "train", "210224": "validation", "190923": "test"}
N_IMAGES = 24
TINY = (
    "seed = 1\n"
    "[teacher]\nn_members = 1\nwidth = 8\nbottleneck = 4\nn_blocks = 1\nn_epochs = 1\n"
    "[students]\nfilters = [4, 4, 4, 4, 4]\nn_epochs = 1\nbatch_size = 8\nn_monitor = 6\n"
    "[compact]\nn_pruning_images = 20\nn_images = 16\n"
    "[stimuli]\nn_random = 4\nn_natural = 1\nn_synthesized = 1\nn_synthesis_steps = 2\n"
    "n_adversarial = 1\nn_smoothed = 1\nn_patches = 2\n"
)


def jpeg(size: int, seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG")
    return buffer.getvalue()


def make_release(folder: Path) -> Path:
    """Write three sessions of two neurons and 24 images of 16 pixels in the release's layout."""
    inner = folder / "v4" / "data_V4_responses"
    (inner / "responses_repeat_averaged").mkdir(parents=True)
    (inner / "images").mkdir()
    for k, name in enumerate(SESSIONS):
        responses = np.random.default_rng(k).normal(size=(2, N_IMAGES))
        np.save(inner / "responses_repeat_averaged" / f"responses_{name}.npy", responses)
        with zipfile.ZipFile(inner / "images" / f"images_{name}.zip", "w") as archive:
            for i in range(1, N_IMAGES + 1):
                archive.writestr(f"image{i:04d}.jpg", jpeg(16, 1000 * k + i))
    return folder / "v4"


def images_of(release: Path, name: str = "190923") -> Path:
    return release / "data_V4_responses" / "images" / f"images_{name}.zip"


def responses_of(release: Path, name: str = "190923") -> Path:
    folder = release / "data_V4_responses" / "responses_repeat_averaged"
    return folder / f"responses_{name}.npy"


def write_config(folder: Path, recordings: str, more: str = "") -> str:
    """Write a configuration and return its path."""
    path = folder / "run.toml"
    path.write_text(f"{TINY}[recordings]\n{recordings}\n{more}")
    return str(path)


def expect_one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("pocketcortex: ")
    assert captured.err.count("\n") == 1
    assert captured.err.endswith("\n")
    return captured.err


def expect_refused(capsys: pytest.CaptureFixture[str], config: str, out: Path, *words: str) -> str:
    """Run a configuration that must be refused before any work, and return the one line."""
    assert main(["run", config, "--out", str(out), "--json", *words]) == 2
    line = expect_one_line(capsys)
    left = {path.name for path in out.iterdir()} if out.is_dir() else set()
    assert left <= {".lock", "config.json"}
    return line


def remove_images(release: Path) -> None:
    images_of(release).unlink()


def drop_column(release: Path) -> None:
    np.save(responses_of(release), np.load(responses_of(release))[:, :-1])


def truncate_zip(release: Path) -> None:
    path = images_of(release)
    path.write_bytes(path.read_bytes()[:-100])


def damage_image(release: Path) -> None:
    path = images_of(release)
    content = bytearray(path.read_bytes())
    start = content.index(b"image0003.jpg") + 60
    content[start : start + 200] = bytes(200)
    path.write_bytes(content)


def add_member_outside(release: Path) -> None:
    with zipfile.ZipFile(images_of(release), "a") as archive:
        archive.writestr("../image0025.jpg", jpeg(16, 0))


def resize_one_image(release: Path) -> None:
    with zipfile.ZipFile(images_of(release)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(images_of(release), "w") as archive:
        for name, content in (members | {"image0005.jpg": jpeg(20, 0)}).items():
            archive.writestr(name, content)


def resize_a_session(release: Path) -> None:
    with zipfile.ZipFile(images_of(release, "190930"), "w") as archive:
        for i in range(1, N_IMAGES + 1):
            archive.writestr(f"image{i:04d}.jpg", jpeg(20, i))


def pickle_responses(release: Path) -> None:
    responses_of(release).write_bytes(pickle.dumps(np.load(responses_of(release))))


def save_objects(release: Path) -> None:
    np.save(responses_of(release), np.array([{"a": 1}, None], dtype=object), allow_pickle=True)


def remove_everything(release: Path) -> None:
    release.rename(release.with_name("elsewhere"))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (remove_images, "0 sessions with images have the role 'test'; name one in recordings.test"),
        (drop_column, "images_190923.zip holds 24 images but there are responses to 23"),
        (truncate_zip, "images_190923.zip is not a zip file, or is truncated"),
        (damage_image, "'image0003.jpg'"),
        (add_member_outside, "member '../image0025.jpg' climbs out of the archive"),
        (resize_one_image, "image 'image0005.jpg' is 20 x 20 but 'image0001.jpg' is 16 x 16"),
        (resize_a_session, "session 190930 has images of (20, 20), 190923 of (16, 16)"),
        (pickle_responses, "responses_190923.npy holds pickled objects"),
        (save_objects, "responses_190923.npy holds pickled objects"),
        (remove_everything, "does not exist; give the folder of a V4 release"),
    ],
)
def test_bad_recordings_are_exit_2(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    reason: str,
) -> None:
    release = make_release(tmp_path)
    damage(release)
    config = write_config(tmp_path, f'path = "{release}"')
    assert reason in expect_refused(capsys, config, tmp_path / "out")


def test_a_named_session_without_images_is_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release = make_release(tmp_path)
    remove_images(release)
    config = write_config(tmp_path, f'path = "{release}"\ntest = "190923"')
    line = expect_refused(capsys, config, tmp_path / "out")
    assert "session 190923 has no images" in line


def test_an_unset_variable_is_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LAB_DATA", raising=False)
    config = write_config(tmp_path, 'path = "${LAB_DATA}/v4"')
    line = expect_refused(capsys, config, tmp_path / "out")
    assert "uses ${LAB_DATA}, which is not set; export LAB_DATA=FOLDER" in line
    assert not (tmp_path / "out").exists()


def test_a_missing_configuration_is_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = expect_refused(capsys, str(tmp_path / "absent.toml"), tmp_path / "out")
    assert "absent.toml: No such file" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ('[backbone]\nnetwork = "absent.py:build"', "network file absent.py does not exist"),
        ('[backbone]\nnetwork = "HERE/net.py:absent"', "net.py has no builder 'absent'"),
        ('[backbone]\nnetwork = "HERE/net.py:number"', "returned int, expected an nn.Module"),
        ('[backbone]\nnetwork = "no.such:build"', "network module 'no.such' cannot be imported"),
        ('[backbone]\nnetwork = "nothing"', "must be 'file.py:builder' or 'module:builder'"),
        ('[backbone]\nlayers = ["absent"]', "no layer 'absent' in the network; it has maps"),
        ('[students]\nbanks = [{path = "HERE/absent.zip"}]', "absent.zip does not exist"),
        ('[students]\nbanks = [{path = "HERE/net.py"}]', "net.py is no image bank"),
        ("[students]\nn_monitor = 40", "n_monitor = 40 of 60 images to distil with"),
        ('[students]\nn_monitor = 6\nstart = "HERE/absent.keras"', "absent.keras"),
        ('[teacher]\nprior = "HERE/absent.keras"', "absent.keras"),
    ],
)
def test_a_bad_network_or_bank_is_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: str, reason: str
) -> None:
    (tmp_path / "net.py").write_text("def number():\n    return 1\n")
    release = make_release(tmp_path)
    more = more.replace("HERE", str(tmp_path))
    path = tmp_path / "run.toml"
    path.write_text(f'seed = 1\n[recordings]\npath = "{release}"\n{more}\n')
    assert reason in expect_refused(capsys, str(path), tmp_path / "out")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, f'path = "{make_release(tmp_path)}"')
    line = expect_refused(capsys, config, tmp_path / "out", "--device", "cuda")
    assert "PyTorch sees no GPU; use --device cpu" in line


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--device", "tpu"], "device must be auto, cpu or cuda; got 'tpu'"),
        (["--seed", "-1"], "Invalid value for '--seed'"),
        (["--seed", str(2**63)], "Invalid value for '--seed'"),
        (["--seed", "one"], "Invalid value for '--seed'"),
        (["--quiet"], "No such option"),
    ],
)
def test_wrong_words_are_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], reason: str
) -> None:
    config = write_config(tmp_path, 'path = "absent"')
    assert reason in expect_refused(capsys, config, tmp_path / "out", *words)


def test_out_must_be_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", write_config(tmp_path, 'path = "absent"')]) == 2
    assert "Missing option '--out'" in expect_one_line(capsys)


def test_a_run_folder_in_use_is_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, 'path = "absent"')
    with RunFolder(tmp_path / "out").locked():
        line = expect_refused(capsys, config, tmp_path / "out")
    assert "another process is running in" in line
    assert "choose another --out" in line


def test_a_file_for_a_run_folder_is_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, 'path = "absent"')
    line = expect_refused(capsys, config, tmp_path / "run.toml")
    assert "cannot write to the run folder" in line


def save_sessions(folder: Path) -> Path:
    """Write three sessions of which the last has a neuron that answered nothing."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k, role in enumerate(SESSIONS.values()):
        images = rng.integers(0, 256, (N_IMAGES, 3, 16, 16), dtype=np.uint8)
        images //= rng.integers(1, 4, (N_IMAGES, 3, 1, 1), dtype=np.uint8)
        rates = images.mean(axis=(2, 3)) / 16  # (n_stimuli, 3)
        responses = rng.poisson(rates[:, None], (N_IMAGES, 3, 3)).astype(float)
        if role == "test":
            responses[:, :, 1] = np.nan
        night = Session(f"[/night {k}]", responses, StimulusSet.from_array(images), role=role)
        night.save(folder / f"{k}.npz")
    return folder


def test_a_neuron_without_responses_is_reported_and_keeps_its_nan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, f'path = "{save_sessions(tmp_path / "in")}"')
    out = tmp_path / "out"
    words = ["run", config, "--out", str(out), "--device", "cpu", "--seed", "5"]
    assert main([*words, "--json"]) == 0
    captured = capsys.readouterr()
    reason = "all responses are NaN"
    assert f"neuron 1 of session [/night 2] cannot be modelled: {reason}\n" in captured.err
    assert "seed 5\n" in captured.err
    summary = json.loads(captured.out)
    assert summary["seed"] == 5
    assert summary["n_neurons"] == 2
    (session,) = summary["sessions"].values()
    assert session["unusable_neurons"] == {"1": reason}
    table = pd.read_parquet(out / "scores" / "scores.parquet").set_index("neuron")
    assert set(table.index) == {0, 1, 2}
    assert table.loc[1, ["value", "ci_low", "ci_high"]].isna().all(axis=None)
    assert (table.loc[1, "reason"] == reason).all()
    assert len(table.loc[1]) == 2 * 4
    models = sorted(path.name for path in (out / "compact").glob("*_neuron*"))
    assert models == [f"%5B%2Fnight 2%5D_neuron{k:03d}" for k in (0, 2)]
    assert (out / "scores" / "predicted_%5B%2Fnight 2%5D.npz").is_file()
    assert reason in (out / "report" / "report.html").read_text()

    assert main(words) == 0
    told = capsys.readouterr().out.splitlines()
    median = summary["scores"]["r2"]["compact"]["median"]
    assert told[0] == "held-out median r2, 2 neurons of session [/night 2]"
    assert told[4].split()[:2] == ["compact", f"{median:.3f}"]
    assert told[-1] == f"report: {out / 'report' / 'report.html'}"


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.split() == ["pocketcortex", version("pocketcortex")]
