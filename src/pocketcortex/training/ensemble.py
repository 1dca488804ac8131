"""Fit the teacher's members over many sessions, a fresh readout for each visit to a session."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pocketcortex.core import InputError, PocketcortexError
from pocketcortex.mapping import RidgeLOO
from pocketcortex.metrics import pearson_r2
from pocketcortex.models import EnsembleMember, EnsembleModel, EnsembleShape, FactorizedReadout
from pocketcortex.training.checkpoint import (
    load_optimizer,
    optimizer_tensors,
    read_checkpoint,
    save_checkpoint,
)
from pocketcortex.training.schedule import one_cycle, seeded

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
        constant = (self.responses == self.responses[:1]).all(axis=0)
        if not np.isfinite(self.responses).all() or constant.any():
            raise InputError(f"session {self.id}: drop constant and unrecorded neurons first")

    def z_scored(self) -> Float[np.ndarray, "n_stimuli n_neurons"]:
        """Return responses with mean 0 and population standard deviation 1 for each neuron."""
        r = self.responses
        return np.asarray((r - r.mean(axis=0)) / r.std(axis=0))


@dataclass(frozen=True)
class EnsembleTraining:
    """How members are trained.

    Attributes
    ----------
    n_epochs
        Passes over all sessions' images.
    learning_rate
        Peak of AdamW's learning rate: linear warm-up over a fifth of the steps, then a cosine to
        zero.
    weight_decay
        AdamW's decay.
    batch_size
        Images a step, all of one session.
    readout_scale
        Standard deviation of a fresh readout's weights.
    """

    n_epochs: int = 5
    learning_rate: float = 1e-2
    weight_decay: float = 0.1
    batch_size: int = 64
    readout_scale: float = 0.05


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
) -> tuple[list[EnsembleMember], list[float]]:
    """Return trained members and the validation score after each epoch.

    Each session has a fresh factorized readout for its neurons; batches of all sessions, each of
    one session, come in random order, and the mean squared error of z-scored responses is
    minimised. After each epoch the members' embeddings of the validation session are mapped to its
    neurons by ridge, scored out of sample, and the members are kept if the median r² is the best
    so far. All members see the same batches; they differ in their initial weights.

    The published schedule (sessions in turn, the readout thrown away after each visit, plain SGD
    at rate 2) needs far more sessions than a small run has: see LOG.md.

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
        File to go on from and to write after each epoch, None for neither.
    advance
        Told how many images were used, for a progress bar.

    Raises
    ------
    InputError
        If there is no session or member.

    References
    ----------
    Architecture and validation: Cowley et al., bioRxiv 2023.11.22.568315, Methods, "Deep ensemble
    model".
    """
    if not sessions or n_members < 1:
        raise InputError(f"need sessions and members, got {len(sessions)} and {n_members}")
    members, readouts = _fresh_networks(sessions, shape, n_members, training, seed, device)
    best = copy.deepcopy(members)
    trained = nn.ModuleList([*members, *readouts])
    optimizer = torch.optim.AdamW(trained.parameters(), weight_decay=training.weight_decay)
    n_batches = [math.ceil(len(s.features) / training.batch_size) for s in sessions]
    n_steps = training.n_epochs * sum(n_batches)
    targets = [torch.from_numpy(s.z_scored().astype(np.float32)).to(device) for s in sessions]
    history: list[float] = []
    if checkpoint is not None and (saved := read_checkpoint(checkpoint)) is not None:
        tensors, numbers = saved
        trained.load_state_dict(_with_prefix(tensors, "now."))
        nn.ModuleList(best).load_state_dict(_with_prefix(tensors, "best."))
        load_optimizer(optimizer, tensors)
        history = numbers["history"]
        advance(len(history) * sum(len(s.features) for s in sessions))
    for epoch in range(len(history), training.n_epochs):
        rng = np.random.default_rng([seed, epoch])
        batches = [
            (k, np.sort(part))
            for k, session in enumerate(sessions)
            for part in np.array_split(rng.permutation(len(session.features)), n_batches[k])
        ]
        trained.train()
        for step, index in enumerate(rng.permutation(len(batches)), epoch * len(batches)):
            k, batch = batches[index]
            for group in optimizer.param_groups:
                group["lr"] = one_cycle(training.learning_rate, step, n_steps, 0.2)
            x, y = _to_tensor(sessions[k].features[batch], device), targets[k][batch]
            optimizer.zero_grad()
            for member, group_of_readouts in zip(members, readouts, strict=True):
                (group_of_readouts[k](member(x)) - y).square().mean().backward()
            optimizer.step()
            advance(len(batch))
        history.append(_validation_score(members, validation))
        if not np.isfinite(history[-1]):
            raise PocketcortexError(
                f"training diverged in epoch {epoch + 1}: the validation score is {history[-1]}; "
                "lower the learning rate"
            )
        if history[-1] == max(history):
            best = copy.deepcopy(members)
        if checkpoint is not None:
            tensors = {f"now.{n}": t for n, t in trained.state_dict().items()}
            tensors |= {f"best.{n}": t for n, t in nn.ModuleList(best).state_dict().items()}
            numbers = {"history": history}
            save_checkpoint(checkpoint, tensors | optimizer_tensors(optimizer), numbers)
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
        weights.append(torch.from_numpy(np.asarray(ridge.coef_, dtype=np.float32)))
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


def _fresh_networks(
    sessions: Sequence[SessionFeatures],
    shape: EnsembleShape,
    n_members: int,
    training: EnsembleTraining,
    seed: int,
    device: str | torch.device,
) -> tuple[list[EnsembleMember], list[nn.ModuleList]]:
    """Return untrained members and, for each, one readout a session."""
    rows, columns = (math.ceil(n / shape.stride) for n in sessions[0].features.shape[2:])
    members, readouts = [], []
    for k in range(n_members):
        members.append(seeded(seed + k, lambda: EnsembleMember(shape)).to(device))
        generator = torch.Generator().manual_seed(seed + k)
        group = [
            FactorizedReadout(
                shape.width, rows, columns, session.responses.shape[1],
                scale=training.readout_scale, generator=generator,
            )
            for session in sessions
        ]  # fmt: skip
        readouts.append(nn.ModuleList(group).to(device))
    return members, readouts


def _validation_score(members: Sequence[EnsembleMember], session: SessionFeatures) -> float:
    """Return the median over neurons of r² between responses and out-of-sample predictions."""
    _, predictions = map_ensemble(members, session)
    return float(np.median(pearson_r2(session.responses, predictions)))


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
