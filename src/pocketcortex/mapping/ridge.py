"""Ridge regression for many features and few stimuli, one alpha per target by leave-one-out."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from pocketcortex.core.errors import InputError
from pocketcortex.mapping._products import (
    centred_block,
    centred_kernel,
    feature_mean,
    feature_moments,
    features_times,
    transposed_features_times,
    working_dtype,
)
from pocketcortex.mapping._spectrum import (
    Spectrum,
    choose_alphas,
    dual_coefficients,
    spectrum_of_features,
    spectrum_of_kernel,
)
from pocketcortex.mapping.folds import check_groups, check_targets

RELATIVE_ALPHAS = np.logspace(-4, 4, 17)
"""Default grid of alphas, in units of the kernel's mean eigenvalue."""


@dataclass(frozen=True)
class RidgeFit:
    """A fitted ridge regression, in its dual form.

    Attributes
    ----------
    alpha
        Penalty chosen for each target, in the features' squared units, (n_targets,).
    alphas
        The grid it was chosen from, (n_alphas,).
    dual
        Dual coefficients: those of the centred (and scaled) features are its product with the
        transposed features, (n_stimuli, n_targets).
    feature_mean, feature_scale
        What features are centred by and divided by; scale is None without standardizing.
    target_mean
        Mean of each target, (n_targets,).
    held_out_predictions
        Prediction of each stimulus by a model fitted without it (or without its group) at the
        chosen alpha, (n_stimuli, n_targets).
    """

    alpha: Float[np.ndarray, " n_targets"]
    alphas: Float[np.ndarray, " n_alphas"]
    dual: Float[np.ndarray, "n_stimuli n_targets"]
    feature_mean: Float[np.ndarray, " n_features"]
    feature_scale: Float[np.ndarray, " n_features"] | None
    target_mean: Float[np.ndarray, " n_targets"]
    held_out_predictions: Float[np.ndarray, "n_stimuli n_targets"]


def fit_ridge_loo(
    X: Float[np.ndarray, "n_stimuli n_features"],
    Y: Float[np.ndarray, "n_stimuli n_targets"],
    *,
    alphas: npt.ArrayLike | None = None,
    standardize: bool = False,
    groups: Shaped[np.ndarray, " n_stimuli"] | None = None,
    device: str = "cpu",
) -> RidgeFit:
    r"""Return the ridge regression whose alpha minimizes each target's leave-one-out error.

    .. math::
        \min_{w, b} \sum_i (y_i - x_i^\top w - b)^2 + \alpha \|w\|^2

    for every target and alpha from one eigendecomposition of the centred kernel
    :math:`K = X_c X_c^\top = U \Lambda U^\top` (of the features by SVD if they are fewer than the
    stimuli). Left-out residuals are exact without refitting, intercept included:
    :math:`e_i / (1 - H_{ii})` with :math:`H = 11^\top / n + U \Lambda (\Lambda + \alpha)^{-1}
    U^\top`, and blockwise for groups. With
    `groups`, each group is left out as a whole; with fold numbers as groups, alpha is chosen by
    k-fold cross-validation.

    Parameters
    ----------
    X
        Features, any unit. Products are in float32 unless X is float64; sums over blocks of
        features are in float64.
    Y
        Targets, such as repeat-averaged responses, any unit. Without NaN.
    alphas
        Penalties to choose from, absolute and above 0. By default 17 from 1e-4 to 1e4 times the
        kernel's mean eigenvalue, so that scaling the features changes nothing.
    standardize
        Whether to z-score each feature over stimuli (ddof 0); constant features stay 0. Scales
        are not recomputed for each left-out stimulus.
    groups
        Label of what must be left out together, such as copies of one image. By default each
        stimulus is alone.
    device
        Where products and decompositions are computed, "cpu" or "cuda"; it needs float64.

    Returns
    -------
    RidgeFit
        NumPy arrays wherever they were computed. Constant targets have zero dual coefficients:
        their prediction is their mean, at the largest alpha.

    Raises
    ------
    InputError
        If shapes disagree, there are fewer than two stimuli or groups, features or targets hold
        NaN or infinity (the message names the columns), or an alpha is not above 0 and finite.

    Notes
    -----
    The left-out predictions at the chosen alpha were used to choose it: as a score they are
    slightly too good; :func:`cross_val_predict_mapping` mends that. They also correlate negatively
    with a target that cannot be predicted, as a left-out mean is low where the target is high, the
    more so the larger alpha (r tends to -1); :func:`recentre_held_out` removes that bias.

    References
    ----------
    Hastie, Tibshirani & Friedman (2009), The Elements of Statistical Learning, section 7.10.1
    (left-out residuals of a linear smoother); Hoerl & Kennard (1970), Technometrics 12: 55-67.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(60, 500))
    >>> fit = fit_ridge_loo(X, X[:, :2] + 3.0)
    >>> predict_ridge(X, ridge_coefficients(X, fit), fit).shape, fit.held_out_predictions.shape
    ((60, 2), (60, 2))
    """
    check_features_and_targets(X, Y)
    mean, scale = feature_moments(X) if standardize else (feature_mean(X), None)
    if X.shape[1] < X.shape[0]:
        centred = centred_block(X, slice(None), mean, scale, device).double()
        epsilon = float(np.finfo(working_dtype(X)).eps)
        spectrum = spectrum_of_features(centred - centred.mean(0), epsilon)
    else:
        spectrum = spectrum_of_kernel(centred_kernel(X, mean, scale, device))
    return solve_ridge(spectrum, Y, alphas, held_out_blocks(X.shape[0], groups), mean, scale)


