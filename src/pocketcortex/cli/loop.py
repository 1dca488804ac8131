"""`pocketcortex loop`: choose the next session's images, take the session in, simulate it all."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pocketcortex.cli._options import Device, Json

app = typer.Typer(help="Close the loop: choose images, record them, learn, choose again.")

_Seed = Annotated[int | None, typer.Option(min=0, max=2**63 - 1, help="Decides everything random.")]
_Count = Annotated[int, typer.Option(min=0, help="Images of this arm.")]


@app.callback()
def _loop() -> None:
    """Close the loop: choose images, record them, learn, choose again."""


@app.command()
def propose(
    run: Annotated[Path, typer.Argument(help="Run folder with a trained teacher.")],
    bank: Annotated[Path, typer.Argument(help="Folder, zip, tar or .npy of candidate images.")],
    out: Annotated[Path, typer.Option(help="New folder for the images and their manifest.")],
    disagreement: _Count = 250,
    random: _Count = 250,
    gaudy: _Count = 0,
    diverse: _Count = 0,
    top: Annotated[int, typer.Option(min=1, help="Candidates a core set is chosen from.")] = 2000,
    core: Annotated[str, typer.Option(help="Core set by disagreement or by features.")] = (
        "disagreement"
    ),
    gaudy_pool: Annotated[
        bool, typer.Option("--gaudy-pool", help="Make half of the candidates gaudy.")
    ] = False,
    crops: Annotated[int, typer.Option(min=0, help="Random crops of each image of the bank.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Use so many images of the bank.")] = (
        None
    ),
    size_deg: Annotated[float | None, typer.Option(help="Size to show them at, in degrees.")] = (
        None
    ),
    seed: _Seed = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Choose the next session's images; write them in showing order, ready to show."""
    from pocketcortex.pipeline import propose as propose_images
    from pocketcortex.stimuli import ChoiceConfig

    choice = ChoiceConfig(
        n_disagreement=disagreement, n_random=random, n_gaudy=gaudy, n_diverse=diverse,
        n_top=top, core=core, gaudy_pool=gaudy_pool,
    )  # fmt: skip
    result = propose_images(
        run, bank, out, choice=choice, seed=seed, crops=crops, limit=limit, size_deg=size_deg,
        device=device,
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False))
        return
    arms = ", ".join(f"{n} {arm}" for arm, n in result["arms"].items())
    typer.echo(
        f"{result['n_images']} images in {result['folder']} ({arms}), "
        f"of {result['n_candidates']:,} candidates; seed {result['seed']}"
    )


@app.command()
def ingest(
    proposal: Annotated[Path, typer.Argument(help="Folder that `loop propose` wrote.")],
    responses: Annotated[Path, typer.Argument(help="Recorded responses, .npy or .npz.")],
    out: Annotated[Path, typer.Option(help="Folder of .npz sessions that gets the new one.")],
    session: Annotated[str, typer.Option(help="Name of the new session.")],
    run: Annotated[
        Path | None, typer.Option(help="Teacher that predicts the session before retraining.")
    ] = None,
    same_as: Annotated[
        str | None, typer.Option(help="Test session of the run that has the same neurons.")
    ] = None,
    role: Annotated[str, typer.Option(help="train, validation or test.")] = "train",
    animal: Annotated[str | None, typer.Option(help="Who was recorded.")] = None,
    bin_ms: Annotated[float | None, typer.Option(help="Bin of the counts, in ms.")] = None,
    seed: _Seed = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Check recorded responses against the images shown; add them as a session."""
    from pocketcortex.pipeline import ingest as ingest_session

    result = ingest_session(
        proposal, responses, out, session=session, role=role, animal=animal, bin_ms=bin_ms,
        run=run, same_as=same_as, seed=seed or 0, device=device,
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False))
        return
    typer.echo(
        f"{result['file']}: {result['n_neurons']} neurons, {result['n_images']} images, "
        f"{result['n_repeats']} repeats"
    )
    for neuron, why in result["unusable_neurons"].items():
        typer.echo(f"  neuron {neuron} cannot be used: {why}")
    before = result["before_retraining"]
    if before is not None:
        typer.echo(f"the teacher before retraining ({before['predicted_by']}), {before['metric']}:")
        for arm, score in before["arms"].items():
            typer.echo(f"  {arm:<14} {score['n_images']:>5} images  {_line(score)}")


@app.command()
def simulate(
    out: Annotated[Path, typer.Option(help="Folder for scores, summary and figure.")],
    animals: Annotated[int, typer.Option(min=2, help="Simulated animals.")] = 16,
    sessions: Annotated[int, typer.Option(min=1, help="Sessions of chosen images.")] = 4,
    images: Annotated[int, typer.Option(min=1, help="Images a session.")] = 100,
    plain_bank: Annotated[
        bool, typer.Option("--plain-bank", help="Choose among dead leaves that are all vivid.")
    ] = False,
    seed: _Seed = None,
    as_json: Json = False,
) -> None:
    """Run the loop on simulated animals: what choosing gains on random images."""
    from pocketcortex.pipeline import LoopConfig, simulate_loop

    config = LoopConfig(
        n_animals=animals, n_sessions=sessions, n_images=images, plain_bank=plain_bank
    )
    result = simulate_loop(config, out=out, seed=seed)
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False))
        return
    typer.echo(
        f"{result['n_neurons']} neurons of {result['n_animals']} animals, seed {result['seed']}; "
        f"mean r² after {result['n_images'][0]} and {result['n_images'][-1]} images, 90 % interval"
    )
    for name, entry in result["strategies"].items():
        low, high = entry["ci_low"][-1], entry["ci_high"][-1]
        gain = ", ".join(f"{value:+.3f}" for value in entry["gain"][1:])
        typer.echo(
            f"  {name:<15} {entry['r2'][0]:.3f} to {entry['r2'][-1]:.3f} "
            f"({low:.3f} to {high:.3f}), gain a session {gain}"
        )
    typer.echo(f"figure: {result['figure']}")


def _line(score: dict[str, Any]) -> str:
    if score["median"] is None:
        return "too few images, or no neuron has a score"
    low, high = score["ci"]
    return f"median {score['median']:.3f} (95 % interval {low:.3f} to {high:.3f})"
