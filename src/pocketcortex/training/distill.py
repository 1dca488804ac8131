"""Distil a teacher into one small network for all neurons, and retrain pruned models."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.ndimage
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from pocketcortex.core import InputError
from pocketcortex.models import CompactModel, CompactStack, SharedCompactModel
from pocketcortex.training.checkpoint import (
    load_optimizer,
    optimizer_tensors,
    read_checkpoint,
    save_checkpoint,
)
from pocketcortex.training.schedule import one_cycle

ADAM_EPS = 1e-7
_STATISTICS_BATCH = 32
_GROUP_FILTERS = 48
"""First-layer filters retrained together on a CPU, so that a batch's maps stay in its cache."""


@dataclass(frozen=True)
class Distillation:
    """How students are fitted to the teacher's responses.

    Attributes
    ----------
    n_epochs
        Passes over the images.
    learning_rate
        Peak of Adam's learning rate: linear warm-up over the first tenth of the steps, then a
        cosine to zero. (Published: constant 1e-4 over 12 million images.)
    batch_size
        Images a step.
    smoothing
        Standard deviation in pixels of the Gaussian that smooths depthwise kernels and spatial
        readouts after each epoch but the last; 0 for none.
    mixing_l1
        Weight of the mean absolute mixing weight in the loss of a shared network: fewer filters
        a neuron.
    """

    n_epochs: int = 4
    learning_rate: float = 2e-3
    batch_size: int = 32
    smoothing: float = 0.5
    mixing_l1: float = 0.0


