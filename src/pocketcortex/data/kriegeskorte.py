"""Reader of the 92 object images with the dissimilarities of monkey and human IT."""

from pathlib import Path

import numpy as np

from pocketcortex.core import BrainArea, InputError, StimulusSet, read_arrays

_MATRICES, _IMAGES = "kriegeskorte2008.npz", "images.zip"

_AREAS = {
    "monkey": ("monkey_IT_rdm", "macaque", "674 neurons"),
    "human": ("human_IT_rdm", "human", "316 voxels"),
}


def read_kriegeskorte(path: str | Path) -> list[BrainArea]:
    """Return monkey and human IT of Kriegeskorte et al., as published dissimilarities.

    One matrix each, with no single subjects, so that no noise ceiling can be told from them.

    Parameters
    ----------
    path
        A folder with ``kriegeskorte2008.npz`` (``monkey_IT_rdm`` and ``human_IT_rdm``, 92 x 92
        correlation distances) and ``images.zip`` (``01.png`` to ``92.png``, in the same order).

    Returns
    -------
    list[BrainArea]
        ``kriegeskorte2008/monkey-IT`` and ``kriegeskorte2008/human-IT``.

    Raises
    ------
    InputError
        If a file is missing or cannot be read; if a matrix is missing, or is no matrix of
        dissimilarities of as many images as there are.

    References
    ----------
    Kriegeskorte et al. (2008), Neuron 60(6): 1126-1141.
    """
    folder = Path(path)
    arrays = read_arrays(folder / _MATRICES)
    stimuli = StimulusSet.from_zip(folder / _IMAGES)
    missing = [name for name, _, _ in _AREAS.values() if name not in arrays]
    if missing:
        raise InputError(f"{folder / _MATRICES} has no {', '.join(missing)}; fetch it again")
    return [
        BrainArea(
            id=f"kriegeskorte2008/{who}-IT",
            stimuli=stimuli,
            rdms=np.asarray(arrays[name]),
            species=species,
            area="IT",
            note=note,
        )
        for who, (name, species, note) in _AREAS.items()
    ]
