"""Published shared compact models: read as Keras runs them; and files of something else."""

import contextlib
import copy
import io
import itertools
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pocketcortex.core import InputError
from pocketcortex.data import read_v4
from pocketcortex.models import (
    import_shared_model,
    published_shared_models,
    shared_outputs,
)

FILTERS, N_NEURONS, SIDE = (3, 4, 2, 5, 6), 7, 3
IMAGES = torch.from_numpy(
    np.random.default_rng(3).integers(0, 256, (4, 3, 4 * SIDE, 4 * SIDE), dtype=np.uint8)
)
NAME = "shared_compact_model_3filters.keras"

# Responses of neurons 0, 33, 122 and 218 to image 1 of session 190923, by Keras 3.15.1 (torch
# backend) from the released files.
KERAS = {
    ("from_V4data_direct_fit", 100): [3.8409, 2.4384, 1.0927, 2.3378],
    ("from_V4data_direct_fit", 200): [3.7857, 2.4513, 1.0669, 2.35],
    ("from_cornets", 200): [1.3296, 0.9466, 0.911, 0.4437],
    ("from_ensemble_model", 100): [0.5581, 0.2816, 0.5765, -0.0294],
    ("from_ensemble_model", 200): [1.0413, 0.3353, 0.9298, 0.0963],
    ("from_ensemble_model", 25): [0.5451, 0.5157, 0.74, 0.2697],
    ("from_ensemble_model", 50): [0.2045, 0.1898, 0.5034, -0.0572],
    ("from_ensemble_model", 5): [0.5456, 0.3958, 0.687, 0.3328],
    ("from_resnet50", 200): [0.8782, 0.4676, 0.8353, -0.3344],
    ("from_resnet50_robust", 200): [1.3051, 1.2165, 2.1414, 0.0445],
    ("from_vgg19", 200): [1.1565, 0.4543, 1.0029, -0.6339],
}

Weights = dict[str, np.ndarray]


def random_weights(seed: int = 0) -> Weights:
    rng = np.random.default_rng(seed)
    weights = {
        "conv2d/vars/0": rng.normal(size=(5, 5, 3, FILTERS[0])) / 500,
        "conv2d/vars/1": rng.normal(size=FILTERS[0]),
        "conv2d_1/vars/0": rng.normal(size=(1, 1, FILTERS[-1], N_NEURONS)),
        "conv2d_1/vars/1": rng.normal(size=N_NEURONS),
        "depthwise_conv2d/vars/0": rng.normal(size=(SIDE, SIDE, N_NEURONS, 1)) / 5,
        "depthwise_conv2d/vars/1": rng.normal(size=N_NEURONS),
    }
    for i, (a, b) in enumerate(itertools.pairwise(FILTERS)):
        name = "separable_conv2d" + (f"_{i}" if i else "")
        weights[f"{name}/vars/0"] = rng.normal(size=(5, 5, a, 1)) / 5
        weights[f"{name}/vars/1"] = rng.normal(size=(1, 1, a, b)) / 5
        weights[f"{name}/vars/2"] = rng.normal(size=b)
    for i, n in enumerate(FILTERS):
        name = "batch_normalization" + (f"_{i}" if i else "")
        for k, values in enumerate(
            (
                rng.uniform(0.5, 2, n),
                rng.normal(size=n),
                rng.normal(size=n),
                rng.uniform(0, 0.01, n),
            )
        ):
            weights[f"{name}/vars/{k}"] = values
    return {name: values.astype(np.float32) for name, values in weights.items()}


