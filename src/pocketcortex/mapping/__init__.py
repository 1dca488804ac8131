"""Regressions from features to responses: solvers on arrays, and scikit-learn estimators."""

from pocketcortex.mapping.cross_validation import cross_val_predict_ridge, stimulus_folds
from pocketcortex.mapping.ridge import (
    RidgeFit,
    fit_ridge_loo,
    predict_ridge,
    ridge_coefficients,
)
from pocketcortex.mapping.ridge_estimator import RidgeLOO

__all__ = [
    "RidgeFit",
    "RidgeLOO",
    "cross_val_predict_ridge",
    "fit_ridge_loo",
    "predict_ridge",
    "ridge_coefficients",
    "stimulus_folds",
]
