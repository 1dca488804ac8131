"""Scores of predictions against recordings: arrays in, one float64 per neuron out."""

from pocketcortex.metrics.bootstrap import (
    bootstrap_ci,
    bootstrap_median_ci,
    bootstrap_noise_corrected_r2_ci,
)
from pocketcortex.metrics.causal import causal_effects
from pocketcortex.metrics.cka import CKAAccumulator, centre_gram, hsic, linear_cka
from pocketcortex.metrics.dimensionality import effective_dimensionality, participation_ratio
from pocketcortex.metrics.matching import match_neurons
from pocketcortex.metrics.pairs import (
    bootstrap_pair_mean_ci,
    matched_pairs_p,
    pair_mean,
    random_matchings,
)
from pocketcortex.metrics.population import population_effects
from pocketcortex.metrics.r2 import brainscore_r2, noise_corrected_r2, pearson_r2
from pocketcortex.metrics.reliability import signal_to_noise, split_half_reliability
from pocketcortex.metrics.roles import StimulusRoles
from pocketcortex.metrics.similarity import Groups, group_by_similarity, signal_correlation2

__all__ = [
    "CKAAccumulator",
    "Groups",
    "StimulusRoles",
    "bootstrap_ci",
    "bootstrap_median_ci",
    "bootstrap_noise_corrected_r2_ci",
    "bootstrap_pair_mean_ci",
    "brainscore_r2",
    "causal_effects",
    "centre_gram",
    "effective_dimensionality",
    "group_by_similarity",
    "hsic",
    "linear_cka",
    "match_neurons",
    "matched_pairs_p",
    "noise_corrected_r2",
    "pair_mean",
    "participation_ratio",
    "pearson_r2",
    "population_effects",
    "random_matchings",
    "signal_correlation2",
    "signal_to_noise",
    "split_half_reliability",
]
