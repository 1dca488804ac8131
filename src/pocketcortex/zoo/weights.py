"""Weights files: where they are expected, and whether they are whole."""

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from pocketcortex.core import InputError
from pocketcortex.core.runs import hash_file

WEIGHTS_VARIABLE = "POCKETCORTEX_WEIGHTS"
"""Environment variable that names the folder in which weights are looked for first."""

PINS = "SHA256SUMS"
"""File in the folder of weights that holds what each file of the Hub hashed to when first used."""
_HASH = re.compile(r"-([0-9a-f]{8,64})\.[a-z.]+$")
_SHA256 = re.compile(r"[0-9a-f]{64}")
SUFFIXES = (".safetensors", ".pth", ".torch", ".pth.tar")
"""Endings under which a network's weights are looked for, in this order."""


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights: its names, and where it comes from.

    Attributes
    ----------
    names
        File names under which it is looked for, in the folder that ``POCKETCORTEX_WEIGHTS`` names
        and in torch's cache. A name that ends like ``-0676ba61.pth`` tells the first digits of the
        file's SHA-256.
    address
        Where it is published; empty if that is not known.
    hub
        Repository and file on the Hugging Face Hub, whose cache is looked into too.
    downloadable
        Whether `require` may fetch it. Otherwise the address is only told: nothing says what the
        file must hash to.
    """

    names: tuple[str, ...]
    address: str = ""
    hub: tuple[str, str] | None = None
    downloadable: bool = True

    def find(self) -> Path | None:
        """Return the file if it is on this machine; nothing is asked of a network."""
        for folder in _folders():
            for name in self.names:
                if (folder / name).is_file():
                    return folder / name
        return None if self.hub is None else cached_on_hub(*self.hub)

    def require(self, network: str, *, download: bool = False) -> Path:
        """Return the file, found whole on this machine or, where allowed, fetched.

        Parameters
        ----------
        network
            Name of the network it is for, told in errors.
        download
            Whether to fetch it if it is missing: into the folder that ``POCKETCORTEX_WEIGHTS``
            names, or into the cache of torch or the Hub.

        Raises
        ------
        InputError
            If the file is missing and not to be fetched, if it cannot be fetched, or if it is not
            the published one; for a file of the Hub, not the one that was used first: its hash is
            then kept in ``SHA256SUMS``, in the folder that ``POCKETCORTEX_WEIGHTS`` names or
            torch's cache.
        """
        path = self.find()
        if path is None and download:
            path = self._downloaded(network)
        if path is None:
            raise InputError(f"the weights of network {network!r} are not here: {self.describe()}")
        digest = verify(path)
        if self.hub is not None:
            _pin("/".join(self.hub), path, digest or hash_file(path))
        return path

    def describe(self) -> str:
        """Return one sentence on which file is looked for, where, and where it is published."""
        named = os.environ.get(WEIGHTS_VARIABLE)
        folder = named or f"a folder that the environment variable {WEIGHTS_VARIABLE} names"
        published = f", published at {self.address}," if self.address else ""
        fetch = ", or ask for the download" if self._fetchable else ""
        return f"put {' or '.join(self.names)}{published} into {folder}, or give its path{fetch}"

    @property
    def _fetchable(self) -> bool:
        return self.downloadable and bool(self.hub or self._known_hash)

    @property
    def _known_hash(self) -> str | None:
        """The first digits of the SHA-256 that the name or the address tells."""
        told = (_HASH.search(name) for name in (*self.names[:1], self.address))
        return next((match.group(1) for match in told if match), None)

    def _downloaded(self, network: str) -> Path:
        if not self._fetchable:
            raise InputError(
                f"the weights of network {network!r} are not fetched from here, since nothing "
                f"known says what they must hash to: {self.describe()}"
            )
        try:
            if self.hub is not None:
                from huggingface_hub import hf_hub_download

                return Path(hf_hub_download(*self.hub))
            folder = _folders()[0]
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / self.names[0]
            torch.hub.download_url_to_file(  # nothing gets the name but what hashes to it
                self.address, str(path), hash_prefix=self._known_hash, progress=False
            )
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"cannot fetch the weights of network {network!r} from "
                f"{'/'.join(self.hub) if self.hub else self.address}: {error}; {self.describe()}"
            ) from error
        return path


def _folders() -> list[Path]:
    """Return where weights files are looked for, in order; the first is where they are put."""
    named = os.environ.get(WEIGHTS_VARIABLE)
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    return [Path(named).expanduser(), cache] if named else [cache]


def weights_folder() -> Path | None:
    """Return the folder that ``POCKETCORTEX_WEIGHTS`` names, or None."""
    named = os.environ.get(WEIGHTS_VARIABLE)
    return Path(named).expanduser() if named else None


def cached_on_hub(repository: str, name: str) -> Path | None:
    """Return a file that the Hugging Face Hub's cache on this machine has, or None."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    found = try_to_load_from_cache(repository, name)
    return Path(found) if isinstance(found, str) else None


def verify(path: Path) -> str | None:
    """Compare a file with the hash in its name, if it has one, and return its SHA-256 then.

    Torchvision's names end with the first digits of the SHA-256; the Hub's cache names files by
    the whole of it.

    Raises
    ------
    InputError
        If the file is not the one that its name says.
    """
    expected = _expected_hash(path)
    if expected is None:
        return None
    digest = hash_file(path)
    if not digest.startswith(expected):
        raise InputError(
            f"weights file {path} is cut short or altered: its SHA-256 starts with "
            f"{digest[: len(expected)]}, expected {expected}; delete it and get it again"
        )
    return digest


def _pin(name: str, path: Path, digest: str) -> None:
    """Compare a file with what one of that name hashed to when first used; keep it if this is it.

    The Hub's own hash says that a file came whole, not that it is the same as last year.
    """
    pins = _folders()[0] / PINS
    lines = pins.read_text().splitlines() if pins.is_file() else []
    known = dict(line.split("  ", 1)[::-1] for line in lines if "  " in line)
    if known.get(name, digest) != digest:
        raise InputError(
            f"weights file {path} has SHA-256 {digest}, but {name} was {known[name]} when first "
            f"used here; if the new one is wanted, take its line out of {pins}"
        )
    if name not in known:
        with contextlib.suppress(OSError):  # a folder that is only read has its pins from others
            pins.parent.mkdir(parents=True, exist_ok=True)
            with pins.open("a") as file:
                file.write(f"{digest}  {name}\n")


def _expected_hash(path: Path) -> str | None:
    target = path.resolve().name
    if _SHA256.fullmatch(target):
        return target
    match = _HASH.search(path.name)
    return match.group(1) if match else None
