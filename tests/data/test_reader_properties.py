"""What holds for every bank and every release, whatever is in it."""

import io
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pocketcortex.core import StimulusSet
from pocketcortex.data import read_bank, read_recordings, read_v4

NAMES = st.lists(
    st.text("abcXYZ019é -", min_size=1, max_size=8).map(str.strip).filter(bool),
    min_size=1, max_size=5, unique_by=str.lower,
)  # fmt: skip


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


@settings(deadline=None, max_examples=30)
@given(names=NAMES, seed=st.integers(0, 2**16), side=st.integers(1, 9), size=st.integers(1, 12))
def test_a_bank_is_the_same_as_folder_zip_and_tar(
    names: list[str], seed: int, side: int, size: int
) -> None:
    rng = np.random.default_rng(seed)
    files = {
        f"{name}.png": png(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)) for name in names
    }
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "folder"
        folder.mkdir()
        with (
            zipfile.ZipFile(Path(made) / "bank.zip", "w", zipfile.ZIP_DEFLATED) as archive,
            tarfile.open(Path(made) / "bank.tar", "w") as tar,
        ):
            for name, content in files.items():
                (folder / name).write_bytes(content)
                archive.writestr(name, content)
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        banks = [read_bank(Path(made) / name, size) for name in ("folder", "bank.zip", "bank.tar")]
        first, *others = [(bank.names, bank.images().tobytes(), bank.fingerprint) for bank in banks]
    assert first[0] == tuple(sorted(files))
    assert all(other == first for other in others)


@settings(deadline=None, max_examples=30)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 3)),
    seed=st.integers(0, 2**16),
    missing=st.floats(0, 0.4),
)
def test_a_release_is_read_as_it_was_written(
    shape: tuple[int, int, int], seed: int, missing: float
) -> None:
    rng = np.random.default_rng(seed)
    raw = rng.poisson(3, shape).astype(float)
    raw[rng.random(shape) < missing] = np.nan
    raw[:, :, 0] = 1
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "data_V4_responses" / "responses_raw"
        folder.mkdir(parents=True)
        np.save(folder / "responses_190923.npy", raw)
        session = read_v4(made)["190923"]
        session.save(Path(made) / "190923.npz")
        again = read_recordings(Path(made) / "190923.npz")["190923"]
    for found in (session, again):
        np.testing.assert_array_equal(found.responses.transpose(2, 0, 1), raw)
        np.testing.assert_allclose(found.mean_responses.T, np.nanmean(raw, axis=2))
    assert (again.animal, again.role, again.bin_ms) == (session.animal, session.role, 100.0)


@settings(deadline=None, max_examples=40)
@given(data=st.data(), n=st.integers(1, 12), seed=st.integers(0, 99))
def test_crops_do_not_depend_on_how_they_are_read(data: st.DataObject, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    stimuli = StimulusSet.from_array(rng.integers(0, 256, (n, 3, 9, 7), dtype=np.uint8))
    crops = stimuli.crops(2, 5, seed=seed)
    index = data.draw(st.lists(st.integers(0, 2 * n - 1), min_size=1, max_size=8))
    whole = crops.images()
    np.testing.assert_array_equal(crops.read(index), whole[index])
    np.testing.assert_array_equal(np.concatenate(list(crops.batches(3))), whole)
