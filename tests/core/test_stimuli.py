"""Lazy lists of images: order, sizes, subsets, crops, streams and identity."""

import io
import itertools
import pickle
import tarfile
import threading
import tracemalloc
import zipfile
from collections.abc import Iterator
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


def make_tar(path: Path, members: dict[str, np.ndarray]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, image in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(png(image))
            archive.addfile(info, io.BytesIO(png(image)))
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
        opened.extractall(tmp_path / "images" / "sub")  # noqa: S202
    (tmp_path / "images" / "notes.txt").write_text("no image")
    folder = StimulusSet.from_folder(tmp_path / "images")
    assert folder.names == StimulusSet.from_zip(archive).names
    assert folder.digests == StimulusSet.from_zip(archive).digests
    np.testing.assert_array_equal(folder.images(), images)


def test_tar_shards_may_repeat_names(tmp_path: Path) -> None:
    images = random_images(4)
    one = make_tar(tmp_path / "a-0.tar", {"x/1.png": images[1], "0.png": images[0]})
    two = make_tar(tmp_path / "a-1.tar", {"0.png": images[2], "1.png": images[3]})
    assert StimulusSet.from_tar(one).names == ("0.png", "1.png")
    both = StimulusSet.from_tar([one, two])
    assert both.names == ("a-0/0.png", "a-0/1.png", "a-1/0.png", "a-1/1.png")
    np.testing.assert_array_equal(both.read([3, 0, 2, 1]), images[[3, 0, 2, 1]])
    with pytest.raises(InputError, match="2 tar files are named 'a-0'"):
        StimulusSet.from_tar([one, one])
    with pytest.raises(InputError, match="at least one"):
        StimulusSet.from_tar([])
    larger = make_tar(tmp_path / "b.tar", {"0.png": random_images(1, 9, 9)[0]})
    with pytest.raises(InputError, match=r"\(9, 9\) but those of .*give size="):
        StimulusSet.from_tar([one, larger]).images()


def test_npy_is_read_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "bank.npy"
    images = random_images(5, 32, 48)
    np.save(path, images)
    stimuli = StimulusSet.from_npy(path)
    np.testing.assert_array_equal(stimuli.read([4, 0]), images[[4, 0]])
    assert stimuli.digests == StimulusSet.from_array(images).digests
    assert stimuli.names[4] == "image0005"
    assert len(pickle.dumps(stimuli)) < 2000
    np.save(path, images[:3])
    with pytest.raises(InputError, match="open it again"):
        stimuli.images()
    for wrong in (images.astype(float), images[:, 0]):
        np.save(path, wrong)
        with pytest.raises(InputError, match="must hold uint8 images"):
            StimulusSet.from_npy(path)
    np.savez(tmp_path / "bank.npz", images)
    with pytest.raises(InputError, match=r"archive \(\.npz\)"):
        StimulusSet.from_npy(tmp_path / "bank.npz")


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


def test_crops_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    members = {"a.png": random_images(1, 20, 31)[0], "b.png": random_images(1, 12, 6)[0]}
    stimuli = StimulusSet.from_zip(make_zip(tmp_path / "images.zip", members))
    crops = stimuli.crops(40, 8, seed=3)
    assert crops.names[:2] == ("a.png#0", "a.png#1")
    assert crops.names[79] == "b.png#39"
    pixels = crops.images()
    for i, image in enumerate(members.values()):
        whole = Image.fromarray(image.transpose(1, 2, 0))
        short = min(whole.size)
        sides = []
        for k in range(40):
            u = np.random.default_rng([3, i, k]).random(4)
            side = short if short < 8 else 8 + int(u[0] * (short - 7))
            left, top = int(u[1] * (whole.width - side + 1)), int(u[2] * (whole.height - side + 1))
            box = (left, top, left + side, top + side)
            cut = np.asarray(whole.resize((8, 8), Image.Resampling.BICUBIC, box=box))
            cut = cut[:, ::-1] if u[3] < 0.5 else cut
            np.testing.assert_array_equal(pixels[40 * i + k], cut.transpose(2, 0, 1))
            sides.append(side)
        assert (min(sides), max(sides)) == (min(8, short), short)


def test_crops_do_not_depend_on_what_is_read_with_them(tmp_path: Path) -> None:
    members = {f"{k}.png": image for k, image in enumerate(random_images(3, 9, 12))}
    crops = StimulusSet.from_zip(make_zip(tmp_path / "images.zip", members)).crops(4, 6, seed=0)
    order = np.random.default_rng(0).permutation(12)
    np.testing.assert_array_equal(crops.read(order), crops.images()[order])
    np.testing.assert_array_equal(
        crops.take(order).take([5]).images()[0], crops.read(order[5:6])[0]
    )
    more = crops.take(slice(None)).crops(2, 5, seed=1)  # crops of crops, as of any set
    assert more.names[3] == "0.png#1#1"
    assert more.images().shape == (24, 3, 5, 5)
    for n, size, seed in ((0, 4, 0), (1, 0, 0), (1, 4, -1)):
        with pytest.raises(InputError, match="must be at least"):
            crops.crops(n, size, seed=seed)


def test_crops_keep_a_photographs_mean_and_are_mirrored_half_the_time() -> None:
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8) * 4, (1, 3, 64, 64))
    pixels = StimulusSet.from_array(ramp).crops(400, 16, seed=0).images().astype(float)
    rising = pixels[..., -1].mean(axis=(1, 2)) > pixels[..., 0].mean(axis=(1, 2))
    assert abs(rising.mean() - 0.5) < 0.1  # four standard errors
    assert abs(pixels.mean() - ramp.mean()) < 6
    spans = np.abs(pixels[..., -1] - pixels[..., 0]).mean(axis=(1, 2))  # 60 to 252 by side
    assert spans.min() < 75 < 225 < spans.max()


