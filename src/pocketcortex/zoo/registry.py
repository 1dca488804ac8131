"""The networks of the published benchmark by name, and any other by reference.

The table (``networks.csv``) has the ImageNet classifiers of torchvision (31) and timm (78) and the
24 Taskonomy encoders that stand, by name, in the model table of the benchmark's public code; the
summary speaks of 80 of timm, and that table has 80 rows, of which inception_v4 and mnasnet_100 come
twice. The table's detection, segmentation and video networks are not in the summary, nor here.
Each timm network has the weights that its name stood for in mid-2021, by today's tag, as far as
timm tells: that the file is the same was not checked.

Which self-supervised networks the benchmark used is *reconstructed* from the methods that its
summary names and from tables of later work by the same authors. Their checkpoints carry no
canonical file name; they are looked for under the names of this table.

References
----------
Conwell, Mayo, Barbu, Buice, Alvarez & Katz (2021), Neural regression, representational similarity,
model zoology & neural taskonomy at scale in rodent visual cortex, NeurIPS.
"""

import csv
import dataclasses
import difflib
import re
from functools import cache
from importlib import resources
from pathlib import Path

from pocketcortex.core import InputError
from pocketcortex.zoo.network import PRETRAINED, Network, NetworkSpec
from pocketcortex.zoo.preprocessing import Preprocessing
from pocketcortex.zoo.source import Source
from pocketcortex.zoo.sources import find_source

_TWIN = re.compile(r"(.+)@random:(\d+)")


@cache
def _table() -> dict[str, NetworkSpec]:
    text = resources.files("pocketcortex.zoo").joinpath("networks.csv").read_text()
    specs = [_spec(row) for row in csv.DictReader(text.splitlines())]
    return {spec.name: spec for spec in specs}


def _spec(row: dict[str, str]) -> NetworkSpec:
    counts = ("published_parameters", "published_layers")
    parameters, layers = (int(row[count]) if row[count] else None for count in counts)
    return NetworkSpec(
        **{field: value for field, value in row.items() if field not in counts},
        published_parameters=parameters,
        published_layers=layers,
    )


def list_networks(
    *, family: str | None = None, task: str | None = None, source: str | None = None
) -> list[NetworkSpec]:
    """Return the networks of the table, in its order.

    Parameters
    ----------
    family
        Only those of this family (``"transformer"``) or architecture (``"ResNet"``).
    task
        Only those trained on this task (``"taskonomy/normal"``) or kind of task
        (``"self-supervised"``).
    source
        Only those of this library: ``"torchvision"``, ``"timm"``, ``"taskonomy"`` or ``"trunk"``.

    Raises
    ------
    InputError
        If no network of the table has what is asked for; says what there is.
    """
    found = list(_table().values())
    for asked, words in (
        (family, lambda s: (s.family, s.architecture)),
        (task, lambda s: (s.task, s.task.partition("/")[0])),
        (source, lambda s: (s.source.partition(":")[0],)),
    ):
        if asked is None:
            continue
        there = sorted({word for spec in _table().values() for word in words(spec)})
        if asked.casefold() not in [word.casefold() for word in there]:
            raise InputError(f"no network has {asked!r}; there are {', '.join(there)}")
        found = [s for s in found if asked.casefold() in [w.casefold() for w in words(s)]]
    return found


def find_network(reference: str) -> NetworkSpec:
    """Return what a reference names; nothing is built or read.

    Parameters
    ----------
    reference
        A name of the table, ``"torchvision:NAME"``, ``"timm:NAME"``, ``"timm:NAME.TAG"``,
        ``"hf:ORG/NAME"``, ``"file.py:builder"`` or ``"module:builder"``; with ``@random:SEED``
        after it for the same network untrained.

    Raises
    ------
    InputError
        If it is neither a name of the table nor a reference.
    """
    twin = _TWIN.fullmatch(reference)
    if twin:
        return find_network(twin.group(1)).random(int(twin.group(2)))
    if reference in _table():
        return _table()[reference]
    if ":" not in reference:
        close = difflib.get_close_matches(reference, _table(), n=5, cutoff=0.5)
        raise InputError(
            f"no network {reference!r} in the zoo"
            + (f"; similar names are {', '.join(close)}" if close else "")
            + "; 'pocketcortex zoo list' shows all; others are named timm:NAME, torchvision:NAME, "
            "hf:ORG/NAME or file.py:builder"
        )
    return NetworkSpec(name=reference, source=reference)


def network_source(spec: NetworkSpec) -> Source:
    """Return the source of a network: its weights file, its preprocessing.

    Raises
    ------
    InputError
        If the library that it comes from is not installed, or has no such network.
    """
    return find_source(spec.source, spec.name.partition("@random:")[0])


def network_preprocessing(
    spec: NetworkSpec, *, protocol: str = "own", input_size: int | None = None
) -> Preprocessing:
    """Return what is done to raw images before a network; `build_network` says how it is chosen.

    Raises
    ------
    InputError
        If there is no such protocol, the network cannot take it, or the size is below one pixel.
    """
    source = network_source(spec)
    if protocol == "own":
        how = source.preprocessing
    elif protocol == "published":
        how = source.published_preprocessing
    else:
        raise InputError(f"protocol {protocol!r} is neither 'own' nor 'published'")
    if input_size is not None:
        how = dataclasses.replace(how, size=(input_size, input_size), short_side=None)
    return how


def build_network(
    network: str | NetworkSpec,
    *,
    weights: str | Path | None = None,
    protocol: str = "own",
    input_size: int | None = None,
    download: bool = False,
) -> Network:
    """Return a network with its weights, ready for raw images.

    Parameters
    ----------
    network
        As `find_network` reads it, or what it returns.
    weights
        ``"random:SEED"`` or the path of a weights file, instead of those the network names.
    protocol
        ``"own"``: preprocessing as its publishers scored the weights (size, crop, interpolation,
        normalisation); random weights get the same as trained ones, and networks of your own get
        the images as they are. ``"published"``: what the published benchmark gave, which is
        224 x 224 without crop and ImageNet's normalisation, or 256 x 256 in -1..1 for Taskonomy's
        encoders.
    input_size
        Side in pixels to which whole images are resized instead, without crop.
    download
        Whether weights that are not on this machine may be fetched. Otherwise nothing is asked of
        any network.

    Raises
    ------
    InputError
        If the network or its library is not there, its weights are missing, damaged or do not fit,
        or the preprocessing is not one that it can take.
    """
    spec = find_network(network) if isinstance(network, str) else network
    if weights is not None:
        seed = NetworkSpec(spec.name, spec.source, str(weights)).seed
        spec = (
            dataclasses.replace(spec, weights=str(weights)) if seed is None else spec.random(seed)
        )
    source = network_source(spec)
    path: Path | None = None
    if spec.weights == PRETRAINED:
        path = source.require(spec.name, download=download)
    elif spec.seed is None:
        path = Path(spec.weights).expanduser()
    how = network_preprocessing(spec, protocol=protocol, input_size=input_size)
    module = source.trained(path) if spec.seed is None else source.random(spec.seed)
    return Network(module, spec, how)
