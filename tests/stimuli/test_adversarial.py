"""Adversarial images: optima of linear models, budgets in whole levels, controls."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from perturbed_models import (
    linear_model,
    rectified_model,
    response_to,
    some_images,
    weights_of,
)

from pocketcortex.core import InputError
from pocketcortex.data import read_v4
from pocketcortex.models import CompactModel, import_compact_model, published_models
from pocketcortex.stimuli import AdversarialImages, adversarial, random_perturbation

SIGNS = {"raise": 1.0, "lower": -1.0}


def room(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how far each pixel may go down (a negative number) and up."""
    return -image.astype(np.float64), 255.0 - image


def best_of_length(weights: np.ndarray, image: np.ndarray, rms: float) -> float:
    """Return the largest change of a linear response within an l2 ball and 0..255."""
    low, high = room(image)

    def change(factor: float) -> np.ndarray:
        return np.clip(factor * weights, low, high)

    def excess(factor: float) -> float:
        return float(np.sqrt((change(factor) ** 2).mean())) - rms

    factor = scipy.optimize.brentq(excess, 0, 1e3 * rms / np.abs(weights).mean())
    return float((weights * change(factor)).sum())


def least_length(weights: np.ndarray, image: np.ndarray, wanted: float) -> float:
    """Return the root mean square of the smallest change with that effect on a linear model."""
    return float(
        scipy.optimize.brentq(lambda rms: best_of_length(weights, image, rms) - wanted, 1e-3, 30)
    )


def best_in_cube(weights: np.ndarray, image: np.ndarray, levels: int) -> float:
    low, high = room(image)
    return float((weights * np.clip(levels * np.sign(weights), low, high)).sum())


def distances(result: AdversarialImages) -> tuple[np.ndarray, np.ndarray]:
    change = result.images.astype(np.float64) - result.base
    return np.sqrt((change**2).mean(axis=(2, 3, 4))), np.abs(change).max(axis=(2, 3, 4))


@pytest.mark.parametrize("direction", ["raise", "lower"])
@pytest.mark.parametrize("budget", [0.5, 3.0, 20.0])
def test_l2_reaches_the_optimum_of_linear_models(direction: Any, budget: float) -> None:
    models = [linear_model(0), linear_model(1)]
    base = some_images(2, 2)
    found = adversarial(models, base, direction=direction, budget=budget, n_steps=30)
    assert (found.rms <= budget).all()
    for k, model in enumerate(models):
        for i in range(2):
            best = best_of_length(SIGNS[direction] * weights_of(model), base[k, i], budget)
            change = SIGNS[direction] * found.change[k, i]
            least = (
                0.75 if budget < 1 else 0.99
            )  # most pixels stay: they cannot change by half a level
            assert least * best < change < best * 1.001


@pytest.mark.parametrize("direction", ["raise", "lower"])
@pytest.mark.parametrize("budget", [1, 7, 7.9, 300])
def test_linf_is_the_optimum_of_linear_models(direction: Any, budget: float) -> None:
    models, base = [linear_model(0), linear_model(1)], some_images(2, 2)
    found = adversarial(
        models, base, direction=direction, budget=float(budget), norm="linf", n_steps=8
    )
    assert (found.linf <= int(budget)).all()
    for k, model in enumerate(models):
        for i in range(2):
            weights = SIGNS[direction] * weights_of(model)
            best = best_in_cube(weights, base[k, i], int(budget))
            assert SIGNS[direction] * found.change[k, i] == pytest.approx(best, rel=1e-4)


@settings(max_examples=15, deadline=None)
@given(
    budget=st.floats(0.05, 400),
    norm=st.sampled_from(["l2", "linf"]),
    direction=st.sampled_from(["raise", "lower"]),
    seed=st.integers(0, 20),
    target=st.none() | st.floats(0.01, 10),
)
def test_no_image_is_beyond_its_budget_or_worse_than_its_base(
    budget: float, norm: Any, direction: Any, seed: int, target: float | None
) -> None:
    budget = max(budget, 1.0) if norm == "linf" else budget
    models, base = [rectified_model(seed)], some_images(1, 2)
    found = adversarial(
        models, base, direction=direction, budget=budget, norm=norm, n_steps=4,
        target_change=target,
    )  # fmt: skip
    rms, linf = distances(found)
    np.testing.assert_allclose(found.rms, rms, rtol=1e-6)
    np.testing.assert_array_equal(found.linf, linf)
    assert ((rms if norm == "l2" else linf) <= budget).all()
    assert (SIGNS[direction] * found.change >= 0).all()


