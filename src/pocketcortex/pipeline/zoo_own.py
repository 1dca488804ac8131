"""The library's own models as networks of a zoo: their layers, and what they were made with."""

import glob
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pocketcortex.core import InputError
from pocketcortex.models import (
    CompactModel,
    EnsembleMember,
    EnsembleShape,
    SharedCompactModel,
    import_compact_model,
    import_shared_model,
)
from pocketcortex.models.compact import STRIDES
from pocketcortex.pipeline.opening import config_of
from pocketcortex.zoo import Backbone, load_network

MOST_FEATURES = 1_000_000
"""Features of an image above which a stage of our own models is no layer of the zoo."""

RESPONSES = "taps.responses"
"""Layer of the models' own predictions."""

_PUBLISHED = (".pt", ".npy", ".h5", ".keras")


def own_files(target: str) -> list[Path] | None:
    """Return files and folders of our own models, the folder of a run, or None for a network.

    Raises
    ------
    InputError
        If no file matches a pattern, or a folder holds neither.
    """
    if "*" in target:
        found = sorted((Path(p) for p in glob.glob(target)), key=lambda p: _natural(p.name))
        if not found:
            raise InputError(f"no file matches {target!r}")
        return found
    path = Path(target)
    if path.is_dir():
        if (path / "config.json").is_file():
            return [path]
        inside = [p.parent for p in path.glob("*/model.safetensors")]
        inside += [p for p in path.iterdir() if p.suffix in _PUBLISHED]
        if not inside:
            raise InputError(f"{path} holds neither compact models nor a run with an ensemble")
        return sorted(inside, key=lambda p: _natural(p.name))
    return [path] if path.suffix in _PUBLISHED and path.is_file() else None


def is_ensemble(files: Sequence[Path]) -> bool:
    """Return whether what :func:`own_files` found is a run with an ensemble."""
    return files[0].is_dir() and (files[0] / "teacher" / "members.safetensors").is_file()


def read_own(path: Path) -> CompactModel | SharedCompactModel:
    """Return the model of a file or folder.

    Raises
    ------
    InputError
        If it holds none.
    """
    if path.is_dir():
        return CompactModel.load(path)
    if path.suffix == ".keras" and path.name.startswith("shared"):
        return import_shared_model(path)
    return import_compact_model(path)


class Population(nn.Module):
    """Compact or shared models side by side, each stage of all of them one layer.

    Stages of too many features are left out.
    """

    def __init__(self, models: Sequence[CompactModel | SharedCompactModel]) -> None:
        super().__init__()
        sizes = {model.layers.image_size for model in models}
        if len(sizes) > 1:
            raise InputError(f"models of one row take images of one size, got {sorted(sizes)}")
        self.models = nn.ModuleList(models)
        self.image_size = models[0].layers.image_size
        height, width = self.image_size
        places = np.cumprod(STRIDES)
        self.stages = [
            k
            for k, step in enumerate(places)
            if sum(m.layers.filters[k] for m in models) * -(-height // step) * -(-width // step)
            <= MOST_FEATURES
        ]
        names = [f"layer{k}" for k in self.stages]
        self.taps = nn.ModuleDict({name: nn.Identity() for name in (*names, "responses")})
        self.layer_names = tuple(f"taps.{name}" for name in self.taps)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Tensor:
        """Return the models' responses, side by side."""
        kept: dict[str, list[Tensor]] = {name: [] for name in self.taps}
        for model in self.models:
            if not isinstance(model, CompactModel | SharedCompactModel):
                raise InputError(f"no compact model: {type(model).__name__}")
            x = model.layers.centre(images)
            for k in range(len(STRIDES)):
                x = model.layers.layer(k, x)
                if k in self.stages:
                    kept[f"layer{k}"].append(x)
            if isinstance(model, SharedCompactModel):
                responses = model.read_out(x)
            else:
                weighted = torch.einsum("nchw,chw->n", x, model.readout)
                responses = (weighted + model.readout_bias)[:, None]
            kept["responses"].append(responses)
        for name, parts in kept.items():
            out: Tensor = self.taps[name](torch.cat(parts, dim=1))
        return out


class Ensemble(nn.Module):
    """A run's backbone and the embeddings of its ensemble's members."""

    image_size: tuple[int, int] | None = None

    def __init__(self, run: Path) -> None:
        super().__init__()
        settings = config_of(run).backbone
        network = load_network(settings.network)
        self.network = network
        self.backbone = Backbone(network, settings.layers, input_size=settings.input_size)
        teacher = run / "teacher"
        shape = EnsembleShape(**json.loads((teacher / "history.json").read_text())["shape"])
        state = safetensors.torch.load_file(teacher / "members.safetensors")
        members = []
        for k in range(1 + max(int(name.split(".")[0]) for name in state)):
            member = EnsembleMember(shape)
            own = {n.removeprefix(f"{k}."): t for n, t in state.items() if n.startswith(f"{k}.")}
            member.load_state_dict(own)
            members.append(member.eval())
        self.members = nn.ModuleList(members)
        self.taps = nn.ModuleDict({"features": nn.Identity(), "embeddings": nn.Identity()})
        self.layer_names = ("taps.features", "taps.embeddings")

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Tensor:
        """Return the members' embeddings, channels side by side."""
        self.backbone.device = images.device
        features = self.taps["features"](self.backbone(images).clone())
        embeddings = torch.cat([member(features) for member in self.members], dim=1)
        out: Tensor = self.taps["embeddings"](embeddings)
        return out


def _natural(name: str) -> list[tuple[str, int]]:
    """Return a sort key that puts neuron2 before neuron10."""
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", name)]
