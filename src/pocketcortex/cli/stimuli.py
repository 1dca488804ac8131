"""`pocketcortex stimuli`: images that drive, silence and fool compact models."""

import json
from collections.abc import Callable
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pocketcortex.cli._options import Device, Json, Out
from pocketcortex.cli.models import Models, read_models

if TYPE_CHECKING:
    from pocketcortex.core import StimulusSet
    from pocketcortex.pipeline.stimuli import StimuliJob

app = typer.Typer(help="Make images that drive, silence and fool compact models.")

Only = Annotated[str, typer.Option(help="Pattern of the models' names, such as *190923*.")]
_BANK = typer.Option(help="Natural images: a folder, .zip, .tar, tar shards or .npy array.")
Bank = Annotated[Path, _BANK]
MaybeBank = Annotated[Path | None, _BANK]
Seed = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of noise and random choices.")]
Limit = Annotated[
    int | None, typer.Option(min=1, help="At most so many images of the bank, the first by name.")
]
Images = Annotated[int, typer.Option(min=1, help="Images a model.")]
Steps = Annotated[int, typer.Option(min=1, help="Gradient steps of each synthesized image.")]
Starts = Annotated[int, typer.Option(min=1, help="Noise images that each model starts from.")]
Constrained = Annotated[
    bool,
    typer.Option("--constrained", help="Keep mean, contrast and spectrum as of photographs."),
]
Grayscale = Annotated[bool, typer.Option("--grayscale", help="Synthesize in grey.")]


class Norm(StrEnum):
    """How the size of an adversarial change is measured, in levels of 255."""

    l2 = "l2"
    linf = "linf"


@app.callback()
def _stimuli() -> None:
    """Make images that drive, silence and fool compact models."""


def _driver(minimize: bool) -> Callable[..., None]:
    """Return the command that drives models, or silences them: they take the same options."""

    def command(
        models: Models,
        out: Out,
        bank: MaybeBank = None,
        only: Only = "*",
        natural: Images = 9,
        starts: Starts = 4,
        steps: Steps = 1000,
        constrained: Constrained = False,
        grayscale: Grayscale = False,
        limit: Limit = None,
        seed: Seed = 0,
        device: Device = "auto",
        as_json: Json = False,
    ) -> None:
        from pocketcortex.pipeline.driving_stimuli import drive

        job = job_of(models, only, out, seed, device)
        result = drive(
            job, None if bank is None else bank_of(bank, job, limit), minimize=minimize,
            n_natural=natural, n_starts=starts, n_steps=steps, constrained=constrained,
            grayscale=grayscale,
        )  # fmt: skip
        answer(result, as_json)

    return command


app.command("maximize", help="Find and synthesize the images that drive each model most.")(
    _driver(minimize=False)
)
app.command("minimize", help="Find and synthesize the images that silence each model most.")(
    _driver(minimize=True)
)


@app.command()
def adversarial(
    models: Models,
    out: Out,
    bank: Bank,
    only: Only = "*",
    images: Images = 4,
    budget: Annotated[
        float, typer.Option(help="Largest change in levels: root mean square, or of any pixel.")
    ] = 4.0,
    norm: Annotated[Norm, typer.Option(help="How the change is measured.")] = Norm.l2,
    steps: Annotated[int, typer.Option(min=1, help="Gradient steps of each image.")] = 50,
    limit: Limit = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Change natural images a little so that they raise, or lower, each model's response."""
    from pocketcortex.pipeline.perturbed_stimuli import perturb

    job = job_of(models, only, out, seed, device)
    answer(
        perturb(
            job, bank_of(bank, job, limit), n_images=images, budget=budget, norm=norm.value,
            n_steps=steps,
        ),
        as_json,
    )  # fmt: skip


@app.command()
def saliency(
    models: Models,
    out: Out,
    bank: Bank,
    only: Only = "*",
    images: Images = 1,
    limit: Limit = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Map where smoothing a patch of its preferred images changes each model's response."""
    from pocketcortex.pipeline.perturbed_stimuli import find_salient

    job = job_of(models, only, out, seed, device)
    answer(find_salient(job, bank_of(bank, job, limit), n_images=images), as_json)


@app.command()
def smooth(
    models: Models,
    out: Out,
    bank: Bank,
    only: Only = "*",
    images: Images = 4,
    patches: Annotated[int, typer.Option(min=1, help="Patches smoothed in each image.")] = 25,
    limit: Limit = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Smooth the patches of preferred images that lower a response most, and random ones."""
    from pocketcortex.pipeline.perturbed_stimuli import smooth as smooth_images

    job = job_of(models, only, out, seed, device)
    bank_read = bank_of(bank, job, limit)
    answer(smooth_images(job, bank_read, n_images=images, n_patches=patches), as_json)


@app.command()
def make(
    out: Out,
    size: Annotated[int, typer.Option(min=32, help="Height and width in pixels.")] = 112,
    bank: MaybeBank = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Write examples of every kind of stimulus with their parameters, and a contact sheet."""
    from pocketcortex.data import read_bank
    from pocketcortex.pipeline.stimuli import draw

    answer(
        draw(out, size, natural=None if bank is None else read_bank(bank, size), seed=seed),
        as_json,
    )


def job_of(models: Path, only: str, out: Path, seed: int, device: str) -> "StimuliJob":
    """Return the job for models whose names match a pattern.

    Raises
    ------
    InputError
        If there is none, one cannot be read, or they take images of different sizes.
    """
    from pocketcortex.core import InputError
    from pocketcortex.pipeline import resolve_device
    from pocketcortex.pipeline.stimuli import StimuliJob

    found = read_models(models)
    named = {name: model for name, model in found.items() if fnmatchcase(name, only)}
    if not named:
        raise InputError(
            f"none of the {len(found)} models of {models} is named like {only!r}; the first is "
            f"{next(iter(found))!r}"
        )
    return StimuliJob(named, out, seed, resolve_device(device))


def bank_of(path: Path, job: "StimuliJob", limit: int | None) -> "StimulusSet":
    """Return the images of a bank in the size that the models take.

    Raises
    ------
    InputError
        If the bank cannot be read, or the models take images that are not square.
    """
    from pocketcortex.core import InputError
    from pocketcortex.data import read_bank

    height, width = job.listed[0].image_size
    if height != width:
        raise InputError(f"image banks are cut square; the models take {height} x {width}")
    return read_bank(path, height, limit=limit)


def answer(result: dict[str, Any], as_json: bool) -> None:
    """Print a summary, as one JSON object or line by line."""
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False))
        return
    for name, value in result.items():
        if name in ("settings", "packages", "machine", "python", "commit", "date"):
            continue
        shown = value
        if isinstance(value, dict):
            shown = ", ".join(f"{key} {_text(entry)}" for key, entry in value.items())
        typer.echo(f"{name.replace('_', ' ')}: {_text(shown)}")


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
