"""Models paired with images of their own respond and have gradients as one by one by autograd."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_models import RAGGED, SIZE, ragged_models, random_model
from torch import Tensor

from pocketcortex.core import InputError
from pocketcortex.models import CompactModel, PairedStack


def some_images(n_models: int, n: int, size: tuple[int, int] = SIZE, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.uniform(0, 255, (n_models, n, 3, *size)))


def by_autograd(models: Sequence[CompactModel], images: Tensor) -> tuple[Tensor, Tensor]:
    responses, gradients = [], []
    for model, own in zip(models, images, strict=True):
        x = own.clone().requires_grad_()
        y = model(x)
        (gradient,) = torch.autograd.grad(y.sum(), x)
        responses.append(y.detach())
        gradients.append(gradient)
    return torch.stack(responses), torch.stack(gradients)


def assert_same(found: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor], part: float) -> None:
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape
        assert float((a.double() - b.double()).norm()) <= part * float(b.double().norm())


def test_gradients_are_those_of_autograd() -> None:
    models, images = ragged_models(), some_images(4, 3)
    wanted = by_autograd(models, images)
    alive = wanted[1].flatten(2).abs().amax(2) > 0
    assert alive.sum() >= 8  # there is something to compare
    assert_same(PairedStack(models).gradients(images), wanted, 1e-10)


def test_in_single_precision_too() -> None:
    models, images = ragged_models(), some_images(4, 3)
    wanted = by_autograd(models, images)
    single = [model.float() for model in models]
    responses, gradients = PairedStack(single).gradients(images.float())
    assert responses.dtype == gradients.dtype == torch.float32
    assert_same((responses, gradients), wanted, 1e-4)


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 19),
    width=st.integers(1, 19),
    filters=st.tuples(*[st.integers(1, 5)] * 5),
    seed=st.integers(0, 1000),
)
def test_images_of_every_size(height: int, width: int, filters: tuple[int, ...], seed: int) -> None:
    """Even and odd sizes pad their strided layers differently."""
    size = (height, width)
    models = [random_model(filters, size, seed), random_model((2, 3, 1, 2, 3), size, seed + 1)]
    images = some_images(2, 2, size, seed)
    stack, wanted = PairedStack(models), by_autograd(models, images)
    assert_same(stack.gradients(images), wanted, 1e-10)
    assert_same(stack.padded.gradient(images), wanted, 1e-10)  # as on an accelerator


def test_padded_batch_is_the_same() -> None:
    models, images = ragged_models(), some_images(4, 3)
    assert_same(PairedStack(models).padded.gradient(images), by_autograd(models, images), 1e-10)


@pytest.mark.gpu
def test_on_an_accelerator() -> None:
    models, images = ragged_models(), some_images(4, 300)  # more than one batch
    stack = PairedStack(models).to("cuda")
    responses, gradients = stack.gradients(images.cuda())
    assert responses.device.type == gradients.device.type == "cuda"
    assert_same((responses.cpu(), gradients.cpu()), by_autograd(models, images), 1e-10)
    assert torch.allclose(stack.responses(images.cuda()), responses)


def test_accelerator_batches_are_put_together_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    models, images = ragged_models(), some_images(4, 5)
    stack, wanted = PairedStack(models), by_autograd(models, images)
    monkeypatch.setattr(PairedStack, "_on_cpu", lambda self: False)
    monkeypatch.setattr("pocketcortex.models.paired._BATCH", 8)
    assert [part.shape[1] for part in stack._batches(images)] == [2, 2, 1]
    assert_same(stack.gradients(images), wanted, 1e-10)
    assert_same((stack.responses(images),) * 2, (wanted[0],) * 2, 1e-10)


def test_whole_levels_and_floats_give_the_same_responses() -> None:
    models = ragged_models()
    levels = some_images(4, 3).round().to(torch.uint8)
    stack = PairedStack(models)
    wanted = torch.stack([model(x).detach() for model, x in zip(models, levels, strict=True)])
    for images in (levels, levels.double()):
        torch.testing.assert_close(stack.responses(images), wanted, rtol=1e-10, atol=1e-10)


def test_what_runs_beside_an_image_changes_no_bit() -> None:
    models = [model.float() for model in ragged_models()]
    images = some_images(4, 5).float()
    responses, gradients = PairedStack(models).gradients(images)
    for k, model in enumerate(models):
        few = images[k : k + 1, 2:4].contiguous()
        r, g = PairedStack([model]).gradients(few)
        assert torch.equal(r[0], responses[k, 2:4])
        assert torch.equal(g[0], gradients[k, 2:4])


def test_threads_change_no_bit_and_stay_as_they_were() -> None:
    models, images = ragged_models(), some_images(4, 3)
    stack = PairedStack(models)
    one = stack.gradients(images)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        several, responses = stack.gradients(images), stack.responses(images)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one[0], several[0])
    assert torch.equal(one[1], several[1])
    torch.testing.assert_close(responses, one[0])


def test_models_are_copied_and_need_no_gradients() -> None:
    model = random_model(RAGGED[0])
    images = some_images(1, 2)
    stack = PairedStack([model])
    before = stack.responses(images)
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.enable_grad():
        responses, gradients = stack.gradients(images)
    assert not responses.requires_grad
    assert not gradients.requires_grad
    assert not list(stack.parameters())
    assert all(p.grad is None for p in model.parameters())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, kept[name])
    with torch.no_grad():
        model.readout.zero_()
        model.layers.conv.weight.zero_()
    assert torch.equal(stack.responses(images), before)


def test_training_mode_does_not_matter() -> None:
    model = random_model(RAGGED[0])
    images = some_images(1, 3)
    wanted = PairedStack([model]).responses(images)
    torch.testing.assert_close(PairedStack([model.train()]).responses(images), wanted)


def test_says_what_it_holds() -> None:
    stack = PairedStack(ragged_models())
    assert len(stack) == 4
    assert stack.image_size == SIZE


def test_no_model_is_refused() -> None:
    with pytest.raises(InputError, match="at least one compact model, got none"):
        PairedStack([])


def test_models_of_different_images_are_refused() -> None:
    with pytest.raises(InputError, match="share one image size and one image mean"):
        PairedStack([random_model(RAGGED[0]), random_model(RAGGED[1], (14, 16))])
    other = CompactModel(RAGGED[0], SIZE, image_mean=(0.0, 0.0, 0.0))
    with pytest.raises(InputError, match="share one image size and one image mean"):
        PairedStack([CompactModel(RAGGED[0], SIZE), other])


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((3, 2, 3, *SIZE), "4 models need as many sets"),
        ((4, 0, 3, *SIZE), "one or more images"),
        ((4, 2, 3, 14, 16), r"images \(n_models, n, 3, 14, 17\), got \(4, 2, 3, 14, 16\)"),
    ],
)
def test_images_that_do_not_fit_are_refused(shape: tuple[int, ...], told: str) -> None:
    stack = PairedStack(ragged_models())
    for call in (stack.responses, stack.gradients):
        with pytest.raises(InputError, match=told):
            call(torch.zeros(shape, dtype=torch.float64))
