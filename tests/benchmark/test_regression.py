"""Regression scores: published as plain scikit-learn does it, honest with a null at 0."""

import doctest
import importlib

import numpy as np
import pytest
from jaxtyping import TypeCheckError
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.preprocessing import StandardScaler
from sklearn.random_projection import SparseRandomProjection

from pocketcortex.benchmark import regression_scores
from pocketcortex.core import InputError
from pocketcortex.mapping import fit_ridge_loo, predict_ridge, ridge_coefficients, stimulus_folds
from pocketcortex.metrics import noise_corrected_r2, pearson_r2
from pocketcortex.zoo import NetworkKernels


def kernels_of(features: dict[str, np.ndarray]) -> NetworkKernels:
    """Kernels by their definition."""
    centred = [X - X.mean(axis=0) for X in features.values()]
    z = [StandardScaler().fit_transform(X) for X in features.values()]
    return NetworkKernels(
        layers=tuple(features),
        n_features=np.array([X.shape[1] for X in features.values()]),
        centred=np.stack([X @ X.T for X in centred]),
        standardized=np.stack([X @ X.T for X in z]),
        row_means=np.stack([X.mean(axis=1) for X in features.values()]),
        row_squares=np.stack([X.var(axis=1) * X.shape[1] for X in features.values()]),
    )


