"""Writing that a full disk, a kill or a power cut cannot leave half done under a file's name."""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Shaped

from pocketcortex.core.errors import PocketcortexError

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than this system allows",
    errno.EIO: "the disk reports an error",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "there is no permission to write there",
    errno.EPERM: "there is no permission to write there",
}
_OF_THE_PLACE = {errno.EROFS, errno.EACCES, errno.EPERM}
_TEXTS = {
    "No space left on device": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
    "File too large": errno.EFBIG,
    "Read-only file system": errno.EROFS,
    " requested and ": errno.ENOSPC,  # NumPy: "N requested and M written", of which it says no more
}
"""What libraries that raise no `OSError` with a number say instead."""


@contextmanager
def whole_path(path: str | Path) -> Iterator[Path]:
    """Give the place at which to write a file that gets its name when all is on disk, or never.

    What was there under the name stays until then. After an error nothing of the try is left.

    Parameters
    ----------
    path
        The file, in a folder that exists. It is written as ``NAME.partial`` first.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        sync(partial)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file for writing that gets its name when all of it is on disk, or never.

    As `whole_path`, with the file open.
    """
    with whole_path(path) as partial, partial.open("wb") as file:
        yield file


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF):  # no such thing on this file system
            raise
    finally:
        os.close(handle)


def new_array_file(
    path: Path, dtype: type[np.generic], shape: tuple[int, ...]
) -> Shaped[np.memmap, "..."]:
    """Return the array of zeros of a new `.npy` file, mapped into memory to be filled.

    Its room on the disk is taken at once: a disk that is found full when a mapped page is written
    kills the process without a word.

    Raises
    ------
    OSError
        If the disk has no room for it; nothing is left.
    """
    try:
        array = np.lib.format.open_memmap(path, "w+", dtype, shape)
        with path.open("rb+") as file:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    return array


@contextmanager
def held(path: str | Path) -> Iterator[None]:
    """Hold a lock file, waiting for the process that does; its folder must exist.

    The hold ends with the process, however that ends. The file is gone afterwards.
    """
    path = Path(path)
    while True:
        file = path.open("a")
        fcntl.flock(file, fcntl.LOCK_EX)
        if _is_still(path, file.fileno()):
            break
        file.close()  # the one who held it has removed it
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def _is_still(path: Path, handle: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(handle).st_ino
    except FileNotFoundError:
        return False


@contextmanager
def explained_writes(what: str, folder: str | Path) -> Iterator[None]:
    """Say in one sentence why something could not be written; other errors pass as they are.

    Parameters
    ----------
    what
        What is being written, such as ``"stage labels"``.
    folder
        Where to. Missing permission for files outside is not explained as a failure to write.

    Raises
    ------
    PocketcortexError
        If the disk is full, read-only or at fault, or files may not be so large.
    """
    folder = Path(folder)
    try:
        yield
    except PocketcortexError:
        raise
    except Exception as error:
        number = _number_of(error, folder)
        if number is None:
            raise
        room = _room(folder) if number in (errno.ENOSPC, errno.EDQUOT) else ""
        raise PocketcortexError(
            f"{what} could not be written to {folder}: {_REASONS[number]}{room}; what was finished "
            "before is kept: mend that and give the same command again"
        ) from error


def _number_of(error: BaseException, folder: Path) -> int | None:
    """Return the system's number for a failure to write, None for any other error."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.errno in _REASONS:
            inside = link.filename is None or _is_below(link.filename, folder)
            return link.errno if inside or link.errno not in _OF_THE_PLACE else None
        for text, number in _TEXTS.items():
            if text in str(link):
                return number
        link = link.__cause__
    return None


def _is_below(name: object, folder: Path) -> bool:
    path = Path(os.fsdecode(name)) if isinstance(name, str | bytes | os.PathLike) else folder
    return path.absolute().is_relative_to(folder.absolute())


def _room(folder: Path) -> str:
    while not folder.exists():
        folder = folder.parent
    try:
        return f" ({shutil.disk_usage(folder).free:,} bytes free)"
    except OSError:
        return ""
