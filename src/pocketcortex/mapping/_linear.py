"""What estimators of one coefficient a feature share."""

from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from pocketcortex.mapping._products import features_times
from pocketcortex.mapping._validation import checked_new


class LinearMapping(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """Predict from ``coef_`` about the training means, which `fit` keeps."""

    device: Any
    coef_: Any
    _feature_mean: Float[np.ndarray, " n_features"]
    _target_mean: Float[np.ndarray, " n_targets"]

    def predict(self, X: Any) -> Float[np.ndarray, "..."]:
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
        InputError
            If features hold NaN or infinity.
        ValueError
            From scikit-learn: not fitted, or another number of features.
        """
        check_is_fitted(self)
        X = checked_new(self, X)
        single = self.coef_.ndim == 1
        coef = self.coef_[:, None] if single else self.coef_
        predictions = features_times(X, self._feature_mean, coef, self.device) + self._target_mean
        return np.asarray(predictions[:, 0] if single else predictions)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
