"""Sessions and recordings: what they refuse, report and keep."""

import re
import runpy
import warnings
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
from PIL import Image

from pocketcortex.core import InputError, MissingRepeatsError, Recordings, Session, StimulusSet
from pocketcortex.data import read_npz

DOCS = Path(__file__).parents[2] / "docs"


def make_responses(n_stimuli: int = 5, n_repeats: int = 3, n_neurons: int = 4) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(n_stimuli, n_repeats, n_neurons))


def make_stimuli(n: int) -> StimulusSet:
    rng = np.random.default_rng(1)
    return StimulusSet.from_array(rng.integers(0, 256, (n, 3, 4, 4), dtype=np.uint8))


def test_counts_and_repr() -> None:
    session = Session("s1", make_responses(), make_stimuli(5))
    assert (session.n_stimuli, session.n_repeats, session.n_neurons) == (5, 3, 4)
    assert repr(session) == "Session('s1': 4 neurons, 5 stimuli, 3 repeats, with images)"
    averaged = Session("s2", make_responses(n_repeats=1), has_repeats=False)
    assert repr(averaged) == "Session('s2': 4 neurons, 5 stimuli, repeat averages, no images)"


def test_responses_are_copied_and_frozen() -> None:
    responses = make_responses()
    session = Session("s", responses)
    responses[0, 0, 0] = 99.0
    assert session.responses[0, 0, 0] != 99.0
    with pytest.raises(ValueError, match="read-only"):
        session.responses[0, 0, 0] = 1.0


def test_whole_numbers_become_float() -> None:
    session = Session("s", np.ones((2, 2, 2), dtype=np.int16))
    assert session.responses.dtype == np.float64


@pytest.mark.parametrize(
    ("responses", "reason"),
    [
        (np.zeros((3, 4)), r"must be \(n_stimuli, n_repeats, n_neurons\).*got shape \(3, 4\)"),
        (np.zeros((3, 4)), r"give averages over repeats as \(n_stimuli, 1, n_neurons\)"),
        (np.zeros((3, 0, 4)), "none of them 0"),
        (np.full((3, 1, 4), np.inf), "12 responses are infinite"),
        (np.full((3, 1, 4), "x"), r"must be numbers; got <U1; convert .* \.astype\(float\)"),
        (np.full((3, 1, 4), None), "must be numbers"),
        (np.zeros((3, 1, 4), dtype=complex), "must be numbers"),
    ],
)
def test_refuses_responses(responses: np.ndarray, reason: str) -> None:
    with pytest.raises(InputError, match=f"session s: .*{reason}"):
        Session("s", responses)


def test_refuses_contradictions() -> None:
    with pytest.raises(InputError, match="session s: 6 images but responses to 5 stimuli; give"):
        Session("s", make_responses(), make_stimuli(6))
    for role in ("training", "Test", ""):
        with pytest.raises(InputError, match=f"role must be one of .*; got '{role}'"):
            Session("s", make_responses(), role=role)
    with pytest.raises(InputError, match="hold 3 repeats"):
        Session("s", make_responses(), has_repeats=False)
    for bin_ms in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(InputError, match="bin_ms"):
            Session("s", make_responses(), bin_ms=bin_ms)


def test_mean_is_over_repeats_shown() -> None:
    responses = make_responses()
    responses[0, 1:, :] = np.nan
    responses[1] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = np.nanmean(responses, axis=1)
    np.testing.assert_allclose(Session("s", responses).mean_responses, expected, rtol=1e-14)


def test_require_repeats() -> None:
    session = Session("s", make_responses())
    assert session.require_repeats() is session.responses
    averaged = Session("s", make_responses(n_repeats=1), has_repeats=False)
    with pytest.raises(MissingRepeatsError, match="only averages over repeats"):
        averaged.require_repeats()
    once = make_responses()
    once[:, 1:] = np.nan
    with pytest.raises(MissingRepeatsError, match="at most once"):
        Session("s", once).require_repeats()


