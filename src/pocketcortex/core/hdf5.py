"""HDF5 files made by others, opened once no list in them leads to itself."""

import io
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import h5py

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_GLOBAL_HEAP, _LOCAL_HEAP = b"GCOL\x01", b"HEAP\x00"
_END_OF_FREE = 1
_SIZES = (2, 4, 8, 16, 32)

Content = bytes | mmap.mmap


class _Layout(NamedTuple):
    """Where addresses count from, and of how many bytes addresses and lengths are."""

    base: int
    address: int
    length: int


@contextmanager
def open_hdf5(source: str | Path | io.BytesIO) -> Iterator[h5py.File]:
    """Open a file for reading, unless HDF5 would follow a list in it for ever.

    Such lists are the objects of a global heap (texts, references), where HDF5 goes from one to the
    next by their sizes, whatever they are; and the free blocks of a local heap (names of a group's
    members), of which each names the next and takes memory.

    Parameters
    ----------
    source
        The file, or its content.

    Raises
    ------
    ValueError
        If a list leads to itself.
    OSError
        If the file cannot be read or is no HDF5 file.

    References
    ----------
    HDF5 File Format Specification 3.0: II.A "Superblock", III.D "Local Heaps", III.E "Global Heap".
    """
    with _content(source) as content:
        if layout := _layout(content):
            n_left = len(content) // 16  # neither heaps nor what they hold overlap
            for at in _places(content, _GLOBAL_HEAP):
                n_left = _walk_global(content, layout, at, n_left)
            for at in _places(content, _LOCAL_HEAP):
                n_left = _walk_free(content, layout, at, n_left)
    with h5py.File(source, "r") as file:
        yield file


@contextmanager
def _content(source: str | Path | io.BytesIO) -> Iterator[Content]:
    if isinstance(source, io.BytesIO):
        yield source.getvalue()
        return
    with open(source, "rb") as file:
        if not file.seek(0, os.SEEK_END):
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield content


def _layout(content: Content) -> _Layout | None:
    at = 0
    while content[at : at + 8] != _SIGNATURE:  # looked for where HDF5 does
        at = 2 * at or 512
        if at >= len(content):
            return None
    version = content[at + 8 : at + 9]
    sizes = content[at + 13 : at + 15] if version <= b"\x01" else content[at + 9 : at + 11]
    known = len(sizes) == 2 and all(size in _SIZES for size in sizes)
    return _Layout(at, *sizes) if known else None


def _places(content: Content, signature: bytes) -> Iterator[int]:
    at = content.find(signature)
    while at >= 0:
        yield at
        at = content.find(signature, at + len(signature))


def _number(content: Content, at: int, n_bytes: int) -> int:
    return int.from_bytes(content[at : at + n_bytes], "little")


def _walk_global(content: Content, layout: _Layout, at: int, n_left: int) -> int:
    header = (8 + layout.length + 7) // 8 * 8  # of the heap, and of an object
    end = at + _number(content, at + 8, layout.length)
    at_object = at + header
    if end > len(content):
        return n_left  # refused by HDF5
    while at_object + header <= end:
        size = _number(content, at_object + 8, layout.length)
        is_object = content[at_object : at_object + 2] != b"\x00\x00"  # else what is free
        step = (header + size + 7) // 8 * 8 % 2**64 if is_object else size
        n_left -= 1
        if not step or at_object + step > end or n_left < 0:
            raise _endless(at)
        at_object += step
    return n_left


def _walk_free(content: Content, layout: _Layout, at: int, n_left: int) -> int:
    n = layout.length
    size, block = _number(content, at + 8, n), _number(content, at + 8 + n, n)
    segment = layout.base + _number(content, at + 8 + 2 * n, layout.address)
    n_blocks = min(size, len(content)) // (2 * n)  # at most
    while block != _END_OF_FREE and block < size and segment + block < len(content):
        n_left, n_blocks = n_left - 1, n_blocks - 1
        if n_left < 0 or n_blocks < 0:
            raise _endless(at)
        block = _number(content, segment + block, n)
    return n_left


def _endless(at: int) -> ValueError:
    return ValueError(f"a heap at byte {at} leads to itself")
