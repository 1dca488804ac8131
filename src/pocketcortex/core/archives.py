"""Safe reading of files made by others: folders, zips and tars of images, and NumPy arrays.

Nothing is ever extracted to disk or unpickled, and whatever cannot be read is refused with an
`InputError` that names the file and, in an archive, the member. An archive is indexed once: where
each image lies is kept as arrays, so any image is read in any order, by several threads at once,
with no file open in between.
"""

import lzma
import os
import re
import stat
import struct
import sys
import tarfile
import tokenize
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from jaxtyping import Int, Integer, Shaped

from pocketcortex.core.errors import InputError, in_brief
from pocketcortex.core.memory import physical_bytes

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"})
MAX_MEMBER_BYTES = 256 * 2**20
MAX_ARCHIVE_BYTES = 64 * 2**30
MAX_RATIO = 200
"""Most that an archive may grow by when unpacked, where that is more than `MAX_MEMBER_BYTES`."""

_MAX_HEADER = 1024
"""Longest header of a `.npy` file: NumPy writes 118 bytes, and takes minutes for a bad long one."""

_UNREADABLE_ARRAY = (
    zipfile.BadZipFile,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    MemoryError,  # a header that claims more than there is
    RuntimeError,  # an encrypted or unknown kind of archive
    SyntaxError,
    tokenize.TokenError,
    OverflowError,
    TypeError,
    LookupError,
    struct.error,
)

_LOCAL_HEADER = struct.Struct("<4s2xHH16xHH")  # signature, flags, method, name and extra lengths
_ENCRYPTED = 0x1
_TAR_BLOCK = 512
_MAX_TAR_HEADER = 2**20  # of long names and the like, which take some hundred bytes
_DECOMPRESS = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
    b"(\xb5/\xfd": "unzstd",
}  # by the first bytes of the file


def is_image_name(name: str) -> bool:
    """Return whether a relative file name is a visible image: no dotfile, nothing of `__MACOSX`.

    Parameters
    ----------
    name
        File name with its folders, separated by `/` or a backslash.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return bool(parts) and not hidden and os.path.splitext(parts[-1])[1].lower() in IMAGE_SUFFIXES


@dataclass(frozen=True, eq=False)
class ImageFiles(ABC):
    """The image files of one place, each read by its number.

    Attributes
    ----------
    path
        The folder or archive.
    members
        Names of the image files with their folders, as they come.
    """

    path: Path
    members: tuple[str, ...]

    @abstractmethod
    def read(self, k: int) -> bytes:
        """Return the content of file `k`; safe to call from several threads."""


@dataclass(frozen=True, eq=False)
class FolderImages(ImageFiles):
    """Image files of a folder and its sub-folders."""

    def read(self, k: int) -> bytes:
        """Return the content of file `k`.

        Raises
        ------
        InputError
            If the file cannot be read.
        """
        with _opened(self.path / self.members[k]) as file:
            return file.read()


@dataclass(frozen=True, eq=False)
class ZipImages(ImageFiles):
    """Image members of a zip file, with what its directory says of each."""

    header_offset: Int[np.ndarray, " n_images"]
    n_packed: Int[np.ndarray, " n_images"]
    n_bytes: Int[np.ndarray, " n_images"]
    crc: Integer[np.ndarray, " n_images"]

    def read(self, k: int) -> bytes:
        """Return the unpacked content of member `k`.

        Raises
        ------
        InputError
            If the zip cannot be read or has changed, or the member is encrypted, compressed by
            an unusual method, truncated or fails its checksum.
        """
        what = f"{self.path}: member {self.members[k]!r}"
        offset, n_bytes = int(self.header_offset[k]), int(self.n_bytes[k])
        try:
            with _opened(self.path) as file:
                file.seek(offset)
                header = file.read(_LOCAL_HEADER.size)
                signature, flags, method, n_name, n_extra = _LOCAL_HEADER.unpack(header)
                file.seek(n_name + n_extra, os.SEEK_CUR)
                content = file.read(int(self.n_packed[k]))
            if signature != b"PK\x03\x04":
                raise zipfile.BadZipFile("no header where the directory says")
            if flags & _ENCRYPTED or method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise InputError(
                    f"{what} is encrypted, or compressed by an unusual method ({method}); "
                    "make the zip again without password, with ordinary compression"
                )
            if method == zipfile.ZIP_DEFLATED:
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, n_bytes + 1)
            if len(content) != n_bytes or zlib.crc32(content) != self.crc[k]:
                raise zipfile.BadZipFile("wrong length or checksum")
        except (struct.error, zlib.error, zipfile.BadZipFile) as error:
            raise InputError(
                f"{what} is damaged ({in_brief(error)}); fetch the archive again"
            ) from error
        return content


@dataclass(frozen=True, eq=False)
class TarImages(ImageFiles):
    """Image members of an uncompressed tar file, and where each one's content lies."""

    offset: Int[np.ndarray, " n_images"]
    n_bytes: Int[np.ndarray, " n_images"]

    def read(self, k: int) -> bytes:
        """Return the content of member `k`.

        Raises
        ------
        InputError
            If the tar cannot be read, or no longer holds a file of that length there.
        """
        n_bytes = int(self.n_bytes[k])
        with _opened(self.path) as file:
            file.seek(int(self.offset[k]) - _TAR_BLOCK)
            block = file.read(_TAR_BLOCK + n_bytes)
        try:
            tarfile.TarInfo.frombuf(block[:_TAR_BLOCK], "utf-8", "backslashreplace")
            if len(block) != _TAR_BLOCK + n_bytes:
                raise tarfile.ReadError("truncated")
        except tarfile.TarError as error:
            raise InputError(
                f"{self.path}: member {self.members[k]!r} is damaged ({in_brief(error)}), or "
                "the archive was replaced after it was listed; fetch it again"
            ) from error
        return block[_TAR_BLOCK:]


