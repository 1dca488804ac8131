"""The ensemble's members have the published size and grid; the ensemble is their mean."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pocketcortex.models import EnsembleMember, EnsembleModel, EnsembleShape, FactorizedReadout

TINY = EnsembleShape(in_channels=3, width=4, bottleneck=2, n_blocks=2)


def random_member(shape: EnsembleShape = TINY, seed: int = 0) -> EnsembleMember:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return EnsembleMember(shape).double().eval()


def random_maps(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def published_readout() -> FactorizedReadout:
    return FactorizedReadout(512, 7, 7, 200, scale=0.001, generator=torch.Generator())


def stored(module: nn.Module) -> int:
    return sum(t.numel() for t in module.state_dict().values() if t.is_floating_point())


def trainable(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("count", "expected"), [(stored, 2_257_368), (trainable, 2_252_248)])
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


def test_readout_follows_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    readout = FactorizedReadout(4, 3, 2, 5, scale=1.0, generator=generator).double()
    with torch.no_grad():
        readout.mixing_bias.copy_(random_maps(5))
        readout.bias.copy_(random_maps(5) + 1)
    x = random_maps(6, 4, 3, 2)
    answer = readout(x)
    for n in range(5):
        mixed = (x * readout.mixing[n][:, None, None]).sum(1) + readout.mixing_bias[n]
        expected = (mixed * readout.spatial[n]).sum((1, 2)) + readout.bias[n]
        torch.testing.assert_close(answer[:, n], expected)


def test_fresh_readout_can_learn() -> None:
    readout = FactorizedReadout(4, 3, 2, 5, scale=0.01, generator=torch.Generator())
    readout(torch.ones(2, 4, 3, 2)).sum().backward()
    for parameter in (readout.mixing, readout.spatial):
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 0


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
