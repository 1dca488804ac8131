"""Fit the teacher's members over many sessions, all members in one pass."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pocketcortex.core import InputError, PocketcortexError
from pocketcortex.mapping import FactorizedMapping, RidgeLOO
from pocketcortex.metrics import pearson_r2
from pocketcortex.models import (
    EnsembleMember,
    EnsembleModel,
    EnsembleShape,
    EnsembleStack,
    FactorizedReadout,
)
from pocketcortex.training.checkpoint import (
    load_optimizer,
    optimizer_tensors,
    read_checkpoint,
    save_checkpoint,
)
from pocketcortex.training.schedule import EnsembleTraining, one_cycle, seeded

_PREDICT_BATCH = 64
_SCALE_BATCH = 16
_SCALE_FLOOR = 1e-3
"""Added to the channels' standard deviations, for channels that are always the same."""

_WARM_UP = 0.2
"""Part of the joint schedule's steps in which the learning rate rises."""

_MOMENTUM, _CLIP, _DECAY, _OUTPUTS = 0.75, 0.5, 0.85, 200
"""Of the published schedule: SGD's momentum, the clip of each gradient, the learning rate's factor
after an epoch, and the outputs that a session's squared errors are averaged over."""


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


def fit_members(
    sessions: Sequence[SessionFeatures],
    validation: SessionFeatures,
    shape: EnsembleShape,
    *,
    n_members: int,
    training: EnsembleTraining,
    seed: int,
    first_member: int = 0,
    device: str | torch.device = "cpu",
    checkpoint: Path | None = None,
    advance: Callable[[int], None] = lambda n: None,
) -> tuple[list[EnsembleMember], list[float]]:
    """Return trained members and the validation scores.

    The squared error of z-scored responses is minimised by the schedule of `training`, with a
    factorized readout of their own for each session's neurons. After each epoch (``"published"``:
    after each visit to a session) the members' embeddings of the validation session are mapped to
    its neurons by ridge and scored out of sample; the score is the median r², and the members with
    the best so far are kept. All members see the same batches; they differ in their initial
    weights.

    Members are trained as one `EnsembleStack`: features are read once a batch, and the loss is the
    sum of the members' losses. (8 members on one core, an epoch of 1,200 images of 1,024 x 7 x 7
    features: 1.3 times as fast as 8 calls for one member with the reduction alone, 1.1 times with
    two blocks.) On a CUDA device products run in bfloat16; batch-norm statistics
    and the loss stay in float32.

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
    first_member
        Number of the first member: 8 members are the same, but for rounding and which epoch is
        best, as 4 and, with ``first_member=4``, 4 more.
    device
        Where to train.
    checkpoint
        File to go on from and to write after each epoch, None for neither.
    advance
        Told how many images were used, for a progress bar.

    Raises
    ------
    InputError
        If there is no session or member, or features differ in size between sessions or in
        channels from `shape`.
    PocketcortexError
        If training diverges.

    References
    ----------
    Architecture, validation and the published schedule: Cowley et al., bioRxiv
    2023.11.22.568315, Methods, "Deep ensemble model".
    """
    if not sessions or n_members < 1:
        raise InputError(f"need sessions and members, got {len(sessions)} and {n_members}")
    _refuse_mixed_features((*sessions, validation), shape)
    numbers = range(first_member, first_member + n_members)
    loop = _Loop(sessions, shape, numbers, training, seed, device)
    if checkpoint is None or not loop.resume(checkpoint):
        loop.stack.get_buffer("feature_scale").copy_(_feature_scale(sessions))
    n_images = sum(len(session.features) for session in sessions)
    advance(n_images * sum(map(training.n_passes, range(loop.epoch))))
    while loop.epoch < training.n_epochs:
        for visit in loop.start_epoch():
            loop.train(visit, advance)
            loop.keep_if_best(_validation_score(loop.stack.members(), validation))
        loop.epoch += 1
        if checkpoint is not None:
            loop.save(checkpoint)
    return loop.best.eval().members(), loop.history


