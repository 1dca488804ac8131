"""Reader of BrainIO assemblies, the format of Brain-Score's recordings."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64

from pocketcortex.core import BrainArea, InputError, Session, StimulusSet, in_brief
from pocketcortex.core.memory import limited_memory
from pocketcortex.core.tables import read_csv
from pocketcortex.data._areas import cells_table
from pocketcortex.data._hdf5 import refuse_links

if TYPE_CHECKING:
    import xarray as xr

_IDS = ("stimulus_id", "image_id")  # the second in older files
_FILE_NAMES = ("filename", "image_file_name")
_EDGES = ("time_bin_start", "time_bin_end")


def read_brainio(
    path: str | Path,
    *,
    stimulus_set: str | Path | None = None,
    images: str | Path | None = None,
    window_ms: tuple[float, float] | None = None,
    size: int | None = None,
    species: str | None = None,
    seed: int = 0,
) -> list[BrainArea]:
    """Return the regions of a BrainIO NeuroidAssembly, one area each.

    Presentations of one image are its repeats, in order of the coordinate ``repetition`` where
    there is one. Needs the extra ``pocketcortex[brainscore]`` (xarray, h5netcdf).

    Parameters
    ----------
    path
        The assembly, netCDF (version 4): one variable over ``presentation`` and ``neuroid`` and, if
        any, ``time_bin``; coordinates ``stimulus_id`` (or ``image_id``) of presentations,
        ``region`` and any other of neuroids, ``time_bin_start`` and ``time_bin_end`` (ms).
    stimulus_set
        The stimulus set's CSV table: the same id and, if at hand, ``filename``, one row an image.
        By default the only ``.csv`` beside the assembly.
    images
        Zip or folder with the image files. By default the only ``.zip`` beside the table, or else
        the table's folder.
    window_ms
        Which time bins to average: those within. None: the only one.
    size
        As for `StimulusSet.from_zip`: for images of several sizes.
    species
        Kept in the areas; by default the coordinate ``species`` of the neuroids, if they agree.
    seed
        Of the halves of repeats for the cells' reliability.

    Returns
    -------
    list[BrainArea]
        ``NAME/REGION`` in order of region, or ``NAME`` if neuroids have none; NAME is the
        assembly's identifier or the file's name. Images shown at least once, in the table's order.
        `cells` has the neuroids' coordinates.

    Raises
    ------
    InputError
        If xarray is not installed; if a file is missing, ambiguous or cannot be read, or is no such
        assembly; if time bins are several and `window_ms` holds none of them; if an image is not in
        the table or has no file.

    References
    ----------
    Schrimpf et al. (2020), Neuron 108: 413-423; the public code of brainio (format only).
    """
    path = Path(path)
    table_file, image_files = _beside(path, stimulus_set, images)
    with _assembly(path) as assembly:
        values, bin_ms = _windowed(path, assembly, window_ms)
        shown = _strings(_coordinate(path, assembly, "presentation", _IDS))
        repetition = _optional(assembly, "presentation", "repetition")
        neuroids = _table_of(assembly, "neuroid")
        name = str(assembly.attrs.get("identifier") or path.stem)
    stimuli, order = _stimuli(table_file, image_files, shown, size)
    responses = _by_repeat(values, order, repetition, len(stimuli))
    regions = neuroids["region"].astype(str) if "region" in neuroids else None
    areas = []
    for region in [None] if regions is None else sorted(regions.unique()):
        own = np.arange(len(neuroids)) if region is None else np.flatnonzero(regions == region)
        session = Session(
            id=name if region is None else f"{name}/{region}",
            responses=responses[:, :, own],
            stimuli=stimuli,
            animal=_only(neuroids.iloc[own], "animal"),
            bin_ms=bin_ms,
        )
        cells = neuroids.iloc[own].reset_index(drop=True)
        areas.append(
            BrainArea(
                id=session.id,
                stimuli=stimuli,
                session=session,
                species=species or _only(cells, "species"),
                area=region,
                cells=cells_table(session, {str(key): cells[key] for key in cells}, seed=seed),
            )
        )
    return areas


@contextmanager
def _assembly(path: Path) -> "Iterator[xr.DataArray]":
    """Open the one variable of an assembly, axes in order."""
    try:
        import h5netcdf  # noqa: F401  what xarray reads netCDF with
        import xarray as xr
    except ImportError as error:
        raise InputError(
            f"reading {path} needs a library that is not installed ({error.name or error}); "
            "run: pip install 'pocketcortex[brainscore]'"
        ) from error
    if not path.is_file():
        raise InputError(f"{path} does not exist; a BrainIO assembly (.nc) was expected there")
    refuse_links(path)
    with limited_memory(path), _explained(path), xr.open_dataset(path, engine="h5netcdf") as data:
        found = [
            str(name)
            for name, v in data.data_vars.items()
            if {"presentation", "neuroid"} <= set(v.dims)
        ]
        axes = [str(dim) for name in found for dim in data[name].dims]
        extra = sorted(set(axes) - {"presentation", "neuroid", "time_bin"})
        if len(found) != 1 or extra:
            raise InputError(
                f"{path} should hold one variable over presentation, neuroid and if any time_bin; "
                f"got {', '.join(found) or 'none'} over {', '.join(dict.fromkeys(axes)) or 'none'}"
            )
        variable = data[found[0]]
        variable.attrs.setdefault("identifier", data.attrs.get("identifier"))
        order = ["presentation", "neuroid", *(["time_bin"] if "time_bin" in variable.dims else [])]
        yield variable.transpose(*order)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what goes wrong with a damaged file, almost anything, into an InputError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{path} cannot be read as netCDF 4 ({in_brief(error)}); fetch it again"
        ) from error


def _windowed(
    path: Path, assembly: "xr.DataArray", window_ms: tuple[float, float] | None
) -> tuple[Float64[np.ndarray, "n_presentations n_neuroids"], float | None]:
    """Return one value a presentation and neuroid, and how many ms it is of."""
    values = np.asarray(assembly.values)
    if values.dtype.kind not in "fiu":
        raise InputError(f"{path} should hold numbers; got {values.dtype}")
    if values.ndim == 2:
        if window_ms is not None:
            raise InputError(f"{path} has no time bins, so window_ms says nothing; leave it out")
        return values.astype(np.float64), None
    start, stop = (_optional(assembly, "time_bin", edge) for edge in _EDGES)
    n_bins = values.shape[2]
    if start is None or stop is None:
        if n_bins > 1:
            raise InputError(f"{path}: {n_bins} time bins without {' and '.join(_EDGES)}")
        return values[:, :, 0].astype(np.float64), None
    start, stop = start.astype(np.float64), stop.astype(np.float64)
    if window_ms is None:
        within = np.ones(n_bins, dtype=bool)
        if n_bins != 1:
            raise InputError(
                f"{path} has {n_bins} time bins from {start.min():g} to {stop.max():g} ms; say by "
                "window_ms which to average"
            )
    else:
        within = (start >= window_ms[0]) & (stop <= window_ms[1])
    if not within.any():
        raise InputError(
            f"{path}: no time bin lies within {window_ms} ms; bins go from {start.min():g} to "
            f"{stop.max():g} ms"
        )
    width = float(stop[within].max() - start[within].min())
    return values[:, :, within].astype(np.float64).mean(axis=2), width if width > 0 else None


def _coordinate(
    path: Path, assembly: "xr.DataArray", dim: str, names: tuple[str, ...]
) -> np.ndarray:
    for name in names:
        found = _optional(assembly, dim, name)
        if found is not None:
            return found
    raise InputError(f"{path}: {dim} has no coordinate {' or '.join(names)}")


def _optional(assembly: "xr.DataArray", dim: str, name: str) -> np.ndarray | None:
    if name not in assembly.coords or assembly.coords[name].dims != (dim,):
        return None
    return np.asarray(assembly.coords[name].values)


def _table_of(assembly: "xr.DataArray", dim: str) -> pd.DataFrame:
    """Return all coordinates of one axis as columns."""
    columns = {}
    for name in assembly.coords:
        values = _optional(assembly, dim, str(name))
        if values is not None and str(name) != dim:
            columns[str(name)] = values if values.dtype.kind in "fiub" else _strings(values)
    return pd.DataFrame(columns, index=range(assembly.sizes[dim]))


def _strings(values: np.ndarray) -> list[str]:
    return [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values]


def _only(table: pd.DataFrame, column: str) -> str | None:
    if column not in table:
        return None
    values = table[column].astype(str).unique()
    return str(values[0]) if len(values) == 1 else None


def _beside(
    path: Path, stimulus_set: str | Path | None, images: str | Path | None
) -> tuple[Path, Path]:
    table = _sole(path.parent, ".csv", path) if stimulus_set is None else Path(stimulus_set)
    if table is None:
        raise InputError(f"{path}: no .csv table of its stimulus set beside it; give stimulus_set=")
    if images is not None:
        return table, Path(images)
    return table, _sole(table.parent, ".zip", path) or table.parent


def _sole(folder: Path, suffix: str, path: Path) -> Path | None:
    found = sorted(folder.glob(f"*{suffix}"))
    if len(found) > 1:
        raise InputError(
            f"{path}: {len(found)} files {suffix} in {folder}; say which by stimulus_set= and "
            "images="
        )
    return found[0] if found else None


def _stimuli(
    table_file: Path, image_files: Path, shown: list[str], size: int | None
) -> tuple[StimulusSet, Int64[np.ndarray, " n_presentations"]]:
    """Return the images shown, in the table's order, and which one each presentation showed."""
    try:
        table = read_csv(table_file, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{table_file} cannot be read as a table ({in_brief(error)})") from error
    key = next((name for name in _IDS if name in table), None)
    if key is None:
        raise InputError(f"{table_file} has no column {' or '.join(_IDS)}; is it a stimulus set?")
    ids = table[key].tolist()
    if len(set(ids)) < len(ids):
        raise InputError(f"{table_file} names an image twice in {key}")
    unknown = sorted(set(shown) - set(ids))
    if unknown:
        raise InputError(
            f"{len(unknown)} images shown are not in {table_file} (such as {unknown[0]!r}); "
            "give the stimulus set of this assembly"
        )
    every = (StimulusSet.from_folder if image_files.is_dir() else StimulusSet.from_zip)(
        image_files, size
    )
    places = _places(table, key, every)
    wanted = set(shown)
    kept = [name for name in ids if name in wanted]
    absent = [name for name in kept if name not in places]
    if absent:
        raise InputError(f"{image_files} has no file for {len(absent)} images (of {absent[0]!r})")
    row = {name: k for k, name in enumerate(kept)}
    order = np.array([row[name] for name in shown], dtype=np.int64)
    return every.take([places[name] for name in kept]), order


def _places(table: pd.DataFrame, key: str, every: StimulusSet) -> dict[str, int]:
    """Return where the image of each id is, told by file name or, without one, by its stem."""
    column = next((name for name in _FILE_NAMES if name in table), None)
    if column is None:
        stems = {Path(name).stem: k for k, name in enumerate(every.names)}
        return stems | {name: k for k, name in enumerate(every.names)}
    files = {name: k for k, name in enumerate(every.names)}
    named = [Path(name.replace("\\", "/")).name for name in table[column]]
    return {i: files[name] for i, name in zip(table[key], named, strict=True) if name in files}


def _by_repeat(
    values: Float64[np.ndarray, "n_presentations n_neuroids"],
    order: Int64[np.ndarray, " n_presentations"],
    repetition: np.ndarray | None,
    n_stimuli: int,
) -> Float64[np.ndarray, "n_stimuli n_repeats n_neuroids"]:
    """Return the presentations of each image side by side, NaN where it was shown less often."""
    count = np.bincount(order, minlength=n_stimuli)
    if repetition is None or repetition.dtype.kind not in "fiu":
        sequence = np.argsort(order, kind="stable")
    else:
        sequence = np.lexsort((repetition, order))
    repeat = np.arange(len(order)) - np.repeat(np.cumsum(count) - count, count)
    responses = np.full((n_stimuli, int(count.max()), values.shape[1]), np.nan)
    responses[order[sequence], repeat] = values[sequence]
    return responses
