"""Intervals over images for how well held-out predictions correlate with neurons."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int

from pocketcortex.core import InputError


@dataclass(frozen=True, eq=False, repr=False)
class PredictionBootstrap:
    """Correlations of predictions with neurons, for other samples of images.

    Attributes
    ----------
    r
        Pearson's r within each fold, averaged over folds, (n_resamples, n_neurons).
    r2
        Squared Pearson's r over all images, folds' means taken out, (n_resamples, n_neurons).
    contributions
        What each image adds to the mean of r over neurons as scored, (n_stimuli,): their sum is
        that mean.
    """

    r: Float64[np.ndarray, "n_resamples n_neurons"]
    r2: Float64[np.ndarray, "n_resamples n_neurons"]
    contributions: Float64[np.ndarray, " n_stimuli"]


def bootstrap_predictions(
    responses: Float64[np.ndarray, "n_stimuli n_neurons"],
    predictions: Float64[np.ndarray, "n_stimuli n_neurons"],
    folds: Int[np.ndarray, " n_stimuli"],
    *,
    rng: np.random.Generator,
    n_resamples: int = 1000,
) -> PredictionBootstrap:
    """Return correlations when images are drawn anew, with replacement, within each fold.

    What was fitted and chosen stays as it is, so that intervals are those of the scores of these
    fitted models for other images, not of what other images would have taught them. A generator of
    the same seed draws the same images, so that networks can be compared draw by draw.

    Parameters
    ----------
    responses
        Mean responses, any unit.
    predictions
        Held out: no fold's responses have a part in its predictions.
    folds
        Fold of each image, 0 and up; :attr:`RegressionScores.folds`.
    rng
        Source of the draws.
    n_resamples
        Number of resamples, 2 or more.

    Returns
    -------
    PredictionBootstrap
        NaN for neurons with NaN in responses or predictions, and where a draw leaves either
        constant.

    Raises
    ------
    InputError
        If shapes disagree or n_resamples is below 2.

    References
    ----------
    Efron & Tibshirani (1993), An Introduction to the Bootstrap, chapter 13.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(200, 1))
    >>> y = x + rng.normal(size=(200, 1))
    >>> found = bootstrap_predictions(y, x, np.arange(200) % 2, rng=rng)
    >>> low, high = np.quantile(found.r, [0.025, 0.975])
    >>> bool(low < 0.5**0.5 < high), round(float(found.contributions.sum()), 1)
    (True, 0.7)
    """
    if responses.shape != predictions.shape or folds.shape != (len(responses),):
        raise InputError(
            "responses and predictions must be (n_stimuli, n_neurons) and folds (n_stimuli,), got "
            f"{responses.shape}, {predictions.shape} and {folds.shape}"
        )
    if n_resamples < 2:
        raise InputError(f"n_resamples must be 2 or more, got {n_resamples}; 1000 is usual")
    names = np.unique(folds)
    r = np.zeros((n_resamples, responses.shape[1]))
    pooled = np.zeros((3, *r.shape))
    contributions = np.zeros(len(responses))
    for name in names:
        own = np.flatnonzero(folds == name)
        y, x = responses[own], predictions[own]
        y, x = y - y.mean(axis=0), x - x.mean(axis=0)
        weights = rng.multinomial(len(own), np.full(len(own), 1 / len(own)), size=n_resamples)
        sums = _moments(x, y, weights.astype(np.float64))
        r += _ratio(*sums) / len(names)
        pooled += sums
        share = _ratio(x * y, (x**2).sum(axis=0), (y**2).sum(axis=0)) / len(names)
        scored = np.isfinite(share).all(axis=0)
        if scored.any():
            contributions[own] = share[:, scored].mean(axis=1)
    return PredictionBootstrap(r, np.square(_ratio(*pooled)), contributions)


def _moments(
    x: Float64[np.ndarray, "n n_neurons"],
    y: Float64[np.ndarray, "n n_neurons"],
    weights: Float64[np.ndarray, "n_resamples n"],
) -> Float64[np.ndarray, "3 n_resamples n_neurons"]:
    """Return sums of products about the weighted means: xy, xx, yy."""
    total = weights.sum(axis=1, keepdims=True)
    parts = np.split(weights @ np.hstack([x, y, x * y, x**2, y**2]), 5, axis=1)
    sx, sy, xy, xx, yy = parts
    return np.stack([xy - sx * sy / total, xx - sx**2 / total, yy - sy**2 / total])


def _ratio(xy: np.ndarray, xx: np.ndarray, yy: np.ndarray) -> np.ndarray:
    """Return xy / sqrt(xx yy), NaN where either has no variance."""
    size = np.sqrt(np.maximum(xx, 0) * np.maximum(yy, 0))
    return np.asarray(xy / np.where(size > 0, size, np.nan))
