"""One compact model: its padding, its parameters, its files and the images it takes."""

import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from random_models import random_model
from torch.nn import functional as F

from pocketcortex.core import InputError
from pocketcortex.models import CompactModel, SharedCompactModel, count_parameters
from pocketcortex.models.compact import readout_size, same_conv, same_padding


def single_model(
    filters: Sequence[int], size: tuple[int, int] = (16, 16), seed: int = 0
) -> CompactModel:
    return random_model(filters, size, seed).float()


def some_images(n: int, size: tuple[int, int] = (16, 16), seed: int = 0) -> torch.Tensor:
    levels = np.random.default_rng(seed).integers(0, 256, (n, 3, *size), dtype=np.uint8)
    return torch.from_numpy(levels)


# TensorFlow's documented rule for kernel 5: a multiple of the stride needs max(5 - stride, 0)
# zeros, other sizes max(5 - size % stride, 0); the odd one goes after.
@pytest.mark.parametrize(
    ("size", "stride", "expected"),
    [
        (112, 1, (2, 2)), (113, 1, (2, 2)),
        (112, 2, (1, 2)), (56, 2, (1, 2)), (2, 2, (1, 2)),
        (113, 2, (2, 2)), (7, 2, (2, 2)), (1, 2, (2, 2)),
        (12, 3, (1, 1)), (13, 3, (2, 2)), (14, 3, (1, 2)), (10, 7, (1, 1)),
    ],
)  # fmt: skip
def test_same_padding_follows_keras(size: int, stride: int, expected: tuple[int, int]) -> None:
    assert same_padding(size, stride) == expected