def layers_of_noise(n_stimuli: int, n_layers: int = 6, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(5, 300, n_layers)
    return {
        f"layer{k}": rng.gamma(1.0, size=(n_stimuli, p)) * rng.uniform(0.1, 9, p)
        for k, p in enumerate(sizes)
    }


def driven(features: np.ndarray, n_neurons: int, n_repeats: int, seed: int = 1) -> np.ndarray:
    """Responses (n_stimuli, n_repeats, n_neurons) linear in some features, with noise."""
    rng = np.random.default_rng(seed)
    z = StandardScaler().fit_transform(features)
    signal = z[:, :3] @ rng.normal(size=(3, n_neurons))
    return signal[:, None] + 1.5 * rng.normal(size=(len(z), n_repeats, n_neurons)) + 5


def correlations(Y: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    return np.array([np.corrcoef(y, p)[0, 1] for y, p in zip(Y.T, predictions.T, strict=True)])


def test_published_is_plain_scikit_learn() -> None:
    features = layers_of_noise(25)
    responses = driven(features["layer3"], 7, 4)
    Y = responses.mean(axis=1)
    scores = regression_scores(
        kernels_of(features), responses, protocol="published", rng=np.random.default_rng(0)
    )
    expected = []
    for X in features.values():
        z = StandardScaler().fit_transform(X)
        expected.append(correlations(Y, cross_val_predict(Ridge(1.0), z, Y, cv=LeaveOneOut())))
    np.testing.assert_allclose(scores.layer_r, expected, atol=1e-6)
    np.testing.assert_allclose(scores.values["pearson r"], np.max(expected, axis=0), atol=1e-6)
    np.testing.assert_array_equal(scores.chosen[0], np.argmax(expected, axis=0))
    assert scores.chosen_layers() == [f"layer{k}" for k in np.argmax(expected, axis=0)]
    np.testing.assert_allclose(scores.values["r2"], scores.values["pearson r"] ** 2, atol=1e-9)
    best = cross_val_predict(
        Ridge(1.0), StandardScaler().fit_transform(features["layer3"]), Y, cv=LeaveOneOut()
    )
    theirs = noise_corrected_r2(responses, best)
    mine = scores.chosen[0] == 3
    assert mine.any()
    np.testing.assert_allclose(scores.values["noise-corrected r2"][mine], theirs[mine], atol=1e-6)


def test_projected_is_the_limit_of_random_projections_scaled_after() -> None:
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(20, 8)) * np.logspace(0, 1, 8)
    X = latent @ rng.normal(size=(8, 3000)) * np.repeat([3.0, 0.1], 1500) + rng.normal(size=3000)
    X += 3 * np.repeat([0.1, 3.0], 1500) * rng.normal(size=X.shape)
    responses = driven(latent, 5, 2)
    scores = regression_scores(
        kernels_of({"one": X}), responses, protocol="published", kind="projected", rng=rng
    )
    parts = [SparseRandomProjection(3000, random_state=k).fit_transform(X) for k in range(14)]
    z = StandardScaler().fit_transform(np.hstack(parts)) * np.sqrt(4096 / 42_000)
    Y = responses.mean(axis=1)
    left_out = cross_val_predict(Ridge(1.0), z, Y, cv=LeaveOneOut())
    np.testing.assert_allclose(scores.layer_r[0], correlations(Y, left_out), atol=0.02)
    other = regression_scores(kernels_of({"one": X}), responses, protocol="published", rng=rng)
    assert np.abs(other.layer_r - scores.layer_r).max() > 0.1


def test_honest_is_choice_outside_and_report_inside_each_fold() -> None:
    features = layers_of_noise(40)
    responses = driven(features["layer2"], 6, 3)
    Y = responses.mean(axis=1)
    scores = regression_scores(
        kernels_of(features), responses, kind="centred", n_folds=3, n_permutations=0,
        rng=np.random.default_rng(5),
    )  # fmt: skip
    folds = stimulus_folds(40, n_folds=3, rng=np.random.default_rng(5))
    r = []
    held_out, centred = np.empty((2, *Y.shape))
    for fold in range(3):
        train, test = folds != fold, folds == fold
        errors, predictions, of_layers = [], [], []
        for X in features.values():
            # more features than stimuli or not, the solver is told the kernel's own alphas
            wide = np.hstack([X, np.zeros((40, 60))])
            fit = fit_ridge_loo(wide[train], Y[train])
            errors.append(np.square(fit.held_out_predictions - Y[train]).mean(axis=0))
            predicted = predict_ridge(wide[test], ridge_coefficients(wide[train], fit), fit)
            predictions.append(predicted)
            of_layers.append(correlations(Y[test], predicted))
        best = np.argmin(errors, axis=0)
        np.testing.assert_array_equal(scores.chosen[fold], best)
        chosen = np.stack([predictions[k][:, i] for i, k in enumerate(best)], axis=1)
        r.append(of_layers)
        held_out[test] = chosen - chosen.mean(axis=0)
        centred[test] = Y[test].mean(axis=0)
    np.testing.assert_allclose(scores.layer_r, np.mean(r, axis=0), atol=1e-6)
    np.testing.assert_allclose(scores.values["r2"], pearson_r2(Y - centred, held_out), atol=1e-6)
    np.testing.assert_allclose(
        scores.values["noise-corrected r2"],
        noise_corrected_r2(responses - centred[:, None], held_out),
        atol=1e-6,
    )


@pytest.mark.parametrize("n_folds", [2, 5])
def test_null_of_honest_is_0_and_that_of_published_is_not(n_folds: int) -> None:
    """Noise predicted from noise, 400 neurons: within four standard errors of 0."""
    rng = np.random.default_rng(2)
    n_neurons = 400
    kernels = kernels_of(layers_of_noise(60, n_layers=8))
    noise = rng.gamma(2.0, size=(60, 1, n_neurons))
    honest = regression_scores(kernels, noise, n_folds=n_folds, rng=rng)
    published = regression_scores(kernels, noise, protocol="published", rng=rng)

    def mean_and_error(values: np.ndarray) -> tuple[float, float]:
        return float(values.mean()), float(values.std() / np.sqrt(values.size))

    for values in (honest.values["pearson r"], honest.null, honest.layer_r.mean(axis=0)):
        mean, error = mean_and_error(values)
        assert abs(mean) < 4 * error < 0.05, (mean, error)
    for values in (published.values["pearson r"], published.null):
        mean, error = mean_and_error(values)
        assert mean > 10 * error, (mean, error)  # best of 8 layers on the data reported
    per_layer, error = mean_and_error(published.layer_r)
    assert per_layer < -4 * error  # left-out means


def test_a_neuron_that_is_driven_is_found_and_its_layer_too() -> None:
    features = layers_of_noise(80)
    responses = driven(features["layer4"], 20, 20)
    rng = np.random.default_rng(0)
    scores = regression_scores(kernels_of(features), responses, n_folds=4, rng=rng)
    assert scores.values["pearson r"].mean() > 0.3
    assert np.mean(scores.chosen == 4) > 0.8
    assert abs(scores.null.mean()) < 0.1
    assert scores.values["noise-corrected r2"].mean() > scores.values["r2"].mean()


def test_copies_of_an_image_stay_in_one_fold() -> None:
    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(size=(30, 400)), 2, axis=0)
    noise = np.repeat(rng.normal(size=(30, 1, 50)), 2, axis=0)
    groups = np.repeat(np.arange(30), 2)
    apart = regression_scores(kernels_of({"one": X}), noise, rng=rng)
    whole = regression_scores(kernels_of({"one": X}), noise, rng=rng, groups=groups)
    assert apart.values["pearson r"].mean() > 0.3
    assert abs(whole.values["pearson r"].mean()) < 0.1


