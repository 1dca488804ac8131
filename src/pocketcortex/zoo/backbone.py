"""A pretrained network cut at one layer or several: where task-driven features come from."""

import hashlib
import importlib
import importlib.util
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from pocketcortex.core import InputError, in_brief


class _LayersReached(Exception):  # noqa: N818 - a signal, not an error
    """Raised by the last hook to skip the rest of the network."""


class Backbone:
    """Features of a frozen network's layers.

    Of several layers, the maps are averaged down to the smallest number of rows and columns among
    them and stacked, the channels of the first layer first.

    Parameters
    ----------
    network
        Takes float images ``(n, 3, height, width)``, levels 0..255, and does its own
        normalisation. Put into evaluation mode, gradients off.
    layers
        Names of the sub-modules whose outputs are wanted, as in ``network.named_modules()``; one
        or more.
    input_size
        Side in pixels to which images are resized (bicubic, antialiased), None for as they are.
    device
        Where the network runs.

    Raises
    ------
    InputError
        If the network has no such layer, or none is asked for.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: str | Sequence[str],
        *,
        input_size: int | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        names = [name for name, _ in network.named_modules() if name]
        wanted = (layers,) if isinstance(layers, str) else tuple(layers)
        for layer in wanted:
            if layer not in names:
                has = ", ".join(names[:40])
                raise InputError(f"no layer {layer!r} in the network; it has {has}")
        if not wanted or len(set(wanted)) < len(wanted):
            raise InputError(f"name one or more different layers, got {list(wanted)}")
        self.network = network.to(device).eval().requires_grad_(False)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.layers = wanted
        self.input_size = input_size
        self.device = torch.device(device)

    def __call__(
        self, images: UInt8[Tensor, "n 3 h w"] | Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, "n channels rows columns"]:
        """Return the layers' maps for raw images (0..255), on the backbone's device.

        Raises
        ------
        InputError
            If a layer's output is not a stack of maps.
        """
        maps = self.maps(images)
        smallest = min((m.shape[2:] for m in maps), key=math.prod)
        fitted = [
            m if m.shape[2:] == smallest else F.adaptive_avg_pool2d(m, (smallest[0], smallest[1]))
            for m in maps
        ]
        return torch.cat(fitted, dim=1) if len(fitted) > 1 else fitted[0]

    def maps(
        self, images: UInt8[Tensor, "n 3 h w"] | Float[Tensor, "n 3 h w"]
    ) -> list[Float[Tensor, "n channels rows columns"]]:
        """Return each layer's maps at their own size, in one pass through the network.

        Raises
        ------
        InputError
            If a layer's output is not a stack of maps.
        """
        kept: dict[str, object] = {}

        def keep(layer: str, output: object) -> None:
            kept[layer] = output
            if len(kept) == len(self.layers):
                raise _LayersReached

        x = images.to(self.device, torch.float32)
        if self.input_size is not None and x.shape[2:] != (self.input_size, self.input_size):
            size = (self.input_size, self.input_size)
            x = F.interpolate(x, size=size, mode="bicubic", antialias=True).clamp(0, 255)
        handles = [
            self.network.get_submodule(layer).register_forward_hook(
                lambda _module, _inputs, output, layer=layer: keep(layer, output)
            )
            for layer in self.layers
        ]
        try:
            with torch.inference_mode():
                self.network(x.contiguous(memory_format=torch.channels_last))
        except _LayersReached:
            pass
        finally:
            for handle in handles:
                handle.remove()
        maps: list[Tensor] = []
        for layer in self.layers:
            output = kept.get(layer)
            if not isinstance(output, Tensor) or output.ndim != 4:
                got = f"{output.ndim} axes" if isinstance(output, Tensor) else type(output).__name__
                raise InputError(f"layer {layer!r} gives {got}, expected maps (n, c, rows, cols)")
            maps.append(output.float())
        return maps

    @property
    def key(self) -> str:
        """Hash of the weights, the layers, the resizing and the code's own names."""
        digest = hashlib.sha256(
            f"{'+'.join(self.layers)}|{self.input_size}|{self.network}".encode()
        )
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
            raise InputError(
                f"network module {source!r} cannot be imported: {in_brief(error)}"
            ) from error
    builder: Callable[[], object] | None = getattr(module, name, None)
    if not callable(builder):
        raise InputError(f"{source} has no builder {name!r}")
    network = builder()
    if not isinstance(network, nn.Module):
        raise InputError(f"{reference} returned {type(network).__name__}, expected an nn.Module")
    return network
