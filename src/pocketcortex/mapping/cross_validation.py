"""Held-out predictions for every stimulus: folds that keep groups whole, and nested ridge."""

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int, Shaped
from sklearn.model_selection import GroupKFold

from pocketcortex.core.errors import InputError
from pocketcortex.mapping._products import centred_kernel, feature_mean
from pocketcortex.mapping._spectrum import spectrum_of_kernel
from pocketcortex.mapping.ridge import (
    RidgeFit,
    check_features_and_targets,
    check_groups,
    fit_ridge_loo,
    held_out_blocks,
    predict_ridge,
    ridge_coefficients,
    solve_ridge,
)


def stimulus_folds(
    n_stimuli: int,
    *,
    n_folds: int,
    rng: np.random.Generator,
    groups: Shaped[np.ndarray, "..."] | None = None,
) -> Int[np.ndarray, " n_stimuli"]:
    """Return each stimulus's fold, 0 to n_folds - 1, at random.

    Every stimulus is in one fold and none is dropped. Folds hold equally many groups, give or
    take one; stimuli, unless `groups` is given.

    Parameters
    ----------
    n_stimuli
        Number of stimuli.
    n_folds
        Number of folds, from 2 to the number of groups.
    rng
        Source of the permutation.
    groups
        Label of what must stay together, such as the content of an image; copies then never
        straddle folds. By default each stimulus is alone.

    Returns
    -------
    Int[np.ndarray, "n_stimuli"]
        Fold numbers.

    Raises
    ------
    InputError
        If `groups` has another shape than (n_stimuli,) or `n_folds` is out of range.

    References
    ----------
    scikit-learn's `GroupKFold` with shuffling, which does the work.

    Examples
    --------
    >>> import numpy as np
    >>> folds = stimulus_folds(10, n_folds=5, rng=np.random.default_rng(0))
    >>> np.bincount(folds)
    array([2, 2, 2, 2, 2])
    """
    if groups is not None:
        check_groups(groups, n_stimuli)
    labels = np.arange(n_stimuli) if groups is None else np.unique(groups, return_inverse=True)[1]
    n_groups = np.unique(labels).size
    if not 2 <= n_folds <= n_groups:
        raise InputError(
            f"n_folds must be from 2 to the number of groups of stimuli ({n_groups}), got {n_folds}"
        )
    splitter = GroupKFold(n_folds, shuffle=True, random_state=int(rng.integers(2**32 - 1)))
    folds = np.empty(n_stimuli, dtype=np.int64)
    for fold, (_, test) in enumerate(splitter.split(labels, groups=labels)):
        folds[test] = fold
    return folds


def cross_val_predict_ridge(
    X: Float[np.ndarray, "n_stimuli n_features"],
    Y: Float[np.ndarray, "n_stimuli n_targets"],
    *,
    n_folds: int = 8,
    rng: np.random.Generator,
    alphas: npt.ArrayLike | None = None,
    standardize: bool = False,
    groups: Shaped[np.ndarray, "..."] | None = None,
) -> Float[np.ndarray, "n_stimuli n_targets"]:
    """Return each stimulus's prediction by a ridge fitted, alpha included, on the other folds.

    In each fold alpha is chosen for each target by leave-one-out (leave-one-group-out with
    `groups`) inside the training stimuli, and features are centred and scaled by them alone.
    Without standardizing and with more features than stimuli the kernel is computed once.

    As a score these predictions are unbiased for models trained on 1 - 1/n_folds of the stimuli,
    so slightly low for one trained on all. Fold means differ, which lowers a correlation over
    all stimuli slightly (by order n_folds/n_stimuli) for targets that cannot be predicted.

    Parameters
    ----------
    X
        Features, any unit. Products are in float32 unless X is float64.
    Y
        Targets, such as repeat-averaged responses, any unit. Without NaN.
    n_folds
        Number of folds, from 2 to the number of groups.
    rng
        Source of the folds.
    alphas
        Penalties to choose from, absolute and above 0; None makes a grid from each fold's
        features, see :func:`fit_ridge_loo`.
    standardize
        Whether to z-score each feature over each fold's training stimuli.
    groups
        Label of what must stay in one fold, such as the content of an image.

    Returns
    -------
    Float[np.ndarray, "n_stimuli n_targets"]
        float64, in the targets' units; constant targets get their mean.

    Raises
    ------
    InputError
        If shapes disagree, features or targets hold NaN or infinity (the message names the
        columns), or `n_folds`, `alphas` or `groups` is out of range.

    References
    ----------
    Stone (1974), Cross-validatory choice and assessment of statistical predictions, Journal of
    the Royal Statistical Society B 36: 111-147 (the double cross).

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 20)).repeat(20, axis=1)
    >>> predictions = cross_val_predict_ridge(X, X[:, :1], n_folds=4, rng=rng)
    >>> bool(np.corrcoef(predictions[:, 0], X[:, 0])[0, 1] > 0.99)
    True
    """
    check_features_and_targets(X, Y)
    folds = stimulus_folds(X.shape[0], n_folds=n_folds, rng=rng, groups=groups)
    once = not standardize and X.shape[1] >= X.shape[0]
    kernel = centred_kernel(X, feature_mean(X)) if once else None
    predictions = np.empty(Y.shape)
    for fold in range(n_folds):
        test, train = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        inner = None if groups is None else groups[train]
        if kernel is None:
            fit = fit_ridge_loo(
                X[train], Y[train], alphas=alphas, standardize=standardize, groups=inner
            )
            coefficients = ridge_coefficients(X[train], fit)
            predictions[test] = predict_ridge(X[test], coefficients, fit)
        else:
            inside, across = _recentre(kernel[np.ix_(train, train)], kernel[np.ix_(test, train)])
            fit = _fit_kernel(inside, Y[train], alphas, inner)
            predictions[test] = across @ fit.dual + fit.target_mean
    return predictions


def _recentre(
    inside: Float[np.ndarray, "n_train n_train"],
    across: Float[np.ndarray, "n_test n_train"],
) -> tuple[Float[np.ndarray, "n_train n_train"], Float[np.ndarray, "n_test n_train"]]:
    """Return kernels within training and from test to training, about the training mean."""
    column = inside.mean(axis=0)
    grand = column.mean()
    return (
        inside - column - column[:, None] + grand,
        across - column - across.mean(axis=1)[:, None] + grand,
    )


def _fit_kernel(
    kernel: Float[np.ndarray, "n_train n_train"],
    Y: Float[np.ndarray, "n_train n_targets"],
    alphas: npt.ArrayLike | None,
    groups: Shaped[np.ndarray, "..."] | None,
) -> RidgeFit:
    """Return the fit for a centred kernel; it has no features of its own."""
    blocks = held_out_blocks(kernel.shape[0], groups)
    return solve_ridge(spectrum_of_kernel(kernel), Y, alphas, blocks, np.empty(0), None)
