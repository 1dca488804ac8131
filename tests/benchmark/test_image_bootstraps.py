"""Intervals over images equal a plain loop over resamples; ceilings meet the truth."""

import doctest
import importlib

import numpy as np
import pytest
from jaxtyping import TypeCheckError
from scipy.stats import rankdata

from pocketcortex.benchmark import (
    bootstrap_predictions,
    bootstrap_rsa,
    bootstrap_rsr,
    compare_rdms,
    neuron_ceilings,
    regression_scores,
    response_rdm,
    rsa_scores,
    rsr_predictions,
    rsr_score,
    split_half_rdm_ceiling,
    subject_rdm_ceiling,
)
from pocketcortex.core import InputError
from pocketcortex.zoo import NetworkKernels


def kernels_of(layers: list[np.ndarray]) -> NetworkKernels:
    centred = [X - X.mean(axis=0) for X in layers]
    z = [X / X.std(axis=0) for X in centred]
    return NetworkKernels(
        layers=tuple(f"layer{k}" for k in range(len(layers))),
        n_features=np.array([X.shape[1] for X in layers]),
        centred=np.stack([X @ X.T for X in centred]),
        standardized=np.stack([X @ X.T for X in z]),
        row_means=np.stack([X.mean(axis=1) for X in layers]),
        row_squares=np.stack([X.var(axis=1) * X.shape[1] for X in layers]),
    )


def features(n: int, rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.gamma(1.0, size=(n, p)) for p in (20, 60, 40)]


def weights_of(n: int, n_resamples: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.multinomial(n, np.full(n, 1 / n), size=n_resamples)


def test_contributions_add_up_to_the_score() -> None:
    rng = np.random.default_rng(0)
    layers = features(60, rng)
    responses = (layers[1][:, :5] + rng.normal(size=(60, 5)))[:, None]
    scores = regression_scores(kernels_of(layers), responses, rng=rng)
    drawn = bootstrap_predictions(responses[:, 0], scores.predictions, scores.folds, rng=rng)
    np.testing.assert_allclose(drawn.contributions.sum(), scores.values["pearson r"].mean())
    low, high = np.quantile(drawn.r, [0.025, 0.975], axis=0)
    assert ((low < scores.values["pearson r"]) & (scores.values["pearson r"] < high)).all()


def test_resampled_correlations_are_those_of_the_copied_images() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 3))
    y = x + rng.normal(size=(40, 3))
    y[:, 2] = np.nan
    folds = np.repeat([0, 1], 20)
    drawn = bootstrap_predictions(y, x, folds, rng=np.random.default_rng(5), n_resamples=7)
    again = np.random.default_rng(5)
    counts = [again.multinomial(20, np.full(20, 1 / 20), size=7) for _ in range(2)]
    for b in range(7):
        parts = [np.repeat(np.arange(20) + 20 * f, counts[f][b]) for f in range(2)]
        for k in range(2):
            r = np.mean([np.corrcoef(x[p, k], y[p, k])[0, 1] for p in parts])
            np.testing.assert_allclose(drawn.r[b, k], r)
            sides = [np.concatenate([v[p, k] - v[p, k].mean() for p in parts]) for v in (x, y)]
            np.testing.assert_allclose(drawn.r2[b, k], np.corrcoef(*sides)[0, 1] ** 2)
    assert np.isnan(drawn.r[:, 2]).all()


@pytest.mark.parametrize("comparison", ["pearson", "spearman", "whitened"])
def test_resampled_rsa_is_that_of_pairs_of_different_stimuli(comparison: str) -> None:
    rng = np.random.default_rng(2)
    n = 24
    layers = np.stack([response_rdm(X) for X in features(n, rng)])
    site = layers[1] + 0.1 * rng.normal(size=layers.shape[1])
    scores = rsa_scores(
        layers, {"site": site}, rng=rng, comparison=comparison, n_splits=2, n_permutations=0
    )
    drawn = bootstrap_rsa(layers, site[None], scores, rng=np.random.default_rng(3), n_resamples=5)
    square = np.zeros((4, n, n))
    for k, triangle in enumerate([*layers, site]):
        square[k][np.triu_indices(n, 1)] = triangle
    square += square.transpose(0, 2, 1)
    if comparison == "whitened":  # its value is compare_rdms' own where each is drawn once
        half = np.flatnonzero(scores.reported[0])
        upper = np.triu_indices(len(half), 1)
        sides = [square[k][np.ix_(half, half)][upper][None] for k in (scores.chosen[0, 0], 3)]
        assert np.isfinite(drawn).all()
        assert abs(drawn.mean() - compare_rdms(*sides, comparison="whitened")[0, 0]) < 0.2
        return
    for b, counts in enumerate(weights_of(n, 5, 3)):
        values = []
        for layer, half in zip(scores.chosen[:, 0], scores.reported, strict=True):
            places = np.flatnonzero(half)
            pairs = np.triu_indices(len(places), 1)
            sides = [square[k][np.ix_(places, places)][pairs] for k in (layer, 3)]
            if comparison == "spearman":
                sides = [rankdata(side) for side in sides]
            copies = (counts[places][:, None] * counts[places])[pairs]
            values.append(np.corrcoef(*(np.repeat(side, copies) for side in sides))[0, 1])
        np.testing.assert_allclose(drawn[b, 0], np.mean(values))


