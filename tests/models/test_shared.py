"""One network for many neurons equals the compact models taken out of it."""

import numpy as np
import pytest
import torch

from pocketcortex.core import InputError
from pocketcortex.models import CompactStack, SharedCompactModel

SIZE = (14, 17)
IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 3, *SIZE), dtype=np.uint8))


@pytest.fixture
def shared() -> SharedCompactModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SharedCompactModel((4, 3, 5, 2, 6), 7, SIZE)
        with torch.no_grad():
            model.spatial.normal_()
            model.bias.normal_()
        model.train()(IMAGES)  # moves the batch-norm statistics off 0 and 1
    return model.eval()


def test_shared_model_answers_as_its_compact_models(shared: SharedCompactModel) -> None:
    alone = torch.stack([model(IMAGES) for model in shared.compact_models()], dim=1)
    torch.testing.assert_close(shared(IMAGES), alone, rtol=1e-4, atol=1e-4)


def test_shared_model_follows_its_formula(shared: SharedCompactModel) -> None:
    maps = shared.layers(IMAGES)
    for n in range(7):
        mixed = (maps * shared.mixing[n][:, None, None]).sum(1)
        expected = (mixed * shared.spatial[n]).sum((1, 2)) + shared.bias[n]
        torch.testing.assert_close(shared(IMAGES)[:, n], expected, rtol=1e-4, atol=1e-4)


def test_compact_models_are_copies(shared: SharedCompactModel) -> None:
    first, second, *_ = shared.compact_models()
    expected = second(IMAGES)
    with torch.no_grad():
        first.layers.conv.weight.zero_()
        shared.layers.conv.weight.zero_()
    assert torch.equal(second(IMAGES), expected)


def test_compact_models_stack(shared: SharedCompactModel) -> None:
    stack = CompactStack(list(shared.compact_models()))
    torch.testing.assert_close(stack.predict(IMAGES), shared(IMAGES), rtol=1e-4, atol=1e-4)


def test_readouts_learn_from_the_first_step(shared: SharedCompactModel) -> None:
    fresh = SharedCompactModel((2, 2, 2, 2, 3), 4, SIZE)
    fresh(IMAGES).sum().backward()
    assert fresh.spatial.grad is not None
    assert (fresh.spatial.grad.abs().amax((1, 2)) > 0).all()


def test_wrong_filter_counts_are_refused_here_too() -> None:
    with pytest.raises(InputError, match="five positive counts"):
        SharedCompactModel((1, 2, 3), 4)
