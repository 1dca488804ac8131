"""What was computed of a neuron, kept in a folder that the model's content names."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pocketcortex.core import parse_json, write_json

_VERSION = "1"
"""Raise when what is kept of a neuron changes."""


def default_cache() -> Path:
    """Return the folder where the explorer keeps what it computed."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "pocketcortex" / "explorer"


@dataclass(frozen=True)
class NeuronCache:
    """The folder of one neuron; it may not exist yet.

    Files are named for what they hold, and each is written whole or not at all, so that two
    processes may fill one folder.

    Attributes
    ----------
    folder
        Where.
    """

    folder: Path

    @classmethod
    def of(cls, cache: Path, digest: str, bank: str) -> "NeuronCache":
        """Return the folder for a model's digest and the images it is shown."""
        key = hashlib.sha256(f"{_VERSION} {digest} {bank}".encode()).hexdigest()[:32]
        return cls(cache / key)

    def json(self, name: str) -> dict[str, Any] | None:
        """Return what is kept under a name, None if nothing readable is."""
        try:
            value = parse_json((self.folder / f"{name}.json").read_text())
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def picture(self, name: str) -> bytes | None:
        """Return a picture's PNG file, None if there is none."""
        try:
            return (self.folder / f"{name}.png").read_bytes()
        except OSError:
            return None

    def arrays(self, name: str) -> dict[str, np.ndarray] | None:
        """Return kept arrays, None if nothing readable is there."""
        try:
            with np.load(self.folder / f"{name}.npz", allow_pickle=False) as found:
                return {key: found[key] for key in found.files}
        except (OSError, ValueError, EOFError):
            return None

    def keep_json(self, name: str, value: dict[str, Any]) -> None:
        """Keep a JSON object."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / f"{name}.json", value)

    def keep_picture(self, name: str, png: bytes) -> None:
        """Keep a PNG file."""
        self._replace(f"{name}.png", lambda path: path.write_bytes(png))

    def keep_arrays(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Keep arrays."""

        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

        self._replace(f"{name}.npz", write)

    def _replace(self, name: str, write: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"{name}.{os.getpid()}.partial"
        write(partial)
        os.replace(partial, self.folder / name)
