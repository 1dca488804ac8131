"""What a run folder and its configuration name: settings, device, network."""

from pathlib import Path

import torch

from pocketcortex.core import InputError
from pocketcortex.pipeline.config import RunConfig
from pocketcortex.zoo import Backbone, load_network


def config_of(out: str | Path) -> RunConfig:
    """Return the configuration that a run folder was made from."""
    path = Path(out) / "config.json"
    try:
        return RunConfig.model_validate_json(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{out} holds no run ({path} cannot be read); make one with `pocketcortex ensemble fit`"
        ) from error


def resolve_device(device: str) -> str:
    """Return ``cpu`` or ``cuda`` for ``auto``, ``cpu`` or ``cuda``.

    Raises
    ------
    InputError
        If the name is another one or there is no such device.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"device must be auto, cpu or cuda; got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda was asked for, but PyTorch sees no GPU; use --device cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def open_backbone(config: RunConfig, device: str) -> Backbone:
    """Return the task-driven network of a configuration, on a device.

    Raises
    ------
    InputError
        If the network cannot be built or has no such layer.
    """
    return Backbone(
        load_network(config.backbone.network),
        config.backbone.layers,
        input_size=config.backbone.input_size,
        device=device,
    )
