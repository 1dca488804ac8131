"""Regressions from features to responses: solvers on arrays, and scikit-learn estimators."""

from pocketcortex.mapping.cross_validation import cross_val_predict_mapping
from pocketcortex.mapping.factorized_estimator import FactorizedMapping
from pocketcortex.mapping.folds import recentre_held_out, stimulus_folds
from pocketcortex.mapping.kernel_ridge import (
    KernelPredictions,
    leave_one_out_from_kernel,
    predict_from_kernel,
)
from pocketcortex.mapping.pls import PLSMapping
from pocketcortex.mapping.ridge import (
    RidgeFit,
    fit_ridge_loo,
    predict_ridge,
    ridge_coefficients,
)
from pocketcortex.mapping.ridge_estimator import RidgeLOO

__all__ = [
    "FactorizedMapping",
    "KernelPredictions",
    "PLSMapping",
    "RidgeFit",
    "RidgeLOO",
    "cross_val_predict_mapping",
    "fit_ridge_loo",
    "leave_one_out_from_kernel",
    "predict_from_kernel",
    "predict_ridge",
    "recentre_held_out",
    "ridge_coefficients",
    "stimulus_folds",
]
