"""Banks of every kind: found by their path, read whole or as crops."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketcortex.core import InputError, StimulusSet
from pocketcortex.data import read_bank


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five images of different sizes in a folder, a zip, a tar and two shards."""
    rng = np.random.default_rng(0)
    (tmp_path / "shards").mkdir()
    (tmp_path / "images").mkdir()
    with (
        zipfile.ZipFile(tmp_path / "bank.zip", "w") as zipped,
        tarfile.open(tmp_path / "bank.tar", "w") as tarred,
        tarfile.open(tmp_path / "shards" / "a.tar", "w") as first,
        tarfile.open(tmp_path / "shards" / "b.tar", "w") as second,
    ):
        for k in range(5):
            pixels = rng.integers(0, 256, (20 + k, 30, 3), dtype=np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, format="PNG")
            path = tmp_path / "images" / f"{k}.png"
            path.write_bytes(buffer.getvalue())
            zipped.write(path, path.name)
            tarred.add(path, path.name)
            (first if k < 2 else second).add(path, path.name)
    np.save(tmp_path / "bank.npy", rng.integers(0, 256, (4, 3, 16, 16), dtype=np.uint8))
    return tmp_path


@pytest.mark.parametrize("kind", ["bank.zip", "bank.tar", "shards", "shards/*.tar"])
def test_all_kinds_give_the_same_images(folder: Path, kind: str) -> None:
    whole = read_bank(folder / "images", 12)
    bank = read_bank(f"{folder}/{kind}", 12)
    np.testing.assert_array_equal(bank.images(), whole.images())
    crops = read_bank(folder / "images", 12, crops=3, seed=7, limit=4)
    assert len(crops) == 12
    again = read_bank(folder / kind, 12, crops=3, seed=7)
    np.testing.assert_array_equal(again.images()[:12], crops.images())
    assert again.fingerprint != read_bank(folder / kind, 12, crops=3, seed=8).fingerprint


def test_an_array_is_a_bank(folder: Path) -> None:
    assert len(read_bank(folder / "bank.npy", 16, limit=3)) == 3
    assert read_bank(folder / "bank.npy", 12, crops=1).image_size == (12, 12)
    with pytest.raises(InputError, match="16 x 16 where 12 x 12 are needed"):
        read_bank(folder / "bank.npy", 12)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("absent.zip", "does not exist"),
        ("notes.txt", "is no image bank"),
        ("bank.tar.gz", "gunzip"),
        ("absent*.tar", r"must match \.tar files"),
        ("bank*", r"must match \.tar files"),
        ("empty", "holds no image"),
    ],
)
def test_refuses_what_is_no_bank(folder: Path, path: str, reason: str) -> None:
    (folder / "notes.txt").write_text("no bank")
    (folder / "empty").mkdir()
    with tarfile.open(folder / "bank.tar.gz", "w:gz") as archive:
        archive.add(folder / "notes.txt", "notes.txt")
    with pytest.raises(InputError, match=reason):
        read_bank(folder / path, 12)


def test_refuses_negative_numbers(folder: Path) -> None:
    for wrong in ({"crops": -1}, {"limit": -1}):
        with pytest.raises(InputError, match="at least 0"):
            read_bank(folder / "images", 12, **wrong)


@pytest.mark.data
def test_photographs_are_cropped_and_streamed_in_any_order(real_data: Path) -> None:
    crops = read_bank(real_data / "banks" / "photos" / "photos.zip", 112, crops=2, limit=30)
    order = np.random.default_rng(0).permutation(60).reshape(6, 10)
    streamed = np.concatenate(list(crops.stream(order)))
    np.testing.assert_array_equal(streamed, crops.images()[order.ravel()])
    assert len({image.tobytes() for image in streamed}) == 60


@pytest.mark.data
def test_large_zip_has_the_digests_of_its_array(real_data: Path) -> None:
    bank = read_bank(real_data / "banks" / "tiny.zip", 64, limit=300)
    assert bank.digests == StimulusSet.from_array(bank.images()).digests
