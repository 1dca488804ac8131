"""How alike the layers of many models represent images: CKA of all pairs, streamed."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8

from pocketcortex.core import InputError, StimulusSet
from pocketcortex.dissect._maps import (
    N_LAYERS,
    FoldedLayers,
    MapBuffer,
    Moments,
    View,
    around,
    covariance,
    filtered_sd,
    gram,
    whole,
)
from pocketcortex.metrics.cka import CKAAccumulator
from pocketcortex.metrics.dimensionality import effective_dimensionality
from pocketcortex.metrics.pairs import pair_mean
from pocketcortex.models import CompactModel

Positions = Literal["all", "receptive field", "receptive field in place"]

_LEAST_BATCH = 8


@dataclass(frozen=True)
class AlignmentNull:
    """CKA of models whose images are dealt out anew, each model by itself, within batches.

    Attributes
    ----------
    mean, sd
        Of each pair over permutations; NaN on the diagonal.
    p
        Of each pair, one-sided: the share of permutations in which it is at least as alike, the
        order observed counted among them. NaN on the diagonal and where CKA is NaN.
    pair_mean
        Mean over all pairs, one value a permutation and layer.
    pair_mean_p
        One-sided p of each layer's mean over pairs.
    """

    mean: Float64[np.ndarray, "n_layers n_models n_models"]
    sd: Float64[np.ndarray, "n_layers n_models n_models"]
    p: Float64[np.ndarray, "n_layers n_models n_models"]
    pair_mean: Float64[np.ndarray, "n_permutations n_layers"]
    pair_mean_p: Float64[np.ndarray, " n_layers"]


@dataclass(frozen=True)
class ChannelStatistics:
    """How the channels of each layer vary over images and positions.

    Attributes
    ----------
    dimensionality
        Effective number of dimensions of each layer's channels, after rectification: the
        participation ratio of their covariance, between 1 and the number of filters. NaN where no
        channel varies.
    input_sd
        For each model, of layers 1 to 4, the standard deviation of each depthwise output, which is
        what the pointwise weights combine.
    """

    dimensionality: Float64[np.ndarray, "n_layers n_models"]
    input_sd: tuple[tuple[Float64[np.ndarray, " _"], ...], ...]


@dataclass(frozen=True)
class Alignment:
    """CKA between models, layer by layer.

    Attributes
    ----------
    cka
        Of all pairs in layers 0 to 4 (1 to 5 of the paper), after rectification. Diagonal 1; NaN
        in row and column of a model whose layer answers all images of each batch alike.
    null
        What chance gives; None where no permutation was asked for.
    channels
        Gathered in the same pass.
    debiased, positions, window_px
        As asked for; `window_px` is NaN for all positions.
    n_images
        Images looked at.
    batch_sizes
        How many in each batch.
    seconds
        Wall time of the whole pass.
    seconds_decoding, seconds_maps, seconds_grams, seconds_similarity
        Of it: waiting for pixels, running the models, scalar products between images, and CKA of
        all pairs with its permutations.
    """

    cka: Float64[np.ndarray, "n_layers n_models n_models"]
    null: AlignmentNull | None
    channels: ChannelStatistics
    debiased: bool
    positions: Positions
    window_px: float
    n_images: int
    batch_sizes: tuple[int, ...]
    seconds: float
    seconds_decoding: float
    seconds_maps: float
    seconds_grams: float
    seconds_similarity: float

    def __repr__(self) -> str:
        n_layers, n_models, _ = self.cka.shape
        return f"Alignment({n_models} models, {n_layers} layers, {self.n_images} images)"


def model_alignment(
    models: Sequence[CompactModel],
    stimuli: StimulusSet | UInt8[np.ndarray, "n_stimuli 3 height width"],
    *,
    debiased: bool = True,
    positions: Positions = "all",
    centres_px: Float[np.ndarray, "n_models 2"] | None = None,
    window_px: float = 40.0,
    batch_size: int = 100,
    n_permutations: int = 0,
    seed: int = 0,
    n_threads: int = 2,
    device: str | torch.device = "cpu",
    advance: Callable[[int], None] = lambda n: None,
) -> Alignment:
    """Return how alike each layer of every pair of models represents the images.

    A layer's representation of an image is its rectified maps, all channels and positions. Images
    come in batches of nearly equal size, the same for all models: each model's scalar products
    between the images of a batch are computed, and CKA of all pairs is accumulated from them as
    `CKAAccumulator` says. One model's maps of one batch are held at a time, in tiles that stay in
    a CPU's cache while they are computed; memory does not depend on the number of images, and
    grows with that of models by 40 bytes a model and pair of images in a batch.

    Neurons' receptive fields lie in different places, which lowers or raises CKA of what they see
    for a reason that has nothing to do with their filters. With ``positions="all"`` it does not
    enter: maps are filtered versions of the whole image, the same image for all models, and only
    the readout looks at a place. But most of the maps is then nothing that the neuron answers to.
    ``"receptive field"`` is the control: each model's images are moved by whole pixels, their
    edges repeated, so that the middle of the image lies in the middle of its receptive field, and
    only positions within a square window around it count. So all models see the same pixels
    there, as each model's neuron would: the strided layers' grids may fall elsewhere on them, and
    positions less than 24 px from an edge see zeros around the image. ``"receptive field in
    place"`` takes the same windows of images that are not moved, so that each model sees other
    pixels: what is lost against the control is due to where receptive fields lie.

    Parameters
    ----------
    models
        Two or more, for images of one size.
    stimuli
        Images of that size: a set, or an array.
    debiased
        The form of HSIC, see `metrics.hsic`.
    positions
        See above.
    centres_px
        For the two with a window: x and y of each model's centre, in pixels of the image, 0 the
        middle of the left or top pixel.
    window_px
        For the same: side of the window (our choice: 10 positions of layers 2 to 4). A window that
        sticks out of the image ends with it.
    batch_size
        Most images of a batch, 8 or more; also how many are decoded at once. The work for scalar
        products grows with it.
    n_permutations
        Of the test against unrelated models; 0 for none. Needs 40 bytes a pair and permutation.
    seed
        Which permutations.
    n_threads
        Batches decoded at once. Models run on as many threads as torch has.
    device
        Where the models run.
    advance
        Called with the number of images of every batch done.

    Raises
    ------
    InputError
        If there are fewer than two models or they take images of different sizes; there are fewer
        than 8 images, or they are of another size or cannot be decoded; `centres_px` is missing,
        of a wrong shape, not finite or outside the image, or given for all positions; or an
        argument is out of its range.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Fig. 3c: CKA over 10,000 images, all 23,871 pairs;
    form, batches and the control are our own. See `metrics.CKAAccumulator` for the estimator.
    """
    stimuli = stimuli if isinstance(stimuli, StimulusSet) else StimulusSet.from_array(stimuli)
    size = _check(models, stimuli, batch_size)
    views = _views(positions, centres_px, window_px, len(models), size)
    device = torch.device(device)
    folded = [FoldedLayers(model, device) for model in models]
    n_batches = -(-len(stimuli) // batch_size)
    batches = np.array_split(np.arange(len(stimuli)), n_batches)
    buffer = MapBuffer([m.filters for m in models], views, len(batches[0]), device)
    accumulators = [
        CKAAccumulator(
            len(models), debiased=debiased, n_permutations=n_permutations,
            rng=np.random.default_rng(seed),
        )
        for _ in range(N_LAYERS)
    ]  # fmt: skip
    moments: list[tuple[Moments, ...]] = []
    clock = _Clock()
    stream = stimuli.stream(iter(batches), n_threads=n_threads, ahead=2 * n_threads)
    try:
        for pixels in stream:
            images = torch.from_numpy(pixels).to(device)
            clock.lap("decoding")
            grams = np.empty((N_LAYERS, len(models), len(images), len(images)), dtype=np.float32)
            for m, (layers, view) in enumerate(zip(folded, views, strict=True)):
                maps = buffer.maps(layers.filters, view, len(images))
                here = layers.fill(maps, images, view)
                clock.lap("maps", device)
                for k, layer in enumerate(maps):
                    grams[k, m] = gram(layer)
                clock.lap("grams")
                if m == len(moments):
                    moments.append(here)
                else:
                    moments[m] = tuple(a + b for a, b in zip(moments[m], here, strict=True))
            for accumulator, of_layer in zip(accumulators, grams, strict=True):
                accumulator.add(of_layer)
            clock.lap("similarity")
            advance(len(images))
    finally:
        stream.close()
    similarity = np.stack([accumulator.cka() for accumulator in accumulators])
    return Alignment(
        cka=similarity,
        null=_null(similarity, accumulators) if n_permutations else None,
        channels=_statistics(moments),
        debiased=debiased,
        positions=positions,
        window_px=float("nan") if positions == "all" else window_px,
        n_images=len(stimuli),
        batch_sizes=tuple(len(batch) for batch in batches),
        seconds=clock.total(),
        seconds_decoding=clock.spent["decoding"],
        seconds_maps=clock.spent["maps"],
        seconds_grams=clock.spent["grams"],
        seconds_similarity=clock.spent["similarity"],
    )


class _Clock:
    """Wall time by what was done since the last look at it."""

    def __init__(self) -> None:
        self.spent = dict.fromkeys(("decoding", "maps", "grams", "similarity"), 0.0)
        self._started = self._last = time.perf_counter()

    def lap(self, name: str, device: torch.device | None = None) -> None:
        if device is not None and device.type == "cuda":
            torch.cuda.synchronize(device)
        now = time.perf_counter()
        self.spent[name] += now - self._last
        self._last = now

    def total(self) -> float:
        return time.perf_counter() - self._started


def _check(
    models: Sequence[CompactModel], stimuli: StimulusSet, batch_size: int
) -> tuple[int, int]:
    """Return the models' image size, or say what is wrong."""
    if len(models) < 2:
        raise InputError(f"two models or more can be compared, got {len(models)}")
    sizes = sorted({model.image_size for model in models})
    if len(sizes) > 1:
        raise InputError(f"models must take images of one size, got {sizes}")
    if batch_size < _LEAST_BATCH or len(stimuli) < _LEAST_BATCH:
        raise InputError(
            f"at least {_LEAST_BATCH} images, and as many in a batch, are needed; got "
            f"{len(stimuli)} and batch_size {batch_size}"
        )
    if stimuli.image_size != sizes[0]:
        raise InputError(
            f"the models take images of {sizes[0]} (height, width) but these are "
            f"{stimuli.image_size}; read them with that size"
        )
    return sizes[0]


