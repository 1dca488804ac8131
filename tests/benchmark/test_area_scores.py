"""A network against an area: nothing is found in noise, everything in what it drives."""

import numpy as np
import pandas as pd
import pytest
from jaxtyping import TypeCheckError
from test_image_bootstraps import features, kernels_of

from pocketcortex.benchmark import AreaSettings, score_area
from pocketcortex.core import BrainArea, InputError, Session, StimulusSet

QUICK = AreaSettings(n_resamples=100, n_permutations=2, n_splits=3)


def pictures(n: int, n_different: int | None = None) -> StimulusSet:
    rng = np.random.default_rng(99)
    images = rng.integers(0, 256, (n_different or n, 3, 4, 4), dtype=np.uint8)
    return StimulusSet.from_array(images[np.arange(n) % len(images)])


def area_of(responses: np.ndarray, stimuli: StimulusSet | None = None, **more: object) -> BrainArea:
    own = pictures(len(responses)) if stimuli is None else stimuli
    return BrainArea("made/up", own, Session("up", responses, own), **more)


def row(table: pd.DataFrame, analysis: str, statistic: str, protocol: str = "honest") -> pd.Series:
    own = table[(table["analysis"] == analysis) & (table["protocol"] == protocol)]
    return own[own["statistic"] == statistic].iloc[0]


def test_what_a_layer_drives_is_found() -> None:
    rng = np.random.default_rng(0)
    layers = features(80, rng)
    driven = layers[1][:, :30] + layers[1][:, 30:60]
    area = area_of(driven[:, None] + 0.5 * rng.normal(size=(80, 6, 30)))
    found = score_area(kernels_of(layers), area, model="net", seed=1, settings=QUICK)
    mean = row(found.table, "regression", "mean")
    assert 0.5 < mean["ci_low"] < mean["value"] < mean["ci_high"] < mean["ceiling"] < 1
    assert abs(mean["null"]) < 0.15
    assert row(found.table, "regression", "mean", "published")["value"] > 0.5
    assert found.layers["chosen"].idxmax() == found.layers["rsa_chosen"].idxmax() == 1
    assert abs(mean["depth"] - 0.5) < 0.1
    rsa = row(found.table, "rsa", "area")
    assert 0.3 < rsa["ci_low"] < rsa["value"] < rsa["ceiling"]
    assert row(found.table, "rsr", "area")["ci_low"] > 0.3
    cells = found.table[found.table["statistic"] == ""]
    assert len(cells) == 2 * 3 * 30  # protocols, metrics, neurons
    assert (cells["ci_low"] < cells["ci_high"]).all()
    shapes = {name: value.shape for name, value in found.samples.items()}
    assert shapes == {
        "r": (100, 30), "contributions": (80,), "predictions": (80, 30), "folds": (80,),
        "rsa": (100,), "rsr": (100,),
    }  # fmt: skip
    np.testing.assert_allclose(found.samples["contributions"].sum(), mean["value"])


def test_scores_of_noise_are_0_on_average_under_honest() -> None:
    scores, published = [], []
    for seed in range(20):
        rng = np.random.default_rng([1, seed])
        area = area_of(rng.normal(size=(50, 1, 15)))
        kernels = kernels_of(features(50, rng))
        quick = AreaSettings(n_resamples=20, n_permutations=0, n_splits=4)
        table = score_area(kernels, area, model="net", seed=seed, settings=quick).table
        which = (("regression", "mean"), ("rsa", "area"), ("rsr", "area"))
        scores.append([row(table, *one)["value"] for one in which])
        published.append(row(table, "rsa", "area", "published")["value"])
    values = np.array(scores)
    error = values.std(axis=0, ddof=1) / len(values) ** 0.5
    assert (np.abs(values.mean(axis=0)) < 3.5 * error).all()
    assert np.mean(published) > 0.01  # the best layer of several is above 0 even so


