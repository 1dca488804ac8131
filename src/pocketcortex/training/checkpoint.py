"""Checkpoints of a training loop: tensors and a few numbers, whole or not at all."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from pocketcortex.core import whole_path


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
    """Write tensors and JSON-able numbers to `path`, replacing what was there in one step."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    told = json.dumps(dict(numbers))
    metadata = {"numbers": told, "sha256": _digest(whole, told)}
    with whole_path(path) as partial:
        safetensors.torch.save_file(whole, partial, metadata)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return what `save_checkpoint` wrote; None if there is none, it is cut short or altered."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            told: dict[str, str] = file.metadata() or {}
        if told["sha256"] != _digest(tensors, told["numbers"]):
            return None
        numbers: dict[str, Any] = json.loads(told["numbers"])
    except (OSError, LookupError, ValueError, safetensors.SafetensorError):
        return None
    return tensors, numbers


def _digest(tensors: Mapping[str, Tensor], told: str) -> str:
    digest = hashlib.sha256(told.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimiser's state as named tensors."""
    return {
        f"optimizer.{index}.{name}": torch.as_tensor(value)
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors of `optimizer_tensors` back."""
    whole = optimizer.state_dict()
    whole["state"] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            whole["state"].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(whole)
