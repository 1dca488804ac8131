"""What the readers of areas share: reliability of neurons, grey images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64, UInt8

from pocketcortex.core import InputError, MissingRepeatsError, Session, StimulusSet
from pocketcortex.core.areas import RELIABILITY
from pocketcortex.metrics import split_half_reliability

N_SPLITS = 100
"""Random halves of the repeats, as in the published mouse benchmark."""

_WHOLE = 1e-3


def cells_table(
    session: Session, columns: Mapping[str, Any] | None = None, *, seed: int
) -> pd.DataFrame | None:
    """Return what is known of a session's neurons, split-half reliability included.

    None if nothing is known: no column, and no repeats to tell the reliability from.
    """
    known = dict(columns or {})
    reliability = _reliability(session, seed)
    if reliability is not None:
        known[RELIABILITY] = reliability
    return pd.DataFrame(known) if known else None


def grey_stimuli(levels: np.ndarray, names: Sequence[str], where: object) -> StimulusSet:
    """Return grey levels 0..255, (n, height, width), as RGB images.

    Raises
    ------
    InputError
        If levels are not whole numbers in 0..255 or not (n, height, width).
    """
    if levels.ndim != 3 or levels.dtype.kind not in "fiu":
        raise InputError(
            f"{where} should hold grey levels (images, height, width); got {levels.dtype} of "
            f"shape {levels.shape}"
        )
    return StimulusSet.from_array(rgb(levels, where), names)


def rgb(levels: np.ndarray, where: object) -> UInt8[np.ndarray, "n 3 height width"]:
    """Return grey levels (n, height, width) as the same level in three channels.

    Raises
    ------
    InputError
        If they are not whole numbers in 0..255.
    """
    whole = np.rint(levels)
    off = np.abs(levels - whole).max(initial=0.0)
    if not (whole.min(initial=0) >= 0 and whole.max(initial=0) <= 255 and off <= _WHOLE):
        raise InputError(
            f"{where}: pixels should be whole grey levels from 0 to 255; got values from "
            f"{levels.min():.4g} to {levels.max():.4g}"
        )
    grey = whole.astype(np.uint8)
    return np.repeat(grey[:, None], 3, axis=1)


def _reliability(session: Session, seed: int) -> Float64[np.ndarray, " n_neurons"] | None:
    try:
        responses = session.require_repeats()
    except MissingRepeatsError:
        return None
    if session.n_stimuli < 3:
        return None
    rng = np.random.default_rng(seed)
    return np.asarray(split_half_reliability(responses, rng=rng, n_splits=N_SPLITS))
