"""Centred kernel alignment: how alike two representations of the same stimuli are."""

import numpy as np
from jaxtyping import Float, Float64, Int, Shaped

from pocketcortex.core.errors import InputError

_ROUNDING = 64
"""Units of rounding of a Gram matrix' own type below which its variation counts as none."""


def hsic(
    gram_x: Float[np.ndarray, "n columns"],
    gram_y: Float[np.ndarray, "n_y columns_y"],
    *,
    debiased: bool = True,
) -> float:
    r"""Return the Hilbert-Schmidt independence criterion of two Gram matrices.

    Debiased, with zero diagonals,

    .. math:: \frac{1}{n (n - 3)} \left[ \mathrm{tr}\, K L
              + \frac{1^T K 1 \; 1^T L 1}{(n - 1)(n - 2)} - \frac{2}{n - 2} 1^T K L 1 \right],

    whose mean over samples of n stimuli is the population's value; computed as the product of the
    U-centred matrices. Biased, :math:`\mathrm{tr}(K H L H) / (n - 1)^2` with H the centring matrix:
    never negative, and above 0 by chance.

    Parameters
    ----------
    gram_x, gram_y
        Symmetric matrices of scalar products between n stimuli, the same stimuli in both.
    debiased
        Which of the two.

    Returns
    -------
    float
        In float64; NaN if a Gram matrix has NaN.

    Raises
    ------
    InputError
        If the matrices are not square and of one size, or n is below 4 (debiased) or 2 (biased).

    References
    ----------
    Song et al. (2012), Feature selection via dependence maximization, JMLR 13, Eq. 5. U-centring:
    Székely & Rizzo (2014), Annals of Statistics 42, Prop. 1. Biased: Gretton et al. (2005), ALT.
    """
    if gram_x.shape != gram_y.shape:
        raise InputError(
            f"Gram matrices of the same stimuli have one size, got {gram_x.shape} and "
            f"{gram_y.shape}"
        )
    product = centre_gram(gram_x, debiased=debiased) * centre_gram(gram_y, debiased=debiased)
    return float(product.sum()) / _pairs_of_stimuli(len(gram_x), debiased)


def linear_cka(
    features_x: Float[np.ndarray, "n_stimuli n_features_x"],
    features_y: Float[np.ndarray, "n_stimuli_y n_features_y"],
    *,
    debiased: bool = True,
) -> float:
    r"""Return the linear CKA of two sets of features of the same stimuli.

    .. math:: \frac{\mathrm{HSIC}(X X^T, Y Y^T)}
              {\sqrt{\mathrm{HSIC}(X X^T, X X^T) \, \mathrm{HSIC}(Y Y^T, Y Y^T)}}

    The same after any rotation, isotropic scaling or shift of either. Biased, it lies within 0..1
    and is above 0 for unrelated features, the more so the more features there are for a stimulus.
    Debiased, it lies within -1..1 and is about 0 for unrelated features, whatever their number.

    Parameters
    ----------
    features_x, features_y
        Features of each stimulus; Gram matrices are computed in float64.
    debiased
        As in :func:`hsic`.

    Returns
    -------
    float
        NaN if all stimuli have the same features, so that there is nothing to compare.

    Raises
    ------
    InputError
        If the numbers of stimuli differ, or are below 4 (debiased) or 2 (biased).

    References
    ----------
    Kornblith et al. (2019), ICML, Eq. 4 (biased). Murphy et al. (2024), arXiv 2405.01012 (why to
    take the debiased form where features outnumber stimuli).

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(2, 20, 500))
    >>> round(linear_cka(x, y, debiased=False), 1), abs(linear_cka(x, y)) < 0.1
    (1.0, True)
    """
    if len(features_x) != len(features_y):
        raise InputError(
            "both sets of features must be of the same stimuli, got "
            f"{len(features_x)} and {len(features_y)} of them"
        )
    accumulator = CKAAccumulator(2, debiased=debiased)
    accumulator.add(np.stack([_gram(features_x), _gram(features_y)]))
    return float(accumulator.cka()[0, 1])


