"""Solvers for factorized maps: rank-one weights over (position, channel), many neurons at once.

Everything here is a tensor on one device: maps A are (n_positions, n_stimuli, n_channels), centred;
targets Y are (n_stimuli, n_neurons), centred; a solution is one row of spatial and one of mixing
weights for each neuron.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

_VALUES_AT_ONCE = 16_000_000  # of one neuron-by-stimulus-by-channel tensor


@dataclass(frozen=True)
class RankOne:
    """Rank-one weights: spatial (n_neurons, n_positions) times mixing (n_neurons, n_channels)."""

    spatial: Float[Tensor, "n_neurons n_positions"]
    mixing: Float[Tensor, "n_neurons n_channels"]

    def balanced(self) -> "RankOne":
        """Return the same weights with equal norms, the sum of the spatial ones not negative."""
        ns, nm = (v.norm(dim=1, keepdim=True) for v in (self.spatial, self.mixing))
        size = (ns * nm).sqrt()
        sign = torch.where(self.spatial.sum(1, keepdim=True) < 0, -1.0, 1.0)
        spatial = self.spatial * (sign * size / torch.where(ns > 0, ns, 1.0))
        return RankOne(spatial, self.mixing * (sign * size / torch.where(nm > 0, nm, 1.0)))


def rank_one_of_ridge(weights: Float[Tensor, "n_neurons n_positions n_channels"]) -> RankOne:
    """Return the first singular pair of each neuron's ridge weights, each times sqrt(s1)."""
    values, vectors = torch.linalg.eigh((weights @ weights.mT).double())
    left = vectors[..., -1].to(weights)
    right = (left[:, None] @ weights)[:, 0]  # the first right singular vector times s1
    root = values[:, -1:].clamp_min(0).sqrt().sqrt().to(weights)
    return RankOne(left * root, right / torch.where(root > 0, root, 1.0))


def predict_rank_one(
    A: Float[Tensor, "n_positions n_stimuli n_channels"], weights: RankOne
) -> Float[Tensor, "n_stimuli n_neurons"]:
    """Return the maps' responses, without an intercept."""
    out = A.new_zeros((A.shape[1], weights.mixing.shape[0]))
    for position, strength in zip(A, weights.spatial.T, strict=True):
        out += (position @ weights.mixing.T) * strength
    return out


