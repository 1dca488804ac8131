"""Ridge from many features, one alpha for each neuron by leave-one-out error."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import RidgeCV

from pocketcortex.mapping import RidgeLOO

N_STIMULI, N_FEATURES, N_NEURONS = 600, 20_000, 33


def bench_leave_one_out(folder: Path, seed: int) -> dict[str, Any]:
    """Time choosing one of 17 alphas for each of 33 neurons, 600 images, 20,000 features."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N_STIMULI, N_FEATURES)).astype(np.float32)
    Y = X[:, :N_NEURONS] * 30 + rng.standard_normal((N_STIMULI, N_NEURONS))
    Y = Y.astype(np.float64)
    alphas = np.geomspace(1e2, 1e6, 17)
    RidgeLOO(alphas).fit(X, Y)
    started = time.perf_counter()
    ours = RidgeLOO(alphas).fit(X, Y)
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    peer = RidgeCV(alphas, alpha_per_target=True).fit(X.astype(np.float64), Y)
    peer_seconds = time.perf_counter() - started
    difference = np.abs(ours.predict(X[:50]) - peer.predict(X[:50].astype(np.float64))).max()
    return {
        "what": f"ridge, {N_NEURONS} neurons, {N_STIMULI} images × {N_FEATURES:,} features, 17 "
        "alphas, leave-one-out",
        "ours": "`RidgeLOO`",
        "peer": "scikit-learn `RidgeCV(alpha_per_target=True)`",
        "seconds": seconds,
        "peer_seconds": peer_seconds,
        "ratio": peer_seconds / seconds,
        "difference": float(difference),
    }
