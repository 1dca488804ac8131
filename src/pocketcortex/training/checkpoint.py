"""Checkpoints of a training loop: tensors and a few numbers, whole or not at all."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
    """Write tensors and JSON-able numbers to `path`, replacing what was there in one step."""
    partial = path.with_name(path.name + ".partial")
    whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    safetensors.torch.save_file(whole, partial, {"numbers": json.dumps(dict(numbers))})
    os.replace(partial, path)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return what `save_checkpoint` wrote, None if there is no whole checkpoint."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            numbers: dict[str, Any] = json.loads(file.metadata()["numbers"])
    except (OSError, safetensors.SafetensorError):
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