def centre_gram(
    gram: Float[np.ndarray, "*batch n columns"], *, debiased: bool = True
) -> Float64[np.ndarray, "*batch n n"]:
    r"""Return Gram matrices centred in float64, so that HSIC is a sum of products of entries.

    Biased: rows and columns have mean 0. Debiased (U-centred): with the diagonal left out,
    :math:`K_{ij} - \frac{1}{n-2} \sum_l K_{il} - \frac{1}{n-2} \sum_k K_{kj}
    + \frac{1}{(n-1)(n-2)} \sum_{kl} K_{kl}`, and 0 on the diagonal.

    Raises
    ------
    InputError
        If the matrices are not square, or n is below 4 (debiased) or 2 (biased).
    """
    n, least = gram.shape[-1], 4 if debiased else 2
    if gram.shape[-2] != n or n < least:
        raise InputError(
            f"Gram matrices must be (n, n) with n of {least} stimuli or more "
            f"({'debiased' if debiased else 'biased'}), got {gram.shape}"
        )
    centred = np.array(gram, dtype=np.float64)
    if not debiased:
        centred -= centred.mean(axis=-1, keepdims=True)
        centred -= centred.mean(axis=-2, keepdims=True)
        return centred
    diagonal = np.arange(n)
    centred[..., diagonal, diagonal] = 0
    rows = centred.sum(axis=-1)
    shift = rows / (n - 2) - rows.sum(axis=-1, keepdims=True) / (2 * (n - 1) * (n - 2))
    centred -= shift[..., :, None]
    centred -= shift[..., None, :]
    centred[..., diagonal, diagonal] = 0
    return centred


class CKAAccumulator:
    """CKA between all pairs of n representations, from Gram matrices of one batch after another.

    HSICs of the batches are averaged, each weighted by its number of stimuli, and the ratio is
    taken at the end. A batch costs one matrix product: centred Gram matrices, laid out flat, times
    themselves. Memory depends on the number of representations and permutations alone.

    The debiased form of the average is unbiased for any size of batch, so that the estimate goes to
    the value of the whole set of stimuli; the biased form keeps the bias of one batch.

    Parameters
    ----------
    n_representations
        How many are compared, 2 or more.
    debiased
        As in :func:`hsic`.
    n_permutations
        How many times the stimuli are dealt out anew, within each batch and for each
        representation by itself: what CKA is between representations that have nothing to do with
        each other. Each costs as much as the batch itself, and 8 bytes a pair of memory.
    rng
        Source of the permutations; accumulators with equal generators that are given batches of
        equal size deal stimuli out alike.

    Raises
    ------
    InputError
        If there are fewer than two representations, or `n_permutations` is negative or comes
        without an `rng`.

    References
    ----------
    Nguyen, Raghu & Kornblith (2021), arXiv 2010.15327, Eq. 2 and 3 (average of unbiased HSICs over
    batches). Murphy et al. (2024), arXiv 2405.01012. Permuting and weighting by size are our own.
    """

    def __init__(
        self,
        n_representations: int,
        *,
        debiased: bool = True,
        n_permutations: int = 0,
        rng: np.random.Generator | None = None,
    ) -> None:
        if n_representations < 2:
            raise InputError(f"two representations or more can be compared; {n_representations=}")
        if n_permutations < 0 or (n_permutations > 0 and rng is None):
            raise InputError(f"permutations must be 0 or more, and take an rng; {n_permutations=}")
        self.debiased = debiased
        self.n_stimuli = 0
        self._rng = np.random.default_rng(0) if rng is None else rng  # not drawn from if None
        self._pairs = np.triu_indices(n_representations, 1)
        self._sums = np.zeros((n_representations, n_representations))
        self._shuffled = np.zeros((n_permutations, len(self._pairs[0])))
        self._varies = np.zeros(n_representations, dtype=bool)

    def add(self, grams: Float[np.ndarray, "n_representations n n"]) -> None:
        """Take in a batch of stimuli.

        Parameters
        ----------
        grams
            The Gram matrix of each representation, float32 or float64, of the same stimuli in the
            same order.

        Raises
        ------
        InputError
            If there are more or fewer Gram matrices than representations, or the batch has fewer
            than 4 stimuli (debiased) or 2 (biased).
        """
        if len(grams) != len(self._sums):
            raise InputError(f"{len(self._sums)} Gram matrices are needed, got {len(grams)}")
        n = grams.shape[-1]
        centred = centre_gram(grams, debiased=self.debiased)
        rows, columns = np.triu_indices(n, int(self.debiased))  # without the diagonal, which is 0
        weight = np.sqrt(np.where(rows == columns, 1.0, 2.0) * n)
        weight /= np.sqrt(_pairs_of_stimuli(n, self.debiased))
        flat = centred.reshape(len(centred), n * n)
        entries = flat[:, rows * n + columns] * weight
        self._sums += entries @ entries.T
        self._varies |= _varies(grams, centred)
        for shuffled in self._shuffled:
            orders = self._rng.permuted(np.tile(np.arange(n), (len(grams), 1)), axis=1)
            entries = _reordered(flat, orders, rows, columns) * weight
            shuffled += (entries @ entries.T)[self._pairs]
        self.n_stimuli += n

    def cka(self) -> Float64[np.ndarray, "n_representations n_representations"]:
        """Return CKA of all pairs.

        Symmetric, diagonal 1; NaN in row and column of a representation that is the same for all
        stimuli of every batch, up to the rounding of its Gram matrices, and everywhere before the
        first batch.
        """
        length = self._lengths()
        out: np.ndarray = self._sums / (length[:, None] * length)
        np.fill_diagonal(out, np.where(np.isnan(length), np.nan, 1.0))
        return out

    def shuffled(self) -> Float64[np.ndarray, "n_permutations n_pairs"]:
        """Return CKA of shuffled stimuli, pairs in the order of ``np.triu_indices(n, 1)``.

        Centred on 0 if debiased. Each representation is shuffled by itself, so a row is a draw of
        all pairs together and its mean one of the mean over pairs.
        """
        length = self._lengths()
        rows, columns = self._pairs
        return np.asarray(self._shuffled / (length[rows] * length[columns]))

    def _lengths(self) -> Float64[np.ndarray, " n_representations"]:
        return np.asarray(np.sqrt(np.where(self._varies, np.diag(self._sums), np.nan)))


