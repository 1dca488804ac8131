"""Ridge from many features, one alpha for each neuron by held-out error: three solvers, one run."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from himalaya.backend import set_backend
from himalaya.kernel_ridge import KernelRidgeCV
from sklearn.linear_model import RidgeCV

from pocketcortex.core import StimulusSet
from pocketcortex.mapping import RidgeLOO
from pocketcortex.zoo import Backbone, FeatureStore, load_network

N_IMAGES, N_NEURONS, N_ALPHAS, N_WEIGHTS = 1000, 500, 10, 50
NETWORK, LAYER, SIZE = "resnet50v2", "stage3.3", 112


def bench_leave_one_out(folder: Path, seed: int) -> dict[str, Any]:
    """Time fitting 500 neurons to features of 1,000 photographs and predicting 1,000 others, twice.

    Responses are simulated: 50 planted weights a neuron on z-scored features, and noise as large as
    the signal. The other images are the photographs mirrored. Everyone is given float32 features;
    scikit-learn makes them float64 itself. Ours leaves out one image at a time, as scikit-learn
    does; himalaya chooses by 5 folds.
    """
    X, X_new = _features(folder)
    Y = _responses(X, seed)
    spread = float(np.square(X - X.mean(axis=0)).sum(dtype=np.float64)) / len(X)
    alphas = spread * np.logspace(-3, 3, N_ALPHAS)
    set_backend("torch")
    peer = KernelRidgeCV(alphas=alphas, kernel="linear", cv=5, fit_intercept=True)
    as_tensors = [torch.from_numpy(a) for a in (X, Y, X_new)]
    small = [a[:100] for a in as_tensors]
    RidgeLOO(alphas).fit(X[:100], Y[:100])  # first calls load libraries
    KernelRidgeCV(alphas=alphas, kernel="linear", cv=5).fit(*small[:2])
    seconds, ours = _timed(lambda: RidgeLOO(alphas).fit(X, Y), X_new)
    himalaya_seconds, himalaya = _timed(lambda: peer.fit(*as_tensors[:2]), as_tensors[2])
    sklearn = RidgeCV(alphas, alpha_per_target=True)
    sklearn_seconds, expected = _timed(lambda: sklearn.fit(X, Y), X_new)
    wide = RidgeLOO(alphas).fit(X.astype(np.float64), Y)
    exact = wide.predict(X_new.astype(np.float64))
    sd = exact.std(axis=0)
    return {
        "what": f"ridge, {N_NEURONS} neurons, {N_IMAGES:,} images × {X.shape[1]:,} features "
        f"(float32), {N_ALPHAS} alphas, one a neuron by leave-one-out; fit and predict "
        f"{len(X_new):,} images",
        "ours": "`RidgeLOO`",
        "peer": "scikit-learn `RidgeCV(alpha_per_target=True)`; himalaya `KernelRidgeCV` (torch, "
        f"5 folds, float32): {himalaya_seconds:.2f} s, {himalaya_seconds / seconds:.1f}×; "
        "scikit-learn",
        "seconds": seconds,
        "peer_seconds": sklearn_seconds,
        "ratio": sklearn_seconds / seconds,
        "himalaya_seconds": himalaya_seconds,
        "himalaya_ratio": himalaya_seconds / seconds,
        "dtypes": {
            "features": str(X.dtype),
            "ours": "products float32, sums and eigenvectors float64",
            "scikit-learn": "float64 inside",
            "himalaya": str(himalaya.dtype),
        },
        "difference": float((np.abs(ours - exact) / sd).max()),
        "difference_is": "largest |prediction - that of our own float64 solution| / its sd",
        "difference_from_sklearn": float((np.abs(ours - expected) / sd).max()),
        "difference_of_himalaya": float((np.abs(himalaya.numpy() - exact) / sd).max()),
        "share_of_alphas_as_sklearn": float(np.mean(wide.alpha_ == sklearn.alpha_)),
    }


def _features(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 features of the photographs and of their mirror images."""
    photos = StimulusSet.from_zip(folder / "banks" / "photos" / "photos.zip", size=SIZE)
    images = photos.take(slice(0, N_IMAGES)).images()
    network = load_network(f"{folder}/weights/backbones.py:{NETWORK}")
    backbone = Backbone(network, LAYER, input_size=SIZE)
    out = []
    with tempfile.TemporaryDirectory() as store:
        for shown in (images, images[..., ::-1].copy()):
            features = FeatureStore(store).features(backbone, StimulusSet.from_array(shown))
            out.append(np.asarray(features, dtype=np.float32).reshape(len(shown), -1))
    return out[0], out[1]


def _responses(X: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    active = np.flatnonzero(X.std(axis=0) > 0)
    Y = np.empty((len(X), N_NEURONS), dtype=np.float32)
    for neuron in range(N_NEURONS):
        part = X[:, rng.choice(active, N_WEIGHTS, replace=False)].astype(np.float64)
        signal = (part - part.mean(axis=0)) / part.std(axis=0) @ rng.standard_normal(N_WEIGHTS)
        Y[:, neuron] = signal / signal.std() + rng.standard_normal(len(X))
    return Y


def _timed(fit: Callable[[], Any], X_new: Any) -> tuple[float, Any]:
    """Return the shorter of two times, and the predictions."""
    times = []
    for _ in range(2):
        started = time.perf_counter()
        predictions = fit().predict(X_new)
        times.append(time.perf_counter() - started)
    return min(times), predictions