def test_responses_are_those_to_the_images() -> None:
    models, base = [rectified_model(k) for k in range(3)], some_images(3, 2)
    before = base.copy()
    found = adversarial(models, base, direction="raise", budget=5.0, n_steps=10)
    for k, model in enumerate(models):
        for i in range(2):
            changed = response_to(model, found.images[k, i])
            assert found.responses[k, i] == pytest.approx(changed, abs=1e-4)
            unchanged = response_to(model, base[k, i])
            assert found.base_responses[k, i] == pytest.approx(unchanged, abs=1e-4)
    assert (found.change > 0).all()
    np.testing.assert_array_equal(base, before)
    np.testing.assert_array_equal(found.base, before)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("target", [None, 0.2])
def test_many_at_once_are_as_one_by_one(norm: Any, target: float | None) -> None:
    models, base = [rectified_model(k) for k in range(2)], some_images(2, 11)
    told: list[int] = []
    how: dict[str, Any] = {"direction": "lower", "budget": 3.0, "norm": norm, "n_steps": 3}
    how["target_change"] = target
    together = adversarial(models, base, **how, advance=told.append)
    for k in range(2):
        for i in (0, 7, 8, 10):  # of both tiles
            alone = adversarial(models[k : k + 1], base[k : k + 1, i : i + 1], **how)
            apart = np.abs(together.images[k, i].astype(int) - alone.images[0, 0])
            assert (apart > 0).mean() < 0.01  # sums in another order may round otherwise
            assert together.responses[k, i] == pytest.approx(alone.responses[0, 0], abs=1e-3)
    assert sum(told) == 22


def test_more_budget_and_steps_change_more() -> None:
    models, base = [rectified_model(4)], some_images(1, 1)

    def change(budget: float, n_steps: int) -> float:
        found = adversarial(models, base, direction="raise", budget=budget, n_steps=n_steps)
        return float(found.change[0, 0])

    assert 0 < change(1.0, 20) < change(4.0, 20) < change(16.0, 20)
    assert change(16.0, 1) < change(16.0, 20)


@pytest.mark.parametrize("direction", ["raise", "lower"])
def test_smallest_l2_change_of_linear_models(direction: Any) -> None:
    models, base = [linear_model(0), linear_model(1)], some_images(2, 2)
    reach = [best_of_length(weights_of(m), base[k, 0], 4.0) for k, m in enumerate(models)]
    wanted = float(min(reach))
    found = adversarial(
        models, base, direction=direction, budget=50.0, n_steps=80, target_change=wanted
    )
    assert (SIGNS[direction] * found.change >= wanted * (1 - 1e-6)).all()
    for k, model in enumerate(models):
        for i in range(2):
            weights = SIGNS[direction] * weights_of(model)
            least = least_length(weights, base[k, i], wanted)
            assert 0.999 * least < found.rms[k, i] < 1.02 * least


def test_smallest_linf_change_of_linear_models() -> None:
    model, base = linear_model(2), some_images(1, 3)
    weights = weights_of(model)
    for levels in (1, 4):
        wanted = best_in_cube(weights, base[0, 0], levels) * 0.999
        found = adversarial(
            [model], base, direction="raise", budget=20.0, norm="linf", n_steps=60,
            target_change=wanted,
        )  # fmt: skip
        assert (found.change >= wanted * (1 - 1e-6)).all()
        for i in range(3):
            least = next(n for n in range(1, 21) if best_in_cube(weights, base[0, i], n) >= wanted)
            assert found.linf[0, i] == least


def test_a_target_out_of_reach_gives_the_largest_change() -> None:
    model, base = linear_model(0), some_images(1, 1)
    far = adversarial([model], base, direction="raise", budget=2.0, n_steps=30, target_change=1e6)
    best = best_of_length(weights_of(model), base[0, 0], 2.0)
    assert far.change[0, 0] == pytest.approx(best, rel=0.02)
    assert far.rms[0, 0] <= 2.0


def test_smallest_change_needs_less_than_the_whole_budget() -> None:
    models, base = [rectified_model(k) for k in range(3)], some_images(3, 1)
    whole = adversarial(models, base, direction="raise", budget=8.0, n_steps=40)
    wanted = float(whole.change.min()) / 2
    least = adversarial(
        models, base, direction="raise", budget=8.0, n_steps=40, target_change=wanted
    )
    assert (least.change >= wanted * (1 - 1e-5)).all()
    assert (least.rms < 0.8 * whole.rms).all()
    for k in range(3):  # and with a tenth less, the target is out of reach
        budget = 0.9 * float(least.rms[k, 0])
        less = adversarial(
            models[k : k + 1], base[k : k + 1], direction="raise", budget=budget, n_steps=40
        )
        assert less.change[0, 0] < wanted


