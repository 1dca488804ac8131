"""Reader of the published macaque V4 recordings of Cowley, Stan, Pillow and Smith.

The release counts images from 1 (`image0001.jpg` is column 0) and stores responses as
(neurons, images[, repeats]), spike counts in bins of 100 ms; both are converted here.
"""

import re
from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped

from pocketcortex.core import InputError, Recordings, Session, StimulusSet, read_array

BIN_MS = 100.0

V4_ROLES = {
    "190923": "test",
    "201025": "test",
    "210225": "test",
    "211022": "test",
    "210224": "validation",
    "210325": "test",  # the images of Bashivan et al. (2019); the paper also trained on it
}
"""Role of the sessions that the release did not use for training alone."""

V4_ANIMALS = {
    "1909": "WE",
    "2010": "PE",
    "2102": "PE",
    "2103": "PE",
    "2106": "RA",
    "2110": "RA",
    "2111": "RA",
}
"""Animal by year and month (YYMM) of the recording."""

V4_SYNTHESIZED = dict.fromkeys(
    ("190924", "190925", "190926", "190927", "190928", "190929"), (600, 900)
)
"""First and one-past-last index of the synthesized images, which the paper left out of training."""

_FOLDER = "data_V4_responses"
_AVERAGED_FOLDERS = ("responses_repeat_averaged", "responses_repeataveraged")
_RAW_FOLDER = "responses_raw"
_RESPONSES_NAME = re.compile(r"responses_(\w+)\.npy")
_IMAGE_NAME = re.compile(r"image(\d+)\.jpe?g", re.IGNORECASE)


def read_v4(path: str | Path) -> Recordings:
    """Return the sessions found below a folder in the layout of the published V4 release.

    A session is there if its responses are; its images may be missing. Raw responses are
    preferred over repeat averages. No image is decoded.

    Parameters
    ----------
    path
        The release's top folder, or its `data_V4_responses` folder, holding
        `responses_raw/responses_ID.npy`, `responses_repeat_averaged/responses_ID.npy` and
        `images/images_ID.zip`, or any part of them.

    Returns
    -------
    Recordings
        Sessions sorted by id, responses `(n_stimuli, n_repeats, n_neurons)` in spikes per 100 ms.

    Raises
    ------
    InputError
        If the folder or all response files are missing; if a file cannot be read; if raw and
        averaged responses disagree; if the images of a session are not numbered 1 to the number
        of columns of its responses.
    """
    folder = _responses_folder(Path(path))
    raw = _files_by_session(folder / _RAW_FOLDER)
    averaged: dict[str, Path] = {}
    for name in _AVERAGED_FOLDERS:
        averaged |= _files_by_session(folder / name)
    if not raw and not averaged:
        wanted = ", ".join((_RAW_FOLDER, *_AVERAGED_FOLDERS))
        raise InputError(
            f"{folder} holds no V4 responses; looked for responses_ID.npy in its folders {wanted}"
        )
    return Recordings(
        _read_session(folder, session_id, raw.get(session_id), averaged.get(session_id))
        for session_id in sorted(raw.keys() | averaged.keys())
    )


def natural_stimuli(session_id: str, n_stimuli: int) -> Int[np.ndarray, " n_natural"]:
    """Return the indices of a session's stimuli that were not synthesized for it.

    Parameters
    ----------
    session_id
        Session of the V4 release.
    n_stimuli
        Number of stimuli in the session.

    References
    ----------
    The training sessions of September 2019 hold 300 synthesized images each (`V4_SYNTHESIZED`),
    left out of training by the published code.
    """
    start, stop = V4_SYNTHESIZED.get(session_id, (0, 0))
    indices = np.arange(n_stimuli)
    return indices[(indices < start) | (indices >= stop)]


def _responses_folder(path: Path) -> Path:
    if not path.is_dir():
        raise InputError(f"{path} is not a folder; a V4 release with {_FOLDER}/ was expected there")
    return path / _FOLDER if (path / _FOLDER).is_dir() else path


def _files_by_session(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    named = ((_RESPONSES_NAME.fullmatch(file.name), file) for file in sorted(folder.iterdir()))
    return {match[1]: file for match, file in named if match is not None}


def _read_session(
    folder: Path, session_id: str, raw: Path | None, averaged: Path | None
) -> Session:
    files = {n_axes: file for n_axes, file in ((3, raw), (2, averaged)) if file is not None}
    read = {n_axes: _read_responses(file, n_axes) for n_axes, file in files.items()}
    responses = read[max(read)]  # raw rather than averaged
    animal = V4_ANIMALS.get(session_id[:4])
    role = V4_ROLES.get(session_id, None if animal is None else "train")
    archive = folder / "images" / f"images_{session_id}.zip"
    session = Session(
        id=session_id,
        responses=responses,
        stimuli=_read_images(archive, len(responses)) if archive.exists() else None,
        has_repeats=raw is not None,
        animal=animal,
        role=role,
        bin_ms=BIN_MS,
    )
    if len(read) == 2:
        _refuse_disagreement(session, read[2][:, 0, :])
    return session


def _read_responses(file: Path, n_axes: int) -> Shaped[np.ndarray, "n_stimuli n_repeats n_neurons"]:
    stored = read_array(file)
    if stored.ndim != n_axes:
        axes = ("neurons", "images", "repeats")[:n_axes]
        raise InputError(f"{file} should have axes ({', '.join(axes)}); got shape {stored.shape}")
    if stored.dtype.kind not in "fiu":
        raise InputError(f"{file} should hold numbers; got {stored.dtype}")
    if n_axes == 2:
        stored = stored[:, :, None]  # (n_neurons, n_stimuli, 1)
    return stored.transpose(1, 2, 0)  # (n_stimuli, n_repeats, n_neurons)


def _refuse_disagreement(session: Session, means: Shaped[np.ndarray, "_ _"]) -> None:
    expected = session.mean_responses
    if expected.shape != means.shape:
        raise InputError(
            f"session {session.id}: raw responses have (images, neurons) {expected.shape} but "
            f"repeat averages {means.shape}; remove the wrong file"
        )
    differs = ~np.isclose(expected, means, rtol=1e-6, equal_nan=True)
    if differs.any():
        raise InputError(
            f"session {session.id}: {int(differs.sum())} repeat averages differ from the mean of "
            "the raw responses; remove the wrong file"
        )


def _read_images(archive: Path, n_columns: int) -> StimulusSet:
    """Return the images in the order of the columns, `image0001.jpg` first."""
    stimuli = StimulusSet.from_zip(archive)
    if len(stimuli) != n_columns:
        raise InputError(
            f"{archive} holds {len(stimuli)} images but there are responses to {n_columns}; "
            "one image for each column of responses is needed"
        )
    matches = [_IMAGE_NAME.fullmatch(name) for name in stimuli.names]
    numbers = {int(match[1]): k for k, match in enumerate(matches) if match is not None}
    missing = [k for k in range(1, n_columns + 1) if k not in numbers]
    if missing:
        raise InputError(
            f"{archive} holds no image{missing[0]:04d}.jpg; its images must be numbered from 1 to "
            f"{n_columns} (missing: {len(missing)})"
        )
    return stimuli.take([numbers[k] for k in range(1, n_columns + 1)])
