"""Hooks that hand on every tensor a network's modules give, the moment it is given."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float, Shaped
from torch import Tensor, nn

ROOT = "(output)"
"""Name of what the network itself gives."""

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class _Finished(Exception):  # noqa: N818 - a signal, not an error
    """Raised in a hook to leave out the rest of the network."""


def finish() -> None:
    """Stop the pass that called the visitor; `tapped` swallows the signal."""
    raise _Finished


@contextmanager
def tapped(network: nn.Module, visit: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call `visit(name, tensor)` for all that modules give within, in the order of the calls.

    Hooked are all modules but mere containers (`Sequential`, `ModuleList`, `ModuleDict`, of exactly
    these types): whatever such a container gives, its last module has given. A module has one hook,
    however many names it has. The name of a tensor is the module's path, `#2`, `#3` from its second
    call on, and the places within a tuple, list or mapping: `block.attention#2[0]`. Anything else
    that is no tensor is passed over. A tensor must be read in the visit: later modules may
    overwrite it. Hooks are removed and training flags put back in any case.
    """
    calls: Counter[str] = Counter()

    def attach(path: str, module: nn.Module) -> Any:
        def called(_module: nn.Module, _inputs: Any, output: Any) -> None:
            calls[path] += 1
            name = path if calls[path] == 1 else f"{path}#{calls[path]}"
            for place, tensor in _tensors(output):
                visit(name + place, tensor)

        return module.register_forward_hook(called)

    modules = [(path or ROOT, module) for path, module in network.named_modules()]
    training = [(module, module.training) for _, module in modules]
    handles: list[Any] = []
    try:
        network.eval()
        handles += [attach(path, m) for path, m in modules if type(m) not in _CONTAINERS]
        yield
    except _Finished:
        pass
    finally:
        for handle in handles:
            handle.remove()
        for module, flag in training:
            module.training = flag


def _tensors(output: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(output, Tensor):
        yield "", output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from ((f"[{key}]{place}", tensor) for place, tensor in _tensors(value))
    elif isinstance(output, tuple | list):
        for k, value in enumerate(output):
            yield from ((f"[{k}]{place}", tensor) for place, tensor in _tensors(value))


def as_rows(
    output: Shaped[Tensor, "..."], n_stimuli: int, order: list[int] | None = None
) -> Float[Tensor, "n_stimuli n_features"]:
    """Return one row a stimulus, axes in this order or by default as `memory_order` has them."""
    x = _a_stimulus(output, n_stimuli)
    return x.permute(0, *(order or memory_order(output, n_stimuli))).reshape(n_stimuli, -1)


def memory_order(output: Shaped[Tensor, "..."], n_stimuli: int) -> list[int]:
    """Return the axes behind the stimuli in the order of memory, in which nothing is copied."""
    x = _a_stimulus(output, n_stimuli)
    return sorted(range(1, x.ndim), key=x.stride, reverse=True)


def _a_stimulus(output: Tensor, n_stimuli: int) -> Tensor:
    return output.unflatten(0, (n_stimuli, -1)) if len(output) != n_stimuli else output
