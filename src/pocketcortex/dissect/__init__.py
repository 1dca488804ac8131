"""What is inside models: their parts, how these differ between models, and what each does."""

from pocketcortex.dissect.ablation import AblatedTuning, ablate_score, ablate_tuning
from pocketcortex.dissect.alignment import (
    Alignment,
    AlignmentNull,
    ChannelStatistics,
    model_alignment,
)
from pocketcortex.dissect.circuit import STAGES, Circuit, CircuitFilter, find_circuit
from pocketcortex.dissect.consolidation import consolidation_table, filters_table
from pocketcortex.dissect.describe import describe_colour_kernel, describe_kernel
from pocketcortex.dissect.dots import DOT_RADII, dot_search
from pocketcortex.dissect.elimination import Elimination, eliminate, flattening, lost_selectivity
from pocketcortex.dissect.explain import Explanation, explain, probe_text
from pocketcortex.dissect.families import NONE, Preferences, merits, preferences
from pocketcortex.dissect.fields import ReceptiveFields, receptive_fields
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
from pocketcortex.dissect.probes import AXES, FAMILIES, LEAST_SIZE, Probes, colours_of, probes
from pocketcortex.dissect.shuffled import has_field, shuffled_weights
from pocketcortex.dissect.traces import LayerTrace, Trace, trace
from pocketcortex.dissect.tuning import Tuning, tune

__all__ = [
    "AXES",
    "DOT_RADII",
    "FAMILIES",
    "LEAST_SIZE",
    "NONE",
    "STAGES",
    "AblatedTuning",
    "Alignment",
    "AlignmentNull",
    "ChannelStatistics",
    "Circuit",
    "CircuitFilter",
    "Elimination",
    "Explanation",
    "KernelSimilarity",
    "LayerTrace",
    "Preferences",
    "Probes",
    "ReceptiveFields",
    "Trace",
    "Tuning",
    "ablate_score",
    "ablate_tuning",
    "alignment_table",
    "alignment_test",
    "colours_of",
    "consolidation_table",
    "describe_colour_kernel",
    "describe_kernel",
    "dot_search",
    "eliminate",
    "explain",
    "filters_table",
    "find_circuit",
    "flattening",
    "has_field",
    "kernel_similarity",
    "kernel_table",
    "kernel_test",
    "lost_selectivity",
    "merits",
    "model_alignment",
    "preferences",
    "probe_text",
    "probes",
    "readout_similarity",
    "receptive_fields",
    "shuffled_weights",
    "trace",
    "tune",
]
