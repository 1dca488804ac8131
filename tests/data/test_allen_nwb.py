"""Reader of Brain Observatory files, on small files of their layout made here."""

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pocketcortex.core import InputError
from pocketcortex.data import read_allen_nwb, read_allen_scenes, running_modulation
from pocketcortex.data.allen_scenes import layer_at

RATE, N_SCENES, N_CELLS, N_REPEATS = 30.0, 5, 3, 8
SWEEP = 8  # frames from one onset to the next; 7 of them shown, as in the release
BASE = "processing/brain_observatory_pipeline"
PRESENTED = "stimulus/presentation/natural_scenes_stimulus"
PLANE = "general/optophysiology/imaging_plane_1"


def scenes_of(seed: int = 0) -> np.ndarray:
    levels = np.random.default_rng(seed).integers(0, 256, (N_SCENES, 6, 8))
    return levels.astype(np.float32)


def write_nwb(path: Path, *, seed: int = 0, **changes: Any) -> tuple[Path, np.ndarray]:
    """Write a session; return the file and what each trial's dF/F is, (scene, repeat, cell).

    dF/F is constant from onset to onset. Presentations are listed out of order in time.
    """
    rng = np.random.default_rng(seed)
    shown = np.concatenate([rng.permutation(np.arange(-1, N_SCENES)) for _ in range(N_REPEATS)])
    n_trials = len(shown)
    onsets = 40 + SWEEP * np.arange(n_trials)
    n_frames = int(onsets[-1]) + SWEEP + 20
    tuning = rng.normal(size=(N_SCENES + 1, N_CELLS))
    trial = tuning[shown] + 0.2 * rng.normal(size=(n_trials, N_CELLS))
    dff = rng.normal(size=(N_CELLS, n_frames)) * 9
    for k, onset in enumerate(onsets):
        dff[:, onset : onset + SWEEP] = trial[k][:, None]
    times = 3.0 + np.arange(n_frames) / RATE
    speed = np.repeat(rng.uniform(0, 4, n_trials), SWEEP)
    order = rng.permutation(n_trials)
    content: dict[str, Any] = {
        f"{BASE}/DfOverF/imaging_plane_1/data": dff.astype(np.float32),
        f"{BASE}/Fluorescence/imaging_plane_1/timestamps": times,
        f"{BASE}/DfOverF/imaging_plane_1/timestamps": h5py.SoftLink(
            f"/{BASE}/Fluorescence/imaging_plane_1/timestamps"
        ),
        f"{BASE}/ImageSegmentation/cell_specimen_ids": 500_000_000 + 10 * seed + np.arange(N_CELLS),
        f"{BASE}/BehavioralTimeSeries/running_speed/data": speed,
        f"{BASE}/BehavioralTimeSeries/running_speed/timestamps": times[40 : 40 + len(speed)],
        f"{PRESENTED}/data": shown[order],
        f"{PRESENTED}/frame_duration": np.stack([onsets, onsets + 7], axis=1)[order],
        "stimulus/templates/natural_scenes_image_stack/data": scenes_of(),
        "general/subject/genotype": np.bytes_("Cux2-CreERT2/wt;Camk2a-tTA/wt;Ai93/Ai93"),
        f"{PLANE}/location": np.bytes_("VISp"),
        f"{PLANE}/imaging depth": np.bytes_("175 microns"),
        "general/session_id": np.bytes_(f"{501_000_000 + seed}"),
    }
    with h5py.File(path, "w") as file:
        for name, value in (
            content | {n.replace("__", "/"): v for n, v in changes.items()}
        ).items():
            if value is not None:
                file[name] = value
    expected = np.stack([trial[shown == k] for k in range(N_SCENES)])
    return path, expected


WINDOW = (0.0, SWEEP / RATE)


def test_trials_are_means_within_the_window_in_order_of_showing(tmp_path: Path) -> None:
    path, expected = write_nwb(tmp_path / "a.nwb")
    scenes = read_allen_scenes(path, window_s=WINDOW)
    np.testing.assert_allclose(scenes.responses, expected, atol=1e-6)
    assert (scenes.area, scenes.layer, scenes.depth_um) == ("VISp", "L2/3", 175.0)
    assert (scenes.id, scenes.cre_line) == ("501000000", "Cux2-CreERT2")
    assert repr(scenes) == (
        "AllenScenes(501000000: 3 cells of VISp L2/3 Cux2-CreERT2, 5 scenes, 8 repeats)"
    )


