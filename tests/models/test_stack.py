"""A stack of compact models answers, trains and comes apart as the models one by one."""

import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from random_models import SIZE, ragged_models, random_model
from torch import Tensor, nn

from pocketcortex.core import InputError
from pocketcortex.models import CompactModel, CompactStack


def on_trunk(n_shared: int) -> list[CompactModel]:
    """Return three models whose first layers are the same."""
    trunk = (3, 5, 2, 4)[:n_shared]
    rests = ([4, 3, 5, 2, 6], [4, 1, 2, 4, 2], [4, 6, 2, 5, 3])
    models = [random_model((*trunk, *f[n_shared:]), seed=k) for k, f in enumerate(rests)]
    for model in models[1:]:
        for index in range(n_shared):
            for of, to in zip(layer_of(models[0], index), layer_of(model, index), strict=True):
                to.load_state_dict(of.state_dict())
    return models


def layer_of(model: CompactModel, index: int) -> list[nn.Module]:
    layers = model.layers
    if index == 0:
        return [layers.conv, layers.norms[0]]
    return [layers.depthwise[index - 1], layers.pointwise[index - 1], layers.norms[index]]


def some_images(n: int, seed: int = 0) -> Tensor:
    levels = np.random.default_rng(seed).integers(0, 256, (n, 3, *SIZE), dtype=np.uint8)
    return torch.from_numpy(levels)


def answers(models: Sequence[CompactModel], images: Tensor) -> Tensor:
    return torch.stack([model(images) for model in models], dim=1)


def assert_same_models(got: Sequence[CompactModel], expected: Sequence[CompactModel]) -> None:
    assert len(got) == len(expected)
    for model, other in zip(got, expected, strict=True):
        state = model.state_dict()
        for name, tensor in other.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                torch.testing.assert_close(state[name], tensor, msg=name)


def test_stack_answers_as_its_models() -> None:
    models, images = ragged_models(), some_images(5)
    torch.testing.assert_close(CompactStack(models).eval()(images), answers(models, images))


def test_stack_uses_batch_statistics_in_training() -> None:
    models, images = [m.train() for m in ragged_models()], some_images(5)
    stack = CompactStack(models).train()
    torch.testing.assert_close(stack(images), answers(models, images))
    assert not torch.allclose(stack(images), stack.eval()(images))


def test_training_updates_the_moving_statistics() -> None:
    models, images = [m.train() for m in ragged_models()], some_images(5)
    stack = CompactStack(models).train()
    stack(images)
    answers(models, images)
    assert_same_models(list(stack.models()), models)


@pytest.mark.parametrize("training", [True, False])
def test_an_adam_step_equals_training_each_alone(training: bool) -> None:
    models, images = [m.train(training) for m in ragged_models()], some_images(6)
    before = ragged_models()
    targets = torch.from_numpy(np.random.default_rng(1).normal(size=(6, len(models))))
    stack = CompactStack(models).train(training)
    optimizer = torch.optim.Adam(stack.parameters(), lr=0.01)
    (stack(images) - targets).square().mean(0).sum().backward()
    optimizer.step()
    for model, column in zip(models, targets.T, strict=True):
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        (model(images) - column).square().mean().backward()
        optimizer.step()
    after = list(stack.models())
    torch.testing.assert_close(answers(after, images), answers(models, images))
    assert not torch.allclose(answers(after, images), answers(before, images))


@pytest.mark.parametrize("training", [True, False])
def test_gradients_equal_those_of_the_models(training: bool) -> None:
    models, images = [m.train(training) for m in ragged_models()], some_images(6)
    stack = CompactStack(models).train(training)
    stack(images).square().sum().backward()
    answers(models, images).square().sum().backward()
    for layer in range(1, 5):
        grads = [m.layers.depthwise[layer - 1].weight.grad for m in models]
        torch.testing.assert_close(stack.kernels[layer].grad, torch.cat(grads))
        for k, model in enumerate(models):
            expected = model.layers.pointwise[layer - 1].weight.grad[:, :, 0, 0]
            torch.testing.assert_close(stack.mixing[layer - 1][k].grad, expected)
    torch.testing.assert_close(stack.readout.grad, torch.cat([m.readout.grad for m in models]))
    for layer, norm in enumerate(stack.norms):
        grads = [m.layers.norms[layer].weight.grad for m in models]
        torch.testing.assert_close(norm.weight.grad, torch.cat(grads))


