"""A pretrained network cut at one layer: where task-driven features come from."""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from pocketcortex.core import InputError


class _LayerReached(Exception):  # noqa: N818 - a signal, not an error
    """Raised by the hook to skip the rest of the network."""


class Backbone:
    """Features of one layer of a frozen network.

    Parameters
    ----------
    network
        Takes float images ``(n, 3, height, width)``, levels 0..255, and does its own
        normalisation. Put into evaluation mode, gradients off.
    layer
        Name of the sub-module whose output is wanted, as in ``network.named_modules()``.
    input_size
        Side in pixels to which images are resized (bicubic, antialiased), None for as they are.
    device
        Where the network runs.

    Raises
    ------
    InputError
        If the network has no such layer.
    """

    def __init__(
        self,
        network: nn.Module,
        layer: str,
        *,
        input_size: int | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        names = [name for name, _ in network.named_modules() if name]
        if layer not in names:
            raise InputError(f"no layer {layer!r} in the network; it has {', '.join(names[:40])}")
        self.network = network.to(device).eval().requires_grad_(False)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.layer = layer
        self.input_size = input_size
        self.device = torch.device(device)

    def __call__(
        self, images: UInt8[Tensor, "n 3 h w"] | Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, "n channels rows columns"]:
        """Return the layer's output for raw images (0..255), on the backbone's device.

        Raises
        ------
        InputError
            If the layer's output is not a stack of maps.
        """
        kept: list[object] = []

        def keep(_module: nn.Module, _inputs: object, output: object) -> None:
            kept.append(output)
            raise _LayerReached

        x = images.to(self.device, torch.float32)
        if self.input_size is not None and x.shape[2:] != (self.input_size, self.input_size):
            size = (self.input_size, self.input_size)
            x = F.interpolate(x, size=size, mode="bicubic", antialias=True).clamp(0, 255)
        handle = self.network.get_submodule(self.layer).register_forward_hook(keep)
        try:
            with torch.inference_mode():
                self.network(x.contiguous(memory_format=torch.channels_last))
        except _LayerReached:
            pass
        finally:
            handle.remove()
        maps = kept[0] if kept else None
        if not isinstance(maps, Tensor) or maps.ndim != 4:
            got = f"{maps.ndim} axes" if isinstance(maps, Tensor) else type(maps).__name__
            raise InputError(f"layer {self.layer!r} gives {got}, expected maps (n, c, rows, cols)")
        return maps.float()

    @property
    def key(self) -> str:
        """Hash of the weights, the layer, the resizing and the code's own names."""
        digest = hashlib.sha256(f"{self.layer}|{self.input_size}|{self.network}".encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
        return digest.hexdigest()


def load_network(reference: str) -> nn.Module:
    """Build a network from ``"path/to/file.py:builder"`` or ``"package.module:builder"``.

    The builder is called without arguments and returns an ``nn.Module``. The file is your own
    code and is run as such.

    Raises
    ------
    InputError
        If the reference is malformed, the file or builder does not exist, or it does not return
        an ``nn.Module``.
    """
    source, _, name = reference.rpartition(":")
    if not source or not name:
        raise InputError(f"network {reference!r} must be 'file.py:builder' or 'module:builder'")
    if source.endswith(".py"):
        path = Path(source).expanduser()
        if not path.is_file():
            raise InputError(f"network file {path} does not exist (from {reference!r})")
        spec = importlib.util.spec_from_file_location(f"pocketcortex_user_{path.stem}", path)
        if spec is None or spec.loader is None:
            raise InputError(f"network file {path} cannot be imported")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    else:
        try:
            module = importlib.import_module(source)
        except (ImportError, TypeError) as error:
            raise InputError(f"network module {source!r} cannot be imported: {error}") from error
    builder: Callable[[], object] | None = getattr(module, name, None)
    if not callable(builder):
        raise InputError(f"{source} has no builder {name!r}")
    network = builder()
    if not isinstance(network, nn.Module):
        raise InputError(f"{reference} returned {type(network).__name__}, expected an nn.Module")
    return network
