"""Models as plugins of Brain-Score: folders that its library imports and scores."""

import copy
import io
import json
import keyword
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from pocketcortex.core import InputError
from pocketcortex.models.compact import STRIDES, CompactModel
from pocketcortex.models.ensemble import EnsembleModel
from pocketcortex.models.export import quiet_torch, write_folder
from pocketcortex.models.shared import SharedCompactModel

RESPONSES = "responses"
"""Name of the layer that holds the neurons' responses."""

REGIONS = ("V1", "V2", "V4", "IT")
"""Regions that Brain-Score asks a model for."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_N_EXAMPLES, _EXAMPLE_SEED = 2, 0

PluginModel = CompactModel | Sequence[CompactModel] | SharedCompactModel | EnsembleModel


def export_brainscore(
    model: PluginModel,
    path: str | Path,
    *,
    identifier: str | None = None,
    backbone: nn.Module | None = None,
    image_size: tuple[int, int] | None = None,
    regions: Mapping[str, str] | None = None,
    visual_degrees: float = 8.0,
) -> Path:
    """Write a model as a plugin folder of Brain-Score's vision library, and return the folder.

    The folder goes to ``brainscore_vision/models/`` of a checkout, or into a submission.
    ``__init__.py`` registers the model, ``model.py`` wraps it (PytorchWrapper, ModelCommitment),
    ``network.py`` builds it in plain torch from ``config.json`` and ``model.safetensors`` (an
    ensemble's backbone from ``backbone.pt2``, a program of torch.export), ``test.py`` checks that
    it gives the responses it gave here. Images are shown as they come, resized (bicubic) to the
    model's size, levels 0..255.

    Parameters
    ----------
    model
        One compact model, several (a population), a shared model, or an ensemble.
    path
        Folder to write, whose name becomes that of a Python package; an older export there is
        replaced.
    identifier
        Name in Brain-Score's registry; by default the folder's.
    backbone
        For an ensemble: takes images (n, 3, height, width), levels 0..255, and returns the features
        (n, channels, rows, columns) that the ensemble was trained on.
    image_size
        For an ensemble: height and width of the images that its backbone takes.
    regions
        Which layer stands for which region, such as ``{"V4": "responses"}``. None: Brain-Score
        chooses among all layers, region by region, on its public benchmarks.
    visual_degrees
        How much of the visual field an image covers: Brain-Score scales its images by it.

    Raises
    ------
    InputError
        If there is no model; if a name is no name of a package or of a registry; if an ensemble
        comes without backbone or image size, another model with them, or they do not go together;
        if a region or layer is unknown, or the degrees are not positive; if `path` holds anything
        but an older export.

    References
    ----------
    Schrimpf et al. (2018), bioRxiv 407007; (2020), Neuron 108: 413-423. The layout is that of
    brainscore_vision 2.4.
    """
    path = Path(path)
    name = path.name if identifier is None else identifier
    _check_names(path.name, name)
    if not 0 < visual_degrees < np.inf:
        raise InputError(f"visual_degrees must be positive; got {visual_degrees}")
    _check_backbone(model, backbone, image_size)
    if isinstance(model, EnsembleModel) and backbone is not None and image_size is not None:
        parts, run = _ensemble_parts(model, backbone, image_size)
    else:
        parts, run = _compact_parts(model)
    config: dict[str, Any] = parts.pop("config")
    unknown = {
        region: layer
        for region, layer in (regions or {}).items()
        if region not in REGIONS or layer not in config["layers"]
    }
    if unknown:
        raise InputError(
            f"regions are {', '.join(REGIONS)} and layers {', '.join(config['layers'])}; "
            f"got {unknown}"
        )
    config |= {
        "identifier": name,
        "regions": None if regions is None else dict(regions),
        "visual_degrees": float(visual_degrees),
        "example": _example(run, config["image_size"]),
    }
    content = {
        "__init__.py": _INIT.replace("IDENTIFIER", name),
        "model.py": _MODEL,
        "network.py": files("pocketcortex.models").joinpath("plain_network.py").read_text(),
        "test.py": _TEST.replace("IDENTIFIER", name),
        "requirements.txt": _requirements(config["kind"]),
        "config.json": json.dumps(config, indent=1) + "\n",
    }
    return write_folder(path, {key: text.encode() for key, text in content.items()} | parts)


def _check_names(folder: str, identifier: str) -> None:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", folder) or keyword.iskeyword(folder):
        raise InputError(
            f"the folder {folder!r} is to be a Python package: letters, digits, _ and - only, a "
            "letter first"
        )
    if not _NAME.fullmatch(identifier):
        raise InputError(
            f"identifier {identifier!r} may have letters, digits, '.', '_' and '-', no other sign"
        )


def _check_backbone(
    model: PluginModel, backbone: nn.Module | None, image_size: tuple[int, int] | None
) -> None:
    ensemble = isinstance(model, EnsembleModel)
    if ensemble and (backbone is None or image_size is None):
        raise InputError(
            "an ensemble answers to features: give backbone=, the network that makes them from "
            "images of levels 0..255, and image_size="
        )
    if not ensemble and (backbone is not None or image_size is not None):
        raise InputError("backbone and image_size are for ensembles; compact models take images")


def _compact_parts(model: PluginModel) -> tuple[dict[str, Any], nn.Module]:
    """Return what the folder holds of compact models, and a module that gives the responses."""
    network: nn.Module
    if isinstance(model, SharedCompactModel):
        kind, every, network = "shared", [model.layers], model
        n_neurons = len(model.bias)
    elif isinstance(model, CompactModel):
        kind, every, network, n_neurons = "compact", [model.layers], model, 1
    elif isinstance(model, Sequence) and len(model):
        kind, every, n_neurons = "population", [one.layers for one in model], len(model)
        network = _Population(model)
    else:
        raise InputError("there is no model to export; give at least one")
    network = copy.deepcopy(network).cpu().float().eval()
    sizes = sorted({layers.image_size for layers in every})
    if len(sizes) > 1:
        raise InputError(f"models in one plugin must take images of one size; got {sizes}")
    inner = ["maps"] if kind == "population" else [f"layers.relus.{k}" for k in range(len(STRIDES))]
    config = {
        "kind": kind,
        "image_size": list(sizes[0]),
        "n_neurons": n_neurons,
        "models": [{"filters": list(layers.filters)} for layers in every],
        "layers": [*inner, RESPONSES],
    }
    return {"config": config, "model.safetensors": _weights(network)}, network


def _ensemble_parts(
    model: EnsembleModel, backbone: nn.Module, image_size: tuple[int, int]
) -> tuple[dict[str, Any], nn.Module]:
    """Return what the folder holds of an ensemble, and a module that gives the responses."""
    network = copy.deepcopy(_Chain(backbone, model)).cpu().float().eval()
    example = torch.zeros(2, 3, *image_size)
    try:
        with torch.inference_mode():
            n_neurons = network(example).shape[1]
        with quiet_torch():
            batch = ({0: torch.export.Dim("n", min=1)},)
            program = torch.export.export(network.backbone, (example,), dynamic_shapes=batch)
    except (RuntimeError, ValueError, TypeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"backbone and ensemble do not go together, or torch.export cannot take the backbone "
            f"({reason}); it must turn images (n, 3, {image_size[0]}, {image_size[1]}) into the "
            "features that the ensemble was trained on"
        ) from error
    buffer = io.BytesIO()
    with quiet_torch():
        torch.export.save(program, buffer)
    members = list(network.ensemble.members)
    config = {
        "kind": "ensemble",
        "image_size": list(image_size),
        "n_neurons": n_neurons,
        "n_members": len(members),
        "n_features": network.ensemble.weights.shape[1],
        "shape": members[0].shape.as_dict(),  # type: ignore[operator, union-attr]
        "layers": ["backbone", "embedding", RESPONSES],
    }
    parts = {
        "config": config,
        "model.safetensors": _weights(network.ensemble),
        "backbone.pt2": buffer.getvalue(),
    }
    return parts, network


class _Population(nn.Module):
    """Several compact models one after the other."""

    def __init__(self, models: Sequence[CompactModel]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, images: Tensor) -> Tensor:
        """Return responses (n, n_models)."""
        return torch.stack([model(images) for model in self.models], dim=1)


class _Chain(nn.Module):
    """A backbone and the ensemble on its features."""

    def __init__(self, backbone: nn.Module, ensemble: EnsembleModel) -> None:
        super().__init__()
        self.backbone, self.ensemble = backbone, ensemble

    def forward(self, images: Tensor) -> Tensor:
        """Return responses (n, n_neurons)."""
        answer: Tensor = self.ensemble(self.backbone(images))
        return answer


def _weights(network: nn.Module) -> bytes:
    # a copy each: members may share tensors, which the format has no word for
    return safetensors.torch.save(
        {name: tensor.clone().contiguous() for name, tensor in network.state_dict().items()}
    )


def _example(run: nn.Module, image_size: Sequence[int]) -> dict[str, Any]:
    """Return the responses to a few images that anyone can draw again."""
    height, width = image_size
    rng = np.random.default_rng(_EXAMPLE_SEED)
    levels = rng.integers(0, 256, (_N_EXAMPLES, 3, height, width), dtype=np.uint8)
    with torch.inference_mode():
        responses = run(torch.from_numpy(levels).float()).reshape(_N_EXAMPLES, -1)
    return {
        "images": f"numpy.random.default_rng({_EXAMPLE_SEED}).integers(0, 256, "
        f"({_N_EXAMPLES}, 3, {height}, {width}), dtype=numpy.uint8)",
        "seed": _EXAMPLE_SEED,
        "responses": responses.double().tolist(),
    }


def _requirements(kind: str) -> str:
    # a saved program is read by the version of torch that wrote it, or a newer one
    version = f">={torch.__version__.partition('+')[0]}" if kind == "ensemble" else ">=2.6"
    return f"torch{version}\nsafetensors>=0.5\nnumpy\npillow\n"


_INIT = '''"""Plugin of Brain-Score, written by pocketcortex."""

from brainscore_vision import model_registry

from .model import get_brain_model

model_registry['IDENTIFIER'] = get_brain_model
'''

_MODEL = '''"""The network as Brain-Score's library takes it."""

import functools
import json
from pathlib import Path

from brainscore_vision.model_helpers.activations.pytorch import PytorchWrapper
from brainscore_vision.model_helpers.brain_transformation import ModelCommitment

from .network import load_images, load_network

FOLDER = Path(__file__).parent
CONFIG = json.loads((FOLDER / "config.json").read_text())
LAYERS = CONFIG["layers"]


def get_model():
    """Return the activations model."""
    size = tuple(CONFIG["image_size"])
    wrapper = PytorchWrapper(
        identifier=CONFIG["identifier"],
        model=load_network(FOLDER),
        preprocessing=functools.partial(load_images, image_size=size),
    )
    wrapper.image_size = size[0]
    return wrapper


def get_brain_model():
    """Return the model with its layers committed to regions, or left for Brain-Score to choose."""
    return ModelCommitment(
        identifier=CONFIG["identifier"],
        activations_model=get_model(),
        layers=LAYERS,
        region_layer_map=CONFIG["regions"],
        visual_degrees=CONFIG["visual_degrees"],
    )
'''

_TEST = '''"""The plugin gives the responses that the model gave when it was exported."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

FOLDER = Path(__file__).parent
CONFIG = json.loads((FOLDER / "config.json").read_text())


def network_module():
    spec = importlib.util.spec_from_file_location("plugin_network", FOLDER / "network.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def example():
    """Return the images of the example, levels 0..255, and the responses when it was exported."""
    expected = np.array(CONFIG["example"]["responses"])
    rng = np.random.default_rng(CONFIG["example"]["seed"])
    size = (len(expected), 3, *CONFIG["image_size"])
    return rng.integers(0, 256, size, dtype=np.uint8), expected


def test_network_answers_as_when_it_was_exported():
    images, expected = example()
    network = network_module().load_network(FOLDER)
    with torch.no_grad():
        responses = network(torch.from_numpy(images).float()).numpy()
    np.testing.assert_allclose(responses, expected, rtol=1e-3, atol=1e-3)


def test_brain_score_gets_the_same_responses(tmp_path):
    brainscore_vision = pytest.importorskip("brainscore_vision")
    model = brainscore_vision.load_model("IDENTIFIER")
    assert model.identifier == "IDENTIFIER"
    images, expected = example()
    paths = [tmp_path / f"{k}.png" for k in range(len(images))]
    for path, image in zip(paths, images):
        Image.fromarray(image.transpose(1, 2, 0)).save(path)
    found = model.activations_model([str(path) for path in paths], layers=CONFIG["layers"])
    assert set(found["layer"].values) == set(CONFIG["layers"])
    responses = found[:, found["layer"].values == "responses"].values
    np.testing.assert_allclose(responses, expected, rtol=1e-3, atol=1e-3)
'''
