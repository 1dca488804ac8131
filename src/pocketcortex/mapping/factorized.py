"""Fitting factorized maps: reduce channels, start from ridge, choose penalties or steps inside."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from pocketcortex.mapping._factorized import (
    RankOne,
    alternate,
    descend,
    predict_rank_one,
    rank_one_of_ridge,
)
from pocketcortex.mapping._products import working_dtype
from pocketcortex.mapping._spectrum import spectrum_of_kernel
from pocketcortex.mapping.ridge import held_out_blocks, solve_ridge

RELATIVE_PENALTIES = (0.03, 0.1, 0.2, 0.4, 1.0)
"""Penalties tried, in units of the ridge penalty chosen for the neuron."""


@dataclass(frozen=True)
class Alternating:
    """Settings of the alternating solver.

    Attributes
    ----------
    relative_penalties
        Penalties to choose from for each neuron, in units of its ridge penalty.
    max_steps
        Most steps; each solves for mixing, then for spatial weights.
    tol
        Relative fall of a neuron's penalized loss below which it stops.
    """

    relative_penalties: tuple[float, ...] = RELATIVE_PENALTIES
    max_steps: int = 20
    tol: float = 1e-3


@dataclass(frozen=True)
class Gradient:
    """Settings of the gradient solver.

    Attributes
    ----------
    lambda_mix, lambda_spatial
        L2 penalties beside the mean squared error of z-scored responses.
    learning_rate
        Of Adam, in units of the weights' root mean square at the start.
    max_steps
        Most steps; each neuron stops at its best step on the inner held-out part.
    """

    lambda_mix: float = 0.1
    lambda_spatial: float = 0.1
    learning_rate: float = 0.02
    max_steps: int = 200


@dataclass(frozen=True)
class FactorizedFit:
    """Rank-one weights in the features' and responses' own units.

    Attributes
    ----------
    spatial
        (n_neurons, n_positions).
    mixing
        (n_neurons, n_channels); as long as the spatial weights, whose sum is not negative.
    intercept
        Prediction at all features 0, (n_neurons,).
    ridge_alpha
        The ridge penalty each neuron started from, (n_neurons,).
    penalty
        Chosen penalty on |spatial|² |mixing|² of z-scored responses, (n_neurons,); NaN if the
        gradient solver made the fit.
    steps
        Steps taken, (n_neurons,).
    held_out_predictions
        Of each stimulus by the weights its inner fold did not see, at the penalty chosen,
        (n_stimuli, n_neurons); None if no penalty was chosen.
    """

    spatial: Float[np.ndarray, "n_neurons n_positions"]
    mixing: Float[np.ndarray, "n_neurons n_channels"]
    intercept: Float[np.ndarray, " n_neurons"]
    ridge_alpha: Float[np.ndarray, " n_neurons"]
    penalty: Float[np.ndarray, " n_neurons"]
    steps: Int[np.ndarray, " n_neurons"]
    held_out_predictions: Float[np.ndarray, "n_stimuli n_neurons"] | None


def fit_factorized(
    maps: Float[np.ndarray, "n_stimuli n_channels n_positions"],
    Y: Float[np.ndarray, "n_stimuli n_neurons"],
    folds: Int[np.ndarray, " n_stimuli"],
    *,
    solver: Alternating | Gradient,
    n_components: int | None,
    groups: Shaped[np.ndarray, "..."] | None,
    device: str,
) -> FactorizedFit:
    """Return the factorized map of each neuron; see `FactorizedMapping`.

    Parameters
    ----------
    maps
        Features.
    Y
        Responses, each varying over stimuli.
    folds
        Inner folds: all serve to choose the penalty, the first as the gradient solver's validation.
    solver
        Which solver, and its settings.
    n_components
        Principal components of the channels to fit in, None for all.
    groups
        Stimuli left out together in the ridge start.
    device
        Where to compute.
    """
    A, centre, basis = _reduced(maps, n_components, device)
    mean, sd = Y.mean(axis=0), Y.std(axis=0)
    Z = torch.from_numpy((Y - mean) / sd).to(A)
    start, alpha = _ridge_start(A, Z, groups)
    held_out = None
    if isinstance(solver, Alternating):
        relative, held_out = _choose_penalties(A, Z, folds, solver, groups)
        penalty = relative * alpha
        weights, steps, _ = alternate(
            A, Z, start, penalty, max_steps=solver.max_steps, tol=solver.tol
        )
    else:
        penalty = torch.full_like(alpha, torch.nan)
        steps = _choose_steps(A, Z, folds, solver, groups)
        weights = _descended(A, Z, start, solver, steps)
    sd_ = torch.from_numpy(sd).to(A)
    mixing = (weights.mixing * sd_[:, None]) @ basis.T
    own = RankOne(weights.spatial, mixing).balanced()
    at_centre = torch.einsum("np,nk,pk->n", own.spatial.double(), own.mixing.double(), centre)
    return FactorizedFit(
        spatial=_to_numpy(own.spatial),
        mixing=_to_numpy(own.mixing),
        intercept=mean - _to_numpy(at_centre),
        ridge_alpha=_to_numpy(alpha),
        penalty=_to_numpy(penalty),
        steps=_to_numpy(steps),
        held_out_predictions=None if held_out is None else mean + sd * _to_numpy(held_out),
    )


def _reduced(
    maps: Float[np.ndarray, "n_stimuli n_channels n_positions"],
    n_components: int | None,
    device: str,
) -> tuple[
    Float[Tensor, "n_positions n_stimuli n_components"],
    Float[Tensor, "n_positions n_channels"],
    Float[Tensor, "n_channels n_components"],
]:
    """Return centred maps in the channels' principal components, their centre, the components."""
    n_channels, n_positions = maps.shape[1:]
    centre = torch.from_numpy(maps.mean(axis=0, dtype=np.float64).T.copy()).to(device)
    dtype = working_dtype(maps)

    def at(position: int) -> Float[Tensor, "n_stimuli n_channels"]:
        here = torch.from_numpy(maps[:, :, position].astype(dtype, order="C")).to(device)
        return here - centre[position].to(here)

    if n_components is None or n_components >= n_channels:
        basis = torch.eye(n_channels, dtype=at(0).dtype, device=device)
        return torch.stack([at(p) for p in range(n_positions)]), centre, basis
    covariance = torch.zeros((n_channels, n_channels), dtype=torch.float64, device=device)
    for position in range(n_positions):
        here = at(position)
        covariance += here.T @ here
    basis = torch.linalg.eigh(covariance)[1].flip(1)[:, :n_components].to(at(0))
    return torch.stack([at(p) @ basis for p in range(n_positions)]), centre, basis


