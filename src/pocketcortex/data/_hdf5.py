"""HDF5 files made by others, read without following a link out of the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pocketcortex.core import InputError, in_brief
from pocketcortex.core.hdf5 import open_hdf5
from pocketcortex.core.memory import limited_memory

_MAX_LINKS = 8


@contextmanager
def opened(path: str | Path) -> Iterator[h5py.File]:
    """Open a file for reading.

    Raises
    ------
    InputError
        If it is missing or no HDF5 file, also for what goes wrong while reading.
    """
    try:
        with limited_memory(path), open_hdf5(path) as file:
            yield file
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; an HDF5 file was expected there") from None
    except InputError:
        raise
    except Exception as error:  # of a damaged file, HDF5 and its readers raise almost anything
        raise InputError(
            f"{path} cannot be read as HDF5 ({in_brief(error)}); fetch it again"
        ) from error


def refuse_links(path: str | Path) -> None:
    """Refuse a file of which anything lies elsewhere, before a library follows it there.

    Raises
    ------
    InputError
        If it holds a link that is not a hard one, or numbers that lie in another file.
    """
    with opened(path) as file:
        found: list[str] = []

        def look(name: bytes, info: Any) -> None:
            if info.type != h5py.h5l.TYPE_HARD:
                found.append(name.decode("utf-8", "replace"))

        file.id.links.visit(look, info=True)

        def look_inside(name: str, entry: object) -> None:
            if isinstance(entry, h5py.Dataset) and (entry.external or entry.is_virtual):
                found.append(name)

        file.visititems(look_inside)
        if found:
            raise InputError(
                f"{path}: {found[0]} lies elsewhere (a link, or numbers in another file), where it "
                "is not read; copy it into this file"
            )


def find(file: h5py.File, name: str, *, _links: int = 0) -> h5py.Group | h5py.Dataset | None:
    """Return the group or dataset at a path, None if there is none.

    Links within the file are followed, by hand, so that none leads out of it.

    Raises
    ------
    InputError
        If a link leads to another file or in a circle, or a dataset's numbers lie in another file.
    """
    here: Any = file
    parts = [part for part in name.split("/") if part]
    for k, part in enumerate(parts):
        link = here.get(part, getlink=True) if isinstance(here, h5py.Group) else None
        if link is None:
            return None
        if isinstance(link, h5py.ExternalLink):
            raise InputError(
                f"{file.filename}: {name} leads to another file ({link.filename}), which is not "
                "read; copy its content into this file"
            )
        if isinstance(link, h5py.SoftLink):
            if _links >= _MAX_LINKS:
                raise InputError(f"{file.filename}: the links of {name} go in a circle")
            target = link.path if link.path.startswith("/") else f"{here.name}/{link.path}"
            rest = "/".join([target, *parts[k + 1 :]])
            return find(file, rest, _links=_links + 1)
        here = here[part]
    if isinstance(here, h5py.Dataset) and (here.external or here.is_virtual):
        raise InputError(
            f"{file.filename}: the numbers of {name} lie in another file, which is not read; "
            "copy them into this file"
        )
    return here


def dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """Return the dataset at a path.

    Raises
    ------
    InputError
        As for `find`, and if there is none.
    """
    found = find(file, name)
    if not isinstance(found, h5py.Dataset):
        raise InputError(f"{file.filename} has no dataset {name}; is it of another layout?")
    return found


def numbers(file: h5py.File, name: str) -> np.ndarray:
    """Return the whole of a numeric dataset.

    Raises
    ------
    InputError
        As for `dataset`, and if it holds no numbers.
    """
    found = dataset(file, name)
    if found.dtype.kind not in "fiu":
        raise InputError(f"{file.filename}: {name} should hold numbers; got {found.dtype}")
    return np.asarray(found[()])


def text(file: h5py.File, name: str) -> str | None:
    """Return a scalar as text, None if it is not there.

    Raises
    ------
    InputError
        As for `find`, and if it is no scalar.
    """
    found = find(file, name)
    if found is None:
        return None
    value = found[()] if isinstance(found, h5py.Dataset) and found.size == 1 else None
    if value is None:
        raise InputError(f"{file.filename}: {name} should be one text or number")
    value = np.asarray(value).reshape(-1)[0]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