def test_window_is_seconds_after_onset(tmp_path: Path) -> None:
    path, _ = write_nwb(tmp_path / "a.nwb")
    with h5py.File(path) as file:
        dff = file[f"{BASE}/DfOverF/imaging_plane_1/data"][()]
        shown, frames = file[f"{PRESENTED}/data"][()], file[f"{PRESENTED}/frame_duration"][()]
    first = min(onset for onset, _ in frames[shown == 2])
    for window in ((0.0, 0.5), (0.1, 0.3), (-0.2, 0.0)):
        start, stop = (round(t * RATE) for t in window)
        scenes = read_allen_scenes(path, window_s=window)
        np.testing.assert_allclose(
            scenes.responses[2, 0], dff[:, first + start : first + stop].mean(axis=1), rtol=1e-5
        )


def test_scenes_are_read_from_the_file_when_needed(tmp_path: Path) -> None:
    path, _ = write_nwb(tmp_path / "a.nwb")
    stimuli = read_allen_scenes(path).stimuli
    assert stimuli.image_size == (6, 8)
    assert stimuli.names[0] == "scene000"
    pixels = pickle.loads(pickle.dumps(stimuli)).read([3, 1])  # noqa: S301
    np.testing.assert_array_equal(pixels, np.repeat(scenes_of()[[3, 1], None], 3, axis=1))


def test_running_speed_goes_with_its_trial(tmp_path: Path) -> None:
    path, _ = write_nwb(tmp_path / "a.nwb")
    scenes = read_allen_scenes(path, window_s=WINDOW)
    with h5py.File(path) as file:
        shown, frames = file[f"{PRESENTED}/data"][()], file[f"{PRESENTED}/frame_duration"][()]
        speed = file[f"{BASE}/BehavioralTimeSeries/running_speed/data"][()]
    onsets = np.sort(frames[shown == 4, 0])
    np.testing.assert_allclose(scenes.running_cm_s[4], speed[onsets - 40], atol=1e-12)
    column, _ = write_nwb(
        tmp_path / "old.nwb", **{f"{BASE}/BehavioralTimeSeries/running_speed/data": speed[:, None]}
    )
    again = read_allen_scenes(column, window_s=WINDOW).running_cm_s
    np.testing.assert_array_equal(again, scenes.running_cm_s)
    without, _ = write_nwb(
        tmp_path / "without.nwb",
        **{
            f"{BASE}/BehavioralTimeSeries/running_speed/data": None,
            f"{BASE}/BehavioralTimeSeries/running_speed/timestamps": None,
        },
    )
    assert np.isnan(read_allen_scenes(without).running_cm_s).all()


def test_a_trial_beyond_the_recording_is_missing(tmp_path: Path) -> None:
    path, _ = write_nwb(tmp_path / "a.nwb")
    with h5py.File(path) as file:
        shown, frames = file[f"{PRESENTED}/data"][()], file[f"{PRESENTED}/frame_duration"][()]
        n_frames = file[f"{BASE}/DfOverF/imaging_plane_1/data"].shape[1]
    stop = (n_frames - frames[shown >= 0, 0].max() + 1) / RATE
    scenes = read_allen_scenes(path, window_s=(0.0, stop))
    missing = np.isnan(scenes.responses)
    assert missing.sum() == N_CELLS
    assert missing[:, -1].sum() == N_CELLS


