"""How alike neurons answer, and groups of neurons that do."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.cluster.hierarchy import fcluster, leaves_list, linkage
from scipy.spatial.distance import squareform
from sklearn.metrics import silhouette_score

from pocketcortex.core.errors import InputError


@dataclass(frozen=True)
class Groups:
    """Neurons in groups of like ones.

    Attributes
    ----------
    order
        All neurons, like ones side by side and those of a group together.
    labels
        The group of each neuron, 0, 1, ... in the order in which groups come in `order`.
    silhouette
        Mean silhouette of this grouping, -1..1: how much nearer neurons are to their own group
        than to the next one. Near 0, groups are slices of a continuum rather than kinds. NaN with
        one group, or one for each neuron.
    """

    order: Int[np.ndarray, " n_neurons"]
    labels: Int[np.ndarray, " n_neurons"]
    silhouette: float

    @property
    def n_groups(self) -> int:
        """How many groups there are."""
        return int(self.labels.max()) + 1

    def members(self, label: int) -> Int[np.ndarray, " n_members"]:
        """Return the neurons of a group in the order of `order`."""
        return np.asarray(self.order[self.labels[self.order] == label])


def signal_correlation2(
    responses: Float[np.ndarray, "n_stimuli n_neurons"],
) -> Float[np.ndarray, "n_neurons n_neurons"]:
    r"""Return the squared Pearson correlation over stimuli of every pair of neurons.

    .. math:: \rho^2_{jk} = \frac{(\sum_i \tilde y_{ij} \tilde y_{ik})^2}
              {\sum_i \tilde y_{ij}^2 \sum_i \tilde y_{ik}^2}

    Meant for predictions of models, which have no noise: of recorded responses it measures noise
    too. Chance adds about 1 / (n_stimuli - 1).

    Parameters
    ----------
    responses
        Finite; two or more stimuli.

    Returns
    -------
    Float[np.ndarray, "n_neurons n_neurons"]
        float64, symmetric, 0..1, diagonal 1. NaN in row and column of a neuron that answers all
        stimuli alike.

    Raises
    ------
    InputError
        If there are fewer than two stimuli or a response is not finite.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Extended Data Fig. 3: mean 0.11 between the compact
    models, over 10,000 images.
    """
    if len(responses) < 2:
        raise InputError(f"a correlation needs two stimuli or more, got {len(responses)}")
    if not np.isfinite(responses).all():
        raise InputError("responses must be finite; leave out neurons or stimuli without answer")
    values = responses.astype(np.float64)
    centred = values - values.mean(axis=0)
    length = np.linalg.norm(centred, axis=0)
    # what rounding leaves of a constant column
    constant = length <= 1e-12 * np.linalg.norm(values, axis=0)
    unit = centred / np.where(constant, np.nan, length)
    correlation2: np.ndarray = np.clip((unit.T @ unit) ** 2, 0, 1)
    diagonal = np.where(constant, np.nan, 1.0)
    np.fill_diagonal(correlation2, diagonal)
    return correlation2


def group_by_similarity(
    similarity: Float[np.ndarray, "n_neurons n_neurons"], *, n_groups: int | None = None
) -> Groups:
    r"""Return neurons ordered and grouped by how alike they are, without labels made by hand.

    Average-linkage clustering of 1 - similarity. The order is that of the leaves of the tree,
    flipped so that neighbours are as alike as the tree allows (optimal leaf ordering). Of the cuts
    of the tree into 2 to :math:`\sqrt n` groups the one with the largest mean silhouette is taken;
    of equal ones that with the fewest groups. Nothing is random.

    Parameters
    ----------
    similarity
        Symmetric, at most 1, such as `signal_correlation2` returns.
    n_groups
        How many groups to cut into, 1 to n; None chooses as above. Where branches join at one
        height it may come out lower.

    Raises
    ------
    InputError
        If there is no neuron, the matrix is not square, symmetric and finite, a similarity is
        above 1, or `n_groups` is out of range.

    References
    ----------
    Bar-Joseph, Gifford & Jaakkola (2001), Fast optimal leaf ordering, Bioinformatics 17.
    Rousseeuw (1987), Silhouettes, J. Comput. Appl. Math. 20. Linkage, the range of cuts and the
    use for neurons are our choice.
    """
    n = len(similarity)
    if similarity.shape != (n, n) or n == 0:
        raise InputError(f"similarity must be (n, n) with n > 0, got {similarity.shape}")
    if not np.isfinite(similarity).all():
        raise InputError(
            "similarity must be finite; leave out neurons that answer all stimuli alike"
        )
    if similarity.max() > 1 + 1e-9 or not np.allclose(similarity, similarity.T, atol=1e-9):
        raise InputError("similarity must be symmetric and at most 1, as a correlation is")
    if n_groups is not None and not 1 <= n_groups <= n:
        raise InputError(f"n_groups must be within 1..{n}, the number of neurons; got {n_groups}")
    if n == 1:
        return Groups(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64), float("nan"))
    distance = np.maximum(1 - (similarity + similarity.T) / 2, 0)
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
    order = leaves_list(tree).astype(np.int64)
    counts = [n_groups] if n_groups is not None else range(2, max(2, int(np.sqrt(n))) + 1)
    cuts = [_numbered(fcluster(tree, count, "maxclust"), order) for count in counts]
    scores = [_silhouette(distance, labels) for labels in cuts]
    best = int(np.argmax([-2.0 if np.isnan(score) else score for score in scores]))
    return Groups(order, cuts[best], scores[best])


def _numbered(labels: np.ndarray, order: np.ndarray) -> Int[np.ndarray, " n_neurons"]:
    """Return labels 0, 1, ... in order of first appearance along `order`."""
    _, first, inverse = np.unique(labels[order], return_index=True, return_inverse=True)
    numbered = np.empty(len(labels), dtype=np.int64)
    numbered[order] = np.argsort(np.argsort(first))[inverse]
    return numbered


def _silhouette(distance: np.ndarray, labels: np.ndarray) -> float:
    n_groups = len(np.unique(labels))
    if not 2 <= n_groups < len(labels):
        return float("nan")
    return float(silhouette_score(distance, labels, metric="precomputed"))
