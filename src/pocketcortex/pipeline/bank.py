"""The images to distil with, and the teacher's responses to them: computed once, streamed."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from jaxtyping import Float, Int

from pocketcortex.core import (
    InputError,
    StimulusSet,
    new_array_file,
    parse_json,
    read_array,
    write_json,
)
from pocketcortex.data import dead_leaves_bank, read_bank
from pocketcortex.pipeline.config import StudentsConfig
from pocketcortex.pipeline.inputs import RunInputs
from pocketcortex.pipeline.teacher import MappedTeacher, Prior
from pocketcortex.training import Monitor
from pocketcortex.zoo import Backbone, FeatureStore

_BATCH = 32
_IMAGES_A_MARK = 2_048
_N_PROBES = 8
_KEPT_BYTES = 2**30
"""Dead leaves that fit are kept: rendering them anew in every pass would hold training up."""


@dataclass(frozen=True)
class Bank:
    """Images to distil with, in parts: the sessions' own, then those of each image bank.

    Attributes
    ----------
    parts
        One set for each source. No image of a held-out half is in any, and none twice.
    n_monitor
        Images kept aside to follow students by: the last ones of each part, in proportion.
    kept
        Which images of each source were kept, sources without any included.
    """

    parts: tuple[StimulusSet, ...]
    n_monitor: int
    kept: tuple[Int[np.ndarray, " _"], ...] = ()

    @cached_property
    def stimuli(self) -> StimulusSet:
        """All parts as one set."""
        return StimulusSet.concatenate(self.parts)

    @cached_property
    def monitored(self) -> Int[np.ndarray, " n_monitor"]:
        """Positions of the images kept aside."""
        total = sum(map(len, self.parts))
        if self.n_monitor >= total // 2:
            raise InputError(
                f"students.n_monitor = {self.n_monitor} of {total} images to distil with; keep "
                "less than half aside"
            )
        stops = np.cumsum([len(part) for part in self.parts])
        shares = np.diff([0, *np.round(stops * self.n_monitor / total).astype(int)])
        return np.concatenate(
            [np.arange(stop - n, stop) for stop, n in zip(stops, shares, strict=True)]
        )

    @cached_property
    def trained(self) -> Int[np.ndarray, " n_train"]:
        """Positions of the others."""
        return np.setdiff1d(np.arange(len(self.stimuli)), self.monitored)

    def monitor(
        self,
        responses: Float[np.ndarray, "n_stimuli n_neurons"],
        columns: Sequence[int] | None = None,
    ) -> Monitor:
        """Return the images kept aside, with the teacher's responses of some neurons or all."""
        every = range(responses.shape[1]) if columns is None else columns
        rows = np.ix_(self.monitored, np.asarray(every))
        return Monitor(self.stimuli.take(self.monitored), responses[rows])


def distillation_bank(inputs: RunInputs, config: StudentsConfig, seed: int) -> Bank:
    """Return the images to distil with: the sessions' own, then the banks', each content once.

    A source that loses no image is returned as it was, so that its stored features serve again.

    Raises
    ------
    InputError
        If a bank is missing or damaged, or too many images are to be kept aside.
    """
    sets = _sources(inputs, config, seed)
    hidden = [d for test in inputs.tests for d in test.held_out.require_stimuli().digests]
    kept = first_of_each_content(sets, hidden)
    bank = Bank(tuple(_taken(sets, kept)), config.n_monitor, tuple(kept))
    _ = bank.monitored
    return bank


def _sources(inputs: RunInputs, config: StudentsConfig, seed: int) -> list[StimulusSet]:
    """Return everything to distil with, nothing left out; no bank's image is decoded."""
    sets = [s.require_stimuli() for s in (*inputs.train, inputs.validation)]
    sets += [test.fit.require_stimuli() for test in inputs.tests]
    height, width = sets[0].image_size
    for number, source in enumerate(config.banks):
        if height != width:
            raise InputError(f"image banks are cut square; the sessions' are {height} x {width}")
        crops = np.random.SeedSequence([seed, number]).generate_state(1)[0]
        sets.append(
            read_bank(
                source.path, height, crops=source.crops, seed=int(crops), limit=source.n_images
            )
        )
    if config.dead_leaves:
        made = dead_leaves_bank(config.dead_leaves, size=height, seed=seed)
        small = config.dead_leaves * 3 * height**2 <= _KEPT_BYTES
        sets.append(StimulusSet.from_array(made.images(), made.names) if small else made)
    return sets


