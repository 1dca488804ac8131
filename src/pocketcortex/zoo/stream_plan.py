"""What a network's kernels will take before they are computed: layers, passes and memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pocketcortex.core import InputError, StimulusSet
from pocketcortex.zoo._probe import Probe, probe
from pocketcortex.zoo.network import Network

_MIB = 2**20
_WORK = 64 * _MIB  # blocks of features in the making


@dataclass(frozen=True)
class StreamPlan:
    """How a network's kernels will be computed, and what memory that takes.

    Attributes
    ----------
    layers
        Names of the layers, in the order in which the network computes them.
    n_features
        Of each layer.
    duplicates, skipped
        Outputs left out: equal to a layer bit for bit (with that layer), or not features of the
        stimuli (with the reason).
    images_at_once
        Images in one pass through the network.
    n_passes
        Passes through the network of so many images.
    needed_bytes
        Memory this takes besides the network itself: tensors of a pass, features' moments, and
        the kernels unless they go to files.
    channels_last
        Whether the network takes images whose colours lie side by side, which is faster on a CPU.
    """

    layers: tuple[str, ...]
    n_features: tuple[int, ...]
    duplicates: dict[str, str]
    skipped: dict[str, str]
    images_at_once: int
    n_passes: int
    needed_bytes: int
    channels_last: bool

    def __str__(self) -> str:
        return (
            f"{len(self.layers)} layers, {sum(self.n_features):,} features; {self.n_passes} "
            f"pass(es) of up to {self.images_at_once} images; needs {self.needed_bytes / _MIB:,.0f}"
            " MiB besides the network"
        )


def plan_stream(
    network: nn.Module,
    stimuli: StimulusSet,
    *,
    layers: Sequence[str] | None = None,
    within: str | None = None,
    memory_gib: float = 2.0,
    device: str = "cpu",
    to_files: bool = False,
) -> StreamPlan:
    """Return how :func:`stream_kernels` would go about it, from passes of two images and of one.

    Parameters and errors are those of :func:`stream_kernels`; `to_files` says that the kernels go
    to files.
    """
    if len(stimuli) < 3:
        raise InputError(f"kernels need 3 stimuli or more, got {len(stimuli)}")
    root = root_of(network, within)
    found, channels_last = _probed(network, root, stimuli, torch.device(device))
    names = _wanted(found, layers)
    sizes = tuple(found.n_features[name] for name in names)
    n, limit = len(stimuli), int(memory_gib * 1024 * _MIB)
    kernels = 0 if to_files else 2 * len(names) * n * n * 8
    pixels = int(np.prod(stimuli.image_size)) * 3 * 5  # as levels and as float32
    fixed = found.fixed_bytes + kernels + _WORK
    each = found.bytes_per_image + pixels
    at_once, moments = n, 0
    if fixed + n * each > limit:
        moments = 8 * sum(sizes)
        at_once = (limit - fixed - moments) // max(each, 1)
    if at_once < 2:
        least = fixed + moments + 2 * each
        raise InputError(
            f"memory_gib={memory_gib} is too little for two images at once; this network and "
            f"these {n} stimuli need at least {least / 2**30:.2f} GiB"
        )
    n_blocks = 1 if at_once >= n else -(-n // (at_once // 2))
    at_once = n if n_blocks == 1 else 2 * -(-n // n_blocks)
    return StreamPlan(
        layers=names,
        n_features=sizes,
        duplicates={k: v for k, v in found.duplicates.items() if v in names},
        skipped=dict(found.skipped),
        images_at_once=at_once,
        n_passes=1 if n_blocks == 1 else -(-n // at_once) + n_blocks * (n_blocks - 1) // 2,
        needed_bytes=fixed + moments + at_once * each,
        channels_last=channels_last,
    )


def root_of(network: nn.Module, within: str | None) -> nn.Module:
    """Return the module whose modules are the layers; of a `Network`, the network it holds.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if within is None:
        return network.network if isinstance(network, Network) else network
    try:
        return network.get_submodule(within)
    except AttributeError as error:
        raise InputError(f"no sub-module {within!r} in the network: {error}") from error


def _probed(
    network: nn.Module, root: nn.Module, stimuli: StimulusSet, device: torch.device
) -> tuple[Probe, bool]:
    """Probe with the first stimulus and its negative, colours side by side if that works."""
    network.to(device)
    first = torch.from_numpy(stimuli.read([0]))
    pair = torch.cat([255 - first, first])
    try:
        return probe(network, root, pair.to(device), lambda x: prepared(x, True)), True
    except RuntimeError:  # it views its maps in a way that this order of memory does not allow
        return probe(network, root, pair.to(device), lambda x: prepared(x, False)), False


def prepared(images: Tensor, channels_last: bool) -> Float[Tensor, "n 3 h w"]:
    """Return the images as float32, colours side by side in memory if asked for."""
    x = images.to(torch.float32)
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


def _wanted(found: Probe, layers: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the layers wanted, a duplicate by the layer it equals, in order."""
    if layers is None:
        return tuple(found.n_features)
    kept: set[str] = set()
    for name in layers:
        layer = found.duplicates.get(name, name)
        if layer not in found.n_features:
            why = f"is {found.skipped[name]}" if name in found.skipped else "does not exist"
            raise InputError(
                f"layer {name!r} {why}; the network has {', '.join(list(found.n_features)[:40])}"
            )
        kept.add(layer)
    if not kept:
        raise InputError("name one or more layers, or None for all; got none")
    return tuple(name for name in found.n_features if name in kept)
