"""Files of an object store, copied once to this machine and checked whenever they are used."""

import glob
import hashlib
import os
import shutil
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from pocketcortex.core import (
    InputError,
    PocketcortexError,
    explained_writes,
    held,
    in_brief,
    whole_path,
    write_json,
)
from pocketcortex.core.runs import hash_file, read_json_object

_INDEX = "index.json"
_AT_ONCE = 2**20


def local_path(path: str | Path) -> Path:
    """Return where on this machine the files at a path or at an object store's address lie.

    A path is returned as it is. What an address such as ``s3://lab/banks/photos.zip`` names (a
    file, all files below a folder, or those that a pattern matches) is copied to
    ``$XDG_CACHE_HOME/pocketcortex/remote`` (``~/.cache`` without the variable), and copied again
    where the store tells of a change, or the copy is no longer what was written.

    Parameters
    ----------
    path
        A path, or ``PROTOCOL://...`` for any protocol that fsspec knows.

    Raises
    ------
    InputError
        If the protocol is unknown or needs a package that is not installed, nothing is there, the
        store refuses, a file does not arrive whole, or a name would lie outside the copy's folder.
    PocketcortexError
        If the disk has no room for the copies.
    """
    address = str(path)
    if "://" not in address:
        return Path(path)
    files, found, root = _listed(address)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "pocketcortex" / "remote" / hashlib.sha256(address.encode()).hexdigest()[:32]
    with explained_writes(f"the copy of {address}", home):
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder.with_name(folder.name + ".lock")):
            names = {_inside(one, root, address): one for one in found}
            _copy_what_changed(files, names, folder, address)
    return folder / "files" / PurePosixPath(root).name if root in found else folder / "files"


def _listed(address: str) -> tuple[Any, dict[str, dict[str, Any]], str]:
    """Return a file system, the files that an address names, and what they lie below."""
    if "::" in address:
        raise InputError(f"{address} chains protocols; give one")
    try:
        files, root = fsspec.core.url_to_fs(address)
        if glob.has_magic(root):
            found = {k: v for k, v in files.glob(root, detail=True).items() if v["type"] == "file"}
            parts = PurePosixPath(root).parts
            plain = next(k for k, part in enumerate(parts) if glob.has_magic(part))
            root = str(PurePosixPath(*parts[:plain]))
        else:
            found = files.find(root, detail=True)
    except FileNotFoundError:
        found = {}
    except ImportError as error:
        raise InputError(f"{address} cannot be read here: {in_brief(error)}") from error
    except Exception as error:  # each store has its own
        raise InputError(f"{address} cannot be listed: {in_brief(error)}") from error
    if not found:
        raise InputError(f"{address} does not exist, or holds no file")
    return files, found, root


def _inside(name: str, root: str, address: str) -> str:
    """Return a file's name below the copy's folder."""
    below = PurePosixPath(name)
    if name == root:
        return below.name
    try:
        below = below.relative_to(root)
    except ValueError as error:
        raise InputError(f"{address}: {name} lies outside {root}") from error
    if ".." in below.parts or "\\" in name or "\0" in name:
        raise InputError(f"{address}: {name[:200]!r} is no name of a file that can be copied")
    return str(below)


def _copy_what_changed(files: Any, names: dict[str, str], folder: Path, address: str) -> None:
    index, place = read_json_object(folder / _INDEX), folder / "files"
    kept: dict[str, Any] = {}
    for path in sorted(place.rglob("*")):  # what the store has no more
        if path.is_file() and path.relative_to(place).as_posix() not in names:
            path.unlink()
    for name, remote in sorted(names.items()):
        version = str(files.ukey(remote))
        before = index.get(name)
        if (
            isinstance(before, dict)
            and before.get("version") == version
            and _hash(place / name) == before.get("sha256")
        ):
            kept[name] = before
            continue
        size = int(files.size(remote) or 0)
        if size > (free := shutil.disk_usage(folder).free):
            raise PocketcortexError(
                f"{remote} takes {size / 2**30:.1f} GiB and {folder} has {free / 2**30:.1f} free; "
                "set XDG_CACHE_HOME to a larger disk"
            )
        kept[name] = {"version": version, "sha256": _copied(files, remote, place / name, size)}
        write_json(folder / _INDEX, index | kept)
    write_json(folder / _INDEX, kept)


def _copied(files: Any, remote: str, path: Path, size: int) -> str:
    """Copy a file and return the hash of it, as it was read back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with whole_path(path) as partial:
        try:
            source = files.open(remote, "rb")
        except Exception as error:  # each store has its own
            raise InputError(f"{remote} cannot be read: {in_brief(error)}") from error
        with source, partial.open("wb") as file:
            while block := _next(source, remote):
                digest.update(block)
                file.write(block)
        if partial.stat().st_size != size:
            raise InputError(
                f"{remote} ended after {partial.stat().st_size} of {size} bytes; try again"
            )
    if _hash(path) != digest.hexdigest():
        raise PocketcortexError(f"{path} was not written as it was read; the disk is at fault")
    return digest.hexdigest()


def _next(source: Any, remote: str) -> bytes:
    try:
        return bytes(source.read(_AT_ONCE))
    except Exception as error:  # each store has its own
        raise InputError(f"{remote} cannot be read: {in_brief(error)}") from error


def _hash(path: Path) -> str:
    """Return the hash of a file's content, "" if it cannot be read."""
    try:
        return hash_file(path)
    except OSError:
        return ""
