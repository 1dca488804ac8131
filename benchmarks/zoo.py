"""A network of the zoo against the mouse benchmark: all layers from one pass, beside features kept.

The network has random weights, which changes no time; neurons are simulated.
"""

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler
from sklearn.random_projection import SparseRandomProjection
from threadpoolctl import threadpool_limits
from torch import Tensor

from pocketcortex.benchmark import compare_rdms, regression_scores, response_rdm, rsa_scores
from pocketcortex.benchmark.regression import N_PROJECTIONS, column_pearson
from pocketcortex.core import StimulusSet
from pocketcortex.zoo import Network, build_network, filter_bank, plan_stream, stream_kernels
from pocketcortex.zoo._taps import tapped

N_IMAGES, N_NEURONS, N_SITES, SIZE = 119, 6619, 21, 224
N_PEER_LAYERS = 12
N_WEIGHTS = 30
_PEER_BATCH = 32

_Result = TypeVar("_Result")


def bench_zoo_resnet50(
    folder: Path,
    seed: int,
    n_images: int = N_IMAGES,
    n_neurons: int = N_NEURONS,
    size: int = SIZE,
    n_peer_layers: int = N_PEER_LAYERS,
) -> dict[str, Any]:
    """Time the published regression and RSA of all layers of ResNet50, ours and the published way.

    Ours runs in a process of its own, whose peak memory is told. The published way keeps features
    and for each layer projects them (SparseRandomProjection, 4,096), z-scores, fits RidgeCV (alpha
    1, leave-one-out), and takes the matrix of correlations of all features. It is timed on some of
    the layers, spread evenly over the network, and scaled to all: projection by the square root of
    the number of features (as its number of weights), the matrix by that number, the rest by the
    number of layers; the pass through the network is timed whole, once, and all of its features are
    taken to fit into memory.
    """
    images = _images(folder, n_images, size)
    responses = _responses(images, n_neurons, seed)
    ours = _apart(_ours, images, responses, size, seed)
    chosen = np.linspace(0, len(ours["layers"]) - 1, n_peer_layers).round().astype(int)
    names = [ours["layers"][k] for k in chosen]
    peer = _apart(_peer, images, responses, size, seed, names)
    n_features = np.array(ours["n_features"], dtype=np.float64)
    shares = {
        "project": np.sqrt(n_features).sum() / np.sqrt(n_features[chosen]).sum(),
        "rdm": n_features.sum() / n_features[chosen].sum(),
        "ridge": len(n_features) / len(chosen),
        "compare": len(n_features) / len(chosen),
    }
    scaled = {part: peer["seconds"][part] * share for part, share in shares.items()}
    peer_seconds = peer["seconds"]["pass"] + sum(scaled.values())
    seconds = sum(ours["seconds"].values())
    apart = np.abs(ours["rdms"][chosen] - peer["rdms"])
    r_apart = {
        kind: np.abs(ours[f"r_{kind}"][chosen] - peer["r"])
        for kind in ("projected", "standardized")
    }
    return {
        "what": f"ResNet50 at {size} × {size}, {len(n_features)} layers ({ours['n_outputs']} "
        f"outputs of modules less equal ones), {n_features.sum() / 1e6:.1f} million features × "
        f"{n_images} images: ridge of {n_neurons:,} neurons (leave-one-out, alpha 1) and RSA of "
        f"{N_SITES} sites, every layer",
        "ours": f"`stream_kernels`, `regression_scores`, `rsa_scores` (peak memory of the process "
        f"{ours['peak_gib']:.2f} GiB)",
        "peer": f"published way: features kept ({n_features.sum() * n_images / 2**28:.1f} GiB), "
        "SparseRandomProjection to 4,096, z-scores, RidgeCV, correlations (timed on "
        f"{len(chosen)} layers, scaled)",
        "seconds": seconds,
        "peer_seconds": peer_seconds,
        "ratio": peer_seconds / seconds,
        "difference": float(np.nanmax(apart)),
        "difference_is": "largest |dissimilarity - that from kept features|, layers timed",
        "seconds_by_part": ours["seconds"],
        "peer_seconds_by_part": {"pass": peer["seconds"]["pass"]} | scaled,
        "peer_seconds_measured": peer["seconds"],
        "peer_layers": names,
        "peak_gib": ours["peak_gib"],
        "announced_gib": ours["announced_gib"],
        "peak_gib_before": ours["peak_gib_before"],
        "peer_peak_gib": peer["peak_gib"],
        "median_difference_of_r": {k: float(np.nanmedian(v)) for k, v in r_apart.items()},
        "mean_best_r": {
            kind: float(np.nanmax(ours[f"r_{kind}"][chosen], axis=0).mean())
            for kind in ("projected", "standardized")
        }
        | {"peer": float(np.nanmax(peer["r"], axis=0).mean())},
    }


