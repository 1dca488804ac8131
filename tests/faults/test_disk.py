"""A disk that is full or read-only: clear words, nothing lost, and the work goes on from there."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from conftest import Disk
from pocketcortex.core import (
    InputError,
    PocketcortexError,
    RunFolder,
    Session,
    StimulusSet,
    new_array_file,
    whole_file,
    write_json,
)
from pocketcortex.models import CompactModel, export_model
from pocketcortex.training.checkpoint import read_checkpoint, save_checkpoint
from pocketcortex.zoo import Backbone, FeatureStore, NetworkKernels

FULL = r"could not be written to .*: the disk is full \([\d,]+ bytes free\); .* is kept: mend that"
READ_ONLY = r"could not be written to .*: the file system is read-only; .* is kept: mend that"
RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (60, 3, 128, 128), dtype=np.uint8)  # 2.8 MiB, no packing helps


def fill(disk: Disk) -> None:
    """Leave no byte."""
    subprocess.run(["cp", "/dev/zero", str(disk / "filler")], check=False, capture_output=True)
    with pytest.raises(OSError, match="No space left"):
        (disk / "more").write_bytes(bytes(4096))
    (disk / "more").unlink()


def everything_below(path: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def by_numpy(folder: Path) -> None:
    np.save(folder / "big.npy", NOISE)


def by_mapping(folder: Path) -> None:
    new_array_file(folder / "big.npy", np.uint8, NOISE.shape)[:] = NOISE


def by_safetensors(folder: Path) -> None:
    save_checkpoint(folder / "checkpoint", {"x": torch.from_numpy(NOISE)}, {})


def by_json(folder: Path) -> None:
    write_json(folder / "big.json", {"x": NOISE.ravel()[:1_500_000].tolist()})


def by_pandas(folder: Path) -> None:
    import pandas as pd

    pd.DataFrame({"x": NOISE.ravel()}).to_parquet(folder / "big.parquet")


@pytest.mark.parametrize("work", [by_numpy, by_mapping, by_safetensors, by_json, by_pandas])
def test_a_stage_that_fills_the_disk_goes_on_once_there_is_room(
    disk: Disk, work: Callable[[Path], None]
) -> None:
    folder = RunFolder(disk / "run")
    folder.stage("first", {}, lambda path: (path / "a").write_text("a"))
    with pytest.raises(PocketcortexError, match=f"stage second {FULL}"):
        folder.stage("second", {}, work, after="first")
    assert not (disk / "run" / "second").exists()
    disk.change("size=20m")
    again = RunFolder(disk / "run")
    assert again.stage("first", {}, work)[1]
    path, _ = again.stage("second", {}, work, after="first")
    assert everything_below(path)


def test_a_disk_that_is_full_before_a_stage_begins(disk: Disk) -> None:
    folder = RunFolder(disk / "run")
    folder.stage("first", {}, lambda path: (path / "a").write_text("a"))
    fill(disk)
    with pytest.raises(PocketcortexError, match="the disk is full"):
        folder.stage("second", {}, by_json)
    with pytest.raises(PocketcortexError, match=r"config.json could not be .* the disk is full"):
        folder.write_json("config.json", {"a": "b" * 9000})
    (disk / "filler").unlink()
    assert RunFolder(disk / "run").stage("first", {}, by_json)[1]


def backbone() -> Backbone:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Backbone(nn.Sequential(nn.Conv2d(3, 4, 1)), "0")


def test_features_that_do_not_fit_kill_nothing(disk: Disk) -> None:
    """A write to a mapped file on a full disk would end the process by SIGBUS."""
    stimuli, store = StimulusSet.from_array(NOISE), FeatureStore(disk / "features")
    with pytest.raises(PocketcortexError, match=f"features {FULL}"):
        store.features(backbone(), stimuli)
    assert store.stored(backbone(), stimuli) is None
    assert everything_below(disk / "features") == {}
    disk.change("size=20m")
    features = store.features(backbone(), stimuli)
    expected = backbone()(torch.from_numpy(NOISE)).half().numpy()
    np.testing.assert_allclose(features, expected, rtol=2e-3, atol=1e-3)


def test_an_older_file_survives_a_disk_that_is_full(disk: Disk) -> None:
    session = Session("s", np.ones((3, 2, 1)))
    session.save(disk / "s.npz")
    model = CompactModel((2, 2, 2, 2, 2), (16, 16))
    model.save(disk / "model")
    save_checkpoint(disk / "checkpoint", {"x": torch.ones(3)}, {"epoch": 1})
    export_model(model, disk / "exported", "numpy")
    fill(disk)
    before = everything_below(disk.path)
    larger = Session("s", np.ones((60, 2, 1)), StimulusSet.from_array(NOISE))
    with pytest.raises(PocketcortexError, match=f"session s {FULL}"):
        larger.save(disk / "s.npz")
    with pytest.raises(PocketcortexError, match=f"the model {FULL}"):
        CompactModel((9, 9, 9, 9, 9), (16, 16)).save(disk / "model")
    with pytest.raises(PocketcortexError, match=f"the export {FULL}"):
        export_model(CompactModel((9, 9, 9, 9, 9), (16, 16)), disk / "exported", "numpy")
    with pytest.raises(Exception, match="No space left"):
        save_checkpoint(disk / "checkpoint", {"x": torch.ones(10**6)}, {"epoch": 2})
    assert everything_below(disk.path) == before
    saved = read_checkpoint(disk / "checkpoint")
    assert saved is not None
    assert saved[1] == {"epoch": 1}


def test_kernels_that_do_not_fit(disk: Disk) -> None:
    n = 400
    kernels = NetworkKernels(
        ("a",), np.array([3]), np.zeros((1, n, n)), np.zeros((1, n, n)), np.zeros((1, n)),
        np.zeros((1, n)),
    )  # fmt: skip
    with pytest.raises(PocketcortexError, match=f"kernels {FULL}"):
        kernels.save(disk / "kernels")
    assert not (disk / "kernels").exists()
    disk.change("size=20m")
    kernels.save(disk / "kernels")
    assert len(NetworkKernels.load(disk / "kernels")) == 1


def test_a_read_only_disk_is_named(disk: Disk) -> None:
    folder = RunFolder(disk / "run")
    with folder.locked():
        folder.stage("first", {}, lambda path: (path / "a").write_text("a"))
    disk.change("ro")
    with (
        pytest.raises(InputError, match=r"cannot write to the run folder .*Read-only"),
        folder.locked(),
    ):
        pytest.fail("locked a folder that cannot be")
    with pytest.raises(PocketcortexError, match=f"stage second {READ_ONLY}"):
        folder.stage("second", {}, by_numpy)
    with pytest.raises(PocketcortexError, match=READ_ONLY):
        Session("s", np.ones((3, 2, 1))).save(disk / "s.npz")
    with pytest.raises(PocketcortexError, match=READ_ONLY):
        CompactModel((1, 1, 1, 1, 1), (16, 16)).save(disk / "model")
    with pytest.raises(PocketcortexError, match=READ_ONLY):
        FeatureStore(disk / "features").features(backbone(), StimulusSet.from_array(NOISE[:2]))
    assert RunFolder(disk / "run").stage("first", {}, by_numpy)[1]  # what is done can be read


def test_what_was_half_written_is_gone_after_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("older")
    with pytest.raises(ZeroDivisionError), whole_file(tmp_path / "a") as file:
        file.write(b"%d" % (1 // 0))
    assert everything_below(tmp_path) == {"a": b"older"}


# A whole run by the program. Its folder is on the disk; the disk is enlarged between tries.

CONFIG = """
seed = 3
recordings = {insilico = {n_sessions = 3, n_neurons = 2, n_stimuli = 40, image_size = 32}}
teacher = {n_members = 1, width = 8, bottleneck = 4, n_blocks = 1, n_epochs = 2}
students = {filters = [4, 4, 4, 4, 4], n_epochs = 2, batch_size = 16, n_monitor = 12}
compact = {n_pruning_images = 20, n_images = 32, n_epochs = 1}
"""


def program(*words: object) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "pocketcortex"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
def test_a_run_on_a_disk_too_small_says_so_and_goes_on_once_there_is_room(
    disk: Disk, tmp_path: Path
) -> None:
    config = tmp_path / "run.toml"
    config.write_text(CONFIG)
    words = ("compress", "retrain", config, "--device", "cpu", "--json", "--out")
    disk.change("size=600k")
    tried = program(*words, disk / "run")
    assert tried.returncode == 1, tried.stderr
    (last,) = [line for line in tried.stderr.splitlines() if line.startswith("pocketcortex:")]
    assert "the disk is full" in last
    assert "Traceback" not in tried.stderr
    disk.change("size=50m")
    finished, whole = program(*words, disk / "run"), program(*words, tmp_path / "whole")
    assert (finished.returncode, whole.returncode) == (0, 0), finished.stderr
    for name in ("mapping", "labels", "students", "pruned", "compact"):
        found, expected = (
            everything_below(path / name) for path in (disk / "run", tmp_path / "whole")
        )
        del found["manifest.json"], expected["manifest.json"]
        assert found == expected, name
