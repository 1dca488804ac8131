"""Pruning: from a trained student to a compact model."""

from pocketcortex.compress.prune import (
    LayerStatistics,
    fraction_of_variance,
    layer_statistics,
    prune,
    readout_contributions,
)

__all__ = [
    "LayerStatistics",
    "fraction_of_variance",
    "layer_statistics",
    "prune",
    "readout_contributions",
]
