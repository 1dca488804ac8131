"""Products of wide feature matrices, a block of features at a time."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pocketcortex.core.errors import InputError

_BLOCK = 16_000_000  # feature values centred at once
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
        part = centred_block(X, block, mean, None, "cpu")
        sd[block] = part.square_().mean(0, dtype=torch.float64).sqrt().numpy()
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
    check_finite_features(mean)
    return mean


def centred_kernel(
    X: Float[np.ndarray, "n_stimuli n_features"],
    mean: Float[np.ndarray, " n_features"],
    scale: Float[np.ndarray, " n_features"] | None,
    device: str,
) -> Float[Tensor, "n_stimuli n_stimuli"]:
    """Return inner products of centred features, products in X's precision, sums in float64."""
    kernel = torch.zeros((X.shape[0], X.shape[0]), dtype=torch.float64, device=device)
    for block in _blocks(X):
        part = centred_block(X, block, mean, scale, device)
        kernel += _gram(part)
    kernel -= kernel.mean(0)  # what rounding the means to X's precision left
    kernel -= kernel.mean(1, keepdim=True)
    return (kernel + kernel.T) / 2


def _gram(part: Float[Tensor, "n_stimuli n_block"]) -> Float[Tensor, "n_stimuli n_stimuli"]:
    if part.device.type != "cpu":
        return part @ part.T
    rows = part.numpy()
    return torch.from_numpy(rows @ rows.T)  # NumPy computes one triangle alone


def mean_prediction(
    mean: Float[np.ndarray, " n_features"], coefficients: Float[np.ndarray, "n_features n_targets"]
) -> Float[np.ndarray, " n_targets"]:
    """Return the features' means times coefficients, in float64 without copying them all."""
    out = np.zeros(coefficients.shape[1])
    for start in range(0, len(mean), 4096):
        part = slice(start, start + 4096)
        out += mean[part] @ coefficients[part].astype(np.float64, copy=False)
    return out


def features_times(
    X: Float[np.ndarray, "n_stimuli n_features"],
    mean: Float[np.ndarray, " n_features"],
    coefficients: Float[np.ndarray, "n_features n_targets"],
    device: str,
) -> Float[np.ndarray, "n_stimuli n_targets"]:
    """Return centred features times coefficients, summed over blocks in float64."""
    shape = (X.shape[0], coefficients.shape[1])
    out = torch.zeros(shape, dtype=torch.float64, device=device)
    for block in _blocks(X):
        part = centred_block(X, block, mean, None, device)
        out += part @ torch.from_numpy(coefficients[block]).to(part)
    return out.cpu().numpy()


def transposed_features_times(
    X: Float[np.ndarray, "n_stimuli n_features"],
    mean: Float[np.ndarray, " n_features"],
    dual: Float[np.ndarray, "n_stimuli n_targets"],
    device: str,
) -> Float[np.ndarray, "n_features n_targets"]:
    """Return the transposed centred features times dual coefficients, in X's precision."""
    out = np.empty((X.shape[1], dual.shape[1]), dtype=working_dtype(X))
    narrow = torch.from_numpy(dual.astype(out.dtype, copy=False)).to(device)
    for block in _blocks(X):
        out[block] = (centred_block(X, block, mean, None, device).T @ narrow).cpu().numpy()
    return out


def centred_block(
    X: Float[np.ndarray, "n_stimuli n_features"],
    block: slice,
    mean: Float[np.ndarray, " n_features"],
    scale: Float[np.ndarray, " n_features"] | None,
    device: str,
) -> Float[Tensor, "n_stimuli n_block"]:
    """Return a block of features, centred and divided by `scale` if given, as a new tensor."""
    part = torch.from_numpy(X[:, block].astype(working_dtype(X), order="C")).to(device)
    part -= torch.from_numpy(mean[block]).to(part)
    if scale is not None:
        part /= torch.from_numpy(scale[block]).to(part)
    return part


def working_dtype(X: Float[np.ndarray, "n_stimuli ..."]) -> np.dtype[np.floating]:
    """Return float64 for float64 features and float32 for narrower ones."""
    return np.dtype(np.float64 if X.dtype == np.float64 else np.float32)


def _blocks(X: Float[np.ndarray, "n_stimuli n_features"]) -> Iterator[slice]:
    width = max(1, _BLOCK // max(1, X.shape[0]))
    for start in range(0, X.shape[1], width):
        yield slice(start, min(start + width, X.shape[1]))


def check_finite_features(sums: Float[np.ndarray, " n_features"]) -> None:
    """Raise InputError naming the features whose mean or sum is not finite."""
    bad = np.flatnonzero(~np.isfinite(sums))
    if bad.size:
        raise InputError(
            f"features must be finite, got NaN or infinity in {bad.size} feature(s), first "
            f"{bad[:10].tolist()}; drop those features or recompute them"
        )