def bench_rdm_comparison(
    folder: Path, seed: int, n_layers: int = 100, n_features: int = 10_000
) -> dict[str, Any]:
    """Time matrices of 100 layers and their whitened comparison with 21 sites beside rsatoolbox.

    Both on one core: several wait for each other in products of this size.
    """
    try:
        from rsatoolbox.data import Dataset
        from rsatoolbox.rdm import RDMs, calc_rdm, compare
    except ImportError as error:
        return {"skipped": f"rsatoolbox is not installed ({error}); pip install -e '.[bench]'"}
    rng = np.random.default_rng(seed)
    layers = [rng.gamma(1.0, size=(N_IMAGES, n_features)) for _ in range(n_layers)]
    sites = np.stack([response_rdm(rng.normal(size=(N_IMAGES, 300))) for _ in range(N_SITES)])

    def ours() -> tuple[np.ndarray, np.ndarray]:
        rdms = np.stack([response_rdm(layer) for layer in layers])
        return rdms, compare_rdms(rdms, sites, comparison="whitened")

    def theirs() -> tuple[np.ndarray, np.ndarray]:
        parts = [calc_rdm(Dataset(layer), method="correlation") for layer in layers]
        rdms = np.concatenate([part.dissimilarities for part in parts])
        return rdms, compare(RDMs(rdms), RDMs(sites), method="corr_cov")

    with threadpool_limits(1):
        response_rdm(layers[0])
        seconds, mine = _timed(ours)
        peer_seconds, peer = _timed(theirs)
    return {
        "what": f"correlation distances of {N_IMAGES} stimuli in {n_layers} layers of "
        f"{n_features:,} features, compared with {N_SITES} sites, whitened, on one core",
        "ours": "`response_rdm`, `compare_rdms`",
        "peer": "rsatoolbox `calc_rdm`, `compare` (`corr_cov`)",
        "seconds": seconds,
        "peer_seconds": peer_seconds,
        "ratio": peer_seconds / seconds,
        "difference": max(float(np.abs(a - b).max()) for a, b in zip(mine, peer, strict=True)),
        "difference_is": "largest |dissimilarity or comparison - that of the peer|",
    }


def _ours(images: np.ndarray, responses: np.ndarray, size: int, seed: int) -> dict[str, Any]:
    """Score all layers; times of the parts, peak memory, and what to compare."""
    network = _network(size)
    stimuli = StimulusSet.from_array(images)
    plan = plan_stream(network, stimuli)
    before = _peak_gib()
    seconds, kernels = {}, None
    seconds["kernels"], kernels = _timed(lambda: stream_kernels(network, stimuli))
    cube = responses[:, None]
    score = {"protocol": "published", "n_permutations": 0, "rng": np.random.default_rng(seed)}
    seconds["regression"], scores = _timed(lambda: regression_scores(kernels, cube, **score))
    seconds["rsa"], rdms = _timed(lambda: kernels.rdms())
    sites = dict(zip(map(str, range(N_SITES)), _site_rdms(responses), strict=True))
    more, _ = _timed(lambda: rsa_scores(rdms, sites, layers=kernels.layers, **score))
    seconds["rsa"] += more
    peak = _peak_gib()
    projected = regression_scores(kernels, cube, kind="projected", **score)
    return {
        "layers": kernels.layers, "n_features": kernels.n_features.tolist(),
        "n_outputs": len(kernels) + len(kernels.duplicates), "rdms": rdms,
        "r_standardized": scores.layer_r, "r_projected": projected.layer_r, "seconds": seconds,
        "peak_gib": peak, "peak_gib_before": before, "announced_gib": plan.needed_bytes / 2**30,
    }  # fmt: skip