@pytest.mark.parametrize(
    ("depth", "layer"),
    [(175.0, "L2/3"), (249.0, "L2/3"), (275.0, "L4"), (375.0, "L5"), (550.0, "L6")],
)
def test_layers_by_depth(depth: float, layer: str) -> None:
    assert layer_at(depth) == layer


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {f"{PRESENTED}/data": None, f"{PRESENTED}/frame_duration": None},
            "without natural scenes",
        ),
        ({f"{PRESENTED}/data": np.full(48, 9)}, "scene 9 was shown but there are 5"),
        ({f"{PRESENTED}/data": np.full(48, -2)}, "scene numbers from 0, or -1"),
        ({f"{PRESENTED}/frame_duration": np.zeros((4, 2))}, r"should be \(n_trials, 2\)"),
        ({f"{PRESENTED}/frame_duration": np.full((48, 2), 10**6)}, "no trial's window lies within"),
        ({f"{BASE}/DfOverF/imaging_plane_1/data": np.zeros((2, 9))}, r"dF/F should be \(3 cells"),
        ({f"{BASE}/Fluorescence/imaging_plane_1/timestamps": np.zeros(9)}, "do not increase"),
        ({f"{BASE}/ImageSegmentation/cell_specimen_ids": np.zeros(3, int)}, "name each cell once"),
        ({f"{BASE}/ImageSegmentation/cell_specimen_ids": None}, "has no dataset"),
        ({f"{PLANE}/imaging depth": np.bytes_("deep")}, "imaging depth 'deep' is no number"),
        (
            {f"{BASE}/DfOverF/imaging_plane_1/data": h5py.ExternalLink("other.h5", "/data")},
            r"leads to another file \(other\.h5\)",
        ),
        (
            {
                f"{BASE}/DfOverF/imaging_plane_1/data": h5py.SoftLink(
                    f"{BASE}/DfOverF/imaging_plane_1/data"
                )
            },
            "no dataset|in a circle",
        ),
    ],
)
def test_refuses(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    path, _ = write_nwb(tmp_path / "a.nwb", **changes)
    with pytest.raises(InputError, match=reason):
        read_allen_scenes(path)


def test_numbers_of_another_file_are_not_read(tmp_path: Path) -> None:
    path, _ = write_nwb(tmp_path / "a.nwb")
    name = f"{BASE}/DfOverF/imaging_plane_1/data"
    with h5py.File(path, "a") as file:
        shape = file[name].shape
        del file[name]
        raw = tmp_path / "raw"
        raw.write_bytes(np.zeros(shape, np.float32).tobytes())
        file.create_dataset(name, shape, np.float32, external=[(str(raw), 0, h5py.h5f.UNLIMITED)])
    with pytest.raises(InputError, match="lie in another file"):
        read_allen_scenes(path)


def test_refuses_what_is_no_such_file(tmp_path: Path) -> None:
    (tmp_path / "a.nwb").write_bytes(b"text")
    with pytest.raises(InputError, match="cannot be read as HDF5"):
        read_allen_scenes(tmp_path / "a.nwb")
    with pytest.raises(InputError, match="does not exist"):
        read_allen_scenes(tmp_path / "absent.nwb")
    path, _ = write_nwb(tmp_path / "a.nwb")
    with pytest.raises(InputError, match="window_s must be"):
        read_allen_scenes(path, window_s=(0.5, 0.5))
    template = {"stimulus/templates/natural_scenes_image_stack/data": scenes_of() * 2}
    path, _ = write_nwb(tmp_path / "b.nwb", **template)
    with pytest.raises(InputError, match="whole grey levels from 0 to 255"):
        read_allen_scenes(path).stimuli.images()


def test_sessions_of_a_site_are_merged(tmp_path: Path) -> None:
    first, expected = write_nwb(tmp_path / "a.nwb")
    second, others = write_nwb(tmp_path / "b.nwb", seed=1)
    write_nwb(
        tmp_path / "c.nwb",
        seed=2,
        **{"general/subject/genotype": np.bytes_("Rorb-IRES2-Cre/wt;Ai93")},
    )
    merged, rorb = read_allen_nwb(tmp_path, window_s=WINDOW)
    assert (merged.id, rorb.id) == (
        "allen/VISp_L2-3_Cux2-CreERT2",
        "allen/VISp_L2-3_Rorb-IRES2-Cre",
    )
    assert merged.session is not None
    np.testing.assert_allclose(
        merged.session.responses, np.concatenate([expected, others], axis=2), atol=1e-6
    )
    assert merged.cells is not None
    assert merged.cells["session"].tolist() == ["501000000"] * 3 + ["501000001"] * 3
    assert merged.cells["cell_specimen_id"].tolist()[3] == 500_000_010
    assert (merged.cells["reliability"] > 0.9).all()
    assert merged.reliable(0.75).n_neurons == 6
    (site,) = read_allen_nwb([first, second, tmp_path / "c.nwb"], by=("area", "layer"))
    assert (site.id, site.n_neurons, site.layer) == ("allen/VISp_L2-3", 9, "L2/3")


def test_sessions_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    path, _ = write_nwb(tmp_path / "a.nwb")
    with pytest.raises(InputError, match="a cell comes twice among sessions 501000000, 501000000"):
        read_allen_nwb([path, path])
    write_nwb(
        tmp_path / "b.nwb", seed=1,
        **{"stimulus/templates/natural_scenes_image_stack/data": scenes_of(5)},
    )  # fmt: skip
    with pytest.raises(InputError, match="show different scenes"):
        read_allen_nwb(tmp_path)
    with pytest.raises(InputError, match="by takes area, layer, cre_line; got depth"):
        read_allen_nwb(path, by=("depth",))
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"no \.nwb file"):
        read_allen_nwb(tmp_path / "none")


def test_running_modulation_finds_the_cell_that_follows_running() -> None:
    rng = np.random.default_rng(0)
    speed = rng.uniform(0, 4, (6, 40))
    responses = rng.normal(size=(6, 1, 3)) * 3 + rng.normal(size=(6, 40, 3))
    responses[:, :, 1] += 2 * speed
    r, p = running_modulation(responses, speed)
    assert r[1] > 0.8
    assert p[1] < 1e-4
    assert np.abs(r[[0, 2]]).max() < 0.2
    still = np.zeros_like(speed)
    r, p = running_modulation(responses, still)
    assert np.isnan(r).all()
    assert np.isnan(p).all()
