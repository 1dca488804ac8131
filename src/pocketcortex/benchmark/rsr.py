"""Dissimilarities of a site as a weighted sum of those of all layers, held out by stimuli."""

import numpy as np
from jaxtyping import Float, Float64, Int
from scipy.optimize import nnls

from pocketcortex.benchmark.rdms import compare_pairs, n_stimuli_of, pairs_among, square_of
from pocketcortex.benchmark.rsa import LEAST_STIMULI, Protocol, check_rsa
from pocketcortex.core import InputError
from pocketcortex.mapping import stimulus_folds


def rsr_score(
    layer_rdms: Float64[np.ndarray, "n_layers n_pairs"],
    site_rdm: Float64[np.ndarray, " n_pairs"],
    *,
    rng: np.random.Generator,
    protocol: Protocol = "honest",
    n_folds: int = 6,
    n_permutations: int = 20,
) -> tuple[float, Float64[np.ndarray, " n_permutations"]]:
    r"""Return how well a weighted sum of all layers' matrices predicts a site's, and its null.

    Representational similarity regression: weights :math:`w_k \ge 0` and a constant, by least
    squares over the pairs of training stimuli,

    .. math:: \min_{w \ge 0, b} \sum_{i < j \in \mathrm{train}} (d_{ij} - b - \sum_k w_k m_{kij})^2

    ``"published"``: pairs with one held-out stimulus or two are predicted, averaged over folds for
    pairs predicted twice, and correlated with the site's over all pairs. A held-out pair then
    shares a stimulus with pairs fitted to, and with it that stimulus's noise. ``"honest"``: only
    pairs of two held-out stimuli of a fold are predicted, and correlated over all folds with each
    fold's mean taken out of both: 0 on average for sites that have nothing to do with the layers.

    Parameters
    ----------
    layer_rdms
        Upper triangles; layers with NaN, or without variation, are left out.
    site_rdm
        Upper triangle of the site, finite.
    rng
        Source of folds and permutations.
    protocol
        As above.
    n_folds
        Folds over stimuli; a fold has 5 stimuli or more if honest.
    n_permutations
        How often all is done again with the site's stimuli in another order, in the same folds.

    Returns
    -------
    tuple[float, Float64[np.ndarray, "n_permutations"]]
        Pearson's r, and those of the permutations. NaN where predictions are constant: no layer
        has a positive weight.

    Raises
    ------
    InputError
        If shapes disagree, no layer is usable, the site's matrix is not finite, or a setting is out
        of range.

    References
    ----------
    Conwell et al. (2021), NeurIPS 34. Weights of representational components: Khaligh-Razavi &
    Kriegeskorte (2014), PLoS Computational Biology 10: e1003915. The constant is our own.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> layers = rng.normal(size=(3, 45 * 44 // 2))
    >>> r, null = rsr_score(layers, layers[0] + 2 * layers[2] + 5, rng=rng)
    >>> round(r, 6), len(null)
    (1.0, 20)
    """
    fits, n = _fitted_folds(layer_rdms, site_rdm, rng, protocol, n_folds, n_permutations)
    pairs = np.triu_indices(n, 1)
    place = square_of(np.arange(len(site_rdm)), n)
    orders = [np.arange(n), *(rng.permutation(n) for _ in range(n_permutations))]
    r = [
        _rsr(fits, site_rdm[place[order[pairs[0]], order[pairs[1]]]], protocol) for order in orders
    ]
    return r[0], np.array(r[1:])


