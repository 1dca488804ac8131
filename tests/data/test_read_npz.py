"""Saving a session and reading it again; refusing what is no saved session."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pocketcortex.core import InputError, Session, StimulusSet
from pocketcortex.core.recordings import ROLES
from pocketcortex.data import read_npz

numbers = st.floats(allow_infinity=False, allow_nan=True)
texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))


@st.composite
def fields(draw: st.DrawFn) -> dict[str, Any]:
    """Draw what a session is made of; `stimuli` as the arguments of `from_array`, or None."""
    has_repeats = draw(st.booleans())
    n_stimuli, n_neurons = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    shape = (n_stimuli, draw(st.integers(1, 3)) if has_repeats else 1, n_neurons)
    stimuli = None
    if draw(st.booleans()):
        images = draw(hnp.arrays(np.uint8, (n_stimuli, 3, 2, 3)))
        names = draw(st.lists(texts, min_size=n_stimuli, max_size=n_stimuli))
        stimuli = (images, names)
    return {
        "id": draw(texts),
        "responses": draw(hnp.arrays(np.float64, shape, elements=numbers)),
        "stimuli": stimuli,
        "has_repeats": has_repeats,
        "animal": draw(st.none() | texts),
        "role": draw(st.sampled_from([None, *ROLES])),
        "bin_ms": draw(st.none() | st.floats(0.1, 1e4)),
    }


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(drawn=fields())
def test_round_trip(tmp_path: Path, drawn: dict[str, Any]) -> None:
    stimuli = drawn["stimuli"] and StimulusSet.from_array(*drawn["stimuli"])
    session = Session(**drawn | {"stimuli": stimuli})
    session.save(tmp_path / "session.npz")
    again = read_npz(tmp_path / "session.npz")
    np.testing.assert_array_equal(again.responses, session.responses)
    for field in ("id", "has_repeats", "animal", "role", "bin_ms"):
        assert getattr(again, field) == getattr(session, field)
    assert (again.stimuli is None) == (session.stimuli is None)
    if again.stimuli is not None and session.stimuli is not None:
        assert again.stimuli.names == session.stimuli.names
        assert again.stimuli.fingerprint == session.stimuli.fingerprint
    assert os.listdir(tmp_path) == ["session.npz"]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    images = np.zeros((2, 3, 4, 4), dtype=np.uint8)
    session = Session("s", np.arange(8.0).reshape(2, 2, 2), StimulusSet.from_array(images))
    session.save(tmp_path / "session.npz")
    return tmp_path / "session.npz"


def rewrite(path: Path, **changes: Any) -> None:
    """Replace arrays of a file; None removes one."""
    with np.load(path) as loaded:
        arrays = dict(loaded) | changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


def test_save_refuses_other_names(saved: Path, tmp_path: Path) -> None:
    session = read_npz(saved)
    with pytest.raises(
        InputError, match=r"\.npz file; got 'session\.mat', name it 'session\.mat\.npz'"
    ):
        session.save(tmp_path / "session.mat")
    with pytest.raises(InputError, match="does not exist"):
        session.save(tmp_path / "absent" / "session.npz")


def test_failed_save_leaves_the_old_file(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()
    session = read_npz(saved).take([0])

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        session.save(saved)
    assert saved.read_bytes() == before
    assert os.listdir(tmp_path) == ["session.npz"]


def test_saving_twice_gives_the_same_bytes(saved: Path) -> None:
    before = saved.read_bytes()
    read_npz(saved).save(saved)
    assert saved.read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"responses": None}, "holds no array responses"),
        ({"metadata": None}, "holds no array metadata"),
        ({"names": None}, "holds no array names"),
        ({"names": np.array(["a"])}, "2 images but 1 names"),
        ({"names": np.array("a")}, "2 images but 1 names"),
        ({"images": np.zeros((2, 3, 4, 4))}, "must be uint8"),
        ({"responses": np.zeros((3, 1, 2))}, "2 images but responses to 3 stimuli"),
        ({"responses": np.array([None])}, "pickled objects where a plain array is expected"),
        ({"metadata": np.array("{")}, "not JSON"),
        ({"metadata": np.array("[]")}, "not a session file"),
        ({"metadata": np.array("{}")}, "not a session file"),
    ],
)
def test_refuses_other_contents(saved: Path, changes: dict[str, Any], reason: str) -> None:
    rewrite(saved, **changes)
    with pytest.raises(InputError, match=reason):
        read_npz(saved)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("version", 2, "session format 2"),
        ("id", None, "metadata id is None"),
        ("has_repeats", "yes", "metadata has_repeats is 'yes'"),
        ("bin_ms", [1], "metadata bin_ms"),
    ],
)
def test_refuses_other_metadata(saved: Path, field: str, value: object, reason: str) -> None:
    with np.load(saved) as loaded:
        metadata = json.loads(str(loaded["metadata"])) | {field: value}
    rewrite(saved, metadata=np.array(json.dumps(metadata)))
    with pytest.raises(InputError, match=reason):
        read_npz(saved)


def test_refuses_missing_and_truncated_files(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_npz(tmp_path / "absent.npz")
    saved.write_bytes(saved.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"session\.npz is damaged or truncated"):
        read_npz(saved)
