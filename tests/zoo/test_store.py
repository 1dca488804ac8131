"""The store keeps the numbers it was given, under a name that says all they depend on."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pocketcortex.core import InputError, StimulusSet
from pocketcortex.zoo import Backbone, FeatureStore


def stimuli(n: int = 10, seed: int = 0) -> StimulusSet:
    levels = np.random.default_rng(seed).integers(0, 256, (n, 3, 8, 8), dtype=np.uint8)
    return StimulusSet.from_array(levels)


def backbone(seed: int = 0, layer: str = "1", input_size: int | None = None) -> Backbone:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    return Backbone(network, layer, input_size=input_size)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "features", batch_size=4)


def test_features_are_the_backbones_in_half_precision(store: FeatureStore) -> None:
    features = store.features(backbone(), stimuli())
    expected = backbone()(torch.from_numpy(stimuli().images())).half().numpy()
    assert features.dtype == np.float16
    np.testing.assert_allclose(features, expected, rtol=2e-3, atol=1e-3)


def test_second_call_reads_what_the_first_wrote(store: FeatureStore) -> None:
    first = np.array(store.features(backbone(), stimuli()))
    path = store.path(backbone(), stimuli())
    written = path.stat().st_mtime_ns
    assert np.array_equal(store.features(backbone(), stimuli()), first)
    assert path.stat().st_mtime_ns == written


def test_stored_features_are_not_computed_again(store: FeatureStore) -> None:
    store.features(backbone(), stimuli())
    unusable = backbone()
    unusable.network.register_forward_pre_hook(lambda *_: pytest.fail("the network ran"))
    store.features(unusable, stimuli())


def test_features_cannot_be_written_to(store: FeatureStore) -> None:
    features = store.features(backbone(), stimuli())
    with pytest.raises(ValueError, match="read-only"):
        features[0] = 0


@pytest.mark.parametrize("batch_size", [1, 3, 10, 100])
def test_batch_size_does_not_change_the_features(tmp_path: Path, batch_size: int) -> None:
    features = FeatureStore(tmp_path, batch_size=batch_size).features(backbone(), stimuli())
    expected = backbone()(torch.from_numpy(stimuli().images())).half().numpy()
    np.testing.assert_allclose(features, expected, rtol=2e-3, atol=1e-3)


def test_name_follows_all_that_features_depend_on(store: FeatureStore) -> None:
    other_order = stimuli().take(np.arange(10)[::-1])
    paths = {
        store.path(backbone(), stimuli()),
        store.path(backbone(seed=1), stimuli()),
        store.path(backbone(layer="0"), stimuli()),
        store.path(backbone(input_size=12), stimuli()),
        store.path(backbone(), stimuli(seed=1)),
        store.path(backbone(), stimuli(9)),
        store.path(backbone(), other_order),
    }
    assert len(paths) == 7


def test_same_content_has_the_same_name(store: FeatureStore) -> None:
    assert store.path(backbone(), stimuli()) == store.path(backbone(), stimuli())


def test_progress_adds_up_to_all_images(store: FeatureStore) -> None:
    told: list[int] = []
    store.features(backbone(), stimuli(), advance=told.append)
    assert told == [4, 4, 2]
    store.features(backbone(), stimuli(), advance=told.append)
    assert told == [4, 4, 2, 10]


def test_stop_in_the_middle_leaves_no_features(store: FeatureStore) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.features(backbone(), stimuli(), advance=stop)
    assert not store.path(backbone(), stimuli()).exists()
    expected = backbone()(torch.from_numpy(stimuli().images())).half().numpy()
    features = store.features(backbone(), stimuli())
    np.testing.assert_allclose(features, expected, rtol=2e-3, atol=1e-3)


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import test_store
store = test_store.FeatureStore(sys.argv[2], batch_size=4)
store.features(
    test_store.backbone(), test_store.stimuli(),
    advance=lambda n: os.kill(os.getpid(), signal.SIGKILL),
)
"""


def test_kill_in_the_middle_leaves_no_features(store: FeatureStore) -> None:
    here = str(Path(__file__).parent)
    child = subprocess.run([sys.executable, "-c", KILLED, here, str(store.folder)], check=False)
    assert child.returncode == -signal.SIGKILL
    left = list(store.folder.iterdir())
    assert left
    assert not list(store.folder.glob("*.npy"))
    expected = backbone()(torch.from_numpy(stimuli().images())).half().numpy()
    features = store.features(backbone(), stimuli())
    np.testing.assert_allclose(features, expected, rtol=2e-3, atol=1e-3)
    assert sorted(p.suffix for p in store.folder.iterdir()) == [".npy", ".sha256"]


class Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), 1e4, -1e4])
def test_features_beyond_half_precision_are_refused(store: FeatureStore, factor: float) -> None:
    bad = Backbone(nn.Sequential(Scaled(factor)), "0")
    with pytest.raises(InputError, match="layer 0 are NaN or beyond float16's range"):
        store.features(bad, stimuli())
    assert not store.path(bad, stimuli()).exists()


@pytest.mark.parametrize("damage", ["cut", "flip", "no hash"])
def test_damaged_file_is_computed_again(tmp_path: Path, damage: str) -> None:
    images, network = stimuli(), backbone()
    whole = np.array(FeatureStore(tmp_path).features(network, images))
    path = FeatureStore(tmp_path).path(network, images)
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        data[-10] ^= 1
        path.write_bytes(data)
    else:
        path.with_suffix(".sha256").unlink()
    np.testing.assert_array_equal(FeatureStore(tmp_path).features(network, images), whole)
