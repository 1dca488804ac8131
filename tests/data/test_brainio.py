"""Reader of BrainIO assemblies, on files written by xarray as brainio writes them."""

import io
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
from PIL import Image

from pocketcortex.core import BrainArea, InputError, Session
from pocketcortex.data import read_brainio

IDS = ["im_c", "im_a", "im_b"]  # in the order of the table
LEVELS = {"im_a": 10, "im_b": 20, "im_c": 30, "unseen": 40}
SHOWN = ["im_a", "im_b", "im_a", "im_c", "im_b", "im_a"]
REPETITION = [1, 0, 0, 0, 1, 2]
VALUES = np.random.default_rng(0).normal(size=(6, 4, 1))  # presentation, neuroid, time_bin


def png(level: int, side: int = 6) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (level, level, level)).save(buffer, format="PNG")
    return buffer.getvalue()


def assembly(values: np.ndarray = VALUES, **coordinates: Any) -> xr.DataArray:
    coords: dict[str, Any] = {
        "stimulus_id": ("presentation", SHOWN),
        "repetition": ("presentation", REPETITION),
        "neuroid_id": ("neuroid", [f"n{k}" for k in range(4)]),
        "region": ("neuroid", ["V4", "IT", "V4", "IT"]),
        "animal": ("neuroid", ["Chabo", "Chabo", "Chabo", "Tito"]),
        "x": ("neuroid", [0.5, 1.5, 2.5, 3.5]),
    }
    if values.ndim == 3:
        coords["time_bin_start"] = ("time_bin", 70 + 100 * np.arange(values.shape[2]))
        coords["time_bin_end"] = ("time_bin", 170 + 100 * np.arange(values.shape[2]))
    coords = {name: v for name, v in (coords | coordinates).items() if v is not None}
    dims = ["presentation", "neuroid", "time_bin"][: values.ndim]
    return xr.DataArray(values, coords=coords, dims=dims)


def write(folder: Path, array: xr.DataArray | None = None, table: str | None = None) -> Path:
    array = assembly() if array is None else array
    data = array.to_dataset(name="data")
    packed = {str(name): {"zlib": True, "complevel": 1} for name in data.data_vars}
    data.to_netcdf(folder / "assy_lab_Author2020.nc", engine="h5netcdf", encoding=packed)
    rows = [f"{name},{name}.png,thing" for name in [*IDS, "unseen"]]
    text = "\n".join(["stimulus_id,filename,object_name", *rows]) if table is None else table
    (folder / "stimulus_lab_Author2020.csv").write_text(text)
    with zipfile.ZipFile(folder / "stimulus_lab_Author2020.zip", "w") as archive:
        for name, level in LEVELS.items():
            archive.writestr(f"{name}.png", png(level))
    return folder / "assy_lab_Author2020.nc"


def session_of(area: BrainArea) -> Session:
    assert area.session is not None
    return area.session


def test_presentations_become_repeats_of_the_images_shown(tmp_path: Path) -> None:
    it, v4 = read_brainio(write(tmp_path), species="macaque")
    assert (it.id, it.area, it.species) == ("assy_lab_Author2020/IT", "IT", "macaque")
    assert v4.stimuli.images()[:, 0, 0, 0].tolist() == [30, 10, 20]
    responses = session_of(v4).responses
    assert responses.shape == (3, 3, 2)
    np.testing.assert_array_equal(responses[1], VALUES[[2, 0, 5]][:, [0, 2], 0])  # by repetition
    np.testing.assert_array_equal(responses[2, :2], VALUES[[1, 4]][:, [0, 2], 0])
    assert np.isnan(responses[0, 1:]).all()
    assert np.isnan(responses[2, 2:]).all()
    assert v4.cells is not None
    assert v4.cells["neuroid_id"].tolist() == ["n0", "n2"]
    assert v4.cells["x"].tolist() == [0.5, 2.5]
    assert "reliability" in v4.cells
    assert (session_of(v4).animal, session_of(it).animal) == ("Chabo", None)
    assert session_of(v4).bin_ms == 100.0


def test_without_repetition_the_order_of_presentation_counts(tmp_path: Path) -> None:
    array = assembly(repetition=None, region=None)
    (area,) = read_brainio(write(tmp_path, array.assign_attrs(identifier="lab.Author2020")))
    assert (area.id, area.area, area.n_neurons) == ("lab.Author2020", None, 4)
    np.testing.assert_array_equal(session_of(area).responses[1], VALUES[[0, 2, 5], :, 0])


