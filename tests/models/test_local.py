"""Changes by patches against full forward passes of the images with the patches pasted."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pocketcortex.core import InputError
from pocketcortex.models import CompactModel, LocalChanges

Size = tuple[int, int]
FILTERS = (4, 3, 5, 2, 6)


def random_model(size: Size, filters: Sequence[int] = FILTERS, seed: int = 0) -> CompactModel:
    """Return a model in float64 whose maps are of order 1, many of them silent."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CompactModel(filters, size)
        with torch.no_grad():
            model.layers.conv.weight.div_(50)
            model.readout.normal_()
            model.readout_bias.normal_()
            for norm in model.layers.norms:
                norm.weight.uniform_(0.5, 2)
                norm.bias.normal_()
                norm.get_buffer("running_mean").normal_()
                norm.get_buffer("running_var").uniform_(0.1, 0.5)
    return model.double().eval()


def some_levels(*shape: int, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, shape).astype(np.uint8))


def some_corners(size: Size, patch: Size, n: int, seed: int = 0) -> Tensor:
    """Return the four corners of the image, the middle and `n` places at random."""
    bottom, right = size[0] - patch[0], size[1] - patch[1]
    fixed = [[0, 0], [0, right], [bottom, 0], [bottom, right], [bottom // 2, right // 2]]
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, (bottom + 1, right + 1), (n, 2))
    return torch.from_numpy(np.concatenate([fixed, drawn]))


def by_full_passes(model: CompactModel, image: Tensor, patches: Tensor, corners: Tensor) -> Tensor:
    height, width = patches.shape[2:]
    changes = []
    with torch.no_grad():
        before = model(image[None])
        for patch, (top, left) in zip(patches, corners.tolist(), strict=True):
            pasted = image.clone()
            pasted[:, top : top + height, left : left + width] = patch
            changes.append(model(pasted[None]) - before)
    return torch.cat(changes)


@pytest.mark.parametrize(
    ("size", "patch"),
    [
        ((16, 16), (4, 4)), ((16, 16), (1, 1)), ((16, 16), (16, 16)), ((33, 33), (12, 12)),
        ((33, 33), (7, 7)), ((33, 18), (5, 9)), ((34, 31), (30, 29)), ((15, 17), (15, 3)),
        ((112, 112), (12, 12)), ((112, 112), (3, 3)), ((112, 112), (112, 112)),
    ],
)  # fmt: skip
def test_changes_are_those_of_full_passes(size: Size, patch: Size) -> None:
    model, image = random_model(size), some_levels(3, *size)
    corners = some_corners(size, patch, 8)
    patches = some_levels(len(corners), 3, *patch, seed=1)
    wanted = by_full_passes(model, image, patches, corners)
    assert float(wanted.abs().median()) > 1e-3  # there is something to compare
    found = LocalChanges(model).changes(image, patches, corners)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(
    size=st.tuples(st.integers(1, 23), st.integers(1, 23)),
    part=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    filters=st.tuples(*[st.integers(1, 4)] * 5),
    seed=st.integers(0, 1000),
)
def test_images_and_patches_of_every_size(
    size: Size, part: tuple[float, float], filters: tuple[int, ...], seed: int
) -> None:
    model, image = random_model(size, filters, seed), some_levels(3, *size, seed=seed)
    patch = (1 + int(part[0] * (size[0] - 1)), 1 + int(part[1] * (size[1] - 1)))
    corners = some_corners(size, patch, 4, seed)
    patches = some_levels(len(corners), 3, *patch, seed=seed + 1)
    found = LocalChanges(model).changes(image, patches, corners)
    wanted = by_full_passes(model, image, patches, corners)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("position", range(8))
def test_every_place_on_the_grid_of_strides(position: int) -> None:
    """One patch alone: its window is cut to its own place."""
    model, image = random_model((21, 24)), some_levels(3, 21, 24)
    corners = torch.tensor([[position, 11 - position]])
    patches = some_levels(1, 3, 4, 4, seed=1)
    found = LocalChanges(model).changes(image, patches, corners)
    wanted = by_full_passes(model, image, patches, corners)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_a_patch_that_changes_no_pixel_changes_nothing() -> None:
    model, image = random_model((16, 20)).float(), some_levels(3, 16, 20)
    patches = torch.stack([image[:, 3:8, 2:7], image[:, 11:16, 15:20]])
    found = LocalChanges(model).changes(image, patches, torch.tensor([[3, 2], [11, 15]]))
    assert found.tolist() == [0.0, 0.0]


def test_parts_are_put_together_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    model, image = random_model((16, 20)), some_levels(3, 16, 20)
    corners = some_corners((16, 20), (4, 4), 12)
    patches = some_levels(len(corners), 3, 4, 4, seed=1)
    whole = LocalChanges(model).changes(image, patches, corners)
    n_values = FILTERS[0] * (4 + 3 + 4) ** 2
    for at_once in (0, 1, 5):
        monkeypatch.setattr("pocketcortex.models.local._CPU_VALUES", at_once * n_values)
        found = LocalChanges(model).changes(image, patches, corners)
        torch.testing.assert_close(found, whole, rtol=1e-12, atol=1e-12)


def test_threads_share_the_patches() -> None:
    model, image = random_model((16, 20)), some_levels(3, 16, 20)
    corners = some_corners((16, 20), (4, 4), 12)
    patches = some_levels(len(corners), 3, 4, 4, seed=1)
    local = LocalChanges(model)
    whole = local.changes(image, patches, corners)
    before = torch.get_num_threads()
    try:
        for n_threads in (2, 3, 7):
            torch.set_num_threads(n_threads)
            for n in (1, 2, 5, len(patches)):
                found = local.changes(image, patches[:n], corners[:n])
                torch.testing.assert_close(found, whole[:n], rtol=1e-12, atol=1e-12)
            assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)


