"""What the importers of released models share: untrusted files, arrays in Keras' order."""

import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import h5py
import numpy as np
import torch
from torch import Tensor, nn

from pocketcortex.core import InputError, in_brief
from pocketcortex.core.memory import limited_memory
from pocketcortex.models.compact import BATCH_NORM_EPS

N_LAYERS = 5
N_LAYER_ARRAYS = 34
"""Arrays of the five layers in Keras' order; those of the readout follow."""
MAX_FILE_BYTES = 256 * 2**20

Model = TypeVar("Model", bound=nn.Module)


def read_model(path: Path, what: str, read: Callable[[Path], Model]) -> Model:
    """Return what `read` makes of a file; whatever goes wrong is an InputError naming the file.

    Parameters
    ----------
    path
        The file.
    what
        What it should be, such as ``"compact model"``.
    read
        Reads it; may raise anything on a damaged file.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected a published {what}")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InputError(f"{path} is over {MAX_FILE_BYTES:,} bytes: not a {what}")
    try:
        with limited_memory(path):
            return read(path)
    except InputError as error:
        raise InputError(f"{path.name}: {in_brief(error, 1000)}") from error
    except Exception as error:  # damaged files make the formats' readers raise almost anything
        lacks = "it lacks " if isinstance(error, LookupError) else ""
        raise InputError(
            f"{path.name} is not a readable {what}: {lacks}{in_brief(error)}"
        ) from error


def read_member(path: Path, name: str) -> io.BytesIO:
    """Return a member of a `.keras` archive; a size over the limit is refused unread."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(name)
        if info.file_size > MAX_FILE_BYTES:
            raise InputError(f"{name} is too large for a compact model")
        return io.BytesIO(archive.read(info))


def read_datasets(file: h5py.File, names: Sequence[str]) -> list[np.ndarray]:
    """Return the named arrays of an HDF5 file; links and data kept elsewhere are refused."""
    plain: set[str] = set()
    return [_dataset(file, name, plain) for name in names]


def layer_names() -> list[str]:
    """Return where a Keras 3 weights file keeps the arrays of the five layers, in order."""
    names = []
    for i in range(N_LAYERS):
        conv = "conv2d" if i == 0 else numbered("separable_conv2d", i - 1)
        names += [f"layers/{conv}/vars/{k}" for k in range(2 if i == 0 else 3)]
        names += [f"layers/{numbered('batch_normalization', i)}/vars/{k}" for k in range(4)]
    return names


def numbered(kind: str, index: int) -> str:
    """Return Keras' name of the layer of a kind that comes `index` (0..) among its like."""
    return f"{kind}_{index}" if index else kind


def as_tensors(arrays: Sequence[np.ndarray]) -> list[Tensor]:
    """Return arrays as float32 tensors; too many numbers, NaN and infinite ones are refused."""
    if sum(a.size for a in arrays) * 8 > MAX_FILE_BYTES:
        raise InputError(f"{sum(a.size for a in arrays):,} weights: not a compact model")
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite and is refused below
        tensors = [torch.from_numpy(np.ascontiguousarray(a, dtype=np.float32)) for a in arrays]
    if not all(torch.isfinite(t).all() for t in tensors):
        raise InputError("weights hold NaN or infinite numbers")
    return tensors


def layers_state(tensors: Sequence[Tensor]) -> tuple[list[int], dict[str, Tensor]]:
    """Return filters per layer, and the state of `CompactLayers` named as a model's own.

    Parameters
    ----------
    tensors
        Layer 0: kernel (5, 5, 3, n0), bias, gamma, beta, mean, variance; layers 1 to 4: depthwise
        (5, 5, n, 1), pointwise (1, 1, n, m), bias, gamma, beta, mean, variance.

    Raises
    ------
    InputError
        If a kernel does not have four axes, a layer no filter, or filter counts disagree.
    """
    if tensors[0].ndim != 4 or any(tensors[7 * i].ndim != 4 for i in range(1, N_LAYERS)):
        raise InputError("kernels are not four-dimensional")
    filters = [tensors[0].shape[3], *(tensors[7 * i].shape[3] for i in range(1, N_LAYERS))]
    if min(filters) < 1:
        raise InputError(f"layers have {filters} filters, expected at least one each")
    for i in range(1, N_LAYERS):  # before a model of that size is built
        if tensors[7 * i].shape != (expected := (1, 1, filters[i - 1], filters[i])):
            raise InputError(
                f"pointwise kernel of layer {i} has shape {tuple(tensors[7 * i].shape)}, "
                f"expected {expected}"
            )
    state = {"layers.conv.weight": tensors[0].permute(3, 2, 0, 1), "layers.conv.bias": tensors[1]}
    for layer in range(N_LAYERS):
        start = 2 if layer == 0 else 7 * layer + 2
        if layer:
            depthwise = tensors[start - 3]
            if depthwise.ndim != 4:
                raise InputError("kernels are not four-dimensional")
            state[f"layers.depthwise.{layer - 1}.weight"] = depthwise.permute(2, 3, 0, 1)
            state[f"layers.pointwise.{layer - 1}.weight"] = tensors[start - 2].permute(3, 2, 0, 1)
            state[f"layers.pointwise.{layer - 1}.bias"] = tensors[start - 1]
        for offset, name in enumerate(("weight", "bias", "running_mean", "running_var")):
            state[f"layers.norms.{layer}.{name}"] = tensors[start + offset]
    return filters, state


def with_state(model: Model, state: dict[str, Tensor]) -> Model:
    """Return the model with this state, for evaluation; wrong shapes and variances are refused."""
    expected = model.state_dict()
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise InputError(
                f"{name} has shape {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}"
            )
    if any((state[f"layers.norms.{k}.running_var"] <= -BATCH_NORM_EPS).any() for k in range(5)):
        raise InputError("batch-norm variances are negative")
    model.load_state_dict({**expected, **state})
    return model.eval()


def _dataset(file: h5py.File, name: str, plain: set[str]) -> np.ndarray:
    """Read one dataset; links out of the file are refused.

    `plain` holds the groups known to be no links, and gets those on the way to this dataset.
    """
    parts = name.split("/")
    for depth in range(1, len(parts) + 1):  # from the top, so that no link is ever followed
        place = "/".join(parts[:depth])
        if place not in plain and not _is_hard(file, place):
            raise InputError(f"HDF5 entry {place!r} is missing or a link")
        plain.add(place)
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
        raise InputError(f"HDF5 entry {name!r} is not a plain dataset")
    if dataset.dtype.kind != "f" or dataset.size * dataset.dtype.itemsize > MAX_FILE_BYTES:
        raise InputError(f"HDF5 entry {name!r} is not an array of floats of a compact model")
    return np.asarray(dataset[()])


def _is_hard(file: h5py.File, place: str) -> bool:
    try:
        return bool(file.id.links.get_info(place.encode()).type == h5py.h5l.TYPE_HARD)
    except (KeyError, RuntimeError):
        return False
