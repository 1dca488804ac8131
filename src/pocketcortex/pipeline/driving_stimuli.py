"""Images that drive or silence compact models most: found in a bank, and synthesized."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import UInt8

from pocketcortex.core import InputError, StimulusSet, read_arrays, whole_file
from pocketcortex.pipeline.progress import progress_bar
from pocketcortex.pipeline.simulated_causal import predictions
from pocketcortex.pipeline.stimuli import (
    StimuliJob,
    drawn_at_random,
    grouped,
    image_rows,
    searched,
)
from pocketcortex.plots import (
    figure_gallery,
    figure_gallery_pairs,
    figure_population_gallery,
    render_figure,
)
from pocketcortex.stimuli import NaturalConstraint, Synthesized, synthesize

_MODELS_A_PART = 16
"""Models synthesized for between two saves."""
_N_SIMILARITY = 1000
"""Images of the bank by which models are grouped."""


def drive(
    job: StimuliJob,
    bank: StimulusSet | None,
    *,
    minimize: bool = False,
    n_natural: int = 9,
    n_starts: int = 4,
    n_steps: int = 1000,
    constrained: bool = False,
    grayscale: bool = False,
) -> dict[str, Any]:
    """Find and synthesize the images that drive, or silence, every model most.

    Parameters
    ----------
    job
        Models and folder.
    bank
        Images among which the natural ones are sought; None for synthesized images only.
    minimize
        Silence instead.
    n_natural
        Natural images a model, near-duplicates left out.
    n_starts, n_steps
        Starts from noise and steps of each.
    constrained
        Keep synthesized images at the median mean and contrast of the bank's images, or of
        photographs without one, with a spectrum that falls as theirs.
    grayscale
        Synthesize in grey.

    Returns
    -------
    The content of ``summary.json``. Beside it: ``stimuli.csv``, one row an image with the response
    and its distance from the bank's mean in standard deviations, ``images/``, ``figure.png``, and
    with a bank ``gallery.png``, the population grouped by similarity of responses.

    Raises
    ------
    InputError
        If bank and models do not fit, or a number is out of range.
    """
    settings = {
        "bank": None if bank is None else bank.fingerprint, "minimize": minimize,
        "n_natural": n_natural, "n_starts": n_starts, "n_steps": n_steps,
        "constrained": constrained, "grayscale": grayscale,
    }  # fmt: skip

    def work(folder: Path) -> dict[str, Any]:
        found = None if bank is None else searched(job, bank, n_natural)
        constraint = _constraint(job, bank) if constrained else None
        made = _synthesized(job, folder, n_starts, n_steps, minimize, grayscale, constraint)
        rows = list(image_rows(job, "synthesized", made.images, made.responses, folder))
        summary: dict[str, Any] = {"n_models": len(job.models)}
        pairs = made.images[:, 0]
        if bank is not None and found is not None:
            best = found.weakest if minimize else found.strongest
            natural = np.stack([bank.read(np.maximum(p, 0)) for p in best.positions.T])
            names = np.array(bank.names, dtype=object)[best.positions.T]
            rows += image_rows(job, "natural", natural, best.responses.T, folder, names)
            z = {name: (found.mean[k], found.sd[k]) for k, name in enumerate(job.models)}
            for row in rows:
                mean, sd = z[row["model"]]
                row["sd_above_mean"] = (row["response"] - mean) / sd if sd > 0 else np.nan
            beyond = (made.responses[:, 0] - best.responses[0]) * (-1 if minimize else 1)
            summary |= {
                "n_bank": found.n_images,
                "images_per_second": found.n_images / found.seconds,
                "share_of_time_decoding": found.seconds_decoding / found.seconds,
                "n_synthesized_beyond_natural": int((beyond > 0).sum()),
            }
            labels = ("natural", "synthesized")
            drawn = figure_gallery_pairs(natural[:, 0], pairs, list(job.models), labels=labels)
            _write_gallery(job, bank, natural[:, 0], folder / "gallery.png")
        else:
            drawn = figure_gallery(pairs, list(job.models))
        (folder / "figure.png").write_bytes(render_figure(drawn).png)
        table = pd.DataFrame(rows)
        table.to_csv(folder / "stimuli.csv", index=False)
        for part in folder.glob("part*"):
            part.unlink()
        by_kind = table[table["rank"] == 1].groupby("kind")["response"].median()
        return summary | {
            "median_response": {str(kind): float(value) for kind, value in by_kind.items()},
            "n_climbed": int(made.climbed.any(axis=1).sum()),
        }

    return job.do("minimize" if minimize else "maximize", settings, work)


def _synthesized(
    job: StimuliJob,
    folder: Path,
    n_starts: int,
    n_steps: int,
    minimize: bool,
    grayscale: bool,
    constraint: NaturalConstraint | None,
) -> Synthesized:
    """Synthesize group by group; groups that an earlier try saved are read."""
    groups = []
    with progress_bar("synthesizing", len(job.models)) as advance:
        for first in range(0, len(job.models), _MODELS_A_PART):
            own = job.listed[first : first + _MODELS_A_PART]
            path = folder / f"part{first:05d}.npz"
            try:
                groups.append(Synthesized(**read_arrays(path)))
                advance(len(own))
                continue
            except (InputError, TypeError):  # none, cut short or altered
                pass
            seed = int(np.random.SeedSequence([job.seed, first]).generate_state(1)[0])
            made = synthesize(
                own, n_starts=n_starts, n_steps=n_steps, seed=seed, minimize=minimize,
                grayscale=grayscale, constraint=constraint, device=job.device, advance=advance,
            )  # fmt: skip
            with whole_file(path) as file:
                np.savez(file, **vars(made))
            groups.append(made)
    return Synthesized(*(
        np.concatenate([getattr(group, name) for group in groups])
        for name in ("images", "responses", "climbed")
    ))  # fmt: skip


def _constraint(job: StimuliJob, bank: StimulusSet | None) -> NaturalConstraint:
    if bank is None:
        return NaturalConstraint()
    return NaturalConstraint.of(
        bank.read(drawn_at_random(bank, min(_N_SIMILARITY, len(bank)), job.seed))
    )


def _write_gallery(
    job: StimuliJob, bank: StimulusSet, images: UInt8[np.ndarray, "n_models 3 h w"], path: Path
) -> None:
    """Draw the population's images, grouped by how alike the models answer to the bank."""
    sample = bank.take(drawn_at_random(bank, min(_N_SIMILARITY, len(bank)), job.seed))
    groups = grouped(predictions(job.listed, sample, job.device))
    if groups is not None:
        drawn = figure_population_gallery(images, *groups)
        path.write_bytes(render_figure(drawn).png)
