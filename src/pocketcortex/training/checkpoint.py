"""Checkpoints of a training loop: tensors and a few numbers, whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from pocketcortex.core import parse_json
from pocketcortex.models._tensor_files import read_tensors_whole, write_tensors


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
    """Write tensors and JSON-able numbers to `path`, replacing what was there in one step."""
    write_tensors(path, tensors, {"numbers": json.dumps(dict(numbers))})


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return what `save_checkpoint` wrote; None if there is none, it is cut short or altered."""
    try:
        tensors, notes = read_tensors_whole(path)
        numbers: dict[str, Any] = parse_json(notes["numbers"])
    except (OSError, LookupError, ValueError, safetensors.SafetensorError):
        return None
    return tensors, numbers


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