def test_what_cannot_be_scored_is_nan_with_its_reason() -> None:
    features = layers_of_noise(30)
    features["dead"] = np.ones((30, 4))
    kernels = kernels_of(features)
    broken = kernels.centred.copy()
    broken[1] = np.nan
    kernels = NetworkKernels(
        kernels.layers, kernels.n_features, broken, broken, kernels.row_means,
        kernels.row_squares, reasons={"layer1": "features are NaN or infinite"},
    )  # fmt: skip
    responses = driven(features["layer0"], 4, 30)
    responses[3, :, 1] = np.nan
    responses[:, :, 2] = 7.0
    responses[5, 0, 3] = np.nan  # one repeat of many: no harm
    for protocol in ("honest", "published"):
        scores = regression_scores(
            kernels, responses, protocol=protocol, rng=np.random.default_rng(0)
        )
        assert scores.reasons == {1: "no response to 1 stimuli", 2: "constant response"}
        assert list(scores.layer_reasons) == ["layer1", "dead"]
        for values in scores.values.values():
            np.testing.assert_array_equal(np.isfinite(values), [True, False, False, True])
        table = scores.table(model="toy", every_layer=True)
        assert len(table) == 4 * 3 + 4 * 7
        assert not ((table["reason"] == "") & table["value"].isna()).any()
        assert not ((table["reason"] != "") & table["value"].notna()).any()
        dead = table[(table["layer"] == "dead") & (table["neuron"] == 0)]
        assert dead["reason"].tolist() == ["features do not vary over stimuli"]
        assert set(table["choice"]) == {"chosen", "layer"}
        assert table.columns.tolist() == [
            "model", "neuron", "choice", "layer", "metric", "value", "null", "n_stimuli", "reason",
        ]  # fmt: skip


def test_the_same_generator_gives_the_same_scores() -> None:
    features = layers_of_noise(30)
    responses = driven(features["layer0"], 4, 2)
    one, two = (
        regression_scores(kernels_of(features), responses, rng=np.random.default_rng(3))
        for _ in range(2)
    )
    for name in ("layer_r", "chosen", "alpha", "null"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_bad_input_is_refused() -> None:
    kernels = kernels_of(layers_of_noise(30))
    responses = np.random.default_rng(0).normal(size=(30, 2, 3))
    for arguments, message in (
        ({"protocol": "kind"}, "protocol must be one of"),
        ({"kind": "raw"}, "kind must be one of"),
        ({"protocol": "published", "alphas": [1.0, 2.0]}, "one alpha for all"),
        ({"n_folds": 10}, "fewer than 5"),
        ({"n_folds": 1}, "n_folds must be from 2"),
        ({"n_permutations": -1}, "n_permutations must be 0 or more"),
    ):
        with pytest.raises(
            (InputError, TypeCheckError), match=f"{message}|{next(iter(arguments))}"
        ):
            regression_scores(kernels, responses, rng=np.random.default_rng(0), **arguments)
    for wrong in (responses[:20], responses[:, 0]):
        with pytest.raises((InputError, TypeCheckError), match="responses"):
            regression_scores(kernels, wrong, rng=np.random.default_rng(0))
    for bad, message in ((np.inf, "must be finite"), (np.nan, "no neuron can be scored")):
        with pytest.raises(InputError, match=message):
            regression_scores(kernels, np.full_like(responses, bad), rng=np.random.default_rng(0))


def test_examples_of_kernel_ridge_run() -> None:
    result = doctest.testmod(importlib.import_module("pocketcortex.mapping.kernel_ridge"))
    assert result.attempted > 0
    assert result.failed == 0
