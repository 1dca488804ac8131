"""Representational similarity: formulas against plain ones, choices against a null at 0."""

import doctest
import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from scipy.optimize import nnls
from scipy.spatial.distance import pdist, squareform
from scipy.stats import pearsonr, spearmanr

from pocketcortex.benchmark import (
    bootstrap_rdm_scores,
    compare_rdms,
    response_rdm,
    rsa_scores,
    rsr_score,
)
from pocketcortex.core import InputError
from pocketcortex.mapping import stimulus_folds

COMPARISONS = ("pearson", "spearman", "whitened")


def rdms_of_noise(n_rdms: int, n_stimuli: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    patterns = rng.normal(size=(n_rdms, n_stimuli, 12)) * rng.uniform(0.1, 3, (n_rdms, 1, 12))
    return np.stack([pdist(p, "correlation") for p in patterns])


def whitened_by_definition(x: np.ndarray, y: np.ndarray, n: int) -> float:
    """V from contrasts between stimuli that have independent noise of one size."""
    contrasts = np.zeros((n * (n - 1) // 2, n))
    for row, (i, j) in enumerate(zip(*np.triu_indices(n, 1), strict=True)):
        contrasts[row, i], contrasts[row, j] = 1, -1
    inverse = np.linalg.inv((contrasts @ contrasts.T) ** 2)
    x, y = x - x.mean(), y - y.mean()
    return float(x @ inverse @ y / np.sqrt((x @ inverse @ x) * (y @ inverse @ y)))


def test_response_rdm_is_the_correlation_distance() -> None:
    responses = np.random.default_rng(0).gamma(2.0, size=(15, 40))
    np.testing.assert_allclose(response_rdm(responses), pdist(responses, "correlation"), atol=1e-9)
    responses[3] = 2.0
    missing = np.isnan(squareform(response_rdm(responses), checks=False))
    assert missing[3].sum() == 14
    assert missing.sum() == 28


def test_sites_with_few_cells_are_refused() -> None:
    responses = np.random.default_rng(0).normal(size=(15, 9))
    with pytest.raises(InputError, match="10 cells or more"):
        response_rdm(responses)
    assert np.isfinite(response_rdm(responses, min_cells=9)).all()
    with pytest.raises(InputError, match="min_cells must be 2"):
        response_rdm(responses, min_cells=1)
    with pytest.raises(InputError, match="finite"):
        response_rdm(np.full((5, 12), np.nan))


def test_comparisons_are_those_of_scipy_and_the_definition() -> None:
    first, second = rdms_of_noise(4, 9), rdms_of_noise(3, 9, seed=1)
    for comparison, plain in (
        ("pearson", lambda x, y: pearsonr(x, y).statistic),
        ("spearman", lambda x, y: spearmanr(x, y).statistic),
        ("whitened", lambda x, y: whitened_by_definition(x, y, 9)),
    ):
        expected = [[plain(x, y) for y in second] for x in first]
        ours = compare_rdms(first, second, comparison=comparison)
        np.testing.assert_allclose(ours, expected, atol=1e-10)


def test_comparisons_are_those_of_rsatoolbox() -> None:
    rdm = pytest.importorskip("rsatoolbox.rdm")
    first, second = rdms_of_noise(4, 20), rdms_of_noise(3, 20, seed=1)
    for comparison, method in (
        ("pearson", "corr"),
        ("spearman", "spearman"),
        ("whitened", "corr_cov"),
    ):
        theirs = rdm.compare(rdm.RDMs(first), rdm.RDMs(second), method=method)
        np.testing.assert_allclose(
            compare_rdms(first, second, comparison=comparison), theirs, atol=1e-7
        )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3), st.floats(-5, 5))
def test_comparisons_do_not_see_order_scale_or_shift(seed: int, scale: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    first, second = rdms_of_noise(2, 8, seed=seed)
    order = rng.permutation(8)
    one, other = (
        squareform(rdm)[np.ix_(order, order)][np.triu_indices(8, 1)] for rdm in (first, second)
    )
    for comparison in COMPARISONS:
        expected = compare_rdms(first[None], second[None], comparison=comparison)
        moved = compare_rdms(one[None], scale * other[None] + shift, comparison=comparison)
        np.testing.assert_allclose(moved, expected, atol=1e-7)


def test_matrices_without_variation_or_with_nan_compare_as_nan() -> None:
    rdms = rdms_of_noise(3, 6)
    rdms[1] = 0.7
    rdms[2, 4] = np.nan
    for comparison in COMPARISONS:
        found = compare_rdms(rdms, rdms[:1], comparison=comparison)[:, 0]
        assert found[0] == pytest.approx(1)
        assert np.isnan(found[1:]).all()


def test_published_rsa_is_the_best_layer_over_all_stimuli() -> None:
    layers, sites = rdms_of_noise(5, 14), rdms_of_noise(2, 14, seed=3)
    sites[0] += 2 * layers[3]
    scores = rsa_scores(
        layers, {"V1": sites[0], "LM": sites[1]}, protocol="published",
        layers=tuple("abcde"), rng=np.random.default_rng(0),
    )  # fmt: skip
    expected = np.array([[pearsonr(x, y).statistic for y in sites] for x in layers])
    np.testing.assert_allclose(scores.layer_scores, expected)
    np.testing.assert_allclose(scores.values, expected.max(axis=0))
    assert scores.chosen_layers() == ["d", "abcde"[expected[:, 1].argmax()]]


def test_honest_rsa_chooses_in_one_half_and_reports_in_the_other() -> None:
    layers, site = rdms_of_noise(6, 20), rdms_of_noise(1, 20, seed=3)[0]
    site = site + 0.3 * layers[2]
    scores = rsa_scores(
        layers, {"V1": site}, rng=np.random.default_rng(4), n_splits=3, n_permutations=0
    )
    rng = np.random.default_rng(4)
    values, chosen = [], []
    for _ in range(3):
        half = rng.permutation(20) < 10
        for choose in (half, ~half):

            def within(rdm: np.ndarray, stimuli: np.ndarray) -> np.ndarray:
                return squareform(squareform(rdm)[np.ix_(stimuli, stimuli)], checks=False)

            r = [pearsonr(within(x, choose), within(site, choose)).statistic for x in layers]
            best = int(np.argmax(r))
            chosen.append(best)
            values.append(pearsonr(within(layers[best], ~choose), within(site, ~choose)).statistic)
    np.testing.assert_array_equal(scores.chosen[:, 0], chosen)
    np.testing.assert_allclose(scores.values, [np.mean(values)])


def test_null_of_honest_rsa_is_0_and_that_of_published_is_not() -> None:
    layers = rdms_of_noise(20, 24)
    sites = {f"site{k}": rdm for k, rdm in enumerate(rdms_of_noise(60, 24, seed=1))}
    for comparison in COMPARISONS:
        honest, published = (
            rsa_scores(
                layers, sites, protocol=protocol, comparison=comparison, n_splits=2,
                n_permutations=10, rng=np.random.default_rng(2),
            )
            for protocol in ("honest", "published")
        )  # fmt: skip
        for values in (honest.values, honest.null.mean(axis=1)):
            error = values.std(ddof=1) / np.sqrt(values.size)
            assert abs(values.mean()) < 4 * error < 0.1, comparison
        error = published.values.std() / np.sqrt(len(sites))
        assert published.values.mean() > 10 * error, comparison
        assert published.null.mean() == pytest.approx(published.values.mean(), abs=0.05)


def test_rsr_is_nnls_on_training_pairs() -> None:
    layers = rdms_of_noise(4, 18)
    noise = rdms_of_noise(1, 18, seed=5)[0]
    site = 0.5 * layers[0] + 1.5 * layers[2] - layers[3] + noise + 0.3
    first, second = np.triu_indices(18, 1)
    folds = stimulus_folds(18, n_folds=3, rng=np.random.default_rng(7))
    total, count, within = np.zeros(len(site)), np.zeros(len(site)), []
    for fold in range(3):
        out = folds == fold
        train = ~out[first] & ~out[second]
        X, y = layers[:, train].T, site[train]
        mean = X.mean(axis=0)
        weights, _ = nnls(X - mean, y - y.mean())
        predicted = (layers.T - mean) @ weights + y.mean()
        total[~train] += predicted[~train]
        count[~train] += 1
        both = out[first] & out[second]
        within.append(np.stack([x[both] - x[both].mean() for x in (predicted, site)]))
    assert set(count) == {1, 2}
    published, _ = rsr_score(
        layers, site, rng=np.random.default_rng(7), protocol="published", n_folds=3
    )
    honest, _ = rsr_score(layers, site, rng=np.random.default_rng(7), n_folds=3)
    assert published == pytest.approx(pearsonr(total / count, site).statistic, abs=1e-8)
    assert honest == pytest.approx(pearsonr(*np.hstack(within)).statistic, abs=1e-8)


def test_null_of_honest_rsr_is_0() -> None:
    layers = rdms_of_noise(15, 36)
    layers += 3 * np.isin(np.triu_indices(36, 1)[1], [35])  # a blank far from all others
    values = []
    for seed, site in enumerate(rdms_of_noise(8, 36, seed=1)):
        rng = np.random.default_rng(seed)
        _, null = rsr_score(layers, site, rng=rng, n_permutations=40, n_folds=3)
        values += null[np.isfinite(null)].tolist()
    error = np.std(values) / np.sqrt(len(values))
    assert len(values) > 250
    assert abs(np.mean(values)) < 4 * error < 0.1


def test_bootstrap_covers_the_population_and_tells_models_apart() -> None:
    """Sites and models of stimuli drawn anew; the interval of one model's score covers its mean."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(3, 8, 40))
    scores, covered, told = [], [], []
    for _ in range(30):
        latent = rng.normal(size=(25, 8))
        site = response_rdm(latent @ weights[0] + rng.normal(size=(25, 40)))
        good = pdist(latent @ weights[1], "correlation")
        poor = pdist(latent[:, :2] @ weights[2, :2], "correlation")
        found = bootstrap_rdm_scores(np.stack([good, poor]), site, rng=rng, n_resamples=200)
        scores.append(found.scores)
        covered.append((found.low[0], found.high[0]))
        told.append(found.p[0, 1] < 0.05)
        assert found.p[0, 0] == 1
        assert found.p[0, 1] == found.p[1, 0]
    truth = np.mean(scores, axis=0)[0]
    assert np.mean([low <= truth <= high for low, high in covered]) > 0.85
    assert np.mean(told) > 0.8


def test_bootstrap_of_a_model_with_itself_is_no_difference() -> None:
    rdms = rdms_of_noise(2, 12)
    found = bootstrap_rdm_scores(
        rdms[[0, 0]], rdms[1], rng=np.random.default_rng(0), n_resamples=50, comparison="whitened"
    )
    np.testing.assert_array_equal(found.samples[:, 0], found.samples[:, 1])
    assert found.p[0, 1] == 1


def test_what_has_no_score_is_nan_with_its_reason() -> None:
    layers, sites = rdms_of_noise(4, 14), rdms_of_noise(2, 14, seed=3)
    layers[1] = np.nan
    sites[1] = np.nan
    for protocol in ("honest", "published"):
        scores = rsa_scores(
            layers, {"V1": sites[0], "LM": sites[1]}, layers=tuple("abcd"), protocol=protocol,
            rng=np.random.default_rng(0),
        )  # fmt: skip
        table = scores.table(model="toy", every_layer=True)
        assert len(table) == 2 + 4 * 2
        assert ((table["reason"] == "") == table["value"].notna()).all()
        assert set(scores.reasons) == {"b", "LM"}
        assert np.isfinite(scores.values[0])
        assert scores.chosen_layers()[1] == ""
        assert table.columns.tolist() == [
            "model", "site", "choice", "layer", "metric", "value", "null", "n_stimuli", "reason",
        ]  # fmt: skip


def test_bad_input_is_refused() -> None:
    rng = np.random.default_rng(0)
    layers, site = rdms_of_noise(3, 14), rdms_of_noise(1, 14, seed=1)[0]
    for call, message in (
        (lambda: compare_rdms(layers[:, :7], layers[:, :7]), "upper triangle"),
        (lambda: compare_rdms(layers, layers[:, :45]), "same stimuli|second"),
        (lambda: compare_rdms(layers, layers, comparison="cosine"), "comparison"),
        (lambda: rsa_scores(layers, {}, rng=rng), "each site"),
        (lambda: rsa_scores(layers, {"a": site}, layers=("a", "b"), rng=rng), "a name of its own"),
        (lambda: rsa_scores(layers, {"a": site}, layers=tuple("abc"), rng=rng), "different names"),
        (lambda: rsa_scores(layers, {"a": site}, n_splits=0, rng=rng), "n_splits must be"),
        (lambda: rsa_scores(layers * np.nan, {"a": site}, rng=rng), "no layer is usable"),
        (lambda: rsa_scores(layers, {"a": site * np.nan}, rng=rng), "no site or no layer"),
        (lambda: rsr_score(layers, site, rng=rng), "fewer than 5"),
        (lambda: rsr_score(layers * 0, site, rng=rng, n_folds=2), "no layer is usable"),
        (lambda: rsr_score(layers, site * np.nan, rng=rng, n_folds=2), "must be finite"),
        (lambda: bootstrap_rdm_scores(layers, site, rng=rng, n_resamples=1), "n_resamples"),
        (lambda: bootstrap_rdm_scores(layers * np.nan, site, rng=rng), "must be finite"),
    ):
        with pytest.raises((InputError, TypeCheckError), match=message):
            call()


@pytest.mark.parametrize("name", ["rdms", "rsr", "rdm_bootstrap"])
def test_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"pocketcortex.benchmark.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
