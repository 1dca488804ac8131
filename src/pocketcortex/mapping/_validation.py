"""What all estimators check at their door."""

from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.utils.validation import check_consistent_length, validate_data

from pocketcortex.mapping._products import check_finite_features
from pocketcortex.mapping.folds import check_targets

_FLOATS = [np.float64, np.float32, np.float16]


def checked_training(
    estimator: Any, X: Any, y: Any, *, maps: bool = False
) -> tuple[Float[np.ndarray, "n_stimuli ..."], Float[np.ndarray, "n_stimuli n_targets"], bool]:
    """Return features, finite targets as a float64 matrix, and whether y had one axis alone.

    With `maps`, features of more than two axes pass, and are checked to be finite; taking a
    matrix's means, the first thing its solvers do, checks the same.
    """
    X, y = validate_data(
        estimator,
        X,
        y,
        validate_separately=(
            _of_features(maps) | {"ensure_min_samples": 2},
            {"dtype": "numeric", "ensure_2d": False, "ensure_all_finite": False},
        ),
    )
    check_consistent_length(X, y)
    targets = np.asarray(y, dtype=np.float64)
    single = targets.ndim == 1
    targets = targets.reshape(len(targets), -1)
    if maps:
        check_features(X)
    check_targets(targets)
    return X, targets, single


def checked_new(estimator: Any, X: Any, *, maps: bool = False) -> Float[np.ndarray, "n_new ..."]:
    """Return finite features to predict from."""
    X = validate_data(estimator, X, reset=False, **_of_features(maps))
    check_features(X)
    return np.asarray(X)


def check_features(X: Float[np.ndarray, "n_stimuli ..."]) -> None:
    """Raise InputError naming the features, flattened, if any holds NaN or infinity."""
    with np.errstate(invalid="ignore", over="ignore"):
        sums = np.asarray(X.sum(axis=0, dtype=np.float64)).ravel()
    check_finite_features(sums)


def _of_features(maps: bool) -> dict[str, Any]:
    return {"dtype": _FLOATS, "allow_nd": maps, "ensure_all_finite": False}
