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
_BATCH, _BATCH_ON_GPU = 8, 64
"""Images through the network at once where their features are kept: so few on a CPU that the memory
of outputs is used again, not given back and cleared anew for every layer."""


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
    n_passes, n_images
        Passes through the network of so many images, and the images of all passes together.
    kept
        Which features of which layers are kept of all stimuli, one set after the other; none if
        features are used as they come.
    needed_bytes
        Memory this takes besides the network itself: tensors of a pass, features kept or their
        moments, and the kernels unless they go to files.
    channels_last
        Whether the network takes images whose colours lie side by side, which is faster on a CPU.
    """

    layers: tuple[str, ...]
    n_features: tuple[int, ...]
    duplicates: dict[str, str]
    skipped: dict[str, str]
    images_at_once: int
    n_passes: int
    n_images: int
    kept: tuple[dict[str, slice], ...]
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
    kernels = 0 if to_files else len(names) * _sums(n)
    pixels = int(np.prod(stimuli.image_size)) * 3 * 5  # as levels and as float32
    fixed = found.fixed_bytes + kernels + _WORK
    each = found.bytes_per_image + pixels
    few = min(n, _BATCH if torch.device(device).type == "cpu" else _BATCH_ON_GPU)
    both = (
        _as_they_come(n, each, limit - fixed, 8 * sum(sizes)),
        _kept(n, each, limit - fixed, dict(zip(names, sizes, strict=True)), found.item_bytes, few),
    )
    ways = [way for way in both if way is not None]
    if not ways:
        kept = _sums(n) + (sum(sizes) + n) * found.item_bytes
        least = fixed + 2 * each + min(8 * sum(sizes), kept)
        raise InputError(
            f"memory_gib={memory_gib} is too little for two images at once; this network and "
            f"these {n} stimuli need at least {least / 2**30:.2f} GiB"
        )
    way = min(ways, key=lambda way: way.n_images)
    return StreamPlan(
        layers=names,
        n_features=sizes,
        duplicates={k: v for k, v in found.duplicates.items() if v in names},
        skipped=dict(found.skipped),
        images_at_once=way.images_at_once,
        n_passes=way.n_passes,
        n_images=way.n_images,
        kept=way.kept,
        needed_bytes=fixed + way.n_bytes,
        channels_last=channels_last,
    )


@dataclass(frozen=True)
class _Way:
    """How to go about it: see `StreamPlan`."""

    images_at_once: int
    n_passes: int
    n_images: int
    kept: tuple[dict[str, slice], ...]
    n_bytes: int


def _as_they_come(n: int, each: int, free: int, moments: int) -> _Way | None:
    """Return the way that takes all stimuli through the network at once, or blocks in pairs."""
    if n * each <= free:
        return _Way(n, 1, n, (), n * each)
    at_once = (free - moments) // max(each, 1)
    if at_once < 2:
        return None
    n_blocks = -(-n // (at_once // 2))
    at_once = 2 * -(-n // n_blocks)
    n_passes = -(-n // at_once) + n_blocks * (n_blocks - 1) // 2
    return _Way(at_once, n_passes, n * n_blocks, (), moments + at_once * each)


def _kept(n: int, each: int, free: int, sizes: dict[str, int], item: int, few: int) -> _Way | None:
    """Return the way that takes a few stimuli after the other, some features of all kept."""
    free -= _sums(n)
    at_once = min(few, max(2, free // 2 // max(each, 1)))
    room = (free - at_once * each) // (n * item)
    n_features = sum(sizes.values())
    if n * room < n_features:  # an image would pass more often than in pairs of single images
        return None
    room = -(-n_features // -(-n_features // room))  # as many in each set
    kept: list[dict[str, slice]] = [{}]
    left = room
    for name, size in sizes.items():
        start = 0
        while start < size:
            if not left:
                kept.append({})
                left = room
            stop = min(size, start + left)
            kept[-1][name] = slice(start, stop)
            left, start = left - (stop - start), stop
    n_bytes = _sums(n) + at_once * each + n * room * item
    return _Way(at_once, len(kept) * -(-n // at_once), n * len(kept), tuple(kept), n_bytes)


def _sums(n: int) -> int:
    """Return the bytes of a layer's two kernels."""
    return 2 * n * n * 8


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