def test_all_networks_share_folds_and_draws() -> None:
    rng = np.random.default_rng(2)
    area = area_of(rng.normal(size=(40, 2, 12)))
    first, second = (
        score_area(kernels_of(features(40, rng)), area, model=name, seed=3, settings=QUICK)
        for name in "ab"
    )
    np.testing.assert_array_equal(first.samples["folds"], second.samples["folds"])
    assert not np.array_equal(first.samples["predictions"], second.samples["predictions"])
    other = area_of(rng.normal(size=(40, 2, 12)))
    other = BrainArea("made/other", other.stimuli, other.session)
    third = score_area(kernels_of(features(40, rng)), other, model="a", seed=3, settings=QUICK)
    assert not np.array_equal(first.samples["folds"], third.samples["folds"])


def test_equal_images_stay_in_one_fold() -> None:
    rng = np.random.default_rng(3)
    stimuli = pictures(60, 20)  # each three times
    area = area_of(rng.normal(size=(60, 1, 12)), stimuli)
    found = score_area(kernels_of(features(60, rng)), area, model="a", seed=3, settings=QUICK)
    assert (np.ptp(found.samples["folds"].reshape(3, 20), axis=0) == 0).all()


def test_what_cannot_be_scored_has_a_reason() -> None:
    rng = np.random.default_rng(4)
    responses = rng.normal(size=(40, 2, 5))
    responses[:, :, 0] = 1.0
    kernels = kernels_of(features(40, rng))
    table = score_area(kernels, area_of(responses), model="a", seed=0, settings=QUICK).table
    assert row(table, "rsa", "area")["reason"] == "4 usable neurons; a matrix needs 10 or more"
    silent = table[(table["statistic"] == "") & (table["neuron"] == 0)]
    assert set(silent["reason"]) == {"constant response"}
    assert silent["value"].isna().all()
    assert row(table, "regression", "mean")["n_neurons"] == 4
    square = np.abs(rng.normal(size=(40, 40)))
    square = (square + square.T) * (1 - np.eye(40))
    only = BrainArea("matrix", pictures(40), rdms=square)
    table = score_area(kernels, only, model="a", seed=0, settings=QUICK).table
    assert set(table["analysis"]) == {"rsa", "rsr"}
    assert set(table["ceiling_reason"]) == {"one matrix, none published"}
    alone = AreaSettings(analyses=("regression",))
    table = score_area(kernels, only, model="a", seed=0, settings=alone).table
    assert table["reason"].tolist() == ["no single neurons"]
    assert table["value"].isna().all()


def test_ceiling_of_a_published_matrix_is_kept() -> None:
    rng = np.random.default_rng(5)
    square = np.abs(rng.normal(size=(3, 40, 40)))
    square = (square + square.transpose(0, 2, 1)) * (1 - np.eye(40))
    kernels = kernels_of(features(40, rng))
    one = BrainArea("one", pictures(40), rdms=square[0], rdm_ceiling=0.9)
    assert row(score_area(kernels, one, model="a", seed=0, settings=QUICK).table, "rsa", "area")[
        "ceiling"
    ] == pytest.approx(0.9)
    three = BrainArea("three", pictures(40), rdms=square)
    table = score_area(kernels, three, model="a", seed=0, settings=QUICK).table
    assert 0.3 < row(table, "rsa", "area")["ceiling"] < 0.8  # of noise, 3 subjects: 3 ** -0.5


@pytest.mark.parametrize(
    "settings",
    [{"analyses": ()}, {"analyses": ("decoding",)}, {"n_folds": 1}, {"n_resamples": 1},
     {"rsa_stimuli": 9}, {"level": 1.0}],
)  # fmt: skip
def test_settings_are_checked(settings: dict[str, object]) -> None:
    with pytest.raises((InputError, TypeCheckError)):
        AreaSettings(**settings)  # type: ignore[arg-type]


def test_kernels_of_other_images_are_refused() -> None:
    rng = np.random.default_rng(6)
    with pytest.raises(InputError, match="kernels are of 30 images"):
        score_area(kernels_of(features(30, rng)), area_of(rng.normal(size=(40, 1, 5))),
                   model="a", seed=0)  # fmt: skip
