"""Filters go least harmful first, as a plain loop that zeroes kernels finds."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from planted_models import natural_images, planted
from population_models import population

from pocketcortex.core import InputError
from pocketcortex.dissect import eliminate, flattening, lost_selectivity
from pocketcortex.models import Ablations, CompactModel


def a_model(seed: int = 0) -> CompactModel:
    return population(1, seed=seed)[0].double()


def some_images(n: int = 7, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 3, 14, 17), dtype=np.uint8)


@torch.no_grad()
def zeroed(
    model: CompactModel, ablations: Ablations, gone: list[int], images: np.ndarray | None = None
) -> np.ndarray:
    """Return the responses of a copy without filters, their kernels set to zero."""
    other = copy.deepcopy(model)
    layers = other.layers
    kernels = [layers.conv.weight, *(one.weight for one in layers.depthwise), other.readout]
    for k in gone:
        kernels[ablations.stages[k]][ablations.numbers[k]] = 0
    return other(torch.from_numpy(some_images() if images is None else images)).numpy()


def test_flattening_is_a_ratio_of_variances() -> None:
    curve = np.array([0.0, 1, 4, 2])
    rows = np.stack([curve, curve + 3, np.full(4, 2.0), 2 * curve, curve / 2, -curve])
    assert flattening(curve, rows) == pytest.approx([0, 0, 1, -3, 0.75, 0])
    assert flattening(curve, rows[1]).shape == ()
    assert np.isnan(flattening(np.ones(4), rows)).all()
    assert flattening(curve.astype(np.float32), rows).dtype == np.float64


def test_lost_selectivity_is_one_minus_squared_correlation() -> None:
    rng = np.random.default_rng(0)
    intact, noise = rng.normal(size=(2, 30))
    mixed = intact + noise
    wanted = 1 - np.corrcoef(intact, mixed)[0, 1] ** 2
    rows = np.stack([intact, 5 * intact - 7, -intact, np.full(30, 0.1), mixed])
    assert lost_selectivity(intact, rows) == pytest.approx([0, 0, 1, 1, wanted], abs=1e-12)
    assert lost_selectivity(intact, mixed) == pytest.approx(wanted)
    assert np.isnan(lost_selectivity(np.ones(30), rows)).all()


@given(
    arrays(np.float64, (3, 6), elements=st.floats(-100, 100, width=32)), st.floats(0.1, 10),
    st.floats(-10, 10),
)  # fmt: skip
def test_lost_selectivity_is_within_0_and_1_and_blind_to_scale(
    rows: np.ndarray, factor: float, offset: float
) -> None:
    intact = np.arange(6) ** 2.0
    lost = lost_selectivity(intact, rows)
    assert ((lost >= 0) & (lost <= 1)).all()
    varied = np.ptp(rows, axis=1) > 1e-3
    scaled = lost_selectivity(intact, factor * rows + offset)
    assert scaled[varied] == pytest.approx(lost[varied], abs=1e-6)


@pytest.mark.parametrize("harm", [flattening, lost_selectivity])
def test_greedy_order_is_that_of_a_plain_loop(harm) -> None:  # type: ignore[no-untyped-def]
    model = a_model()
    ablations = Ablations(model)
    told: list[int] = []
    found = eliminate(ablations, some_images(), harm, advance=told.append)
    assert sorted(found.order) == list(range(len(ablations)))
    assert told == [1] * len(ablations)
    intact = zeroed(model, ablations, [])
    assert found.responses[0] == pytest.approx(intact)
    assert found.harm[0] == 0
    gone: list[int] = []
    for step, chosen in enumerate(found.order.tolist(), start=1):
        if step % 3 != 1:  # every third will do
            gone.append(chosen)
            continue
        left = [k for k in range(len(ablations)) if k not in gone]
        rows = np.stack([zeroed(model, ablations, [*gone, k]) for k in left])
        each = harm(intact, rows)
        least = np.sort(each)[:2]
        assert found.harm[step] == pytest.approx(least[0], rel=1e-6, abs=1e-9)
        if len(left) > 1 and least[1] - least[0] > 1e-6:  # no tie
            assert chosen == left[int(each.argmin())]
        assert found.responses[step] == pytest.approx(rows[left.index(chosen)], abs=1e-9)
        gone.append(chosen)


def test_limit_is_kept() -> None:
    model = a_model()
    ablations = Ablations(model)
    whole = eliminate(ablations, some_images(), lost_selectivity)
    few = eliminate(ablations, some_images(), lost_selectivity, limit=0.4)
    n_out = len(few.order)
    assert 2 < n_out < len(ablations)
    assert (few.order == whole.order[:n_out]).all()
    assert (few.harm <= 0.4).all()
    assert whole.harm[n_out + 1] > 0.4  # the next would pass it
    assert few.kept().sum() == len(ablations) - n_out
    assert not few.kept()[few.order].any()
    assert few.kept(2).sum() == len(ablations) - 2
    assert few.kept(0).all()
    shown = torch.from_numpy(some_images())
    assert few.responses[-1] == pytest.approx(ablations.responses(shown, few.kept()).numpy())
    assert len(eliminate(ablations, some_images(), lost_selectivity, limit=-1.0).order) == 0


def test_several_at_once_keep_the_limit_too() -> None:
    model, images = planted(), natural_images(12)
    ablations = Ablations(model)
    told: list[int] = []
    found = eliminate(
        ablations, images, lost_selectivity, limit=0.2, at_once=0.3, advance=told.append
    )
    assert max(told) == int(0.3 * len(ablations))
    assert sum(told) == len(found.order) == len(set(found.order.tolist()))
    ends = np.cumsum([0, *told])
    measured = ~np.isnan(found.harm)
    assert np.flatnonzero(measured).tolist() == ends.tolist()
    assert (np.isnan(found.responses).any(axis=1) == ~measured).all()
    assert (found.harm[measured] <= 0.2).all()
    intact = zeroed(model, ablations, [], images)
    for n_out in ends:
        answer = zeroed(model, ablations, found.order[:n_out].tolist(), images)
        assert found.responses[n_out] == pytest.approx(answer, abs=1e-9)
        wanted = lost_selectivity(intact, answer)
        assert found.harm[n_out] == pytest.approx(float(wanted), abs=1e-9)
    left = np.flatnonzero(found.kept())
    gone = found.order.tolist()
    without = [zeroed(model, ablations, [*gone, int(k)], images) for k in left]
    each = [float(lost_selectivity(intact, one)) for one in without]
    assert min(each) > 0.2  # none more could go


def test_wrong_input_is_refused() -> None:
    ablations = Ablations(a_model())
    for images, at_once in ((some_images(1), 0.0), (some_images(), 0.6), (some_images(), -0.1)):
        with pytest.raises(InputError, match=r"two images or more and at_once within 0\.\.0\.5"):
            eliminate(ablations, images, flattening, at_once=at_once)
    same = np.repeat(some_images(1), 3, axis=0)
    with pytest.raises(InputError, match="answers all images alike"):
        eliminate(ablations, same, flattening)
