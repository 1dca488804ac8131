"""Ablations answer as the model run anew with kernels set to zero or outputs to means."""

import copy
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_models import RAGGED, SIZE, ragged_models, random_model
from torch import Tensor
from torch.nn import functional as F

from pocketcortex.core import InputError
from pocketcortex.models import (
    N_STAGES,
    Ablations,
    CompactModel,
    import_compact_model,
    published_models,
)
from pocketcortex.models import ablations as module

SEEDS = [0, 2, 2, 3]  # by which most filters of `RAGGED` answer


def some_images(n: int, seed: int = 0, size: tuple[int, int] = SIZE) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (n, 3, *size), dtype=np.uint8))


def kernels(model: CompactModel, stage: int) -> Tensor:
    """Return the kernels of a stage, to be written to."""
    layers = model.layers
    if stage == 0:
        return layers.conv.weight
    return layers.depthwise[stage - 1].weight if stage < N_STAGES - 1 else model.readout


@torch.no_grad()
def zeroed(model: CompactModel, filters: Iterable[tuple[int, int]], images: Tensor) -> Tensor:
    """Return the responses of a copy whose kernels (stage, number) are zero."""
    other = copy.deepcopy(model)
    for stage, number in filters:
        kernels(other, stage)[number] = 0
    return other(images)


def places(model: Ablations) -> list[tuple[int, int]]:
    return list(zip(model.stages.tolist(), model.numbers.tolist(), strict=True))


def gone(model: Ablations, kept: np.ndarray) -> list[tuple[int, int]]:
    return [place for place, left in zip(places(model), kept, strict=True) if not left]


def assert_same(found: Tensor, wanted: Tensor, part: float = 1e-10) -> None:
    assert found.shape == wanted.shape
    assert float((found - wanted).abs().max()) <= part * float(wanted.abs().max())


@torch.no_grad()
def stage_outputs(model: CompactModel, images: Tensor) -> list[Tensor]:
    """Return layer 0's maps, the depthwise outputs of layers 1 to 4, and the readouts' sums."""
    layers = model.layers
    found = [x := layers.layer(0, layers.centre(images))]
    for i in range(1, N_STAGES - 1):
        found.append(layers.filtered(i, x))
        x = layers.layer(i, x)
    return [*found, (x * model.readout).sum((2, 3))]


@torch.no_grad()
def averaged(
    model: CompactModel, filters: Iterable[tuple[int, int]], images: Tensor, reference: Tensor
) -> Tensor:
    """Return the responses with the outputs of filters replaced by their means, layer by layer."""
    means = [s.transpose(0, 1).flatten(1).mean(1) for s in stage_outputs(model, reference)]
    own = [[k for stage, k in filters if stage == one] for one in range(N_STAGES)]
    layers = model.layers
    x = layers.layer(0, layers.centre(images))
    x[:, own[0]] = means[0][own[0], None, None]
    for i in range(1, N_STAGES - 1):
        z = layers.filtered(i, x)
        z[:, own[i]] = means[i][own[i], None, None]
        x = F.relu(layers.norms[i](layers.pointwise[i - 1](z)))
    sums = (x * model.readout).sum((2, 3))
    sums[:, own[-1]] = means[-1][own[-1]]
    return sums.sum(1) + model.readout_bias


@pytest.mark.parametrize(("filters", "seed"), list(zip(RAGGED, SEEDS, strict=True)))
def test_each_ablation_is_the_model_with_that_kernel_zero(
    filters: tuple[int, ...], seed: int
) -> None:
    model, images = random_model(filters, seed=seed), some_images(3, seed)
    ablations = Ablations(model)
    wanted = torch.stack([zeroed(model, [place], images) for place in places(ablations)])
    assert_same(ablations.without_each(images), wanted)
    assert_same(ablations.responses(images), zeroed(model, [], images))
    changed = (wanted - zeroed(model, [], images)).abs().amax(1) > 1e-3
    assert changed.sum() >= len(ablations) // 3  # there is something to compare


@pytest.mark.parametrize("seed", range(4))
def test_with_other_filters_gone_before(seed: int) -> None:
    model, images = random_model((5, 6, 4, 5, 3), seed=seed), some_images(2, seed)
    ablations = Ablations(model)
    kept = np.random.default_rng(seed).random(len(ablations)) < 0.8
    wanted = torch.stack([
        zeroed(model, [*gone(ablations, kept), place], images) for place in places(ablations)
    ])  # fmt: skip
    assert 0 < kept.sum() < len(ablations)
    assert_same(ablations.without_each(images, kept), wanted)
    assert_same(ablations.responses(images, kept), zeroed(model, gone(ablations, kept), images))


def test_whole_stages() -> None:
    for model in ragged_models():
        ablations, images = Ablations(model), some_images(2)
        wanted = [
            zeroed(model, [(stage, k) for k in range(count)], images)
            for stage, count in enumerate(model.filters_per_layer)
        ]
        assert_same(ablations.without_stages(images), torch.stack(wanted))
        bias = model.readout_bias.detach().expand(len(images))
        assert_same(ablations.without_stages(images)[-1], bias)  # nothing else is read


def test_layer_0_leaves_its_rectified_offset() -> None:
    model, images = random_model((4, 3, 5, 2, 6)), some_images(2)
    model.layers.norms[0].bias.data += 3  # all offsets pass
    ablations = Ablations(model)
    without_offset = copy.deepcopy(model)
    for one in (without_offset.layers.conv.weight, without_offset.layers.norms[0].weight):
        one.data[1] = 0
    without_offset.layers.norms[0].bias.data[1] = 0  # the map itself is zero
    row = ablations.without_each(images)[ablations.filter(0, 1)]
    assert_same(row, zeroed(model, [(0, 1)], images))
    assert float((row - without_offset(images).detach()).abs().max()) > 1e-3


