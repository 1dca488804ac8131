"""Readers of mouse visual cortex: V1 of Antolik et al., matrices of the Allen Brain Observatory."""

from pathlib import Path

import numpy as np
from jaxtyping import Float64, Shaped

from pocketcortex.core import (
    BrainArea,
    InputError,
    Session,
    StimulusSet,
    in_brief,
    read_array,
    read_arrays,
)
from pocketcortex.core.tables import read_csv
from pocketcortex.data._areas import cells_table, grey_stimuli

GREY_UNIT = 1e-6
"""What the images of Antolik et al. are stored in: grey level (0..255) times this."""

N_SCENES = 118
"""Natural scenes of the Allen Brain Observatory; matrices have one row more, the blank screen."""

FEW_CELLS = {"VISrl_L5"}
"""Sites whose matrix appears to rest on very few cells (published noise ceiling 0.127)."""

_RAW, _MEANS = "raw_validation_set.npy", "validation_set.npy"
_INPUTS, _MATRICES, _SCENES = "validation_inputs.npy", "similarity_matrices.npz", "scenes_31x31.npy"
_TRAINING, _TRAINING_INPUTS = "training_set.npy", "training_inputs.npy"
_UNIT_DIAGONAL = 1e-6


def read_antolik(path: str | Path, *, seed: int = 0) -> list[BrainArea]:
    """Return the regions of mouse V1 recorded by Antolik et al., one area each.

    Calcium responses to grey natural images of 31 x 31 pixels. The 50 validation images were shown
    8 to 12 times. Training images, shown once, are used if their pixels are there
    (``training_inputs.npy``); then the validation images are `held_out`. Copies without them have
    responses to images nobody can see: those are left out, and `held_out` is None.

    Parameters
    ----------
    path
        A folder with ``region1``, ``region2``, ... or one of these, holding
        ``raw_validation_set.npy`` (repeats, images, neurons) and ``validation_inputs.npy``
        (images, pixels), grey level times 1e-6.
    seed
        Of the halves of repeats for the cells' reliability.

    Returns
    -------
    list[BrainArea]
        ``antolik2016/region1``, ...; regions 1 and 2 of the release share their images.

    Raises
    ------
    InputError
        If there is no region; if a file is missing or cannot be read, has other axes, disagrees
        with another in numbers of images or neurons, or holds pixels that are no grey levels; if
        the means over repeats are not those stored.

    References
    ----------
    Antolik et al. (2016), PLoS Computational Biology 12(6): e1004927.
    """
    folder = Path(path)
    regions = (
        [folder]
        if (folder / _RAW).is_file()
        else sorted(p.parent for p in folder.glob(f"*/{_RAW}"))
    )
    if not regions:
        raise InputError(f"{folder} holds no {_RAW}, nor does a folder in it; give antolik2016")
    return [_region(region, seed) for region in regions]


def read_allen_rsms(path: str | Path) -> list[BrainArea]:
    """Return the published matrices of the Allen Brain Observatory as dissimilarities.

    The release holds correlations between images (diagonal 1); an area holds one minus them, as
    matrices of models do. The last row, the blank screen, is left out.

    Parameters
    ----------
    path
        A folder with ``similarity_matrices.npz`` (keys such as ``VISp_L2-3``, 119 x 119),
        ``scenes_31x31.npy`` (118, 31, 31) and, if at hand, ``noise_ceilings.csv``.

    Returns
    -------
    list[BrainArea]
        One a site, ``allen/VISal_L2-3``, ..., with `rdms` and no single neurons. The images are
        31 x 31 reductions of the scenes shown; that matrices follow their order is inferred from
        their pixels.

    Raises
    ------
    InputError
        If a file is missing or cannot be read; if a matrix is no similarity of 119 images (its
        diagonal is not 1, or entries are over 1) or is not symmetric.

    References
    ----------
    Conwell et al. (2021), NeurIPS 34, and its public code. de Vries et al. (2020), Nature
    Neuroscience 23: 138-151.
    """
    folder = Path(path)
    matrices = read_arrays(folder / _MATRICES)
    scenes = read_array(folder / _SCENES)
    names = [f"scene{k:03d}" for k in range(len(scenes))]
    stimuli = grey_stimuli(scenes, names, folder / _SCENES)
    if len(stimuli) != N_SCENES:
        raise InputError(f"{folder / _SCENES} should hold {N_SCENES} scenes; got {len(stimuli)}")
    ceilings = _ceilings(folder / "noise_ceilings.csv")
    if not matrices:
        raise InputError(f"{folder / _MATRICES} holds no matrix; keys such as VISp_L2-3 are read")
    return [
        _site(key, matrices[key], stimuli, ceilings.get(key), folder / _MATRICES)
        for key in sorted(matrices)
    ]


