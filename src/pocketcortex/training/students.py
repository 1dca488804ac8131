"""Students of single neurons: trained together, stacked, with the numbers of training alone."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pocketcortex.core import InputError, StimulusSet
from pocketcortex.metrics import pearson_r2
from pocketcortex.models import CompactLayers, CompactModel, CompactStack
from pocketcortex.training.checkpoint import load_optimizer, optimizer_tensors
from pocketcortex.training.distill import (
    N_TRUNK,
    adam,
    copy_layers,
    descend,
    refresh_batch_norm,
    smooth_,
    statistics_sample,
    with_prefix,
    z_scored,
)
from pocketcortex.training.optimize import (
    Distillation,
    Monitor,
    moments,
    optimize,
    raw_batches,
)
from pocketcortex.training.schedule import seeded

_GROUP_FILTERS = 48
"""First-layer filters of its own trained together on a CPU, so that their maps stay in cache."""
_GROUP_ON_TRUNK = 8
"""Models on one trunk trained together on a CPU."""
_MONITOR_BATCH = 16


@dataclass(frozen=True)
class Distilled:
    """Students, and how they came along.

    Attributes
    ----------
    models
        One a neuron, in evaluation mode.
    monitor_r2
        Squared correlation with the teacher on the monitored images after each epoch, NaN for an
        epoch after a student's stop; no rows without monitored images.
    """

    models: list[CompactModel]
    monitor_r2: Float[np.ndarray, "n_epochs n_neurons"]


def new_students(
    n: int, filters: Sequence[int], image_size: tuple[int, int], *, seed: int
) -> list[CompactModel]:
    """Return untrained students: Glorot-uniform weights, no biases (published: 100 filters each).

    Parameters
    ----------
    n
        How many; student k depends on the seed and k alone.
    filters
        Filters per layer.
    image_size
        Height and width in pixels.
    seed
        Seed of the weights.
    """

    def one() -> CompactModel:
        model = CompactModel(filters, image_size)
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.uniform_(model.readout, -1, 1)
        with torch.no_grad():
            model.readout.mul_((6 / (model.readout.numel() + 1)) ** 0.5)
        return model

    seeds = np.random.SeedSequence(seed).generate_state(n)
    return [seeded(int(s), one) for s in seeds]


def students_on_trunk(
    trunk: CompactLayers, n: int, late_filters: tuple[int, int], *, seed: int
) -> list[CompactModel]:
    """Return students whose first three layers are a trunk's and whose last two are new."""
    filters = (*trunk.filters[:N_TRUNK], *late_filters)
    students = new_students(n, filters, trunk.image_size, seed=seed)
    for student in students:
        copy_layers(trunk, student.layers, N_TRUNK)
    return students