_Batch = tuple[int, np.ndarray]
"""A session's index, and the images of a step."""


class _Loop:
    """The state of a training run, between and within epochs."""

    def __init__(
        self,
        sessions: Sequence[SessionFeatures],
        shape: EnsembleShape,
        numbers: range,
        training: EnsembleTraining,
        seed: int,
        device: str | torch.device,
    ) -> None:
        self.sessions, self.training, self.device = sessions, training, device
        self.seed, self.numbers = seed, numbers
        self.rate, self.batch_size, self.readout_scale = training.resolved()
        self.published = training.schedule == "published"
        self.stack = EnsembleStack(
            [seeded(seed + k, lambda: EnsembleMember(shape)) for k in numbers]
        )
        rows, columns = shape.grid(*sessions[0].features.shape[2:])
        self.readouts = [
            FactorizedReadout(
                shape.width, rows, columns, session.responses.shape[1],
                scale=self.readout_scale, generators=self._generators(k),
            )
            for k, session in enumerate(sessions)
        ]  # fmt: skip
        self.trained = nn.ModuleList([self.stack, *self.readouts]).to(device)
        self.best = copy.deepcopy(self.stack)
        self.optimizer = self._fresh_optimizer()
        self.targets = [
            torch.from_numpy(session.z_scored().astype(np.float32)).to(device)
            for session in sessions
        ]
        self.n_steps = training.n_epochs * sum(map(self._n_batches, range(len(sessions))))
        self.epoch = self.step = 0
        self.history: list[float] = []

    def start_epoch(self) -> Iterator[list[_Batch]]:
        """Yield the epoch's batches in the parts that validation follows."""
        rng = np.random.default_rng([self.seed, self.epoch])
        if not self.published:
            together = [b for k in range(len(self.sessions)) for b in self._batches(k, rng)]
            yield [together[index] for index in rng.permutation(len(together))]
            return
        self.optimizer = self._fresh_optimizer()
        for k in map(int, rng.permutation(len(self.sessions))):
            self.readouts[k].reset(self.readout_scale, self._generators(k, self.epoch + 1))
            n_passes = self.training.n_passes(self.epoch)
            yield [b for _ in range(n_passes) for b in self._batches(k, rng)]

    def train(self, visit: list[_Batch], advance: Callable[[int], None]) -> None:
        """Take one step of all members for each batch."""
        self.stack.train()
        for k, batch in visit:
            for group in self.optimizer.param_groups:
                group["lr"] = self._rate_now()
            x = _to_tensor(self.sessions[k].features[batch], self.device)
            with _autocast(self.device):
                answers = self.readouts[k](self.stack(x))
            loss = (answers - self.targets[k][batch]).square().mean((1, 2)).sum()
            if self.published:
                loss = loss * (self.targets[k].shape[1] / _OUTPUTS)
            self.optimizer.zero_grad()
            loss.backward()
            if self.published:
                nn.utils.clip_grad_value_(self.trained.parameters(), _CLIP)
            self.optimizer.step()
            self.step += 1
            advance(len(batch))

    def keep_if_best(self, score: float) -> None:
        """Note a validation score, and the members if it is the best."""
        if not np.isfinite(score):
            raise PocketcortexError(
                f"training diverged in epoch {self.epoch + 1}: the validation score is {score}; "
                "lower the learning rate"
            )
        self.history.append(score)
        if score == max(self.history):
            self.best = copy.deepcopy(self.stack)

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        tensors = {f"now.{n}": t for n, t in self.trained.state_dict().items()}
        tensors |= {f"best.{n}": t for n, t in self.best.state_dict().items()}
        numbers = {"history": self.history, "epoch": self.epoch, "step": self.step}
        save_checkpoint(path, tensors | optimizer_tensors(self.optimizer), numbers)

    def resume(self, path: Path) -> bool:
        """Go on from a checkpoint, if there is one."""
        saved = read_checkpoint(path)
        if saved is None:
            return False
        tensors, numbers = saved
        self.trained.load_state_dict(_with_prefix(tensors, "now."))
        self.best.load_state_dict(_with_prefix(tensors, "best."))
        load_optimizer(self.optimizer, tensors)
        self.history = numbers["history"]
        self.epoch, self.step = numbers["epoch"], numbers["step"]
        return True

    def _fresh_optimizer(self) -> torch.optim.Optimizer:
        parameters = self.trained.parameters()
        if self.published:
            return torch.optim.SGD(parameters, self.rate, _MOMENTUM)
        decay = self.training.weight_decay
        return torch.optim.AdamW(parameters, self.rate, weight_decay=decay, fused=True)

    def _rate_now(self) -> float:
        if self.published:
            return self.rate * _DECAY**self.epoch
        return one_cycle(self.rate, self.step, self.n_steps, _WARM_UP)

    def _generators(self, *place: int) -> list[torch.Generator]:
        """Return a source of readout weights for each member, the same at the same place."""
        seeds = [np.random.SeedSequence([self.seed + k, *place]) for k in self.numbers]
        return [torch.Generator().manual_seed(int(s.generate_state(1)[0])) for s in seeds]

    def _n_batches(self, k: int) -> int:
        return -(-len(self.sessions[k].features) // self.batch_size)

    def _batches(self, k: int, rng: np.random.Generator) -> list[_Batch]:
        """Return a session's images in random order, in batches of nearly one size."""
        order = rng.permutation(len(self.sessions[k].features))
        return [(k, np.sort(part)) for part in np.array_split(order, self._n_batches(k))]


def map_ensemble(
    members: Sequence[EnsembleMember],
    session: SessionFeatures,
    *,
    mapping: Literal["factorized", "ridge"] = "factorized",
) -> tuple[EnsembleModel, Float[np.ndarray, "n_stimuli n_neurons"]]:
    """Return the ensemble mapped to a session's neurons, and its held-out predictions.

    Each member's embedding gets its own map with intercept; predictions are averaged over members.
    Whatever a map chooses (penalties) it chooses within these responses, and the held-out
    predictions are those it chose by: of inner folds, or with ridge of leaving one image out.
    Targets are z-scored, so the ensemble answers in standard deviations of these responses.

    Parameters
    ----------
    members
        Trained members.
    session
        The images and responses to map to; nothing else of the session is seen.
    mapping
        A `FactorizedMapping` of each member, which predicts better, or a `RidgeLOO`, which is
        faster.
    """
    targets = session.z_scored()
    device = next(members[0].parameters()).device
    weights, intercepts, held_out = [], [], np.zeros_like(targets)
    for member in members:
        maps = embed([member], session.features)[0]
        if mapping == "ridge":
            ridge = RidgeLOO(device=device.type).fit(maps.reshape(len(maps), -1), targets)
            weight, intercept = ridge.coef_, ridge.intercept_
            held_out += ridge.loo_predictions_ / len(members)
        else:
            factorized = FactorizedMapping(device=device.type).fit(maps, targets)
            outer = factorized.mixing_[:, :, None, None] * factorized.spatial_[:, None]
            weight, intercept = outer.reshape(len(outer), -1).T, factorized.intercept_
            held_out += factorized.held_out_predictions_ / len(members)
        weights.append(torch.from_numpy(np.asarray(weight, dtype=np.float32)))
        intercepts.append(torch.from_numpy(np.asarray(intercept, dtype=np.float32)))
    model = EnsembleModel(members, torch.stack(weights), torch.stack(intercepts))
    return model.to(device).eval(), held_out


def embed(
    members: Sequence[EnsembleMember], features: Float[np.ndarray, "n channels rows columns"]
) -> list[Float[np.ndarray, "n width rows2 columns2"]]:
    """Return each member's embedding of backbone features, float32."""
    device = next(members[0].parameters()).device
    parts: list[list[np.ndarray]] = [[] for _ in members]
    for member in members:
        member.eval()
    with torch.inference_mode():
        for start in range(0, len(features), _PREDICT_BATCH):
            x = _to_tensor(features[start : start + _PREDICT_BATCH], device)
            for member, part in zip(members, parts, strict=True):
                part.append(member(x).cpu().numpy())
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


def member_disagreement(
    model: EnsembleModel, features: Float[np.ndarray, "n channels rows columns"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n n_neurons"]]:
    """Return how much the members disagree on each image, and on each neuron's response to it.

    The first is the median over pairs of members of the Euclidean distance between their
    population response vectors, ``median_{k<l} |r_k - r_l|``: the predictive uncertainty that
    active learning chooses images by. It grows with the number of neurons. The second is the
    standard deviation over members (ddof 1). Both are in the unit of the model's answers.

    Parameters
    ----------
    model
        A mapped ensemble of two members or more.
    features
        Backbone features.

    Returns
    -------
    Distances ``(n,)`` and standard deviations ``(n, n_neurons)``, float32.

    Raises
    ------
    InputError
        If the ensemble has one member.

    References
    ----------
    Cowley & Pillow (2020), High-contrast "gaudy" images improve the training of deep neural
    network models of visual cortex, NeurIPS 33, and its public code.
    """
    n_members = len(model.members)
    if n_members < 2:
        raise InputError("disagreement needs two members or more, got 1")
    one, other = np.triu_indices(n_members, 1)
    distances, deviations = [], []
    with torch.inference_mode():
        for start in range(0, len(features), _PREDICT_BATCH):
            x = _to_tensor(features[start : start + _PREDICT_BATCH], model.weights.device)
            answers = model.predict_members(x).cpu().numpy()  # (members, n, neurons)
            apart = np.linalg.norm(answers[one] - answers[other], axis=2)
            distances.append(np.median(apart, axis=0))
            deviations.append(answers.std(axis=0, ddof=1))
    return np.concatenate(distances), np.concatenate(deviations)


def _to_tensor(features: np.ndarray, device: str | torch.device) -> Tensor:
    """Return float32 features, channels last; they travel and are turned in their own type."""
    x = torch.from_numpy(np.require(features, requirements=["W", "A"])).to(device)
    return x.to(memory_format=torch.channels_last).float()


def _autocast(device: str | torch.device) -> torch.autocast:
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda")


def _feature_scale(sessions: Sequence[SessionFeatures]) -> Float[Tensor, " channels"]:
    """Return each channel's standard deviation over images and positions, and a little more."""
    n, total, squares = 0, 0.0, 0.0
    for session in sessions:
        for start in range(0, len(session.features), _SCALE_BATCH):
            x = np.asarray(session.features[start : start + _SCALE_BATCH], dtype=np.float64)
            n += x[:, 0].size
            total = total + x.sum((0, 2, 3))
            squares = squares + np.square(x).sum((0, 2, 3))
    variance = np.maximum(squares / n - np.square(total / n), 0)
    return torch.from_numpy((np.sqrt(variance) + _SCALE_FLOOR).astype(np.float32))


def _refuse_mixed_features(sessions: Sequence[SessionFeatures], shape: EnsembleShape) -> None:
    sizes = {session.features.shape[1:] for session in sessions}
    if len(sizes) > 1 or next(iter(sizes))[0] != shape.in_channels:
        raise InputError(
            f"all sessions need features of one size with {shape.in_channels} channels, got "
            f"(channels, rows, columns) {sorted(sizes)}"
        )


def _validation_score(members: Sequence[EnsembleMember], session: SessionFeatures) -> float:
    """Return the median over neurons of r² between responses and out-of-sample predictions.

    NaN if a member's weights or statistics are not finite.
    """
    if not all(t.isfinite().all() for member in members for t in member.state_dict().values()):
        return float("nan")
    _, predictions = map_ensemble(members, session, mapping="ridge")
    return float(np.median(pearson_r2(session.responses, predictions)))


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
