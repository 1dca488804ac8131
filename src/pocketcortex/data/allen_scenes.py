"""One two-photon session of the Allen Brain Observatory: responses to its natural scenes."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Float64, Int, Int64, UInt8

from pocketcortex.core import ImageSource, InputError, StimulusSet
from pocketcortex.data._areas import rgb
from pocketcortex.data._hdf5 import dataset, find, numbers, opened, text

WINDOW_S = (0.0, 0.5)
"""Seconds after onset over which dF/F is averaged: 0.25 s of a scene, and as long again."""

LAYER_BELOW_UM = {"L2/3": 250, "L4": 365, "L5": 500}
"""Imaging depth in micrometres below which a plane counts as a layer's; deeper ones are L6.

Ours: the files name no layer. Planes of the release lie near 175, 275, 375 and 550.
"""

BLANK = -1
"""Frame index of a sweep that showed grey."""

_PIPELINE = "processing/brain_observatory_pipeline"
_DFF = f"{_PIPELINE}/DfOverF/imaging_plane_1"
_RUNNING = f"{_PIPELINE}/BehavioralTimeSeries/running_speed"
_CELL_IDS = f"{_PIPELINE}/ImageSegmentation/cell_specimen_ids"
_PLANE = "general/optophysiology/imaging_plane_1"
_PRESENTATIONS = (
    "stimulus/presentation/natural_scenes_stimulus",
    "stimulus/presentation/natural_scenes",
)
_TEMPLATE = "stimulus/templates/natural_scenes_image_stack/data"
_CELLS_AT_ONCE = 32


@dataclass(frozen=True, eq=False, repr=False)
class AllenScenes:
    """Responses of one imaging session to natural scenes, trial by trial.

    Attributes
    ----------
    id
        The session's ``ophys_experiment_id``, or the file's name.
    responses
        Mean dF/F within the window, (n_scenes, n_repeats, n_cells), repeats in order of showing;
        NaN where a scene was shown less often, or the recording had ended.
    running_cm_s
        Mean running speed within the window of each trial, (n_scenes, n_repeats), cm/s; NaN where
        it was not measured.
    stimuli
        The scenes, grey, at the resolution stored; pixels are read from the file when needed.
    cell_ids
        ``cell_specimen_id`` of each cell.
    area, layer, depth_um, cre_line
        Where the plane lay and which cells have the indicator; None if the file does not tell.
    window_s
        Beginning and end of the window, in seconds after onset.
    """

    id: str
    responses: Float64[np.ndarray, "n_scenes n_repeats n_cells"]
    running_cm_s: Float64[np.ndarray, "n_scenes n_repeats"]
    stimuli: StimulusSet
    cell_ids: Int64[np.ndarray, " n_cells"]
    area: str | None
    layer: str | None
    depth_um: float | None
    cre_line: str | None
    window_s: tuple[float, float]

    def __repr__(self) -> str:
        where = " ".join(str(part) for part in (self.area, self.layer, self.cre_line) if part)
        return (
            f"AllenScenes({self.id}: {len(self.cell_ids)} cells of {where or 'unknown place'}, "
            f"{len(self.stimuli)} scenes, {self.responses.shape[1]} repeats)"
        )


def read_allen_scenes(path: str | Path, *, window_s: tuple[float, float] = WINDOW_S) -> AllenScenes:
    """Return a session's responses to natural scenes from a Brain Observatory NWB file.

    A trial's response is the mean of dF/F over the frames of a window that begins at the scene's
    onset (as in ``frame_duration``) plus ``window_s[0]``; all windows have the same number of
    frames. Grey sweeps (frame -1) are left out.

    Parameters
    ----------
    path
        An NWB (version 1) file of the Brain Observatory, session B, in its documented layout:
        ``processing/brain_observatory_pipeline`` with ``DfOverF``, ``ImageSegmentation`` and
        ``BehavioralTimeSeries``; ``stimulus/presentation/natural_scenes_stimulus`` with ``data``
        (frame indices) and ``frame_duration``; ``stimulus/templates``; ``general``. Links to other
        files are refused.
    window_s
        Beginning and end, seconds after onset.

    Raises
    ------
    InputError
        If the window is empty; if the file cannot be read, was recorded without natural scenes,
        lacks a dataset or leads to another file; if shapes disagree, times do not increase, a frame
        index has no scene, or no trial lies within the recording.

    References
    ----------
    de Vries et al. (2020), Nature Neuroscience 23: 138-151. Allen Institute, "Organization of a
    Brain Observatory NWB file" and the public code of AllenSDK (layout and names only).
    """
    start, stop = window_s
    if not (np.isfinite(window_s).all() and start < stop):
        raise InputError(f"window_s must be (beginning, end) in seconds; got {window_s}")
    with opened(path) as file:
        times = _frame_times(file)
        scenes, onsets = _presentations(file, path)
        n_scenes = _n_scenes(file, path)
        if scenes.size and not scenes.max() < n_scenes:
            raise InputError(f"{path}: scene {scenes.max()} was shown but there are {n_scenes}")
        rate = 1.0 / float(np.median(np.diff(times)))
        first = onsets + round(start * rate)
        n_frames = max(1, round((stop - start) * rate))
        within = (first >= 0) & (first + n_frames <= len(times))
        if not within.any():
            raise InputError(f"{path}: no trial's window lies within the recording")
        trials = first[within, None] + np.arange(n_frames)  # (n_trials, n_frames)
        scenes = scenes[within]
        cell_ids = _cell_ids(file, path)
        dff = _trial_means(file, path, trials, len(cell_ids), len(times))
        speed = _trial_speeds(file, path, times, trials)
        depth = _depth_um(file)
        genotype = text(file, "general/subject/genotype")
        area = text(file, f"{_PLANE}/location") or text(file, "general/targeted_structure")
        session_id = text(file, "general/session_id") or Path(path).stem
    table = _by_repeat(scenes, n_scenes)
    return AllenScenes(
        id=session_id,
        responses=_spread(dff, table),
        running_cm_s=_spread(speed[:, None], table)[:, :, 0],
        stimuli=StimulusSet.from_source(_TemplateSource(Path(path), n_scenes)),
        cell_ids=cell_ids,
        area=area,
        layer=None if depth is None else layer_at(depth),
        depth_um=depth,
        cre_line=genotype.split(";")[0].split("/")[0].strip() or None if genotype else None,
        window_s=(float(start), float(stop)),
    )


def layer_at(depth_um: float) -> str:
    """Return the layer of cortex that an imaging depth counts as (`LAYER_BELOW_UM`)."""
    return next((name for name, below in LAYER_BELOW_UM.items() if depth_um < below), "L6")


@dataclass(frozen=True, eq=False)
class _TemplateSource(ImageSource):
    """The scenes stored in an NWB file, read one by one."""

    path: Path
    n_scenes: int

    def __repr__(self) -> str:
        return str(self.path)

    def __len__(self) -> int:
        return self.n_scenes

    @property
    def names(self) -> tuple[str, ...]:
        """`scene000`, `scene001`, ..., numbered from 0 as the file does."""
        return tuple(f"scene{k:03d}" for k in range(self.n_scenes))

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        with opened(self.path) as file:
            _, height, width = dataset(file, _TEMPLATE).shape
        return int(height), int(width)

    def read(self, index: Int[np.ndarray, " n_read"]) -> UInt8[np.ndarray, "n_read 3 height width"]:
        """Return the pixels of the scenes at these positions."""
        with opened(self.path) as file:
            stored = dataset(file, _TEMPLATE)
            images = np.empty((len(index), 3, *stored.shape[1:]), dtype=np.uint8)
            for row, k in enumerate(index):
                images[row] = rgb(np.asarray(stored[int(k)])[None], self.path)[0]
        return images


def _frame_times(file: h5py.File) -> Float64[np.ndarray, " n_frames"]:
    times = numbers(file, f"{_DFF}/timestamps").astype(np.float64)
    if times.ndim != 1 or len(times) < 2 or not (np.diff(times) > 0).all():
        raise InputError(f"{file.filename}: the times of the frames do not increase")
    return times


def _presentations(file: h5py.File, path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Return which scene was shown at which frame, in order, grey sweeps left out."""
    group = next((name for name in _PRESENTATIONS if find(file, name) is not None), None)
    if group is None:
        held = find(file, "stimulus/presentation")
        shown = ", ".join(held) if isinstance(held, h5py.Group) else "nothing"
        raise InputError(
            f"{path} was recorded without natural scenes (it shows {shown}); "
            "give files of session type B"
        )
    scenes = numbers(file, f"{group}/data").reshape(-1)
    frames = numbers(file, f"{group}/frame_duration")
    if frames.shape != (len(scenes), 2):
        raise InputError(
            f"{path}: {group}/frame_duration should be (n_trials, 2) for {len(scenes)} trials; got "
            f"{frames.shape}"
        )
    if not (np.equal(scenes, np.rint(scenes)).all() and (scenes >= BLANK).all()):
        raise InputError(f"{path}: {group}/data should hold scene numbers from 0, or -1 for grey")
    order = np.argsort(frames[:, 0], kind="stable")
    order = order[scenes[order] != BLANK]
    return scenes[order].astype(np.int64), frames[order, 0].astype(np.int64)