def _region(folder: Path, seed: int) -> BrainArea:
    raw = read_array(folder / _RAW)
    if raw.ndim != 3:
        raise InputError(
            f"{folder / _RAW} should have axes (repeats, images, neurons); got shape {raw.shape}"
        )
    responses = raw.transpose(1, 0, 2)  # (n_stimuli, n_repeats, n_neurons)
    if (folder / _MEANS).is_file():
        _check_means(folder, responses)
    shown = _images(folder / _INPUTS, "validation", len(responses))
    held_out = None
    if (folder / _TRAINING_INPUTS).is_file() and (folder / _TRAINING).is_file():
        training = _training(folder, responses.shape[2])
        n_training, n_repeats = len(training), responses.shape[1]
        once = np.full((n_training, n_repeats, responses.shape[2]), np.nan)
        once[:, 0] = training
        responses = np.concatenate([once, responses])
        images = _images(folder / _TRAINING_INPUTS, "training", n_training)
        shown = StimulusSet.concatenate([images, shown])
        held_out = np.arange(len(responses)) >= n_training
    session = Session(
        id=f"antolik2016/{folder.resolve().name}", responses=responses, stimuli=shown, role="test"
    )
    return BrainArea(
        id=session.id,
        stimuli=shown,
        session=session,
        species="mouse",
        area="V1",
        cells=cells_table(session, seed=seed),
        held_out=held_out,
        note="" if held_out is not None else "only the validation images are at hand",
    )


def _check_means(folder: Path, responses: Shaped[np.ndarray, "_ _ _"]) -> None:
    means = read_array(folder / _MEANS)
    expected = responses.mean(axis=1)
    if means.shape != expected.shape or not np.allclose(means, expected, rtol=1e-6, equal_nan=True):
        raise InputError(
            f"{folder}: {_MEANS} {means.shape} is not the mean over repeats of {_RAW} "
            f"{expected.shape}; remove the wrong file"
        )


def _training(folder: Path, n_neurons: int) -> Shaped[np.ndarray, "_ _"]:
    training = read_array(folder / _TRAINING)
    if training.ndim != 2 or training.shape[1] != n_neurons:
        raise InputError(
            f"{folder / _TRAINING} should be (images, {n_neurons} neurons); got {training.shape}"
        )
    return training


def _images(file: Path, name: str, n: int) -> StimulusSet:
    pixels = read_array(file)
    side = round(np.sqrt(pixels.shape[1])) if pixels.ndim == 2 else 0
    if pixels.ndim != 2 or side * side != pixels.shape[1] or len(pixels) != n:
        raise InputError(
            f"{file} should hold {n} square images, one a row; got shape {pixels.shape}"
        )
    levels = pixels.reshape(n, side, side) / GREY_UNIT
    return grey_stimuli(levels, [f"{name}{k:04d}" for k in range(1, n + 1)], file)


def _site(
    key: str,
    similarity: Shaped[np.ndarray, "..."],
    stimuli: StimulusSet,
    ceiling: float | None,
    file: Path,
) -> BrainArea:
    n = N_SCENES + 1
    if similarity.shape != (n, n) or similarity.dtype.kind != "f":
        raise InputError(
            f"{file}: {key} should be a matrix {n} x {n}, {N_SCENES} scenes and the blank; got "
            f"{similarity.dtype} of shape {similarity.shape}"
        )
    if not np.abs(np.diagonal(similarity) - 1).max() <= _UNIT_DIAGONAL:
        raise InputError(
            f"{file}: {key} has no unit diagonal, so it holds no similarities as published; a "
            "matrix of dissimilarities goes straight into BrainArea(rdms=...)"
        )
    area, _, layer = key.partition("_")
    return BrainArea(
        id=f"allen/{key}",
        stimuli=stimuli,
        rdms=_dissimilarity(similarity[:N_SCENES, :N_SCENES]),
        species="mouse",
        area=area,
        layer=layer.replace("-", "/") or None,
        rdm_ceiling=ceiling,
        note="appears to rest on very few cells" if key in FEW_CELLS else "",
    )


def _dissimilarity(similarity: np.ndarray) -> Float64[np.ndarray, "n n"]:
    distance = 1.0 - similarity.astype(np.float64)
    np.fill_diagonal(distance, 0.0)  # 1 up to rounding, as was checked
    return distance


def _ceilings(file: Path) -> dict[str, float]:
    if not file.is_file():
        return {}
    try:
        table = read_csv(file)
        if table[["area", "layer"]].isna().any(axis=None):
            raise ValueError("a row without area or layer")
        keys = table["area"].astype(str) + "_" + table["layer"].astype(str).str.replace("/", "-")
        return dict(zip(keys, table["ceiling"].astype(float), strict=True))
    except (OSError, ValueError, KeyError, OverflowError) as error:
        raise InputError(
            f"{file} should be a table with area, layer and ceiling ({in_brief(error)}); "
            "fetch it again"
        ) from error
