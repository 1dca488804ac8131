"""Plugins of Brain-Score: their code, run alone, gives the model's own responses."""

import ast
import importlib.util
import json
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_compact import single_model, some_images
from torch import Tensor, nn

from pocketcortex.core import InputError
from pocketcortex.models import (
    CompactModel,
    EnsembleMember,
    EnsembleModel,
    EnsembleShape,
    SharedCompactModel,
    export_brainscore,
    import_shared_model,
)

FILTERS, SIZE = (4, 3, 5, 2, 6), (14, 17)
FILES = {
    "__init__.py", "config.json", "model.py", "model.safetensors", "network.py",
    "requirements.txt", "test.py",
}  # fmt: skip


class Backbone(nn.Module):
    """Takes images, and gives features on a smaller grid."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.norm(self.conv(images / 255)).relu()
        return features


def random_(network: nn.Module, seed: int = 0) -> nn.Module:
    """Return the network with all tensors drawn, variances positive, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and "image_mean" not in name:
            drawn = torch.randn(tensor.shape, generator=generator) * 0.3
            tensor.copy_(drawn.abs() + 0.5 if "var" in name or "scale" in name else drawn)
    return network.eval()


def shared_model() -> SharedCompactModel:
    model = random_(SharedCompactModel(FILTERS, 7, SIZE))
    assert isinstance(model, SharedCompactModel)
    return model


def ensemble(stride: int = 2) -> EnsembleModel:
    shape = EnsembleShape(in_channels=6, width=5, bottleneck=4, n_blocks=2, stride=stride)
    members = [EnsembleMember(shape) for _ in range(3)]
    rows, columns = shape.grid(6, 8)
    model = EnsembleModel(members, torch.zeros(3, 5 * rows * columns, 4), torch.zeros(3, 4))
    random_(model)
    return model


def plain(folder: Path, name: str = "network.py") -> types.ModuleType:
    """Import one file of a plugin from where it lies, without the package around it."""
    spec = importlib.util.spec_from_file_location("plugin", folder / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answers(folder: Path, images: Tensor) -> Tensor:
    with torch.inference_mode():
        responses: Tensor = plain(folder).load_network(folder)(images)
    return responses


def expect_alike(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.std()))


def config_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


def test_compact_model_answers_alike(tmp_path: Path) -> None:
    model, images = single_model(FILTERS, SIZE), some_images(5, SIZE)
    folder = export_brainscore(model, tmp_path / "neuron3")
    assert {path.name for path in folder.iterdir()} == FILES
    with torch.inference_mode():
        expect_alike(answers(folder, images), model(images)[:, None])
    config = config_of(folder)
    assert (config["identifier"], config["n_neurons"]) == ("neuron3", 1)
    assert config["layers"] == [*(f"layers.relus.{k}" for k in range(5)), "responses"]


def test_population_answers_as_its_models(tmp_path: Path) -> None:
    models = [single_model(f, SIZE, seed) for seed, f in enumerate([FILTERS, (2, 6, 1, 3, 1)])]
    images = some_images(4, SIZE)
    folder = export_brainscore(models, tmp_path / "two")
    with torch.inference_mode():
        expected = torch.stack([model(images) for model in models], dim=1)
    expect_alike(answers(folder, images), expected)


def test_shared_model_answers_alike(tmp_path: Path) -> None:
    model, images = shared_model(), some_images(4, SIZE)
    folder = export_brainscore(model, tmp_path / "shared")
    with torch.inference_mode():
        expect_alike(answers(folder, images), model(images))
    assert config_of(folder)["n_neurons"] == 7


@pytest.mark.parametrize("stride", [2, 0])
def test_ensemble_answers_as_on_its_backbone(tmp_path: Path, stride: int) -> None:
    model, backbone, images = ensemble(stride), random_(Backbone()), some_images(5, SIZE)
    folder = export_brainscore(model, tmp_path / "teacher", backbone=backbone, image_size=SIZE)
    assert {path.name for path in folder.iterdir()} == FILES | {"backbone.pt2"}
    with torch.inference_mode():
        expect_alike(answers(folder, images), model(backbone(images)))
    version = torch.__version__.partition("+")[0]
    assert f"torch>={version}\n" in (folder / "requirements.txt").read_text()


def test_layers_are_modules_whose_outputs_can_be_hooked(tmp_path: Path) -> None:
    images = some_images(3, SIZE)
    shapes = {
        "one": {"layers.relus.0": (4, 14, 17), "layers.relus.4": (6, 4, 5), "responses": (1,)},
        "two": {"maps": (7, 4, 5), "responses": (2,)},
        "teacher": {"backbone": (6, 6, 8), "embedding": (15, 3, 4), "responses": (4,)},
    }
    one = single_model(FILTERS, SIZE)
    export_brainscore(one, tmp_path / "one")
    export_brainscore([one, single_model((2, 6, 1, 3, 1), SIZE)], tmp_path / "two")
    backbone = random_(Backbone())
    export_brainscore(ensemble(), tmp_path / "teacher", backbone=backbone, image_size=SIZE)
    for name, expected in shapes.items():
        network = plain(tmp_path / name).load_network(tmp_path / name)
        assert not network.training
        assert next(network.parameters()).dtype == torch.float32
        network.eval()  # as the wrapper does before every pass
        kept: dict[str, torch.Size] = {}
        for layer in config_of(tmp_path / name)["layers"]:
            network.get_submodule(layer).register_forward_hook(
                lambda _m, _i, out, kept=kept, layer=layer: kept.update({layer: out.shape})
            )
        with torch.no_grad():
            network(images)
        assert list(kept) == config_of(tmp_path / name)["layers"]
        assert {layer: kept[layer][1:] for layer in expected} == expected


