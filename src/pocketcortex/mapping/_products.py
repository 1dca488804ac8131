"""Products of wide feature matrices, a block of features at a time."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from pocketcortex.core.errors import InputError

_BLOCK = 4_000_000  # feature values centred at once
_ROUNDING = 64 * float(np.finfo(np.float64).eps)


def feature_moments(
    X: Float[np.ndarray, "n_stimuli n_features"],
) -> tuple[Float[np.ndarray, " n_features"], Float[np.ndarray, " n_features"]]:
    """Return means and standard deviations (ddof 0; 1 for a constant feature) in float64.

    Raises
    ------
    InputError
        If a feature holds NaN or infinity.
    """
    mean = feature_mean(X)
    sd = np.empty(X.shape[1])
    for block in _blocks(X):
        part = centred_block(X, block, mean, None)
        sd[block] = np.sqrt(np.square(part, out=part).mean(axis=0, dtype=np.float64))
    return mean, np.where(sd > _ROUNDING * np.abs(mean), sd, 1.0)


def feature_mean(X: Float[np.ndarray, "n_stimuli n_features"]) -> Float[np.ndarray, " n_features"]:
    """Return means over stimuli in float64.

    Raises
    ------
    InputError
        If a feature holds NaN or infinity.
    """
    with np.errstate(invalid="ignore"):  # infinities: refused below
        mean = np.asarray(X.mean(axis=0, dtype=np.float64))
    _refuse_not_finite(mean)
    return mean


def centred_kernel(
    X: Float[np.ndarray, "n_stimuli n_features"],
    mean: Float[np.ndarray, " n_features"],
    scale: Float[np.ndarray, " n_features"] | None = None,
) -> Float[np.ndarray, "n_stimuli n_stimuli"]:
    """Return inner products of centred features, products in X's precision, sums in float64."""
    kernel = np.zeros((X.shape[0], X.shape[0]))
    for block in _blocks(X):
        part = centred_block(X, block, mean, scale)
        kernel += part @ part.T
    kernel -= kernel.mean(axis=0)  # what rounding the means to X's precision left
    kernel -= kernel.mean(axis=1)[:, None]
    return (kernel + kernel.T) / 2


def features_times(
    X: Float[np.ndarray, "n_stimuli n_features"],
    mean: Float[np.ndarray, " n_features"],
    coefficients: Float[np.ndarray, "n_features n_targets"],
) -> Float[np.ndarray, "n_stimuli n_targets"]:
    """Return centred features times coefficients, summed over blocks in float64."""
    out = np.zeros((X.shape[0], coefficients.shape[1]))
    for block in _blocks(X):
        part = centred_block(X, block, mean, None)
        out += part @ coefficients[block].astype(part.dtype, copy=False)
    return out


def transposed_features_times(
    X: Float[np.ndarray, "n_stimuli n_features"],
    mean: Float[np.ndarray, " n_features"],
    dual: Float[np.ndarray, "n_stimuli n_targets"],
) -> Float[np.ndarray, "n_features n_targets"]:
    """Return the transposed centred features times dual coefficients, in X's precision."""
    dtype = working_dtype(X)
    out = np.empty((X.shape[1], dual.shape[1]), dtype=dtype)
    narrow = dual.astype(dtype, copy=False)
    for block in _blocks(X):
        out[block] = centred_block(X, block, mean, None).T @ narrow
    return out


def centred_block(
    X: Float[np.ndarray, "n_stimuli n_features"],
    block: slice,
    mean: Float[np.ndarray, " n_features"],
    scale: Float[np.ndarray, " n_features"] | None,
) -> Float[np.ndarray, "n_stimuli n_block"]:
    """Return a block of features, centred and divided by `scale` if given, as a new array."""
    dtype = working_dtype(X)
    part = X[:, block].astype(dtype)
    part -= mean[block].astype(dtype)
    if scale is not None:
        part /= scale[block].astype(dtype)
    return part


def working_dtype(X: Float[np.ndarray, "n_stimuli n_features"]) -> np.dtype[np.floating]:
    """Return float64 for float64 features and float32 for narrower ones."""
    return np.dtype(np.float64 if X.dtype == np.float64 else np.float32)


def _blocks(X: Float[np.ndarray, "n_stimuli n_features"]) -> Iterator[slice]:
    width = max(1, _BLOCK // max(1, X.shape[0]))
    for start in range(0, X.shape[1], width):
        yield slice(start, min(start + width, X.shape[1]))


def _refuse_not_finite(mean: Float[np.ndarray, " n_features"]) -> None:
    bad = np.flatnonzero(~np.isfinite(mean))
    if bad.size:
        raise InputError(
            f"features must be finite, got NaN or infinity in {bad.size} feature(s), first "
            f"{bad[:10].tolist()}; drop those features or recompute them"
        )
