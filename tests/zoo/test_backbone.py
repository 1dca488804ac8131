"""Features of one layer: where networks come from, what runs, and what is refused."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocketcortex.core import InputError
from pocketcortex.zoo import Backbone, FilterBank, filter_bank, load_network
from pocketcortex.zoo.filterbank import gabor_kernels

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, 16, 12), dtype=np.uint8))


class Counted(nn.Module):
    """Pass maps on and count how often."""

    def __init__(self) -> None:
        super().__init__()
        self.n_calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.n_calls += 1
        return x


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.inner = nn.Sequential(nn.ReLU(), nn.Conv2d(4, 5, 1))
        self.later = Counted()
        self.unused = nn.Conv2d(3, 3, 1)
        self.flat = nn.Flatten()

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(self.norm(self.first(x / 255)))
        flat: Tensor = self.flat(self.later(x))
        return flat


def net() -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net()


def n_hooks(network: nn.Module) -> int:
    return sum(len(m._forward_hooks) for m in network.modules())


def test_features_are_the_layers_output() -> None:
    network = net()
    backbone = Backbone(network, "inner.1")
    with torch.inference_mode():
        x = network.norm(network.first(IMAGES.float() / 255))
        expected = network.inner(x)
    torch.testing.assert_close(backbone(IMAGES), expected)


def test_integer_and_float_images_have_the_same_features() -> None:
    backbone = Backbone(net(), "inner")
    assert torch.equal(backbone(IMAGES), backbone(IMAGES.float()))


def test_later_layers_do_not_run() -> None:
    network = net()
    Backbone(network, "inner")(IMAGES)
    assert network.later.n_calls == 0
    Backbone(network, "later")(IMAGES)
    assert network.later.n_calls == 1


def test_hook_is_removed_after_use() -> None:
    network = net()
    backbone = Backbone(network, "inner")
    backbone(IMAGES)
    assert n_hooks(network) == 0
    assert network(IMAGES.float()).shape == (3, 5 * 7 * 5)


def test_hook_is_removed_when_the_network_fails() -> None:
    network = net()
    backbone = Backbone(network, "inner")
    with pytest.raises(RuntimeError, match="Kernel size"):
        backbone(IMAGES[:, :, :1, :1])
    assert n_hooks(network) == 0


def test_network_is_frozen_and_evaluated() -> None:
    network = net().train()
    before = network.norm.get_buffer("running_mean").clone()
    features = Backbone(network, "inner")(IMAGES)
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert not features.requires_grad
    assert torch.equal(network.norm.get_buffer("running_mean"), before)


def test_images_are_resized_and_stay_in_range() -> None:
    stripes = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    stripes[..., ::4] = 255
    network = nn.Sequential(nn.Identity())
    got = Backbone(network, "0", input_size=24)(stripes)
    expected = F.interpolate(stripes.float(), (24, 24), mode="bicubic", antialias=True)
    assert expected.min() < 0
    torch.testing.assert_close(got, expected.clamp(0, 255))


def test_images_of_the_right_size_are_left_alone() -> None:
    images = IMAGES[:, :, :12, :12]
    assert torch.equal(Backbone(nn.Sequential(nn.Identity()), "0", input_size=12)(images), images)


def test_unknown_layer_is_refused_with_the_names() -> None:
    with pytest.raises(InputError, match=r"no layer 'nope' in the network; it has first, norm"):
        Backbone(net(), "nope")


@pytest.mark.parametrize("layer", ["", "weight", "first.weight"])
def test_what_is_not_a_layer_is_refused(layer: str) -> None:
    with pytest.raises(InputError, match="no layer"):
        Backbone(net(), layer)


def test_layer_that_never_runs_is_refused() -> None:
    with pytest.raises(InputError, match="layer 'unused' gives NoneType, expected maps"):
        Backbone(net(), "unused")(IMAGES)


def test_layer_without_maps_is_refused() -> None:
    with pytest.raises(InputError, match="layer 'flat' gives 2 axes, expected maps"):
        Backbone(net(), "flat")(IMAGES)


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def test_layer_with_several_outputs_is_refused() -> None:
    network = nn.Sequential(Pair())
    with pytest.raises(InputError, match="layer '0' gives tuple, expected maps"):
        Backbone(network, "0")(IMAGES)
    assert n_hooks(network) == 0


def test_key_is_that_of_the_same_network() -> None:
    assert Backbone(net(), "inner").key == Backbone(net(), "inner").key


def test_key_follows_weights_layer_and_size() -> None:
    changed, statistics = net(), net()
    with torch.no_grad():
        changed.first.weight[0, 0, 0, 0] += 1e-3
        statistics.norm.get_buffer("running_mean").add_(1e-3)
    keys = {
        Backbone(net(), "inner").key,
        Backbone(net(), "inner.0").key,
        Backbone(net(), "inner", input_size=12).key,
        Backbone(changed, "inner").key,
        Backbone(statistics, "inner").key,
    }
    assert len(keys) == 5


# Where networks come from.

SOURCE = """
from torch import nn

n_built = 0

def build():
    return nn.Sequential(nn.Conv2d(3, 7, 1))

def number():
    return 3