def test_images_of_files_are_levels_at_the_models_size(tmp_path: Path) -> None:
    folder = export_brainscore(single_model(FILTERS, SIZE), tmp_path / "one")
    levels = np.random.default_rng(0).integers(0, 256, (14, 17, 3), dtype=np.uint8)
    Image.fromarray(levels).save(tmp_path / "same.png")
    Image.new("L", (40, 30), 77).save(tmp_path / "grey.png")
    paths = [str(tmp_path / "same.png"), str(tmp_path / "grey.png")]
    images = plain(folder).load_images(paths, image_size=SIZE)
    assert (images.dtype, images.shape) == (np.float32, (2, 3, 14, 17))
    np.testing.assert_array_equal(images[0], levels.transpose(2, 0, 1))
    assert (images[1] == 77).all()


def test_a_plugin_needs_no_pocketcortex_and_its_own_test_can_fail(tmp_path: Path) -> None:
    folder = export_brainscore(single_model(FILTERS, SIZE), tmp_path / "one")
    for name in ("network.py", "model.py", "__init__.py", "test.py"):
        imported = {
            alias.name.split(".")[0]
            if isinstance(node, ast.Import)
            else (node.module or "").split(".")[0]
            for node in ast.walk(ast.parse((folder / name).read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert "pocketcortex" not in imported
    check = plain(folder, "test.py").test_network_answers_as_when_it_was_exported
    check()
    config = config_of(folder)
    config["example"]["responses"][0][0] += 1.0
    (folder / "config.json").write_text(json.dumps(config))
    changed = plain(folder, "test.py").test_network_answers_as_when_it_was_exported
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        changed()


def test_registry_line_and_settings(tmp_path: Path) -> None:
    folder = export_brainscore(
        single_model(FILTERS, SIZE),
        tmp_path / "one",
        identifier="cowley.v4-neuron3",
        regions={"V4": "responses", "V1": "layers.relus.0"},
        visual_degrees=4.0,
    )
    assert "model_registry['cowley.v4-neuron3'] = " in (folder / "__init__.py").read_text()
    assert '"cowley.v4-neuron3"' in (folder / "test.py").read_text()
    config = config_of(folder)
    assert config["regions"] == {"V4": "responses", "V1": "layers.relus.0"}
    assert config["visual_degrees"] == 4.0
    again = export_brainscore(single_model(FILTERS, SIZE), folder)  # replaced
    assert config_of(again)["regions"] is None


def test_the_model_stays_as_it_is(tmp_path: Path) -> None:
    model, backbone = ensemble().train(), Backbone().double().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    export_brainscore(model, tmp_path / "teacher", backbone=backbone, image_size=SIZE)
    assert model.training
    assert backbone.training
    assert backbone.conv.weight.dtype == torch.float64
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        ("1st", {}, "'1st' is to be a Python package"),
        ("a.b", {}, "'a.b' is to be a Python package"),
        ("class", {}, "'class' is to be a Python package"),
        ("one", {"identifier": "a'b"}, "may have letters, digits"),
        ("one", {"visual_degrees": 0.0}, "visual_degrees must be positive"),
        ("one", {"regions": {"V5": "responses"}}, "regions are V1, V2, V4, IT"),
        (
            "one",
            {"regions": {"V4": "absent"}},
            r"layers layers\.relus\.0, .* got \{'V4': 'absent'\}",
        ),
        ("one", {"backbone": Backbone()}, "are for ensembles"),
    ],
)
def test_refuses(tmp_path: Path, name: str, settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        export_brainscore(single_model(FILTERS, SIZE), tmp_path / name, **settings)
    assert not (tmp_path / name).exists()


def test_refuses_models_that_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no model"):
        export_brainscore([], tmp_path / "none")
    with pytest.raises(InputError, match=r"one size; got \[\(8, 8\), \(14, 17\)\]"):
        export_brainscore(
            [single_model(FILTERS, SIZE), CompactModel(FILTERS, (8, 8))], tmp_path / "x"
        )
    with pytest.raises(InputError, match="give backbone="):
        export_brainscore(ensemble(), tmp_path / "teacher")
    for backbone in (nn.Conv2d(3, 9, 3), nn.Flatten()):
        with pytest.raises(InputError, match="do not go together"):
            export_brainscore(ensemble(), tmp_path / "t", backbone=backbone, image_size=SIZE)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(InputError, match="no older export"):
        export_brainscore(single_model(FILTERS, SIZE), tmp_path / "mine")


@pytest.mark.data
def test_published_shared_model_answers_alike(real_data: Path, tmp_path: Path) -> None:
    release = real_data / "v4" / "data_shared_compact_models" / "from_ensemble_model"
    model = import_shared_model(release / "shared_compact_model_25filters.keras")
    folder = export_brainscore(model, tmp_path / "shared25", regions={"V4": "responses"})
    images = torch.randint(0, 256, (3, 3, 112, 112), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expect_alike(answers(folder, images.float()), model(images.float()))