def test_models_come_back_as_they_went_in() -> None:
    models = ragged_models()
    back = list(CompactStack(models).eval().models())
    for model, other in zip(back, models, strict=True):
        assert model.filters == other.filters
        assert not model.training
        for name, tensor in other.state_dict().items():
            assert torch.equal(model.state_dict()[name], tensor), name


def test_image_mean_stays_with_the_models() -> None:
    models = [CompactModel((1, 1, 1, 1, 1), (8, 8), (1.0, 2.0, 3.0)) for _ in range(2)]
    model = next(CompactStack(models).models())
    assert model.layers.image_mean.flatten().tolist() == [1, 2, 3]


def test_stack_keeps_copies() -> None:
    models, images = ragged_models(), some_images(2)
    stack = CompactStack(models).eval()
    expected = stack(images)
    with torch.no_grad():
        for model in models:
            for parameter in model.parameters():
                parameter.zero_()
        for model in stack.models():
            model.readout.zero_()
    assert torch.equal(stack(images), expected)


@pytest.mark.parametrize(("n_filters", "sizes"), [(1, [1] * 4), (5, [2, 1, 1]), (100, [4])])
def test_split_keeps_order_and_responses(n_filters: int, sizes: list[int]) -> None:
    models, images = ragged_models(), some_images(3)
    parts = CompactStack(models).eval().split(n_filters)
    assert [len(part) for part in parts] == sizes
    assert not any(part.training for part in parts)
    got = torch.cat([part(images) for part in parts], dim=1)
    torch.testing.assert_close(got, answers(models, images))


def test_predict_equals_forward_over_several_tiles() -> None:
    filters = [(20, 2, 2, 2, 2), (30, 2, 3, 2, 2), (40, 2, 2, 1, 2)]
    stack = CompactStack([random_model(f, seed=k) for k, f in enumerate(filters)])
    images = some_images(19)
    assert len(stack.split(48)) > 1
    torch.testing.assert_close(stack.predict(images), stack.eval()(images).detach())


def test_predict_leaves_the_mode_and_weights_alone() -> None:
    stack = CompactStack(ragged_models()).train()
    before = {name: tensor.clone() for name, tensor in stack.state_dict().items()}
    answer = stack.predict(some_images(9))
    assert stack.training
    assert not answer.requires_grad
    assert all(torch.equal(before[name], t) for name, t in stack.state_dict().items())


def test_images_get_gradients() -> None:
    models, images = ragged_models(), some_images(2).double().requires_grad_()
    (gradient,) = torch.autograd.grad(CompactStack(models).eval()(images).sum(), images)
    (expected,) = torch.autograd.grad(answers(models, images).sum(), images)
    torch.testing.assert_close(gradient, expected)


def test_precision_is_that_of_the_models() -> None:
    stack = CompactStack(ragged_models()).eval()
    assert stack(some_images(1)).dtype == torch.float64
    assert next(stack.models()).readout.dtype == torch.float64


@pytest.mark.gpu
def test_stack_predicts_on_the_device_of_its_models() -> None:
    models, images = ragged_models(), some_images(5)
    expected = CompactStack(models).predict(images)
    stack = CompactStack([model.to("cuda") for model in models])
    torch.testing.assert_close(stack.predict(images.to("cuda")).cpu(), expected)


@pytest.mark.parametrize(
    "other",
    [CompactModel((1,) * 5, (8, 12)), CompactModel((1,) * 5, (12, 8), (0.0, 0.0, 0.0))],
    ids=["size", "mean"],
)
def test_models_that_do_not_fit_together_are_refused(other: CompactModel) -> None:
    with pytest.raises(InputError, match="one image size and one image mean"):
        CompactStack([CompactModel((1,) * 5, (12, 8)), other])


def test_empty_stack_is_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        CompactStack([])


def test_wrong_image_size_is_refused() -> None:
    with pytest.raises(InputError, match=r"takes images \(n, 3, 14, 17\)"):
        CompactStack(ragged_models())(torch.zeros(1, 3, 17, 14))


# Models grown on one trunk.

SHARED = pytest.mark.parametrize("n_shared", [1, 2, 3, 4])


