"""Prune a compact model layer by layer, by the variance that its filters explain."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from pocketcortex.compress.statistics import N_LAYERS, LayerStatistics
from pocketcortex.compress.surgery import LinearMap, cut, pointwise_weights, ridged
from pocketcortex.core import InputError
from pocketcortex.models import CompactModel

Method = Literal["greedy", "published"]
Order = Literal["late-to-early", "early-to-late"]
_DEAD = 1e-12
"""A channel of less than this part of the largest variance answers all images alike."""


def fraction_of_variance(
    mixing: Float[np.ndarray, "outputs channels"],
    covariance: Float[np.ndarray, "channels channels"],
    order: Sequence[int] | Int[np.ndarray, " n_removed"],
) -> Float[np.ndarray, " n_removed_plus_1"]:
    """Return the variance of a pointwise layer's outputs left after removing channels in order.

    ``FV(S) = 1 - tr(W_S' Sigma_SS W_S) / tr(W' Sigma W)`` with S the channels removed, W the
    pointwise weights and Sigma the covariance of the channels: entry k is FV of the first k.

    Parameters
    ----------
    mixing
        Pointwise weights, only of outputs that stay.
    covariance
        Covariance of the input channels over images and positions.
    order
        Channels, first to be removed first.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Methods, "Pruning", in closed form.
    """
    index = np.asarray(order)
    weighted = mixing.T @ mixing * covariance
    total = weighted.sum()
    removed = np.cumsum(np.cumsum(weighted[np.ix_(index, index)], axis=0), axis=1).diagonal()
    return 1 - np.concatenate([[0.0], removed]) / total if total > 0 else np.ones(len(index) + 1)


def prune(
    model: CompactModel,
    statistics: LayerStatistics,
    contributions: Float[np.ndarray, "n filters"],
    teacher: Float[np.ndarray, " n"],
    *,
    threshold: float = 0.9,
    min_filters: int = 3,
    method: Method = "greedy",
    order: Order = "late-to-early",
) -> CompactModel:
    """Return a smaller model without the filters that matter least, layer by layer.

    The last layer loses filters while the squared correlation of the response with the teacher
    stays at or above `threshold` times what it was. Each other layer loses filters while the
    fraction of variance of the next layer's pointwise outputs is at or above `threshold`.
    The statistics may be those of layers that many models share, so a population costs one pass
    over the images; `prune_jointly` needs passes for each model and leaves smaller ones.

    Parameters
    ----------
    model
        A trained model.
    statistics
        `layer_statistics` of its layers.
    contributions
        `readout_contributions` of its readout.
    teacher
        The teacher's responses to the same images.
    threshold
        Part of the variance that every step keeps, 0 to 1.
    min_filters
        Filters that each layer keeps at least.
    method
        ``"greedy"`` removes, one at a time, the channel that costs least variance once the others'
        weights are refitted (least squares, in closed form from the inverse covariance), stops
        before the threshold, and leaves refitted weights and the mean of what is gone.
        ``"published"`` ranks all channels once, by their variance about their mean image times
        their squared weights (last layer: by the standard deviation of their contributions), stops
        after the channel that crosses the threshold, and leaves all weights and biases as they are.
    order
        ``"late-to-early"`` (published) judges each layer by the outputs that stay in the next;
        ``"early-to-late"``, its control, by all outputs of the next, which is not yet pruned.

    Raises
    ------
    InputError
        If `threshold` is not within 0 and 1, `min_filters` is below 1, the teacher's responses are
        not finite or not one for each image, or they or the model's do not vary.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Methods, "Pruning". Where the fraction of variance
    falls below the threshold more than once, the first time counts. Removal with refit: Hassibi &
    Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon", NIPS 1992, eq. 5,
    for whole columns.
    """
    check_request(teacher, len(contributions), threshold, min_filters)
    correlation_before(contributions.sum(axis=1), teacher)
    maps = [
        LinearMap(*parts)
        for parts in zip(
            pointwise_weights(model), statistics.means, statistics.covariances, strict=True
        )
    ]
    centred = contributions - contributions.mean(axis=0)
    covariance = centred.T @ centred / len(centred)
    maps.append(LinearMap(np.ones((1, len(covariance))), contributions.mean(axis=0), covariance))
    kept: list[np.ndarray] = [np.arange(n) for n in model.filters]
    layers = range(N_LAYERS) if order == "early-to-late" else range(N_LAYERS - 1, -1, -1)
    for layer in layers:
        if layer == N_LAYERS - 1:
            ranked, left = _rank_last(maps[-1], contributions, teacher, method)
            least = threshold * left[0]
            enough = left > least if method == "published" else left >= least
        else:
            outputs = maps[layer].weights[kept[layer + 1]]
            ranked, left = _rank(
                outputs, statistics.covariances[layer], statistics.variances[layer], method
            )
            enough = left >= threshold
        n_removed = int(np.argmin(np.append(enough, False)))  # the first that leaves too little
        if method == "greedy":
            n_removed -= 1
        n_removed = max(0, min(n_removed, len(ranked) - min_filters))
        kept[layer] = np.sort(ranked[n_removed:])
    return cut(model, kept, maps) if method == "greedy" else cut(model, kept)


def eliminate(
    weights: Float[np.ndarray, "outputs channels"],
    covariance: Float[np.ndarray, "channels channels"],
) -> tuple[Int[np.ndarray, " channels"], Float[np.ndarray, " n_removed_plus_1"]]:
    """Return the order of backward elimination with refit, and the fraction of variance left.

    Removing channel j and refitting the others takes ``w_j (z_j - B_j z)`` from the outputs, with
    B_j the regression of z_j on the others. That costs ``|w_j|^2 / P_jj``, P being the inverse
    covariance of the channels that remain. The cheapest goes; weights and P follow by rank-one
    changes.
    """
    precision, weights = np.linalg.inv(ridged(covariance)), weights.copy()
    total = (weights.T @ weights * covariance).sum()
    alive = np.ones(len(covariance), bool)
    dead = covariance.diagonal() <= _DEAD * covariance.diagonal().max()
    order, costs = [], [0.0]
    for _ in range(len(covariance)):
        cost = np.where(dead, 0.0, (weights**2).sum(axis=0) / precision.diagonal())
        cost[~alive] = np.inf
        j = int(cost.argmin())
        share = precision[j] / precision[j, j]
        weights -= np.outer(weights[:, j], share)
        precision -= np.outer(precision[:, j], share)
        precision[j, j] = 1.0
        alive[j] = False
        order.append(j)
        costs.append(float(cost[j]))
    left = 1 - np.cumsum(costs) / total if total > 0 else np.ones(len(costs))
    return np.array(order), left


def _rank(
    outputs: np.ndarray, covariance: np.ndarray, variances: np.ndarray, method: Method
) -> tuple[np.ndarray, np.ndarray]:
    """Return a layer's channels, first to go first, and what is left after each."""
    if method == "greedy":
        return eliminate(outputs, covariance)
    order = np.argsort(variances * (outputs**2).sum(axis=0), kind="stable")
    return order, fraction_of_variance(outputs, covariance, order)