def test_require_stimuli() -> None:
    stimuli = make_stimuli(5)
    assert Session("s", make_responses(), stimuli).require_stimuli() is stimuli
    with pytest.raises(InputError, match="session s has no images"):
        Session("s", make_responses()).require_stimuli()


def test_take_keeps_images_and_responses_together() -> None:
    session = Session("s", make_responses(), make_stimuli(5), animal="a", role="test", bin_ms=50.0)
    part = session.take([4, 0])
    np.testing.assert_array_equal(part.responses, session.responses[[4, 0]])
    assert part.require_stimuli().names == ("image0005", "image0001")
    assert (part.id, part.animal, part.role, part.bin_ms) == ("s", "a", "test", 50.0)
    with pytest.raises(InputError, match="cannot take"):
        session.take([5])
    with pytest.raises(InputError, match="none of them 0"):
        session.take([])


def test_unusable_neurons_are_reported_and_kept() -> None:
    responses = make_responses(n_neurons=5)
    responses[:, :, 1] = np.nan
    responses[:, :, 3] = 0.1
    responses[:, 0, 3] = np.nan
    responses[:, :, 4] = [1.0, 2.0, 3.0]  # repeats differ, means do not
    session = Session("s", responses)
    assert session.unusable_neurons() == {
        1: "all responses are NaN",
        3: "constant response",
        4: "constant response",
    }
    assert session.n_neurons == 5
    assert np.isnan(session.mean_responses[:, 1]).all()


def test_recordings_keep_their_order() -> None:
    sessions = [
        Session("b", make_responses(), make_stimuli(5), animal="x", role="test"),
        Session("a", make_responses(n_repeats=1), has_repeats=False),
    ]
    recordings = Recordings(sessions)
    assert list(recordings) == ["b", "a"]
    assert recordings["a"] is sessions[1]
    assert repr(recordings) == "Recordings(2 sessions, 8 neurons: b, a)"
    assert list(recordings.select(["a"])) == ["a"]
    assert recordings.summary() == [
        {
            "session": "b",
            "animal": "x",
            "role": "test",
            "n_neurons": 4,
            "n_stimuli": 5,
            "n_repeats": 3,
            "has_images": True,
            "has_repeats": True,
        },
        {
            "session": "a",
            "animal": None,
            "role": None,
            "n_neurons": 4,
            "n_stimuli": 5,
            "n_repeats": 1,
            "has_images": False,
            "has_repeats": False,
        },
    ]
    with pytest.raises(InputError, match="same id"):
        Recordings([sessions[0], sessions[0]])
    with pytest.raises(InputError, match="no session c; there are b, a"):
        recordings.select(["a", "c"])


def test_refuses_an_array_in_place_of_a_stimulus_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside of tests
    with pytest.raises(InputError, match="must be a StimulusSet; got ndarray; make one"):
        Session("s", make_responses(), np.zeros((5, 3, 8, 8), np.uint8))  # type: ignore[arg-type]


def test_names_the_axis_that_images_lie_on() -> None:
    for axes, axis in (((1, 0, 2), 1), ((2, 1, 0), 2)):
        swapped = make_responses().transpose(axes)
        with pytest.raises(InputError, match=f"axis {axis} of the responses, .* transpose them"):
            Session("s", swapped, make_stimuli(5))


def test_example_of_your_own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, *_ = re.findall(r"```python\n(.*?)```", (DOCS / "your-data.md").read_text(), re.DOTALL)
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for k in range(6):
        pixels = rng.integers(0, 256, (150, 130, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"image{k:04d}.png")
    counts = rng.poisson(3.0, size=(4, 6, 5)).astype(float)  # (neurons, images, repeats)
    np.save(tmp_path / "spike_counts.npy", counts)
    (tmp_path / "example.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    runpy.run_path("example.py")
    session = read_npz("recordings/day1.npz")
    np.testing.assert_array_equal(session.responses, counts.transpose(1, 2, 0))
    assert session.require_stimuli().image_size == (112, 112)
