"""`pocketcortex models`: score published compact models on recordings."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(help="Score published compact models.")


class Half(StrEnum):
    """Which of a session's images, in order of presentation."""

    all = "all"
    first = "first-half"
    second = "second-half"


@app.callback()
def _models() -> None:
    """Score published compact models."""


@app.command()
def score(
    path: Annotated[Path, typer.Argument(help="Folder of a V4 release.")],
    session: Annotated[str, typer.Option(help="Session whose models and images are used.")],
    images: Annotated[Half, typer.Option(help="Which of the session's images.")] = Half.second,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
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