def distill_students(
    models: Sequence[CompactModel],
    stimuli: StimulusSet,
    responses: Float[np.ndarray, "n_stimuli n_models"],
    distillation: Distillation,
    *,
    seed: int,
    n_shared: int = 0,
    keep_statistics: bool = False,
    monitor: Monitor | None = None,
    device: str | torch.device = "cpu",
    checkpoint: Path | None = None,
    advance: Callable[[int], None] = lambda n: None,
) -> Distilled:
    """Return students fitted to the teacher's responses, each as it would be fitted alone.

    Images are decoded and centred once for all students; on a CPU they step in groups whose maps
    stay in its cache, on a GPU as one network. Each has its own loss (squared error over the
    variance of its targets), its own optimiser's state and, with `patience`, its own end; a
    student that stopped costs nothing more.

    Parameters
    ----------
    models
        One a neuron: `new_students`, `students_on_trunk`, or pruned ones to train further.
    stimuli
        Any images; decoded as they are needed.
    responses
        The teacher's responses, one column a model; may be memory-mapped.
    distillation
        Optimisation.
    seed
        Seed of the order of images.
    n_shared
        First layers that all models share and that stay as they are: run once an image. 0 trains
        all layers of each.
    keep_statistics
        Whether batch-norm statistics stay (pruned models), or are of the batch while training and
        taken anew over 1,024 images at the end (new ones).
    monitor
        Images to follow the agreement with the teacher by; needed for `patience`.
    device
        Where to train.
    checkpoint
        File to go on from and to write, None for neither.
    advance
        Told after each step how many images were used, times the students that used them.

    Raises
    ------
    InputError
        If images, responses and models disagree in number, a response is constant or not finite,
        `patience` comes without images to monitor, or the shared layers differ.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Methods, "Distillation".
    """
    mean, sd = moments(stimuli, responses)
    if len(models) != responses.shape[1]:
        raise InputError(f"{len(models)} models for {responses.shape[1]} columns of responses")
    if distillation.patience is not None and monitor is None:
        raise InputError("patience needs images to monitor; give a monitor or set patience to None")
    if monitor is not None and monitor.responses.shape[1] != len(models):
        raise InputError(
            f"{len(models)} models, but monitored responses of {monitor.responses.shape[1]}"
        )
    scaled = [_rescaled(m, -a / s, 1 / s) for m, a, s in zip(models, mean, sd, strict=True)]
    learner = _Students(
        scaled, responses, mean, sd, distillation,
        n_shared, keep_statistics, monitor, statistics_sample(stimuli, seed), device,
    )  # fmt: skip
    optimize(
        learner, stimuli, distillation,
        seed=seed, device=device, checkpoint=checkpoint, advance=advance,
    )  # fmt: skip
    found = learner.result()
    found = [_rescaled(m, a, s) for m, a, s in zip(found, mean, sd, strict=True)]
    return Distilled([model.eval() for model in found], learner.history)


def retrain(
    models: Sequence[CompactModel],
    stimuli: StimulusSet,
    responses: Float[np.ndarray, "n_stimuli n_models"],
    distillation: Distillation,
    *,
    seed: int,
    n_shared: int = 0,
    monitor: Monitor | None = None,
    device: str | torch.device = "cpu",
    checkpoint: Path | None = None,
    advance: Callable[[int], None] = lambda n: None,
) -> Distilled:
    """Return pruned models trained further, batch-norm statistics as they are.

    Parameters and errors as for `distill_students`.
    """
    return distill_students(
        models, stimuli, responses, distillation,
        seed=seed, n_shared=n_shared, keep_statistics=True, monitor=monitor, device=device,
        checkpoint=checkpoint, advance=advance,
    )  # fmt: skip


