"""Distil a teacher: into one network for all neurons, or into one small network a neuron."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import scipy.ndimage
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pocketcortex.core import InputError, StimulusSet
from pocketcortex.models import CompactLayers, SharedCompactModel
from pocketcortex.training.checkpoint import load_optimizer, optimizer_tensors
from pocketcortex.training.optimize import ADAM_EPS, Distillation, moments, optimize, raw_batches
from pocketcortex.training.schedule import seeded

N_TRUNK = 3
"""Layers of a shared trunk: the first three, as in the published shared models."""
N_STATISTICS = 1024
"""Images over which batch-norm statistics are taken anew after training."""
_STATISTICS_BATCH = 32


def distill_shared(
    stimuli: StimulusSet,
    responses: Float[np.ndarray, "n_stimuli n_neurons"],
    filters: Sequence[int],
    distillation: Distillation,
    *,
    seed: int,
    start: CompactLayers | None = None,
    n_start: int = 5,
    n_frozen: int = 0,
    device: str | torch.device = "cpu",
    checkpoint: Path | None = None,
    advance: Callable[[int], None] = lambda n: None,
) -> SharedCompactModel:
    """Return one network for all neurons, fitted to the teacher's responses to images.

    All neurons train at once on the same layers, so a population costs what one student costs.
    `SharedCompactModel.compact_models` then gives each neuron its own copy to prune. The squared
    error of each neuron is divided by the variance of its targets; the answers come back in the
    targets' units. Batch-norm statistics are taken anew at the end over 1,024 of the images.

    Parameters
    ----------
    stimuli
        Any images; decoded as they are needed.
    responses
        The teacher's responses to them; may be memory-mapped.
    filters
        Filters per layer of the network.
    distillation
        Optimisation; `patience` is not used.
    seed
        Seed of weights and order; the same seed gives the same network on a CPU.
    start
        Layers to start from in place of random ones, of another shared network.
    n_start
        How many of them are copied, first layer first; their filters must agree.
    n_frozen
        First layers that stay as they start: 3 with no `start` gives fixed random filters.
    device
        Where to train.
    checkpoint
        File to go on from and to write, None for neither.
    advance
        Told after each step how many images were used, for a progress bar.

    Raises
    ------
    InputError
        If images and responses disagree in number, a response is constant or not finite, or
        `start` has other numbers of filters.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Methods, "Shared compact models", Fig. 3d-f.
    """
    mean, sd = moments(stimuli, responses)
    model = seeded(
        seed, lambda: SharedCompactModel(filters, responses.shape[1], stimuli.image_size)
    )
    if start is not None:
        copy_layers(start, model.layers, n_start)
    model.to(device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    sample = statistics_sample(stimuli, seed)
    if n_frozen > (0 if start is None else n_start):  # layers that nothing gave statistics to
        refresh_batch_norm(model.train(), sample)
    learner = _Shared(model, responses, mean, sd, distillation, n_frozen)
    optimize(
        learner, stimuli, distillation,
        seed=seed, device=device, checkpoint=checkpoint, advance=advance,
    )  # fmt: skip
    refresh_batch_norm(model, sample)
    with torch.no_grad():
        scale = torch.from_numpy(sd.astype(np.float32)).to(device)
        model.mixing.mul_(scale[:, None])
        model.bias.mul_(scale).add_(torch.from_numpy(mean.astype(np.float32)).to(device))
    return model.requires_grad_(True).eval()


class _Shared:
    """Trains a shared network; see `optimize.Learner`."""

    n_active = 1

    def __init__(
        self,
        model: SharedCompactModel,
        responses: np.ndarray,
        mean: np.ndarray,
        sd: np.ndarray,
        distillation: Distillation,
        n_frozen: int,
    ) -> None:
        self._model, self._responses, self._mean, self._sd = model, responses, mean, sd
        self._distillation = distillation
        model.train()
        for part in _parts(model.layers, n_frozen):
            part.requires_grad_(False).eval()
        readout = [model.mixing, model.spatial, model.bias]
        layers = [p for p in model.layers.parameters() if p.requires_grad]
        self._optimizer = adam(layers, readout, distillation)

    def step(self, images: Tensor, index: np.ndarray, rate: float) -> None:
        targets = z_scored(self._responses, index, self._mean, self._sd).to(images.device)
        loss = (self._model(images) - targets).square().mean(0).sum()
        if self._distillation.mixing_l1:
            loss = loss + self._distillation.mixing_l1 * self._model.mixing.abs().mean(1).sum()
        descend(self._optimizer, loss, rate)

    def end_epoch(self, *, last: bool) -> None:
        if last:
            return
        for layer in self._model.layers.depthwise:
            if layer.weight.requires_grad:
                smooth_(layer.weight, self._distillation.smoothing)
        smooth_(self._model.spatial, self._distillation.smoothing)

    def tensors(self) -> dict[str, Tensor]:
        state = {f"model.{name}": tensor for name, tensor in self._model.state_dict().items()}
        return state | optimizer_tensors(self._optimizer)

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self._model.load_state_dict(with_prefix(tensors, "model."))
        load_optimizer(self._optimizer, tensors)
        for parameter, state in self._optimizer.state.items():
            for name in ("exp_avg", "exp_avg_sq"):  # a fused step walks memory: same layout
                state[name] = torch.empty_like(parameter).copy_(state[name])


def copy_layers(source: CompactLayers, target: CompactLayers, n: int) -> None:
    """Copy the first n layers and the image mean.

    Raises
    ------
    InputError
        If the two have other numbers of filters there.
    """
    if source.filters[:n] != target.filters[:n]:
        raise InputError(
            f"the layers to start from have {list(source.filters[:n])} filters, the network "
            f"{list(target.filters[:n])}; give both the same"
        )
    target.image_mean.copy_(source.image_mean)
    for of, to in zip(_parts(source, n), _parts(target, n), strict=True):
        to.load_state_dict(of.state_dict())


def _parts(layers: CompactLayers, n: int) -> list[nn.Module]:
    """Return the modules of the first n layers."""
    parts: list[nn.Module] = []
    parts.extend([layers.conv][:n])
    for group in (layers.depthwise, layers.pointwise):
        parts.extend(group[: max(0, n - 1)])
    return parts + list(layers.norms)[:n]


def refresh_batch_norm(model: nn.Module, stimuli: StimulusSet) -> None:
    """Replace statistics of batch norms in training mode by their mean over batches; then `eval`.

    Norms in evaluation mode, those of a frozen trunk, keep theirs.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    momenta = [norm.momentum for norm in norms]
    device = next(model.parameters()).device
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    with torch.no_grad():
        for images in raw_batches(stimuli, _STATISTICS_BATCH):
            model(torch.from_numpy(images).to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


def smooth_(weights: Tensor, sigma: float) -> None:
    """Smooth the last two axes in place by a Gaussian of `sigma` pixels, edges mirrored."""
    if sigma > 0:
        values = weights.detach().cpu().numpy()
        axes = (weights.ndim - 2, weights.ndim - 1)
        smoothed = scipy.ndimage.gaussian_filter(values, sigma, axes=axes, mode="reflect")
        with torch.no_grad():
            weights.copy_(torch.from_numpy(smoothed))


def z_scored(responses: np.ndarray, index: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> Tensor:
    """Return some rows of the targets in units of their standard deviation, float32."""
    return torch.from_numpy(((responses[index] - mean) / sd).astype(np.float32))


def adam(
    layers: Sequence[nn.Parameter], readout: Sequence[nn.Parameter], distillation: Distillation
) -> torch.optim.Adam:
    """Return the optimiser, with a learning rate of its own for readouts."""
    groups = [
        {"params": list(layers), "factor": 1.0},
        {"params": list(readout), "factor": distillation.readout_rate},
    ]
    return torch.optim.Adam([g for g in groups if g["params"]], eps=ADAM_EPS, fused=True)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
    """Take one step down the loss."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names start with a prefix, without it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def statistics_sample(stimuli: StimulusSet, seed: int) -> StimulusSet:
    """Return the images over which statistics are taken, decoded once for all who take them."""
    order = np.random.default_rng([seed, 2**31]).permutation(len(stimuli))
    return StimulusSet.from_array(stimuli.take(np.sort(order[:N_STATISTICS])).images())
