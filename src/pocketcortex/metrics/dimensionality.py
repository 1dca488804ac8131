"""How many dimensions, or parts, something effectively has."""

import numpy as np
from jaxtyping import Float, Float64

from pocketcortex.core.errors import InputError


def participation_ratio(
    weights: Float[np.ndarray, "*batch n"],
) -> Float64[np.ndarray, "*batch"]:
    r"""Return how many of n weights, none negative, effectively take part.

    .. math:: \frac{(\sum_i w_i)^2}{\sum_i w_i^2}

    1 if one weight is all there is, n if all are equal. NaN where all are 0.

    Raises
    ------
    InputError
        If a weight is negative or not finite, or there is none.

    References
    ----------
    Gao et al. (2017), bioRxiv 214262, Eq. 5 (of variances: effective dimensionality).

    Examples
    --------
    >>> import numpy as np
    >>> participation_ratio(np.array([[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]])).tolist()
    [4.0, 1.0]
    """
    if weights.ndim == 0 or weights.shape[-1] == 0 or not (np.isfinite(weights).all()):
        raise InputError(f"weights must be one or more finite numbers, got {weights.shape}")
    if (weights < 0).any():
        raise InputError("weights must be 0 or more; square them first")
    values = weights.astype(np.float64)
    total, squares = values.sum(axis=-1), (values**2).sum(axis=-1)
    return np.asarray(total**2 / np.where(squares > 0, squares, np.nan))


def effective_dimensionality(covariance: Float[np.ndarray, "n columns"]) -> float:
    r"""Return the participation ratio of a covariance matrix' eigenvalues.

    .. math:: \frac{(\mathrm{tr}\, C)^2}{\mathrm{tr}\, C^2}

    Between 1 and n; the eigenvalues need not be computed. NaN if nothing varies. Of few samples it
    is too low.

    Raises
    ------
    InputError
        If the matrix is not square, symmetric and finite, or a variance is negative.

    References
    ----------
    Gao et al. (2017), bioRxiv 214262, Eq. 5.
    """
    n = len(covariance)
    if covariance.shape != (n, n) or n == 0 or not np.isfinite(covariance).all():
        raise InputError(f"covariance must be (n, n) and finite, got {covariance.shape}")
    values = covariance.astype(np.float64)
    variances = np.diag(values)
    if variances.min() < 0 or not np.allclose(values, values.T, atol=1e-6 * variances.max()):
        raise InputError("covariance must be symmetric, its diagonal 0 or more")
    squares = float((values**2).sum())
    return float(variances.sum() ** 2 / squares) if squares > 0 else float("nan")
