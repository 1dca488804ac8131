"""Rows of a zoo: networks by reference, and the library's own models with their layers."""

import dataclasses
import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from torch import nn

from pocketcortex.core import BrainArea, InputError
from pocketcortex.pipeline.zoo_made_with import MadeWith, made_with
from pocketcortex.pipeline.zoo_own import (
    RESPONSES,
    Ensemble,
    Population,
    is_ensemble,
    own_files,
    read_own,
)
from pocketcortex.zoo import (
    Network,
    NetworkSpec,
    Preprocessing,
    build_network,
    find_network,
    list_networks,
    randomised,
)

_TWIN = re.compile(r"(.+)@random:(\d+)")


@dataclass(frozen=True)
class ZooModel:
    """One row of a zoo, built when it is needed.

    Attributes
    ----------
    spec
        What it is; its name is the row's.
    build
        Makes the network.
    made_with
        Of our own models: the sessions whose responses they were made with.
    """

    spec: NetworkSpec
    build: Callable[[], Network]
    made_with: MadeWith | None = None

    def in_sample(self, area: BrainArea) -> str:
        """Return why scores on an area are no fair comparison, "" if they are as far as known."""
        return "" if self.made_with is None else self.made_with.reason(area)

    def layers(self, network: Network) -> tuple[str, ...] | None:
        """Return the names of the layers to score; None for all that the network has."""
        own = network.network
        if not isinstance(own, Population | Ensemble):
            return None
        # the readout of an untrained twin has no initialisation of its own
        return tuple(n for n in own.layer_names if self.spec.seed is None or n != RESPONSES)

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
    files = own_files(target)
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


def _own_row(name: str, target: str, files: list[Path], seed: int | None) -> ZooModel:
    spec = NetworkSpec(
        name, f"own:{target}", task="neurons of visual cortex", family="compact",
        architecture="compact model",
    )  # fmt: skip
    ensemble = is_ensemble(files)
    if ensemble:
        spec = dataclasses.replace(spec, family="ensemble", architecture="ensemble")
    if seed is not None:
        spec = spec.random(seed)

    def build() -> Network:
        own = Ensemble(files[0]) if ensemble else Population([read_own(file) for file in files])
        module: nn.Module = own if seed is None else randomised(own, seed).network
        size = own.image_size
        return Network(module, spec, Preprocessing(size=size, mean=None, std=None))

    return ZooModel(spec, build, made_with(files) if seed is None else None)