def config(side: int = SIDE) -> dict[str, Any]:
    def layer(kind: str, name: str, **settings: Any) -> dict[str, Any]:
        return {"class_name": kind, "config": {"name": name} | settings}

    conv = {"activation": "linear", "use_bias": True, "dilation_rate": [1, 1]}
    layers = [layer("InputLayer", "image_input", batch_shape=[None, 4 * side, 4 * side, 3])]
    for i, stride in enumerate((1, 2, 2, 1, 1)):
        kind = "SeparableConv2D" if i else "Conv2D"
        five: dict[str, Any] = {"kernel_size": [5, 5], "strides": [stride] * 2, "padding": "same"}
        norm = {"epsilon": 0.001, "center": True, "scale": True}
        layers += [
            layer(kind, f"layer{i}_conv", **conv, **five),
            layer("BatchNormalization", f"layer{i}_bn", **norm),
            layer("Activation", f"layer{i}_act", activation="relu"),
        ]
    layers += [
        layer("Conv2D", "mixing_stage", **conv, kernel_size=[1, 1], strides=[1, 1]),
        layer("DepthwiseConv2D", "spatial", **conv, padding="valid", strides=[1, 1]),
        layer("Flatten", "output_responses"),
    ]
    return {"class_name": "Functional", "config": {"layers": layers}}


def write(path: Path, weights: Weights, settings: Any = None) -> Path:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for name, values in weights.items():
            file[f"layers/{name}"] = values
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", json.dumps(config() if settings is None else settings))
        archive.writestr("model.weights.h5", content.getvalue())
    return path


def reference(weights: Weights, images: torch.Tensor) -> torch.Tensor:
    """Answer in float64, layer by layer, the readout in two steps as the file has it."""
    w = {name: torch.from_numpy(values).double() for name, values in weights.items()}

    def kernel(name: str) -> torch.Tensor:
        return w[f"{name}/vars/0"].permute(3, 2, 0, 1)

    def norm_relu(x: torch.Tensor, i: int) -> torch.Tensor:
        name = "batch_normalization" + (f"_{i}" if i else "")
        scale, offset, mean, variance = (w[f"{name}/vars/{k}"][:, None, None] for k in range(4))
        return torch.relu((x - mean) / torch.sqrt(variance + 1e-3) * scale + offset)

    x = images.double() - torch.tensor([116.222, 109.270, 100.381]).double()[:, None, None]
    x = norm_relu(F.conv2d(F.pad(x, (2, 2, 2, 2)), kernel("conv2d"), w["conv2d/vars/1"]), 0)
    for i in range(4):
        name = "separable_conv2d" + (f"_{i}" if i else "")
        depthwise = w[f"{name}/vars/0"].permute(2, 3, 0, 1)
        even = i < 2 and x.shape[-1] % 2 == 0
        x = F.pad(x, (1, 2, 1, 2) if even else (2, 2, 2, 2))
        x = F.conv2d(x, depthwise, stride=2 if i < 2 else 1, groups=len(depthwise))
        pointwise = w[f"{name}/vars/1"].permute(3, 2, 0, 1)
        x = norm_relu(F.conv2d(x, pointwise, w[f"{name}/vars/2"]), i + 1)
    x = F.conv2d(x, kernel("conv2d_1"), w["conv2d_1/vars/1"])
    spatial = w["depthwise_conv2d/vars/0"].permute(2, 3, 0, 1)
    x = F.conv2d(x, spatial, w["depthwise_conv2d/vars/1"], groups=len(spatial))
    assert x.shape[2:] == (1, 1)
    return x.flatten(1)


