"""Which neurons can be scored, and why the others cannot."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int

from pocketcortex.core import InputError


@dataclass(frozen=True)
class Usable:
    """Mean responses of the neurons that can be scored.

    Attributes
    ----------
    neurons
        Their places among all.
    mean
        Means over repeats, finite and not constant, (n_stimuli, n_usable).
    reasons
        The other neurons, each with the reason.
    """

    neurons: Int[np.ndarray, " n_usable"]
    mean: Float64[np.ndarray, "n_stimuli n_usable"]
    reasons: Mapping[int, str]


def usable_responses(responses: Float64[np.ndarray, "n_stimuli n_repeats n_neurons"]) -> Usable:
    """Return the mean responses of neurons that answered every stimulus, and not all alike.

    Raises
    ------
    InputError
        If a response is infinite, or no neuron is left.
    """
    if np.isinf(responses).any():
        raise InputError("responses must be finite, or NaN where a repeat was not shown")
    shown = ~np.isnan(responses)
    n_shown = shown.sum(axis=1)  # (n_stimuli, n_neurons)
    total = np.where(shown, responses, 0.0).sum(axis=1)
    mean = total / np.maximum(n_shown, 1)
    missing = (n_shown == 0).sum(axis=0)
    flat = mean.max(axis=0) == mean.min(axis=0)
    reasons = {int(k): f"no response to {missing[k]} stimuli" for k in np.flatnonzero(missing)}
    reasons |= {int(k): "constant response" for k in np.flatnonzero(flat & (missing == 0))}
    neurons = np.flatnonzero(~flat & (missing == 0))
    if not neurons.size:
        some = ", ".join(sorted(set(reasons.values()))[:3]) or "there are none"
        raise InputError(f"no neuron can be scored: {some}")
    return Usable(neurons, mean[:, neurons], dict(sorted(reasons.items())))
