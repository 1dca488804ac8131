"""Which images are chosen: against plain loops, and what must hold of any choice."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketcortex.core import InputError, StimulusSet
from pocketcortex.models import EnsembleMember, EnsembleModel, EnsembleShape
from pocketcortex.stimuli import Choice, ChoiceConfig, choose_images, core_set, disagreement, gaudy
from pocketcortex.stimuli import spread as spread_module
from pocketcortex.training import member_disagreement

SIZE = 6
Predict = Callable[[StimulusSet], np.ndarray]


def images(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 3, SIZE, SIZE), dtype=np.uint8)


def pool_of(n: int, seed: int = 0) -> StimulusSet:
    return StimulusSet.from_array(images(n, seed), [f"bank{k}" for k in range(n)])


def flat(stimuli: StimulusSet) -> np.ndarray:
    return stimuli.images().reshape(len(stimuli), -1).astype(np.float64) / 255


def members(n_members: int = 3, n_neurons: int = 2, seed: int = 1) -> Predict:
    """Return members that are linear in the pixels."""
    weights = np.random.default_rng(seed).normal(size=(n_members, 3 * SIZE * SIZE, n_neurons))
    return lambda stimuli: flat(stimuli) @ weights


def counts(**of: Any) -> ChoiceConfig:
    none = {"n_disagreement": 0, "n_random": 0, "n_gaudy": 0, "n_diverse": 0}
    return ChoiceConfig(**(none | {"n_top": 20, "block": 7} | of))


EVERY_ARM = counts(n_disagreement=5, n_random=4, n_gaudy=3, n_diverse=2)


def choose(pool: StimulusSet, config: ChoiceConfig, seed: int = 0, **more: Any) -> Choice:
    return choose_images(pool, config, seed=seed, predict_members=members(), features=flat, **more)


# Disagreement and core sets.


def test_disagreement_is_the_median_distance_of_pairs() -> None:
    predicted = np.random.default_rng(0).normal(size=(5, 7, 3)).astype(np.float32)
    expected = []
    for i in range(7):
        apart = [
            np.sqrt(sum((predicted[k, i, n] - predicted[other, i, n]) ** 2 for n in range(3)))
            for k in range(5)
            for other in range(k)
        ]
        expected.append(np.median(apart))
    assert disagreement(predicted) == pytest.approx(expected, rel=1e-6)


def test_disagreement_is_the_same_in_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    predicted = np.random.default_rng(0).normal(size=(4, 23, 3))
    whole = disagreement(predicted)
    monkeypatch.setattr(spread_module, "_CHUNK", 40)
    np.testing.assert_array_equal(disagreement(predicted), whole)


def test_disagreement_is_what_a_teacher_says_of_its_members() -> None:
    rng = np.random.default_rng(3)
    shape = EnsembleShape(in_channels=4, width=4, bottleneck=2, n_blocks=0, stride=0)
    model = EnsembleModel(
        [EnsembleMember(shape).eval() for _ in range(3)],
        torch.from_numpy(rng.normal(size=(3, 16, 5)).astype(np.float32)),
        torch.zeros(3, 5),
    )
    features = rng.normal(size=(9, 4, 2, 2)).astype(np.float32)
    with torch.inference_mode():
        predicted = model.predict_members(torch.from_numpy(features)).numpy()
    assert disagreement(predicted) == pytest.approx(member_disagreement(model, features)[0], 1e-5)


@given(seed=st.integers(0, 10_000), shift=st.floats(-5, 5))
@settings(max_examples=25, deadline=None)
def test_disagreement_does_not_know_members_apart_nor_what_they_share(
    seed: int, shift: float
) -> None:
    rng = np.random.default_rng(seed)
    predicted = rng.normal(size=(4, 6, 3))
    value = disagreement(predicted)
    assert (value > 0).all()
    shared = shift * rng.normal(size=(1, 6, 3))
    np.testing.assert_allclose(disagreement(predicted[rng.permutation(4)] + shared), value)
    np.testing.assert_allclose(disagreement(3 * predicted), 3 * value)


def test_members_that_agree_have_no_disagreement() -> None:
    assert disagreement(np.ones((3, 4, 2))).tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ("predicted", "message"),
    [
        (np.zeros((1, 4, 2)), "got 1 members"),
        (np.zeros((2, 4, 0)), "0 neurons"),
        (np.full((2, 4, 1), np.nan), "not finite"),
    ],
)
def test_disagreement_refuses(predicted: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        disagreement(predicted)


def greedy(features: np.ndarray, k: int, chosen: np.ndarray) -> list[int]:
    """Return a core set by the definition, one distance at a time."""
    picked: list[int] = []
    for _ in range(k):
        taken = [*chosen, *(features[j] for j in picked)]
        nearest = [min(np.linalg.norm(row - other) for other in taken) for row in features]
        left = [j for j in range(len(features)) if j not in picked]
        picked.append(max(left, key=lambda j: nearest[j]))
    return picked


@pytest.mark.parametrize("n_chosen", [1, 3])
def test_core_set_is_the_farthest_point_first(
    n_chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spread_module, "_ROWS_AT_ONCE", 2)
    rng = np.random.default_rng(2)
    features, chosen = 100 + rng.normal(size=(30, 3)), 100 + rng.normal(size=(n_chosen, 3))
    assert core_set(features, 12, chosen=chosen).tolist() == greedy(features, 12, chosen)


def test_core_set_starts_nearest_to_the_mean() -> None:
    features = np.random.default_rng(2).normal(size=(20, 3))
    picked = core_set(features, 6)
    nearest = np.linalg.norm(features - features.mean(axis=0), axis=1).argmin()
    assert picked[0] == nearest
    assert picked[1:].tolist() == greedy(features, 5, features[nearest : nearest + 1])


@given(seed=st.integers(0, 10_000), k=st.integers(0, 12), distinct=st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_core_set_takes_each_once_and_repeats_last(seed: int, k: int, distinct: int) -> None:
    rng = np.random.default_rng(seed)
    kinds = rng.normal(size=(distinct, 2))
    which = np.concatenate([np.arange(distinct), rng.integers(distinct, size=12 - distinct)])
    picked = core_set(kinds[which], k)
    assert len(set(picked.tolist())) == k
    assert len({int(which[j]) for j in picked}) == min(k, distinct)


@pytest.mark.parametrize("k", [-1, 5])
def test_core_set_refuses_what_it_cannot_choose(k: int) -> None:
    with pytest.raises(InputError, match="within 0 and the 4"):
        core_set(np.zeros((4, 2)), k)


def test_core_set_refuses_features_that_are_not_finite() -> None:
    with pytest.raises(InputError, match="finite"):
        core_set(np.array([[0.0], [np.inf]]), 1)
    with pytest.raises(InputError, match="finite"):
        core_set(np.zeros((2, 1)), 1, chosen=np.array([[np.nan]]))


# The choice.


def test_every_arm_has_its_number_and_no_content_comes_twice() -> None:
    pool = StimulusSet.concatenate([pool_of(60), pool_of(60)])  # every image twice
    chosen = choose(pool, EVERY_ARM)
    assert [chosen.arms.count(arm) for arm in ("random", "gaudy", "diverse", "disagreement")] == [
        4, 3, 2, 5,
    ]  # fmt: skip
    assert len(set(chosen.stimuli.digests)) == len(chosen.stimuli) == EVERY_ARM.n_images
    assert (np.isfinite(chosen.disagreement) == (np.array(chosen.arms) == "disagreement")).all()
    assert (chosen.gaudy == (np.array(chosen.arms) == "gaudy")).all()


def test_images_are_the_pool_s_and_gaudy_ones_are_made_so() -> None:
    pool = pool_of(40)
    chosen = choose(pool, EVERY_ARM)
    for image, name, made in zip(
        chosen.stimuli.images(), chosen.stimuli.names, chosen.gaudy, strict=True
    ):
        source = pool.read([pool.names.index(name)])
        expected = gaudy(source)[0] if made else source[0]
        np.testing.assert_array_equal(image, expected)
    assert len(set(chosen.stimuli.names)) == len(chosen.stimuli)  # no source in two arms


def test_same_seed_same_choice_whatever_the_block() -> None:
    pool = pool_of(50)
    one = choose(pool, EVERY_ARM, seed=3)
    again = choose(pool, counts(**(EVERY_ARM.as_dict() | {"block": 50})), seed=3)
    other = choose(pool, EVERY_ARM, seed=4)
    assert one.stimuli.digests == again.stimuli.digests
    assert one.n_candidates == again.n_candidates == 50 - 9
    assert one.stimuli.digests != other.stimuli.digests


def test_shown_images_are_left_out() -> None:
    pool = pool_of(30)
    shown = pool.take(np.arange(16))
    chosen = choose(pool, EVERY_ARM, shown=shown)
    assert set(chosen.stimuli.names) == set(pool.names) - set(shown.names)  # gaudy ones too
    with pytest.raises(InputError, match="disagreement needs 5"):
        choose(pool, EVERY_ARM, shown=pool.take(np.arange(17)))


def test_gaudy_candidates_are_none_that_were_shown() -> None:
    pool = pool_of(40)
    config = counts(n_disagreement=20, gaudy_pool=True)
    chosen = choose(pool, config, shown=pool.take(np.arange(20)))
    assert set(chosen.stimuli.names) == set(pool.names[20:])
    assert chosen.gaudy.any()


def test_images_that_are_gaudy_alike_are_chosen_once() -> None:
    plain = np.arange(1, 9, dtype=np.uint8)[:, None, None, None] * np.ones(
        (1, 3, SIZE, SIZE), dtype=np.uint8
    )  # all of them turn white
    pool = StimulusSet.from_array(np.concatenate([plain, images(3)]))
    chosen = choose(pool, counts(n_gaudy=4))
    assert len(set(chosen.stimuli.digests)) == 4
    with pytest.raises(InputError, match="4 new images where the arm gaudy needs 5"):
        choose(pool, counts(n_gaudy=5))


def test_images_of_disagreement_are_those_of_most() -> None:
    pool = pool_of(40)
    values = disagreement(members()(pool))
    chosen = choose(pool, counts(n_disagreement=6, n_top=6))
    best = {pool.names[k] for k in np.argsort(-values)[:6]}
    assert set(chosen.stimuli.names) == best
    places = [pool.names.index(name) for name in chosen.stimuli.names]
    np.testing.assert_allclose(chosen.disagreement, values[places])


def test_core_set_by_disagreement_settles_different_questions() -> None:
    """Two members agree but on two patterns; the second, weaker, is asked about too."""

    def predict(stimuli: StimulusSet) -> np.ndarray:
        level = flat(stimuli)[:, 0]  # says which pattern, and how strong
        one = np.stack([np.where(level > 0.5, level, 0), np.where(level > 0.5, 0, level)], axis=1)
        return np.stack([one, -one])

    bright = np.zeros((24, 3, SIZE, SIZE), dtype=np.uint8)
    bright[:, 0, 0, 0] = [*range(200, 220), 100, 101, 102, 103]
    pool = StimulusSet.from_array(bright)
    config = counts(n_disagreement=2, n_top=24)
    chosen = choose_images(pool, config, seed=0, predict_members=predict)
    assert chosen.stimuli.images()[:, 0, 0, 0].tolist() == [219, 103]
    greedy_top = choose_images(
        pool, counts(n_disagreement=2, n_top=2), seed=0, predict_members=predict
    )
    assert set(greedy_top.stimuli.images()[:, 0, 0, 0].tolist()) == {219, 218}


def test_core_set_by_features_keeps_away_from_what_was_shown() -> None:
    pool = pool_of(40)
    values = disagreement(members()(pool))
    top = np.argsort(-values)[:10]
    config = counts(n_disagreement=4, n_top=10, core="features")
    shown = pool_of(5, seed=9)
    chosen = choose(pool, config, shown=shown)
    expected = top[greedy(flat(pool)[top], 4, flat(shown))]
    assert chosen.stimuli.names == tuple(pool.names[k] for k in expected)


def test_random_images_do_not_depend_on_the_members() -> None:
    pool, config = pool_of(50), counts(n_random=5, n_disagreement=5)
    one = choose_images(pool, config, seed=2, predict_members=members(seed=1))
    other = choose_images(pool, config, seed=2, predict_members=members(seed=2))
    assert one.stimuli.names[:5] == other.stimuli.names[:5]
    assert set(one.stimuli.names[5:]) != set(other.stimuli.names[5:])


def test_half_of_the_candidates_are_gaudy_if_asked_for() -> None:
    pool = pool_of(200)
    seen: list[np.ndarray] = []

    def predict(stimuli: StimulusSet) -> np.ndarray:
        seen.append(np.isin(stimuli.images(), (0, 255)).all(axis=(1, 2, 3)))
        return members()(stimuli)

    config = counts(n_disagreement=20, gaudy_pool=True)
    chosen = choose_images(pool, config, seed=0, predict_members=predict)
    assert 70 <= np.concatenate(seen).sum() <= 130
    pixels = chosen.stimuli.images()
    assert (np.isin(pixels, (0, 255)).all(axis=(1, 2, 3)) == chosen.gaudy).all()
    assert chosen.gaudy.any()


def test_memory_is_bounded_by_a_block() -> None:
    sizes: list[int] = []

    def predict(stimuli: StimulusSet) -> np.ndarray:
        sizes.append(len(stimuli))
        return members()(stimuli)

    told: list[int] = []
    choose_images(
        pool_of(50), counts(n_disagreement=3), seed=0, predict_members=predict,
        advance=told.append,
    )  # fmt: skip
    assert max(sizes) <= 7
    assert sum(sizes) == sum(told) == 50


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n_random": -1}, "n_random must be 0"),
        ({"n_disagreement": 0, "n_random": 0}, "no image"),
        ({"block": 0}, "block"),
        ({"n_top": 249}, "at least the 250"),
        ({"core": "pixels"}, "'pixels'"),
    ],
)
def test_configurations_that_contradict_themselves(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ChoiceConfig(**changed)


def test_what_an_arm_needs_is_asked_for() -> None:
    pool = pool_of(30)
    with pytest.raises(InputError, match="predict_members"):
        choose_images(pool, counts(n_disagreement=1), seed=0)
    with pytest.raises(InputError, match="features"):
        choose_images(pool, counts(n_diverse=1), seed=0)
    assert choose_images(pool, counts(n_random=1), seed=0).n_candidates == 0


@pytest.mark.parametrize("arm", ["random", "gaudy", "diverse", "disagreement"])
def test_a_pool_too_small_is_refused(arm: str) -> None:
    with pytest.raises(InputError, match=f"6 new images where the arm {arm} needs 7"):
        choose(pool_of(6), counts(**{f"n_{arm}": 7}))