@pytest.mark.parametrize("n_threads", [1, 3])
def test_stream_equals_plain_reading(tmp_path: Path, n_threads: int) -> None:
    members = {f"{k}.png": image for k, image in enumerate(random_images(9))}
    zipped = StimulusSet.from_zip(make_zip(tmp_path / "images.zip", members))
    tarred = StimulusSet.from_tar(make_tar(tmp_path / "images.tar", members))
    stimuli = StimulusSet.concatenate([zipped, tarred.take([8, 1])])
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 11, n) for n in (1, 5, 0, 7, 3, 2, 9)]
    streamed = list(stimuli.stream(iter(batches), n_threads=n_threads, ahead=3))
    assert len(streamed) == len(batches)
    for pixels, batch in zip(streamed, batches, strict=True):
        np.testing.assert_array_equal(pixels, stimuli.images()[batch])


@pytest.mark.parametrize("ahead", [1, 4])
def test_stream_holds_at_most_ahead_batches(ahead: int) -> None:
    stimuli = StimulusSet.from_array(random_images(4, 64, 64))
    batch_bytes = 64 * 3 * 64 * 64
    asked: list[int] = []

    def endless() -> Iterator[np.ndarray]:
        for k in itertools.count():
            asked.append(k)
            yield np.full(64, k % 4)

    stream = stimuli.stream(endless(), ahead=ahead)
    assert not asked
    tracemalloc.start()
    for k, pixels in enumerate(stream):
        assert len(asked) - k <= ahead
        np.testing.assert_array_equal(pixels[63], stimuli.images()[k % 4])
        if k == 40:
            break
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < (ahead + 1.5) * batch_bytes  # the last batch until the next one replaces it
    stream.close()


def test_leaving_a_stream_stops_its_threads(tmp_path: Path) -> None:
    members = {f"{k}.png": image for k, image in enumerate(random_images(3))}
    stimuli = StimulusSet.from_zip(make_zip(tmp_path / "images.zip", members))
    before = set(threading.enumerate())
    stream = stimuli.stream([k % 3] for k in itertools.count())
    next(stream)
    during = set(threading.enumerate()) - before
    assert len(during) == 2
    stream.close()
    assert not any(thread.is_alive() for thread in during)
    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error):  # noqa: PT012
            for _ in stimuli.stream([[0]] * 20):
                raise error
    assert set(threading.enumerate()) == before


def test_stream_fails_at_the_batch_that_cannot_be_read(tmp_path: Path) -> None:
    for k, image in enumerate(random_images(6)):
        (tmp_path / f"{k}.png").write_bytes(png(image))
    stimuli = StimulusSet.from_folder(tmp_path)
    (tmp_path / "3.png").write_bytes(b"no image")
    stream = stimuli.stream([[0, 1], [2], [4, 3], [5]])
    assert [len(next(stream)), len(next(stream))] == [2, 1]
    with pytest.raises(InputError, match=r"'3\.png' .* cannot be decoded"):
        next(stream)
    assert next(stream, None) is None
    with pytest.raises(InputError, match="cannot take these of 6"):
        list(stimuli.stream([[6]]))
    for wrong in ({"n_threads": 0}, {"ahead": 0}):
        with pytest.raises(InputError, match="must be at least 1"):
            stimuli.stream([[0]], **wrong)


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
