"""What layers a network has, which of them say the same, and how much memory an image takes."""

import hashlib
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pocketcortex.core import InputError
from pocketcortex.zoo._taps import as_rows, tapped

_SAMPLES = 256
_TOLERANCE = 0.02  # of the largest value; covers half precision


@dataclass(frozen=True)
class Probe:
    """What two small passes tell.

    Attributes
    ----------
    n_features
        Of every layer, in the order in which layers are computed.
    duplicates
        Names whose values are, bit for bit, those of an earlier layer, each with that layer.
    skipped
        Names that are no features of the stimuli, each with the reason.
    fixed_bytes, bytes_per_image
        Most memory that tensors of a pass take at once: a constant and what each image adds.
    item_bytes
        Of the largest kind of number among the features.
    """

    n_features: Mapping[str, int]
    duplicates: Mapping[str, str]
    skipped: Mapping[str, str]
    fixed_bytes: int
    bytes_per_image: int
    item_bytes: int


@dataclass(frozen=True)
class _Seen:
    """One tensor of a pass: leading axis, digest of its values, some values of the last image."""

    n_leading: int
    n_features: int
    item_bytes: int
    digest: str
    sample: Float[np.ndarray, " n_samples"]


def probe(
    network: nn.Module, root: nn.Module, pair: Tensor, prepare: Callable[[Tensor], Tensor]
) -> Probe:
    """Return what a pass of two images, and one of the second alone, say about the network.

    A tensor holds features if it is of floating point and its first axis follows the stimuli, one
    after the other, each with equally many entries: the second half of the first pass must then be
    the second pass.

    Raises
    ------
    InputError
        If no layer gives features.
    """
    both, peak_of_both = _pass(network, root, pair, prepare)
    one, peak_of_one = _pass(network, root, pair[1:], prepare)
    item_bytes = 0
    n_features: dict[str, int] = {}
    duplicates: dict[str, str] = {}
    skipped: dict[str, str] = {}
    first: dict[tuple[int, str], str] = {}
    for name, seen in both.items():
        reason = seen if isinstance(seen, str) else _mismatch(seen, one.get(name))
        if reason or isinstance(seen, str):
            skipped[name] = reason
            continue
        key = (seen.n_features, seen.digest or name)  # no digest: constant, equal to none
        if key in first:
            duplicates[name] = first[key]
        else:
            first[key] = name
            n_features[name] = seen.n_features
            item_bytes = max(item_bytes, seen.item_bytes)
    if not n_features:
        raise InputError(
            "no module of the network gives features of the images: floating-point tensors whose "
            f"first axis follows the stimuli; got {dict(list(skipped.items())[:5])}"
        )
    per_image = max(0, peak_of_both - peak_of_one)
    return Probe(
        n_features, duplicates, skipped, max(0, peak_of_one - per_image), per_image, item_bytes
    )


def _pass(
    network: nn.Module, root: nn.Module, images: Tensor, prepare: Callable[[Tensor], Tensor]
) -> tuple[dict[str, "_Seen | str"], int]:
    """Return what each name gave, or why it has no features, and the peak memory of tensors."""
    seen: dict[str, _Seen | str] = {}

    def look(name: str, output: Tensor) -> None:
        n = len(images)
        if not output.is_floating_point():
            seen[name] = f"of type {output.dtype}, not floating point"
        elif output.ndim == 0 or output.numel() == 0 or len(output) % n:
            seen[name] = f"shape {tuple(output.shape)} does not follow the stimuli"
        else:
            as_rows(output, n)  # a copy that it makes counts in the memory
            seen[name] = _look_at(output, n)

    with torch.inference_mode(), _LiveMemory() as memory, tapped(root, look):
        network(prepare(images))
    return seen, memory.peak


def _look_at(output: Tensor, n: int) -> _Seen:
    """Return the digest and a sample, by NumPy so that nothing of it counts as the network's."""
    values = output.float() if output.dtype == torch.bfloat16 else output
    rows = np.ascontiguousarray(values.cpu().numpy()).reshape(n, -1)
    some = np.linspace(0, rows.shape[1] - 1, min(_SAMPLES, rows.shape[1])).astype(np.int64)
    varied = bool((rows != rows[0, 0]).any())
    digest = hashlib.blake2b(rows.tobytes(), digest_size=16).hexdigest() if varied else ""
    return _Seen(
        len(output), rows.shape[1], output.element_size(), digest, rows[-1, some].astype(np.float64)
    )


def _mismatch(pair: _Seen, alone: "_Seen | str | None") -> str:
    """Return why the last image's part of two is not what it gives alone; nothing if it is."""
    if not isinstance(alone, _Seen):
        return "not given for one image alone"
    if pair.n_features != alone.n_features or pair.n_leading != 2 * alone.n_leading:
        return f"first axis {pair.n_leading} for 2 images and {alone.n_leading} for 1"
    size = np.abs(alone.sample).max()
    if np.isfinite(size) and not (np.abs(pair.sample - alone.sample) <= _TOLERANCE * size).all():
        return "an image's values depend on the other images of its batch, or on their order"
    return ""


class _LiveMemory(TorchDispatchMode):
    """Counts the bytes of all tensors made within that are still alive, and their peak."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        output = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor) and tensor.layout == torch.strided:
                self._count(tensor.untyped_storage())
        return output

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._known:
            n_bytes = storage.nbytes()
            self._known.add(key)
            self.live += n_bytes
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._forget, key, n_bytes)

    def _forget(self, key: int, n_bytes: int) -> None:
        self._known.discard(key)
        self.live -= n_bytes