constant = 4
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


def test_network_from_a_file(file: Path) -> None:
    assert load_network(f"{file}:build")[0].out_channels == 7


def test_changed_file_is_read_anew(file: Path) -> None:
    load_network(f"{file}:build")
    file.write_text(SOURCE.replace("7", "9999"))
    assert load_network(f"{file}:build")[0].out_channels == 9999


def test_network_from_a_module(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.rename(file.with_name("mine_as_module.py"))
    monkeypatch.syspath_prepend(file.parent)
    assert load_network("mine_as_module:build")[0].out_channels == 7
    sys.modules.pop("mine_as_module")


def test_own_filter_bank_is_a_module_reference() -> None:
    assert isinstance(load_network("pocketcortex.zoo:filter_bank"), FilterBank)


@pytest.mark.parametrize("reference", ["", ":", "build", ":build", "mine.py:", "mine.py"])
def test_malformed_reference_is_refused(reference: str) -> None:
    with pytest.raises(InputError, match=r"must be 'file\.py:builder' or 'module:builder'"):
        load_network(reference)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("{folder}/none.py:build", "does not exist"),
        ("{folder}:build", "cannot be imported"),
        ("no_such_module_here:build", "cannot be imported"),
        (".relative:build", "cannot be imported"),
        ("{folder}/mine.py:nope", "has no builder 'nope'"),
        ("{folder}/mine.py:constant", "has no builder 'constant'"),
        ("{folder}/mine.py:number", "returned int, expected an nn.Module"),
        ("math:nope", "math has no builder 'nope'"),
    ],
)
def test_bad_reference_is_refused(file: Path, reference: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_network(reference.format(folder=file.parent))


@pytest.mark.data
def test_real_backbone_gives_maps(real_data: Path) -> None:
    network = load_network(f"{real_data / 'weights' / 'backbones.py'}:squeezenet1_1")
    layer = next(name for name, _ in network.named_modules() if name.startswith("fire7"))
    images = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64), dtype=np.uint8)
    )
    maps = Backbone(network, layer)(images)
    assert maps.shape[0] == 2
    assert torch.isfinite(maps).all()
    assert maps.std() > 0


# The fixed filter bank.


def test_filter_bank_has_the_stated_shape() -> None:
    maps = Backbone(filter_bank(), "maps")(torch.zeros(2, 3, 32, 24, dtype=torch.uint8))
    assert maps.shape == (2, 114, 8, 6)


@pytest.mark.parametrize("size", FilterBank.SIZES)
def test_gabor_kernels_have_zero_mean_and_unit_norm(size: int) -> None:
    kernels = gabor_kernels(size, 8, 1.2 / size)
    assert kernels.shape == (16, size, size)
    torch.testing.assert_close(kernels.sum((1, 2)), torch.zeros(16), atol=1e-5, rtol=0)
    torch.testing.assert_close(kernels.square().sum((1, 2)), torch.ones(16))


def gabor_channels(maps: Tensor) -> Tensor:
    return torch.cat([maps[:, 38 * k : 38 * k + 32] for k in range(3)], dim=1)


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (200, 30, 90)])
def test_gabor_channels_are_silent_on_an_even_image(colour: tuple[int, int, int]) -> None:
    even = torch.tensor(colour, dtype=torch.uint8)[None, :, None, None].expand(1, 3, 32, 32)
    assert gabor_channels(filter_bank()(even.float())).abs().max() < 1e-5


def test_colour_channels_tell_red_from_green() -> None:
    red, green = torch.zeros(2, 3, 32, 32).index_put(
        (torch.tensor([0, 1]), torch.tensor([0, 1])), torch.tensor(255.0)
    )
    first, second = filter_bank()(torch.stack([red, green]))
    assert (first - second).abs().max() > 1


def test_gabor_channels_answer_most_to_their_orientation() -> None:
    x = torch.arange(32.0)
    vertical = (127 + 127 * torch.sin(2 * np.pi * 1.2 / 9 * x)).expand(3, 32, 32)
    maps = filter_bank()(torch.stack([vertical, vertical.transpose(1, 2)]))
    energy = maps[:, 38 : 38 + 32].reshape(2, 2, 2, 8, 8, 8).mean((1, 2, 4, 5))
    assert energy.argmax(1).tolist() == [0, 4]


def test_several_layers_are_averaged_to_the_smallest_and_stacked_in_order() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AvgPool2d(2), nn.Conv2d(4, 6, 1))
    both = Backbone(network, ("0", "2"))(IMAGES)
    fine, coarse = Backbone(network, "0")(IMAGES), Backbone(network, "2")(IMAGES)
    height, width = coarse.shape[2:]
    pooled = fine.reshape(len(fine), 4, height, 2, width, 2).mean((3, 5))
    assert both.shape == (len(IMAGES), 10, height, width)
    torch.testing.assert_close(both, torch.cat([pooled, coarse], dim=1))


@pytest.mark.parametrize("layers", [(), ("0", "0")])
def test_no_layer_or_the_same_twice_is_refused(layers: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="one or more different layers"):
        Backbone(nn.Sequential(nn.Conv2d(3, 4, 1)), layers)
