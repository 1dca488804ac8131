"""Scores of predictions against recordings: arrays in, one float64 per neuron out."""

from pocketcortex.metrics.bootstrap import (
    bootstrap_ci,
    bootstrap_median_ci,
    bootstrap_noise_corrected_r2_ci,
)
from pocketcortex.metrics.r2 import brainscore_r2, noise_corrected_r2, pearson_r2
from pocketcortex.metrics.reliability import signal_to_noise, split_half_reliability

__all__ = [
    "bootstrap_ci",
    "bootstrap_median_ci",
    "bootstrap_noise_corrected_r2_ci",
    "brainscore_r2",
    "noise_corrected_r2",
    "pearson_r2",
    "signal_to_noise",
    "split_half_reliability",
]
