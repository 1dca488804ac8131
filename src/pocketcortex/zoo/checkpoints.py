"""The tensors of a checkpoint, and their way into a network."""

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from pocketcortex.core import InputError, in_brief

_NESTS = (
    "state_dict",
    "model_state_dict",
    "classy_state_dict",
    "base_model",
    "model",
    "trunk",
    "teacher",
    "student",
)
"""Entries of a checkpoint in which a network's tensors are found, the first that is there."""

_MAX_DEPTH = 8
"""How deep they may lie; a file can hold a checkpoint that holds itself."""

_WRAPPERS = (
    "module.",
    "model.",
    "backbone.",
    "trunk.",
    "base_encoder.",
    "encoder_q.",
    "encoder.",
    "_feature_blocks.",
)
"""What training code puts before the names of a network's tensors, in any order and number."""


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a weights file by name; no code in the file is run.

    Parameters
    ----------
    path
        ``.safetensors``, or what ``torch.save`` wrote: tensors, or a checkpoint with them under
        ``state_dict``, ``model`` and the like.

    Raises
    ------
    InputError
        If there is no such file, it cannot be read, it holds more than tensors and plain values
        (pickled objects are not read), or no tensors are found in it.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no weights file {path}")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"weights file {path} holds pickled objects, which are not read since they may run "
            "code; write its tensors alone to a .safetensors file with the code it comes from"
        ) from error
    except Exception as error:  # a damaged file makes torch's reader raise almost anything
        raise InputError(f"weights file {path} cannot be read: {in_brief(error)}") from error
    tensors = _tensors_in(content)
    if not tensors:
        raise InputError(
            f"weights file {path} holds no tensors; expected them at the top or under one of "
            f"{', '.join(_NESTS)}"
        )
    return tensors


def _tensors_in(content: object, depth: int = 0) -> dict[str, Tensor]:
    if not isinstance(content, Mapping) or depth > _MAX_DEPTH:
        return {}
    tensors = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if tensors:
        return tensors
    nested = (content[name] for name in _NESTS if name in content)
    return next((found for part in nested if (found := _tensors_in(part, depth + 1))), {})


def load_weights(network: nn.Module, tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Fill a network with tensors, whatever training code put before their names.

    Every parameter and buffer must get its tensor. Tensors for parts that the network has not,
    such as a projection head, are passed over; a tensor that names one of the network's own parts
    and finds no place there means another architecture, and is refused.

    Parameters
    ----------
    network
        Changed in place.
    tensors
        By name, as `read_tensors` gives them.
    source
        Where they come from, told in errors.

    Raises
    ------
    InputError
        If a tensor is missing, one is left over that names a part of the network, or one has
        another shape.
    """
    wanted = {name for name in network.state_dict() if not name.endswith("num_batches_tracked")}
    prefix, missing = min(
        ((p, sorted(wanted - _below(p, tensors))) for p in _prefixes(tensors)),
        key=lambda choice: (len(choice[1]), len(choice[0])),
    )
    if missing:
        raise InputError(
            f"{source} lacks {len(missing)} of the network's {len(wanted)} tensors, such as "
            f"{_some(missing)}; it has {_some(sorted(tensors))}"
        )
    known = set(network.state_dict())
    parts = {name.partition(".")[0] for name in known}
    below = _below(prefix, tensors)
    unplaced = sorted(name for name in below - known if name.partition(".")[0] in parts)
    if unplaced:
        raise InputError(
            f"{source} is of another architecture: it has {len(unplaced)} tensors for which the "
            f"network has no place, such as {_some(unplaced)}"
        )
    own = {name: tensors[prefix + name] for name in known & below}
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    other = [name for name, tensor in own.items() if tuple(tensor.shape) != shapes[name]]
    if other:
        name = min(other)
        raise InputError(
            f"{source}: {name} is {tuple(own[name].shape)} but the network's is {shapes[name]}"
        )
    state = network.state_dict()
    for name, tensor in own.items():
        state[name].copy_(tensor)


def _prefixes(names: Iterable[str]) -> set[str]:
    """Return what may stand before the network's names: nothing, or known wrappers."""
    found = {""}
    for name in names:
        length = 0
        while rest := next((w for w in _WRAPPERS if name.startswith(w, length)), ""):
            length += len(rest)
            found.add(name[:length])
    return found


def _below(prefix: str, names: Iterable[str]) -> set[str]:
    return {name[len(prefix) :] for name in names if name.startswith(prefix)}


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