def _ridge_start(
    A: Float[Tensor, "n_positions n_stimuli n_channels"],
    Z: Float[Tensor, "n_stimuli n_neurons"],
    groups: Shaped[np.ndarray, "..."] | None,
) -> tuple[RankOne, Float[Tensor, " n_neurons"]]:
    """Return the rank-one part of the ridge weights, and the ridge penalties, from centred data."""
    kernel = torch.zeros((A.shape[1], A.shape[1]), dtype=torch.float64, device=A.device)
    for position in A:
        kernel += position @ position.T
    targets = np.asarray(Z.double().cpu().numpy())
    blocks = [] if groups is None else held_out_blocks(len(targets), groups)
    fit = solve_ridge(spectrum_of_kernel(kernel), targets, None, blocks, np.empty(0), None)
    dual = torch.from_numpy(fit.dual).to(A)
    weights = torch.stack([dual.T @ position for position in A], dim=1)
    return rank_one_of_ridge(weights), torch.from_numpy(fit.alpha).to(A.device)


def _split(
    A: Float[Tensor, "n_positions n_stimuli n_channels"],
    Z: Float[Tensor, "n_stimuli n_neurons"],
    held_out: Shaped[np.ndarray, " n_stimuli"],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return training maps and targets, held-out maps and targets, about the training means."""
    out = torch.from_numpy(np.flatnonzero(held_out)).to(A.device)
    kept = torch.from_numpy(np.flatnonzero(~held_out)).to(A.device)
    A_in, Z_in = A[:, kept], Z[kept]
    centre, mean = A_in.mean(1, keepdim=True), Z_in.mean(0)
    return A_in - centre, Z_in - mean, A[:, out] - centre, Z[out] - mean


def _choose_penalties(
    A: Float[Tensor, "n_positions n_stimuli n_channels"],
    Z: Float[Tensor, "n_stimuli n_neurons"],
    folds: Int[np.ndarray, " n_stimuli"],
    solver: Alternating,
    groups: Shaped[np.ndarray, "..."] | None,
) -> tuple[Float[Tensor, " n_neurons"], Float[Tensor, "n_stimuli n_neurons"] | None]:
    """Return each neuron's relative penalty of least held-out error, and what it predicted."""
    relative = sorted(solver.relative_penalties, reverse=True)
    if len(relative) == 1:
        return torch.full((Z.shape[1],), relative[0], dtype=torch.float64, device=A.device), None
    predicted = torch.empty((len(relative), *Z.shape), dtype=torch.float64, device=A.device)
    for fold in range(int(folds.max()) + 1):
        A_in, Z_in, A_out, Z_out = _split(A, Z, folds == fold)
        kept = None if groups is None else groups[folds != fold]
        weights, alpha = _ridge_start(A_in, Z_in, kept)
        for index, value in enumerate(relative):  # each from where the stronger penalty ended
            weights, _, _ = alternate(
                A_in, Z_in, weights, value * alpha, max_steps=solver.max_steps, tol=solver.tol
            )
            missed = Z_out - predict_rank_one(A_out, weights)
            out = torch.from_numpy(np.flatnonzero(folds == fold)).to(A.device)
            predicted[index, out] = Z[out].double() - missed.double()
    best = (Z.double() - predicted).square().sum(1).argmin(0)
    held_out = predicted[best, :, torch.arange(len(best), device=A.device)].T
    return torch.tensor(relative, dtype=torch.float64, device=A.device)[best], held_out


def _choose_steps(
    A: Float[Tensor, "n_positions n_stimuli n_channels"],
    Z: Float[Tensor, "n_stimuli n_neurons"],
    folds: Int[np.ndarray, " n_stimuli"],
    solver: Gradient,
    groups: Shaped[np.ndarray, "..."] | None,
) -> Int[Tensor, " n_neurons"]:
    """Return each neuron's step of least squared error on the first inner fold, held out."""
    A_in, Z_in, A_out, Z_out = _split(A, Z, folds == 0)
    start, _ = _ridge_start(A_in, Z_in, None if groups is None else groups[folds != 0])
    least = torch.full((Z.shape[1],), torch.inf, dtype=torch.float64, device=A.device)
    best = torch.zeros(Z.shape[1], dtype=torch.int64, device=A.device)

    def visit(step: int, weights: RankOne) -> None:
        error = (Z_out - predict_rank_one(A_out, weights)).double().square().sum(0)
        best[error < least] = step
        least.copy_(torch.minimum(least, error))

    _run(A_in, Z_in, start, solver, solver.max_steps, visit)
    return best


def _descended(
    A: Float[Tensor, "n_positions n_stimuli n_channels"],
    Z: Float[Tensor, "n_stimuli n_neurons"],
    start: RankOne,
    solver: Gradient,
    steps: Int[Tensor, " n_neurons"],
) -> RankOne:
    """Return each neuron's weights after its own number of steps."""
    spatial, mixing = start.spatial.clone(), start.mixing.clone()

    def visit(step: int, weights: RankOne) -> None:
        now = steps == step
        spatial[now], mixing[now] = weights.spatial[now], weights.mixing[now]

    _run(A, Z, start, solver, int(steps.max()), visit)
    return RankOne(spatial, mixing)


def _run(
    A: Float[Tensor, "n_positions n_stimuli n_channels"],
    Z: Float[Tensor, "n_stimuli n_neurons"],
    start: RankOne,
    solver: Gradient,
    n_steps: int,
    visit: Callable[[int, RankOne], None],
) -> None:
    descend(
        A,
        Z,
        start,
        lambda_mix=solver.lambda_mix,
        lambda_spatial=solver.lambda_spatial,
        learning_rate=solver.learning_rate,
        n_steps=n_steps,
        visit=visit,
    )


def _to_numpy(values: Shaped[Tensor, "..."]) -> Shaped[np.ndarray, "..."]:
    return np.asarray(values.cpu().numpy())
