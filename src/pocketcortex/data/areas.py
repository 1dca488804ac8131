"""Open whatever recordings a path names, as areas of cortex with their images."""

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from pocketcortex.core import BrainArea, InputError, Recordings, Session, read_arrays
from pocketcortex.data._areas import cells_table
from pocketcortex.data.allen_nwb import read_allen_nwb
from pocketcortex.data.brainio import read_brainio
from pocketcortex.data.kriegeskorte import read_kriegeskorte
from pocketcortex.data.mouse import read_allen_rsms, read_antolik
from pocketcortex.data.npz import read_npz
from pocketcortex.data.remote import local_path
from pocketcortex.data.v4 import V4_SYNTHESIZED, read_v4

LAYOUTS = (
    "a V4 release (data_V4_responses/), antolik2016 (region1/raw_validation_set.npy), Allen "
    "matrices (similarity_matrices.npz), kriegeskorte2008.npz with images.zip, Brain Observatory "
    "files (.nwb), BrainIO assemblies (.nc with a stimulus set's .csv and images), sessions saved "
    "by Session.save (.npz), or a folder of such folders"
)
"""What `read_areas` recognises, in words."""

_DEPTH = 2
_V4_OVERLAPS = {
    "210325": "images 1 to 600 are images 601 to 1200 of session 210322",
    "210322": "images 601 to 1200 are images 1 to 600 of session 210325",
    "190925": "300 images come twice: split by content (StimulusSet.digests)",
    "210621": "two pairs of equal images; image 1073 is also in session 210225",
}


def read_areas(path: str | Path, *, seed: int = 0) -> list[BrainArea]:
    """Return the areas of cortex found at a path, whatever recordings they come from.

    Parameters
    ----------
    path
        A file or folder in one of the layouts that `LAYOUTS` names; of a folder of folders, all
        that are recognised within two levels are read. Sessions without images are left out. Here,
        or in an object store (`local_path`).
    seed
        Of the halves of repeats for the cells' reliability.

    Returns
    -------
    list[BrainArea]
        Areas with different ids.

    Raises
    ------
    InputError
        If nothing is there or nothing is recognised, a file cannot be read, no session has images,
        or two areas have the same id.
    """
    path = local_path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; give {LAYOUTS}")
    found = _from_folder(path, seed, _DEPTH) if path.is_dir() else _from_file(path, seed)
    if not found:
        raise InputError(f"{path} holds no recordings that are recognised; give {LAYOUTS}")
    ids = [area.id for area in found]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise InputError(f"{path}: areas {', '.join(twice)} come twice; read them one by one")
    return found


def session_area(
    session: Session,
    *,
    id: str | None = None,
    species: str | None = None,
    area: str | None = None,
    layer: str | None = None,
    note: str = "",
    seed: int = 0,
) -> BrainArea:
    """Return one recording session as an area, its neurons' reliability worked out.

    Parameters
    ----------
    session
        A session with images.
    id
        The area's name; by default the session's.
    species, area, layer, note
        As for `BrainArea`.
    seed
        Of the halves of repeats for the cells' reliability.

    Raises
    ------
    InputError
        If the session has no images.
    """
    return BrainArea(
        id=session.id if id is None else id,
        stimuli=session.require_stimuli(),
        session=session,
        species=species,
        area=area,
        layer=layer,
        cells=cells_table(session, seed=seed),
        note=note,
    )


def v4_areas(recordings: Recordings, *, seed: int = 0) -> list[BrainArea]:
    """Return the sessions of the V4 release that have images, each as an area of its own.

    The session keeps its role ("train", "validation", "test"). What is known to overlap, within a
    session or between two, stands in `note`: `shared_stimuli` finds all of it by content.

    Parameters
    ----------
    recordings
        As `read_v4` gives them.
    seed
        Of the halves of repeats for the cells' reliability.

    Raises
    ------
    InputError
        If no session has images.
    """
    shown = [session for session in recordings.values() if session.stimuli is not None]
    if not shown:
        raise InputError(
            f"none of the sessions {', '.join(recordings)} has images; an area needs them"
        )
    return [
        session_area(
            session,
            id=f"v4/{session.id}",
            species="macaque",
            area="V4",
            note=_v4_note(session.id),
            seed=seed,
        )
        for session in shown
    ]