def distill(
    images: UInt8[np.ndarray, "n_stimuli 3 height width"],
    responses: Float[np.ndarray, "n_stimuli n_neurons"],
    filters: Sequence[int],
    distillation: Distillation,
    *,
    seed: int,
    device: str | torch.device = "cpu",
    checkpoint: Path | None = None,
    advance: Callable[[int], None] = lambda n: None,
) -> SharedCompactModel:
    """Return a shared network fitted to the teacher's responses to images.

    All neurons train at once on the same layers, so a population costs what one student costs;
    `SharedCompactModel.compact_models` then gives each neuron its own copy to prune. The squared
    error of each neuron is divided by the variance of its targets; the answers come back in the
    targets' units. Batch-norm statistics are taken anew over the images at the end.

    Parameters
    ----------
    images
        Any images, levels 0..255.
    responses
        The teacher's responses to them.
    filters
        Filters per layer of the shared network.
    distillation
        Optimisation.
    seed
        Seed of weights and order; the same seed gives the same network on a CPU.
    device
        Where to train.
    checkpoint
        File to go on from and to write after each epoch, None for neither.
    advance
        Told after each step how many images were used, for a progress bar.

    Raises
    ------
    InputError
        If images and responses disagree in number, or a response is constant or not finite.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Methods, "Compact models", "Shared compact models".
    """
    mean, sd = _moments(images, responses)
    targets = torch.from_numpy(((responses - mean) / sd).astype(np.float32)).to(device)
    height, width = images.shape[2:]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = SharedCompactModel(filters, responses.shape[1], (height, width))
    model.to(device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss(batch: Tensor, index: np.ndarray) -> Tensor:
        error: Tensor = (model(batch) - targets[index]).square().mean(0).sum()
        return error + distillation.mixing_l1 * model.mixing.abs().mean(1).sum()

    def smooth() -> None:
        for layer in model.layers.depthwise:
            smooth_(layer.weight, distillation.smoothing)
        smooth_(model.spatial, distillation.smoothing)

    model.train()
    _optimize(
        model, images, loss, smooth, distillation,
        seed=seed, device=device, checkpoint=checkpoint, advance=advance,
    )  # fmt: skip
    refresh_batch_norm(model, images[: 32 * _STATISTICS_BATCH])
    with torch.no_grad():
        scale = torch.from_numpy(sd.astype(np.float32)).to(device)
        model.mixing.mul_(scale[:, None])
        model.bias.mul_(scale).add_(torch.from_numpy(mean.astype(np.float32)).to(device))
    return model.eval()


def retrain(
    models: Sequence[CompactModel],
    images: UInt8[np.ndarray, "n_stimuli 3 height width"],
    responses: Float[np.ndarray, "n_stimuli n_models"],
    distillation: Distillation,
    *,
    seed: int,
    device: str | torch.device = "cpu",
    checkpoint: Path | None = None,
    advance: Callable[[int], None] = lambda n: None,
) -> list[CompactModel]:
    """Return pruned models trained further on the teacher's responses, all of their weights.

    Each model is independent of the others; they run as stacks of a few models that fit in a CPU's
    cache. Batch-norm statistics stay as pruning left them.

    Parameters
    ----------
    models
        One model a neuron.
    images, responses, distillation, seed, device, checkpoint, advance
        As in `distill`; `responses` has one column a model.

    Raises
    ------
    InputError
        As `distill`, or if the columns are not one a model.
    """
    _, sd = _moments(images, responses)
    if len(models) != responses.shape[1]:
        raise InputError(f"{len(models)} models for {responses.shape[1]} columns of responses")
    targets = torch.from_numpy(responses.astype(np.float32)).to(device)
    weight = torch.from_numpy((1 / sd**2).astype(np.float32)).to(device)
    on_cpu = torch.device(device).type == "cpu"
    groups = CompactStack(models).split(_GROUP_FILTERS if on_cpu else 2**62)
    trained: list[CompactModel] = []
    for number, group in enumerate(groups):
        stack = group.to(device).eval()  # batch-norm statistics frozen
        n_models = len(stack)
        columns = slice(len(trained), len(trained) + n_models)

        def loss(
            batch: Tensor,
            index: np.ndarray,
            stack: CompactStack = stack,
            columns: slice = columns,
        ) -> Tensor:
            error: Tensor = (stack(batch) - targets[index][:, columns]).square().mean(0)
            return (error * weight[columns]).sum()

        def smooth(stack: CompactStack = stack) -> None:
            for kernels in list(stack.kernels)[1:]:
                smooth_(kernels, distillation.smoothing)
            smooth_(stack.readout, distillation.smoothing)

        def advance_all(n: int, n_models: int = n_models) -> None:
            advance(n * n_models)

        path = None if checkpoint is None else checkpoint.with_suffix(f".{number}.safetensors")
        _optimize(
            stack, images, loss, smooth, distillation,
            seed=seed, device=device, checkpoint=path,
            advance=advance_all,
        )  # fmt: skip
        trained += [model.eval() for model in stack.models()]
    return trained


def refresh_batch_norm(model: nn.Module, images: UInt8[np.ndarray, "n 3 height width"]) -> None:
    """Replace batch-norm statistics by the mean over batches of these images."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    device = next(model.parameters()).device
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    model.train()
    with torch.no_grad():
        for start in range(0, len(images), _STATISTICS_BATCH):
            model(torch.from_numpy(images[start : start + _STATISTICS_BATCH]).to(device))
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


def _moments(images: np.ndarray, responses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each column; refuse what cannot be distilled."""
    if len(images) != len(responses):
        raise InputError(f"{len(images)} images for responses to {len(responses)}")
    constant = (responses == responses[:1]).all(axis=0)
    bad = np.flatnonzero(~np.isfinite(responses).all(axis=0) | constant)
    if len(bad):
        raise InputError(f"teacher responses of neurons {bad.tolist()} are constant or not finite")
    return responses.mean(axis=0), responses.std(axis=0)


def _optimize(
    model: nn.Module,
    images: np.ndarray,
    loss: Callable[[Tensor, np.ndarray], Tensor],
    smooth: Callable[[], None],
    distillation: Distillation,
    *,
    seed: int,
    device: str | torch.device,
    checkpoint: Path | None,
    advance: Callable[[int], None],
) -> None:
    """Minimise `loss(batch, index)` with Adam, epoch by epoch, going on from a checkpoint."""
    optimizer = torch.optim.Adam(model.parameters(), eps=ADAM_EPS)
    size = distillation.batch_size
    per_epoch = len(images) // size or 1
    first = 0
    if checkpoint is not None and (saved := read_checkpoint(checkpoint)) is not None:
        tensors, numbers = saved
        first = numbers["epoch"]
        prefix = "model."
        model.load_state_dict(
            {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        )
        load_optimizer(optimizer, tensors)
        advance(first * per_epoch * min(size, len(images)))
    for epoch in range(first, distillation.n_epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(images))
        for step in range(per_epoch):
            index = np.sort(order[step * size : (step + 1) * size])
            done, n_steps = epoch * per_epoch + step, distillation.n_epochs * per_epoch
            for group in optimizer.param_groups:
                group["lr"] = one_cycle(distillation.learning_rate, done, n_steps, 0.1)
            batch = torch.from_numpy(images[index]).to(device)
            optimizer.zero_grad()
            loss(batch, index).backward()
            optimizer.step()
            advance(len(index))
        if epoch < distillation.n_epochs - 1:
            smooth()
        if checkpoint is not None:
            state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
            save_checkpoint(checkpoint, state | optimizer_tensors(optimizer), {"epoch": epoch + 1})
