"""Ridge by one eigendecomposition: residuals of left-out stimuli for any penalty, refit-free."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from threadpoolctl import threadpool_limits
from torch import Tensor

_ONE_THREAD = 3000  # stimuli


@dataclass(frozen=True)
class Spectrum:
    """Eigenvectors and eigenvalues of the centred kernel, float64 tensors on one device.

    Attributes
    ----------
    vectors
        Orthonormal, each orthogonal to the constant, (n_stimuli, n_components).
    values
        Eigenvalues, not negative, (n_components,).
    complete
        Whether the vectors span everything orthogonal to the constant.
    """

    vectors: Float[Tensor, "n_stimuli n_components"]
    values: Float[Tensor, " n_components"]
    complete: bool

    @property
    def mean_value(self) -> float:
        """The mean eigenvalue; 1 if no feature varies, so that it can serve as a unit."""
        mean = float(self.values.mean()) if self.values.numel() else 0.0
        return mean if mean > 0 else 1.0


def spectrum_of_kernel(kernel: Float[Tensor, "n_stimuli n_stimuli"]) -> Spectrum:
    """Return the spectrum of a centred kernel (at least as many features as stimuli)."""
    trace = float(kernel.trace())
    # The constant is made the eigenvector of the largest eigenvalue, and dropped.
    lifted = kernel + (2 * trace if trace > 0 else 1.0) / kernel.shape[0]
    values, vectors = _eigh(lifted)
    return Spectrum(vectors[:, :-1].contiguous(), values[:-1].clamp_min(0), complete=True)


def _eigh(
    matrix: Float[Tensor, "n n"],
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n n"]]:
    """Return eigenvalues and eigenvectors, on a CPU by one thread unless the matrix is large.

    Threads do not help at this size, and where other work shares the cores they wait for each other
    after every small step: 1,000 stimuli took 0.2 s by one thread and 4 to 15 s by two.
    """
    if matrix.device.type != "cpu" or len(matrix) > _ONE_THREAD:
        values, vectors = torch.linalg.eigh(matrix)
        return values, vectors
    with threadpool_limits(1, user_api="blas"):
        found = np.linalg.eigh(matrix.numpy())
    return torch.from_numpy(found[0]), torch.from_numpy(found[1])


def spectrum_of_features(
    centred: Float[Tensor, "n_stimuli n_features"], epsilon: float
) -> Spectrum:
    """Return the spectrum from centred float64 features (fewer features than stimuli).

    `epsilon` is the rounding of the features' own precision.
    """
    left, singular, _ = torch.linalg.svd(centred, full_matrices=False)
    floor = float(singular.max()) * max(centred.shape) * epsilon
    kept = singular > floor
    return Spectrum(left[:, kept], singular[kept] ** 2, complete=False)


def dual_coefficients(
    spectrum: Spectrum, Y: Float[Tensor, "n_stimuli n_targets"], alpha: Float[Tensor, " n_targets"]
) -> Float[Tensor, "n_stimuli n_targets"]:
    """Return A with coefficients Xᵀ A, for centred targets and one penalty a target."""
    shrunk = (spectrum.vectors.T @ Y) / (spectrum.values[:, None] + alpha)
    return spectrum.vectors @ shrunk


def held_out_residuals(
    spectrum: Spectrum,
    Y: Float[Tensor, "n_stimuli n_targets"],
    projected: Float[Tensor, "n_components n_targets"],
    alpha: float,
    blocks: list[Int[Tensor, " _"]],
) -> Float[Tensor, "n_stimuli n_targets"]:
    r"""Return what each stimulus's target misses when the model is fitted without it.

    With hat matrix :math:`H` (intercept included), stimuli F left out together have residuals
    :math:`(I - H_{FF})^{-1} (I - H)_F Y`, for one stimulus the residual over one minus its
    leverage. Exact, as an unpenalized intercept is refitted by the same formula.

    `projected` is the transposed eigenvectors times `Y`. `blocks` lists the sets of two or more
    stimuli left out together; all others go alone.
    """
    U, n = spectrum.vectors, Y.shape[0]
    gain = alpha / (spectrum.values + alpha)  # I - H = U diag(gain) Uᵀ (+ what U does not span)
    residuals = U @ (gain[:, None] * projected)
    complement = U.square() @ gain  # 1 - leverage
    if not spectrum.complete:
        residuals += Y - U @ projected
        complement += 1 - 1 / n - U.square().sum(1)
    solved = []
    for block in blocks:
        part = U[block]
        system = (part * gain) @ part.T
        if not spectrum.complete:
            system += torch.eye(len(block)).to(system) - 1 / n - part @ part.T
        solved.append(torch.linalg.solve(system, residuals[block]))
    residuals /= complement[:, None]
    for block, values in zip(blocks, solved, strict=True):
        residuals[block] = values
    return residuals


def choose_alphas(
    spectrum: Spectrum,
    Y: Float[Tensor, "n_stimuli n_targets"],
    alphas: list[float],
    blocks: list[Int[Tensor, " _"]],
) -> tuple[Float[Tensor, " n_targets"], Float[Tensor, "n_stimuli n_targets"]]:
    """Return each target's alpha of least held-out squared error, and its held-out residuals.

    The largest of equally good alphas wins.
    """
    projected = spectrum.vectors.T @ Y
    least = torch.full_like(Y[0], torch.inf)
    chosen = torch.empty_like(least)
    for alpha in sorted(alphas, reverse=True):
        error = held_out_residuals(spectrum, Y, projected, alpha, blocks).square_().sum(0)
        chosen[error < least] = alpha
        least = torch.minimum(least, error)
    best = torch.empty_like(Y)
    for alpha in set(chosen.tolist()):  # again, for the chosen alone: cheaper than keeping all
        mine = chosen == alpha
        best[:, mine] = held_out_residuals(spectrum, Y[:, mine], projected[:, mine], alpha, blocks)
    return chosen, best
