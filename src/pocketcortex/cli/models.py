"""`pocketcortex models`: look at compact models, export them, score published ones."""

import json
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pocketcortex.cli._options import Device, Json

if TYPE_CHECKING:
    from pocketcortex.models import CompactModel, ExportFormat, ModelCard, SharedCompactModel

app = typer.Typer(help="Look at compact models, export them, score published ones.")

_PUBLISHED = (".pt", ".npy", ".h5", ".keras")

Models = Annotated[
    Path,
    typer.Argument(
        help="A saved model's folder, a published model's file (.pt, .npy, .h5, .keras), or a "
        "folder of either."
    ),
]


class Format(StrEnum):
    """What to export to."""

    onnx = "onnx"
    torch = "torch"
    numpy = "numpy"
    hub = "hub"
    brainscore = "brainscore"


_EXPORTS: "dict[Format, ExportFormat]" = {
    Format.onnx: "onnx",
    Format.torch: "torch",
    Format.numpy: "numpy",
    Format.hub: "hub",
}


class Half(StrEnum):
    """Which of a session's images, in order of presentation."""

    all = "all"
    first = "first-half"
    second = "second-half"


@app.callback()
def _models() -> None:
    """Look at compact models, export them, score published ones."""


@app.command()
def show(path: Models, as_json: Json = False) -> None:
    """Say how large compact models are: parameters, filters, multiply-adds, bytes."""
    result = describe(read_models(path))
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False))
    else:
        _print_sizes(result)


@app.command()
def export(
    path: Models,
    format: Annotated[Format, typer.Option(help="What to write.")],
    out: Annotated[Path, typer.Option(help="Folder to write into; made if missing.")],
    card: Annotated[
        Path | None,
        typer.Option(
            help="For hub: JSON file with the model card's license, and if known neuron, training "
            "and scores."
        ),
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(
            help="For brainscore: the region (V1, V2, V4 or IT) that the responses stand for; if "
            "left out, Brain-Score chooses a layer for each region."
        ),
    ] = None,
    degrees: Annotated[
        float, typer.Option(help="For brainscore: degrees of visual field that an image covers.")
    ] = 8.0,
    as_json: Json = False,
) -> None:
    """Write compact models as ONNX, torch.export, plain NumPy, Hub or Brain-Score folders.

    Of several models, onnx and torch also write population.onnx or population.pt2, which gives all
    their responses at once; brainscore writes one plugin for all of them. A published shared model
    (.keras) becomes a plugin too.
    """
    from pocketcortex.models import export_model, export_name

    if format is Format.brainscore:
        _report_export("brainscore", *_export_plugin(path, out, region, degrees), as_json)
        return
    models = read_models(path)
    about = None if card is None else read_card(card)
    to: ExportFormat = _EXPORTS[format]
    written = [
        export_model(model, out / export_name(name, to), to, card=about)
        for name, model in models.items()
    ]
    if len(models) > 1 and format in (Format.onnx, Format.torch):
        whole = out / export_name("population", to)
        written.append(export_model(list(models.values()), whole, to))
    _report_export(format.value, list(models), written, as_json)


@app.command()
def score(
    path: Annotated[Path, typer.Argument(help="Folder of a V4 release.")],
    session: Annotated[str, typer.Option(help="Session whose models and images are used.")],
    images: Annotated[Half, typer.Option(help="Which of the session's images.")] = Half.second,
    as_json: Json = False,
    device: Device = "auto",
) -> None:
    """Score a session's published compact models: squared correlation with its mean responses."""
    result = score_published(path, session, images, device)
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False))
        return
    values = [value for value in result["values"] if value is not None]
    typer.echo(
        f"session {session}: {result['n_neurons']} compact models, {result['n_stimuli']} images "
        f"({images.value})\nmedian r² {result['median']:.4f}, "
        f"range {min(values):.4f} to {max(values):.4f}"
    )


def _report_export(to: str, models: list[str], written: list[Path], as_json: bool) -> None:
    if as_json:
        answer = {"format": to, "models": models, "written": [str(p) for p in written]}
        typer.echo(json.dumps(answer))
    else:
        typer.echo("\n".join(map(str, written)))


def _export_plugin(
    path: Path, out: Path, region: str | None, degrees: float
) -> tuple[list[str], list[Path]]:
    """Write the one plugin of what is at a path; return names of models and the folder."""
    from pocketcortex.models import export_brainscore, import_shared_model

    if path.suffix == ".keras" and path.stem.startswith("shared"):
        names = [path.stem]
        model: CompactModel | SharedCompactModel | list[CompactModel] = import_shared_model(path)
    else:
        models = read_models(path)
        names = list(models)
        model = models[names[0]] if len(names) == 1 else list(models.values())
    name = names[0] if len(names) == 1 else "population"
    regions = None if region is None else {region: "responses"}
    package = "pocketcortex_" + re.sub(r"[^A-Za-z0-9_]", "_", name)
    folder = export_brainscore(model, out / package, regions=regions, visual_degrees=degrees)
    return names, [folder]


