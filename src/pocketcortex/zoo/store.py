"""A folder of features, computed once for each backbone and set of images."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pocketcortex.core import (
    InputError,
    StimulusSet,
    explained_writes,
    held,
    new_array_file,
    sync,
    whole_file,
)
from pocketcortex.core.runs import hash_file
from pocketcortex.zoo.backbone import Backbone

CODE_VERSION = 1
"""Raise when the numbers in a stored file would come out differently."""


class FeatureStore:
    """Features on disk, float16, keyed by weights, layer, resizing, code and image content.

    A file appears under its name only when complete, with its hash beside it; one that is missing,
    cut short or altered is computed again. Memory is bounded by one batch. Several processes may
    share a store: one that needs features which another is computing waits for them.

    Parameters
    ----------
    folder
        Where the ``.npy`` files go; made if missing.
    batch_size
        Images a forward pass.
    """

    def __init__(self, folder: str | Path, *, batch_size: int = 16) -> None:
        self.folder = Path(folder)
        self.batch_size = batch_size
        self._whole: set[Path] = set()

    def path(self, backbone: Backbone, stimuli: StimulusSet) -> Path:
        """Return the file that holds, or will hold, these features."""
        key = f"{CODE_VERSION}|{backbone.key}|{stimuli.fingerprint}"
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"

    def stored(self, backbone: Backbone, stimuli: StimulusSet) -> np.ndarray | None:
        """Return the features if the store has them whole, memory-mapped read-only."""
        path = self.path(backbone, stimuli)
        return _mapped(path) if self._is_whole(path) else None

    def features(
        self,
        backbone: Backbone,
        stimuli: StimulusSet,
        *,
        advance: Callable[[int], None] = lambda n: None,
    ) -> np.ndarray:
        """Return the features, computing them if the store has none.

        Parameters
        ----------
        backbone
            Network and layer.
        stimuli
            Images, in the order of the result.
        advance
            Told after each batch how many images are done, for a progress bar.

        Returns
        -------
        float16 array ``(n_stimuli, channels, rows, columns)``, memory-mapped read-only.

        Raises
        ------
        InputError
            If a feature is NaN, infinite, or beyond float16's range (65,504).
        PocketcortexError
            If the disk is full, read-only or at fault.
        """
        path = self.path(backbone, stimuli)
        if self._is_whole(path):
            advance(len(stimuli))
            return _mapped(path)
        with explained_writes("features", self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with held(path.with_suffix(".lock")):
                if self._is_whole(path):  # computed by another process meanwhile
                    advance(len(stimuli))
                else:
                    self._compute(path, backbone, stimuli, advance)
        self._whole.add(path)
        return _mapped(path)

    def _compute(
        self, path: Path, backbone: Backbone, stimuli: StimulusSet, advance: Callable[[int], None]
    ) -> None:
        partial = path.with_suffix(".partial")
        store: np.memmap | None = None
        done = 0
        for batch in stimuli.batches(self.batch_size):
            maps = backbone(torch.from_numpy(batch)).half().cpu().numpy()
            if not np.isfinite(maps).all():
                raise InputError(
                    f"features of layer {' + '.join(backbone.layers)} are NaN or beyond float16's "
                    "range; choose a layer after a normalisation or ReLU"
                )
            if store is None:
                store = new_array_file(partial, np.float16, (len(stimuli), *maps.shape[1:]))
            store[done : done + len(maps)] = maps
            done += len(maps)
            advance(len(maps))
        if store is None:
            raise InputError("there are no images to compute features of")
        store.flush()
        del store
        sync(partial)
        digest = hash_file(partial)
        with whole_file(path.with_suffix(".sha256")) as file:
            file.write(f"{digest}\n".encode())
        os.replace(partial, path)
        sync(self.folder)

    def _is_whole(self, path: Path) -> bool:
        """Return whether a file is there with the hash it was written with, read once a store."""
        if path in self._whole:
            return True
        try:
            digest = hash_file(path)
            written = path.with_suffix(".sha256").read_text().strip()
        except OSError:
            return False
        if digest == written:
            self._whole.add(path)
        return digest == written


def _mapped(path: Path) -> np.ndarray:
    array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return array
