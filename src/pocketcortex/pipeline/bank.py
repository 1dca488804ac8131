"""The images to distil with, and the teacher's responses to them: computed once, streamed."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from pocketcortex.core import InputError, StimulusSet, new_array_file, write_json
from pocketcortex.data import dead_leaves_bank, read_bank
from pocketcortex.pipeline.config import StudentsConfig
from pocketcortex.pipeline.inputs import RunInputs
from pocketcortex.pipeline.teacher import MappedTeacher, Prior
from pocketcortex.training import Monitor
from pocketcortex.zoo import Backbone, FeatureStore

_BATCH = 32
_IMAGES_A_MARK = 2_048
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
    """

    parts: tuple[StimulusSet, ...]
    n_monitor: int

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

    def monitor(self, responses: Float[np.ndarray, "n_stimuli n_neurons"]) -> Monitor:
        """Return the images kept aside, with the teacher's responses."""
        return Monitor(self.stimuli.take(self.monitored), responses[self.monitored])


def distillation_bank(inputs: RunInputs, config: StudentsConfig, seed: int) -> Bank:
    """Return the images to distil with: the sessions' own, then the banks', each content once.

    A source that loses no image is returned as it was, so that its stored features serve again.

    Raises
    ------
    InputError
        If a bank is missing or damaged, or too many images are to be kept aside.
    """
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
    hidden = [d for test in inputs.tests for d in test.held_out.require_stimuli().digests]
    bank = Bank(tuple(without_duplicates(sets, hidden)), config.n_monitor)
    _ = bank.monitored
    return bank


def without_duplicates(sets: Sequence[StimulusSet], hidden: Sequence[str]) -> list[StimulusSet]:
    """Keep the first image of each content over all sets, and none of the hidden contents."""
    seen = set(hidden)
    parts = []
    for stimuli in sets:
        kept = []
        for index, digest in enumerate(stimuli.digests):
            if digest not in seen:
                seen.add(digest)
                kept.append(index)
        if kept:
            parts.append(stimuli.take(kept) if len(kept) < len(stimuli) else stimuli)
    return parts


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
    for part in bank.parts:
        stored = store.stored(backbone, part)
        first = min(max(done - start, 0), len(part))
        bounds = range(first, len(part), _BATCH)
        indices = [np.arange(b, min(b + _BATCH, len(part))) for b in bounds]
        for index, images in zip(indices, part.stream(indices), strict=True):
            raw = torch.from_numpy(images)
            features = backbone(raw).cpu().numpy() if stored is None else stored[index]
            seen = None if prior is None else prior.features(raw)
            rows = slice(start + int(index[0]), start + int(index[-1]) + 1)
            answers = [teacher.predict(features, seen) for teacher in teachers]
            responses[rows] = np.concatenate(answers, axis=1)
            digest.update(responses[rows])
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
        told = json.loads(mark.read_text())
        kept = np.load(path, mmap_mode="r+", allow_pickle=False)
        digest = hashlib.sha256(kept[: told["done"]])
        if (kept.dtype, kept.shape) == (np.float32, shape) and digest.hexdigest() == told["sha256"]:
            return kept, int(told["done"]), digest
    except (OSError, LookupError, TypeError, ValueError):
        pass
    mark.unlink(missing_ok=True)
    return new_array_file(path, np.float32, shape), 0, hashlib.sha256()
