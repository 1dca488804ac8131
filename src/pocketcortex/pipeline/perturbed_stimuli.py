"""Natural images changed to change responses: adversarial ones, and smoothed patches."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import UInt8

from pocketcortex.core import InputError, StimulusSet
from pocketcortex.pipeline.progress import progress_bar
from pocketcortex.pipeline.stimuli import (
    N_DRAWS,
    StimuliJob,
    drawn_at_random,
    image_rows,
    searched,
)
from pocketcortex.plots import figure_adversarial, figure_saliency, render_figure
from pocketcortex.stimuli import (
    AdversarialImages,
    PerturbationNorm,
    adversarial,
    random_perturbation,
    randomly_smoothed,
    salient_patches,
    smooth_minus,
    smoothing_saliency,
)

_N_ROWS = 12
"""Models drawn in a figure, the first ones."""


def perturb(
    job: StimuliJob,
    bank: StimulusSet,
    *,
    n_images: int = 4,
    budget: float = 4.0,
    norm: PerturbationNorm = "l2",
    n_steps: int = 50,
) -> dict[str, Any]:
    """Make adversarial images: natural ones changed little to raise and to lower each response.

    Parameters
    ----------
    job
        Models and folder.
    bank
        Images to start from; `n_images` are drawn by seed, the same for all models.
    n_images
        Base images.
    budget, norm, n_steps
        As for `pocketcortex.stimuli.adversarial`.

    Returns
    -------
    The content of ``summary.json``. Beside it: ``stimuli.csv``, one row an image with responses
    before and after, distances, and the change by random perturbations of the same size;
    ``images/`` and ``figure.png``.

    Raises
    ------
    InputError
        If bank and models do not fit, or a number is out of range.
    """
    settings = {
        "bank": bank.fingerprint, "n_images": n_images, "budget": budget, "norm": norm,
        "n_steps": n_steps,
    }  # fmt: skip

    def work(folder: Path) -> dict[str, Any]:
        chosen = drawn_at_random(bank, n_images, job.seed)
        base = np.repeat(bank.read(chosen)[None], len(job.models), axis=0)
        table: list[dict[str, Any]] = []
        results: list[AdversarialImages] = []
        directions: tuple[tuple[Literal["raise", "lower"], str], ...] = (
            ("raise", "adversarial+"), ("lower", "adversarial-"),
        )  # fmt: skip
        with progress_bar("adversarial images", 2 * base.shape[0] * n_images) as advance:
            for direction, kind in directions:
                result = adversarial(
                    job.listed, base, direction=direction, budget=budget, norm=norm,
                    n_steps=n_steps, device=job.device, advance=advance,
                )  # fmt: skip
                rng = np.random.default_rng([job.seed, len(results)])
                control = random_perturbation(
                    job.listed, result, n_draws=N_DRAWS, rng=rng, device=job.device
                )
                by_chance = control.responses - result.base_responses
                sources = np.array(bank.names, dtype=object)[np.tile(chosen, (len(base), 1))]
                for row in image_rows(job, kind, result.images, result.responses, folder, sources):
                    k, i = list(job.models).index(row["model"]), row["rank"] - 1
                    table.append(row | {
                        "base_response": result.base_responses[k, i],
                        "change": result.change[k, i],
                        "rms_levels": result.rms[k, i], "largest_levels": result.linf[k, i],
                        "random_change": by_chance[:, k, i].mean(),
                        "random_change_sd": by_chance[:, k, i].std(ddof=1),
                    })  # fmt: skip
                results.append(result)
        pd.DataFrame(table).to_csv(folder / "stimuli.csv", index=False)
        raised, lowered = results
        shown = slice(0, _N_ROWS)
        responses = np.stack(
            [
                raised.base_responses[shown, 0],
                raised.responses[shown, 0],
                lowered.responses[shown, 0],
            ],
            axis=1,
        )
        drawn = figure_adversarial(
            base[shown, 0], raised.images[shown, 0], lowered.images[shown, 0],
            responses.astype(np.float64), list(job.models)[shown],
        )  # fmt: skip
        (folder / "figure.png").write_bytes(render_figure(drawn).png)
        frame = pd.DataFrame(table)
        return {
            "n_models": len(job.models), "n_images": n_images,
            "median_change": frame.groupby("kind")["change"].median().to_dict(),
            "median_random_change": frame.groupby("kind")["random_change"].median().to_dict(),
            "share_in_direction": {
                "adversarial+": float((results[0].change > 0).mean()),
                "adversarial-": float((results[1].change < 0).mean()),
            },
        }  # fmt: skip

    return job.do("adversarial", settings, work)


def find_salient(job: StimuliJob, bank: StimulusSet, *, n_images: int = 1) -> dict[str, Any]:
    """Map how each model's response changes when a patch of its preferred images is smoothed.

    Parameters
    ----------
    job
        Models and folder.
    bank
        Where each model's `n_images` strongest images are sought.
    n_images
        Images a model.

    Returns
    -------
    The content of ``summary.json``. Beside it: ``maps.npy`` (n_models, n_images, rows, columns),
    ``patches.csv`` with the 25 patches of largest effect that do not overlap, and ``figure.png``.

    Raises
    ------
    InputError
        If bank and models do not fit, or a number is out of range.
    """
    settings = {"bank": bank.fingerprint, "n_images": n_images}

    def work(folder: Path) -> dict[str, Any]:
        images, names = _preferred(job, bank, n_images)
        with progress_bar("saliency", images.shape[0] * images.shape[1]) as advance:
            saliency = smoothing_saliency(job.listed, images, device=job.device, advance=advance)
        np.save(folder / "maps.npy", saliency.maps)
        patches = salient_patches(saliency)
        rows = []
        for k, i, rank in np.ndindex(*patches.shape[:3]):
            top, left = patches[k, i, rank]
            cell = (saliency.positions == (top, left)).all(axis=-1)
            rows.append({
                "model": list(job.models)[k], "image": names[k, i], "rank": rank + 1,
                "top_px": top, "left_px": left, "side_px": saliency.patch,
                "change": saliency.maps[k, i][cell][0],
                "response": saliency.responses[k, i],
            })  # fmt: skip
        table = pd.DataFrame(rows)
        table.to_csv(folder / "patches.csv", index=False)
        shown = slice(0, _N_ROWS)
        drawn = figure_saliency(
            images[shown, 0], saliency.maps[shown, 0].astype(np.float64), saliency.positions,
            patches[shown, 0], saliency.responses[shown, :1].astype(np.float64),
            list(job.models)[shown], patch=saliency.patch,
        )  # fmt: skip
        (folder / "figure.png").write_bytes(render_figure(drawn).png)
        first = table[table["rank"] == 1]
        return {
            "n_models": len(job.models), "n_images": n_images,
            "patch_px": saliency.patch,
            "median_largest_change": float(first["change"].median()),
        }  # fmt: skip

    return job.do("saliency", settings, work)


def smooth(
    job: StimuliJob, bank: StimulusSet, *, n_images: int = 4, n_patches: int = 25
) -> dict[str, Any]:
    """Smooth the patches of preferred images that lower a response most, and random ones.

    Parameters
    ----------
    job
        Models and folder.
    bank
        Where each model's `n_images` strongest images are sought.
    n_images, n_patches
        Images a model, and patches smoothed in each.

    Returns
    -------
    The content of ``summary.json``. Beside it: ``stimuli.csv``, one row an image, with responses
    before, after and after smoothing random patches; ``images/`` and ``figure.png``.

    Raises
    ------
    InputError
        If bank and models do not fit, or a number is out of range.
    """
    settings = {"bank": bank.fingerprint, "n_images": n_images, "n_patches": n_patches}

    def work(folder: Path) -> dict[str, Any]:
        images, names = _preferred(job, bank, n_images)
        with progress_bar("smoothing", images.shape[0] * images.shape[1] * n_patches) as advance:
            lowered = smooth_minus(
                job.listed, images, n_patches=n_patches, device=job.device, advance=advance
            )
        control = randomly_smoothed(
            job.listed, images, n_draws=N_DRAWS, n_patches=n_patches,
            rng=np.random.default_rng([job.seed, 1]), device=job.device,
        )  # fmt: skip
        rows = []
        for row in image_rows(
            job, "smooth-", lowered.images, lowered.responses[..., -1], folder, names
        ):
            k, i = list(job.models).index(row["model"]), row["rank"] - 1
            before, by_chance = lowered.responses[k, i, 0], control.responses[:, k, i, -1]
            rows.append(row | {
                "base_response": before, "change": row["response"] - before,
                "random_change": (by_chance - before).mean(),
                "random_change_sd": by_chance.std(ddof=1),
            })  # fmt: skip
        rows += image_rows(
            job, "smoothed_randomly", control.images[0], control.responses[0, ..., -1], folder,
            names,
        )  # fmt: skip
        table = pd.DataFrame(rows)
        table.to_csv(folder / "stimuli.csv", index=False)
        shown = slice(0, _N_ROWS)
        saliency = smoothing_saliency(job.listed[shown], images[shown, :1], device=job.device)
        responses = np.stack(
            [saliency.responses[:, 0], lowered.responses[shown, 0, -1],
             control.responses[0, shown, 0, -1]], axis=1,
        )  # fmt: skip
        drawn = figure_saliency(
            images[shown, 0], saliency.maps[:, 0].astype(np.float64), saliency.positions,
            salient_patches(saliency, n=n_patches)[:, 0], responses.astype(np.float64),
            list(job.models)[shown], patch=saliency.patch, smoothed=lowered.images[shown, 0],
            random=control.images[0, shown, 0],
        )  # fmt: skip
        (folder / "figure.png").write_bytes(render_figure(drawn).png)
        of = table[table["kind"] == "smooth-"]
        return {
            "n_models": len(job.models), "n_images": n_images, "n_patches": n_patches,
            "median_change": float(of["change"].median()),
            "median_random_change": float(of["random_change"].median()),
            "share_below_random": float((of["change"] < of["random_change"]).mean()),
        }  # fmt: skip

    return job.do("smooth", settings, work)


def _preferred(
    job: StimuliJob, bank: StimulusSet, n: int
) -> tuple[UInt8[np.ndarray, "n_models n 3 h w"], np.ndarray]:
    """Return each model's strongest images of a bank, and their names."""
    positions = searched(job, bank, n).strongest.positions.T
    if (positions < 0).any():
        raise InputError(f"the bank has fewer than {n} different images; ask for fewer")
    names = np.array(bank.names, dtype=object)[positions]
    return np.stack([bank.read(own) for own in positions]), names