def shared_stimuli(areas: Sequence[BrainArea]) -> pd.DataFrame:
    """Return which areas were shown the same images, told by their pixels.

    Reads every image. Images of another size are other images.

    Parameters
    ----------
    areas
        Two or more.

    Returns
    -------
    pd.DataFrame
        One row for each two areas that share an image: ``first``, ``second``, and how many
        different images they share, ``n_shared``. An area that shows an image more than once has a
        row with itself: ``n_shared`` counts its images that come again.
    """
    own = [set(area.stimuli.digests) for area in areas]
    rows: list[dict[str, Any]] = []
    for area, images in zip(areas, own, strict=True):
        again = area.n_stimuli - len(images)
        if again:
            rows.append({"first": area.id, "second": area.id, "n_shared": again})
    for (a, images), (b, others) in combinations(zip(areas, own, strict=True), 2):
        both = len(images & others)
        if both:
            rows.append({"first": a.id, "second": b.id, "n_shared": both})
    return pd.DataFrame(rows, columns=["first", "second", "n_shared"])


def _v4_note(session_id: str) -> str:
    notes = [_V4_OVERLAPS[session_id]] if session_id in _V4_OVERLAPS else []
    if session_id in V4_SYNTHESIZED:
        start, stop = V4_SYNTHESIZED[session_id]
        notes.append(f"images {start + 1} to {stop} are synthesized")
    return "; ".join(notes)


def _from_file(path: Path, seed: int) -> list[BrainArea]:
    if path.suffix == ".nwb":
        return read_allen_nwb(path, seed=seed)
    if path.suffix == ".nc":
        return read_brainio(path, seed=seed)
    if path.suffix == ".npz" and _is_session(path):
        return [session_area(read_npz(path), seed=seed)]
    return []


def _from_folder(folder: Path, seed: int, depth: int) -> list[BrainArea]:
    for recognised, read in _READERS:
        if recognised(folder):
            return read(folder, seed)
    if not depth:
        return []
    inner = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    return [area for one in inner for area in _from_folder(one, seed, depth - 1)]


def _has(*patterns: str) -> Callable[[Path], bool]:
    return lambda folder: any(next(folder.glob(pattern), None) for pattern in patterns)


def _is_session(file: Path) -> bool:
    try:
        return {"responses", "metadata"} <= set(read_arrays(file))
    except InputError:
        return False


def _has_sessions(folder: Path) -> bool:
    return any(_is_session(file) for file in folder.glob("*.npz"))


def _saved_sessions(folder: Path, seed: int) -> list[BrainArea]:
    sessions = Recordings(read_npz(file) for file in sorted(folder.glob("*.npz")))
    shown = [session for session in sessions.values() if session.stimuli is not None]
    if not shown:
        raise InputError(f"none of the sessions in {folder} has images; an area needs them")
    return [session_area(session, seed=seed) for session in shown]


def _assemblies(folder: Path, seed: int) -> list[BrainArea]:
    files: Iterable[Path] = sorted(folder.glob("*.nc"))
    return [area for file in files for area in read_brainio(file, seed=seed)]


_READERS: tuple[tuple[Callable[[Path], bool], Callable[[Path, int], list[BrainArea]]], ...] = (
    (_has("similarity_matrices.npz"), lambda folder, _seed: read_allen_rsms(folder)),
    (_has("kriegeskorte2008.npz"), lambda folder, _seed: read_kriegeskorte(folder)),
    (
        _has("raw_validation_set.npy", "region*/raw_validation_set.npy"),
        lambda folder, seed: read_antolik(folder, seed=seed),
    ),
    (
        _has("data_V4_responses", "responses_raw", "responses_repeat*averaged"),
        lambda folder, seed: v4_areas(read_v4(folder), seed=seed),
    ),
    (_has("*.nwb"), lambda folder, seed: read_allen_nwb(folder, seed=seed)),
    (_has("*.nc"), _assemblies),
    (_has_sessions, _saved_sessions),
)
