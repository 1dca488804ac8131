"""A network's layers against one area: every protocol and both analyses, with intervals."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from pocketcortex.benchmark._area_parts import REGRESSION, Seeds, reason_row
from pocketcortex.benchmark.area_regression import score_neurons
from pocketcortex.benchmark.area_settings import AreaSettings
from pocketcortex.benchmark.area_similarity import score_geometry
from pocketcortex.benchmark.regression import PEARSON
from pocketcortex.core import BrainArea, InputError
from pocketcortex.metrics import effective_dimensionality
from pocketcortex.zoo import NetworkKernels

COLUMNS = (
    "area", "model", "analysis", "protocol", "neuron", "statistic", "layer", "metric", "value",
    "ci_low", "ci_high", "ci_over", "ceiling", "null", "n_stimuli", "n_neurons", "depth",
    "dimensionality", "reason", "ceiling_reason",
)  # fmt: skip
"""Of the tidy table: one row a neuron (statistic "") or an area (a statistic over its neurons)."""


@dataclass(frozen=True, eq=False, repr=False)
class AreaScores:
    """Scores of one network on one area.

    Attributes
    ----------
    table
        Tidy scores, columns `COLUMNS`.
    layers
        One row a layer: layer, depth (0 first, 1 last), n_features, dimensionality (effective,
        over these images), r (honest, mean over neurons), r_published, chosen (share of neurons and
        choices), rsa (all images), rsa_chosen, reason.
    samples
        What rankings resample: ``r`` (n_resamples, n_neurons), ``contributions`` (n_stimuli,),
        ``rsa`` and ``rsr`` (n_resamples,); and ``predictions`` (n_stimuli, n_neurons) with
        ``folds``. Only what was asked for.
    """

    table: pd.DataFrame
    layers: pd.DataFrame
    samples: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"AreaScores({len(self.table)} scores, {len(self.layers)} layers)"


def score_area(
    kernels: NetworkKernels,
    area: BrainArea,
    *,
    model: str,
    seed: int,
    settings: AreaSettings | None = None,
) -> AreaScores:
    """Return how well a network's layers predict an area's neurons and match its geometry.

    Everything is scored by the published and by the honest protocol (:func:`regression_scores`,
    :func:`rsa_scores`, :func:`rsr_score`). Folds, halves, permutations and draws depend on seed and
    area alone, so that networks are compared on the same ones. Equal images stay in one fold.

    Parameters
    ----------
    kernels
        Of the area's images, in their order.
    area
        What was recorded.
    model
        The network's name.
    seed
        Of all that is random.
    settings
        As above.

    Raises
    ------
    InputError
        If the kernels are of other images, or no layer is usable.
    """
    how = AreaSettings() if settings is None else settings
    if kernels.n_stimuli != area.n_stimuli:
        raise InputError(
            f"the kernels are of {kernels.n_stimuli} images, area {area.id} has {area.n_stimuli}"
        )
    seeds = Seeds(seed, area.id)
    layers = _layer_table(kernels)
    found = []
    if "regression" in how.analyses and area.session is not None:
        found.append(score_neurons(kernels, area, how, seeds, layers))
    if "rsa" in how.analyses:
        found.append(score_geometry(kernels, area, how, seeds, layers))
    rows = [row for part in found for row in part.rows]
    rows = rows or [reason_row(REGRESSION, "honest", PEARSON, "no single neurons")]
    for part in found:
        layers = layers.assign(**part.layers)
    samples = {name: array for part in found for name, array in part.samples.items()}
    table = pd.concat(rows, ignore_index=True)
    table["area"], table["model"] = area.id, model
    table["neuron"] = table["neuron"].astype("Int64")
    return AreaScores(table[list(COLUMNS)], layers, samples)


def _layer_table(kernels: NetworkKernels) -> pd.DataFrame:
    n = len(kernels)
    sizes = [
        np.nan if name in kernels.reasons else effective_dimensionality(np.asarray(kernel))
        for name, kernel in zip(kernels.layers, kernels.centred, strict=True)
    ]
    return pd.DataFrame(
        {
            "layer": kernels.layers, "depth": np.arange(n) / max(n - 1, 1),
            "n_features": kernels.n_features, "dimensionality": sizes,
            "reason": [kernels.reasons.get(name, "") for name in kernels.layers],
        }
    )  # fmt: skip