def index_folder(path: str | Path) -> FolderImages:
    """Return the image files of a folder and its sub-folders; dotfiles are left out.

    Raises
    ------
    InputError
        If the folder is missing.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; a folder of images was expected there")
    relative = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return FolderImages(folder, tuple(name for name in relative if is_image_name(name)))


def index_zip(
    path: str | Path,
    *,
    max_member_bytes: int = MAX_MEMBER_BYTES,
    max_archive_bytes: int = MAX_ARCHIVE_BYTES,
) -> ZipImages:
    """Return the image members of a zip, in the archive's own order.

    Folders, dotfiles, `__MACOSX` and files that are no images are left out; every member is
    checked all the same.

    Parameters
    ----------
    path
        The zip file.
    max_member_bytes, max_archive_bytes
        Largest uncompressed size allowed for one member and for all of them, in bytes.

    Raises
    ------
    InputError
        If the file is missing, truncated or no zip; if a member's name leaves the archive
        (`..`, absolute path, drive letter) or is a symbolic link; if a size is over its limit, or
        members share their packed bytes, or all would grow more than 200-fold when unpacked.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        archive_bytes = Path(path).stat().st_size
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; a zip of images was expected there") from None
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise InputError(
            f"{path} is not a zip file, or is truncated ({in_brief(error)}); fetch it again"
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be opened as a zip ({error.strerror})") from error
    for info in members:
        link = stat.S_ISLNK(info.external_attr >> 16)
        _refuse_unsafe(path, info.filename, "is a symbolic link" if link else None)
        _refuse_large(
            path, info.filename, max(info.file_size, info.compress_size), max_member_bytes
        )
        if not 0 <= info.header_offset <= archive_bytes - info.compress_size:
            raise InputError(f"{path}: member {info.filename!r} is truncated; fetch it again")
    _refuse_bombs(path, members, archive_bytes, max_archive_bytes)
    images = [i for i in members if i.filename[-1:] != "/" and is_image_name(i.filename)]
    return ZipImages(
        Path(path),
        tuple(info.filename for info in images),
        np.array([info.header_offset for info in images], dtype=np.int64),
        np.array([info.compress_size for info in images], dtype=np.int64),
        np.array([info.file_size for info in images], dtype=np.int64),
        np.array([info.CRC for info in images], dtype=np.uint32),
    )


class _Headers:
    """A tar's file as `tarfile` reads it: a damaged header cannot ask for gigabytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_TAR_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)


def _open_tar(file: BinaryIO) -> tarfile.TarFile:
    headers = cast("BinaryIO", _Headers(file))
    return tarfile.open(fileobj=headers, mode="r:", errors="backslashreplace")


def index_tar(path: str | Path, *, max_member_bytes: int = MAX_MEMBER_BYTES) -> TarImages:
    """Return the image members of an uncompressed tar, found by one pass over its headers.

    What is left out and what is checked is as for `index_zip`.

    Parameters
    ----------
    path
        The tar file.
    max_member_bytes
        Largest size allowed for one member, in bytes.

    Raises
    ------
    InputError
        If the file is missing, compressed, truncated or no tar; if a member's name leaves the
        archive; if a member is a link, a device or anything but a plain file or a folder, or too
        large.
    """
    names, offsets, lengths = [], [], []
    last = -1
    try:
        with Path(path).open("rb") as file:
            _refuse_compressed(path, file.read(6))
            file.seek(0)
            with _open_tar(file) as archive:
                while (info := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # else they pile up
                    if info.size < 0 or info.offset <= last:
                        raise tarfile.ReadError(f"member {info.name!r} overlaps another")
                    last = info.offset
                    plain = info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not info.sparse
                    odd = None if plain or info.isdir() else "is a link, a device or the like"
                    _refuse_unsafe(path, info.name, odd)
                    _refuse_large(path, info.name, info.size, max_member_bytes)
                    if plain and is_image_name(info.name):
                        names.append(info.name)
                        offsets.append(info.offset_data)
                        lengths.append(info.size)
                # tarfile takes a damaged header, or the end of the file, for the end of the tar.
                file.seek(archive.offset)
                if any(end := file.read(_TAR_BLOCK)) or len(end) < _TAR_BLOCK:
                    raise tarfile.ReadError("no end-of-archive mark after the last member")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; a tar of images was expected there") from None
    except InputError:
        raise
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{path} is not a tar file, or is damaged or truncated ({in_brief(error)}); fetch it "
            "again"
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be opened as a tar ({error.strerror})") from error
    place = np.array([offsets, lengths], dtype=np.int64).reshape(2, -1)
    return TarImages(Path(path), tuple(names), place[0], place[1])


def read_array(path: str | Path) -> Shaped[np.ndarray, "..."]:
    """Return the plain array that a `.npy` file holds.

    Parameters
    ----------
    path
        The file, as written by `numpy.save` with a numeric, boolean or text array.

    Raises
    ------
    InputError
        If the file is missing, truncated, no NumPy file, or holds pickled objects.
    """
    with _explained(path), Path(path).open("rb") as file:
        loaded = np.load(file, allow_pickle=False, max_header_size=_MAX_HEADER)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            raise InputError(f"{path} is an archive (.npz) where one array (.npy) is needed")
        return _checked(np.asarray(loaded))


def map_array(path: str | Path) -> Shaped[np.ndarray, "..."]:
    """Return the array of a `.npy` file as `read_array` does, its numbers read when they are used.

    Raises
    ------
    InputError
        If the file is missing, truncated, no NumPy file, or holds pickled objects.
    """
    with _explained(path):
        loaded = np.load(path, mmap_mode="r", allow_pickle=False, max_header_size=_MAX_HEADER)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            loaded.close()
            raise InputError(f"{path} is an archive (.npz) where one array (.npy) is needed")
        return _checked(np.asarray(loaded))


def read_arrays(path: str | Path) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Return the plain arrays that an `.npz` file holds, by name.

    Parameters
    ----------
    path
        The file, as written by `numpy.savez` or `numpy.savez_compressed`.

    Raises
    ------
    InputError
        If the file is missing, truncated, altered, no archive of arrays, or holds pickled objects;
        if it unpacks to more than the machine's memory or grows more than 200-fold by it.
    """
    with _explained(path), Path(path).open("rb") as file:
        start = file.read(6)
        if start == b"\x93NUMPY":
            raise InputError(f"{path} is one array (.npy) where an archive (.npz) is needed")
        if start and not start.startswith(b"PK"):
            raise ValueError("a pickle, or no NumPy file")
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            _refuse_bombs(path, members, os.fstat(file.fileno()).st_size, physical_bytes())
            foreign = [info.filename for info in members if not info.filename.endswith(".npy")]
            if foreign:
                raise InputError(
                    f"{path} holds {foreign[0]!r}, which is no array; save it by numpy.savez"
                )
            return {i.filename.removesuffix(".npy"): _array_of(archive, i) for i in members}


def _array_of(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Shaped[np.ndarray, "..."]:
    """Return a member's array, having read all of the member, and with it its checksum."""
    with archive.open(info) as member:
        array = np.lib.format.read_array(member, allow_pickle=False, max_header_size=_MAX_HEADER)
        if member.read(1):
            raise ValueError(f"{info.filename} holds more than its array")
    return _checked(np.asarray(array))


def _checked(array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    if array.size > array.nbytes and array.dtype.itemsize == 0 and array.size > MAX_MEMBER_BYTES:
        raise ValueError(f"{array.size} values of no size")  # they would take no room in the file
    if array.dtype.kind == "U" and array.size > 0:  # NumPy makes text of any number
        letters = np.ascontiguousarray(array).view(
            np.dtype("u4").newbyteorder(array.dtype.byteorder)
        )
        if letters.max(initial=0) > sys.maxunicode:
            raise ValueError(f"a letter number {letters.max()}")
    return array


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error


def _refuse_unsafe(path: str | Path, name: str, reason: str | None) -> None:
    if ".." in name.replace("\\", "/").split("/"):
        reason = "climbs out of the archive by '..'"
    elif name.startswith(("/", "\\")):
        reason = "has an absolute path"
    elif re.match(r"[A-Za-z]:", name):
        reason = "starts with a drive letter"
    if reason is not None:
        raise InputError(f"{path}: member {name!r} {reason}; make the archive again without it")


def _refuse_large(path: str | Path, name: str, n_bytes: int, max_bytes: int) -> None:
    if n_bytes > max_bytes:
        raise InputError(
            f"{path}: member {name!r} unpacks to {n_bytes} bytes, more than "
            f"the {max_bytes} allowed; remove it from the archive"
        )


def _refuse_bombs(
    path: str | Path, members: Sequence[zipfile.ZipInfo], archive_bytes: int, max_bytes: int
) -> None:
    """Refuse an archive that unpacks to far more than it is."""
    total = sum(info.file_size for info in members)
    if total > max_bytes:
        raise InputError(
            f"{path} unpacks to {total} bytes, more than the {max_bytes} allowed; "
            "split it into smaller archives"
        )
    if sum(info.compress_size for info in members) > archive_bytes:
        raise InputError(
            f"{path}: members overlap each other, as in an archive made to fill the disk; "
            "make the archive again"
        )
    if total > max(MAX_MEMBER_BYTES, MAX_RATIO * archive_bytes):
        raise InputError(
            f"{path} of {archive_bytes} bytes unpacks to {total}, more than {MAX_RATIO} times as "
            "much; make the archive again, without compression"
        )


def _refuse_compressed(path: str | Path, start: bytes) -> None:
    for magic, command in _DECOMPRESS.items():
        if start.startswith(magic):
            raise InputError(
                f"{path} is compressed, so its images cannot be read in any order; "
                f"decompress it first ({command})"
            )


@contextmanager
def _explained(path: str | Path) -> Iterator[None]:
    """Turn what `numpy.load` raises into an `InputError` of one line."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; a file of arrays was expected there") from None
    except _UNREADABLE_ARRAY as error:
        raise InputError(
            f"{path} is damaged or truncated ({in_brief(error)}); fetch it again"
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or in_brief(error)})") from error
    except ValueError as error:
        raise InputError(_what_numpy_found(path, in_brief(error))) from error


def _what_numpy_found(path: str | Path, message: str) -> str:
    with Path(path).open("rb") as file:
        start = file.read(6)
    if "max_header_size" in message:
        return f"{path} has a header of over {_MAX_HEADER} bytes; save it again with numpy.save"
    if "pickle" not in message.lower():
        return f"{path} is damaged or truncated ({message}); fetch it again"
    if start.startswith((b"\x80", b"\x93NUMPY", b"PK")):
        return (
            f"{path} holds pickled objects where a plain array is expected; "
            "save it again from numbers, with numpy.save(..., allow_pickle=False)"
        )
    return f"{path} is not a NumPy file; save the array again with numpy.save"
