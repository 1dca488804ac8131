"""The scikit-learn face of the leave-one-out ridge solver."""

from typing import Any

import numpy as np
from jaxtyping import Shaped

from pocketcortex.mapping._linear import LinearMapping
from pocketcortex.mapping._products import mean_prediction
from pocketcortex.mapping._validation import checked_training
from pocketcortex.mapping.folds import inner_folds_of
from pocketcortex.mapping.ridge import (
    fit_ridge_loo,
    ridge_coefficients,
)


class RidgeLOO(LinearMapping):
    """Ridge regression with one alpha per target, chosen by exact held-out error.

    The scikit-learn estimator over :func:`fit_ridge_loo`, which documents the solver. Built for
    many more features than stimuli; fitting costs one kernel and one eigendecomposition.

    Parameters
    ----------
    alphas
        Array-like of penalties to choose from, absolute and above 0. None makes 17 from 1e-4 to
        1e4 times the mean eigenvalue of the features' kernel.
    standardize
        Whether to z-score each feature over the training stimuli (ddof 0).
    inner_folds
        None chooses alpha by leaving out one stimulus (or group) at a time; a number chooses it by
        that many folds, dealt out over the stimuli in their order. Both are exact and refit-free.
    device
        Where products and decompositions are computed, "cpu" or "cuda".

    Attributes
    ----------
    alpha_
        Alpha chosen for each target, (n_targets,).
    alphas_
        The grid it was chosen from, (n_alphas,).
    coef_
        Coefficients of the features in their own units, (n_features, n_targets); scikit-learn's
        linear models keep the transpose.
    intercept_
        Prediction at all features 0, (n_targets,).
    held_out_predictions_
        Prediction of each training stimulus by a model fitted without it (its group, its fold), in
        the targets' units, (n_stimuli, n_targets). As a score they are slightly too good, since
        alpha was chosen by them. Pearson's r from them is biased downwards, to -1 for a target that
        cannot be predicted at a large alpha: see :func:`recentre_held_out`.
    loo_predictions_
        The same, present if stimuli were left out one by one.
    solution_
        The dual solution, a `RidgeFit`.
    n_features_in_
        Number of features.

    With one-dimensional targets the axis of targets is absent everywhere.

    References
    ----------
    Hastie, Tibshirani & Friedman (2009), The Elements of Statistical Learning, section 7.10.1.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(80, 300))
    >>> ridge = RidgeLOO().fit(X, X[:, :2])
    >>> ridge.coef_.shape, ridge.predict(X).shape
    ((300, 2), (80, 2))
    """

    def __init__(
        self,
        alphas: Any = None,
        *,
        standardize: Any = False,
        inner_folds: Any = None,
        device: Any = "cpu",
    ) -> None:
        self.alphas = alphas
        self.standardize = standardize
        self.inner_folds = inner_folds
        self.device = device

    def fit(self, X: Any, y: Any, groups: Any = None) -> "RidgeLOO":
        """Return the estimator fitted to features (n_stimuli, n_features) and targets.

        Parameters
        ----------
        X
            Features, array-like; floats stay as they are (products in float32 unless float64), all
            else becomes float64.
        y
            Targets, (n_stimuli, n_targets) or (n_stimuli,), any unit, without NaN.
        groups
            Label of what is left out together, such as the content of an image, (n_stimuli,).

        Returns
        -------
        RidgeLOO
            Itself.

        Raises
        ------
        InputError
            If features or targets hold NaN or infinity (the message names the columns), or an
            alpha, `inner_folds` or `groups` is out of range.
        ValueError
            From scikit-learn, for anything else that is not a numeric matrix of 2 stimuli or more.
        """
        X, targets, single = checked_training(self, X, y)
        labels = None if groups is None else np.asarray(groups)
        together = left_out_together(len(X), self.inner_folds, labels)
        fit = fit_ridge_loo(
            X,
            targets,
            alphas=self.alphas,
            standardize=self.standardize,
            groups=together,
            device=self.device,
        )
        coef = ridge_coefficients(X, fit, device=self.device)
        intercept = fit.target_mean - mean_prediction(fit.feature_mean, coef)
        self.solution_ = fit
        self._feature_mean, self._target_mean = fit.feature_mean, fit.target_mean
        self.alphas_ = fit.alphas
        self.alpha_ = fit.alpha[0] if single else fit.alpha
        self.coef_ = coef[:, 0] if single else coef
        self.intercept_ = intercept[0] if single else intercept
        held_out = fit.held_out_predictions
        self.held_out_predictions_ = held_out[:, 0] if single else held_out
        if together is None:
            self.loo_predictions_ = self.held_out_predictions_
        return self


def left_out_together(
    n_stimuli: int, inner_folds: int | None, groups: Shaped[np.ndarray, "..."] | None
) -> Shaped[np.ndarray, "..."] | None:
    """Return the label of what is left out together while choosing; None if one by one."""
    return groups if inner_folds is None else inner_folds_of(n_stimuli, inner_folds, groups)
