"""The reader of the published V4 layout, on made-up and on real files."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketcortex.core import InputError, Session
from pocketcortex.data import read_v4
from pocketcortex.data.v4 import natural_stimuli

RAW = np.random.default_rng(0).poisson(3.0, size=(4, 6, 3)).astype(float)
RAW[:, 2, 2] = np.nan
MEANS = np.nanmean(RAW, axis=2)


def jpeg(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (value, value, value)).save(buffer, format="JPEG")
    return buffer.getvalue()


def write_release(
    folder: Path, *, raw: object = None, averaged: object = None, images: list[str] | None = None
) -> Path:
    """Write session 210325 below a release's top folder; image k is of grey k."""
    inner = folder / "data_V4_responses"
    for name, array in (("responses_raw", raw), ("responses_repeat_averaged", averaged)):
        (inner / name).mkdir(parents=True)
        if array is not None:
            np.save(inner / name / "responses_210325.npy", array)
    (inner / "images").mkdir()
    if images is not None:
        with zipfile.ZipFile(inner / "images" / "images_210325.zip", "w") as archive:
            for name in images:
                number = int("".join(c for c in Path(name).stem if c.isdigit()))
                archive.writestr(name, jpeg(number))
    return folder


def numbered(*numbers: int) -> list[str]:
    return [f"image{k:04d}.jpg" for k in numbers]


def test_converts_axes_and_orders_images(tmp_path: Path) -> None:
    names = [f"images/{name}" for name in numbered(3, 1, 2, 6, 5, 4)]
    write_release(tmp_path, raw=RAW, averaged=MEANS, images=names)
    session = read_v4(tmp_path)["210325"]
    np.testing.assert_array_equal(session.responses, RAW.transpose(1, 2, 0))
    assert session.has_repeats
    assert (session.animal, session.role, session.bin_ms) == ("PE", "test", 100.0)
    greys = session.require_stimuli().images().mean(axis=(1, 2, 3))
    np.testing.assert_array_equal(greys, [1, 2, 3, 4, 5, 6])


def test_averages_alone_have_no_repeats(tmp_path: Path) -> None:
    write_release(tmp_path, averaged=MEANS)
    session = read_v4(tmp_path / "data_V4_responses")["210325"]
    np.testing.assert_array_equal(session.responses, MEANS.T[:, None, :])
    assert not session.has_repeats
    assert session.stimuli is None


def test_reads_the_other_spelling_of_the_folder(tmp_path: Path) -> None:
    write_release(tmp_path, averaged=MEANS)
    inner = tmp_path / "data_V4_responses"
    (inner / "responses_repeat_averaged").rename(inner / "responses_repeataveraged")
    assert list(read_v4(tmp_path)) == ["210325"]


def test_unknown_sessions_have_no_animal_and_no_role(tmp_path: Path) -> None:
    (tmp_path / "responses_raw").mkdir()
    np.save(tmp_path / "responses_raw" / "responses_mine.npy", RAW)
    session = read_v4(tmp_path)["mine"]
    assert (session.animal, session.role) == (None, None)


def test_silent_neuron_is_kept(tmp_path: Path) -> None:
    raw = RAW.copy()
    raw[1] = np.nan
    session = read_v4(write_release(tmp_path, raw=raw))["210325"]
    assert session.n_neurons == 4
    assert session.unusable_neurons() == {1: "all responses are NaN"}


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, r"holds no V4 responses; looked for responses_ID\.npy"),
        ({"raw": MEANS}, r"should have axes \(neurons, images, repeats\)"),
        ({"averaged": RAW}, r"should have axes \(neurons, images\)"),
        ({"averaged": np.full((4, 6), "x")}, "should hold numbers"),
        ({"averaged": np.full((4, 6), None)}, "pickled objects where a plain array is expected"),
        ({"averaged": np.full((4, 6), np.inf)}, "infinite"),
        ({"raw": RAW, "averaged": MEANS + 0.1}, "24 repeat averages differ"),
        ({"raw": RAW, "averaged": MEANS[:, :5]}, r"\(6, 4\) but repeat averages \(5, 4\)"),
        ({"raw": RAW, "images": numbered(1, 2, 3, 4, 5)}, "5 images but there are responses to 6"),
        ({"raw": RAW, "images": numbered(0, 1, 2, 3, 4, 5)}, r"no image0006\.jpg"),
        ({"raw": RAW, "images": [*numbered(1, 2, 3, 4, 5), "picture6.jpg"]}, "no image0006"),
    ],
)
def test_refuses(tmp_path: Path, files: dict[str, object], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read_v4(write_release(tmp_path, **files))  # type: ignore[arg-type]


def test_refuses_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="data_V4_responses/ was expected"):
        read_v4(tmp_path / "absent")


