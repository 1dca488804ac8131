"""Held-out predictions for every stimulus by any estimator, all its choices made inside folds."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped
from sklearn.base import clone
from sklearn.utils.validation import has_fit_parameter

from pocketcortex.core.errors import InputError
from pocketcortex.mapping._products import centred_kernel, feature_mean
from pocketcortex.mapping._spectrum import spectrum_of_kernel
from pocketcortex.mapping.folds import check_targets, recentre_held_out, stimulus_folds
from pocketcortex.mapping.kernel_ridge import recentred
from pocketcortex.mapping.ridge import held_out_blocks, solve_ridge
from pocketcortex.mapping.ridge_estimator import RidgeLOO, left_out_together


def cross_val_predict_mapping(
    estimator: Any,
    X: Shaped[np.ndarray, "n_stimuli ..."],
    Y: Float[np.ndarray, "n_stimuli n_targets"],
    *,
    n_folds: int = 8,
    rng: np.random.Generator,
    groups: Shaped[np.ndarray, "..."] | None = None,
    recentre: bool = False,
) -> Float[np.ndarray, "n_stimuli n_targets"]:
    """Return each stimulus's prediction by a clone of the estimator fitted on the other folds.

    Whatever the estimator chooses in `fit` (penalty, number of components, steps) it chooses from
    the training folds alone. For `RidgeLOO` with more features than stimuli and without
    standardizing, the kernel is computed once for all folds; the result is the same.

    As a score these predictions are unbiased for models trained on 1 - 1/n_folds of the stimuli,
    so slightly low for one trained on all. Each fold's predictions lie about its training mean,
    which is low where the fold's targets are high: a correlation over all stimuli comes out
    negative for targets that cannot be predicted. `recentre` mends that.

    Parameters
    ----------
    estimator
        Any scikit-learn regressor of many targets; it is cloned, never fitted itself.
    X
        Features (n_stimuli, n_features), or maps (n_stimuli, channels, rows, columns) for an
        estimator that takes them.
    Y
        Targets, such as repeat-averaged responses, any unit. Without NaN.
    n_folds
        Number of folds, from 2 to the number of groups.
    rng
        Source of the folds, drawn by one call of :func:`stimulus_folds`.
    groups
        Label of what must stay in one fold, such as the content of an image. Handed on to
        estimators whose `fit` takes `groups`, for their inner choices.
    recentre
        Whether to put all predictions about the mean of all targets, for use in correlations; see
        :func:`recentre_held_out`. False leaves them blind to the held-out targets.

    Returns
    -------
    Float[np.ndarray, "n_stimuli n_targets"]
        float64, in the targets' units.

    Raises
    ------
    InputError
        If shapes disagree, targets hold NaN or infinity, or `n_folds` or `groups` is out of range.
        What the estimator raises comes through.

    References
    ----------
    Stone (1974), Cross-validatory choice and assessment of statistical predictions, Journal of
    the Royal Statistical Society B 36: 111-147 (the double cross).

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 20)).repeat(20, axis=1)
    >>> predictions = cross_val_predict_mapping(RidgeLOO(), X, X[:, :1], n_folds=4, rng=rng)
    >>> bool(np.corrcoef(predictions[:, 0], X[:, 0])[0, 1] > 0.99)
    True
    """
    if X.ndim < 2 or Y.ndim != 2 or X.shape[0] != Y.shape[0]:
        raise InputError(
            "X must be (n_stimuli, ...) and Y (n_stimuli, n_targets) over the same stimuli, got "
            f"{X.shape} and {Y.shape}"
        )
    check_targets(Y)
    folds = stimulus_folds(X.shape[0], n_folds=n_folds, rng=rng, groups=groups)
    wide = X.ndim == 2 and X.shape[1] >= X.shape[0]
    if isinstance(estimator, RidgeLOO) and wide and not estimator.standardize:
        predictions = _ridge_from_one_kernel(estimator, X, Y, folds, groups)
    else:
        predictions = np.empty(Y.shape)
        for fold in range(n_folds):
            train, test = folds != fold, folds == fold
            fitted = _fit(clone(estimator), X[train], Y[train], groups, train)
            predictions[test] = np.reshape(fitted.predict(X[test]), (-1, Y.shape[1]))
    return recentre_held_out(Y, predictions, folds=folds) if recentre else predictions


def _fit(
    estimator: Any,
    X: Shaped[np.ndarray, "n_train ..."],
    Y: Shaped[np.ndarray, "n_train n_targets"],
    groups: Shaped[np.ndarray, "..."] | None,
    train: Shaped[np.ndarray, "..."],
) -> Any:
    if groups is not None and has_fit_parameter(estimator, "groups"):
        return estimator.fit(X, Y, groups=groups[train])
    return estimator.fit(X, Y)


def _ridge_from_one_kernel(
    ridge: RidgeLOO,
    X: Float[np.ndarray, "n_stimuli n_features"],
    Y: Float[np.ndarray, "n_stimuli n_targets"],
    folds: Int[np.ndarray, " n_stimuli"],
    groups: Shaped[np.ndarray, "..."] | None,
) -> Float[np.ndarray, "n_stimuli n_targets"]:
    """Return the same predictions from one kernel, centred anew about each fold's training mean."""
    kernel = centred_kernel(X, feature_mean(X), None, ridge.device)
    predictions = np.empty(Y.shape)
    for fold in range(int(folds.max()) + 1):
        test, train = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        inside, across = recentred(kernel[train][:, train], kernel[test][:, train])
        inner = None if groups is None else groups[train]
        blocks = held_out_blocks(
            train.size, left_out_together(train.size, ridge.inner_folds, inner)
        )
        spectrum = spectrum_of_kernel(inside)
        fit = solve_ridge(spectrum, Y[train], ridge.alphas, blocks, np.empty(0), None)
        predictions[test] = across.cpu().numpy() @ fit.dual + fit.target_mean
    return predictions