def _views(
    positions: Positions,
    centres_px: np.ndarray | None,
    window_px: float,
    n_models: int,
    size: tuple[int, int],
) -> list[View]:
    """Return what each model is shown and where its maps are looked at."""
    if positions not in get_args(Positions):
        raise InputError(f"positions must be one of {get_args(Positions)}, got {positions!r}")
    if not window_px > 0:
        raise InputError(f"window_px must be above 0, got {window_px}")
    if positions == "all":
        if centres_px is not None:
            raise InputError("centres_px is for positions='receptive field'; leave it out")
        return [whole(size)] * n_models
    if centres_px is None or centres_px.shape != (n_models, 2):
        raise InputError(
            f"positions={positions!r} needs centres_px of shape ({n_models}, 2), x and y of "
            f"each model; got {None if centres_px is None else centres_px.shape}"
        )
    height, width = size
    inside = ((centres_px >= -0.5) & (centres_px <= np.array([width, height]) - 0.5)).all(axis=1)
    if not inside.all():  # NaN is not inside either
        first = int(np.argmin(inside))
        raise InputError(
            f"centres_px must lie within images of {size} (height, width); model {first} has "
            f"{centres_px[first]}"
        )
    moved = positions == "receptive field"
    return [around((float(y), float(x)), size, window_px, moved) for x, y in centres_px]