def _pairs_of_stimuli(n: int, debiased: bool) -> float:
    return float(n * (n - 3) if debiased else (n - 1) ** 2)


def _gram(features: Float[np.ndarray, "n p"]) -> Float64[np.ndarray, "n n"]:
    """Return the Gram matrix of features with a mean of 0, which HSIC does not see."""
    values = features.astype(np.float64)
    centred = values - values.mean(axis=0)
    # what rounding leaves of constant features is none
    least = _ROUNDING * np.finfo(features.dtype).eps * np.linalg.norm(values)
    gram = centred @ centred.T
    return np.asarray(gram if np.linalg.norm(centred) > least else np.zeros_like(gram))


def _varies(
    grams: Float[np.ndarray, "k n n"], centred: Float64[np.ndarray, "k n n"]
) -> Shaped[np.ndarray, " k"]:
    """Return which matrices differ from a constant by more than rounding."""
    least = _ROUNDING * float(np.finfo(grams.dtype).eps)
    whole = np.linalg.norm(grams.astype(np.float64), axis=(1, 2))
    return np.asarray(np.linalg.norm(centred, axis=(1, 2)) > least * whole)


def _reordered(
    flat: Float64[np.ndarray, "k n_entries"],
    orders: Int[np.ndarray, "k n"],
    rows: Int[np.ndarray, " m"],
    columns: Int[np.ndarray, " m"],
) -> Float64[np.ndarray, "k m"]:
    """Return entries (rows, columns) of each matrix with its stimuli in another order."""
    n = orders.shape[1]
    entries = np.empty((len(flat), len(rows)))
    for out, matrix, order in zip(entries, flat, orders, strict=True):
        np.take(matrix, order[rows] * n + order[columns], out=out)
    return entries
