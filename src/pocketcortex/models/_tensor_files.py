"""Files of named tensors that appear whole or not at all, and tell when they were altered."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from pocketcortex.core import InputError, whole_path

_HASH = "sha256"


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str] | None = None
) -> None:
    """Write tensors and notes in the format of safetensors, their SHA-256 among the notes."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    told = dict(notes or {})
    with whole_path(path) as partial:
        safetensors.torch.save_file(whole, partial, told | {_HASH: _digest(whole, told)})


def read_tensors_whole(
    path: Path, *, of_others: bool = False
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a file that `write_tensors` wrote, and its notes.

    Parameters
    ----------
    path
        The file.
    of_others
        Whether one without a hash, which something else wrote, will do.

    Raises
    ------
    OSError, SafetensorError
        If the file cannot be read.
    InputError
        If it was altered since it was written.
    """
    with safetensors.safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        notes: dict[str, str] = file.metadata() or {}
    told = {name: note for name, note in notes.items() if name != _HASH}
    if not (of_others and _HASH not in notes) and notes.get(_HASH) != _digest(tensors, told):
        raise InputError(f"{path.name} was altered: its numbers have another SHA-256")
    return tensors, notes


def _digest(tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> str:
    digest = hashlib.sha256(repr(sorted(notes.items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
