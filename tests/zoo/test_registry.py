"""The zoo's table, references, and networks built offline from every kind of source."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from pocketcortex.core import InputError
from pocketcortex.models import CompactModel
from pocketcortex.zoo import (
    PUBLISHED,
    RAW,
    Backbone,
    Network,
    NetworkSpec,
    Preprocessing,
    TaskonomyEncoder,
    build_network,
    find_network,
    list_networks,
    network_layers,
    network_preprocessing,
    network_source,
)
from pocketcortex.zoo._torchvision import declare_operators, import_timm, import_torchvision

IMAGES = torch.randint(0, 256, (2, 3, 40, 48), generator=torch.Generator().manual_seed(0))
IMAGES = IMAGES.to(torch.uint8)

BACKBONES = ("resnet50v2", "squeezenet1_1", "mobilenet_v2", "resnet18", "vgg11_bn")


class Net(nn.Module):
    """A network of one's own, with the same addresses in no two processes."""

    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.act = nn.ReLU(inplace=True)
        self.register_buffer("offset", torch.zeros(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.conv(x)) + self.offset
        return y


def net(**options: Any) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net(**options)


def spec(source: str, name: str = "tested", **fields: Any) -> NetworkSpec:
    return NetworkSpec(name, source, **fields)


def outputs(network: Network) -> Tensor:
    with torch.inference_mode():
        y = network(IMAGES)
    assert isinstance(y, Tensor)
    return y


# ---- the table


def test_the_table_has_the_published_networks() -> None:
    names = [s.name for s in list_networks()]
    assert len(set(names)) == len(names) == 153
    counts = {
        k: len(list_networks(source=k)) for k in ("torchvision", "timm", "taskonomy", "trunk")
    }
    assert counts == {"torchvision": 31, "timm": 78 + 4, "taskonomy": 24 + 1, "trunk": 15}
    assert len(list_networks(task="classification")) == 31 + 78
    assert len(list_networks(task="taskonomy")) == 24
    assert len(list_networks(task="self-supervised")) == 15 + 4


def test_every_network_of_the_table_exists_today() -> None:
    for s in list_networks():
        source = network_source(s)
        assert network_preprocessing(s).size is not None
        assert network_preprocessing(s, protocol="published").size in ((224, 224), (256, 256))
        assert source.file is not None
        assert source.find() is None


def test_the_table_is_filtered() -> None:
    assert {s.architecture for s in list_networks(family="mlp-mixer")} == {"MLP-Mixer"}
    both = list_networks(family="ViT", task="self-supervised/dino")
    assert [s.name for s in both] == ["dino_vits16", "dino_vits8", "dino_vitb16", "dino_vitb8"]
    with pytest.raises(InputError, match=r"no network has 'vitt'; there are AlexNet, .* ViT"):
        list_networks(family="vitt")


def test_references_are_read() -> None:
    twin = find_network("alexnet@random:3")
    assert (twin.name, twin.weights, twin.seed, twin.task) == (
        "alexnet@random:3",
        "random:3",
        3,
        "none",
    )
    assert twin == find_network("alexnet").random(7).random(3)
    assert find_network("timm:resnet10t").source == "timm:resnet10t"
    assert find_network("my/net.py:build@random:1").source == "my/net.py:build"
    with pytest.raises(
        InputError, match=r"no network 'alexnett' in the zoo; similar names are alex"
    ):
        find_network("alexnett")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("timm:resnt50", "timm 1.* has no network 'resnt50'"),
        ("timm:resnet50.x", "timm's resnet50 has no weights 'x'; it has a1_in1k"),
        ("torchvision:resnt50", "torchvision has no classifier 'resnt50'; it has alexnet"),
        ("taskonomy:naming", "no Taskonomy task 'naming'; there are autoencoding"),
        ("nowhere", "is of no known kind; it must be a name"),
        ("no_such_module:build", "network module 'no_such_module' cannot be imported"),
    ],
)
def test_unknown_sources_are_refused(source: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_network(spec(source, weights="random:0"))


def test_a_network_is_described_by_values() -> None:
    for fields in (("", "timm:x", "random:0"), ("x", "", "random:0"), ("x", "timm:x", "")):
        with pytest.raises(InputError, match="got an empty one"):
            NetworkSpec(*fields)
    with pytest.raises(InputError, match="random weights are 'random:SEED'"):
        spec("timm:x", weights="random:-1")
    assert json.loads(json.dumps(find_network("vgg11").as_dict()))["published_layers"] == 26


# ---- random weights


@pytest.mark.parametrize(
    "source", ["torchvision:squeezenet1_1", "timm:test_vit", "taskonomy:normal"]
)
def test_random_weights_are_the_seed_s(source: str) -> None:
    before = torch.get_rng_state()
    keys = [build_network(spec(source, weights=f"random:{seed}")).key for seed in (0, 0, 1)]
    assert keys[0] == keys[1] != keys[2]
    assert torch.equal(torch.get_rng_state(), before)


def test_counts_agree_with_the_published_ones() -> None:
    for name in ("alexnet", "resnet18", "googlenet", "squeezenet1_0", "shufflenet_v2_x0_5"):
        network = build_network(f"{name}@random:0")
        assert network.n_parameters == network.spec.published_parameters
        assert len(network_layers(network)) == network.spec.published_layers


def test_layers_are_named_as_modules() -> None:
    network = build_network("resnet18@random:0", input_size=64)
    layers = {layer.name: layer for layer in network_layers(network)}
    assert layers["conv1"].kind == "Conv2d"
    assert layers["conv1"].shape == (64, 32, 32)
    assert layers["layer1.0.relu"].shape == layers["layer1.0.relu#2"].shape == (64, 16, 16)
    assert list(layers)[-1] == "fc"
    assert "layer1.0" not in layers  # its last rectification gives the same


# ---- trained weights


def test_missing_weights_are_asked_for_in_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    address = r"published at https://download\.pytorch\.org/models/resnet18-f37072fd\.pth"
    with pytest.raises(
        InputError, match=f"put resnet18-f37072fd.pth, {address}, into a folder that"
    ):
        build_network("resnet18")
    monkeypatch.setenv("POCKETCORTEX_WEIGHTS", str(tmp_path))
    with pytest.raises(
        InputError, match=rf"into {tmp_path}, or give its path, or ask for the down"
    ):
        build_network("resnet18")
    with pytest.raises(InputError, match=r"put deit_tiny_patch16_224\.fb_in1k\.safetensors or "):
        build_network("deit_tiny_patch16_224")
    with pytest.raises(InputError, match=r"put resnet50_simclr\.safetensors or .* into"):
        build_network("resnet50_simclr")
    for name in ("taskonomy_normal", "resnet50_simclr"):
        with pytest.raises(
            InputError, match="not fetched from here, since nothing known says what"
        ):
            build_network(name, download=True)


def test_weights_are_found_in_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POCKETCORTEX_WEIGHTS", str(tmp_path))
    with torch.random.fork_rng():
        torch.manual_seed(5)
        encoder = TaskonomyEncoder()
    torch.save({"epoch": 3, "state_dict": encoder.state_dict()}, tmp_path / "normal_encoder.pth")
    network = build_network("taskonomy_normal")
    assert network.spec == find_network("taskonomy_normal")
    assert torch.equal(network.network.get_parameter("conv1.weight"), encoder.conv1.weight)
    assert outputs(network).shape == (2, 8, 16, 16)
    torch.save({}, tmp_path / "squeezenet1_1-b8a52dc0.pth")
    with pytest.raises(
        InputError, match=r"cut short or altered: its SHA-256 starts with \w{8}, expec"
    ):
        build_network("squeezenet1_1")


@pytest.mark.parametrize("source", ["torchvision:mnasnet0_5", "timm:test_vit.r160_in1k"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_of_a_path_are_taken(source: str, suffix: str, tmp_path: Path) -> None:
    network = build_network(spec(source, weights="random:4"))
    path = tmp_path / f"weights{suffix}"
    state = network.network.state_dict()
    if suffix == ".pth":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    again = build_network(spec(source), weights=path)
    assert again.key == network.key
    assert again.spec.weights == str(path)
    del state[next(iter(state))]
    torch.save(state, tmp_path / "less.pth")
    with pytest.raises(InputError, match=r"less\.pth (lacks 1 of|does not fit the network)"):
        build_network(spec(source), weights=tmp_path / "less.pth")
    with pytest.raises(InputError, match=r"there is no weights file .*none\.pth"):
        build_network(spec(source), weights=tmp_path / "none.pth")


def test_old_densenet_files_are_read(tmp_path: Path) -> None:
    network = build_network("densenet121@random:0")
    state = network.network.state_dict()
    old = {
        k.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): v for k, v in state.items()
    }
    assert set(old) != set(state)
    torch.save(old, tmp_path / "densenet.pth")
    assert build_network("densenet121", weights=tmp_path / "densenet.pth").key == network.key


def test_a_trunk_has_no_classifier_and_takes_any_wrapper(tmp_path: Path) -> None:
    whole = build_network("resnet18@random:2").network.state_dict()
    checkpoint = {f"module.encoder_q.{k}": v for k, v in whole.items()}
    checkpoint |= {f"module.encoder_k.{k}": v * 0 for k, v in whole.items()}
    torch.save({"state_dict": checkpoint}, tmp_path / "moco.pth.tar")
    network = build_network(spec("trunk:resnet18"), weights=tmp_path / "moco.pth.tar")
    assert outputs(network).shape == (2, 512)
    assert torch.equal(network.network.get_parameter("conv1.weight"), whole["conv1.weight"])
    deeper = build_network("resnet34@random:0").network.state_dict()
    torch.save(deeper, tmp_path / "deeper.pth")
    with pytest.raises(InputError, match=r"of another architecture: it has \d+ tensors for which"):
        build_network(spec("trunk:resnet18"), weights=tmp_path / "deeper.pth")


def test_hub_networks_are_read_from_a_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"'hf:lab/tiny' is not here: its config\.json and model"):
        build_network("hf:lab/tiny")
    timm = import_timm()
    with torch.random.fork_rng():
        model = timm.create_model("test_resnet.r160_in1k", num_classes=7)
    timm.models.save_for_hf(model, tmp_path / "lab" / "tiny", safe_serialization=True)
    monkeypatch.setenv("POCKETCORTEX_WEIGHTS", str(tmp_path))
    network = build_network("hf:lab/tiny")
    assert outputs(network).shape == (2, 7)
    assert torch.equal(network.network.get_parameter("conv1.0.weight"), model.conv1[0].weight)
    assert network.preprocessing.size == (160, 160)
    assert build_network("hf:lab/tiny@random:0").key != network.key
    (tmp_path / "lab" / "tiny" / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(InputError, match="names no architecture of timm; write a builder"):
        build_network("hf:lab/tiny")


# ---- preprocessing


def test_preprocessing_belongs_to_the_weights() -> None:
    how = network_preprocessing(find_network("vit_tiny_patch16_224"))
    assert how == Preprocessing((224, 224), 248, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    own = network_preprocessing(find_network("inception_v3"))
    assert (own.size, own.short_side) == ((299, 299), 342)
    assert network_preprocessing(find_network("inception_v3"), protocol="published") == PUBLISHED
    taskonomy = network_preprocessing(find_network("taskonomy_normal"), protocol="published")
    assert (taskonomy.size, taskonomy.mean) == ((256, 256), (0.5, 0.5, 0.5))
    small = network_preprocessing(find_network("resnet18"), input_size=96)
    assert (small.size, small.short_side, small.mean) == ((96, 96), None, PUBLISHED.mean)
    twin = network_preprocessing(find_network("vit_tiny_patch16_224@random:0"))
    assert twin == how


def test_preprocessing_that_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="takes 160 x 160 pixels only"):
        network_preprocessing(spec("timm:test_vit.r160_in1k"), protocol="published")
    with pytest.raises(InputError, match="protocol 'best' is neither 'own' nor 'published'"):
        network_preprocessing(spec("taskonomy:normal"), protocol="best")


# ---- networks of your own


@pytest.mark.data
@pytest.mark.parametrize("name", BACKBONES)
def test_real_networks_and_their_random_twins(real_data: Path, name: str) -> None:
    reference = f"{real_data / 'weights' / 'backbones.py'}:{name}"
    network, twin = build_network(reference), build_network(f"{reference}@random:0")
    assert network.preprocessing == RAW
    published = build_network(reference, protocol="published").preprocessing
    assert (published.size, published.mean) == ((224, 224), None)
    y, z = outputs(network), outputs(twin)
    assert y.shape == z.shape
    assert z.isfinite().all()
    assert z.std() > 0
    assert not torch.allclose(y, z)
    assert twin.n_parameters == network.n_parameters
    assert twin.key == build_network(f"{reference}@random:0").key
    assert len({twin.key, network.key, build_network(f"{reference}@random:1").key}) == 3
    shapes = [{layer.name: layer.shape for layer in network_layers(n)} for n in (network, twin)]
    both = shapes[0].keys() & shapes[1].keys()  # what equals an earlier layer depends on weights
    assert len(both) >= 0.9 * len(shapes[0])
    assert all(shapes[0][name] == shapes[1][name] for name in both)


def test_builders_are_networks(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch\n"
        "class Embedded(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.place = torch.nn.Parameter(torch.full((1, 3, 1, 1), 7.0))\n"
        "        self.conv = torch.nn.Conv2d(3, 2, 1)\n"
        "        torch.nn.init.zeros_(self.conv.bias)\n"
        "    def forward(self, x):\n"
        "        return self.conv(x + self.place)\n"
    )
    network = build_network(f"{file}:Embedded")
    assert outputs(network).shape == (2, 2, 40, 48)
    with pytest.raises(
        InputError, match="has 1 parameters that no reset_parameters initialises: pla"
    ):
        build_network(f"{file}:Embedded@random:0")
    torch.save({k: v + 1 for k, v in network.network.state_dict().items()}, tmp_path / "w.pth")
    other = build_network(f"{file}:Embedded", weights=tmp_path / "w.pth")
    assert other.network.get_parameter("place").unique() == 8
    resized = build_network(f"{file}:Embedded", input_size=20)
    assert outputs(resized).shape == (2, 2, 20, 20)


def test_any_module_is_a_network() -> None:
    module = net()
    network = Network(module, spec("made here"), Preprocessing((16, 16)))
    assert outputs(network).shape == (2, 2, 14, 14)
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    layers = [(layer.name, layer.kind) for layer in network_layers(network)]
    assert layers == [("conv", "Conv2d"), ("act", "ReLU")]
    maps = Backbone(network, ["network.conv", "network.act"])(IMAGES)
    assert maps.shape == (2, 4, 14, 14)
    assert (maps[:, :2] < 0).any()  # not overwritten by the rectification
    torch.testing.assert_close(maps[:, :2].relu(), maps[:, 2:])


def test_our_own_models_are_networks() -> None:
    how = Preprocessing((32, 32), mean=None, std=None)
    model = CompactModel((3, 4, 2, 2, 3), (32, 32))
    network = Network(model, spec("pocketcortex", task="V4 responses"), how)
    assert outputs(network).shape == (2,)
    assert len(network_layers(network)) >= 5


def test_key_changes_with_all_that_changes_outputs() -> None:
    network = Network(net(), spec("made here"))
    renamed = Network(net(), spec("elsewhere", name="other", task="classification"))
    assert network.key == renamed.key == Network(net(), spec("made here")).key
    offset = net()
    offset.offset = torch.ones(1)
    different = [
        Network(net(), spec("made here"), PUBLISHED),
        Network(net(width=3), spec("made here")),
        Network(offset, spec("made here")),
        Network(net(), spec("made here")),
        Network(net(), spec("made here")).half(),
    ]
    different[3].network.get_parameter("conv.bias")[0] += 1e-6
    assert len({network.key, *(other.key for other in different)}) == 6
    outputs(network)
    assert network.key == renamed.key


def test_key_is_the_same_in_another_process() -> None:
    code = (
        "from pocketcortex.zoo import build_network; "
        "print(build_network('squeezenet1_1@random:0').key)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == build_network("squeezenet1_1@random:0").key


# ---- optional libraries


def test_the_zoo_imports_neither_torchvision_nor_timm() -> None:
    code = (
        "import sys; import pocketcortex, pocketcortex.zoo, pocketcortex.cli; "
        "pocketcortex.zoo.find_network('resnet50'); pocketcortex.zoo.list_networks(); "
        "sys.exit(any(name in sys.modules for name in ('torchvision', 'timm')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_torchvision_goes_with_any_torch() -> None:
    assert import_torchvision().models.list_models()
    assert not declare_operators()  # never twice, never where torchvision has its own


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        InputError, match=r"needs timm, which is not installed .*pocketcortex\[zoo\]"
    ):
        build_network("timm:resnet10t@random:0")