def test_older_files_say_image_id_and_have_other_axes(tmp_path: Path) -> None:
    array = assembly(VALUES[:, :, 0], stimulus_id=None, image_id=("presentation", SHOWN))
    table = "\n".join(["image_id", *IDS])
    path = write(tmp_path, array.transpose("neuroid", "presentation"), table)
    it, _ = read_brainio(path)
    np.testing.assert_array_equal(session_of(it).responses[0, 0], VALUES[3, [1, 3], 0])
    assert session_of(it).bin_ms is None


def test_time_bins_within_the_window_are_averaged(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(size=(6, 4, 3))
    path = write(tmp_path, assembly(values))
    with pytest.raises(InputError, match="3 time bins from 70 to 370 ms; say by window_ms"):
        read_brainio(path)
    with pytest.raises(InputError, match="no time bin lies within"):
        read_brainio(path, window_ms=(0.0, 100.0))
    it, _ = read_brainio(path, window_ms=(70.0, 280.0))
    expected = values[3, [1, 3], :2].mean(axis=1)
    np.testing.assert_allclose(session_of(it).responses[0, 0], expected, rtol=1e-14)
    assert session_of(it).bin_ms == 200.0


def test_images_may_lie_in_a_folder_and_elsewhere(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "stimulus_lab_Author2020.zip").unlink()
    inner = tmp_path / "images" / "deeper"
    inner.mkdir(parents=True)
    for name, level in LEVELS.items():
        (inner / f"{name}.png").write_bytes(png(level))
    beside, _ = read_brainio(path)
    named, _ = read_brainio(path, images=tmp_path / "images", size=3)
    assert beside.stimuli.images()[:, 0, 0, 0].tolist() == [30, 10, 20]
    assert named.stimuli.image_size == (3, 3)


@pytest.mark.parametrize(
    ("array", "table", "reason"),
    [
        (
            assembly(stimulus_id=None),
            None,
            "presentation has no coordinate stimulus_id or image_id",
        ),
        (assembly().rename({"neuroid": "voxel"}), None, "one variable over presentation, neuroid"),
        (assembly().expand_dims("event"), None, "over .*event"),
        (assembly(), "id\nim_a\n", "has no column stimulus_id or image_id"),
        (assembly(), "stimulus_id\nim_a\n", "2 images shown are not in .*'im_b'"),
        (assembly(), "stimulus_id\nim_a\nim_a\n", "names an image twice"),
        (
            assembly(),
            "stimulus_id,filename\nim_a,im_a.png\nim_b,absent.png\nim_c,im_c.png\n",
            "no file for 1 images .of 'im_b'",
        ),
    ],
)
def test_refuses(tmp_path: Path, array: xr.DataArray, table: str | None, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read_brainio(write(tmp_path, array, table))


def test_refuses_what_is_missing_or_no_netcdf(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "second.csv").write_text("stimulus_id\n")
    with pytest.raises(InputError, match=r"2 files \.csv .* say which by stimulus_set="):
        read_brainio(path)
    (tmp_path / "flat").mkdir()
    flat = write(tmp_path / "flat", assembly(VALUES[:, :, 0]))
    with pytest.raises(InputError, match="window_ms says nothing"):
        read_brainio(flat, window_ms=(0.0, 1.0))
    table = tmp_path / "second.csv"
    (tmp_path / "text.nc").write_text("text")
    with pytest.raises(InputError, match="cannot be read as HDF5"):
        read_brainio(tmp_path / "text.nc", stimulus_set=table)
    with pytest.raises(InputError, match="does not exist"):
        read_brainio(tmp_path / "absent.nc", stimulus_set=table)
    for file in tmp_path.glob("*.csv"):
        file.unlink()
    with pytest.raises(InputError, match=r"no \.csv table of its stimulus set"):
        read_brainio(path)


@pytest.mark.parametrize("kind", ["external link", "soft link", "external numbers"])
def test_a_file_that_points_elsewhere_is_refused(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path)
    with h5py.File(path, "a") as file:
        if kind == "external numbers":
            file.create_dataset("other", (4,), "f4", external=[("/etc/passwd", 0, 16)])
        else:
            link = (
                h5py.SoftLink("/data") if kind == "soft link" else h5py.ExternalLink("o.h5", "/x")
            )
            file["other"] = link
    with pytest.raises(InputError, match="other lies elsewhere"):
        read_brainio(path)
