"""Stimuli for compact models: what they are made from, and how they are written down."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from pocketcortex.core import (
    InputError,
    RunFolder,
    StimulusSet,
    keep_freed_memory,
    provenance,
    write_json,
)
from pocketcortex.metrics import group_by_similarity, signal_correlation2
from pocketcortex.models import CompactModel
from pocketcortex.pipeline.progress import progress_bar
from pocketcortex.plots import figure_contact_sheet, render_figure
from pocketcortex.stimuli import BankSearch, Drawn, catalogue, search_bank

N_DRAWS = 5
"""Random controls of each image."""


@dataclass(frozen=True)
class StimuliJob:
    """What every kind of stimulus is made from.

    Attributes
    ----------
    models
        Trained compact models by name, for one image size.
    out
        Run folder; each kind fills a folder of its own below it.
    seed
        Of noise, controls and random choices.
    device
        Where to compute.
    """

    models: Mapping[str, CompactModel]
    out: Path
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not self.models:
            raise InputError("there is no model to make stimuli for; give at least one")
        if len(sizes := {m.image_size for m in self.models.values()}) > 1:
            raise InputError(f"models take images of different sizes {sorted(sizes)}; name some")

    @property
    def listed(self) -> list[CompactModel]:
        """The models in order."""
        return list(self.models.values())

    def do(
        self, name: str, settings: Mapping[str, Any], work: Callable[[Path], dict[str, Any]]
    ) -> dict[str, Any]:
        """Do a kind unless it is done before from the same inputs, and return its summary."""
        keep_freed_memory()
        inputs = {"seed": self.seed, "models": _digest(self.models), **settings}
        told = {"settings": dict(settings), "device": self.device} | provenance(self.seed)
        return _done(self.out, name, inputs, lambda partial: work(partial) | told)


def draw(
    out: Path, size: int, *, natural: StimulusSet | None = None, seed: int = 0
) -> dict[str, Any]:
    """Write examples of every kind of stimulus: dots, gratings, curves, noise, gaudy images, ...

    Parameters
    ----------
    out
        Run folder.
    size
        Height and width of the images in pixels.
    natural
        Photographs of that size; eight of them are shown, and made gaudy.
    seed
        Of what is random.

    Returns
    -------
    The content of ``summary.json``. Beside it: ``stimuli.csv`` with every image's parameters,
    ``images/``, and the contact sheet ``figure.png``.

    Raises
    ------
    InputError
        If `size` is too small or the photographs are of another one.
    """
    settings = {"seed": seed, "size": size,
                "natural": None if natural is None else natural.fingerprint}  # fmt: skip

    def work(folder: Path) -> dict[str, Any]:
        photographs = None
        if natural is not None:
            photographs = natural.read(drawn_at_random(natural, min(8, len(natural)), seed))
        drawn = catalogue(size, rng=np.random.default_rng(seed), natural=photographs)
        _write_drawn(drawn, folder)
        counts = {kind: len(drawn.of_kind(kind)) for kind in drawn.kinds}
        return {"size": size, "n_images": counts} | provenance(seed)

    return _done(out, "make", settings, work)


def _done(
    out: Path, name: str, inputs: Mapping[str, Any], work: Callable[[Path], dict[str, Any]]
) -> dict[str, Any]:
    """Do a stage that returns its summary, unless it is done; return the summary."""
    folder = RunFolder(out)
    with folder.locked():
        path, _ = folder.stage(
            name, inputs, lambda partial: write_json(partial / "summary.json", work(partial))
        )
    summary: dict[str, Any] = json.loads((path / "summary.json").read_text())
    return {"folder": str(path), "seconds": folder.seconds(name), **summary}


def searched(job: StimuliJob, bank: StimulusSet, k: int) -> BankSearch:
    """Return the `k` images of a bank that drive each model most and least, with a bar."""
    with progress_bar("images of the bank", len(bank)) as advance:
        return search_bank(job.listed, bank, k, device=job.device, advance=advance)


def drawn_at_random(bank: StimulusSet, n: int, seed: int) -> Int[np.ndarray, " n"]:
    """Return the places of `n` different images, in order.

    Raises
    ------
    InputError
        If the bank has fewer.
    """
    if not 1 <= n <= len(bank):
        raise InputError(f"the number of images must be within 1 and the bank's {len(bank)}: {n}")
    return np.sort(np.random.default_rng([seed, 0]).permutation(len(bank))[:n])


def image_rows(
    job: StimuliJob,
    kind: str,
    images: UInt8[np.ndarray, "n_models n 3 h w"],
    responses: Float[np.ndarray, "n_models n"],
    folder: Path,
    sources: np.ndarray | None = None,
) -> Iterator[dict[str, Any]]:
    """Write images and yield a row for each; where a response is NaN there is no image."""
    for k, name in enumerate(job.models):
        for i in np.flatnonzero(np.isfinite(responses[k])):
            file = f"images/{name}_{kind}_{i + 1:02d}.png"
            write_image(folder / file, images[k, i])
            yield {
                "file": file, "model": name, "kind": kind, "rank": int(i) + 1,
                "source": None if sources is None else sources[k, i],
                "response": float(responses[k, i]),
            }  # fmt: skip


def grouped(
    responses: Float[np.ndarray, "n_stimuli n_models"],
) -> tuple[Int[np.ndarray, " n_varying"], Int[np.ndarray, " n_models"]] | None:
    """Return order and group of models that answer alike; None where fewer than two vary.

    A model with equal answers to all images is left out of the order, in a group of its own.
    """
    varying = np.flatnonzero(np.ptp(responses, axis=0) > 0)
    if len(varying) < 2:
        return None
    groups = group_by_similarity(signal_correlation2(responses[:, varying]))
    labels = np.full(responses.shape[1], groups.n_groups)
    labels[varying] = groups.labels
    return varying[groups.order], labels


def write_image(path: Path, image: UInt8[np.ndarray, "3 h w"]) -> None:
    """Write an image as PNG, its folder made if missing."""
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(image.transpose(1, 2, 0)).save(path)


def _write_drawn(drawn: Drawn, folder: Path) -> None:
    stimuli = drawn.stimuli()
    files = [f"images/{name.replace(' ', '_')}.png" for name in stimuli.names]
    for image, file in zip(drawn.images, files, strict=True):
        write_image(folder / file, image)
    table = drawn.parameters.copy()
    table.insert(0, "file", files)
    table.to_csv(folder / "stimuli.csv", index=False)
    sheet = figure_contact_sheet({kind: drawn.of_kind(kind).images for kind in drawn.kinds})
    (folder / "figure.png").write_bytes(render_figure(sheet).png)


def _digest(models: Mapping[str, CompactModel]) -> str:
    """Return a hash of names and weights."""
    digest = hashlib.sha256()
    for name, model in models.items():
        digest.update(f"{name} {model.filters} {model.image_size}".encode())
        for tensor in model.state_dict().values():
            digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
