"""The closed loop, its first half: the images to show next, chosen by a trained teacher."""

import hashlib
import secrets
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from pocketcortex.core import (
    InputError,
    RunFolder,
    StimulusSet,
    explained_writes,
    parse_json,
    provenance,
    read_arrays,
    whole_file,
    write_json,
)
from pocketcortex.data import read_bank
from pocketcortex.pipeline.chain import opened_teachers
from pocketcortex.pipeline.progress import progress_bar, say
from pocketcortex.pipeline.proposals import (
    key_of,
    numbered,
    publish,
    read_manifest,
    read_proposal,
    write_proposal,
)
from pocketcortex.pipeline.stages import Stages
from pocketcortex.pipeline.teacher import MappedTeacher
from pocketcortex.stimuli import ChoiceConfig, choose_images
from pocketcortex.zoo import Backbone

_BATCH = 32


def propose(
    run: str | Path,
    bank: str | Path,
    out: str | Path,
    *,
    choice: ChoiceConfig | None = None,
    seed: int | None = None,
    crops: int = 0,
    limit: int | None = None,
    size_deg: float | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Choose the next session's images and write them as a folder that can be shown as it is.

    The members of a run's teacher, mapped to the neurons of its test sessions, predict the bank;
    no image of any of the run's sessions, held-out halves included, is chosen again. `out` gets
    ``0001.png`` ... in a random order of showing, ``manifest.csv`` and ``manifest.json`` (for each
    image: order, file, arm, whether made gaudy, its name in the bank, disagreement, hash of its
    pixels, seed, intended size), and a ``README.txt`` for whoever shows them.

    `out` appears whole or not at all. A call that was stopped goes on, when repeated, behind the
    last block of candidates that was predicted; one repeated after it is done changes nothing.

    Parameters
    ----------
    run
        Folder of `fit_ensemble` or `run`; the map to the neurons is made there if there is none.
    bank
        As for `pocketcortex.data.read_bank`; cut to the size of the run's images.
    out
        A new or empty folder.
    choice
        How many images of each arm; None for the published numbers.
    seed
        Decides the random arms and the order; None draws one, which is stored.
    crops, limit
        Random crops of each image of the bank, and how many of its images are used.
    size_deg
        Size in degrees of visual angle at which the images are to be shown; None if the lab knows.
    device
        ``auto``, ``cpu`` or ``cuda``.

    Returns
    -------
    What was proposed, as a JSON object.

    Raises
    ------
    InputError
        If the run has no teacher, the bank is at fault or too small, or `out` holds something
        else, another proposal included.
    """
    out, choice = Path(out), choice or ChoiceConfig()
    if size_deg is not None and not 0 < size_deg < np.inf:
        raise InputError(f"size_deg must be a positive number of degrees; got {size_deg}")
    if seed is not None and seed < 0:
        raise InputError(f"seed must be 0 or more; got {seed}")
    partial = out.with_name(f"{out.name}.partial")
    seed = _seed(seed, out, partial)
    with opened_teachers(run, device=device) as (stages, teachers, digest):
        shown = _shown(stages)
        height, width = shown.image_size
        if height != width:
            raise InputError(f"banks are cut square, but the run's images are {height} x {width}")
        pool = read_bank(bank, height, crops=crops, seed=seed, limit=limit)
        names = hashlib.sha256("\n".join(pool.names).encode()).hexdigest()
        facts: dict[str, Any] = {
            "seed": seed, "choice": choice.as_dict(), "bank": str(bank), "bank_names": names,
            "n_bank": len(pool), "crops": crops, "size_px": height, "size_deg": size_deg,
            "teacher": digest, "neurons": [test.fit.id for test in stages.inputs.tests],
        }  # fmt: skip
        key = key_of(facts)
        if _is_done(out, key):
            say(f"{out} was proposed before")
            return read_proposal(out).summary(out)
        lock = RunFolder(partial)
        with lock.locked():
            _start(partial, key, seed)
            predict = _Remembered(
                lambda stimuli: predict_members(stages.backbone, teachers, stimuli),
                partial / "predictions",
            )
            with progress_bar("candidates", len(pool)) as advance:
                chosen = choose_images(
                    pool, choice, seed=seed, predict_members=predict,
                    features=lambda stimuli: channel_means(stages.backbone, stimuli),
                    shown=shown, advance=advance,
                )  # fmt: skip
            order = np.random.default_rng([seed, 1]).permutation(choice.n_images)
            stimuli = chosen.stimuli.take(order)
            images = pd.DataFrame({
                "order": np.arange(1, len(order) + 1),
                "file": numbered(len(order)),
                "arm": [chosen.arms[k] for k in order],
                "gaudy": chosen.gaudy[order],
                "source": list(stimuli.names),
                "disagreement": chosen.disagreement[order],
                "sha256": list(stimuli.digests),
                "seed": seed,
                "size_px": height,
                "size_deg": size_deg,
            })  # fmt: skip
            record = {"n_candidates": chosen.n_candidates, "provenance": provenance(seed)}
            write_proposal(partial, stimuli, images, {"key": key, **facts, **record})
            publish(partial, out)
    return read_proposal(out).summary(out)


def predict_members(
    backbone: Backbone, teachers: Sequence[MappedTeacher], stimuli: StimulusSet
) -> Float[np.ndarray, "n_members n_stimuli n_neurons"]:
    """Return every member's predictions for the neurons of all teachers, side by side, float32.

    In standard deviations of each neuron's fitted responses. A published model that a teacher
    averages in is left out: on it the members do not differ.
    """
    parts = []
    with torch.inference_mode():
        for images in stimuli.batches(_BATCH):
            features = backbone(torch.from_numpy(images))
            answers = [teacher.ensemble.predict_members(features) for teacher in teachers]
            parts.append(torch.cat(answers, dim=2).cpu().numpy())
    return np.concatenate(parts, axis=1)


def channel_means(
    backbone: Backbone, stimuli: StimulusSet
) -> Float[np.ndarray, "n_stimuli n_channels"]:
    """Return backbone features averaged over positions, float32."""
    batches = stimuli.batches(_BATCH)
    means = [backbone(torch.from_numpy(images)).mean((2, 3)).cpu().numpy() for images in batches]
    return np.concatenate(means)


class _Remembered:
    """Predictions kept on disk by the images' content, so that a stopped call goes on."""

    def __init__(
        self, predict: Callable[[StimulusSet], Float[np.ndarray, "..."]], folder: Path
    ) -> None:
        self._predict, self._folder = predict, folder

    def __call__(self, stimuli: StimulusSet) -> Float[np.ndarray, "..."]:
        path = self._folder / f"{stimuli.fingerprint}.npz"
        try:
            return read_arrays(path)["predicted"]  # its checksum is read too
        except (InputError, LookupError):  # none, cut short or altered
            pass
        predicted = self._predict(stimuli)
        with explained_writes("predictions", self._folder.parent):
            self._folder.mkdir(exist_ok=True)
            with whole_file(path) as file:
                np.savez(file, predicted=predicted)
        return predicted


def _shown(stages: Stages) -> StimulusSet:
    """Return the images of all sessions of a run."""
    inputs = stages.inputs
    halves = [half for test in inputs.tests for half in (test.fit, test.held_out)]
    sessions = (*inputs.train, inputs.validation, *halves)
    return StimulusSet.concatenate([session.require_stimuli() for session in sessions])


def _seed(seed: int | None, out: Path, partial: Path) -> int:
    """Return the seed given, that of the same folder's earlier call, or a new one."""
    if seed is not None:
        return seed
    for path in (out / "manifest.json", partial / "inputs.json"):
        try:
            return int(parse_json(path.read_text())["seed"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return secrets.randbelow(2**31)


def _is_done(out: Path, key: str) -> bool:
    """Return whether `out` is this proposal; raise InputError if it is anything but empty."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not out.is_dir():
        raise InputError(f"{out} is a file; choose another --out")
    if not (out / "manifest.json").exists():
        raise InputError(f"{out} is not empty and holds no proposal; choose another --out")
    if read_manifest(out).get("key") != key:
        raise InputError(
            f"{out} holds another proposal, which may have been shown already; choose another "
            "--out (or the same settings and --seed to get it again)"
        )
    return True


def _start(partial: Path, key: str, seed: int) -> None:
    """Empty the folder to work in, unless a call with the same inputs left something there."""
    path = partial / "inputs.json"
    with suppress(OSError, ValueError, AttributeError):
        if parse_json(path.read_text()).get("key") == key:
            return
    found = [entry for entry in partial.iterdir() if entry.name != ".lock"]
    if found and not path.exists():
        raise InputError(f"{partial}, to work in, holds something else; choose another --out")
    for entry in found:
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    write_json(path, {"key": key, "seed": seed})