def solve_ridge(
    spectrum: Spectrum,
    Y: Float[np.ndarray, "n_stimuli n_targets"],
    alphas: npt.ArrayLike | None,
    blocks: list[Int[np.ndarray, " _"]],
    mean: Float[np.ndarray, " n_features"],
    scale: Float[np.ndarray, " n_features"] | None,
) -> RidgeFit:
    """Return the fit given the spectrum: centre targets, choose alphas, solve the dual."""
    grid = absolute_alphas(alphas, spectrum)
    constant = Y.max(axis=0) == Y.min(axis=0)
    Y = Y.astype(np.float64)
    target_mean = np.where(constant, Y[0], Y.mean(axis=0))
    centred = torch.from_numpy(Y - target_mean).to(spectrum.vectors)
    sets = [torch.from_numpy(block).to(centred.device) for block in blocks]
    alpha, residuals = choose_alphas(spectrum, centred, grid.tolist(), sets)
    return RidgeFit(
        alpha=_to_numpy(alpha),
        alphas=grid,
        dual=_to_numpy(dual_coefficients(spectrum, centred, alpha)),
        feature_mean=mean,
        feature_scale=scale,
        target_mean=target_mean,
        held_out_predictions=Y - _to_numpy(residuals),
    )


def _to_numpy(values: Float[Tensor, "..."]) -> Float[np.ndarray, "..."]:
    return np.asarray(values.cpu().numpy())


def ridge_coefficients(
    X: Float[np.ndarray, "n_stimuli n_features"], fit: RidgeFit, *, device: str = "cpu"
) -> Float[np.ndarray, "n_features n_targets"]:
    """Return coefficients for features in their own units, given the features fitted on.

    Parameters
    ----------
    X
        The features `fit` was made from.
    fit
        From :func:`fit_ridge_loo`.
    device
        Where the products are computed, "cpu" or "cuda".

    Returns
    -------
    Float[np.ndarray, "n_features n_targets"]
        float64 for float64 features, else float32.

    Raises
    ------
    InputError
        If X has another shape than the features fitted on.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.eye(4)
    >>> ridge_coefficients(X, fit_ridge_loo(X, X[:, :1])).shape
    (4, 1)
    """
    expected = (fit.dual.shape[0], fit.feature_mean.shape[0])
    if X.shape != expected:
        raise InputError(
            f"X must be the features the fit was made from, of shape {expected}, got {X.shape}"
        )
    coefficients = transposed_features_times(X, fit.feature_mean, fit.dual, device)
    if fit.feature_scale is None:
        return coefficients
    scale = fit.feature_scale[:, None]  # once for the features, once for their coefficients
    return np.asarray(coefficients / scale / scale, dtype=coefficients.dtype)


