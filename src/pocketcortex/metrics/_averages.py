"""Averages over repeats where single repeats may or may not be at hand."""

import numpy as np
from jaxtyping import Float

from pocketcortex.core.errors import InputError
from pocketcortex.metrics._repeats import check_not_infinite, divide


def averages(
    responses: Float[np.ndarray, "..."], n_stimuli: int
) -> tuple[Float[np.ndarray, "n_stimuli n_neurons"], Float[np.ndarray, "n_stimuli n_neurons"]]:
    """Return means over repeats, NaN where there is none, and numbers of repeats.

    Responses without an axis of repeats are averages already; their numbers of repeats are NaN.

    Raises
    ------
    InputError
        If responses have another number of axes or of stimuli, or hold an infinity.
    """
    if responses.ndim not in (2, 3) or len(responses) != n_stimuli:
        raise InputError(
            "responses must be (n_stimuli, n_repeats, n_neurons), or averages (n_stimuli, "
            f"n_neurons), of {n_stimuli} stimuli; got shape {responses.shape}"
        )
    check_not_infinite(responses, "responses")
    values = responses.astype(np.float64)
    if values.ndim == 2:
        return values, np.full(values.shape, np.nan)
    recorded = ~np.isnan(values)
    count = recorded.sum(axis=1).astype(np.float64)
    return divide(np.where(recorded, values, 0.0).sum(axis=1), count, count > 0), count