def _n_scenes(file: h5py.File, path: str | Path) -> int:
    shape = dataset(file, _TEMPLATE).shape
    if len(shape) != 3:
        raise InputError(f"{path}: {_TEMPLATE} should be (scenes, height, width); got {shape}")
    return int(shape[0])


def _cell_ids(file: h5py.File, path: str | Path) -> Int64[np.ndarray, " n_cells"]:
    ids = numbers(file, _CELL_IDS)
    if ids.ndim != 1 or not ids.size or len(set(ids.tolist())) != len(ids):
        raise InputError(f"{path}: {_CELL_IDS} should name each cell once; got {ids.shape}")
    return ids.astype(np.int64)


def _trial_means(
    file: h5py.File, path: str | Path, trials: np.ndarray, n_cells: int, n_frames: int
) -> Float64[np.ndarray, "n_trials n_cells"]:
    stored = dataset(file, f"{_DFF}/data")
    if stored.shape != (n_cells, n_frames) or stored.dtype.kind not in "fiu":
        raise InputError(
            f"{path}: dF/F should be ({n_cells} cells, {n_frames} frames) of numbers; got "
            f"{stored.dtype} of shape {stored.shape}"
        )
    means = np.empty((len(trials), n_cells))
    for k in range(0, n_cells, _CELLS_AT_ONCE):
        some = np.asarray(stored[k : k + _CELLS_AT_ONCE], dtype=np.float64)
        means[:, k : k + _CELLS_AT_ONCE] = some[:, trials].mean(axis=2).T
    return means