def test_synthesized_stimuli_are_left_out() -> None:
    assert natural_stimuli("190925", 1200).tolist() == [*range(600), *range(900, 1200)]
    assert len(natural_stimuli("190923", 1200)) == 1200  # a test session
    assert len(natural_stimuli("201025", 1200)) == 1200


# session: animal, role, neurons, stimuli, has images, has repeats
RELEASED = {
    "190923": ("WE", "test", 33, 1200, True, False),
    "190925": ("WE", "train", 36, 1200, True, False),
    "190927": ("WE", "train", 31, 1200, True, False),
    "190928": ("WE", "train", 24, 1200, True, False),
    "190929": ("WE", "train", 33, 1200, True, False),
    "201016": ("PE", "train", 82, 600, False, True),
    "201025": ("PE", "test", 89, 1200, True, False),
    "210224": ("PE", "validation", 67, 800, True, False),
    "210305": ("PE", "train", 70, 400, True, False),
    "210322": ("PE", "train", 59, 1200, True, False),
    "210325": ("PE", "test", 50, 640, True, True),
    "210621": ("RA", "train", 51, 1200, True, False),
    "211022": ("RA", "test", 42, 1600, False, False),
}


@pytest.mark.data
def test_released_sessions(real_data: Path) -> None:
    recordings = read_v4(real_data / "v4")
    rows = {row["session"]: row for row in recordings.summary()}
    repeats = {session: row.pop("n_repeats") for session, row in rows.items()}
    assert {session: tuple(row.values())[1:] for session, row in rows.items()} == RELEASED
    single = {"201016": 10, "210325": 10}  # at most so many; of the others the averages
    assert repeats == {session: single.get(session, 1) for session in RELEASED}
    assert all(session.unusable_neurons() == {} for session in recordings.values())
    for session in recordings.values():
        if session.stimuli is not None:
            names = tuple(f"image{k:04d}.jpg" for k in range(1, session.n_stimuli + 1))
            assert session.stimuli.names == names
            assert session.stimuli.image_size == (112, 112)


@pytest.mark.data
@pytest.mark.parametrize("session_id", ["201016", "210325"])
def test_released_averages_are_means_of_repeats(real_data: Path, session_id: str) -> None:
    folder = real_data / "v4" / "data_V4_responses"
    averaged = np.load(folder / "responses_repeat_averaged" / f"responses_{session_id}.npy")
    session = read_v4(folder)[session_id]
    np.testing.assert_allclose(session.mean_responses, averaged.T, rtol=1e-12)
    shown = (~np.isnan(session.require_repeats())).sum(axis=1)
    assert (shown.min(), shown.max()) == {"201016": (5, 9), "210325": (6, 10)}[session_id]


@pytest.mark.data
def test_released_images_repeat(real_data: Path) -> None:
    recordings = read_v4(real_data / "v4")

    def digests(session: Session) -> list[str]:
        return list(session.require_stimuli().digests)

    assert len(set(digests(recordings["190925"]))) == 900
    bashivan = digests(recordings["210325"])
    assert set(bashivan[:600]) == set(digests(recordings["210322"])[600:])
    assert not set(bashivan[600:]) & set(digests(recordings["210322"]))
