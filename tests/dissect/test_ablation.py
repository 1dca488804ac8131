"""What filters do for tuning and for predictions, as kernels set to zero one by one tell."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from planted_models import CENTRE_PX, EXCITATORY, natural_images, planted, silent

from pocketcortex.core import InputError
from pocketcortex.dissect import (
    AblatedTuning,
    Tuning,
    ablate_score,
    ablate_tuning,
    flattening,
    tune,
)
from pocketcortex.dissect.tuning import N_DRAWS
from pocketcortex.models import CompactModel


@torch.no_grad()
def zeroed(filters: list[tuple[int, int]], images: np.ndarray) -> np.ndarray:
    """Return the planted model's responses without filters."""
    other = copy.deepcopy(planted())
    layers = other.layers
    kernels = [layers.conv.weight, *(one.weight for one in layers.depthwise), other.readout]
    for stage, number in filters:
        kernels[stage][number] = 0
    return other(torch.from_numpy(images)).numpy()


@pytest.fixture(scope="module")
def tuning() -> Tuning:
    centre = (float(CENTRE_PX[0]), float(CENTRE_PX[1]))
    whole = tune(planted(), centre, rng=np.random.default_rng(0))
    return replace(  # fewer stimuli: every third radius, the first four numbers
        whole, radii_px=whole.radii_px[::3], dot_size=whole.dot_size[::3],
        size_stimuli=whole.size_stimuli[::3], numbers=whole.numbers[:4],
        dot_number=whole.dot_number[:4], number_stimuli=whole.number_stimuli[: 4 * N_DRAWS],
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(tuning: Tuning) -> AblatedTuning:
    return ablate_tuning(planted(), tuning)


def test_curves_without_each_filter(found: AblatedTuning, tuning: Tuning) -> None:
    places = list(zip(found.stages.tolist(), found.numbers.tolist(), strict=True))
    assert len(places) == 27
    for k, place in [*enumerate(places)][::4]:
        size = zeroed([place], tuning.size_stimuli)
        number = zeroed([place], tuning.number_stimuli).reshape(-1, N_DRAWS).mean(1)
        assert found.dot_size[k] == pytest.approx(size, abs=1e-8)
        assert found.dot_number[k] == pytest.approx(number, abs=1e-8)
        wanted = 1 - size.var() / tuning.dot_size.var()
        assert found.size_invariance[k] == pytest.approx(wanted, abs=1e-9)
        intact = tuning.dot_number.mean(1)
        wanted = 1 - number.var() / intact.var()
        assert found.number_invariance[k] == pytest.approx(wanted, abs=1e-9)


def test_curves_without_stages(found: AblatedTuning, tuning: Tuning) -> None:
    for stage, count in enumerate(planted().filters_per_layer):
        own = [(stage, k) for k in range(count)]
        size = zeroed(own, tuning.size_stimuli)
        assert found.dot_size_without_stage[stage] == pytest.approx(size, abs=1e-8)
        wanted = float(flattening(tuning.dot_size, size))
        assert found.stage_size_invariance[stage] == pytest.approx(wanted, abs=1e-9)
    assert found.stage_size_invariance == pytest.approx(np.ones(6), abs=0.02)
    assert found.dot_number_without_stage.shape == (6, len(tuning.numbers))


def test_planted_chain_matters_and_distractors_do_not(found: AblatedTuning) -> None:
    index = {
        (int(s), int(n)): one
        for s, n, one in zip(found.stages, found.numbers, found.size_invariance, strict=True)
    }
    assert index[EXCITATORY[5]] > 0.9  # the readout
    for place in ((0, 0), (1, 0), (2, 3), (3, 1), (4, 0), (5, 0)):
        assert abs(index[place]) < 0.05, place


def test_cumulative_ablation_takes_all(found: AblatedTuning, tuning: Tuning) -> None:
    gone = found.cumulative
    assert sorted(gone.order) == list(range(27))
    assert gone.responses[0] == pytest.approx(tuning.dot_size, abs=1e-6)
    assert gone.harm[-1] == 1  # nothing is left
    assert (gone.harm[:10] < 0.05).all()  # distractors first
    places = [(int(found.stages[k]), int(found.numbers[k])) for k in gone.order[:12]]
    wanted = zeroed(places, tuning.size_stimuli)
    assert gone.responses[12] == pytest.approx(wanted, abs=1e-8)


def test_score_without_each_filter_and_stage() -> None:
    images, told = natural_images(70), list[int]()  # more than one batch
    noise = np.random.default_rng(0).normal(size=70)
    intact = zeroed([], images)
    responses = intact + 0.3 * intact.std() * noise
    score, each, stages = ablate_score(planted(), images, responses, advance=told.append)
    assert told == [64, 6]

    def r2(filters: list[tuple[int, int]]) -> float:
        return float(np.corrcoef(zeroed(filters, images), responses)[0, 1] ** 2)

    assert score == pytest.approx(r2([]))
    assert score > 0.8
    assert len(each) == 27
    own = planted().filters_per_layer
    starts = np.cumsum([0, *own])
    for stage, number in [EXCITATORY[0], EXCITATORY[2], (4, 0), (5, 1)]:
        assert each[starts[stage] + number] == pytest.approx(r2([(stage, number)]), abs=1e-9)
    assert each[starts[0] + EXCITATORY[0][1]] < score - 0.1
    assert stages.shape == (6,)
    assert np.isnan(stages[-1])  # the bias alone correlates with nothing


def test_wrong_input_is_refused(tuning: Tuning) -> None:
    with pytest.raises(InputError, match="5 images but 4 responses; give one each"):
        ablate_score(planted(), natural_images(5), np.zeros(4))
    blind: CompactModel = silent()
    with pytest.raises(InputError, match="answers all images alike"):
        ablate_tuning(blind, tuning)