def test_a_flat_model_leaves_the_image() -> None:
    model, base = rectified_model(0), some_images(1, 1)
    model.readout.data.zero_()
    for target in (None, 1.0):
        found = adversarial(
            [model], base, direction="raise", budget=5.0, n_steps=3, target_change=target
        )
        np.testing.assert_array_equal(found.images, base)
        assert found.rms[0, 0] == found.linf[0, 0] == found.change[0, 0] == 0


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_random_changes_are_as_large(norm: Any) -> None:
    models, base = [linear_model(k) for k in range(2)], some_images(2, 9)
    found = adversarial(models, base, direction="raise", budget=4.0, norm=norm, n_steps=5)
    random = random_perturbation(models, found, n_draws=3, rng=np.random.default_rng(0))
    assert random.images.shape == (3, *base.shape)
    change = random.images.astype(np.float64) - base
    if norm == "l2":
        rms = np.sqrt((change**2).mean(axis=(3, 4, 5)))
        assert (rms <= found.rms + 1e-9).all()
        np.testing.assert_allclose(rms, np.broadcast_to(found.rms, rms.shape), rtol=0.005)
    else:
        np.testing.assert_array_equal(np.abs(change).max(axis=(3, 4, 5)), [found.linf] * 3)
        inside = (base >= 4) & (base <= 251)
        assert (np.abs(change[:, inside]) == np.broadcast_to(
            np.broadcast_to(found.linf[:, :, None, None, None], base.shape)[inside],
            change[:, inside].shape,
        )).all()  # fmt: skip
    assert abs(np.sign(change).mean()) < 0.05
    assert (random.images[0] != random.images[1]).any()
    assert random.responses[2, 1, 8] == pytest.approx(
        response_to(models[1], random.images[2, 1, 8]), rel=1e-5
    )
    assert np.abs(random.responses - found.base_responses).max() < found.change.min()
    again = random_perturbation(models, found, n_draws=3, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(again.images, random.images)


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"budget": 0.0}, "budget must be above 0"),
        ({"budget": float("inf")}, "budget must be above 0"),
        ({"budget": 0.9, "norm": "linf"}, "1 or more for 'linf'"),
        ({"n_steps": 0}, "n_steps must be at least 1"),
        ({"target_change": -1.0}, "target_change is a size"),
        ({"base": some_images(2, 1)}, "1 models need as many"),
        ({"base": some_images(1, 1)[:, :0]}, "none empty"),
        ({"base": some_images(1, 1, (8, 8))}, "models take images"),
        ({"models": []}, "at least one compact model"),
    ],
)
def test_bad_input_is_refused(more: dict[str, Any], what: str) -> None:
    how: dict[str, Any] = {"models": [linear_model(0)], "base": some_images(1, 1)}
    how |= {"direction": "raise", **more}
    with pytest.raises(InputError, match=what):
        adversarial(**how)


@pytest.mark.parametrize("more", [{"direction": "up"}, {"direction": "raise", "norm": "l1"}])
def test_unknown_choices_are_refused(more: dict[str, Any]) -> None:
    with pytest.raises((InputError, TypeCheckError)):
        adversarial([linear_model(0)], some_images(1, 1), **more)


def test_no_draws_are_refused() -> None:
    models, base = [linear_model(0)], some_images(1, 1)
    found = adversarial(models, base, direction="raise", n_steps=1)
    with pytest.raises(InputError, match="n_draws must be at least 1, got 0"):
        random_perturbation(models, found, n_draws=0, rng=np.random.default_rng(0))


@pytest.mark.data
def test_published_models_are_fooled_and_not_by_chance(real_data: Path) -> None:
    files = published_models(real_data / "v4", "190923")
    models: list[CompactModel] = [import_compact_model(files[k]) for k in sorted(files)[:4]]
    photographs = read_v4(real_data / "v4")["190923"].stimuli.read(np.array([1000, 1100]))
    base = np.repeat(photographs[None], 4, axis=0)
    for direction, sign in SIGNS.items():
        how: Any = direction
        found = adversarial(models, base, direction=how, budget=2.0, n_steps=8)
        assert (sign * found.change > 0).all()
        assert (found.rms <= 2).all()
        random = random_perturbation(models, found, n_draws=2, rng=np.random.default_rng(0))
        by_chance = np.abs(random.responses - found.base_responses).max(axis=0)
        assert (np.abs(found.change) > 5 * by_chance).all()
