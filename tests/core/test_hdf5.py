"""Lists of HDF5 files that lead to themselves are refused, and whole files are read."""

import io
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from pocketcortex.core.hdf5 import open_hdf5


def written(path: Path, **how: object) -> bytes:
    """Write a file with texts of any length (a global heap) and names freed (a local heap)."""
    with h5py.File(path, "w", **how) as file:
        for k in range(12):
            file[f"group/name number {k}"] = k
        for k in (2, 5, 8):
            del file[f"group/name number {k}"]
        file["texts"] = ["one", "two", "three"]
    return path.read_bytes()


def replaced(content: bytes, at: int, number: int) -> bytes:
    return content[:at] + number.to_bytes(8, "little") + content[at + 8 :]


def free_blocks(content: bytes) -> list[int]:
    """Return where the free blocks of the local heap that has several begin."""
    at = -1
    while (at := content.find(b"HEAP\x00", at + 1)) >= 0:
        block, segment = (int.from_bytes(content[at + k : at + k + 8], "little") for k in (16, 24))
        blocks: list[int] = []
        while block != 1:
            blocks.append(segment + block)
            block = int.from_bytes(content[blocks[-1] : blocks[-1] + 8], "little")
        if len(blocks) > 1:
            return blocks
    raise AssertionError("no free blocks")


@pytest.mark.parametrize("userblock_size", [0, 512, 2048])
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_whole_files_are_read(tmp_path: Path, userblock_size: int, libver: str) -> None:
    path = tmp_path / "whole.h5"
    content = written(path, userblock_size=userblock_size, libver=libver)
    for source in (path, str(path), io.BytesIO(content)):
        with open_hdf5(source) as file:
            assert file["group/name number 3"][()] == 3
            assert file["texts"].asstr()[:].tolist() == ["one", "two", "three"]


def test_free_blocks_in_a_circle_are_refused_at_once(tmp_path: Path) -> None:
    content = written(tmp_path / "whole.h5")
    first, *_, last = free_blocks(content)
    heap = content.rfind(b"HEAP\x00", 0, first)
    segment = int.from_bytes(content[heap + 24 : heap + 32], "little")
    damaged = replaced(content, last, first - segment)  # the last leads to the first
    begun = time.monotonic()
    words = f"a heap at byte {heap} leads to itself"
    with pytest.raises(ValueError, match=words), open_hdf5(io.BytesIO(damaged)):
        pass
    assert time.monotonic() - begun < 1


def test_a_text_of_size_0_that_leads_to_itself_is_refused_at_once(tmp_path: Path) -> None:
    content = written(tmp_path / "whole.h5")
    heap = content.index(b"GCOL\x01")
    damaged = replaced(content, heap + 16 + 8, 2**64 - 16)  # with its header, of size 0
    words = f"a heap at byte {heap} leads to itself"
    with pytest.raises(ValueError, match=words), open_hdf5(io.BytesIO(damaged)):
        pass


def test_a_heap_with_reserved_bytes_set_is_looked_at_too(tmp_path: Path) -> None:
    content = written(tmp_path / "whole.h5")
    heap = content.index(b"GCOL\x01")
    damaged = replaced(content, heap + 16 + 8, 2**64 - 16)
    damaged = damaged[: heap + 5] + b"abc" + damaged[heap + 8 :]
    with pytest.raises(ValueError, match="leads to itself"), open_hdf5(io.BytesIO(damaged)):
        pass


def test_addresses_and_lengths_of_four_bytes(tmp_path: Path) -> None:
    path = tmp_path / "small.h5"
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_sizes(4, 4)
    with h5py.File(h5py.h5f.create(str(path).encode(), h5py.h5f.ACC_TRUNC, creation)) as file:
        for k in range(12):
            file[f"group/name number {k}"] = k
        for k in (2, 5, 8):
            del file[f"group/name number {k}"]
        file["texts"] = ["one", "two", "three"]
    with open_hdf5(path) as file:
        assert file["group/name number 3"][()] == 3
        assert file["texts"].asstr()[1] == "two"
    content = path.read_bytes()
    heap = content.index(b"GCOL\x01")
    damaged = content[: heap + 16 + 8] + bytes(4) + content[heap + 16 + 12 :]
    damaged = damaged[: heap + 16] + bytes(2) + damaged[heap + 18 :]
    with pytest.raises(ValueError, match="leads to itself"), open_hdf5(io.BytesIO(damaged)):
        pass


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", b"HEAP\x00GCOL\x01", bytes(5000)])
def test_what_is_no_file_is_for_hdf5_to_say(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "none.h5"
    path.write_bytes(content)
    for source in (path, io.BytesIO(content)):
        with pytest.raises(OSError, match="nable to"), open_hdf5(source):
            pass


def test_names_and_numbers_may_say_heap(tmp_path: Path) -> None:
    """Data that look like a heap are none, as what follows is none."""
    path = tmp_path / "data.h5"
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, 100_000, dtype=np.uint8)
    for k in range(0, len(noise) - 5, 50):
        noise[k : k + 5] = np.frombuffer((b"HEAP\x00", b"GCOL\x01")[k % 100 == 0], np.uint8)
    with h5py.File(path, "w") as file:
        file["noise"] = noise
    with open_hdf5(path) as file:
        assert np.array_equal(file["noise"][:], noise)
