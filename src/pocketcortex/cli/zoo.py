"""`pocketcortex zoo`: the networks of the zoo, and what each needs and gives."""

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pocketcortex.cli._options import Device, Json, Out, Scheduler

if TYPE_CHECKING:
    from pocketcortex.core import BrainArea
    from pocketcortex.zoo import NetworkSpec

app = typer.Typer(help="Look at the zoo of task-driven networks; score and rank it on recordings.")


class ProtocolChoice(StrEnum):
    """Whose preprocessing."""

    own = "own"
    published = "published"


class ComparisonChoice(StrEnum):
    """How dissimilarity matrices are compared."""

    pearson = "pearson"
    spearman = "spearman"
    whitened = "whitened"


class CorrectionChoice(StrEnum):
    """Of p-values, for the number of pairs of networks."""

    holm = "holm"
    fdr = "fdr"
    none = "none"


@app.callback()
def _zoo() -> None:
    """Look at the zoo of task-driven networks; score and rank it on recordings."""


@app.command("list")
def list_(
    family: Annotated[
        str | None, typer.Option(help="Only this family or architecture, such as transformer.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="Only this task or kind of task, such as self-supervised."),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Only those of torchvision, timm, taskonomy or trunk.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the networks that have a name; NAME@random:SEED is the same one untrained."""
    from pocketcortex.zoo import list_networks

    specs = list_networks(family=family, task=task, source=source)
    if as_json:
        typer.echo(json.dumps({"networks": [spec.as_dict() for spec in specs]}))
    else:
        _print_list(specs)


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            help="A name that list shows, timm:NAME, torchvision:NAME, hf:ORG/NAME, "
            "file.py:builder or module:builder; @random:SEED after it for the untrained one."
        ),
    ],
    protocol: Annotated[
        ProtocolChoice, typer.Option(help="Preprocessing: the weights' own, or as published.")
    ] = ProtocolChoice.own,
    input_size: Annotated[
        int | None, typer.Option(min=1, help="Side in pixels to resize whole images to.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a network is: its layers, parameters, preprocessing, and where its weights go.

    Weights are neither needed nor fetched: layers and shapes are those of the untrained network.
    """
    result = describe(name, protocol.value, input_size)
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False))
    else:
        _print_network(result)


@app.command()
def score(
    models: Annotated[
        str,
        typer.Option(
            help="Networks, separated by commas: as for show; functions of --builders (* for all "
            "of its BACKBONES); files or folders of compact models, NAME=PATTERN* for several as "
            "one row; a run's folder for its ensemble. @random:SEED after any."
        ),
    ],
    recordings: Annotated[
        list[Path], typer.Option(help="File or folder of recordings; more than once for several.")
    ],
    out: Out = Path("runs/zoo"),
    builders: Annotated[
        Path | None, typer.Option(help="Python file whose functions are networks of your own.")
    ] = None,
    twins: Annotated[
        int, typer.Option(min=0, help="Random twins of each trained network, seeds 0 and up.")
    ] = 0,
    areas: Annotated[
        str, typer.Option(help="Only areas whose id matches one of these patterns, by commas.")
    ] = "*",
    analyses: Annotated[str, typer.Option(help="regression, rsa or both.")] = "regression,rsa",
    comparison: Annotated[
        ComparisonChoice, typer.Option(help="Of dissimilarity matrices.")
    ] = ComparisonChoice.pearson,
    limit: Annotated[
        int | None, typer.Option(min=10, help="Only so many images of an area, drawn by seed.")
    ] = None,
    reliability: Annotated[
        float | None, typer.Option(help="Only neurons of this split-half reliability or more.")
    ] = None,
    protocol: Annotated[
        ProtocolChoice, typer.Option(help="Preprocessing: the weights' own, or as published.")
    ] = ProtocolChoice.own,
    input_size: Annotated[
        int | None, typer.Option(min=1, help="Side in pixels to resize whole images to.")
    ] = None,
    n_layers: Annotated[
        int | None, typer.Option(min=1, help="So many layers, spread evenly; all by default.")
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Of honest regression.")] = 2,
    splits: Annotated[int, typer.Option(min=1, help="Halvings of honest RSA.")] = 10,
    permutations: Annotated[int, typer.Option(min=0, help="Of each null.")] = 5,
    resamples: Annotated[int, typer.Option(min=2, help="Of each interval.")] = 1000,
    rsa_images: Annotated[
        int, typer.Option(min=10, help="Most images of RSA; more are thinned by seed.")
    ] = 300,
    memory_gib: Annotated[float, typer.Option(help="Most memory of a pass.")] = 2.0,
    keep_kernels: Annotated[bool, typer.Option(help="Leave kernels on disk.")] = False,
    download: Annotated[bool, typer.Option(help="Fetch weights that are not here.")] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of all that is random.")] = 0,
    device: Device = "auto",
    scheduler: Scheduler = "local",
    as_json: Json = False,
) -> None:
    """Score networks on recordings: regression and RSA, honest and as published, with intervals.

    A folder for each network and area; what is done is skipped when the command is given again.
    """
    from pocketcortex.benchmark import AreaSettings
    from pocketcortex.pipeline.zoo_models import zoo_models
    from pocketcortex.pipeline.zoo_scores import StreamSettings
    from pocketcortex.pipeline.zoo_spread import ZooSweep, spread_zoo

    rows = partial(
        zoo_models, _listed(models), builders=builders, n_twins=twins, protocol=protocol.value,
        input_size=input_size, download=download,
    )  # fmt: skip
    settings = AreaSettings(
        analyses=tuple(_listed(analyses)),
        comparison=comparison.value, n_folds=folds, n_splits=splits, n_permutations=permutations,
        n_resamples=resamples, rsa_stimuli=rsa_images,
    )  # fmt: skip
    stream = StreamSettings(n_layers, memory_gib, keep_kernels=keep_kernels)
    found = partial(read_recorded, recordings, _listed(areas), reliability, limit, seed)
    sweep = ZooSweep(rows, found, seed, settings, stream)
    result = spread_zoo(sweep, out, scheduler=scheduler, device=device)
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False))
    else:
        _print_scores(result)


@app.command()
def rank(
    run: Annotated[Path, typer.Argument(help="Folder of zoo score.")],
    correction: Annotated[
        CorrectionChoice, typer.Option(help="Of p for the number of pairs of networks.")
    ] = CorrectionChoice.holm,
    properties: Annotated[
        Path | None,
        typer.Option(
            help="CSV file with a column model and others, such as family or top1: they are added "
            "to what is known of the networks."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of all that is random.")] = 0,
    as_json: Json = False,
) -> None:
    """Rank scored networks: leaderboards, pairwise tests, trained against random, properties.

    Fills the folder rank of the run: tables, figures, report.html.
    """
    from pocketcortex.pipeline.zoo_ranking import rank_zoo

    result = rank_zoo(run, correction=correction.value, properties=properties, seed=seed)
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False))
    else:
        _print_ranks(result)


def read_recorded(
    paths: Sequence[Path],
    patterns: Sequence[str],
    reliability: float | None,
    limit: int | None,
    seed: int,
) -> "list[BrainArea]":
    """Return the areas of all paths whose ids match a pattern, thinned where that is asked for.

    Parameters
    ----------
    paths
        Files or folders of recordings.
    patterns
        Of ids, with ``*`` and ``?``.
    reliability
        Least split-half reliability of neurons that are kept; None for all.
    limit
        Most images of an area, the same ones of areas of equal length; None for all.
    seed
        Of the images kept.

    Raises
    ------
    InputError
        If nothing is recognised or matches, or reliability is not known.
    """
    from fnmatch import fnmatchcase

    import numpy as np

    from pocketcortex.core import InputError
    from pocketcortex.data import read_areas

    found = [area for path in paths for area in read_areas(path, seed=seed)]
    named = [area for area in found if any(fnmatchcase(area.id, p) for p in patterns)]
    if not named:
        ids = ", ".join(area.id for area in found)
        raise InputError(f"no area matches {', '.join(patterns)}; there are {ids}")
    if limit is not None:
        rng = np.random.default_rng(seed)
        orders = {n: rng.permutation(n) for n in sorted({area.n_stimuli for area in named})}
        named = [
            area if area.n_stimuli <= limit else area.take(np.sort(orders[area.n_stimuli][:limit]))
            for area in named
        ]
    if reliability is not None:
        named = [a if a.session is None else a.reliable(reliability) for a in named]
    return named


def _listed(words: str) -> list[str]:
    return [word.strip() for word in words.split(",") if word.strip()]


def _print_scores(result: Mapping[str, Any]) -> None:
    _print_rows(
        result["scores"], ("area", "model", "metric", "value", "ci_low", "ci_high", "ceiling")
    )
    typer.echo(
        f"{result['n_models']} networks, {result['n_areas']} areas; scores.csv and scores.parquet "
        f"in {result['out']}; rank them by: pocketcortex zoo rank {result['out']}"
    )
    for name, why in result["failed"].items():
        typer.echo(f"{name} was passed over: {why}", err=True)
    for row in result["in_sample"]:
        typer.echo(f"{row['model']} on {row['area']} is no test: {row['why']}", err=True)


def _print_ranks(result: Mapping[str, Any]) -> None:
    for name, board in result["leaderboards"].items():
        typer.echo(name)
        _print_rows(board, ("rank", "model", "value", "ci_low", "ci_high", "as_good_as_best"))
        for row in board:
            if row["in_sample"]:
                typer.echo(f"{row['model']} is not ranked: {row['in_sample']}", err=True)
    typer.echo(f"tables, figures and report.html in {result['out']}")


def _print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row[column]) for column in columns))
    Console(markup=False, highlight=False).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def describe(name: str, protocol: str, input_size: int | None) -> dict[str, Any]:
    """Return what is known of a network as a JSON object.

    Raises
    ------
    InputError
        If there is no such network, or it cannot take the preprocessing.
    """
    import dataclasses

    from pocketcortex.zoo import build_network, find_network, network_layers, network_source

    spec = find_network(name)
    source = network_source(spec)
    file = source.file
    builds = spec if file is None or spec.seed is not None else spec.random(0)
    network = build_network(builds, protocol=protocol, input_size=input_size)
    how = network.preprocessing
    layers = network_layers(network, image_size=how.size or (224, 224))
    trained = spec.seed is None and file is not None
    found = source.find() if trained else None
    return spec.as_dict() | {
        "n_parameters": network.n_parameters,
        "preprocessing": dataclasses.asdict(how),
        "weights_file": file.names[0] if trained and file else None,
        "weights_address": (file.address or None) if trained and file else None,
        "weights_path": None if found is None else str(found),
        "n_layers": len(layers),
        "layers": [dataclasses.asdict(layer) for layer in layers],
    }


def _print_list(specs: "Sequence[NetworkSpec]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("network", "architecture", "task"):
        table.add_column(heading, overflow="fold")
    for spec in specs:
        table.add_row(spec.name, spec.architecture, spec.task)
    Console(markup=False).print(table)


def _print_network(result: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False)
    console.print(f"{result['name']}: {_what(result)}", soft_wrap=True)
    console.print(f"source {result['source']}", soft_wrap=True)
    if result["note"]:
        console.print(f"note: {result['note']}", soft_wrap=True)
    console.print(f"preprocessing: {_preprocessing(result['preprocessing'])}", soft_wrap=True)
    console.print(f"weights: {_weights(result)}", soft_wrap=True)
    console.print(f"{result['n_parameters']:,} parameters, {result['n_layers']} layers\n")
    table = Table(box=None, pad_edge=False)
    table.add_column("layer", overflow="fold")
    table.add_column("kind")
    table.add_column("features of an image", justify="right", no_wrap=True)
    for layer in result["layers"]:
        table.add_row(layer["name"], layer["kind"], " x ".join(map(str, layer["shape"])))
    console.print(table)


def _what(result: Mapping[str, Any]) -> str:
    known = [result[field] for field in ("family", "architecture") if result[field]]
    task = {"": "", "none": "untrained"}.get(result["task"], f"trained on {result['task']}")
    data = f" with {result['data']}" if task.startswith("trained") and result["data"] else ""
    return ", ".join([*known, *([task + data] if task else [])]) or "a network of your own"


def _preprocessing(how: Mapping[str, Any]) -> str:
    parts = ["images as they are"]
    if how["size"] is not None:
        height, width = how["size"]
        parts = [f"whole image to {height} x {width}, {how['interpolation']}"]
        if how["short_side"] is not None:
            parts = [
                f"short side to {how['short_side']}, {how['interpolation']}",
                f"middle {height} x {width}",
            ]
    if how["mean"] is None:
        return ", ".join([*parts, "levels 0..255"])
    mean, std = (", ".join(f"{value:g}" for value in how[field]) for field in ("mean", "std"))
    return ", ".join([*parts, f"mean {mean}, std {std} of levels in 0..1"])


def _weights(result: Mapping[str, Any]) -> str:
    from pocketcortex.zoo import WEIGHTS_VARIABLE

    if result["weights"].startswith("random:"):
        return f"drawn by seed {result['weights'].partition(':')[2]}"
    if result["weights_file"] is None:
        return "the builder's own"
    if result["weights_path"] is not None:
        return str(result["weights_path"])
    address = f", published at {result['weights_address']}" if result["weights_address"] else ""
    return (
        f"not here; {result['weights_file']}{address}, is looked for in the folder that "
        f"{WEIGHTS_VARIABLE} names"
    )