def _trial_speeds(
    file: h5py.File, path: str | Path, times: np.ndarray, trials: np.ndarray
) -> Float64[np.ndarray, " n_trials"]:
    """Return the mean speed between the first and last frame of each trial, by its own times."""
    if find(file, _RUNNING) is None:
        return np.full(len(trials), np.nan)
    speed = numbers(file, f"{_RUNNING}/data").astype(np.float64)
    when = numbers(file, f"{_RUNNING}/timestamps").astype(np.float64)
    speed = speed[:, 0] if speed.ndim == 2 and speed.shape[1] == 1 else speed  # in old files
    if speed.shape != when.shape or when.ndim != 1 or not (np.diff(when) > 0).all():
        raise InputError(f"{path}: running speed and its times do not go together")
    known = np.isfinite(speed)
    total = np.concatenate([[0.0], np.cumsum(np.where(known, speed, 0.0))])
    count = np.concatenate([[0], np.cumsum(known)])
    first = np.searchsorted(when, times[trials[:, 0]], side="left")
    last = np.searchsorted(when, times[trials[:, -1]], side="right")
    n = count[last] - count[first]
    mean = np.full(len(trials), np.nan)
    np.divide(total[last] - total[first], n, out=mean, where=n > 0)
    return mean


def _depth_um(file: h5py.File) -> float | None:
    """Return the imaging depth, which files give as "175 microns"."""
    name = f"{_PLANE}/imaging depth"
    given = text(file, name) or text(file, f"{_PLANE}/imaging_depth")
    if not given:
        return None
    try:
        return float(given.split()[0])
    except (ValueError, IndexError):
        raise InputError(f"{file.filename}: imaging depth {given!r} is no number") from None


def _by_repeat(scenes: np.ndarray, n_scenes: int) -> Int64[np.ndarray, "n_scenes n_repeats"]:
    """Return the trial of each repeat of each scene in order of showing, -1 for none."""
    count = np.bincount(scenes, minlength=n_scenes)
    table = np.full((n_scenes, int(count.max())), -1, dtype=np.int64)
    order = np.argsort(scenes, kind="stable")
    repeat = np.arange(len(scenes)) - np.repeat(np.cumsum(count) - count, count)
    table[scenes[order], repeat] = order
    return table


def _spread(
    values: Float64[np.ndarray, "n_trials n_columns"],
    table: Int64[np.ndarray, "n_scenes n_repeats"],
) -> Float64[np.ndarray, "n_scenes n_repeats n_columns"]:
    spread = np.array(values[table])  # (n_scenes, n_repeats, n_columns)
    spread[table < 0] = np.nan
    return spread
