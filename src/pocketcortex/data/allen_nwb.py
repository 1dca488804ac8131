"""Areas of mouse cortex from NWB files of the Allen Brain Observatory, sessions merged."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float64
from scipy.stats import ks_2samp

from pocketcortex.core import BrainArea, InputError, Session
from pocketcortex.data._areas import cells_table
from pocketcortex.data.allen_scenes import WINDOW_S, AllenScenes, read_allen_scenes

MERGE_BY = ("area", "layer", "cre_line")
"""What sessions may have to agree in to become one area."""

RUNNING_CM_S = 2.0
"""Mean speed from which a trial counts as run."""

_LEAST_TRIALS = 6
_LEAST_FOR_R = 3


def read_allen_nwb(
    paths: str | Path | Iterable[str | Path],
    *,
    window_s: tuple[float, float] = WINDOW_S,
    by: Sequence[str] = MERGE_BY,
    seed: int = 0,
) -> list[BrainArea]:
    """Return areas of mouse cortex from Brain Observatory NWB files.

    Sessions that agree in `by` become one area: their cells side by side, trials numbered by
    repeat. Cells of different sessions were not recorded at the same time, so what they share from
    trial to trial means nothing across sessions.

    Parameters
    ----------
    paths
        A file, a folder of ``.nwb`` files, or several files; see `read_allen_scenes` for layout,
        what a response is, and what is refused.
    window_s
        Beginning and end of the response window, seconds after onset.
    by
        What must agree for sessions to be merged. ``("area", "layer")`` are the sites of the
        published benchmark.
    seed
        Of the halves of repeats for the cells' reliability.

    Returns
    -------
    list[BrainArea]
        Sorted by id, such as ``allen/VISp_L2-3_Cux2-CreERT2``. `cells` has ``cell_specimen_id``,
        ``session``, ``area``, ``layer``, ``depth_um``, ``cre_line``; ``reliability``;
        ``running_r``, the correlation of what a trial's response has beyond the scene's mean with
        running speed; ``running_p``, of a two-sample Kolmogorov-Smirnov test of run against other
        trials (2 cm/s) of the scene that drives the cell most, NaN below six of either.

    Raises
    ------
    InputError
        If there is no file, `by` names something else, one file cannot be read, sessions of an area
        show different scenes, or a cell comes twice (the same session given twice).

    References
    ----------
    Conwell et al. (2021), NeurIPS 34: cells with a reliability of 0.75 or more and no significant
    modulation by running. de Vries et al. (2020), Nature Neuroscience 23: 138-151.
    """
    unknown = [name for name in by if name not in MERGE_BY]
    if unknown:
        raise InputError(f"by takes {', '.join(MERGE_BY)}; got {', '.join(unknown)}")
    files = _files(paths)
    sessions = [read_allen_scenes(file, window_s=window_s) for file in files]
    groups: dict[str, list[AllenScenes]] = {}
    for session in sorted(sessions, key=lambda one: one.id):
        groups.setdefault(_name(session, by), []).append(session)
    return [_merged(name, groups[name], by, seed) for name in sorted(groups)]


def _files(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    if isinstance(paths, str | Path):
        path = Path(paths)
        files = sorted(path.glob("*.nwb")) if path.is_dir() else [path]
    else:
        files = [Path(path) for path in paths]
    if not files:
        raise InputError(f"no .nwb file in {paths}; give files of the Brain Observatory")
    return files


def _name(session: AllenScenes, by: Sequence[str]) -> str:
    parts = [str(getattr(session, name) or "unknown").replace("/", "-") for name in by]
    return "_".join(parts) or "all"


def _merged(name: str, sessions: Sequence[AllenScenes], by: Sequence[str], seed: int) -> BrainArea:
    first = sessions[0]
    stimuli = first.stimuli
    ids = np.concatenate([session.cell_ids for session in sessions])
    if len(set(ids.tolist())) < len(ids):
        raise InputError(
            f"allen/{name}: a cell comes twice among sessions "
            f"{', '.join(session.id for session in sessions)}; give each session once"
        )
    for other in sessions[1:]:
        if len(other.stimuli) != len(stimuli) or other.stimuli.digests != stimuli.digests:
            raise InputError(
                f"allen/{name}: sessions {first.id} and {other.id} show different scenes; "
                "read them apart"
            )
    n_repeats = max(session.responses.shape[1] for session in sessions)
    responses = np.full((len(stimuli), n_repeats, len(ids)), np.nan)
    start = 0
    for session in sessions:
        n_cells = len(session.cell_ids)
        responses[:, : session.responses.shape[1], start : start + n_cells] = session.responses
        start += n_cells
    merged = Session(f"allen/{name}", responses, stimuli, bin_ms=_window_ms(first))
    columns = pd.concat([_columns(session) for session in sessions], ignore_index=True)
    return BrainArea(
        id=merged.id,
        stimuli=stimuli,
        session=merged,
        species="mouse",
        area=first.area if "area" in by else None,
        layer=first.layer if "layer" in by else None,
        cells=cells_table(merged, {str(key): columns[key] for key in columns}, seed=seed),
        note=f"mean dF/F {first.window_s[0]:g} to {first.window_s[1]:g} s after onset; "
        f"{len(sessions)} session{'s' if len(sessions) > 1 else ''}",
    )


def _window_ms(session: AllenScenes) -> float:
    start, stop = session.window_s
    return 1000 * (stop - start)


def _columns(session: AllenScenes) -> pd.DataFrame:
    r, p = running_modulation(session.responses, session.running_cm_s)
    return pd.DataFrame(
        {
            "cell_specimen_id": session.cell_ids,
            "session": session.id,
            "area": session.area,
            "layer": session.layer,
            "depth_um": session.depth_um,
            "cre_line": session.cre_line,
            "running_r": r,
            "running_p": p,
        }
    )


def running_modulation(
    responses: Float64[np.ndarray, "n_scenes n_repeats n_cells"],
    running_cm_s: Float64[np.ndarray, "n_scenes n_repeats"],
) -> tuple[Float64[np.ndarray, " n_cells"], Float64[np.ndarray, " n_cells"]]:
    """Return how each cell's responses go with running: correlation, and p of a test.

    Parameters
    ----------
    responses, running_cm_s
        Trial by trial, NaN where there was none.

    Returns
    -------
    tuple
        ``running_r`` and ``running_p`` of `read_allen_nwb`, (n_cells,) each; NaN where undefined.
    """
    shown = ~np.isnan(responses)
    count = shown.sum(axis=1, keepdims=True)
    filled = np.where(shown, responses, 0.0)
    mean = filled.sum(axis=1, keepdims=True) / np.maximum(count, 1)
    n_cells = responses.shape[2]
    r, p = np.full(n_cells, np.nan), np.full(n_cells, np.nan)
    best = np.where(count > 0, mean, -np.inf)[:, 0].argmax(axis=0)
    for k in range(n_cells):
        known = shown[:, :, k] & ~np.isnan(running_cm_s)
        beyond = (responses[:, :, k] - mean[:, :, k])[known]
        r[k] = _pearson(beyond, running_cm_s[known])
        own = known[best[k]]
        trials, speed = responses[best[k], own, k], running_cm_s[best[k], own]
        run, still = trials[speed >= RUNNING_CM_S], trials[speed < RUNNING_CM_S]
        if min(len(run), len(still)) >= _LEAST_TRIALS:
            p[k] = ks_2samp(run, still).pvalue
    return r, p


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    if len(x) < _LEAST_FOR_R or x.std() == 0 or y.std() == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])
