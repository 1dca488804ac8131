"""Confidence intervals of noise-corrected r²: all resamples at once against one after the other."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from pocketcortex.metrics import bootstrap_noise_corrected_r2_ci

N_STIMULI, N_REPEATS, N_NEURONS = 600, 8, 219
N_RESAMPLES, N_PEER_RESAMPLES = 10_000, 200


def bench_bootstrap_intervals(folder: Path, seed: int) -> dict[str, Any]:
    """Time 10,000 resamples for 219 neurons, 600 images with 8 repeats (simulated counts).

    The difference is between the intervals' ends from the peer's number of resamples, the same
    draws in both.
    """
    rng = np.random.default_rng(seed)
    rates = rng.gamma(2.5, 1.0, size=(N_STIMULI, N_NEURONS))
    counts = rng.poisson(rates[:, None], size=(N_STIMULI, N_REPEATS, N_NEURONS))
    responses = counts.astype(np.float64)
    predictions = rates + rng.normal(size=rates.shape)
    _ours(responses, predictions, N_PEER_RESAMPLES, seed)
    started = time.perf_counter()
    _ours(responses, predictions, N_RESAMPLES, seed)
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    peer = _loop(responses, predictions, N_PEER_RESAMPLES, seed)
    peer_seconds = (time.perf_counter() - started) * N_RESAMPLES / N_PEER_RESAMPLES
    ours = _ours(responses, predictions, N_PEER_RESAMPLES, seed)
    return {
        "what": f"95 % intervals of noise-corrected r², {N_NEURONS} neurons, {N_STIMULI} images × "
        f"{N_REPEATS} repeats, {N_RESAMPLES:,} resamples",
        "ours": "`bootstrap_noise_corrected_r2_ci`",
        "peer": "the same estimator once a resample in NumPy, all neurons together (timed on "
        f"{N_PEER_RESAMPLES} resamples, scaled)",
        "seconds": seconds,
        "peer_seconds": peer_seconds,
        "ratio": peer_seconds / seconds,
        "difference": float(np.abs(ours - peer).max()),
    }


def _ours(
    responses: np.ndarray, predictions: np.ndarray, n_resamples: int, seed: int
) -> np.ndarray:
    """Return lower and upper ends, (2, n_neurons)."""
    rng = np.random.default_rng(seed)
    return np.stack(
        bootstrap_noise_corrected_r2_ci(responses, predictions, rng=rng, n_resamples=n_resamples)
    )


def _loop(
    responses: np.ndarray, predictions: np.ndarray, n_resamples: int, seed: int
) -> np.ndarray:
    """Return the same ends, one resample at a time from the resampled single repeats."""
    rng = np.random.default_rng(seed)
    m = len(responses)
    values = []
    for _ in range(n_resamples):
        drawn = rng.integers(m, size=m)
        copies = np.bincount(drawn, minlength=m)[drawn][:, None]  # of each drawn stimulus
        trials = responses[drawn]
        x = predictions[drawn] - predictions[drawn].mean(axis=0)
        y = trials.mean(axis=1) - trials.mean(axis=(0, 1))
        noise = trials.var(axis=1, ddof=1) / trials.shape[1]
        numerator = (x * y).sum(axis=0) ** 2 - (copies * x**2 * noise).sum(axis=0)
        explainable = (y**2).sum(axis=0) - ((1 - copies / m) * noise).sum(axis=0)
        values.append(numerator / ((x**2).sum(axis=0) * explainable))
    return np.quantile(values, [0.025, 0.975], axis=0)
