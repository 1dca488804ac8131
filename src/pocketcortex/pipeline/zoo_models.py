"""Rows of a zoo: networks by reference, and the library's own models with their layers."""

import dataclasses
import glob
import importlib.util
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

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
from pocketcortex.zoo import (
    Backbone,
    Network,
    NetworkSpec,
    Preprocessing,
    build_network,
    find_network,
    list_networks,
    load_network,
    randomised,
)

MOST_FEATURES = 1_000_000
"""Features of an image above which a stage of our own models is no layer of the zoo."""

_PUBLISHED = (".pt", ".npy", ".h5", ".keras")
_TWIN = re.compile(r"(.+)@random:(\d+)")
_RESPONSES = "taps.responses"


@dataclass(frozen=True)
class ZooModel:
    """One row of a zoo, built when it is needed.

    Attributes
    ----------
    spec
        What it is; its name is the row's.
    build
        Makes the network.
    """

    spec: NetworkSpec
    build: Callable[[], Network]

    def layers(self, network: Network) -> tuple[str, ...] | None:
        """Return the names of the layers to score; None for all that the network has."""
        own = network.network
        if not isinstance(own, _Population | _Ensemble):
            return None
        # the readout of an untrained twin has no initialisation of its own
        return tuple(n for n in own.layer_names if self.spec.seed is None or n != _RESPONSES)

    @property
    def trained_name(self) -> str:
        """Name of the trained network that this is, or is a twin of."""
        return self.spec.name.partition("@random:")[0]


def zoo_models(
    references: Sequence[str],
    *,
    builders: str | Path | None = None,
    n_twins: int = 0,
    protocol: str = "own",
    input_size: int | None = None,
    download: bool = False,
) -> list[ZooModel]:
    """Return the rows that references stand for; nothing is built or read but tables.

    Parameters
    ----------
    references
        Each a network as :func:`pocketcortex.zoo.find_network` reads it; the name of a function of
        `builders`; or models of our own: files of compact models (``.pt``, ``.npy``, ``.h5``,
        ``.keras``), folders as `CompactModel.save` writes, a folder of either, or a pattern with
        ``*``, together one population and one row; a published shared model (``.keras``); the
        folder of a run, for its ensemble. ``@random:SEED`` after any: weights drawn by seed.
        ``NAME=`` before any: the row's name.
    builders
        Python file whose functions build networks of your own, your own code and run as such. A
        reference ``*`` then stands for all in its table ``BACKBONES``. A function that has the name
        of a network of the registry is taken to be of its family, architecture, task and data.
    n_twins
        So many random twins, seeds 0 and up, are added after each trained network.
    protocol, input_size, download
        As for :func:`pocketcortex.zoo.build_network`; our own models take images of their size.

    Raises
    ------
    InputError
        If a reference names nothing, two rows have one name, or `n_twins` is negative.
    """
    if n_twins < 0:
        raise InputError(f"n_twins must be 0 or more, got {n_twins}")
    settings: dict[str, Any] = {
        "protocol": protocol,
        "input_size": input_size,
        "download": download,
    }
    rows: list[ZooModel] = []
    for reference in _expanded(references, builders):
        name, target = _named(reference)
        twin = _TWIN.fullmatch(target)
        seeds: list[int | None] = [None, *range(n_twins)] if twin is None else [int(twin.group(2))]
        rows += [
            _row(name, target if twin is None else twin.group(1), seed, builders, settings)
            for seed in seeds
        ]
    names = [row.spec.name for row in rows]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not rows:
        raise InputError(
            f"rows of one name: {', '.join(twice)}; put NAME= before a reference"
            if twice
            else "name one network or more, separated by commas"
        )
    return rows


def _expanded(references: Sequence[str], builders: str | Path | None) -> list[str]:
    out: list[str] = []
    for reference in references:
        if reference == "*" and builders is not None:
            module = load_builders(builders)
            table = getattr(module, "BACKBONES", None)
            if not isinstance(table, dict):
                raise InputError(f"{builders} has no table BACKBONES; name its builders one by one")
            out += [str(name) for name in table]
        else:
            out.append(reference)
    return out


@cache
def load_builders(path: str | Path) -> object:
    """Return a Python file as a module.

    Raises
    ------
    InputError
        If there is no such file.
    """
    spec = importlib.util.spec_from_file_location(f"pocketcortex_user_{Path(path).stem}", path)
    if not Path(path).is_file() or spec is None or spec.loader is None:
        raise InputError(f"there is no Python file {path} of builders")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _named(reference: str) -> tuple[str | None, str]:
    name, equals, rest = reference.partition("=")
    return (name, rest) if equals and name else (None, reference)


def _row(
    name: str | None,
    target: str,
    seed: int | None,
    builders: str | Path | None,
    settings: Mapping[str, Any],
) -> ZooModel:
    files = _own_files(target)
    if files is not None:
        return _own_row(name or target, target, files, seed)
    if builders is not None and ":" not in target and _has_builder(builders, target):
        known = {spec.name: spec for spec in list_networks()}.get(target)
        spec = NetworkSpec(target, f"{builders}:{target}")
        if known is not None:
            spec = dataclasses.replace(
                spec, task=known.task, data=known.data, family=known.family,
                architecture=known.architecture,
                note="family, task and data are those of the registry's network of this name",
            )  # fmt: skip
    else:
        spec = find_network(target)
    if name is not None:
        spec = dataclasses.replace(spec, name=name)
    if seed is not None:
        spec = spec.random(seed)
    build = partial(build_network, spec, **settings)
    return ZooModel(spec, build)


def _has_builder(builders: str | Path, name: str) -> bool:
    return callable(getattr(load_builders(builders), name, None))


def _own_files(target: str) -> list[Path] | None:
    """Return files and folders of our own models, the folder of a run, or None for a network."""
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


def _own_row(name: str, target: str, files: list[Path], seed: int | None) -> ZooModel:
    spec = NetworkSpec(
        name, f"own:{target}", task="neurons of visual cortex", family="compact",
        architecture="compact model",
    )  # fmt: skip
    ensemble = files[0].is_dir() and (files[0] / "teacher" / "members.safetensors").is_file()
    if ensemble:
        spec = dataclasses.replace(spec, family="ensemble", architecture="ensemble")
    if seed is not None:
        spec = spec.random(seed)

    def build() -> Network:
        own = _Ensemble(files[0]) if ensemble else _Population([_read(file) for file in files])
        module: nn.Module = own if seed is None else randomised(own, seed).network
        size = own.image_size
        return Network(module, spec, Preprocessing(size=size, mean=None, std=None))

    return ZooModel(spec, build)


def _read(path: Path) -> CompactModel | SharedCompactModel:
    if path.is_dir():
        return CompactModel.load(path)
    if path.suffix == ".keras" and path.name.startswith("shared"):
        return import_shared_model(path)
    return import_compact_model(path)


class _Population(nn.Module):
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


class _Ensemble(nn.Module):
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
        self.backbone.device = images.device
        features = self.taps["features"](self.backbone(images).clone())
        embeddings = torch.cat([member(features) for member in self.members], dim=1)
        out: Tensor = self.taps["embeddings"](embeddings)
        return out


def _natural(name: str) -> list[tuple[str, int]]:
    """Return a sort key that puts neuron2 before neuron10."""
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", name)]