def student_groups(
    models: Sequence[CompactModel], n_shared: int = 0
) -> list[Int[np.ndarray, " _"]]:
    """Return the positions of the models that step together on a CPU, group after group.

    What a student becomes depends on its group alone: `distill_students` gives the models of one
    group the same weights, bit for bit, with the other groups or without them.

    Parameters
    ----------
    models
        As for `distill_students`.
    n_shared
        First layers that all models share.
    """
    n = len(models)
    if n_shared:
        return np.array_split(np.arange(n), -(-n // _GROUP_ON_TRUNK))
    tiles: list[list[int]] = []
    room = 0
    for column, model in enumerate(models):
        if not tiles or model.filters[0] > room:
            tiles.append([])
            room = _GROUP_FILTERS
        tiles[-1].append(column)
        room -= model.filters[0]
    return [np.array(tile) for tile in tiles]


@dataclass
class _Group:
    """Students that step together; `columns` are theirs in the targets."""

    columns: np.ndarray
    stack: CompactStack
    optimizer: torch.optim.Adam


class _Students:
    """Trains students; see `optimize.Learner`."""

    def __init__(
        self,
        models: Sequence[CompactModel],
        responses: np.ndarray,
        mean: np.ndarray,
        sd: np.ndarray,
        distillation: Distillation,
        n_shared: int,
        keep_statistics: bool,
        monitor: Monitor | None,
        sample: StimulusSet,
        device: str | torch.device,
    ) -> None:
        self._responses, self._mean, self._sd = responses, mean, sd
        self._distillation, self._n_shared = distillation, n_shared
        self._keep_statistics, self._monitor, self._sample = keep_statistics, monitor, sample
        self._device = torch.device(device)
        self._models = list(models)
        self._groups = [self._group(c, [models[k] for k in c]) for c in self._tiles()]
        self._finished: dict[int, dict[str, Tensor]] = {}
        self._best: dict[int, dict[str, Tensor]] = {}
        self._best_r2 = np.full(len(models), -np.inf)
        self._waited = np.zeros(len(models), dtype=np.int64)
        self.history: np.ndarray = np.empty((0, len(models)))

    @property
    def n_active(self) -> int:
        return sum(len(group.columns) for group in self._groups)

    def step(self, images: Tensor, index: np.ndarray, rate: float) -> None:
        targets = z_scored(self._responses, index, self._mean, self._sd).to(images.device)
        with torch.no_grad():
            x = self._groups[0].stack.trunk(images)
        for group in self._groups:
            error = group.stack.read_out(x) - targets[:, group.columns]
            descend(group.optimizer, error.square().mean(0).sum(), rate)

    def end_epoch(self, *, last: bool) -> None:
        if self._monitor is not None:
            self._watch(self._monitor)
        if not last and self._groups:
            for group in self._groups:
                for kernels in list(group.stack.kernels)[max(1, self._n_shared) :]:
                    smooth_(kernels, self._distillation.smoothing)
                smooth_(group.stack.readout, self._distillation.smoothing)

    def result(self) -> list[CompactModel]:
        """Return every student: of its best epoch with patience, of the last step without."""
        states = self._best | self._finished
        for group in self._groups:
            if any(int(column) not in states for column in group.columns):
                self._evaluating(group)
                for column, model in zip(group.columns, group.stack.models(), strict=True):
                    states.setdefault(int(column), model.state_dict())
        for column, model in enumerate(self._models):
            model.load_state_dict(states[column])
        return self._models

    def tensors(self) -> dict[str, Tensor]:
        tensors = {
            "best_r2": torch.from_numpy(self._best_r2),
            "waited": torch.from_numpy(self._waited),
            "history": torch.from_numpy(self.history),
            "n_groups": torch.tensor(len(self._groups)),
        }
        for number, group in enumerate(self._groups):
            prefix = f"group.{number}."
            tensors[prefix + "columns"] = torch.from_numpy(group.columns)
            parts = {f"stack.{n}": t for n, t in group.stack.state_dict().items()}
            parts |= optimizer_tensors(group.optimizer)
            tensors |= {prefix + name: tensor for name, tensor in parts.items()}
        for kind, states in (("best", self._best), ("finished", self._finished)):
            for column, state in states.items():
                tensors |= {f"{kind}.{column}.{name}": t for name, t in state.items()}
        return tensors

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self._best_r2, self._waited = tensors["best_r2"].numpy(), tensors["waited"].numpy()
        self.history = tensors["history"].numpy()
        self._groups = []
        for number in range(int(tensors["n_groups"])):
            saved = with_prefix(tensors, f"group.{number}.")
            columns = saved["columns"].numpy()
            group = self._group(columns, [self._models[k] for k in columns])
            group.stack.load_state_dict(with_prefix(saved, "stack."))
            load_optimizer(group.optimizer, saved)
            self._groups.append(group)
        for kind, states in (("best", self._best), ("finished", self._finished)):
            saved = with_prefix(tensors, f"{kind}.")
            for column in {int(name.split(".")[0]) for name in saved}:
                states[column] = with_prefix(saved, f"{column}.")

    def _tiles(self) -> list[np.ndarray]:
        """Return the columns of each group."""
        if self._device.type != "cpu":
            return [np.arange(len(self._models))]
        return student_groups(self._models, self._n_shared)

    def _group(self, columns: np.ndarray, models: Sequence[CompactModel]) -> _Group:
        """Stack models and give them an optimiser without memory."""
        stack = CompactStack(models, self._n_shared).to(self._device)
        for parameter in stack.trunk_parameters():
            parameter.requires_grad_(False)
        self._training(stack)
        readout = [stack.readout, stack.readout_bias]
        layers = [p for p in _trained(stack) if all(p is not r for r in readout)]
        return _Group(columns, stack, adam(layers, readout, self._distillation))

    def _training(self, stack: CompactStack) -> None:
        stack.train()
        for number, norm in enumerate(stack.norms):
            if self._keep_statistics or number < self._n_shared:
                norm.eval()

    def _evaluating(self, group: _Group) -> None:
        """Give a group's batch norms statistics of its present weights."""
        if self._keep_statistics:
            group.stack.eval()
        else:
            refresh_batch_norm(group.stack, self._sample)

    def _watch(self, monitor: Monitor) -> None:
        """Score every active student on the monitored images; stop those that no longer gain."""
        r2 = np.full(len(self._models), np.nan)
        for group in self._groups:
            self._evaluating(group)
            with torch.inference_mode():
                batches = raw_batches(monitor.stimuli, _MONITOR_BATCH)
                parts = [group.stack(torch.from_numpy(b).to(self._device)) for b in batches]
            predicted = torch.cat(parts).double().cpu().numpy()
            r2[group.columns] = pearson_r2(monitor.responses[:, group.columns], predicted)
        self.history = np.concatenate([self.history, r2[None]])
        if self._distillation.patience is not None:
            gained = r2 > self._best_r2
            self._best_r2 = np.where(gained, r2, self._best_r2)
            self._waited = np.where(gained, 0, self._waited + 1)
            self._groups = [
                left for g in self._groups if (left := self._without_stopped(g, gained)) is not None
            ]
        for group in self._groups:
            self._training(group.stack)

    def _without_stopped(self, group: _Group, gained: np.ndarray) -> _Group | None:
        """Remember what gained, set aside what has waited long enough, restack the others."""
        models = list(group.stack.models())
        for column, model in zip(group.columns, models, strict=True):
            if gained[column]:
                self._best[int(column)] = _state(model)
        waited = self._waited[group.columns]
        going = np.flatnonzero(waited < (self._distillation.patience or 0))
        for k in np.flatnonzero(waited >= (self._distillation.patience or 0)):
            column = int(group.columns[k])
            self._finished[column] = self._best.pop(column, _state(models[k]))
        if len(going) == len(group.columns):
            return group
        if not len(going):
            return None
        smaller = self._group(group.columns[going], [models[k] for k in going])
        _copy_adam(group, smaller, going)
        return smaller


def _copy_adam(old: _Group, new: _Group, kept: np.ndarray) -> None:
    """Give a smaller group the moments that its students had: they are laid out like weights."""
    states = [old.optimizer.state[p] for p in _trained(old.stack)]
    if not any(states):
        return
    fresh = _trained(new.stack)
    for parameter in fresh:
        new.optimizer.state[parameter] = {"step": states[0]["step"].clone()}
    for name in ("exp_avg", "exp_avg_sq"):
        holder = deepcopy(old.stack)
        with torch.no_grad():
            for parameter, state in zip(_trained(holder), states, strict=True):
                parameter.copy_(state[name])
        models = list(holder.models())
        cut = CompactStack([models[k] for k in kept], old.stack.n_shared)
        frozen = {id(p) for p in cut.trunk_parameters()}
        values = [p.detach() for p in cut.parameters() if id(p) not in frozen]
        for parameter, value in zip(fresh, values, strict=True):
            new.optimizer.state[parameter][name] = value.clone()


def _trained(stack: CompactStack) -> list[nn.Parameter]:
    return [p for p in stack.parameters() if p.requires_grad]


def _state(model: CompactModel) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _rescaled(model: CompactModel, offset: float, scale: float) -> CompactModel:
    """Return a copy whose response is `scale` times the model's, plus `offset`."""
    copy = deepcopy(model).requires_grad_(True)
    with torch.no_grad():
        copy.readout.mul_(scale)
        copy.readout_bias.mul_(scale).add_(offset)
    return copy