def test_a_model_answers_as_a_plain_reference(tmp_path: Path) -> None:
    weights = random_weights()
    model = import_shared_model(write(tmp_path / NAME, weights))
    expected = reference(weights, IMAGES)
    assert model.layers.filters == FILTERS
    assert not model.training
    torch.testing.assert_close(model(IMAGES).double(), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.05


def test_the_maps_are_an_embedding_that_the_readout_is_linear_in(tmp_path: Path) -> None:
    model = import_shared_model(write(tmp_path / NAME, random_weights()))
    maps = model.layers(IMAGES)
    assert maps.shape == (4, FILTERS[-1], SIDE, SIDE)
    readout = torch.einsum("kf,khw->kfhw", model.mixing, model.spatial)
    expected = torch.einsum("nfhw,kfhw->nk", maps, readout) + model.bias
    torch.testing.assert_close(model(IMAGES), expected, rtol=1e-4, atol=1e-4)


def test_each_neuron_becomes_a_compact_model(tmp_path: Path) -> None:
    model = import_shared_model(write(tmp_path / NAME, random_weights()))
    alone = torch.stack([one(IMAGES) for one in model.compact_models()], dim=1)
    torch.testing.assert_close(alone, model(IMAGES), rtol=1e-4, atol=1e-4)


def test_session_outputs_follow_each_other() -> None:
    slices = [shared_outputs(s) for s in ("190923", "201025", "210225", "211022")]
    assert [(s.start, s.stop) for s in slices] == [(0, 33), (33, 122), (122, 177), (177, 219)]
    with pytest.raises(InputError, match="no neurons of session '210325'"):
        shared_outputs("210325")


def test_models_are_found_by_kind_and_filters(tmp_path: Path) -> None:
    folder = tmp_path / "data_shared_compact_models"
    for kind, n in (("from_b", 25), ("from_b", 5), ("from_a", 200)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        (folder / kind / f"shared_compact_model_{n}filters.keras").touch()
    (folder / "from_b" / "shared_compact_model_9filters.keras.bak").touch()
    (folder / "from_b" / "other.keras").touch()
    found = published_shared_models(tmp_path)
    assert [(kind, list(paths)) for kind, paths in found.items()] == [
        ("from_a", [200]), ("from_b", [5, 25]),
    ]  # fmt: skip
    assert found["from_b"][5].is_file()
    with pytest.raises(InputError, match="no published shared compact models"):
        published_shared_models(folder)


# Files of something else.


def change(layer: str, **settings: Any) -> Callable[[dict[str, Any]], None]:
    def apply(whole: dict[str, Any]) -> None:
        (found,) = (x for x in whole["config"]["layers"] if x["config"]["name"] == layer)
        found["config"].update(settings)

    return apply


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (change("layer2_act", activation="linear"), "'layer2_act'.*activation 'linear'.*'relu'"),
        (change("layer1_bn", epsilon=1e-5), "'layer1_bn'.*epsilon 1e-05"),
        (change("layer1_conv", strides=[1, 1]), "strides"),
        (change("layer3_conv", padding="valid"), "padding"),
        (change("spatial", padding="same"), "padding"),
        (change("mixing_stage", use_bias=False), "use_bias"),
        (change("image_input", batch_shape=[None, 12, 12, 1]), "takes images"),
        (change("image_input", batch_shape=[None, None, 12, 3]), "takes images"),
        (change("image_input", batch_shape=[None, 10**9, 10**9, 3]), "takes images"),
        (change("image_input", batch_shape=[None, 24, 24, 3]), "spatial has shape"),
        (change("image_input", batch_shape=3), "not a readable shared compact model"),
        (lambda whole: whole["config"]["layers"].pop(3), "not a shared compact model"),
        (lambda whole: whole.pop("config"), "not a readable shared compact model"),
    ],
)
def test_another_network_with_the_same_weights_is_refused(
    tmp_path: Path, apply: Callable[[dict[str, Any]], None], message: str
) -> None:
    settings = copy.deepcopy(config())
    apply(settings)
    with pytest.raises(InputError, match=message):
        import_shared_model(write(tmp_path / NAME, random_weights(), settings))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("conv2d_1/vars/0", (1, 1, 5, N_NEURONS)),
        ("conv2d_1/vars/0", (N_NEURONS,)),
        ("conv2d_1/vars/1", (1,)),
        ("depthwise_conv2d/vars/0", (SIDE, SIDE, 1, N_NEURONS)),
        ("depthwise_conv2d/vars/1", ()),
        ("depthwise_conv2d/vars/1", (0,)),
        ("separable_conv2d/vars/0", (5, 5)),
        ("separable_conv2d_3/vars/1", (1, 1, 5, 0)),
        ("separable_conv2d_1/vars/1", (1, 1, 0, 2**31)),
        ("batch_normalization_4/vars/3", (1,)),
    ],
)
def test_another_shape_is_refused(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    weights = random_weights() | {name: np.ones(shape, np.float32)}
    with pytest.raises(InputError, match=NAME):
        import_shared_model(write(tmp_path / NAME, weights))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_numbers_are_refused(tmp_path: Path, value: float) -> None:
    weights = random_weights()
    weights["depthwise_conv2d/vars/0"].flat[0] = value
    with pytest.raises(InputError, match="NaN or infinite"):
        import_shared_model(write(tmp_path / NAME, weights))


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
def test_truncated_file_is_refused(tmp_path: Path, part: float) -> None:
    path = write(tmp_path / NAME, random_weights())
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(InputError, match=NAME):
        import_shared_model(path)


def test_damaged_file_never_raises_anything_else(tmp_path: Path) -> None:
    path = write(tmp_path / NAME, random_weights())
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        content = bytearray(whole)
        for position in rng.integers(len(content), size=4):
            content[position] = rng.integers(256)
        path.write_bytes(content)
        with contextlib.suppress(InputError):
            import_shared_model(path)


@pytest.mark.parametrize(
    "text", ["", "[]", "3", '"a"', "[" * 100_000, '{"config": {"layers": {}}}']
)
def test_config_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    with zipfile.ZipFile(tmp_path / NAME, "w") as archive:
        archive.writestr("config.json", text)
    with pytest.raises(InputError, match=NAME):
        import_shared_model(tmp_path / NAME)


def test_external_link_is_refused(tmp_path: Path) -> None:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for name, values in random_weights().items():
            file[f"layers/{name}"] = values
        del file["layers/conv2d_1"]
        file["layers/conv2d_1"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "layers")
    with zipfile.ZipFile(tmp_path / NAME, "w") as archive:
        archive.writestr("config.json", json.dumps(config()))
        archive.writestr("model.weights.h5", content.getvalue())
    with pytest.raises(InputError, match="missing or a link"):
        import_shared_model(tmp_path / NAME)


def test_member_that_unpacks_huge_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / NAME, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("config.json", json.dumps(config()))
        with archive.open("model.weights.h5", "w") as member:
            for _ in range(17):
                member.write(bytes(2**24))
    with pytest.raises(InputError, match="too large"):
        import_shared_model(tmp_path / NAME)


def test_missing_file_and_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        import_shared_model(tmp_path / NAME)
    with pytest.raises(InputError, match="unknown model format"):
        import_shared_model(tmp_path / "model.h5")


# The release.


@pytest.mark.data
@pytest.mark.parametrize(("kind", "n_filters"), KERAS)
def test_published_models_answer_as_keras(real_data: Path, kind: str, n_filters: int) -> None:
    model = import_shared_model(published_shared_models(real_data / "v4")[kind][n_filters])
    assert model.layers.filters == (n_filters, n_filters, n_filters, 100, 100)
    stimuli = read_v4(real_data / "v4")["190923"].require_stimuli().take(slice(0, 1))
    with torch.inference_mode():
        got = model(torch.from_numpy(stimuli.images()))
    assert got.shape == (1, 219)
    expected = torch.tensor([KERAS[kind, n_filters]])
    torch.testing.assert_close(got[:, [0, 33, 122, 218]], expected, rtol=0, atol=1e-4)


@pytest.mark.data
def test_published_shared_models_are_found(real_data: Path) -> None:
    found = published_shared_models(real_data / "v4")
    assert {(kind, n) for kind, paths in found.items() for n in paths} >= set(KERAS)


@pytest.mark.data
def test_a_published_model_predicts_the_neurons_it_says(real_data: Path) -> None:
    """Outputs match their own neurons better than neighbours', on images of the second half."""
    session = read_v4(real_data / "v4")["190923"]
    paths = published_shared_models(real_data / "v4")["from_ensemble_model"]
    model = import_shared_model(paths[5])
    images = session.require_stimuli().take(slice(600, 700)).images()
    with torch.inference_mode():
        predicted = model(torch.from_numpy(images))[:, shared_outputs("190923")].numpy()
    observed = np.nanmean(session.responses[600:700], axis=1)
    r = np.corrcoef(predicted.T, observed.T)[:33, 33:]
    assert np.median(np.diag(r)) > 0.5
    assert (r.argmax(axis=1) == np.arange(33)).sum() > 10
