"""`read_areas`: which layouts are recognised, and what becomes of sessions."""

from pathlib import Path

import numpy as np
import pytest
from test_allen_nwb import write_nwb
from test_brainio import write as write_brainio
from test_kriegeskorte import write as write_kriegeskorte
from test_mouse import similarity, write_matrices, write_region
from test_read_v4 import MEANS, RAW, numbered, write_release

from pocketcortex.core import InputError, MissingRepeatsError, Session, StimulusSet
from pocketcortex.data import read_areas, read_v4, session_area, shared_stimuli, v4_areas


def make_session(name: str, *, images: bool = True, level: int = 0) -> Session:
    pixels = np.random.default_rng(level).integers(0, 256, (4, 3, 2, 2), dtype=np.uint8)
    responses = np.random.default_rng(9).normal(size=(4, 3, 2))
    return Session(name, responses, StimulusSet.from_array(pixels) if images else None)


def test_recognises_every_layout_in_a_folder_of_folders(tmp_path: Path) -> None:
    for name in ("v4", "mouse/allen_rsm", "it", "nwb", "brainio", "saved", "other"):
        (tmp_path / name).mkdir(parents=True)
    write_release(tmp_path / "v4", raw=RAW, images=numbered(1, 2, 3, 4, 5, 6))
    write_region(tmp_path / "mouse" / "antolik2016" / "region1")
    write_matrices(tmp_path / "mouse" / "allen_rsm", {"VISp_L4": similarity()})
    write_kriegeskorte(tmp_path / "it")
    write_nwb(tmp_path / "nwb" / "a.nwb")
    write_brainio(tmp_path / "brainio")
    make_session("mine").save(tmp_path / "saved" / "mine.npz")
    make_session("no images", images=False).save(tmp_path / "saved" / "none.npz")
    np.savez(tmp_path / "other" / "something.npz", x=np.ones(3))
    ids = {area.id for area in read_areas(tmp_path)}
    assert ids == {
        "v4/210325", "antolik2016/region1", "allen/VISp_L4", "kriegeskorte2008/monkey-IT",
        "kriegeskorte2008/human-IT", "allen/VISp_L2-3_Cux2-CreERT2", "assy_lab_Author2020/IT",
        "assy_lab_Author2020/V4", "mine",
    }  # fmt: skip
    for path in ("saved/mine.npz", "nwb/a.nwb", "brainio/assy_lab_Author2020.nc"):
        assert {area.id for area in read_areas(tmp_path / path)} < ids


def test_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no recordings that are recognised; give a V4"):
        read_areas(tmp_path)
    with pytest.raises(InputError, match="does not exist; give a V4 release"):
        read_areas(tmp_path / "absent")
    (tmp_path / "text.txt").write_text("text")
    with pytest.raises(InputError, match=r"text\.txt holds no recordings"):
        read_areas(tmp_path / "text.txt")
    np.savez(tmp_path / "arrays.npz", responses=np.ones(3))
    with pytest.raises(InputError, match=r"arrays\.npz holds no recordings"):
        read_areas(tmp_path / "arrays.npz")


def test_refuses_sessions_without_images_and_ids_that_come_twice(tmp_path: Path) -> None:
    make_session("a", images=False).save(tmp_path / "a.npz")
    with pytest.raises(InputError, match=r"none of the sessions in .* has images"):
        read_areas(tmp_path)
    with pytest.raises(InputError, match="session a has no images"):
        read_areas(tmp_path / "a.npz")
    for name in ("one", "two"):
        (tmp_path / "both" / name).mkdir(parents=True)
        make_session("same").save(tmp_path / "both" / name / "s.npz")
    with pytest.raises(InputError, match="areas same come twice"):
        read_areas(tmp_path / "both")
    release = write_release(tmp_path / "v4", averaged=MEANS)
    with pytest.raises(InputError, match="none of the sessions 210325 has images"):
        v4_areas(read_v4(release))


def test_reliability_is_known_where_repeats_are(tmp_path: Path) -> None:
    names = numbered(1, 2, 3, 4, 5, 6)
    (raw,) = read_areas(write_release(tmp_path / "raw", raw=RAW, images=names))
    (means,) = read_areas(write_release(tmp_path / "means", averaged=MEANS, images=names))
    assert raw.cells is not None
    assert raw.cells["reliability"].notna().any()
    assert raw.session is not None
    assert raw.session.role == "test"
    assert (raw.species, raw.area) == ("macaque", "V4")
    assert "601 to 1200 of session 210322" in raw.note
    assert means.cells is None
    with pytest.raises(InputError, match="reliability of its neurons is not known"):
        means.reliable(0.5)
    (again,) = read_areas(tmp_path / "raw", seed=0)
    (other,) = read_areas(tmp_path / "raw", seed=1)
    assert again.cells is not None
    assert other.cells is not None
    assert again.cells.equals(raw.cells)
    assert not other.cells.equals(raw.cells)


def test_session_area_keeps_what_it_is_told() -> None:
    area = session_area(
        make_session("s"), id="mine/s", species="cat", area="V1", layer="L4", note="x"
    )
    assert (area.id, area.species, area.area, area.layer, area.note) == (
        "mine/s", "cat", "V1", "L4", "x"
    )  # fmt: skip
    once = Session(
        "once", np.ones((2, 1, 1)), StimulusSet.from_array(np.zeros((2, 3, 2, 2), np.uint8))
    )
    with pytest.raises(MissingRepeatsError):
        once.require_repeats()
    assert session_area(once).cells is None


def test_shared_stimuli_are_told_by_content() -> None:
    first = session_area(make_session("first"))
    second = session_area(make_session("second").take([3, 1, 1]))
    third = session_area(make_session("third", level=5))
    table = shared_stimuli([first, second, third])
    assert table.values.tolist() == [["second", "second", 1], ["first", "second", 2]]
    assert shared_stimuli([first, third]).empty


@pytest.mark.data
def test_released_v4_sessions(real_data: Path) -> None:
    areas = {area.id: area for area in read_areas(real_data / "v4")}
    assert len(areas) == 11
    assert [name for name, area in areas.items() if area.cells is not None] == ["v4/210325"]
    chosen = [areas[f"v4/{name}"] for name in ("190925", "210322", "210325")]
    rows = shared_stimuli(chosen).values.tolist()
    assert ["v4/210322", "v4/210325", 600] in rows
    assert ["v4/190925", "v4/190925", 300] in rows


@pytest.mark.data
def test_everything_at_hand_is_recognised(real_data: Path) -> None:
    assert len(read_areas(real_data / "it")) == 2
    mouse = read_areas(real_data / "mouse")
    assert len(mouse) == 24
    assert sum(area.session is not None for area in mouse) == 3
