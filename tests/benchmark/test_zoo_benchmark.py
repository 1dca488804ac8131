"""The benchmark of the zoo does the same work on both sides, in small."""

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from pocketcortex.core import StimulusSet
from pocketcortex.zoo import stream_kernels


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    return importlib.import_module("benchmarks.zoo")


def test_the_peer_sees_the_features_that_ours_streams(benchmark: ModuleType) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 3, 32, 32), dtype=np.uint8)
    network = benchmark._network(32)
    layers = ["conv1", "layer1.0.bn2", "layer1.2.relu#3", "layer4.2.conv1", "fc"]
    kernels = stream_kernels(network, StimulusSet.from_array(images), layers=layers)
    features = benchmark._features(network, images, layers)
    upper = np.triu_indices(8, 1)
    for rdm, name in zip(kernels.rdms(), kernels.layers, strict=True):
        np.testing.assert_allclose(rdm, 1 - np.corrcoef(features[name])[upper], atol=2e-5)


def test_left_out_r_is_that_of_the_published_protocol(benchmark: ModuleType) -> None:
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(20, 50)), rng.normal(size=(20, 3))
    z = (X - X.mean(axis=0)) / X.std(axis=0)
    expected = []
    for k in range(20):
        kept = np.arange(20) != k
        centred = z[kept] - z[kept].mean(axis=0)
        dual = np.linalg.solve(centred @ centred.T + np.eye(19), Y[kept] - Y[kept].mean(axis=0))
        weights = centred.T @ dual
        expected.append((z[k] - z[kept].mean(axis=0)) @ weights + Y[kept].mean(axis=0))
    r = [np.corrcoef(y, p)[0, 1] for y, p in zip(Y.T, np.transpose(expected), strict=True)]
    np.testing.assert_allclose(benchmark._left_out_r(X, Y), r, atol=1e-9)