def _rank_last(
    readout: LinearMap, contributions: np.ndarray, teacher: np.ndarray, method: Method
) -> tuple[np.ndarray, np.ndarray]:
    """Return the last layer's filters, first to go first, and r² with the teacher after each."""
    if method == "greedy":
        order, _ = eliminate(readout.weights, readout.covariance)
    else:
        order = np.argsort(contributions.std(axis=0), kind="stable")
    left = []
    for k in range(len(order)):
        gains = readout.refitted(order[k:])[0][0] if method == "greedy" else 1.0
        left.append(squared_correlation((contributions[:, order[k:]] * gains).sum(axis=1), teacher))
    return order, np.array(left)


def check_request(teacher: np.ndarray, n: int, threshold: float, min_filters: int) -> None:
    """Refuse impossible settings, and teachers that cannot be compared with."""
    if not 0 <= threshold <= 1 or min_filters < 1:
        raise InputError(
            f"threshold must be within 0..1 and min_filters at least 1; got {threshold}, "
            f"{min_filters}"
        )
    if teacher.shape != (n,) or not np.isfinite(teacher).all():
        raise InputError(
            f"teacher must be one finite response for each of {n} images; got shape "
            f"{teacher.shape} with {np.isfinite(teacher).sum()} finite"
        )


def correlation_before(responses: np.ndarray, teacher: np.ndarray) -> float:
    """Return the squared correlation before pruning; refuse one of 0, which nothing can lower."""
    before = squared_correlation(responses, teacher)
    if before == 0:
        raise InputError(
            "the model's and the teacher's responses must vary together; got standard deviations "
            f"{responses.std():.3g} and {teacher.std():.3g} and a squared correlation of 0"
        )
    return before


def squared_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Return the squared correlation, 0 where one of them is constant."""
    x, y = x - x.mean(), y - y.mean()
    power = (x @ x) * (y @ y)
    return float((x @ y) ** 2 / power) if power > 0 else 0.0
