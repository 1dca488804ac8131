"""The natural images that neurons are shown: a bank's, or made by code where there is none."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import numpy as np
from jaxtyping import UInt8

from pocketcortex.core import InputError

N_IMAGES = 200
"""Images among which preferred ones are sought, unless said otherwise."""

_SEED = 0


@dataclass(frozen=True, eq=False)
class NaturalImages:
    """Images of a bank, or dead leaves.

    Attributes
    ----------
    path
        The bank; None for dead leaves, which are made by code.
    n
        How many.
    """

    path: Path | None = None
    n: int = N_IMAGES
    _read: dict[int, UInt8[np.ndarray, "n 3 size size"]] = field(default_factory=dict, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)

    def __post_init__(self) -> None:
        if self.n < 2:
            raise InputError(f"preferred images are sought among 2 or more, got {self.n}")
        if self.path is not None and not self.path.exists():
            raise InputError(f"{self.path} does not exist; name an image bank, or leave it out")

    @property
    def key(self) -> str:
        """What tells these images from others."""
        if self.path is None:
            return f"dead leaves {_SEED} {self.n}"
        told = self.path.resolve().stat()
        text = f"{self.path.resolve()} {told.st_size} {told.st_mtime_ns} {self.n}"
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def words(self) -> str:
        """What to call them on a page."""
        if self.path is None:
            return f"{self.n} images of dead leaves (made by code)"
        return f"{self.n} images of {self.path.name}"

    @property
    def name(self) -> str:
        """What to call one of them in a word or two."""
        return "dead leaves" if self.path is None else "natural"

    @property
    def python(self) -> str:
        """Python that makes ``natural``, the images for a model of 112 pixels."""
        if self.path is None:
            return (
                "from pocketcortex.data import dead_leaves\n"
                f"natural = dead_leaves({self.n}, size=model.image_size[0], seed={_SEED})\n"
            )
        return (
            "from pocketcortex.data import read_bank\n"
            f"bank = read_bank({str(self.path)!r}, model.image_size[0])\n"
            f"natural = bank.read(range(min({self.n}, len(bank))))\n"
        )

    def read(self, image_size: tuple[int, int]) -> UInt8[np.ndarray, "n 3 size size"]:
        """Return the images in a model's size, read once.

        Raises
        ------
        InputError
            If the model's images are not square, or the bank cannot be read.
        """
        height, width = image_size
        if height != width:
            raise InputError(f"image banks are cut square; the model takes {height} x {width}")
        with self._lock:
            if height not in self._read:
                self._read[height] = self._made(height)
            return self._read[height]

    def _made(self, size: int) -> UInt8[np.ndarray, "n 3 size size"]:
        from pocketcortex.data import dead_leaves, read_bank

        if self.path is None:
            return dead_leaves(self.n, size=size, seed=_SEED)
        bank = read_bank(self.path, size)
        if len(bank) < 2:
            raise InputError(f"{self.path} holds {len(bank)} images; 2 or more are needed")
        return bank.read(range(min(self.n, len(bank))))
