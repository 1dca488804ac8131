"""Training of the ensemble's members: all in one pass against one after the other."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pocketcortex.data import read_v4
from pocketcortex.models import EnsembleMember, EnsembleShape
from pocketcortex.training import EnsembleTraining, SessionFeatures, fit_members
from pocketcortex.zoo import Backbone, FeatureStore, load_network

N_MEMBERS, N_VALIDATION = 8, 50
NETWORK, LAYER, SIZE = "resnet50v2", "stage3.3", 112
SHAPES = {
    "one 1x1 convolution of width 256": EnsembleShape(1024, 256, 128, n_blocks=0, stride=0),
    "width 256, bottleneck 128, 2 blocks": EnsembleShape(1024, 256, 128, n_blocks=2, stride=1),
}
TRAINING = EnsembleTraining(n_epochs=1)


def bench_stacked_members(folder: Path, seed: int) -> dict[str, Any]:
    """Time an epoch of 8 members on session 190925: one stack against 8 calls for one member.

    Both are the same code; the calls for one member read and convert the features each for itself.
    Validation, the same for both, is on 50 images. On the GPU if there is one. The shorter of two
    times each, taken in turn.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as store:
        session = _session(folder, Path(store), device)
        rows = {name: _compare(session, shape, seed, device) for name, shape in SHAPES.items()}
    (first, main), (second, other) = rows.items()
    return {
        "what": f"{N_MEMBERS} ensemble members, {first}, one epoch of {len(session.features):,} "
        f"images × {session.features.shape[1]:,} × 7 × 7 features, {device}",
        "ours": "`fit_members`, all in one pass",
        "peer": f"the same called for each member ({second}: {other['seconds']:.2f} s and "
        f"{other['peer_seconds']:.2f} s, {other['ratio']:.2f}×)",
        **main,
        "difference_is": "largest |weight - that of the member trained alone|",
        "with_blocks": {"shape": SHAPES[second].as_dict(), **other},
        "shape": SHAPES[first].as_dict(),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
    }


def _session(folder: Path, store: Path, device: str) -> SessionFeatures:
    session = read_v4(folder / "v4")["190925"]
    network = load_network(f"{folder}/weights/backbones.py:{NETWORK}")
    backbone = Backbone(network, LAYER, input_size=SIZE, device=device)
    features = FeatureStore(store).features(backbone, session.require_stimuli())
    return SessionFeatures(session.id, features, session.mean_responses)


def _compare(
    session: SessionFeatures, shape: EnsembleShape, seed: int, device: str
) -> dict[str, float]:
    validation = replace(
        session,
        features=session.features[:N_VALIDATION],
        responses=session.responses[:N_VALIDATION, :2],
    )

    def fit(n_members: int, first: int) -> list[EnsembleMember]:
        members, _ = fit_members(
            [session], validation, shape,
            n_members=n_members, first_member=first, training=TRAINING, seed=seed, device=device,
        )  # fmt: skip
        return members

    def together() -> list[EnsembleMember]:
        return fit(N_MEMBERS, 0)

    def one_by_one() -> list[EnsembleMember]:
        return [fit(1, k)[0] for k in range(N_MEMBERS)]

    fit(1, 0)  # first calls load libraries
    timed = [(_timed(together), _timed(one_by_one)) for _ in range(2)]
    seconds = min(ours[0] for ours, _ in timed)
    peer_seconds = min(peer[0] for _, peer in timed)
    pairs = zip(timed[0][0][1], timed[0][1][1], strict=True)
    return {
        "seconds": seconds,
        "peer_seconds": peer_seconds,
        "ratio": peer_seconds / seconds,
        "difference": max(
            float((parameter - other).detach().abs().max())
            for one, two in pairs
            for parameter, other in zip(one.parameters(), two.parameters(), strict=True)
        ),
    }


def _timed(fit: Callable[[], list[EnsembleMember]]) -> tuple[float, list[EnsembleMember]]:
    started = time.perf_counter()
    members = fit()
    return time.perf_counter() - started, members