def read_models(path: Path) -> "dict[str, CompactModel]":
    """Return compact models by name: those of a folder in order, or the one that `path` is.

    Raises
    ------
    InputError
        If there is none, or one cannot be read.
    """
    from pocketcortex.core import InputError
    from pocketcortex.models import CompactModel, import_compact_model

    if not path.is_dir():
        return {path.stem: import_compact_model(path)}
    if (path / "model.safetensors").is_file():
        return {path.resolve().name: CompactModel.load(path)}
    saved = {p.parent.name: p.parent for p in path.glob("*/model.safetensors")}
    files = {p.stem: p for p in path.iterdir() if p.suffix in _PUBLISHED}
    if not saved and not files:
        raise InputError(
            f"{path} holds no compact model; expected config.json and model.safetensors, folders "
            f"with these, or published models ({', '.join(_PUBLISHED)})"
        )
    models = {name: CompactModel.load(folder) for name, folder in saved.items()}
    models |= {name: import_compact_model(file) for name, file in files.items()}
    return {name: models[name] for name in sorted(models, key=_natural)}


def read_card(path: Path) -> "ModelCard":
    """Return the model card that a JSON file describes.

    Raises
    ------
    InputError
        If the file cannot be read, has other fields or values, or names no licence.
    """
    import pydantic

    from pocketcortex.core import InputError
    from pocketcortex.models import ModelCard

    try:
        return ModelCard.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read the model card {path}: {error.strerror}") from error
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(
            f"{path}: {where}: {first['msg']}; a model card is a JSON object with license, and if "
            "known neuron, training and scores"
        ) from error


def describe(models: "Mapping[str, CompactModel]") -> dict[str, Any]:
    """Return every model's size and the medians over models, ready for JSON."""
    from statistics import median

    from pocketcortex.models import model_size

    rows: list[dict[str, Any]] = []
    for name, model in models.items():
        size = model_size(model)
        rows.append(
            {
                "name": name,
                "image_size": list(model.image_size),
                "filters": list(size.filters),
                "filters_per_stage": list(size.filters_per_stage),
                "n_filters": size.n_filters,
                "parameters": size.parameters.total,
                "convolution_parameters": size.parameters.convolution,
                "batch_norm_parameters": size.parameters.batch_norm,
                "readout_parameters": size.parameters.readout,
                "macs_per_stage": list(size.macs_per_stage),
                "macs": size.macs,
                "bytes": size.n_bytes,
            }
        )
    counts = ("parameters", "n_filters", "macs", "bytes")
    return {
        "n_models": len(rows),
        "median": {name: median(row[name] for row in rows) for name in counts},
        "models": rows,
    }


def _print_sizes(result: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("model", overflow="fold")
    table.add_column("filters a layer", no_wrap=True)
    for heading in ("filters", "parameters", "multiply-adds", "bytes"):
        table.add_column(heading, justify="right", no_wrap=True)
    rows = [[row["name"], ", ".join(map(str, row["filters"])), row] for row in result["models"]]
    if len(rows) > 1:
        rows.append([f"median of {len(rows)}", "", result["median"]])
    for name, filters, row in rows:
        counts = (f"{row[key]:,.10g}" for key in ("n_filters", "parameters", "macs", "bytes"))
        table.add_row(name, filters, *counts)
    Console(markup=False).print(table)


def _natural(name: str) -> list[tuple[str, int]]:
    """Return a sort key that puts neuron2 before neuron10."""
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", name)]


def score_published(path: Path, session: str, images: Half, device: str) -> dict[str, Any]:
    """Return the scores of a session's published models as a JSON object.

    A neuron that cannot be scored has the value None and a reason under ``reasons``; the median
    is over the others.

    Raises
    ------
    InputError
        If the session, its images or its models are missing, or the device is.
    """
    import numpy as np
    import torch

    from pocketcortex.core import InputError
    from pocketcortex.data import read_v4
    from pocketcortex.metrics import pearson_r2
    from pocketcortex.models import CompactStack, import_compact_model, published_models
    from pocketcortex.pipeline import resolve_device

    recorded = read_v4(path).select([session])[session]
    recorded.require_stimuli()
    half = recorded.n_stimuli // 2
    bounds = {
        Half.all: slice(None),
        Half.first: slice(0, half),
        Half.second: slice(half, None),
    }[images]
    part = recorded.take(bounds)
    paths = published_models(path, session)
    beyond = [k for k in paths if k >= part.n_neurons]
    if beyond:
        raise InputError(f"models of neurons {beyond}, but session {session} has {part.n_neurons}")
    where = resolve_device(device)
    stack = CompactStack([import_compact_model(p) for p in paths.values()]).to(where)
    pixels = torch.from_numpy(part.require_stimuli().images()).to(where)
    predictions = stack.predict(pixels).cpu().double().numpy()
    values = pearson_r2(part.mean_responses[:, list(paths)], predictions)
    finite = np.isfinite(values)
    if not finite.any():
        raise InputError(f"no neuron of session {session} can be scored")
    unusable = part.unusable_neurons()
    return {
        "session": int(session) if session.isdigit() else session,
        "n_neurons": len(paths),
        "n_stimuli": part.n_stimuli,
        "metric": "r2",
        "median": float(np.median(values[finite])),
        "neurons": list(paths),
        "values": [float(v) if ok else None for v, ok in zip(values, finite, strict=True)],
        "reasons": {
            str(k): unusable.get(k, "undefined")
            for k, ok in zip(paths, finite, strict=True)
            if not ok
        },
    }