def alternate(
    A: Float[Tensor, "n_positions n_stimuli n_channels"],
    Y: Float[Tensor, "n_stimuli n_neurons"],
    start: RankOne,
    penalty: Float[Tensor, " n_neurons"],
    *,
    max_steps: int,
    tol: float,
) -> tuple[RankOne, Int[Tensor, " n_neurons"], Float[Tensor, "n_steps n_neurons"]]:
    """Return weights by exact ridge steps in mixing and spatial weights in turn.

    Minimizes |y - prediction|² + penalty |spatial|² |mixing|², which falls at every step. A neuron
    stops when a step lowers it by less than `tol` of itself.

    Returns
    -------
    tuple
        The weights, the steps each neuron took, and the loss after each step (from there on the
        last value for a neuron that has stopped).
    """
    spatial, mixing = start.spatial.clone(), start.mixing.clone()
    steps = torch.zeros(Y.shape[1], dtype=torch.int64, device=A.device)
    loss = torch.full((max_steps, Y.shape[1]), torch.nan, dtype=torch.float64, device=A.device)
    width = max(1, _VALUES_AT_ONCE // (A.shape[1] * A.shape[2]))
    for active in torch.arange(Y.shape[1], device=A.device).split(width):
        previous = torch.full((len(active),), torch.inf, dtype=torch.float64, device=A.device)
        left = active
        for step in range(max_steps):
            s, m, now = _one_step(A, Y[:, left], spatial[left], penalty[left])
            spatial[left], mixing[left] = s, m
            loss[step:, left], steps[left] = now, step + 1
            still = previous - now > tol * now
            left, previous = left[still], now[still]
            if len(left) == 0:
                break
    return RankOne(spatial, mixing), steps, loss


def _one_step(
    A: Float[Tensor, "n_positions n_stimuli n_channels"],
    Y: Float[Tensor, "n_stimuli n_neurons"],
    spatial: Float[Tensor, "n_neurons n_positions"],
    penalty: Float[Tensor, " n_neurons"],
) -> tuple[
    Float[Tensor, "n_neurons n_positions"],
    Float[Tensor, "n_neurons n_channels"],
    Float[Tensor, " n_neurons"],
]:
    """Return new spatial weights, new mixing weights of norm 1, and the penalized loss."""
    n_positions, n_stimuli, n_channels = A.shape
    pooled = (_of_norm_one(spatial) @ A.reshape(n_positions, -1)).reshape(-1, n_stimuli, n_channels)
    mixing = _of_norm_one(_ridge(pooled, Y.T, penalty))
    mixed = (A.reshape(-1, n_channels) @ mixing.T).reshape(n_positions, n_stimuli, -1)
    mixed = mixed.permute(2, 1, 0).contiguous()  # (n_neurons, n_stimuli, n_positions)
    spatial = _ridge(mixed, Y.T, penalty)
    missed = Y.T - (mixed @ spatial[..., None])[..., 0]
    loss = missed.double().square().sum(1) + penalty * spatial.double().square().sum(1)
    return spatial, mixing, loss


def _ridge(
    F: Float[Tensor, "n_neurons n_stimuli n_features"],
    Y: Float[Tensor, "n_neurons n_stimuli"],
    penalty: Float[Tensor, " n_neurons"],
) -> Float[Tensor, "n_neurons n_features"]:
    """Return each neuron's ridge weights from its own features, on the shorter side of them."""
    dual = F.shape[2] > F.shape[1]
    system = (F @ F.mT if dual else F.mT @ F).double()
    system.diagonal(dim1=1, dim2=2).add_(penalty.double()[:, None])
    right = Y[..., None] if dual else F.mT @ Y[..., None]
    solved = torch.cholesky_solve(right.double(), torch.linalg.cholesky(system)).to(F)
    return (F.mT @ solved if dual else solved)[..., 0]


def _of_norm_one(vectors: Float[Tensor, "n_neurons n"]) -> Float[Tensor, "n_neurons n"]:
    norm = vectors.norm(dim=1, keepdim=True)
    return vectors / torch.where(norm > 0, norm, 1.0)


def descend(
    A: Float[Tensor, "n_positions n_stimuli n_channels"],
    Y: Float[Tensor, "n_stimuli n_neurons"],
    start: RankOne,
    *,
    lambda_mix: float,
    lambda_spatial: float,
    learning_rate: float,
    n_steps: int,
    visit: Callable[[int, RankOne], None],
) -> None:
    """Follow Adam on mean squared error + lambda_mix |mixing|² + lambda_spatial |spatial|².

    All stimuli at each step; neurons do not influence each other. Weights are in units of their
    root mean square at the start, so that one learning rate fits both kinds. `visit` is called with
    the number of steps taken and the weights, the start included.
    """
    units = [_root_mean_square(v) for v in (start.spatial, start.mixing)]
    free = [
        (v / u).requires_grad_() for v, u in zip((start.spatial, start.mixing), units, strict=True)
    ]
    optimizer = torch.optim.Adam(free, lr=learning_rate)
    for step in range(n_steps + 1):
        weights = RankOne(free[0] * units[0], free[1] * units[1])
        visit(step, RankOne(weights.spatial.detach(), weights.mixing.detach()))
        if step == n_steps:
            return
        mixed = torch.einsum("pik,nk->pin", A, weights.mixing)
        missed = torch.einsum("pin,np->in", mixed, weights.spatial) - Y
        loss = missed.square().mean(0).sum()
        loss = loss + lambda_mix * weights.mixing.square().sum()
        loss = loss + lambda_spatial * weights.spatial.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _root_mean_square(v: Float[Tensor, "n_neurons n"]) -> Float[Tensor, "n_neurons 1"]:
    size = v.square().mean(1, keepdim=True).sqrt()
    return torch.where(size > 0, size, 1.0)
