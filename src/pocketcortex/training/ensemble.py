"""Fit the teacher's members over many sessions, a fresh readout for each visit to a session."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pocketcortex.core import InputError
from pocketcortex.mapping import RidgeLOO
from pocketcortex.metrics import pearson_r2
from pocketcortex.models import EnsembleMember, EnsembleModel, EnsembleShape, FactorizedReadout
from pocketcortex.training.checkpoint import read_checkpoint, save_checkpoint

_PREDICT_BATCH = 64


@dataclass(frozen=True)
class SessionFeatures:
    """One session as the ensemble sees it.

    Attributes
    ----------
    id
        Name of the session.
    features
        Backbone features, ``(n_stimuli, channels, rows, columns)``, any float type.
    responses
        Repeat-averaged responses ``(n_stimuli, n_neurons)``, finite, none constant.
    """

    id: str
    features: Float[np.ndarray, "n_stimuli channels rows columns"]
    responses: Float[np.ndarray, "n_stimuli n_neurons"]

    def __post_init__(self) -> None:
        if len(self.features) != len(self.responses):
            raise InputError(
                f"session {self.id}: {len(self.features)} features for "
                f"{len(self.responses)} responses"
            )
        if not np.isfinite(self.responses).all() or (self.responses.std(axis=0) == 0).any():
            raise InputError(f"session {self.id}: drop constant and unrecorded neurons first")

    def z_scored(self) -> Float[np.ndarray, "n_stimuli n_neurons"]:
        """Return responses with mean 0 and population standard deviation 1 for each neuron."""
        r = self.responses
        return (r - r.mean(axis=0)) / r.std(axis=0)


@dataclass(frozen=True)
class EnsembleTraining:
    """How members are trained; the defaults are the published ones except where they say so.

    Attributes
    ----------
    n_epochs
        Rounds over all sessions; round e passes e times over each session's images.
    learning_rate, momentum, clip
        Stochastic gradient descent, gradients clipped element by element at `clip`.
    decay
        Factor on the learning rate after each round.
    batch_size
        Images a step.
    loss_neurons
        The squared error is summed over neurons and divided by this (published: 200 outputs).
    readout_scale
        Standard deviation of a fresh readout's weights (published: 0.001 of Glorot's, which needs
        longer visits to a session than a small run has).
    """

    n_epochs: int = 5
    learning_rate: float = 2.0
    momentum: float = 0.75
    clip: float = 0.5
    decay: float = 0.85
    batch_size: int = 64
    loss_neurons: int = 200
    readout_scale: float = 0.01


def fit_members(
    sessions: Sequence[SessionFeatures],
    validation: SessionFeatures,
    shape: EnsembleShape,
    *,
    n_members: int,
    training: EnsembleTraining,
    seed: int,
    device: str | torch.device = "cpu",
    checkpoint: Path | None = None,
    advance: Callable[[int], None] = lambda n: None,
) -> tuple[list[EnsembleMember], list[dict[str, float | str]]]:
    """Return trained members and the validation score after each visit to a session.

    Sessions are visited in a fresh random order each round; at each visit every member gets a
    new factorized readout for that session's neurons. After each visit the members' embeddings of
    the validation session are mapped to its neurons by ridge, scored out of sample, and the
    members are kept if the median r² is the best so far: early stopping at session granularity.
    All members see the same batches; they differ in their initial weights.

    Parameters
    ----------
    sessions
        Training sessions.
    validation
        A session whose neurons are in none of them.
    shape
        Architecture of a member.
    n_members
        How many.
    training
        Optimisation.
    seed
        Seed of weights and orders; the same seed gives the same members on a CPU.
    device
        Where to train.
    checkpoint
        File to go on from and to write after each round, None for neither.
    advance
        Told how many image passes are done, for a progress bar.

    Raises
    ------
    InputError
        If there is no session or member.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Methods, "Deep ensemble model".
    """
    if not sessions or n_members < 1:
        raise InputError(f"need sessions and members, got {len(sessions)} and {n_members}")
    members = []
    for k in range(n_members):
        torch_rng_state = torch.get_rng_state()
        torch.manual_seed(seed + k)
        members.append(EnsembleMember(shape).to(device))
        torch.set_rng_state(torch_rng_state)
    history: list[dict[str, float | str]] = []
    best_score, best = -np.inf, copy.deepcopy(members)
    first = 0
    if checkpoint is not None and (saved := read_checkpoint(checkpoint)) is not None:
        tensors, numbers = saved
        for name, group in (("now", members), ("best", best)):
            for k, member in enumerate(group):
                prefix = f"{name}.{k}."
                member.load_state_dict(
                    {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
                )
        first, best_score, history = numbers["round"], numbers["best_score"], numbers["history"]
    advance(first * (first + 1) // 2 * sum(len(s.features) for s in sessions))
    for epoch in range(first, training.n_epochs):
        rng = np.random.default_rng([seed, epoch])
        rate = training.learning_rate * training.decay**epoch
        for index in rng.permutation(len(sessions)):
            _visit(members, sessions[index], training, rate, epoch + 1, rng, advance)
            score = _validation_score(members, validation)
            history.append({"round": epoch, "session": sessions[index].id, "median_r2": score})
            if score > best_score:
                best_score, best = score, copy.deepcopy(members)
        if checkpoint is not None:
            tensors = {
                f"{name}.{k}.{key}": tensor
                for name, group in (("now", members), ("best", best))
                for k, member in enumerate(group)
                for key, tensor in member.state_dict().items()
            }
            numbers = {"round": epoch + 1, "best_score": best_score, "history": history}
            save_checkpoint(checkpoint, tensors, numbers)
    return [member.eval() for member in best], history


def map_ensemble(
    members: Sequence[EnsembleMember], session: SessionFeatures
) -> tuple[EnsembleModel, Float[np.ndarray, "n_stimuli n_neurons"]]:
    """Return the ensemble mapped to a session's neurons, and its leave-one-out predictions.

    Each member's embedding gets its own ridge map with intercept, one alpha for each neuron chosen
    by leave-one-out error on these responses; predictions are averaged over members. Targets are
    z-scored, so the ensemble answers in standard deviations of these responses.

    Parameters
    ----------
    members
        Trained members.
    session
        The images and responses to map to; nothing else of the session is seen.
    """
    targets = session.z_scored()
    weights, intercepts, held_out = [], [], np.zeros_like(targets)
    for member in members:
        embedding = embed([member], session.features)[0]
        ridge = RidgeLOO().fit(embedding, targets)
        weights.append(torch.from_numpy(np.ascontiguousarray(ridge.coef_.T, dtype=np.float32)))
        intercepts.append(torch.from_numpy(np.asarray(ridge.intercept_, dtype=np.float32)))
        held_out += ridge.loo_predictions_ / len(members)
    model = EnsembleModel(members, torch.stack(weights), torch.stack(intercepts))
    return model.to(next(members[0].parameters()).device).eval(), held_out


def embed(
    members: Sequence[EnsembleMember], features: Float[np.ndarray, "n channels rows columns"]
) -> list[Float[np.ndarray, "n n_features"]]:
    """Return each member's embedding of backbone features, flattened, float32."""
    device = next(members[0].parameters()).device
    parts: list[list[np.ndarray]] = [[] for _ in members]
    for member in members:
        member.eval()
    with torch.inference_mode():
        for start in range(0, len(features), _PREDICT_BATCH):
            x = _to_tensor(features[start : start + _PREDICT_BATCH], device)
            for member, part in zip(members, parts, strict=True):
                part.append(member(x).flatten(1).cpu().numpy())
    return [np.concatenate(part) for part in parts]