def first_of_each_content(
    sets: Sequence[StimulusSet], hidden: Sequence[str]
) -> list[Int[np.ndarray, " _"]]:
    """Return the first image of each content over all sets, and none of the hidden contents."""
    seen = set(hidden)
    every = []
    for stimuli in sets:
        kept = []
        for index, digest in enumerate(stimuli.digests):
            if digest not in seen:
                seen.add(digest)
                kept.append(index)
        every.append(np.array(kept, dtype=np.int64))
    return every


def _taken(sets: Sequence[StimulusSet], kept: Sequence[Int[np.ndarray, " _"]]) -> list[StimulusSet]:
    """Return the images kept of each set, sets without any left out."""
    return [
        stimuli.take(index) if len(index) < len(stimuli) else stimuli
        for stimuli, index in zip(sets, kept, strict=True)
        if len(index)
    ]


def save_bank(bank: Bank, folder: Path) -> Path:
    """Write which images a bank is of, so that other processes need not look through all of them.

    Returns the folder of this bank below `folder`, named by its content.
    """
    path = folder / f"bank-{bank.stimuli.fingerprint[:16]}"
    if _is_whole(path):
        return path
    partial = path.with_name(f"{path.name}.{uuid4().hex}.partial")
    partial.mkdir(parents=True)
    for number, index in enumerate(bank.kept):
        np.save(partial / f"source{number:03d}.npy", index)
    parts = [
        {"fingerprint": part.fingerprint, "digests": [part.digests[k] for k in _probes(part)]}
        for part in bank.parts
    ]
    known = {"n_sources": len(bank.kept), "parts": parts}
    write_json(partial / "bank.json", known | {"sha256": _sha256(partial, known)})
    shutil.rmtree(path, ignore_errors=True)  # of a damaged one
    try:
        os.replace(partial, path)
    except OSError:
        if not _is_whole(path):
            raise
        shutil.rmtree(partial)  # another process was first
    return path


def _is_whole(path: Path) -> bool:
    """Return whether a saved bank's files are as they were written."""
    try:
        known = parse_json((path / "bank.json").read_text())
        return bool(known.pop("sha256") == _sha256(path, known))
    except (OSError, LookupError, TypeError, ValueError, AttributeError):
        return False


def _sha256(path: Path, known: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode())
    for number in range(known["n_sources"]):
        digest.update((path / f"source{number:03d}.npy").read_bytes())
    return digest.hexdigest()


def load_bank(path: Path, inputs: RunInputs, config: StudentsConfig, seed: int) -> Bank:
    """Return the bank that `save_bank` wrote, from the same sources; a few images are looked at.

    Raises
    ------
    InputError
        If a source is not what it was when the bank was saved.
    """
    if not _is_whole(path):
        raise InputError(f"{path}, the list of images to distil with, was damaged; start again")
    saved = parse_json((path / "bank.json").read_text())
    sets = _sources(inputs, config, seed)
    kept = [read_array(path / f"source{n:03d}.npy") for n in range(saved["n_sources"])]
    try:
        parts = _taken(sets, kept)
        for part, known in zip(parts, saved["parts"], strict=True):
            if [part.take([k]).digests[0] for k in _probes(part)] != known["digests"]:
                raise ValueError(f"images of {part!r} have changed")
            vars(part)["fingerprint"] = known["fingerprint"]  # known without decoding all of them
    except ValueError as error:
        raise InputError(
            f"the images to distil with are not those that the run was started with ({error}); "
            "start it again"
        ) from error
    return Bank(tuple(parts), config.n_monitor, tuple(kept))


