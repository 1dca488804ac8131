"""The images of a bank that drive and silence every model most, in one pass of bounded memory."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, Int64, UInt8
from torch.nn import functional as F

from pocketcortex.core import InputError, StimulusSet
from pocketcortex.models import CompactModel, CompactStack
from pocketcortex.stimuli._leaders import Leaders

MIN_DISTANCE = 15.0
"""Levels between the thumbnails of two images that count as different (our choice).

No two of 1,000 photographs and no two of 3,000 small images, of 112 pixels, lay nearer (least 18.6
and 15.2). Of 300 of each, 99 % stay within 2.1 of themselves saved as JPEG of quality 30, all
within 12 when made 12 levels brighter, 99 % within 12.5 when contrast is cut to 85 %, half within
10.3 and 95 % within 18.2 when 4 pixels are cut off at two sides and the rest is enlarged.
"""

THUMBNAIL = 8


@dataclass(frozen=True)
class Found:
    """For each model, images of a bank in order of response.

    Attributes
    ----------
    positions
        Where in the bank they are, best first; -1 where fewer than k were found.
    responses
        The model's responses to them; NaN where fewer were found.
    cut_short
        Whether a model has fewer than k because its surplus was used up by near-duplicates, so
        that a larger `surplus` may find more. Where it is False, the bank holds no more.
    """

    positions: Int64[np.ndarray, "k n_models"]
    responses: Float[np.ndarray, "k n_models"]
    cut_short: Bool[np.ndarray, " n_models"]

    @property
    def n_found(self) -> Int[np.ndarray, " n_models"]:
        """How many of the k images each model has."""
        return np.asarray((self.positions >= 0).sum(axis=0))


@dataclass(frozen=True)
class BankSearch:
    """What `search_bank` found, and how the models answer to the bank as a whole.

    Attributes
    ----------
    strongest, weakest
        The images with the highest and with the lowest responses.
    mean, sd
        Mean and standard deviation (dividing by n) of each model's finite responses to all images;
        NaN without any. A model with `sd` 0 answers every image alike, and its images are simply
        the first of the bank.
    n_images
        Images looked at.
    n_finite
        How many of a model's responses were finite; the others are nowhere counted.
    seconds
        Wall time of the whole pass.
    seconds_decoding
        Of it, waiting for pixels that were not decoded yet. Decoding goes on beside predicting, so
        this is what faster decoding could save at most.
    seconds_predicting
        Of it, predicting. What is left went into keeping the best.
    """

    strongest: Found
    weakest: Found
    mean: Float[np.ndarray, " n_models"]
    sd: Float[np.ndarray, " n_models"]
    n_images: int
    n_finite: Int[np.ndarray, " n_models"]
    seconds: float
    seconds_decoding: float
    seconds_predicting: float

    def __repr__(self) -> str:
        k, n_models = self.strongest.positions.shape
        return (
            f"BankSearch({k} strongest and weakest of {self.n_images} images for {n_models} models)"
        )


def search_bank(
    models: CompactStack | Sequence[CompactModel],
    stimuli: StimulusSet,
    k: int,
    *,
    min_distance: float = MIN_DISTANCE,
    surplus: int = 64,
    batch_size: int = 256,
    n_threads: int = 2,
    device: str | torch.device = "cpu",
    advance: Callable[[int], None] = lambda n: None,
) -> BankSearch:
    r"""Return the `k` images of a bank that drive each model most, and the `k` that do least.

    The same as to score every image, to sort by response (of equal ones the first in the bank
    leads), and to take images from the top, each unless it is near one taken before. Two images
    are near if they are equal, or if their thumbnails (8 x 8 means of each colour) differ by

    .. math:: \sqrt{\tfrac{1}{192} \sum (a - b)^2} < \mathrm{min\_distance}.

    The bank is streamed once, decoded ahead by threads. For each model and direction the
    `k + surplus` best different images seen so far are remembered, and near ones are taken out at
    the end: whether an image is near a better one is not settled before the best are known.
    So memory does not depend on the size of the bank, what is returned is always the
    beginning of the answer described above, and it is shorter than `k` only where near-duplicates
    use up the surplus or the bank (`Found.cut_short` tells which). Equal images, however many,
    use up nothing.

    Parameters
    ----------
    models
        Compact models for images of one size, or a stack of them.
    stimuli
        The bank, of that image size.
    k
        Images for each model and direction, 1 or more.
    min_distance
        Levels (0..255), see above; 0 leaves out equal images only.
    surplus
        Further images remembered for each model and direction, 0 or more.
    batch_size
        Images decoded and predicted at once; up to eight batches are held, decoded ahead.
    n_threads
        Batches decoded at once.
    device
        Where to predict; a stack that is given is moved there.
    advance
        Called with the number of images of every batch done.

    Raises
    ------
    InputError
        If there is no model or image, the images are of another size than the models take, an
        image cannot be decoded, or an argument is out of its range.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Fig. 2b: maximizing images of a bank of 500,000.
    Searching for the weakest, and the rule for near-duplicates, are our own.
    """
    for name, value, least in (("k", k, 1), ("surplus", surplus, 0), ("batch_size", batch_size, 1)):
        if value < least:
            raise InputError(f"{name} must be at least {least}, got {value}")
    if not (np.isfinite(min_distance) and min_distance >= 0):
        raise InputError(f"min_distance must be 0 or more levels, got {min_distance}")
    stack = models if isinstance(models, CompactStack) else CompactStack(models)
    stack = stack.to(device)
    if len(stimuli) == 0:
        raise InputError("the bank holds no image; give at least one")
    if stimuli.image_size != stack.image_size:
        raise InputError(
            f"the models take images of {stack.image_size} (height, width) but those of the bank "
            f"are {stimuli.image_size}; read it with that size"
        )
    leaders = Leaders(2 * len(stack), k + surplus)
    moments = _Moments(len(stack))
    started = time.perf_counter()
    waited = predicted = 0.0
    starts = range(0, len(stimuli), batch_size)
    stream = stimuli.stream((slice(s, s + batch_size) for s in starts), n_threads=n_threads)
    try:
        for start in starts:
            asked = time.perf_counter()
            images = next(stream)
            decoded = time.perf_counter()
            responses = stack.predict(torch.from_numpy(images).to(device)).double().cpu().numpy()
            answered = time.perf_counter()
            waited, predicted = waited + decoded - asked, predicted + answered - decoded
            moments.add(responses)
            both = np.concatenate([responses, -responses], axis=1)
            positions = np.arange(start, start + len(images))
            leaders.add(both, positions, _digests(images), thumbnails(images))
            advance(len(images))
    finally:
        stream.close()
    found = [leaders.chosen(row, k, min_distance) for row in range(2 * len(stack))]
    short = leaders.full()
    return BankSearch(
        strongest=_found(found[: len(stack)], short[: len(stack)], k, 1.0),
        weakest=_found(found[len(stack) :], short[len(stack) :], k, -1.0),
        mean=moments.mean_or_nan(),
        sd=moments.sd(),
        n_images=len(stimuli),
        n_finite=moments.n,
        seconds=time.perf_counter() - started,
        seconds_decoding=waited,
        seconds_predicting=predicted,
    )


def thumbnails(
    images: UInt8[np.ndarray, "n_stimuli 3 height width"],
) -> Float32[np.ndarray, "n_stimuli values"]:
    """Return the 8 x 8 means of each colour of each image, flat, in levels."""
    pixels = torch.from_numpy(images).float()
    return F.adaptive_avg_pool2d(pixels, THUMBNAIL).flatten(1).numpy()


def _digests(images: UInt8[np.ndarray, "n 3 height width"]) -> Int64[np.ndarray, " n"]:
    """Return 64 bits of a hash of each image's pixels.

    Two of a million different images share them with a probability of 3 in 100 million.
    """
    digests = [hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images]
    return np.frombuffer(b"".join(digests), dtype=np.int64)


def _found(
    chosen: Sequence[tuple[np.ndarray, np.ndarray]],
    full: Bool[np.ndarray, " n_models"],
    k: int,
    sign: float,
) -> Found:
    positions = np.full((k, len(chosen)), -1, dtype=np.int64)
    responses = np.full((k, len(chosen)), np.nan)
    for column, (where, scores) in enumerate(chosen):
        positions[: len(where), column] = where
        responses[: len(where), column] = sign * scores
    return Found(positions, responses, full & (positions[-1] < 0))


class _Moments:
    """Mean and sum of squared deviations of finite values, batch by batch (Chan et al. 1979)."""

    def __init__(self, n_models: int) -> None:
        self.n = np.zeros(n_models, dtype=np.int64)
        self.mean = np.zeros(n_models)
        self.squares = np.zeros(n_models)

    def add(self, values: Float[np.ndarray, "n_batch n_models"]) -> None:
        finite = np.isfinite(values)
        values = np.where(finite, values, 0.0)
        n = finite.sum(axis=0)
        mean = values.sum(axis=0) / np.maximum(n, 1)
        squares = (np.where(finite, values - mean, 0.0) ** 2).sum(axis=0)
        total = np.maximum(self.n + n, 1)
        step = np.where(n > 0, mean - self.mean, 0.0)
        self.squares = self.squares + squares + step**2 * self.n * n / total
        self.mean = self.mean + step * n / total
        self.n = self.n + n

    def mean_or_nan(self) -> Float[np.ndarray, " n_models"]:
        return np.where(self.n > 0, self.mean, np.nan)

    def sd(self) -> Float[np.ndarray, " n_models"]:
        return np.where(self.n > 0, np.sqrt(self.squares / np.maximum(self.n, 1)), np.nan)