def test_resampled_rsr_surrounds_its_score() -> None:
    rng = np.random.default_rng(4)
    layers = np.stack([response_rdm(X) for X in features(60, rng)])
    site = layers[0] + 2 * layers[2] + 0.3 * rng.normal(size=layers.shape[1])
    value, _ = rsr_score(layers, site, rng=np.random.default_rng(6), n_permutations=0)
    predicted, folds = rsr_predictions(layers, site, rng=np.random.default_rng(6))
    held = folds >= 0
    assert (np.isfinite(predicted) == held).all()
    centred = [
        np.concatenate([v[folds == f] - v[folds == f].mean() for f in range(6)])
        for v in (predicted, site)
    ]
    np.testing.assert_allclose(np.corrcoef(*centred)[0, 1], value)
    drawn = bootstrap_rsr(predicted, site, folds, rng=rng, n_resamples=200)
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert low < value < high


def test_ceilings_are_what_the_truth_would_score() -> None:
    rng = np.random.default_rng(7)
    true = rng.normal(size=(400, 1, 30))
    responses = true + 2.0 * rng.normal(size=(400, 8, 30))
    reached = [np.corrcoef(true[:, 0, k], responses.mean(1)[:, k])[0, 1] for k in range(30)]
    ceilings = neuron_ceilings(responses, rng=rng)
    assert abs(ceilings.mean() - np.mean(reached)) < 0.01
    cells = rng.normal(size=(60, 1, 200)) + 0.5 * rng.normal(size=(60, 6, 200))
    noiseless = response_rdm(cells.mean(axis=1))
    assert split_half_rdm_ceiling(cells, rng=rng, n_splits=4) > 0.5
    subjects = noiseless + 0.05 * rng.normal(size=(5, len(noiseless)))
    low, high = subject_rdm_ceiling(subjects)
    best = compare_rdms(noiseless[None], subjects).mean()
    assert low < best < high
    averages = responses.mean(axis=1, keepdims=True)
    assert np.isnan(neuron_ceilings(averages, rng=rng)).all()


def test_split_half_ceiling_of_matrices_meets_the_truth() -> None:
    rng = np.random.default_rng(8)
    patterns = rng.normal(size=(40, 5)) @ rng.normal(size=(5, 300))
    responses = patterns[:, None] + 1.5 * rng.normal(size=(40, 10, 300))
    reached = compare_rdms(
        response_rdm(patterns)[None], response_rdm(responses.mean(axis=1))[None]
    )[0, 0]
    assert abs(split_half_rdm_ceiling(responses, rng=rng, n_splits=6) - reached) < 0.03


def test_what_cannot_be_resampled_is_refused() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(10, 2))
    with pytest.raises(InputError, match="2 or more"):
        bootstrap_predictions(x, x, np.zeros(10, dtype=int), rng=rng, n_resamples=1)
    with pytest.raises((InputError, TypeCheckError)):
        bootstrap_predictions(x, x[:, :1], np.zeros(10, dtype=int), rng=rng)
    with pytest.raises(InputError, match="two repeats"):
        split_half_rdm_ceiling(x[:, None], rng=rng)
    with pytest.raises(InputError, match="two or more"):
        subject_rdm_ceiling(rng.random((1, 45)))


@pytest.mark.parametrize(
    "module", ["prediction_bootstrap", "ceilings", "ranking", "questions", "rsa_bootstrap"]
)
def test_examples(module: str) -> None:
    found = doctest.testmod(importlib.import_module(f"pocketcortex.benchmark.{module}"))
    assert found.failed == 0
