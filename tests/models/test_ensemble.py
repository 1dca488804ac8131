"""The ensemble's members have the published size and grid; the ensemble is their mean."""

from collections.abc import Iterable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pocketcortex.core import InputError
from pocketcortex.models import (
    EnsembleMember,
    EnsembleModel,
    EnsembleShape,
    EnsembleStack,
    FactorizedReadout,
)

TINY = EnsembleShape(in_channels=3, width=4, bottleneck=2, n_blocks=2)


def random_member(shape: EnsembleShape = TINY, seed: int = 0) -> EnsembleMember:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return EnsembleMember(shape).double().eval()


def random_maps(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def generators(seeds: Iterable[int] = (0,)) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def published_readout() -> FactorizedReadout:
    return FactorizedReadout(512, 7, 7, 200, scale=0.001, generators=generators())


def stored(module: nn.Module) -> int:
    return sum(t.numel() for t in module.state_dict().values() if t.is_floating_point())


def published_stored(module: nn.Module) -> int:
    return sum(
        t.numel()
        for name, t in module.state_dict().items()
        if t.is_floating_point() and name != "feature_scale"
    )


def trainable(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("count", "expected"), [(published_stored, 2_257_368), (trainable, 2_252_248)]
)
def test_member_and_readout_have_the_published_size(count: object, expected: int) -> None:
    assert callable(count)
    assert count(EnsembleMember(EnsembleShape())) + count(published_readout()) == expected


def test_published_embedding_is_half_as_wide() -> None:
    member = EnsembleMember(EnsembleShape()).eval()
    with torch.inference_mode():
        assert member(torch.zeros(1, 1024, 14, 14)).shape == (1, 512, 7, 7)


@pytest.mark.parametrize(("rows", "columns"), [(14, 14), (13, 14), (7, 5), (1, 1)])
@pytest.mark.parametrize("stride", [1, 2])
def test_embedding_size_is_rounded_up(rows: int, columns: int, stride: int) -> None:
    member = random_member(EnsembleShape(3, 4, 2, 1, stride))
    shape = member(random_maps(1, 3, rows, columns)).shape
    assert shape == (1, 4, -(-rows // stride), -(-columns // stride))


@pytest.mark.parametrize("size", [6, 7])
def test_strided_layer_pads_as_keras(size: int) -> None:
    member, x = random_member(), random_maps(2, 3, size, size)
    reduced = member.reduce(x)
    padded = F.pad(reduced, (0, 1, 0, 1) if size % 2 == 0 else (1, 1, 1, 1))
    depthwise, pointwise = member.pool
    expected = F.conv2d(padded, depthwise.weight, stride=2, groups=4)
    expected = F.conv2d(expected, pointwise.weight, pointwise.bias)
    torch.testing.assert_close(member(x), member.blocks(expected))


def test_embedding_is_signed() -> None:
    embedding = random_member()(random_maps(4, 3, 6, 6))
    assert (embedding < 0).any()
    assert (embedding > 0).any()


def test_blocks_add_to_their_input() -> None:
    member, x = random_member(), random_maps(2, 3, 6, 6)
    with torch.no_grad():
        for block in member.blocks:
            for parameter in block.branch[-1].parameters():
                parameter.zero_()
    reduced = F.pad(member.reduce(x), (0, 1, 0, 1))
    assert torch.equal(member(x), member.pool(reduced))


@pytest.mark.parametrize(("rows", "columns"), [(7, 7), (6, 5), (1, 1)])
@pytest.mark.parametrize("n_blocks", [0, 2])
def test_stride_zero_keeps_the_grid(rows: int, columns: int, n_blocks: int) -> None:
    shape = EnsembleShape(3, 4, 2, n_blocks, 0)
    member = random_member(shape)
    assert len(member.pool) == 0
    assert member(random_maps(1, 3, rows, columns)).shape == (1, 4, rows, columns)
    assert shape.grid(rows, columns) == (rows, columns)


def test_least_member_is_the_reduction_alone() -> None:
    member, x = random_member(EnsembleShape(3, 4, 2, 0, 0)), random_maps(2, 3, 5, 5)
    assert torch.equal(member(x), member.reduce(x))
    assert (member(x) >= 0).all()


@pytest.mark.parametrize("name", ["in_channels", "width", "bottleneck", "n_blocks", "stride"])
def test_impossible_shapes_are_refused(name: str) -> None:
    wrong = -1 if name in ("n_blocks", "stride") else 0
    with pytest.raises(InputError, match=f"^{name} of an ensemble member must be {wrong + 1}"):
        EnsembleShape(**{name: wrong})


def test_features_are_divided_by_their_scale() -> None:
    member, x = random_member(), random_maps(2, 3, 6, 6)
    expected = member(x)
    scale = torch.tensor([0.5, 2.0, 100.0], dtype=torch.float64)
    member.feature_scale.copy_(scale)
    torch.testing.assert_close(member(x * scale[:, None, None]), expected)


# The readout.


def test_readout_follows_its_formula() -> None:
    readout = FactorizedReadout(4, 3, 2, 5, scale=1.0, generators=generators(range(2))).double()
    with torch.no_grad():
        readout.mixing_bias.copy_(random_maps(2, 5))
        readout.bias.copy_(random_maps(2, 5) + 1)
    x = random_maps(2, 6, 4, 3, 2)
    answer = readout(x)
    assert answer.shape == (2, 6, 5)
    for m in range(2):
        for n in range(5):
            mixed = (x[m] * readout.mixing[m, n][:, None, None]).sum(1) + readout.mixing_bias[m, n]
            expected = (mixed * readout.spatial[m, n]).sum((1, 2)) + readout.bias[m, n]
            torch.testing.assert_close(answer[m, :, n], expected)


def test_fresh_readout_can_learn() -> None:
    readout = FactorizedReadout(4, 3, 2, 5, scale=0.01, generators=generators())
    readout(torch.ones(1, 2, 4, 3, 2)).sum().backward()
    for parameter in (readout.mixing, readout.spatial):
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 0


def test_reset_readout_is_as_new() -> None:
    readout = FactorizedReadout(4, 3, 2, 5, scale=0.3, generators=generators([1, 2]))
    expected = {name: tensor.clone() for name, tensor in readout.state_dict().items()}
    assert not torch.equal(readout.mixing[0], readout.mixing[1])
    with torch.no_grad():
        for parameter in readout.parameters():
            parameter.add_(1)
    readout.reset(0.3, generators([1, 2]))
    for name, tensor in readout.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


# The stack.

SHAPES = [
    TINY,
    EnsembleShape(3, 4, 2, 1, 1),
    EnsembleShape(3, 4, 2, 2, 0),
    EnsembleShape(3, 4, 2, 0, 2),
    EnsembleShape(3, 4, 2, 0, 0),
    EnsembleShape(3, 5, 7, 1, 3),
]


def different_members(shape: EnsembleShape, n: int = 3) -> list[EnsembleMember]:
    members = [random_member(shape, seed) for seed in range(n)]
    for k, member in enumerate(members):
        member.feature_scale.copy_(torch.linspace(0.5, 2 + k, shape.in_channels))
        for module in member.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 2, torch.Generator().manual_seed(k))
                nn.init.uniform_(module.running_var, 0.5, 2, torch.Generator().manual_seed(k))
                nn.init.uniform_(module.running_mean, -1, 1, torch.Generator().manual_seed(k))
    return members


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_stack_equals_its_members(shape: EnsembleShape, *, training: bool) -> None:
    members = [m.train(training) for m in different_members(shape)]
    stack, x = EnsembleStack(members), random_maps(5, 3, 6, 5)
    answer = stack(x)
    torch.testing.assert_close(answer, torch.stack([member(x) for member in members]))
    answer.square().sum().backward()
    for k, (member, copied) in enumerate(zip(members, stack.members(), strict=True)):
        for name, buffer in member.named_buffers():
            torch.testing.assert_close(copied.get_buffer(name), buffer, msg=name)
        member(x).square().sum().backward()
        for name, parameter in member.named_parameters():
            together = stack.get_parameter(name.replace(".", "_")).grad
            if together is None:  # a bias whose gradient a batch norm makes 0
                assert name.endswith((".0.bias", ".0.1.bias", ".3.1.bias"))
                assert not training or parameter.grad.abs().max() < 1e-9
            else:
                torch.testing.assert_close(together[k], parameter.grad, msg=name)


def test_stack_gives_its_members_back() -> None:
    members = different_members(TINY)
    state = torch.get_rng_state()
    copies = EnsembleStack(members).members()
    assert torch.equal(torch.get_rng_state(), state)
    x = random_maps(2, 3, 6, 6)
    for member, copied in zip(members, copies, strict=True):
        for name, tensor in member.state_dict().items():
            assert torch.equal(copied.state_dict()[name], tensor), name
        assert all(p.requires_grad for p in copied.parameters())
        assert not copied.training
        assert torch.equal(copied(x), member(x))


def test_stack_copies_its_members() -> None:
    members = different_members(TINY)
    stack = EnsembleStack(members)
    apart = stack.members()
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.zero_()
    for member in (*members, *apart):
        assert member.reduce[0].weight.abs().min() > 0


def test_stack_takes_both_memory_formats() -> None:
    stack, x = EnsembleStack(different_members(TINY)), random_maps(2, 3, 6, 6)
    torch.testing.assert_close(stack(x.contiguous(memory_format=torch.channels_last)), stack(x))


def test_half_precision_products_end_in_float32() -> None:
    stack = EnsembleStack(different_members(TINY)).float().train()
    readout = FactorizedReadout(4, 3, 3, 5, scale=1.0, generators=generators(range(3)))
    x = random_maps(8, 3, 6, 6).float()
    expected = readout(stack(x))
    with torch.autocast("cpu", torch.bfloat16):
        answer = readout(stack(x))
    assert answer.dtype == torch.float32
    assert stack.get_buffer("reduce_1_running_mean").dtype == torch.float32
    assert 0 < (answer - expected).square().mean() < 1e-3 * expected.var()


@pytest.mark.gpu
def test_stack_runs_on_the_device_of_its_members() -> None:
    members, x = different_members(TINY), random_maps(4, 3, 6, 6)
    expected = EnsembleStack(members)(x)
    stack = EnsembleStack([member.to("cuda") for member in members])
    torch.testing.assert_close(stack(x.to("cuda")).cpu(), expected)
    assert stack.members()[0].reduce[0].weight.device.type == "cuda"


@pytest.mark.parametrize("others", [[], [random_member(), random_member(SHAPES[1])]])
def test_stacks_of_none_or_of_several_shapes_are_refused(others: list[EnsembleMember]) -> None:
    with pytest.raises(InputError, match="needs members of one shape"):
        EnsembleStack(others)


# The ensemble.


def tiny_ensemble() -> EnsembleModel:
    members = [random_member(seed=k) for k in range(3)]
    return EnsembleModel(members, random_maps(3, 4 * 9, 5), random_maps(3, 5)).double().eval()


def test_ensemble_is_the_mean_of_its_members() -> None:
    model, x = tiny_ensemble(), random_maps(4, 3, 6, 6)
    alone = [
        member(x).flatten(1) @ model.weights[k] + model.intercepts[k]
        for k, member in enumerate(model.members)
    ]
    torch.testing.assert_close(model.predict_members(x), torch.stack(alone))
    torch.testing.assert_close(model(x), sum(alone) / 3)


def test_ensemble_counts_what_it_stores() -> None:
    model = tiny_ensemble()
    maps = 3 * (4 * 9 * 5 + 5)
    assert model.n_parameters == 3 * stored(random_member()) + maps
