"""What the analyses of an area have in common: names, generators, and what each gives."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Float64, Shaped

REGRESSION, RSA, RSR = "regression", "rsa", "rsr"


@dataclass(frozen=True, eq=False)
class AreaPart:
    """What one analysis gives.

    Attributes
    ----------
    rows
        Parts of the tidy table.
    layers
        Columns of the table of layers.
    samples
        What rankings resample.
    """

    rows: list[pd.DataFrame]
    layers: Mapping[str, Float64[np.ndarray, " n_layers"]] = field(default_factory=dict)
    samples: Mapping[str, Shaped[np.ndarray, "..."]] = field(default_factory=dict)


class Seeds:
    """Generators by purpose, the same for all networks."""

    def __init__(self, seed: int, area: str) -> None:
        self.key = [seed, *area.encode()]

    def __call__(self, purpose: int) -> np.random.Generator:
        return np.random.default_rng([*self.key, 256 + purpose])


def reason_row(analysis: str, protocol: str, metric: str, reason: str) -> pd.DataFrame:
    """Return the row of what cannot be scored, with the reason."""
    empty = dict.fromkeys(
        ("value", "ci_low", "ci_high", "ceiling", "null", "depth", "dimensionality"), np.nan
    )
    return pd.DataFrame(
        {
            "analysis": analysis, "protocol": protocol, "neuron": pd.NA, "statistic": "area",
            "layer": "", "metric": metric, **empty, "ci_over": "", "n_stimuli": 0, "n_neurons": 0,
            "reason": reason, "ceiling_reason": "",
        },
        index=[0],
    )  # fmt: skip


def mean_of_known(values: Float64[np.ndarray, "..."], axis: int) -> Float64[np.ndarray, "..."]:
    """Return the mean over what is known, NaN where nothing is."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=axis)
    count = known.sum(axis=axis)
    return np.asarray(total / np.where(count > 0, count, np.nan))
