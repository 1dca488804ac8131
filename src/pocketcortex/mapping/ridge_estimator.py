"""The scikit-learn face of the leave-one-out ridge solver."""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from pocketcortex.mapping.ridge import (
    check_targets,
    fit_ridge_loo,
    predict_ridge,
    ridge_coefficients,
)


class RidgeLOO(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """Ridge regression with one alpha per target, chosen by exact leave-one-out error.

    The scikit-learn estimator over :func:`fit_ridge_loo`, which documents the solver. Built for
    many more features than stimuli; fitting costs one kernel and one eigendecomposition.

    Parameters
    ----------
    alphas
        Array-like of penalties to choose from, absolute and above 0. None makes 17 from 1e-4 to
        1e4 times the mean eigenvalue of the features' kernel.
    standardize
        Whether to z-score each feature over the training stimuli (ddof 0).

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
    loo_predictions_
        Prediction of each training stimulus by a model fitted without it, in the targets' units,
        (n_stimuli, n_targets). As a score they are slightly too good, since alpha was chosen by
        them.
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

    def __init__(self, alphas: Any = None, *, standardize: Any = False) -> None:
        self.alphas = alphas
        self.standardize = standardize

    def fit(self, X: Any, y: Any) -> "RidgeLOO":
        """Return the estimator fitted to features (n_stimuli, n_features) and targets.

        Parameters
        ----------
        X
            Features, array-like; float64 and float32 stay as they are, all else becomes float64.
        y
            Targets, (n_stimuli, n_targets) or (n_stimuli,), any unit, without NaN.

        Returns
        -------
        RidgeLOO
            Itself.

        Raises
        ------
        InputError
            If targets hold NaN or infinity (the message names the columns), or an alpha is not
            above 0 and finite.
        ValueError
            From scikit-learn, for anything else that is not a numeric matrix of 2 stimuli or more.
        """
        X, y = validate_data(
            self,
            X,
            y,
            validate_separately=(
                {"dtype": [np.float64, np.float32], "ensure_min_samples": 2},
                {"dtype": "numeric", "ensure_2d": False, "ensure_all_finite": False},
            ),
        )
        check_consistent_length(X, y)
        targets = np.asarray(y, dtype=np.float64)
        single = targets.ndim == 1
        targets = targets.reshape(len(targets), -1)
        check_targets(targets)
        fit = fit_ridge_loo(X, targets, alphas=self.alphas, standardize=self.standardize)
        coef = ridge_coefficients(X, fit)
        intercept = fit.target_mean - fit.feature_mean @ coef.astype(np.float64)
        self.solution_ = fit
        self.alphas_ = fit.alphas
        self.alpha_ = fit.alpha[0] if single else fit.alpha
        self.coef_ = coef[:, 0] if single else coef
        self.intercept_ = intercept[0] if single else intercept
        held_out = fit.held_out_predictions
        self.loo_predictions_ = held_out[:, 0] if single else held_out
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return predictions for features (n_stimuli, n_features), float64.

        Parameters
        ----------
        X
            Features, array-like, with as many features as fitted.

        Returns
        -------
        np.ndarray
            (n_stimuli, n_targets), or (n_stimuli,) if fitted to one-dimensional targets.

        Raises
        ------
        ValueError
            From scikit-learn: not fitted, not finite, or another number of features.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        single = self.coef_.ndim == 1
        coef = self.coef_[:, None] if single else self.coef_
        predictions = predict_ridge(X, coef, self.solution_)
        return predictions[:, 0] if single else predictions

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
