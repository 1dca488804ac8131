"""Pruning: from a trained student to a compact model."""

from pocketcortex.compress.joint import prune_jointly
from pocketcortex.compress.prune import fraction_of_variance, prune
from pocketcortex.compress.statistics import (
    LayerStatistics,
    layer_statistics,
    readout_contributions,
)

__all__ = [
    "LayerStatistics",
    "fraction_of_variance",
    "layer_statistics",
    "prune",
    "prune_jointly",
    "readout_contributions",
]