@pytest.mark.parametrize("size", [(8, 8), (9, 9), (8, 11), (11, 8), (1, 2)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 4])
def test_same_conv_equals_explicit_padding(size: tuple[int, int], stride: int, groups: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, *size, generator=generator, dtype=torch.float64)
    weight = torch.randn(4, 4 // groups, 5, 5, generator=generator, dtype=torch.float64)
    bias = torch.randn(4, generator=generator, dtype=torch.float64)
    rows, columns = same_padding(size[0], stride), same_padding(size[1], stride)
    padded = F.pad(x, (*columns, *rows))
    expected = F.conv2d(padded, weight, bias, stride, groups=groups)
    torch.testing.assert_close(same_conv(x, weight, bias, stride, groups), expected)


@pytest.mark.parametrize("size", [(16, 16), (17, 22), (5, 3)])
@pytest.mark.parametrize("filters", [(4, 3, 5, 2, 6), (1, 1, 1, 1, 1)])
def test_parameter_count_is_what_the_model_stores(
    size: tuple[int, int], filters: tuple[int, ...]
) -> None:
    model = CompactModel(filters, size)
    state = {k: v for k, v in model.state_dict().items() if not k.endswith("image_mean")}
    stored = sum(v.numel() for v in state.values() if v.is_floating_point())
    count = model.n_parameters
    assert count.total == stored
    assert count.batch_norm == sum(v.numel() for k, v in state.items() if ".norms." in k) - 5
    assert count.readout == model.readout.numel() + 1


def test_parameter_count_of_the_unpruned_model() -> None:
    assert count_parameters([100] * 5, (112, 112)).total == 138_401


def test_filters_are_counted_as_in_the_paper() -> None:
    assert CompactModel((4, 3, 5, 2, 6), (8, 8)).filters_per_layer == (4, 4, 3, 5, 2, 6)


@pytest.mark.data
def test_published_parameter_counts(real_data: Path) -> None:
    folder = real_data / "v4" / "data_compact_models" / "nums_filters"
    all_filters = [np.load(path).tolist() for path in sorted(folder.glob("*.npy"))]
    totals = []
    for n in all_filters:
        separable = sum(25 * a + a * b + 5 * b for a, b in itertools.pairwise(n))
        assert count_parameters(n, (112, 112)).total == 80 * n[0] + separable + 784 * n[4] + 1
        totals.append(count_parameters(n, (112, 112)).total)
    assert len(totals) == 219
    assert (np.median(totals), min(totals), max(totals)) == (12_469, 5_225, 25_038)
    assert np.median([n[0] + sum(n) for n in all_filters]) == 164


@pytest.mark.parametrize("size", [(16, 16), (17, 22), (1, 1)])
def test_readout_has_the_size_of_the_last_maps(size: tuple[int, int]) -> None:
    model = single_model((2, 2, 2, 2, 3), size)
    assert model.layers(some_images(1, size)).shape[2:] == readout_size(size)


def test_save_and_load_give_the_same_model(tmp_path: Path) -> None:
    model = single_model((4, 3, 5, 2, 6), (12, 16))
    loaded = CompactModel.load(model.save(tmp_path / "new" / "model"))
    assert loaded.filters == model.filters
    assert not loaded.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    images = some_images(3, (12, 16))
    assert torch.equal(loaded(images), model(images))


def test_image_mean_is_saved_with_the_model(tmp_path: Path) -> None:
    model = CompactModel((1, 1, 1, 1, 1), (8, 8), image_mean=(1.0, 2.0, 3.0))
    loaded = CompactModel.load(model.save(tmp_path))
    assert loaded.layers.image_mean.flatten().tolist() == [1, 2, 3]


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_missing_file_is_refused(tmp_path: Path, missing: str) -> None:
    single_model((1, 2, 1, 2, 1)).save(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(InputError, match=re.escape(str(tmp_path))):
        CompactModel.load(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        "", "{", "[]", "3", "null", "{}",
        '{"filters": [1, 2, 1, 2], "image_size": [16, 16]}',
        '{"filters": [1, 2, 1, 2, 0], "image_size": [16, 16]}',
        '{"filters": [1, 2, 1, 2, 1.5], "image_size": [16, 16]}',
        '{"filters": [2, 2, 1, 2, 1], "image_size": [16, 16]}',
        '{"filters": 5, "image_size": [16, 16]}',
        '{"filters": [1, 2, 1, 2, null], "image_size": [16, 16]}',
        '{"filters": [1, 2, 1, 2, 1], "image_size": [16]}',
        '{"filters": [1, 2, 1, 2, 1], "image_size": 16}',
        '{"filters": [1, 2, 1, 2, 1], "image_size": [16, 20]}',
        '{"filters": [1, 2, 1, 2, 1], "image_size": [-16, 16]}',
        '{"filters": [1, 2, 1, 2, 1e300], "image_size": [16, 16]}',
        '{"filters": [1, 2, 1, 2, Infinity], "image_size": [16, 16]}',
        '{"filters": [1, 2, 1, 2, 1000000000000], "image_size": [16, 16]}',
    ],
)  # fmt: skip
def test_damaged_config_is_refused(tmp_path: Path, config: str) -> None:
    single_model((1, 2, 1, 2, 1)).save(tmp_path)
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(InputError, match="does not hold a saved compact model"):
        CompactModel.load(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_weights_are_refused(tmp_path: Path, keep: int) -> None:
    path = single_model((1, 2, 1, 2, 1)).save(tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="does not hold a saved compact model"):
        CompactModel.load(tmp_path)


def test_weights_without_a_tensor_are_refused(tmp_path: Path) -> None:
    path = single_model((1, 2, 1, 2, 1)).save(tmp_path) / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    del tensors["readout"]
    safetensors.torch.save_file(tensors, path)
    with pytest.raises(InputError, match="does not hold a saved compact model"):
        CompactModel.load(tmp_path)


@pytest.mark.parametrize("where", [-1, -40, -400])
def test_altered_weights_are_refused(tmp_path: Path, where: int) -> None:
    path = single_model((1, 2, 1, 2, 1)).save(tmp_path) / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors was altered"):
        CompactModel.load(tmp_path)


def test_saved_config_is_plain_json(tmp_path: Path) -> None:
    folder = single_model((1, 2, 1, 2, 1), (8, 12)).save(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    assert config == {"filters": [1, 2, 1, 2, 1], "image_size": [8, 12]}


@pytest.mark.parametrize("shape", [(2, 3, 12, 16), (2, 3, 16, 12), (2, 3, 15, 16)])
def test_images_of_another_size_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"takes images \(n, 3, 16, 16\), got \(2, 3, "):
        single_model((1, 1, 1, 1, 1))(torch.zeros(shape))


@pytest.mark.parametrize("filters", [(1, 1, 1, 1), (1,) * 6, (1, 1, 0, 1, 1), (1, 1, -2, 1, 1)])
def test_wrong_filter_counts_are_refused(filters: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="five positive counts"):
        CompactModel(filters, (8, 8))


def test_integer_and_float_images_give_the_same_responses() -> None:
    model, images = single_model((4, 3, 5, 2, 6)), some_images(4)
    assert torch.equal(model(images), model(images.float()))


def test_each_image_is_answered_on_its_own() -> None:
    model, images = single_model((4, 3, 5, 2, 6)), some_images(4)
    alone = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(model(images), alone)


def test_responses_may_be_negative() -> None:
    model = single_model((4, 3, 5, 2, 6))
    with torch.no_grad():
        model.readout_bias.fill_(-1e4)
    assert (model(some_images(2)) < 0).all()


def test_loading_and_copying_leave_the_global_generator_alone(tmp_path: Path) -> None:
    model = CompactModel((3, 3, 3, 3, 3), (16, 16))
    model.save(tmp_path)
    shared = SharedCompactModel((3, 3, 3, 3, 3), 2, (16, 16))
    before = torch.random.get_rng_state()
    CompactModel.load(tmp_path)
    list(shared.compact_models())
    assert torch.equal(torch.random.get_rng_state(), before)