def predict_ridge(
    X: Float[np.ndarray, "n_new n_features"],
    coefficients: Float[np.ndarray, "n_features n_targets"],
    fit: RidgeFit,
    *,
    device: str = "cpu",
) -> Float[np.ndarray, "n_new n_targets"]:
    """Return predictions for new stimuli, float64, in the targets' units.

    Parameters
    ----------
    X
        Features of the new stimuli.
    coefficients
        From :func:`ridge_coefficients`.
    fit
        From :func:`fit_ridge_loo`.
    device
        Where the products are computed, "cpu" or "cuda".

    Returns
    -------
    Float[np.ndarray, "n_new n_targets"]
        Products in X's precision, sums over blocks of features in float64.

    Raises
    ------
    InputError
        If X has another number of features than the fit.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.eye(4)
    >>> fit = fit_ridge_loo(X, np.full((4, 1), 7.0))
    >>> predict_ridge(X[:1], ridge_coefficients(X, fit), fit)
    array([[7.]])
    """
    n_features = fit.feature_mean.shape[0]
    if X.ndim != 2 or X.shape[1] != n_features:
        raise InputError(f"X must be (n_stimuli, {n_features}) as fitted, got shape {X.shape}")
    return np.asarray(features_times(X, fit.feature_mean, coefficients, device) + fit.target_mean)


def absolute_alphas(
    alphas: npt.ArrayLike | None, spectrum: Spectrum
) -> Float[np.ndarray, " n_alphas"]:
    """Return the grid of penalties, made from the spectrum if none is given."""
    if alphas is None:
        return np.asarray(RELATIVE_ALPHAS * spectrum.mean_value)
    grid = np.atleast_1d(np.asarray(alphas, dtype=np.float64))
    if grid.ndim != 1 or grid.size == 0 or not (np.isfinite(grid) & (grid > 0)).all():
        raise InputError(
            f"alphas must be one or more finite penalties above 0, got {alphas!r}; None makes a "
            "grid that fits the features' scale"
        )
    return grid


def held_out_blocks(
    n_stimuli: int, groups: Shaped[np.ndarray, "..."] | None
) -> list[Int[np.ndarray, " _"]]:
    """Return the sets of two or more stimuli that are left out together."""
    if groups is None:
        return []
    check_groups(groups, n_stimuli)
    _, label, size = np.unique(groups, return_inverse=True, return_counts=True)
    if size.size < 2:
        raise InputError("groups must differ: got one group, so nothing remains to fit on")
    return [np.flatnonzero(label == index) for index in np.flatnonzero(size > 1)]


def check_features_and_targets(X: Shaped[np.ndarray, "..."], Y: Shaped[np.ndarray, "..."]) -> None:
    """Raise InputError unless X and Y are matrices over the same stimuli and Y is finite."""
    if X.ndim != 2 or Y.ndim != 2 or X.shape[0] != Y.shape[0]:
        raise InputError(
            "X must be (n_stimuli, n_features) and Y (n_stimuli, n_targets) over the same "
            f"stimuli, got {X.shape} and {Y.shape}"
        )
    if X.shape[0] < 2 or X.shape[1] < 1:
        raise InputError(f"ridge needs at least 2 stimuli and 1 feature, got X {X.shape}")
    check_targets(Y)