def predict_responses(
    model: EnsembleModel, features: Float[np.ndarray, "n channels rows columns"]
) -> Float[np.ndarray, "n n_neurons"]:
    """Return the ensemble's mean prediction for backbone features, in batches, float32."""
    device = model.weights.device
    with torch.inference_mode():
        batches = [
            model(_to_tensor(features[start : start + _PREDICT_BATCH], device)).cpu().numpy()
            for start in range(0, len(features), _PREDICT_BATCH)
        ]
    return np.concatenate(batches)


def _to_tensor(features: np.ndarray, device: str | torch.device) -> Tensor:
    x = torch.from_numpy(np.asarray(features, dtype=np.float32)).to(device)
    return x.contiguous(memory_format=torch.channels_last)


def _visit(
    members: Sequence[EnsembleMember],
    session: SessionFeatures,
    training: EnsembleTraining,
    learning_rate: float,
    n_passes: int,
    rng: np.random.Generator,
    advance: Callable[[int], None],
) -> None:
    """Train all members on one session with fresh readouts."""
    device = next(members[0].parameters()).device
    targets = torch.from_numpy(session.z_scored().astype(np.float32)).to(device)
    n, n_neurons = targets.shape
    rows, columns = ((side + 1) // 2 for side in session.features.shape[2:])
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    readouts = [
        FactorizedReadout(
            member.shape.width, rows, columns, n_neurons,
            scale=training.readout_scale, generator=generator,
        ).to(device)
        for member in members
    ]  # fmt: skip
    parameters = [p for module in (*members, *readouts) for p in module.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=learning_rate, momentum=training.momentum)
    for member in members:
        member.train()
    for _ in range(n_passes):
        order = rng.permutation(n)
        for start in range(0, n, training.batch_size):
            batch = np.sort(order[start : start + training.batch_size])
            if len(batch) < 2:  # batch norm has no variance of a single image
                continue
            x, y = _to_tensor(session.features[batch], device), targets[batch]
            optimizer.zero_grad()
            for member, readout in zip(members, readouts, strict=True):
                error = readout(member(x)) - y
                (error.square().sum(1).mean() / training.loss_neurons).backward()
            torch.nn.utils.clip_grad_value_(parameters, training.clip)
            optimizer.step()
            advance(len(batch))


def _validation_score(members: Sequence[EnsembleMember], session: SessionFeatures) -> float:
    """Return the median over neurons of r² between responses and out-of-sample predictions."""
    _, predictions = map_ensemble(members, session)
    return float(np.median(pearson_r2(session.responses, predictions)))
