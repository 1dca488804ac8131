"""What is kept between calls is used only as it was written; shared places stand several users."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pocketcortex.core import InputError, StimulusSet, held
from pocketcortex.models._tensor_files import read_tensors_whole, write_tensors
from pocketcortex.pipeline import compression
from pocketcortex.pipeline.bank import Bank, save_bank
from pocketcortex.pipeline.bank import _is_whole as is_whole_bank
from pocketcortex.pipeline.loop import _Remembered, _start
from pocketcortex.zoo import Backbone, FeatureStore

Damage = Callable[[bytes], bytes]
DAMAGES: dict[str, Damage] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "one bit": lambda content: content[:-60] + bytes([content[-60] ^ 4]) + content[-59:],
    "other": lambda content: b"something else altogether" * 20,
}
damaged = pytest.mark.parametrize("damage", DAMAGES)


def stimuli(n: int = 6, seed: int = 0) -> StimulusSet:
    rng = np.random.default_rng(seed)
    return StimulusSet.from_array(rng.integers(0, 256, (n, 3, 8, 8), dtype=np.uint8))


@damaged
def test_remembered_predictions(tmp_path: Path, damage: str) -> None:
    calls: list[int] = []

    def predict(shown: StimulusSet) -> np.ndarray:
        calls.append(len(shown))
        return np.outer(np.arange(len(shown)), np.arange(40.0))

    remembered = _Remembered(predict, tmp_path / "predictions")
    first = remembered(stimuli())
    np.testing.assert_array_equal(remembered(stimuli()), first)
    assert calls == [6]
    (path,) = (tmp_path / "predictions").iterdir()
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    np.testing.assert_array_equal(remembered(stimuli()), first)
    assert calls == [6, 6]
    np.testing.assert_array_equal(remembered(stimuli()), first)
    assert calls == [6, 6]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"key": "another"}'])
def test_a_proposals_inputs_that_say_nothing_start_it_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "inputs.json").write_text(text)
    (tmp_path / "predictions").mkdir()
    _start(tmp_path, "key", 3)
    assert not (tmp_path / "predictions").exists()
    (tmp_path / "predictions").mkdir()
    _start(tmp_path, "key", 3)
    assert (tmp_path / "predictions").exists()


@damaged
def test_a_shared_models_file(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "trained001.safetensors"
    assert not compression._is_whole(path)
    write_tensors(path, {"x": torch.arange(200.0)})
    assert compression._is_whole(path)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert not compression._is_whole(path)


@pytest.mark.parametrize("where", [-1, -500, 60, 130])
def test_no_byte_of_a_tensor_file_can_change_unseen(tmp_path: Path, where: int) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(
        path, {"x": torch.arange(200.0), "y": torch.zeros(2, dtype=torch.int64)}, {"a": "b"}
    )
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)
    with pytest.raises(Exception, match=r"altered|Header|header|key|deserial"):
        read_tensors_whole(path)


@pytest.mark.parametrize("name", ["bank.json", "source000.npy"])
@damaged
def test_the_list_of_images_to_distil_with(tmp_path: Path, name: str, damage: str) -> None:
    bank = Bank((stimuli(), stimuli(5, 1)), 2, (np.arange(6), np.arange(5)))
    path = save_bank(bank, tmp_path)
    whole = (path / name).read_bytes()
    (path / name).write_bytes(DAMAGES[damage](whole))
    assert not is_whole_bank(path)
    assert save_bank(bank, tmp_path) == path
    assert is_whole_bank(path)
    assert (path / name).read_bytes() == whole
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


# Several processes at one store. The second is this one.

HOLDER = """
import sys
from pocketcortex.core import held
with held(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["told", "killed"])
def test_a_hold_ends_with_its_process(tmp_path: Path, end: str) -> None:
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"held\n"
        # a process of its own: a fork of this one, which has threads, could wait for ever
        waiter = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        time.sleep(2)
        assert waiter.poll() is None
        if end == "told":
            holder.stdin.close()
        else:
            holder.kill()
        assert waiter.communicate(timeout=60)[0] == b"held\n"
        assert waiter.returncode == 0
    with held(path):
        assert path.exists()


def backbone(pause: float = 0.0) -> Backbone:
    class Slow(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            time.sleep(pause)
            return x

    return Backbone(nn.Sequential(Slow(), nn.AvgPool2d(2)), "1")


def test_one_process_computes_features_and_the_other_waits_for_them(tmp_path: Path) -> None:
    folder, images = tmp_path / "features", stimuli(12)
    network = backbone(0.1)
    expected = np.array(FeatureStore(tmp_path / "own").features(network, images))
    child = os.fork()
    if not child:
        FeatureStore(folder, batch_size=2).features(network, images)
        os._exit(0)
    store, told = FeatureStore(folder, batch_size=2), []
    while not list(folder.glob("*.partial")):  # it holds the lock
        time.sleep(0.005)
    np.testing.assert_array_equal(store.features(network, images, advance=told.append), expected)
    assert os.waitpid(child, 0)[1] == 0
    assert told == [12]  # all at once: the child's


def test_a_process_killed_at_its_features_leaves_them_to_the_one_that_waits(tmp_path: Path) -> None:
    folder, images = tmp_path / "features", stimuli(12)
    network = backbone(0.1)
    expected = np.array(FeatureStore(tmp_path / "own").features(network, images))
    child = os.fork()
    if not child:
        FeatureStore(folder, batch_size=2).features(
            network, images, advance=lambda n: os.kill(os.getpid(), signal.SIGKILL)
        )
    store, told = FeatureStore(folder, batch_size=2), []
    while not list(folder.glob("*.partial")):  # it holds the lock
        time.sleep(0.005)
    np.testing.assert_array_equal(store.features(network, images, advance=told.append), expected)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert told == [2] * 6
    assert sorted(p.suffix for p in folder.iterdir()) == [".npy", ".sha256"]


def test_a_saved_model_is_refused_rather_than_used_half(tmp_path: Path) -> None:
    from pocketcortex.models import CompactModel

    folder = CompactModel((2, 2, 2, 2, 2), (16, 16)).save(tmp_path)
    for path in folder.iterdir():
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(InputError, match="does not hold a saved compact model"):
            CompactModel.load(folder)
        path.write_bytes(content)
    CompactModel.load(folder)
