"""How far models lie apart on an image, and which images lie far from each other."""

import numpy as np
from jaxtyping import Float, Int

from pocketcortex.core import InputError

_CHUNK = 4_000_000  # float64 values held at once, 32 MB
_ROWS_AT_ONCE = 256


def disagreement(
    member_predictions: Float[np.ndarray, "n_members n_stimuli n_neurons"],
) -> Float[np.ndarray, " n_stimuli"]:
    r"""Return how far the members' population responses to each image lie apart.

    .. math:: u_i = \mathrm{median}_{k<l} \, \lVert r_{ki} - r_{li} \rVert

    with :math:`r_{ki}` member k's predictions for image i, a vector over neurons. It grows with
    the number of neurons, and is in their unit: predict z-scored responses, so that neurons of
    high rate do not decide alone.

    Parameters
    ----------
    member_predictions
        Of two members or more.

    Returns
    -------
    Float[np.ndarray, "n_stimuli"]
        float64, 0 or more. Beside the input, about 100 MB are held at most.

    Raises
    ------
    InputError
        If there are fewer than two members, no neuron, or a prediction is not finite.

    References
    ----------
    Cowley & Pillow (2020), High-contrast "gaudy" images improve the training of deep neural
    network models of visual cortex, NeurIPS 33, and its public code.

    Examples
    --------
    >>> import numpy as np
    >>> disagreement(np.array([[[0.0, 0.0]], [[3.0, 4.0]]]))
    array([5.])
    """
    n_members, n_stimuli, n_neurons = member_predictions.shape
    if n_members < 2 or n_neurons < 1:
        raise InputError(
            f"disagreement needs two members and a neuron or more; got {n_members} members and "
            f"{n_neurons} neurons"
        )
    if not np.isfinite(member_predictions).all():
        raise InputError("a member's predictions are not finite; leave out that member or neuron")
    n_pairs = n_members * (n_members - 1) // 2
    step = max(1, _CHUNK // (n_members * n_neurons + n_pairs))
    out = np.empty(n_stimuli)
    for start in range(0, n_stimuli, step):
        part = member_predictions[:, start : start + step].astype(np.float64)
        apart = [np.linalg.norm(part[k + 1 :] - part[k], axis=2) for k in range(n_members - 1)]
        out[start : start + step] = np.median(np.concatenate(apart), axis=0)
    return out


def core_set(
    features: Float[np.ndarray, "n_candidates n_features"],
    k: int,
    *,
    chosen: Float[np.ndarray, "n_chosen n_features"] | None = None,
) -> Int[np.ndarray, " k"]:
    """Return `k` candidates that leave no candidate far from a chosen one, greedily.

    Each next one is the candidate farthest (Euclidean distance) from all chosen before it. The
    largest distance that is left is at most twice that of the best choice of `k`.

    Parameters
    ----------
    features
        Of the candidates.
    k
        How many, 0 to all.
    chosen
        Features of images chosen before. Without any, the first is the candidate nearest to the
        mean (ours: no seed is needed).

    Returns
    -------
    Int[np.ndarray, "k"]
        Which candidates, each once, in the order of choice. Of equals the first comes first.

    Raises
    ------
    InputError
        If `k` is out of range or a feature is not finite.

    References
    ----------
    Gonzalez (1985), Clustering to minimize the maximum intercluster distance, Theoretical Computer
    Science 38: 293-306; Sener & Savarese (2018), Active learning for convolutional neural networks:
    a core-set approach, ICLR.

    Examples
    --------
    >>> import numpy as np
    >>> core_set(np.array([[0.0], [1.0], [10.0], [11.0]]), 2, chosen=np.array([[0.0]])).tolist()
    [3, 1]
    """
    n = len(features)
    if not 0 <= k <= n:
        raise InputError(f"k must be within 0 and the {n} candidates; got {k}")
    if not (np.isfinite(features).all() and (chosen is None or np.isfinite(chosen).all())):
        raise InputError("features must be finite to choose a core set by")
    if k == 0:
        return np.empty(0, dtype=np.intp)
    centre = features.mean(axis=0)
    rows = features - centre  # distances are taken as differences of squares: keep these small
    squares = np.einsum("nf,nf->n", rows, rows)
    nearest = np.full(n, np.inf)  # squared distance to the nearest chosen one
    before = np.empty((0, rows.shape[1]), rows.dtype) if chosen is None else chosen - centre
    for start in range(0, len(before), _ROWS_AT_ONCE):
        part = before[start : start + _ROWS_AT_ONCE]
        apart = squares[:, None] - 2 * (rows @ part.T) + np.einsum("nf,nf->n", part, part)
        nearest = np.minimum(nearest, apart.min(axis=1))
    picked = [int(nearest.argmax() if len(before) else squares.argmin())]
    while len(picked) < k:
        last = picked[-1]
        apart = squares - 2 * (rows @ rows[last]) + squares[last]
        nearest = np.minimum(nearest, apart)
        nearest[picked] = -np.inf  # never again, even where all others equal chosen ones
        picked.append(int(nearest.argmax()))
    return np.array(picked)