def _peer(
    images: np.ndarray, responses: np.ndarray, size: int, seed: int, layers: list[str]
) -> dict[str, Any]:
    """Score some layers from features kept, as published."""
    network = _network(size)
    seconds = dict.fromkeys(("project", "ridge", "rdm", "compare"), 0.0)
    seconds["pass"], features = _timed(lambda: _features(network, images, layers))
    sites = _site_rdms(responses)
    upper = np.triu_indices(len(images), 1)
    r, rdms = [], []
    for k, name in enumerate(layers):
        X = features.pop(name)
        reduce = SparseRandomProjection(N_PROJECTIONS, random_state=seed + k)
        took, low = _timed(lambda X=X, reduce=reduce: reduce.fit_transform(X))
        seconds["project"] += took
        took, of_layer = _timed(lambda low=low: _left_out_r(low, responses))
        seconds["ridge"] += took
        r.append(of_layer)
        took, rdm = _timed(lambda X=X: 1 - np.corrcoef(X)[upper])
        seconds["rdm"] += took
        took, _ = _timed(lambda rdm=rdm: [np.corrcoef(rdm, site)[0, 1] for site in sites])
        seconds["compare"] += took
        rdms.append(rdm)
    return {"r": np.stack(r), "rdms": np.stack(rdms), "seconds": seconds, "peak_gib": _peak_gib()}


def _left_out_r(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    z = StandardScaler().fit_transform(X)
    ridge = RidgeCV([1.0], store_cv_results=True, scoring="explained_variance").fit(z, Y)
    return column_pearson(Y, np.asarray(ridge.cv_results_[:, :, 0], dtype=np.float64))


def _features(network: Network, images: np.ndarray, layers: list[str]) -> dict[str, np.ndarray]:
    """Return all features of some layers, from hooks that keep them."""
    kept: dict[str, list[np.ndarray]] = {name: [] for name in layers}

    def keep(name: str, output: Tensor) -> None:
        if name in kept:
            kept[name].append(output.reshape(len(output), -1).numpy().copy())

    for start in range(0, len(images), _PEER_BATCH):
        with torch.inference_mode(), tapped(network.network, keep):
            network(torch.from_numpy(images[start : start + _PEER_BATCH]))
    return {name: np.concatenate(parts) for name, parts in kept.items()}


def _network(size: int) -> Network:
    return build_network("torchvision:resnet50@random:0", protocol="published", input_size=size)


def _images(folder: Path, n: int, size: int) -> np.ndarray:
    photos = StimulusSet.from_zip(folder / "banks" / "photos" / "photos.zip", size=size)
    return photos.take(slice(0, n)).images()


def _responses(images: np.ndarray, n_neurons: int, seed: int) -> np.ndarray:
    """Return responses of neurons with weights on some units of a filter bank, half of it noise."""
    rng = np.random.default_rng(seed)
    with torch.inference_mode():
        X = filter_bank()(torch.from_numpy(images).float()).flatten(1).numpy()
    active = np.flatnonzero(X.std(axis=0) > 0)
    units = X[:, rng.choice(active, 2000, replace=False)].astype(np.float64)
    units = (units - units.mean(axis=0)) / units.std(axis=0)
    Y = np.empty((len(X), n_neurons))
    for neuron in range(n_neurons):
        part = units[:, rng.choice(units.shape[1], N_WEIGHTS, replace=False)]
        signal = part @ rng.standard_normal(N_WEIGHTS)
        Y[:, neuron] = signal / signal.std() + rng.standard_normal(len(X))
    return Y


def _site_rdms(responses: np.ndarray) -> list[np.ndarray]:
    return [response_rdm(part) for part in np.array_split(responses, N_SITES, axis=1)]


def _apart(work: Callable[..., _Result], *arguments: Any) -> _Result:
    """Return what a function gives in a process of its own, with as many threads as here."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        1, context, initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),)
    ) as pool:
        return pool.submit(work, *arguments).result()


def _peak_gib() -> float:
    """Return the most memory this process has held since it began its own program (Linux)."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 2**20


def _timed(work: Callable[[], _Result]) -> tuple[float, _Result]:
    started = time.perf_counter()
    out = work()
    return time.perf_counter() - started, out
