"""Folds that keep groups whole, and held-out predictions about one common mean."""

import numpy as np
from jaxtyping import Float, Int, Shaped
from sklearn.model_selection import GroupKFold

from pocketcortex.core.errors import InputError


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


def inner_folds_of(
    n_stimuli: int, n_folds: int, groups: Shaped[np.ndarray, "..."] | None
) -> Int[np.ndarray, " n_stimuli"]:
    """Return folds dealt out like cards, in order of first appearance; groups stay whole.

    Without chance, so that an estimator fitted twice is the same estimator. Neighbours in the order
    of stimuli land in different folds.

    Raises
    ------
    InputError
        If `n_folds` is not from 2 to the number of groups, or groups have a wrong shape.
    """
    if groups is not None:
        check_groups(groups, n_stimuli)
    labels = np.arange(n_stimuli) if groups is None else groups
    _, first, label = np.unique(labels, return_index=True, return_inverse=True)
    if not 2 <= n_folds <= first.size:
        raise InputError(
            f"inner_folds must be from 2 to the number of groups of stimuli ({first.size}), got "
            f"{n_folds}"
        )
    rank = np.empty(first.size, dtype=np.int64)
    rank[np.argsort(first)] = np.arange(first.size)
    return np.asarray(rank[label] % n_folds)


def recentre_held_out(
    Y: Float[np.ndarray, "n_stimuli n_targets"],
    predictions: Float[np.ndarray, "n_stimuli n_targets"],
    *,
    folds: Shaped[np.ndarray, "..."] | None = None,
) -> Float[np.ndarray, "n_stimuli n_targets"]:
    r"""Return held-out predictions about the mean of all targets, for use in a correlation.

    A model with an intercept predicts, for stimuli F held out together, the training mean
    :math:`\bar y_{-F}` plus what it makes of the features. That mean is low where the held-out
    targets are high, so predictions correlate negatively with targets that cannot be predicted:
    the expected sum over stimuli of :math:`(y_i - \bar y) \hat y_i` is :math:`-\sigma^2`, whatever
    the folds. The stronger the penalty, the more it is all there is: leave-one-out predictions tend
    to r = -1, k-fold predictions to about :math:`-\sqrt{(k-1)/(n-1)}`, and r² says the opposite of
    the truth. Here :math:`\bar y_{-F}` is replaced by :math:`\bar y`:

    .. math::
        \hat y_i' = \hat y_i + \bar y - \bar y_{-F}, \qquad
        \bar y_{-F} = (n \bar y - \sum_{j \in F} y_j) / (n - |F|)

    For a linear smoother the rest is :math:`g_i = \sum_{j \notin F} c_{ij} y_j` with
    :math:`\sum_j c_{ij} = 0`, as constants go into the intercept. Hence, for targets independent
    of the features and of each other, :math:`E[(y_i - \bar y) g_i] = -\sigma^2 / n \sum_j c_{ij}
    = 0` exactly, at any fixed penalty: the bias is gone, not turned around.

    What it does not change: r² of noise is up to 2/n rather than 1/n, as two stimuli predict each
    other by the same product of features (119 stimuli, 4,096 features of noise: 1.9/n to 2.0/n at
    alphas from 1 to 1e7). And where each fold chooses its own penalty, a smaller negative bias
    remains, as folds that learned something by chance find its opposite in what they left out
    (there: r of -0.06 with 5 folds and the default grid, -0.13 before).

    Parameters
    ----------
    Y
        All targets, any unit.
    predictions
        Of each target by a model fitted without its fold, same unit.
    folds
        Fold (or group) of each stimulus, (n_stimuli,); None means each was left out alone.

    Returns
    -------
    Float[np.ndarray, "n_stimuli n_targets"]
        For scores such as Pearson's r that leave out the mean. They are no longer blind to the
        held-out targets: no squared error, and no choice of a penalty, should be made from them.

    Raises
    ------
    InputError
        If shapes disagree, there is one fold alone, or values are not finite.

    References
    ----------
    The derivation above. The bias is described by Parker, Günter & Bedo (2007), Stratification
    bias in low signal microarray studies, BMC Bioinformatics 8: 326.

    Examples
    --------
    >>> import numpy as np
    >>> Y = np.array([[1.0], [2.0], [6.0]])
    >>> left_out_means = (Y.sum(axis=0) - Y) / 2
    >>> recentre_held_out(Y, left_out_means)[:, 0]
    array([3., 3., 3.])
    """
    if Y.ndim != 2 or Y.shape != predictions.shape:
        raise InputError(
            "Y and predictions must both be (n_stimuli, n_targets), got "
            f"{Y.shape} and {predictions.shape}"
        )
    check_targets(Y)
    check_targets(predictions)
    n = Y.shape[0]
    if folds is not None:
        check_groups(folds, n)
    _, label, size = np.unique(
        np.arange(n) if folds is None else folds, return_inverse=True, return_counts=True
    )
    if size.size < 2:
        raise InputError("folds must differ: got one fold, so nothing was left to fit on")
    total = np.zeros((size.size, Y.shape[1]))
    centred = Y - Y.mean(axis=0, dtype=np.float64)  # so that the mean of all is 0
    np.add.at(total, label, centred)
    training_mean = -total / (n - size)[:, None]
    return np.asarray(predictions - training_mean[label])


def check_groups(groups: Shaped[np.ndarray, "..."], n_stimuli: int) -> None:
    """Raise InputError unless there is one label a stimulus."""
    if groups.shape != (n_stimuli,):
        raise InputError(
            f"groups must hold one label a stimulus, shape ({n_stimuli},), got {groups.shape}"
        )


def check_targets(Y: Shaped[np.ndarray, "n_stimuli n_targets"]) -> None:
    """Raise InputError naming the columns if targets hold NaN or infinity."""
    bad = np.flatnonzero(~np.isfinite(Y).all(axis=0))
    if bad.size:
        raise InputError(
            f"targets must be finite, got NaN or infinity in {bad.size} of {Y.shape[1]} "
            f"column(s), first {bad[:10].tolist()}; drop those neurons, or fit them apart on the "
            "stimuli they were shown"
        )


def check_targets_vary(Y: Shaped[np.ndarray, "n_stimuli n_targets"]) -> None:
    """Raise InputError naming the columns if targets do not vary over stimuli."""
    flat = np.flatnonzero(Y.max(axis=0) == Y.min(axis=0))
    if flat.size:
        raise InputError(
            f"targets must vary over the stimuli fitted on, got {flat.size} of {Y.shape[1]} "
            f"constant column(s), first {flat[:10].tolist()}; drop those neurons"
        )
