"""The same architecture with weights drawn anew: the untrained twin of any network."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

_RESETS = ("reset_parameters", "_reset_parameters")


class Randomised(NamedTuple):
    """A network with weights drawn anew.

    Attributes
    ----------
    network
        A copy on the same device; the network it was made from is as it was.
    kept
        Names of parameters that nothing re-initialises, which have their old values.
    """

    network: nn.Module
    kept: tuple[str, ...]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from a seeded CPU generator inside, and leave torch's global one as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def randomised(network: nn.Module, seed: int) -> Randomised:
    """Return a copy of a network whose modules have initialised their parameters anew.

    Every module with a ``reset_parameters`` (or torch's ``_reset_parameters``) is asked to use it,
    inner modules before those that hold them. All of PyTorch's own layers have one; batch norm
    resets its running mean and variance by it. What no module re-initialises, such as a position
    embedding that a network holds itself, keeps its values and is named. Buffers are touched by
    their module's reset alone.

    Parameters
    ----------
    network
        Any network.
    seed
        Same seed, same weights, on whatever device.

    Returns
    -------
    The copy, in the same mode, and the names of the parameters that were kept.
    """
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    twin = copy.deepcopy(network).cpu()
    old = {name: p.detach().clone() for name, p in twin.named_parameters()}
    with torch.no_grad(), seeded(seed):
        for parameter in twin.parameters():
            if parameter.is_floating_point() or parameter.is_complex():
                parameter.fill_(torch.nan)  # what is still NaN afterwards was not initialised
        for module in reversed(list(twin.modules())):
            reset = _reset_of(module)
            if reset is not None:
                reset()
        kept = tuple(name for name, p in twin.named_parameters() if _untouched(p))
        for name in kept:
            twin.get_parameter(name).copy_(old[name])
    return Randomised(twin.to(device), kept)


def _reset_of(module: nn.Module) -> Callable[[], object] | None:
    for name in _RESETS:
        reset = getattr(module, name, None)
        if callable(reset):
            found: Callable[[], object] = reset
            return found
    return None


def _untouched(parameter: Tensor) -> bool:
    if parameter.is_floating_point() or parameter.is_complex():
        return bool(parameter.isnan().any())
    return True
