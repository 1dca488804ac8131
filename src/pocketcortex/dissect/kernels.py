"""How alike models' kernels are, layer by layer, and their spatial readouts."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from jaxtyping import Float, Float64, Int
from scipy.ndimage import gaussian_filter
from scipy.optimize import linear_sum_assignment

from pocketcortex.core import InputError
from pocketcortex.metrics.pairs import bootstrap_pair_mean_ci, random_matchings
from pocketcortex.models import CompactModel

LAYERS = ("layer 1", "layer 2", "layer 3", "layer 4")
"""Layers with depthwise kernels: layers 2 to 5 of the paper."""

_FEW = 5
"""Kernels up to which all one-to-one matchings are gone through."""


@dataclass(frozen=True)
class KernelSimilarity:
    """Absolute cosines between kernels of pairs of models.

    Attributes
    ----------
    layers
        What was compared: ``"layer 1"`` to ``"layer 4"``, or ``"readout"``.
    n_kernels
        How many kernels of each model were drawn in each run, the same in all layers.
    pairs
        The pairs of models of each run, which share no model.
    values
        For each layer, run and pair: mean |cosine| of the best one-to-one matching of the kernels
        drawn.
    reference
        The same of kernels of independent normal numbers.
    best_match
        For each layer and all pairs: mean over all kernels of each model of the largest |cosine|
        with a kernel of the other, mean of both directions. It grows with the number of kernels;
        diagonal 1.
    best_match_reference
        The same of normal kernels, as many as the models have; of two sets even on the diagonal.
    """

    layers: tuple[str, ...]
    n_kernels: int
    pairs: Int[np.ndarray, "n_runs n_pairs 2"]
    values: Float64[np.ndarray, "n_layers n_runs n_pairs"]
    reference: Float64[np.ndarray, "n_layers n_runs n_pairs"]
    best_match: Float64[np.ndarray, "n_layers n_models n_models"]
    best_match_reference: Float64[np.ndarray, "n_layers n_models n_models"]

    @property
    def runs(self) -> Float64[np.ndarray, "n_layers n_runs"]:
        """Mean over the pairs of each run."""
        return np.asarray(self.values.mean(axis=2))

    @property
    def mean(self) -> Float64[np.ndarray, " n_layers"]:
        """Mean over runs."""
        return np.asarray(self.values.mean(axis=(1, 2)))

    @property
    def reference_mean(self) -> Float64[np.ndarray, " n_layers"]:
        """Mean over runs of normal kernels."""
        return np.asarray(self.reference.mean(axis=(1, 2)))

    @property
    def excess(self) -> Float64[np.ndarray, " n_layers"]:
        """How much more alike kernels are than normal ones."""
        return np.asarray(self.mean - self.reference_mean)

    def pair_sums(
        self,
    ) -> tuple[
        Float64[np.ndarray, "n_layers n_models n_models"], Float64[np.ndarray, "n_models n_models"]
    ]:
        """Return the mean value of each pair of models over runs, NaN if never drawn, and counts.

        Both are symmetric: what `metrics.bootstrap_pair_mean_ci` takes.
        """
        n = self.best_match.shape[1]
        first, second = self.pairs[..., 0].ravel(), self.pairs[..., 1].ravel()
        counts = np.zeros((n, n))
        np.add.at(counts, (first, second), 1.0)
        sums = np.zeros((len(self.layers), n, n))
        for layer, values in zip(sums, self.values, strict=True):
            np.add.at(layer, (first, second), values.ravel())
        counts, sums = counts + counts.T, sums + sums.transpose(0, 2, 1)
        return sums / np.where(counts > 0, counts, np.nan), counts

    def mean_ci(
        self, *, rng: np.random.Generator, n_resamples: int = 1000, level: float = 0.95
    ) -> tuple[Float64[np.ndarray, " n_layers"], Float64[np.ndarray, " n_layers"]]:
        """Return the percentile interval of `mean` when models are resampled.

        Less `reference_mean`, it is that of `excess`.

        Raises
        ------
        InputError
            As `metrics.bootstrap_pair_mean_ci` does.
        """
        values, counts = self.pair_sums()
        return bootstrap_pair_mean_ci(values, counts, rng=rng, n_resamples=n_resamples, level=level)

    def __repr__(self) -> str:
        n_runs, n_pairs, _ = self.pairs.shape
        return (
            f"KernelSimilarity({', '.join(self.layers)}; {n_runs} runs of {n_pairs} pairs, "
            f"{self.n_kernels} kernels each)"
        )


def kernel_similarity(
    models: Sequence[CompactModel],
    *,
    rng: np.random.Generator,
    n_kernels: int | None = None,
    n_runs: int = 500,
    reference_sigma_px: float = 0.0,
    n_references: int = 3,
) -> KernelSimilarity:
    r"""Return how alike the 5 x 5 depthwise kernels of models are in layers 1 to 4.

    The published measure is not described but for its 500 runs of sampled pairs of models and its
    reference, kernels drawn from N(0, 1). Ours: each run puts the models into random pairs that
    share none; from each model of a pair `n_kernels` kernels of a layer are drawn without
    replacement; all one-to-one matchings between the two sets are gone through, and the value is
    the largest mean

    .. math:: |\cos(a, b)| = \frac{|a \cdot b|}{\lVert a \rVert \lVert b \rVert}.

    Without sign, since pointwise weights may undo it. Since as many kernels are drawn in every
    layer, layers with many and with few compare: the best of many is alike by chance. A kernel of
    zeros is like none (0). Layer 0, an ordinary convolution of colours, has no such kernels.

    Parameters
    ----------
    models
        Two or more.
    rng
        Source of pairs, kernels and references.
    n_kernels
        Drawn from each model; None for the fewest that any model has in any of these layers (3 in
        the published ones).
    n_runs
        Number of runs.
    reference_sigma_px
        Standard deviation of the Gaussian by which normal kernels are smoothed before they are
        compared. 0 as published; training smooths the published kernels by 0.5, which makes kernels
        alike for a reason that is not learned.
    n_references
        Sets of normal kernels over which `best_match_reference` is averaged.

    Raises
    ------
    InputError
        If there are fewer than two models, a model has fewer kernels than `n_kernels`, or another
        argument is out of its range.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Fig. 3b: layers 2-3 (1-2 here) against 4-5 (3-4).
    """
    kernels = [
        [conv.weight.detach().double().cpu().numpy()[:, 0] for conv in model.layers.depthwise]
        for model in models
    ]
    tables = [list(layer) for layer in zip(*kernels, strict=True)]
    return _similarity(LAYERS, tables, n_kernels, n_runs, reference_sigma_px, n_references, rng)


def readout_similarity(
    models: Sequence[CompactModel],
    *,
    rng: np.random.Generator,
    aligned: bool = False,
    n_kernels: int | None = None,
    n_runs: int = 500,
    reference_sigma_px: float = 0.0,
    n_references: int = 3,
) -> KernelSimilarity:
    """Return how alike the maps of weights are by which models read out their last layer.

    As `kernel_similarity`, of one map for each filter of layer 4. Readouts of neurons whose
    receptive fields lie apart differ for that reason alone; `aligned` moves all maps of a model by
    the same whole number of positions, zeros coming in, so that the centre of mass of the squared
    weights lies in the middle, to the nearest position (two models may still be one apart). Normal
    maps of the reference, which have no centre, stay in place, and fill the whole map where real
    readouts do not: the reference is low.

    Parameters
    ----------
    models
        Two or more, with readouts of one size.
    aligned
        See above.
    rng, n_kernels, n_runs, reference_sigma_px, n_references
        As in `kernel_similarity`; smoothing in positions of the map.

    Raises
    ------
    InputError
        As `kernel_similarity`, and if readouts differ in size.
    """
    sizes = sorted({tuple(model.readout.shape[1:]) for model in models})
    if len(sizes) > 1:
        raise InputError(f"readouts must be of one size, got {sizes}")
    maps = [model.readout.detach().double().cpu().numpy() for model in models]
    if aligned:
        maps = [_in_the_middle(own) for own in maps]
    return _similarity(
        ("readout",), [maps], n_kernels, n_runs, reference_sigma_px, n_references, rng
    )


def _similarity(
    layers: tuple[str, ...],
    tables: list[list[np.ndarray]],
    n_kernels: int | None,
    n_runs: int,
    sigma: float,
    n_references: int,
    rng: np.random.Generator,
) -> KernelSimilarity:
    n_models = len(tables[0]) if tables else 0
    if n_models < 2:
        raise InputError(f"two models or more can be compared, got {n_models}")
    fewest = min(len(own) for layer in tables for own in layer)
    n_kernels = fewest if n_kernels is None else n_kernels
    if not 1 <= n_kernels <= fewest:
        raise InputError(
            f"n_kernels must be within 1..{fewest}, the fewest that a model has; got {n_kernels}"
        )
    if n_runs < 1 or n_references < 1 or not sigma >= 0:
        raise InputError(
            "n_runs and n_references must be 1 or more and reference_sigma_px 0 or more; got "
            f"{n_runs}, {n_references} and {sigma}"
        )
    units = [[_unit(own) for own in layer] for layer in tables]
    shapes = [layer[0].shape[1:] for layer in tables]
    pairs = random_matchings(n_models, n_runs, rng=rng)
    values = np.empty((len(layers), *pairs.shape[:2]))
    reference = np.empty_like(values)
    for k, layer in enumerate(units):
        padded = _padded(layer)
        counts = np.array([len(own) for own in layer])
        for run, pair in enumerate(pairs):
            first, second = (_drawn(padded, counts, pair[:, s], n_kernels, rng) for s in (0, 1))
            values[k, run] = _best_matching(first, second)
            noise = (
                _normal((len(pair) * n_kernels, *shapes[k]), sigma, rng).reshape(first.shape)
                for _ in range(2)
            )
            reference[k, run] = _best_matching(*noise)
    best = np.stack([_all_pairs(layer, layer) for layer in units])
    chance = [_chance(layer, shape, sigma, n_references, rng) for layer, shape in zip(
        units, shapes, strict=True
    )]  # fmt: skip
    return KernelSimilarity(layers, n_kernels, pairs, values, reference, best, np.stack(chance))


def _unit(kernels: Float[np.ndarray, "n ..."]) -> Float64[np.ndarray, "n values"]:
    """Return kernels, flat, of length 1; one of zeros stays so."""
    flat = kernels.reshape(len(kernels), -1).astype(np.float64)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(flat / np.where(length > 0, length, 1.0))


def _padded(units: list[np.ndarray]) -> Float64[np.ndarray, "n_models most values"]:
    out = np.zeros((len(units), max(len(own) for own in units), units[0].shape[1]))
    for room, own in zip(out, units, strict=True):
        room[: len(own)] = own
    return out


def _drawn(
    padded: Float64[np.ndarray, "n_models most values"],
    counts: Int[np.ndarray, " n_models"],
    models: Int[np.ndarray, " n_pairs"],
    k: int,
    rng: np.random.Generator,
) -> Float64[np.ndarray, "n_pairs k values"]:
    """Return k kernels of each of some models, drawn without replacement."""
    keys = rng.random((len(models), padded.shape[1]))
    keys[np.arange(padded.shape[1]) >= counts[models][:, None]] = 2.0
    chosen = keys.argpartition(k - 1, axis=1)[:, :k]
    return np.asarray(padded[models[:, None], chosen])


def _normal(
    shape: tuple[int, ...], sigma: float, rng: np.random.Generator
) -> Float64[np.ndarray, "n values"]:
    kernels = rng.standard_normal(shape)
    if sigma > 0:
        kernels = gaussian_filter(kernels, (0, sigma, sigma), mode="reflect")
    return _unit(kernels)


def _best_matching(
    first: Float64[np.ndarray, "n k values"], second: Float64[np.ndarray, "n k values"]
) -> Float64[np.ndarray, " n"]:
    """Return the mean |cosine| of the best one-to-one matching of k with k unit vectors."""
    cosines = np.abs(first @ second.transpose(0, 2, 1))
    k = cosines.shape[1]
    if k <= _FEW:
        rows = np.arange(k)
        means = [cosines[:, rows, order].mean(axis=1) for order in permutations(range(k))]
        return np.asarray(np.max(means, axis=0))
    best = [linear_sum_assignment(table, maximize=True) for table in cosines]
    return np.array([table[own].mean() for table, own in zip(cosines, best, strict=True)])


def _all_pairs(
    first: list[np.ndarray], second: list[np.ndarray]
) -> Float64[np.ndarray, "n_models n_models"]:
    """Return the mean best match of each pair of a model of `first` and one of `second`."""
    counts = np.array([len(own) for own in second])
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    every = np.concatenate(second).T
    out = np.empty((len(first), len(second)))
    for row, own in zip(out, first, strict=True):
        cosines = np.abs(own @ every)
        there = np.maximum.reduceat(cosines, starts, axis=1).mean(axis=0)
        back = np.add.reduceat(cosines.max(axis=0), starts) / counts
        row[:] = (there + back) / 2
    return (out + out.T) / 2


def _chance(
    units: list[np.ndarray],
    shape: tuple[int, ...],
    sigma: float,
    n_references: int,
    rng: np.random.Generator,
) -> Float64[np.ndarray, "n_models n_models"]:
    draws = [
        _all_pairs(*([_normal((len(own), *shape), sigma, rng) for own in units] for _ in range(2)))
        for _ in range(n_references)
    ]
    return np.asarray(np.mean(draws, axis=0))


def _in_the_middle(maps: Float64[np.ndarray, "n h w"]) -> Float64[np.ndarray, "n h w"]:
    """Return maps moved together so that the centre of mass of their squares is in the middle."""
    mass = (maps**2).sum(axis=0)
    if not mass.any():
        return maps
    for axis in (0, 1):
        along = mass.sum(axis=1 - axis)
        n = len(along)
        centre = float((along * np.arange(n)).sum() / along.sum())
        maps = _moved(maps, round((n - 1) / 2 - centre), axis + 1)
    return maps


def _moved(maps: np.ndarray, by: int, axis: int) -> np.ndarray:
    """Return maps moved by whole positions towards higher ones; zeros come in."""
    n = maps.shape[axis]
    source = np.arange(n) - by
    inside = (source >= 0) & (source < n)
    shape = [1] * maps.ndim
    shape[axis] = n
    moved = np.take(maps, np.clip(source, 0, n - 1), axis=axis)
    return np.asarray(moved * inside.reshape(shape))
