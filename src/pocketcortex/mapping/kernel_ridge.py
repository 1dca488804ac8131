"""Ridge regression from a kernel over stimuli: held-out predictions, no features at hand."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from pocketcortex.core.errors import InputError
from pocketcortex.mapping._spectrum import held_out_residuals, spectrum_of_kernel
from pocketcortex.mapping.folds import check_targets
from pocketcortex.mapping.ridge import absolute_alphas, held_out_blocks, solve_ridge


@dataclass(frozen=True)
class KernelPredictions:
    """What ridge regression makes of stimuli it was not fitted on.

    Attributes
    ----------
    predictions
        In the targets' units, (n_test, n_targets).
    alpha
        Penalty of each target, (n_targets,).
    training_error
        Mean squared error of each target over the training stimuli, each (or its group) left out
        in turn, at the chosen alpha, (n_targets,): what a choice between kernels can go by.
    """

    predictions: Float64[np.ndarray, "n_test n_targets"]
    alpha: Float64[np.ndarray, " n_targets"]
    training_error: Float64[np.ndarray, " n_targets"]


def predict_from_kernel(
    kernel: Float[np.ndarray, "n_stimuli n_stimuli"],
    Y: Float[np.ndarray, "n_stimuli n_targets"],
    test: Shaped[np.ndarray, " n_stimuli"],
    *,
    alphas: npt.ArrayLike | None = None,
    groups: Shaped[np.ndarray, " n_stimuli"] | None = None,
) -> KernelPredictions:
    """Return predictions for the test stimuli by ridge fitted to the others.

    The kernel is centred anew about the training mean, so that the result is that of features
    centred without the test stimuli; one alpha per target is chosen by exact leave-one-out (or
    leave-one-group-out) error within the training stimuli.

    Parameters
    ----------
    kernel
        Inner products of all stimuli's features, about any common centre; positive semidefinite.
    Y
        Targets of all stimuli, without NaN; those of the test stimuli are not read.
    test
        Which stimuli are predicted, a boolean mask.
    alphas
        Penalties to choose from, absolute and above 0. By default 17 from 1e-4 to 1e4 times the
        training kernel's mean eigenvalue.
    groups
        Label of what is left out together in the choice of alpha.

    Returns
    -------
    KernelPredictions
        In the order of the test stimuli.

    Raises
    ------
    InputError
        If shapes disagree, the mask leaves fewer than two stimuli to fit on or none to predict,
        kernel or targets hold NaN or infinity, or an alpha is not above 0 and finite.

    References
    ----------
    Saunders, Gammerman & Vovk (1998), Ridge regression learning algorithm in dual variables, ICML.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(60, 20))
    >>> test = np.arange(60) >= 40
    >>> found = predict_from_kernel(X @ X.T, X[:, :2] + 3, test)
    >>> bool(np.abs(found.predictions - X[40:, :2] - 3).max() < 0.1)
    True
    """
    check_kernel(kernel, Y)
    if test.shape != (len(Y),) or test.dtype != np.bool_:
        raise InputError(f"test must be a mask of {len(Y)} stimuli, got {test.dtype} {test.shape}")
    held_out, train = np.flatnonzero(test), np.flatnonzero(~test)
    if train.size < 2 or held_out.size < 1:
        raise InputError(
            f"test must leave 2 stimuli or more to fit on and 1 to predict, got {train.size} and "
            f"{held_out.size}"
        )
    whole = torch.from_numpy(kernel.astype(np.float64))
    inside, across = recentred(whole[train][:, train], whole[held_out][:, train])
    blocks = held_out_blocks(train.size, None if groups is None else groups[train])
    fit = solve_ridge(spectrum_of_kernel(inside), Y[train], alphas, blocks, np.empty(0), None)
    error = np.square(Y[train] - fit.held_out_predictions).mean(axis=0)
    predictions = across.numpy() @ fit.dual + fit.target_mean
    return KernelPredictions(predictions, fit.alpha, error)


def leave_one_out_from_kernel(
    kernel: Float[np.ndarray, "n_stimuli n_stimuli"],
    Y: Float[np.ndarray, "n_stimuli n_targets"],
    *,
    alpha: float,
    groups: Shaped[np.ndarray, " n_stimuli"] | None = None,
) -> Float64[np.ndarray, "n_stimuli n_targets"]:
    """Return each stimulus's prediction by ridge of one penalty fitted without it (or its group).

    Exact, from one eigendecomposition. Pearson's r from these predictions is biased downwards for
    targets that cannot be predicted: see :func:`recentre_held_out`.

    Parameters
    ----------
    kernel
        As for :func:`predict_from_kernel`.
    Y
        Targets, without NaN.
    alpha
        Penalty of all targets, above 0.
    groups
        Label of what is left out together; by default each stimulus is alone.

    Returns
    -------
    Float64[np.ndarray, "n_stimuli n_targets"]
        In the targets' units.

    Raises
    ------
    InputError
        If shapes disagree, there are fewer than two stimuli or groups, kernel or targets hold NaN
        or infinity, or alpha is not above 0 and finite.

    References
    ----------
    Hastie, Tibshirani & Friedman (2009), The Elements of Statistical Learning, section 7.10.1.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(60, 20))
    >>> left_out = leave_one_out_from_kernel(X @ X.T, X[:, :2], alpha=1.0)
    >>> bool(np.abs(left_out - X[:, :2]).max() < 0.3)
    True
    """
    check_kernel(kernel, Y)
    whole = torch.from_numpy(kernel.astype(np.float64))
    spectrum = spectrum_of_kernel(recentred(whole, whole)[0])
    penalty = absolute_alphas([alpha], spectrum)
    targets = Y.astype(np.float64)
    centred = torch.from_numpy(targets - targets.mean(axis=0))
    blocks = [torch.from_numpy(block) for block in held_out_blocks(len(Y), groups)]
    projected = spectrum.vectors.T @ centred
    residuals = held_out_residuals(spectrum, centred, projected, float(penalty[0]), blocks)
    return np.asarray(targets - residuals.numpy())


def recentred(
    inside: Float[Tensor, "n_train n_train"],
    across: Float[Tensor, "n_test n_train"],
) -> tuple[Float[Tensor, "n_train n_train"], Float[Tensor, "n_test n_train"]]:
    """Return kernels within training and from test to training, about the training mean."""
    column = inside.mean(0)
    grand = column.mean()
    return (
        inside - column - column[:, None] + grand,
        across - column - across.mean(1, keepdim=True) + grand,
    )


def check_kernel(
    kernel: Float[np.ndarray, "n_stimuli n_stimuli"], Y: Float[np.ndarray, "n_stimuli n_targets"]
) -> None:
    """Raise InputError unless kernel and targets are finite, over the same 2 stimuli or more."""
    n = len(Y)
    if Y.ndim != 2 or kernel.shape != (n, n) or n < 2:
        raise InputError(
            "kernel must be (n_stimuli, n_stimuli) and Y (n_stimuli, n_targets) over the same 2 "
            f"stimuli or more, got {kernel.shape} and {Y.shape}"
        )
    if not np.isfinite(kernel).all():
        raise InputError(
            "the kernel must be finite; leave out layers with NaN or infinite features"
        )
    check_targets(Y)