@SHARED
@pytest.mark.parametrize("training", [True, False])
def test_sharing_layers_changes_no_answer_and_no_gradient(n_shared: int, training: bool) -> None:
    models, images = [m.train(training) for m in on_trunk(n_shared)], some_images(6)
    stack = CompactStack(models, n_shared).train(training)
    answer, expected = stack(images), answers(models, images)
    torch.testing.assert_close(answer, expected)
    torch.testing.assert_close(stack.read_out(stack.trunk(images)), answer)
    answer.square().sum().backward()
    expected.square().sum().backward()
    for index in range(5):
        parts = [torch.cat([p.grad.flatten() for p in kernels(m, index)]) for m in models]
        of_stack = [stack.kernels[index].grad]
        if index > 0:
            of_stack += [p.grad for p in stack.mixing[index - 1]]
        got = torch.cat([p.flatten() for p in of_stack])
        if index < n_shared:  # every model pulls at the one layer
            torch.testing.assert_close(got, torch.stack(parts).sum(0))
        else:
            torch.testing.assert_close(got.sort().values, torch.cat(parts).sort().values)
    readouts = [m.readout.grad for m in models]
    torch.testing.assert_close(stack.readout.grad, torch.cat(readouts))


def kernels(model: CompactModel, index: int) -> list[nn.Parameter]:
    """Return the weights of a layer but for biases and batch norm."""
    return [part.get_parameter("weight") for part in layer_of(model, index)[:-1]]


@SHARED
def test_models_on_a_trunk_come_back_as_they_went_in(n_shared: int) -> None:
    models, images = on_trunk(n_shared), some_images(3)
    back = list(CompactStack(models, n_shared).eval().models())
    assert [m.filters for m in back] == [m.filters for m in models]
    assert_same_models(back, models)
    assert torch.equal(answers(back, images), answers(models, images))
    with torch.no_grad():
        back[0].layers.conv.weight.zero_()  # each has its own copy
    assert_same_models(back[1:], models[1:])


@SHARED
def test_shared_layers_are_kept_once(n_shared: int) -> None:
    models = on_trunk(n_shared)
    stack = CompactStack(models, n_shared)
    parts = [part for index in range(n_shared) for part in layer_of(models[0], index)]
    n_trunk = sum(p.numel() for part in parts for p in part.parameters())
    assert sum(p.numel() for p in stack.trunk_parameters()) == n_trunk
    apart = sum(p.numel() for p in CompactStack(models).parameters())
    assert sum(p.numel() for p in stack.parameters()) == apart - 2 * n_trunk


def test_a_trunk_can_be_frozen() -> None:
    models, images = on_trunk(3), some_images(4)
    stack = CompactStack(models, 3)
    for parameter in stack.trunk_parameters():
        parameter.requires_grad_(False)
    before = copy.deepcopy(stack.state_dict())
    optimizer = torch.optim.Adam([p for p in stack.parameters() if p.requires_grad], lr=0.01)
    stack.eval()(images).square().sum().backward()
    optimizer.step()
    changed = {n for n, tensor in stack.state_dict().items() if not torch.equal(tensor, before[n])}
    late = {f"{kind}.{k}" for kind in ("kernels", "biases") for k in (3, 4)}
    late |= {f"mixing.{k}.{m}" for k in (2, 3) for m in range(3)}
    late |= {f"norms.{k}.{name}" for k in (3, 4) for name in ("weight", "bias")}
    assert changed == late | {"readout", "readout_bias"}


def test_predict_keeps_models_on_a_trunk_together() -> None:
    models, images = on_trunk(3) * 12, some_images(9)
    stack = CompactStack(models, 3)
    assert [len(part) for part in stack.split(1)] == [36]
    torch.testing.assert_close(stack.predict(images), answers(models, images))


@pytest.mark.parametrize(
    ("layer", "name"),
    [(0, "conv.bias"), (1, "depthwise.0.weight"), (2, "norms.2.running_var")],
)
def test_layers_that_differ_cannot_be_shared(layer: int, name: str) -> None:
    models = on_trunk(3)
    with torch.no_grad():
        models[2].layers.state_dict()[name].flatten()[0] += 1e-3
    with pytest.raises(InputError, match=f"models 0 and 2 differ in layer {layer}; shared layers"):
        CompactStack(models, 3)
    assert len(CompactStack(models, layer)) == 3


def test_layers_of_other_sizes_cannot_be_shared() -> None:
    with pytest.raises(InputError, match="models 0 and 1 differ in layer 0"):
        CompactStack(ragged_models(), 1)


@pytest.mark.parametrize("n_shared", [-1, 5])
def test_a_last_layer_of_its_own_is_left_to_each_model(n_shared: int) -> None:
    with pytest.raises(InputError, match=f"n_shared must be within 0..4, got {n_shared}"):
        CompactStack(on_trunk(3), n_shared)