@pytest.mark.parametrize("k", range(len(RAGGED)))
def test_means_stand_for_filters(k: int) -> None:
    model, images, reference = ragged_models()[k], some_images(2, 1), some_images(9, 2)
    ablations = Ablations(model, reference)
    wanted = [averaged(model, [place], images, reference) for place in places(ablations)]
    assert_same(ablations.without_each(images), torch.stack(wanted))
    kept = np.random.default_rng(k).random(len(ablations)) < 0.7
    others = gone(ablations, kept)
    assert_same(ablations.responses(images, kept), averaged(model, others, images, reference))
    wanted = [averaged(model, [*others, place], images, reference) for place in places(ablations)]
    assert_same(ablations.without_each(images, kept), torch.stack(wanted))


@settings(max_examples=30, deadline=None)
@given(
    filters=st.tuples(*[st.integers(1, 5)] * 5),
    seed=st.integers(0, 1000),
    share=st.floats(0, 1),
    by_means=st.booleans(),
)
def test_one_by_one_is_the_same_as_by_sets(
    filters: tuple[int, ...], seed: int, share: float, by_means: bool
) -> None:
    """What `without_each` says of a filter is what `responses` says without it."""
    model, images = random_model(filters, (9, 12), seed), some_images(2, seed, (9, 12))
    ablations = Ablations(model, some_images(3, seed + 1, (9, 12)) if by_means else None)
    kept = np.random.default_rng(seed).random(len(ablations)) < share
    rows = ablations.without_each(images, kept)
    wanted = []
    for k in range(len(ablations)):
        fewer = kept.copy()
        fewer[k] = False
        wanted.append(ablations.responses(images, fewer))
    assert float((rows - torch.stack(wanted)).abs().max()) <= 1e-10 * float(rows.abs().max() + 1)


def test_batches_are_put_together_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps too many for one batch give the same responses."""
    model, images = random_model((7, 6, 5, 4, 6)), some_images(5)
    whole = Ablations(model).without_each(images)
    monkeypatch.setattr(module, "_CPU_VALUES", 1000)
    monkeypatch.setattr(module, "_CPU_IMAGES", 2)
    assert_same(Ablations(model).without_each(images), whole)


def test_the_model_is_left_alone() -> None:
    model = random_model((3, 2, 4, 2, 3))
    before = copy.deepcopy(model.state_dict())
    Ablations(model, some_images(2)).without_each(some_images(2))
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())
    assert all(one.requires_grad for one in model.parameters())


def test_filters_are_numbered_by_stage() -> None:
    ablations = Ablations(random_model((4, 3, 5, 2, 6)))
    assert len(ablations) == 4 + 4 + 3 + 5 + 2 + 6
    assert [ablations.filter(*place) for place in places(ablations)] == list(range(len(ablations)))
    assert ablations.filter(5, 2) == 4 + 4 + 3 + 5 + 2 + 2
    for stage, number in ((0, 4), (-1, 0), (6, 0), (4, 2), (3, -1)):
        with pytest.raises(InputError, match=f"no filter {number} in stage {stage}; .* 4, 4, 3, 5"):
            ablations.filter(stage, number)


def test_wrong_input_is_refused() -> None:
    model, images = random_model((2, 2, 2, 2, 2)), some_images(2)
    ablations = Ablations(model)
    with pytest.raises(InputError, match="12 filters, `kept` has 11"):
        ablations.responses(images, np.ones(11, dtype=bool))
    with pytest.raises(InputError, match="12 filters, `kept` has 13"):
        ablations.without_each(images, np.ones(13, dtype=bool))
    wrong = some_images(2, size=(14, 16))
    for ask in (ablations.responses, ablations.without_each, ablations.without_stages):
        with pytest.raises(InputError, match=re.escape("(n, 3, 14, 17)")):
            ask(wrong)
    with pytest.raises(InputError, match=re.escape("(n, 3, 14, 17)")):
        Ablations(model, wrong)
    with pytest.raises(InputError, match="one or more reference images, got none"):
        Ablations(model, images[:0])


@pytest.mark.gpu
def test_on_an_accelerator() -> None:
    model, images = random_model((7, 6, 5, 4, 6)), some_images(70)  # more than one batch
    for reference in (None, some_images(9, 2)):
        wanted = Ablations(model, reference).without_each(images)
        ablations = Ablations(model, reference).to("cuda")
        found = ablations.without_each(images.cuda())
        assert found.device.type == ablations.device.type == "cuda"
        assert_same(found.cpu(), wanted)
        assert_same(ablations.without_stages(images.cuda()).cpu(), torch.stack([
            Ablations(model, reference).responses(images, ablations.stages != stage)
            for stage in range(N_STAGES)
        ]))  # fmt: skip


@pytest.mark.data
def test_of_a_published_model(real_data: Path) -> None:
    files = published_models(real_data / "v4", "190923")
    model = import_compact_model(files[min(files)])
    images = some_images(2, size=model.image_size)
    ablations = Ablations(model)
    rows = ablations.without_each(images)
    few = [ablations.filter(stage, count // 2) for stage, count in enumerate(ablations.counts)]
    wanted = torch.stack([zeroed(model, [places(ablations)[k]], images) for k in few])
    assert_same(rows[few], wanted, 1e-4)
    assert float((rows - ablations.responses(images)).abs().max()) > 1e-2
