"""Lazy lists of images: order, sizes, subsets and identity."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pocketcortex.core import InputError, StimulusSet


def random_images(n: int, height: int = 4, width: int = 5, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 3, height, width), dtype=np.uint8)


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(buffer, format="PNG")
    return buffer.getvalue()


def make_zip(path: Path, members: dict[str, np.ndarray]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, image in members.items():
            archive.writestr(name, png(image))
    return path


def test_array_is_copied_and_frozen() -> None:
    images = random_images(3)
    stimuli = StimulusSet.from_array(images)
    before = images.copy()
    images[:] = 0
    np.testing.assert_array_equal(stimuli.images(), before)
    stimuli.images()[:] = 0
    np.testing.assert_array_equal(stimuli.images(), before)
    assert stimuli.names == ("image0001", "image0002", "image0003")
    assert stimuli.image_size == (4, 5)
    assert repr(stimuli) == "StimulusSet(3 images from memory)"


def test_zip_is_sorted_by_name_whatever_the_folder(tmp_path: Path) -> None:
    images = random_images(3)
    members = {"z/image3.png": images[2], "image1.png": images[0], "a/image2.png": images[1]}
    stimuli = StimulusSet.from_zip(make_zip(tmp_path / "images.zip", members))
    assert stimuli.names == ("image1.png", "image2.png", "image3.png")
    np.testing.assert_array_equal(stimuli.images(), images)


def test_folder_equals_zip(tmp_path: Path) -> None:
    images = random_images(4)
    members = {f"image{k}.png": image for k, image in enumerate(images)}
    archive = make_zip(tmp_path / "images.zip", members)
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tmp_path / "images" / "sub")
    (tmp_path / "images" / "notes.txt").write_text("no image")
    folder = StimulusSet.from_folder(tmp_path / "images")
    assert folder.names == StimulusSet.from_zip(archive).names
    assert folder.digests == StimulusSet.from_zip(archive).digests
    np.testing.assert_array_equal(folder.images(), images)


def test_refuses_equal_names_and_empty_places(tmp_path: Path) -> None:
    image = random_images(1)[0]
    twice = make_zip(tmp_path / "twice.zip", {"a/x.png": image, "b/x.png": image})
    with pytest.raises(InputError, match=r"2 images named 'x\.png'"):
        StimulusSet.from_zip(twice)
    with pytest.raises(InputError, match="holds no image"):
        StimulusSet.from_zip(make_zip(tmp_path / "empty.zip", {}))
    with pytest.raises(InputError, match="is not a folder"):
        StimulusSet.from_folder(tmp_path / "absent")


def test_different_sizes_need_a_size(tmp_path: Path) -> None:
    members = {"a.png": random_images(1, 4, 5)[0], "b.png": random_images(1, 8, 6)[0]}
    archive = make_zip(tmp_path / "images.zip", members)
    with pytest.raises(InputError, match=r"'b\.png' is 8 x 6 but 'a\.png' is 4 x 5 .*size="):
        StimulusSet.from_zip(archive).images()
    resized = StimulusSet.from_zip(archive, size=3)
    assert resized.image_size == (3, 3)
    assert resized.images().shape == (2, 3, 3, 3)
    with pytest.raises(InputError, match="at least 1 pixel"):
        StimulusSet.from_zip(archive, size=0)


def test_image_deleted_meanwhile_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(random_images(1)[0]))
    stimuli = StimulusSet.from_folder(tmp_path)
    (tmp_path / "a.png").unlink()
    with pytest.raises(InputError, match=r"a\.png cannot be read"):
        stimuli.images()


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (np.zeros((2, 4, 4, 3), np.uint8), "shape"),
        (np.zeros((2, 3, 4, 4)), "float64"),
        (np.zeros((3, 4, 4), np.uint8), "shape"),
    ],
)
def test_refuses_other_arrays(images: np.ndarray, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        StimulusSet.from_array(images)


def test_refuses_wrong_names() -> None:
    with pytest.raises(InputError, match="2 images but 1 names"):
        StimulusSet.from_array(random_images(2), ["a"])
    with pytest.raises(InputError, match="null"):
        StimulusSet.from_array(random_images(1), ["a\x00"])


def test_take_follows_numpy(tmp_path: Path) -> None:
    images = random_images(6)
    members = {f"{k}.png": image for k, image in enumerate(images)}
    stimuli = StimulusSet.from_zip(make_zip(tmp_path / "images.zip", members))
    for indices in (
        [3, 0, 3],
        slice(1, 5, 2),
        np.array([-1, 2], dtype=np.int8),
        images[:, 0, 0, 0] > 99,
    ):
        part = stimuli.take(indices)
        np.testing.assert_array_equal(part.images(), images[indices])
        assert part.digests == tuple(np.array(stimuli.digests)[indices])
    nested = stimuli.take([5, 4, 3]).take([2, 0])
    assert nested.names == ("3.png", "5.png")
    assert len(stimuli.take([])) == 0
    for wrong in ([6], [-7], np.array([0.5]), np.array([True, False])):
        with pytest.raises(InputError, match="cannot take these of 6 stimuli"):
            stimuli.take(wrong)


def test_concatenate_reads_each_part_in_place(tmp_path: Path) -> None:
    images = random_images(6)
    archive = make_zip(tmp_path / "images.zip", {f"{k}.png": images[k] for k in range(4)})
    first = StimulusSet.from_zip(archive).take([3, 1])
    second = StimulusSet.from_array(images[4:], ["e", "f"])
    joined = StimulusSet.concatenate([first, second, first])
    assert joined.names == ("3.png", "1.png", "e", "f", "3.png", "1.png")
    np.testing.assert_array_equal(joined.images(), images[[3, 1, 4, 5, 3, 1]])
    order = [5, 2, 0, 3]
    np.testing.assert_array_equal(joined.take(order).images(), joined.images()[order])
    with pytest.raises(InputError, match="different image sizes"):
        StimulusSet.concatenate([first, StimulusSet.from_array(random_images(1, 9, 9))])
    with pytest.raises(InputError, match="at least one"):
        StimulusSet.concatenate([])


@given(n=st.integers(0, 7), batch_size=st.integers(1, 9))
def test_batches_join_to_the_whole(n: int, batch_size: int) -> None:
    images = random_images(n)
    batches = list(StimulusSet.from_array(images).batches(batch_size))
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    np.testing.assert_array_equal(np.concatenate([images[:0], *batches]), images)


def test_a_loop_over_batches_can_be_left(tmp_path: Path) -> None:
    members = {f"{k}.png": image for k, image in enumerate(random_images(4))}
    stimuli = StimulusSet.from_zip(make_zip(tmp_path / "images.zip", members))
    assert len(next(stimuli.batches(3))) == 3
    with pytest.raises(InputError, match="batch_size"):
        stimuli.batches(0)


def test_digests_are_of_content(tmp_path: Path) -> None:
    images = random_images(2)
    stimuli = StimulusSet.from_array(images[[0, 1, 0]], ["a", "b", "c"])
    archive = make_zip(tmp_path / "images.zip", {"other.png": images[1]})
    assert stimuli.digests[0] == stimuli.digests[2] != stimuli.digests[1]
    assert StimulusSet.from_zip(archive).digests == stimuli.digests[1:2]
    assert stimuli.fingerprint != stimuli.take([1, 0, 2]).fingerprint
    assert stimuli.fingerprint == stimuli.take([2, 1, 0]).fingerprint
    flat = images.reshape(2, 3, 5, 4)
    assert StimulusSet.from_array(flat).digests[0] != stimuli.digests[0]


def test_pickled_copy_reads_the_same(tmp_path: Path) -> None:
    members = {f"{k}.png": image for k, image in enumerate(random_images(3))}
    stimuli = StimulusSet.from_zip(make_zip(tmp_path / "images.zip", members)).take([2, 0])
    copy = pickle.loads(pickle.dumps(stimuli))  # noqa: S301
    np.testing.assert_array_equal(copy.images(), stimuli.images())
    assert copy.names == stimuli.names
