"""What is inside models: their parts, how these differ between models, and what each does."""

from pocketcortex.dissect.alignment import (
    Alignment,
    AlignmentNull,
    ChannelStatistics,
    model_alignment,
)
from pocketcortex.dissect.consolidation import consolidation_table, filters_table
from pocketcortex.dissect.kernels import (
    KernelSimilarity,
    kernel_similarity,
    readout_similarity,
)
from pocketcortex.dissect.population import (
    alignment_table,
    alignment_test,
    kernel_table,
    kernel_test,
)

__all__ = [
    "Alignment",
    "AlignmentNull",
    "ChannelStatistics",
    "KernelSimilarity",
    "alignment_table",
    "alignment_test",
    "consolidation_table",
    "filters_table",
    "kernel_similarity",
    "kernel_table",
    "kernel_test",
    "model_alignment",
    "readout_similarity",
]