def rsr_predictions(
    layer_rdms: Float64[np.ndarray, "n_layers n_pairs"],
    site_rdm: Float64[np.ndarray, " n_pairs"],
    *,
    rng: np.random.Generator,
    n_folds: int = 6,
) -> tuple[Float64[np.ndarray, " n_pairs"], Int[np.ndarray, " n_pairs"]]:
    """Return the dissimilarities that `rsr_score` predicts under ``"honest"``, and their folds.

    Parameters and errors are those of :func:`rsr_score`; the same generator gives the same folds.

    Returns
    -------
    tuple[Float64[np.ndarray, "n_pairs"], Int[np.ndarray, "n_pairs"]]
        Predictions for pairs of two held-out stimuli of one fold, NaN for all others; each pair's
        fold, -1 for the others.
    """
    fits, _ = _fitted_folds(layer_rdms, site_rdm, rng, "honest", n_folds, 0)
    predicted = np.full(len(site_rdm), np.nan)
    folds = np.full(len(site_rdm), -1)
    for fold, fit in enumerate(fits):
        predicted[fit.test], folds[fit.test] = fit.predict(site_rdm), fold
    return predicted, folds


def _fitted_folds(
    layer_rdms: Float64[np.ndarray, "n_layers n_pairs"],
    site_rdm: Float64[np.ndarray, " n_pairs"],
    rng: np.random.Generator,
    protocol: Protocol,
    n_folds: int,
    n_permutations: int,
) -> tuple[list["_FoldOfPairs"], int]:
    """Return the folds, ready to be fitted to any site, and the number of stimuli."""
    n = n_stimuli_of(len(site_rdm))
    check_rsa(layer_rdms, {"site": site_rdm}, None, protocol, 1, n_permutations)
    if not np.isfinite(site_rdm).all():
        raise InputError("the site's dissimilarities must be finite; leave out such stimuli")
    folds = stimulus_folds(n, n_folds=n_folds, rng=rng)
    if protocol == "honest" and np.bincount(folds).min() < LEAST_STIMULI:
        raise InputError(
            f"n_folds={n_folds} leaves fewer than {LEAST_STIMULI} of {n} stimuli in a fold; "
            "ask for fewer folds"
        )
    varied = np.ptp(np.where(np.isfinite(layer_rdms), layer_rdms, 0.0), axis=1) > 0
    X = layer_rdms[np.isfinite(layer_rdms).all(axis=1) & varied].T
    if not X.size:
        raise InputError("no layer is usable: all have NaN or equal dissimilarities")
    return [_FoldOfPairs(X, folds == fold, protocol) for fold in range(n_folds)], n


class _FoldOfPairs:
    """Layers' dissimilarities of one fold: those fitted to, reduced once for any site, and tested.

    With X = QR the least squares of X w against y are those of R w against Qᵀ y.
    """

    def __init__(
        self, X: Float64[np.ndarray, "n_pairs n_layers"], held_out: np.ndarray, protocol: Protocol
    ) -> None:
        n = len(held_out)
        self.train = pairs_among(~held_out, n)
        if protocol == "published":
            tested = np.ones(len(X), dtype=bool)
            tested[self.train] = False
            self.test = np.flatnonzero(tested)
        else:
            self.test = pairs_among(held_out, n)
        self.mean = X[self.train].mean(axis=0)
        self.Q, self.R = np.linalg.qr(X[self.train] - self.mean)
        self.X_test = X[self.test]

    def predict(self, y: Float64[np.ndarray, " n_pairs"]) -> Float64[np.ndarray, " n_test"]:
        target = y[self.train]
        weights, _ = nnls(self.R, self.Q.T @ (target - target.mean()))
        return np.asarray((self.X_test - self.mean) @ weights + target.mean())


def _rsr(fits: list[_FoldOfPairs], y: Float64[np.ndarray, " n_pairs"], protocol: Protocol) -> float:
    """Return Pearson's r of predicted with given dissimilarities."""
    predictions = [fit.predict(y) for fit in fits]
    if protocol == "honest":
        given = [y[fit.test] for fit in fits]
        parts = [np.concatenate([x - x.mean() for x in side]) for side in (given, predictions)]
        return _pearson(*parts)
    total, count = np.zeros((2, len(y)))
    for fit, predicted in zip(fits, predictions, strict=True):
        total[fit.test] += predicted
        count[fit.test] += 1
    return _pearson(y, total / count)


def _pearson(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float:
    n = np.arange(len(x))
    return float(compare_pairs(x[None], y[None], np.stack([n, n]), len(x), "pearson")[0, 0])
