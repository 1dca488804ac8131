"""Every architecture of the table, untrained: built, run, its layers counted and scored.

Scores are those of `pocketcortex zoo score`: streamed kernels of all layers, regression and RSA,
honest and published, on twelve simulated neurons of V4. With POCKETCORTEX_ZOO_SWEEP naming a folder
they are kept there, and networks that are there already are not run again.
"""

import gc
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from jaxtyping import Bool
from torch import Tensor

from pocketcortex.benchmark import AreaSettings
from pocketcortex.core import BrainArea
from pocketcortex.data import insilico_recordings
from pocketcortex.pipeline.zoo_models import zoo_models
from pocketcortex.pipeline.zoo_scores import StreamSettings, score_zoo, slug
from pocketcortex.zoo import NetworkKernels, build_network, list_networks, network_layers

CANNOT: dict[str, str] = {}
"""Networks that cannot be built or run today, with the reason that they give. None."""

# The public counts of DenseNets vary by one layer between two versions of the published table.
ONE_LESS = {"densenet121", "densenet161", "densenet169", "densenet201"}

CONSTANT = {
    "googlenet": "kernels drawn with deviation 0.01 let the images' differences die out",
    "mixer_b16_224": "the classifier starts at zero",
    "mixer_l16_224": "the classifier starts at zero",
}
"""Networks whose untrained output is the same for every image, with the reason."""

NAMES = [s.name for s in list_networks() if s.source.partition(":")[0] in ("torchvision", "timm")]
NAMES += ["taskonomy_normal", "taskonomy_random", "resnet50_simclr"]

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_architecture_runs(name: str) -> None:
    if name in CANNOT:
        with pytest.raises(Exception, match=CANNOT[name]):
            build_network(f"{name}@random:0")(IMAGES)
        return
    network = build_network(f"{name}@random:0")
    key = network.key
    layers = network_layers(network)
    with torch.inference_mode():
        output = network(IMAGES)
    assert isinstance(output, Tensor)
    assert output.shape[0] == 2
    assert output.isfinite().all()
    assert torch.equal(output[0], output[1]) == (name in CONSTANT)
    assert len({layer.name for layer in layers}) == len(layers) >= 18
    assert network.key == key == build_network(f"{name}@random:0").key
    if network.spec.published_parameters is not None:
        assert network.n_parameters == network.spec.published_parameters
    if network.spec.published_layers is not None:
        assert len(layers) == network.spec.published_layers - (name in ONE_LESS)
    del network
    gc.collect()
    published = build_network(f"{name}@random:0", protocol="published")
    with torch.inference_mode():
        smaller = published(IMAGES)
    assert isinstance(smaller, Tensor)
    assert smaller.isfinite().all()


BLOCKS_START_SILENT = "the last scale of a residual block starts at zero"
SILENT = {
    "CSPNet": BLOCKS_START_SILENT,
    "ECA-ResNet": BLOCKS_START_SILENT,
    "GENet": BLOCKS_START_SILENT,
    "LeViT": BLOCKS_START_SILENT,
    "NF-ResNet": BLOCKS_START_SILENT,
    "NFNet": BLOCKS_START_SILENT,
    "RegNet": BLOCKS_START_SILENT,
    "Res2Net": BLOCKS_START_SILENT,
    "ResNeSt": BLOCKS_START_SILENT,
    "ResNet-RS": BLOCKS_START_SILENT,
    "SE-ResNeXt": BLOCKS_START_SILENT,
    "SE-ResNet": BLOCKS_START_SILENT,
    "TResNet": BLOCKS_START_SILENT,
    "CaiT": "the query of the class token has seen no image yet",
    "ConViT": "where a patch lies is no matter of the image",
    "MLP-Mixer": "the classifier starts at zero",
}
"""Architectures with layers that answer all images alike while they are untrained, and why."""

LEAST_VARYING = {"nfnet_l0": 0.49}
"""Share of layers that must vary, of the network of which not half do: 0.497."""

N_IMAGES, N_NEURONS = 16, 12
SIDE = 96
"""Pixels given to convolutional networks; the others take those that their weights are for."""
OWN_SIDE = {"Visformer"}
"""Convolutional architectures that take no other size."""
QUICK = AreaSettings(n_splits=1, n_permutations=0, n_resamples=2)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kept = os.environ.get("POCKETCORTEX_ZOO_SWEEP")
    return Path(kept) if kept else tmp_path_factory.mktemp("zoo")


@pytest.fixture(scope="module")
def simulated() -> BrainArea:
    recordings = insilico_recordings(
        5, n_sessions=2, n_neurons=N_NEURONS, n_stimuli=N_IMAGES, n_repeats=8
    )
    session = recordings[list(recordings)[-1]]
    return BrainArea("insilico/v4", session.stimuli, session)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_architecture_is_scored(name: str, sweep: Path, simulated: BrainArea) -> None:
    known = next(spec for spec in list_networks() if spec.name == name)
    side = SIDE if known.family == "convolutional" else None
    side = None if known.architecture in OWN_SIDE else side
    rows = zoo_models([f"{name}@random:0"], input_size=side)
    out = sweep / slug(name)
    how = StreamSettings(keep_kernels=True)
    result = score_zoo(rows, [simulated], out, seed=0, settings=QUICK, stream=how)
    assert not result["failed"]
    scores = pd.read_parquet(out / "scores.parquet")
    over = scores[scores["statistic"].isin(["mean", "area"])]
    pairs = set(zip(over["analysis"], over["protocol"], strict=True))
    assert pairs == {(a, p) for a in ("regression", "rsa", "rsr") for p in ("honest", "published")}
    assert over["value"].between(-1, 1).all(), over[["analysis", "protocol", "value", "reason"]]
    assert (over["reason"] == "").all()
    assert np.isfinite(scores.loc[scores["statistic"] == "", "value"]).all()

    (folder,) = (out / "kernels").glob("*/*/kernels.json")
    kernels = NetworkKernels.load(folder.parent)
    (of_layers,) = out.glob("scores/*/*/layers.parquet")
    layers = pd.read_parquet(of_layers)
    assert layers["layer"].tolist() == list(kernels.layers)
    assert not kernels.reasons
    assert len(layers) + len(kernels.duplicates) >= 18
    varies = _varies(kernels)
    assert varies.all() or known.architecture in SILENT, layers["layer"][~varies].tolist()
    assert varies.mean() > LEAST_VARYING.get(name, 0.5)
    np.testing.assert_array_equal(np.isfinite(layers["r"]), varies)
    np.testing.assert_array_equal(np.isfinite(layers["r_published"]), varies)
    np.testing.assert_array_equal(np.isfinite(layers["rsa"]), varies & _has_patterns(kernels))
    assert layers.loc[varies, ["r", "r_published"]].abs().to_numpy().max() <= 1
    gc.collect()


def _varies(kernels: NetworkKernels) -> Bool[np.ndarray, " n_layers"]:
    """Return which layers do not answer all images alike, from their kernels alone."""
    return np.array([kernel.trace() > 0 for kernel in kernels.standardized])


def _has_patterns(kernels: NetworkKernels) -> Bool[np.ndarray, " n_layers"]:
    """Return which layers have units that answer each image differently from one another."""
    size = kernels.n_features[:, None] * kernels.row_means**2 + kernels.row_squares
    return (kernels.n_features > 1) & (kernels.row_squares > 1e-12 * size).all(axis=1)