def _probes(part: StimulusSet) -> list[int]:
    """Return the positions of a few images, the first and the last among them."""
    return [int(k) for k in np.unique(np.linspace(0, len(part) - 1, _N_PROBES).astype(int))]


def label(
    bank: Bank,
    backbone: Backbone,
    store: FeatureStore,
    prior: Prior | None,
    teachers: Sequence[MappedTeacher],
    folder: Path,
    advance: Callable[[int], None] = lambda n: None,
) -> None:
    """Write ``teacher.npy``: the teachers' responses to the bank, side by side.

    Images are decoded, and backbone and published model run, once for all neurons; nothing but the
    responses is kept, ``(n_stimuli, n_neurons)`` float32 on disk. A killed call goes on, in the
    same folder, from the last mark, at most 2,048 images back; a mark holds the hash of what was
    written before it, and with other content there the call starts anew.
    """
    n_neurons = [t.ensemble.intercepts.shape[1] for t in teachers]
    shape = (len(bank.stimuli), sum(n_neurons))
    path, mark = folder / "teacher.npy", folder / "mark.json"
    responses, done, digest = _begun(path, mark, shape)
    advance(done)
    start = 0
    for number, part in enumerate(bank.parts):
        first = min(max(done - start, 0), len(part))
        of_part = answers_to(bank, number, first, len(part), backbone, store, prior, teachers)
        for index, answers in of_part:
            rows = slice(start + int(index[0]), start + int(index[-1]) + 1)
            responses[rows] = answers
            digest.update(np.ascontiguousarray(responses[rows]).data)
            advance(len(index))
            if rows.stop // _IMAGES_A_MARK > rows.start // _IMAGES_A_MARK:
                responses.flush()
                write_json(mark, {"done": rows.stop, "sha256": digest.hexdigest()})
        start += len(part)
    responses.flush()
    mark.unlink(missing_ok=True)


def _begun(
    path: Path, mark: Path, shape: tuple[int, int]
) -> tuple[np.memmap, int, "hashlib._Hash"]:
    """Return the file of responses, how many rows an earlier call left whole, and their hash."""
    try:
        told = parse_json(mark.read_text())
        kept = np.load(path, mmap_mode="r+", allow_pickle=False)
        digest = hashlib.sha256(kept[: told["done"]])
        if (kept.dtype, kept.shape) == (np.float32, shape) and digest.hexdigest() == told["sha256"]:
            return kept, int(told["done"]), digest
    except (OSError, LookupError, TypeError, ValueError):
        pass
    mark.unlink(missing_ok=True)
    return new_array_file(path, np.float32, shape), 0, hashlib.sha256()


def label_ranges(bank: Bank, n_images: int) -> list[tuple[int, int, int]]:
    """Return (part, first, stop) of ranges that are cut where batches are, in the bank's order."""
    step = max(1, n_images // _BATCH) * _BATCH
    return [
        (number, first, min(first + step, len(part)))
        for number, part in enumerate(bank.parts)
        for first in range(0, len(part), step)
    ]


def answers_to(
    bank: Bank,
    number: int,
    first: int,
    stop: int,
    backbone: Backbone,
    store: FeatureStore,
    prior: Prior | None,
    teachers: Sequence[MappedTeacher],
) -> Iterator[tuple[Int[np.ndarray, " n"], Float[np.ndarray, "n n_neurons"]]]:
    """Yield positions in one part of the bank and the teachers' responses, a batch at a time."""
    part = bank.parts[number]
    stored = store.stored(backbone, part)
    bounds = range(first, stop, _BATCH)
    indices = [np.arange(b, min(b + _BATCH, stop)) for b in bounds]
    for index, images in zip(indices, part.stream(indices), strict=True):
        raw = torch.from_numpy(images)
        features = backbone(raw).cpu().numpy() if stored is None else stored[index]
        seen = None if prior is None else prior.features(raw)
        answers = [teacher.predict(features, seen) for teacher in teachers]
        yield index, np.concatenate(answers, axis=1)