def test_single_precision_floats_and_whole_levels_agree() -> None:
    model, image = random_model((28, 28)), some_levels(3, 28, 28)
    corners = some_corners((28, 28), (6, 6), 5)
    patches = some_levels(len(corners), 3, 6, 6, seed=1)
    wanted = by_full_passes(model, image, patches, corners)
    single = LocalChanges(model.float())
    found = single.changes(image, patches, corners)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4)
    assert torch.equal(single.changes(image.float(), patches.float(), corners.int()), found)


def test_the_model_is_copied_in_evaluation_mode_without_gradients() -> None:
    model, image = random_model((16, 16)), some_levels(3, 16, 16)
    corners, patches = torch.tensor([[2, 5]]), some_levels(1, 3, 4, 4, seed=1)
    wanted = by_full_passes(model, image, patches, corners)
    local = LocalChanges(model.train())
    with torch.no_grad():
        model.readout.zero_()
    with torch.enable_grad():
        found = local.changes(image, patches, corners)
    assert not found.requires_grad
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_arguments_stay_as_they_are() -> None:
    model, image = random_model((16, 16)), some_levels(3, 16, 16).double()
    corners, patches = torch.tensor([[2, 5], [0, 12]]), some_levels(2, 3, 4, 4, seed=1).double()
    given = [image, patches, corners]
    kept = [x.clone() for x in given]
    LocalChanges(model).changes(*given)
    assert all(torch.equal(a, b) for a, b in zip(given, kept, strict=True))


@pytest.mark.gpu
def test_on_an_accelerator() -> None:
    model, image = random_model((33, 28)), some_levels(3, 33, 28)
    corners = some_corners((33, 28), (6, 6), 300)
    patches = some_levels(len(corners), 3, 6, 6, seed=1)
    local = LocalChanges(model).to("cuda")
    found = local.changes(image.cuda(), patches.cuda(), corners)
    assert found.device.type == "cuda"
    wanted = by_full_passes(model, image, patches, corners)
    torch.testing.assert_close(found.cpu(), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"image": some_levels(3, 16, 18)}, r"takes images \(n, 3, 16, 16\)"),
        ({"patches": some_levels(2, 3, 4, 0)}, r"none empty.* got \(2, 3, 4, 0\) and 2 corners"),
        ({"patches": some_levels(3, 3, 4, 4)}, r"got \(3, 3, 4, 4\) and 2 corners"),
        ({"patches": some_levels(0, 3, 4, 4), "corners": torch.zeros(0, 2, dtype=torch.int64)},
         "one or more"),
        ({"corners": torch.tensor([[0, 0], [13, 0]])}, r"4 x 4 must lie .* to \[13, 0\]"),
        ({"corners": torch.tensor([[0, 0], [0, 13]])}, r"4 x 4 must lie .* to \[0, 13\]"),
        ({"corners": torch.tensor([[0, -1], [0, 3]])}, r"corners from \[0, -1\] to \[0, 3\]"),
        ({"patches": some_levels(2, 3, 17, 4)}, "17 x 4 must lie within images of 16 x 16"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(more: dict[str, Any], what: str) -> None:
    how: dict[str, Any] = {
        "image": some_levels(3, 16, 16),
        "patches": some_levels(2, 3, 4, 4),
        "corners": torch.tensor([[0, 0], [12, 12]]),
    }
    with pytest.raises(InputError, match=what):
        LocalChanges(random_model((16, 16))).changes(**(how | more))
