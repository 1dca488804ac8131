"""Ridge by one eigendecomposition: residuals of left-out stimuli for any penalty, refit-free."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Spectrum:
    """Eigenvectors and eigenvalues of the centred kernel.

    Attributes
    ----------
    vectors
        Orthonormal, each orthogonal to the constant, (n_stimuli, n_components).
    values
        Eigenvalues, not negative, (n_components,).
    complete
        Whether the vectors span everything orthogonal to the constant.
    """

    vectors: Float[np.ndarray, "n_stimuli n_components"]
    values: Float[np.ndarray, " n_components"]
    complete: bool

    @property
    def mean_value(self) -> float:
        """The mean eigenvalue; 1 if no feature varies, so that it can serve as a unit."""
        mean = float(self.values.mean()) if self.values.size else 0.0
        return mean if mean > 0 else 1.0


def spectrum_of_kernel(kernel: Float[np.ndarray, "n_stimuli n_stimuli"]) -> Spectrum:
    """Return the spectrum of a centred kernel (at least as many features as stimuli)."""
    n = kernel.shape[0]
    trace = float(np.trace(kernel))
    # The constant is made the eigenvector of the largest eigenvalue, and dropped.
    lifted = kernel + (2 * trace if trace > 0 else 1.0) / n
    values, vectors = np.linalg.eigh(lifted)
    return Spectrum(vectors[:, :-1], np.maximum(values[:-1], 0.0), complete=True)


def spectrum_of_features(centred: Float[np.ndarray, "n_stimuli n_features"]) -> Spectrum:
    """Return the spectrum from centred features themselves (fewer features than stimuli)."""
    left, singular, _ = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    floor = singular.max(initial=0.0) * max(centred.shape) * float(np.finfo(centred.dtype).eps)
    kept = singular > floor
    return Spectrum(left[:, kept], singular[kept] ** 2, complete=False)


def dual_coefficients(
    spectrum: Spectrum,
    Y: Float[np.ndarray, "n_stimuli n_targets"],
    alpha: Float[np.ndarray, " n_targets"],
) -> Float[np.ndarray, "n_stimuli n_targets"]:
    """Return A with coefficients Xᵀ A, for centred targets and one penalty a target."""
    shrunk = (spectrum.vectors.T @ Y) / (spectrum.values[:, None] + alpha)
    return np.asarray(spectrum.vectors @ shrunk)


def held_out_residuals(
    spectrum: Spectrum,
    Y: Float[np.ndarray, "n_stimuli n_targets"],
    alpha: float,
    blocks: list[Int[np.ndarray, " _"]],
) -> Float[np.ndarray, "n_stimuli n_targets"]:
    r"""Return what each stimulus's target misses when the model is fitted without it.

    With hat matrix :math:`H` (intercept included), stimuli F left out together have residuals
    :math:`(I - H_{FF})^{-1} (I - H)_F Y`, for one stimulus the residual over one minus its
    leverage. Exact, as an unpenalized intercept is refitted by the same formula.

    `blocks` lists the sets of two or more stimuli left out together; all others go alone.
    """
    U, n = spectrum.vectors, Y.shape[0]
    gain = alpha / (spectrum.values + alpha)  # I - H = U diag(gain) Uᵀ (+ what U does not span)
    projected = U.T @ Y
    residuals = U @ (gain[:, None] * projected)
    complement = (U**2) @ gain  # 1 - leverage
    if not spectrum.complete:
        residuals += Y - U @ projected
        complement += 1 - 1 / n - (U**2).sum(axis=1)
    out = residuals / complement[:, None]
    for block in blocks:
        part = U[block]
        system = (part * gain) @ part.T
        if not spectrum.complete:
            system += np.eye(block.size) - 1 / n - part @ part.T
        out[block] = np.linalg.solve(system, residuals[block])
    return np.asarray(out)


def choose_alphas(
    spectrum: Spectrum,
    Y: Float[np.ndarray, "n_stimuli n_targets"],
    alphas: Float[np.ndarray, " n_alphas"],
    blocks: list[Int[np.ndarray, " _"]],
) -> tuple[Float[np.ndarray, " n_targets"], Float[np.ndarray, "n_stimuli n_targets"]]:
    """Return each target's alpha of least held-out squared error, and its held-out residuals.

    The largest of equally good alphas wins.
    """
    least = np.full(Y.shape[1], np.inf)
    chosen = np.empty(Y.shape[1])
    best = np.empty(Y.shape)
    for alpha in np.sort(alphas)[::-1]:
        residuals = held_out_residuals(spectrum, Y, float(alpha), blocks)
        error = (residuals**2).sum(axis=0)
        better = error < least
        least[better] = error[better]
        chosen[better] = alpha
        best[:, better] = residuals[:, better]
    return chosen, best
