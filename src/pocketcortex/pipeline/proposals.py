"""Proposals: a folder of images ready to show, in order, and what is known of each."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pocketcortex.core import InputError, StimulusSet, parse_json, write_json

FORMAT, VERSION = "pocketcortex-proposal", 1
MANIFEST = "manifest.json"
COLUMNS = (
    "order", "file", "arm", "gaudy", "source", "disagreement", "sha256", "seed", "size_px",
    "size_deg",
)  # fmt: skip
_README = """{n} images to show in the next session, chosen by pocketcortex (seed {seed}).

Show them in the order of their file names: 0001.png first. The order is random already.
manifest.csv has one row an image, in that order.

- Each image is {height} x {width} pixels. Show it at {size}.
- Do not crop, sharpen or re-encode it, and show every image the same way.
- Repeats: show the whole list again, in any order you like; write down which image each
  presentation was by its file name.
- Do not add, drop or rename files. If an image could not be shown, say so: the whole session
  has to come back.

What comes back: an array of responses (images, repeats, neurons), images in the order of
manifest.csv, NaN where a repeat was not shown, as responses.npy. Or responses.npz with that array
as `responses` and the file names of its rows as `names`. Then, on the computer that made this:

    pocketcortex loop ingest THIS_FOLDER responses.npz --out RECORDINGS --session NAME
"""


@dataclass(frozen=True)
class Proposal:
    """A proposal read back, its images verified.

    Attributes
    ----------
    images
        One row an image in the order of showing; columns `COLUMNS`.
    stimuli
        The images, named by their files.
    facts
        What else ``manifest.json`` says.
    """

    images: pd.DataFrame
    stimuli: StimulusSet
    facts: dict[str, Any]

    def summary(self, folder: str | Path) -> dict[str, Any]:
        """Return what was proposed, as a JSON object."""
        counts = self.images["arm"].value_counts(sort=False)
        return {
            "folder": str(folder),
            "n_images": len(self.images),
            "arms": {str(arm): int(n) for arm, n in counts.items()},
            "n_candidates": self.facts["n_candidates"],
            "seed": self.facts["seed"],
            "image_size": list(self.stimuli.image_size),
        }


def key_of(inputs: Mapping[str, Any]) -> str:
    """Return the hash that a proposal from these inputs is known by."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def write_proposal(
    folder: Path, stimuli: StimulusSet, images: pd.DataFrame, facts: Mapping[str, Any]
) -> None:
    """Write images, manifests and a README into a folder; ``manifest.json`` last.

    Parameters
    ----------
    folder
        An existing folder; what it holds under these names is written anew.
    stimuli
        The images in the order of showing.
    images
        One row for each, with `COLUMNS`.
    facts
        Seed, key and whatever else is to be remembered.
    """
    height, width = stimuli.image_size
    for k, name in enumerate(images["file"]):
        stimuli.picture(k).save(folder / name, format="PNG")
    images.to_csv(folder / "manifest.csv", index=False, columns=list(COLUMNS))
    deg = facts["size_deg"]
    size = f"{deg:g} degrees of visual angle" if deg else "the size of the earlier sessions"
    readme = _README.format(
        n=len(images), seed=facts["seed"], height=height, width=width, size=size
    )
    (folder / "README.txt").write_text(readme)
    rows = json.loads(images[list(COLUMNS)].to_json(orient="records", double_precision=15))
    write_json(folder / MANIFEST, {"format": FORMAT, "version": VERSION, **facts, "images": rows})


def publish(partial: Path, out: Path) -> None:
    """Give a finished folder its name, whole; `out` is missing or empty."""
    for extra in (".lock", "inputs.json"):
        (partial / extra).unlink(missing_ok=True)
    shutil.rmtree(partial / "predictions", ignore_errors=True)
    os.replace(partial, out)


def read_proposal(folder: str | Path) -> Proposal:
    """Return a proposal, each image checked against its hash.

    Parameters
    ----------
    folder
        As `propose` wrote it.

    Raises
    ------
    InputError
        If it is no proposal, an image is missing, or one is not as it was written.
    """
    folder = Path(folder)
    facts = read_manifest(folder)
    rows = facts.pop("images", None)
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and isinstance(row.get("file"), str) for row in rows
    ):
        raise InputError(
            f"{folder / MANIFEST} does not list images by file; take the folder as it was proposed"
        )
    images = pd.DataFrame(rows, columns=list(COLUMNS))
    here = {path.name for path in folder.iterdir()}
    missing = [name for name in images["file"] if name not in here]
    if missing:
        raise InputError(
            f"{folder} lacks {len(missing)} of its {len(images)} images, such as "
            f"{missing[0][:100]}; take the folder as it was proposed"
        )
    found = StimulusSet.from_folder(folder)
    place = {name: k for k, name in enumerate(found.names)}
    missing = [name for name in images["file"] if name not in place]
    if missing:
        raise InputError(
            f"{folder / MANIFEST} names {missing[0][:100]!r}, which is no image in the folder; "
            "take the folder as it was proposed"
        )
    stimuli = found.take([place[name] for name in images["file"]])
    changed = [
        name
        for name, digest, written in zip(
            images["file"], stimuli.digests, images["sha256"], strict=True
        )
        if digest != written
    ]
    if changed:
        raise InputError(
            f"{len(changed)} images in {folder} are not as they were proposed, such as "
            f"{changed[0]}; take the folder as it was written"
        )
    return Proposal(images, stimuli, facts)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the content of a proposal's ``manifest.json``.

    Raises
    ------
    InputError
        If it is missing, or no proposal's.
    """
    path = folder / MANIFEST
    try:
        facts = parse_json(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder} holds no proposal ({path} cannot be read); make one with `pocketcortex "
            "loop propose`"
        ) from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise InputError(f"{folder} holds no proposal: {path} was written by something else")
    if facts.get("version") != VERSION:
        raise InputError(
            f"{folder} is a proposal of format {facts.get('version')!r:.100}, but this version "
            f"reads {VERSION}; update pocketcortex"
        )
    return facts


def numbered(n: int) -> list[str]:
    """Return file names in the order of showing, which sorting by name keeps."""
    width = max(4, len(str(n)))
    return [f"{k:0{width}d}.png" for k in range(1, n + 1)]
