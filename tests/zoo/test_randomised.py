"""Untrained twins: everything drawn anew, by seed, and what could not be is named."""

import torch
from torch import Tensor, nn

from pocketcortex.zoo import randomised


class Mixed(nn.Module):
    """Layers of PyTorch, one with a reset of its own, and a parameter that nothing resets."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.attention = nn.MultiheadAttention(4, 2)
        self.scale = Scale()
        self.place = nn.Parameter(torch.full((5,), 3.0))
        self.index: Tensor
        self.register_buffer("index", torch.arange(5))


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((2,), 9.0))
        self.inner = nn.Linear(2, 2)

    def reset_parameters(self) -> None:
        nn.init.constant_(self.gain, 0.5)
        nn.init.zeros_(self.inner.weight)  # of an inner module: the outer one has the last word


class Partial(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight[:2])


def trained() -> Mixed:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = Mixed().eval().requires_grad_(False)
        network.norm.running_mean = torch.full((4,), 8.0)
        network.norm.weight.fill_(7)
    return network


def test_everything_is_drawn_anew_and_the_rest_is_named() -> None:
    network = trained()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    twin, kept = randomised(network, 0)
    assert kept == ("place",)
    assert isinstance(twin, Mixed)
    assert not twin.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])  # the original is as it was
    for name in (
        "conv.weight",
        "conv.bias",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
    ):
        assert not torch.equal(twin.get_parameter(name), before[name])
        assert twin.get_parameter(name).std() > 0
    assert twin.norm.weight.eq(1).all()
    assert twin.norm.running_mean is not None
    assert twin.norm.running_mean.eq(0).all()
    assert twin.place.eq(3).all()
    assert torch.equal(twin.index, network.index)
    assert twin.scale.gain.eq(0.5).all()
    assert twin.scale.inner.weight.eq(0).all()
    assert not any(v.isnan().any() for v in twin.state_dict().values())


def test_same_seed_same_weights_and_nothing_global_moves() -> None:
    state = torch.get_rng_state()
    weights = [randomised(trained(), seed).network.state_dict() for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    first, again, other = (w["conv.weight"] for w in weights)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_weights_are_those_of_a_layer_made_with_the_seed() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(6)
        fresh = nn.Linear(4, 3)
    twin, kept = randomised(nn.Linear(4, 3), 6)
    assert kept == ()
    assert torch.equal(twin.get_parameter("weight"), fresh.weight)


def test_a_reset_that_leaves_something_out_is_not_trusted() -> None:
    twin, kept = randomised(Partial(), 0)
    assert kept == ("weight",)
    assert twin.get_parameter("weight").eq(1).all()