def _statistics(moments: Sequence[tuple[Moments, ...]]) -> ChannelStatistics:
    dimensionality = [[_dimensionality(layer) for layer in model] for model in moments]
    sd = tuple(tuple(filtered_sd(layer) for layer in model[1:]) for model in moments)
    return ChannelStatistics(np.array(dimensionality).T, sd)


def _dimensionality(moments: Moments) -> float:
    found = covariance(moments)
    # what float32 products leave of the variance of channels that do not vary
    least = 1e-5 * np.diag(moments.products).sum() / moments.n
    if np.trace(found) <= least:
        return float("nan")
    np.fill_diagonal(found, np.maximum(np.diag(found), 0))
    return effective_dimensionality(found)


def _null(similarity: np.ndarray, accumulators: Sequence[CKAAccumulator]) -> AlignmentNull:
    shape = similarity.shape
    rows, columns = np.triu_indices(shape[1], 1)
    mean, sd, p = (np.full(shape, np.nan) for _ in range(3))
    pair_means = []
    for k, accumulator in enumerate(accumulators):
        drawn = accumulator.shuffled()
        observed = similarity[k, rows, columns]
        reached = (1 + (drawn >= observed - 1e-12).sum(axis=0)) / (1 + len(drawn))
        reached[np.isnan(observed)] = np.nan
        for table, values in (
            (mean[k], drawn.mean(axis=0)), (sd[k], drawn.std(axis=0)), (p[k], reached)
        ):  # fmt: skip
            table[rows, columns] = table[columns, rows] = values
        known = ~np.isnan(observed)
        pair_means.append(drawn[:, known].mean(axis=1) if known.any() else drawn[:, 0])
    means = np.stack(pair_means, axis=1)
    of_pairs = pair_mean(similarity)
    reached = (1 + (means >= of_pairs - 1e-12).sum(axis=0)) / (1 + len(means))
    return AlignmentNull(mean, sd, p, means, np.where(np.isnan(of_pairs), np.nan, reached))
