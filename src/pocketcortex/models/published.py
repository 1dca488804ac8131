"""Read the published compact models (`.pt`, `.npy`, `.h5`, `.keras`) without trusting the files."""

import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch

from pocketcortex.core import InputError
from pocketcortex.core.hdf5 import open_hdf5
from pocketcortex.models._object_arrays import read_object_array
from pocketcortex.models._release import (
    MAX_FILE_BYTES,
    N_LAYER_ARRAYS,
    N_LAYERS,
    as_tensors,
    layer_names,
    layers_state,
    read_datasets,
    read_member,
    read_model,
    with_state,
)
from pocketcortex.models.compact import CompactModel

N_ARRAYS = 36
PT_VARIANCE_OFFSET = 1e-3
"""What the published `.pt` files have already added to the variances of layers 1 to 4."""

_NAME = re.compile(r"compact_model_(?P<session>\w+?)_neuron(?P<neuron>\d+)\b")


def import_compact_model(path: str | Path) -> CompactModel:
    """Return a published compact model read from any of its four file formats, in float32.

    All formats hold the same float32 numbers in Keras' order and give the same responses. Batch
    normalisation runs with eps 1e-3; the `.pt` files of the release have that much already in the
    variances of layers 1 to 4, and it is taken out again here.

    Parameters
    ----------
    path
        ``compact_model_<session>_neuron<k>`` as ``.pt``, ``.npy``, ``.h5`` (whole model or
        weights only) or ``.keras``.

    Raises
    ------
    InputError
        If the file is missing, truncated, too large, of another architecture, or holds anything
        but plain arrays: no code from a file is ever run.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, released models.
    """
    path = Path(path)
    readers = {".pt": _read_pt, ".npy": _read_npy, ".h5": _read_h5, ".keras": _read_keras}
    if path.suffix not in readers and not path.exists():
        raise InputError(f"{path} does not exist; give a model's file, or a folder of models")
    if path.suffix not in readers:
        raise InputError(f"{path.name}: unknown model format {path.suffix!r}; use {list(readers)}")
    read = readers[path.suffix]
    return read_model(path, "compact model", lambda path: from_keras_arrays(read(path)))


def published_models(folder: str | Path, session: str) -> dict[int, Path]:
    """Return ``{neuron: path}`` of a session's published models in a release, neurons in order.

    Parameters
    ----------
    folder
        The release's folder (the one with ``data_compact_models``).
    session
        Session name, such as ``"190923"``.

    Raises
    ------
    InputError
        If there is no model of that session.
    """
    models = Path(folder) / "data_compact_models"
    found: dict[int, Path] = {}
    for path in sorted(models.glob("models_torch/compact_model_*.pt")):
        if (match := _NAME.match(path.name)) and match["session"] == session:
            found[int(match["neuron"])] = path
    if not found:
        known = sorted({m["session"] for p in models.rglob("*.pt") if (m := _NAME.match(p.name))})
        raise InputError(
            f"no published compact models of session {session!r} in {models}; it holds models of "
            f"{known or 'no session'}"
        )
    return dict(sorted(found.items()))


def from_keras_arrays(arrays: Sequence[np.ndarray]) -> CompactModel:
    """Build a compact model from its 36 arrays in Keras' order.

    Parameters
    ----------
    arrays
        Layer 0: kernel (5, 5, 3, n0), bias, gamma, beta, mean, variance; layers 1 to 4: depthwise
        (5, 5, n, 1), pointwise (1, 1, n, m), bias, gamma, beta, mean, variance; then the readout
        (height * width * n4, 1), rows first, and its bias (1,).

    Raises
    ------
    InputError
        If their number or a shape is not that of a compact model, or a number is not finite.
    """
    if len(arrays) != N_ARRAYS:
        raise InputError(f"expected {N_ARRAYS} arrays of a compact model, got {len(arrays)}")
    tensors = as_tensors(arrays)
    filters, state = layers_state(tensors[:N_LAYER_ARRAYS])
    weights, bias = tensors[N_LAYER_ARRAYS:]
    side = round((weights.numel() / filters[-1]) ** 0.5)
    if side < 1 or side * side * filters[-1] != weights.numel():
        raise InputError(
            f"readout of {weights.numel()} weights is not {filters[-1]} filters x side x side"
        )
    state["readout"] = weights.reshape(side, side, filters[-1]).permute(2, 0, 1)
    state["readout_bias"] = bias.reshape(())
    with torch.random.fork_rng(devices=[]):  # what it draws is replaced
        model = CompactModel(filters, (4 * side, 4 * side))
    return with_state(model, state)


def _read_pt(path: Path) -> list[np.ndarray]:
    try:
        state: Mapping[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own words advise to run what the file says
        raise InputError(
            "not a readable compact model: it holds pickled objects, which are not read since they "
            "may run code"
        ) from error
    if sum(t.numel() for t in state.values()) * 8 > MAX_FILE_BYTES:
        raise InputError("tensors are too large for a compact model")
    get = {name.removeprefix("layers."): t.double().numpy() for name, t in state.items()}

    def norm(layer: int) -> list[np.ndarray]:
        names = ("weight", "bias", "running_mean", "running_var")
        *rest, variance = (get[f"layer{layer}_bn.{name}"] for name in names)
        return [*rest, variance - PT_VARIANCE_OFFSET if layer else variance]

    arrays = [get["layer0_conv.weight"].transpose(2, 3, 1, 0), get["layer0_conv.bias"], *norm(0)]
    for layer in range(1, N_LAYERS):
        arrays += [
            get[f"layer{layer}_conv_depth.weight"].transpose(2, 3, 0, 1),
            get[f"layer{layer}_conv_point.weight"].transpose(2, 3, 1, 0),
            get[f"layer{layer}_conv_point.bias"],
            *norm(layer),
        ]
    return [*arrays, get["Beta.weight"].T, get["Beta.bias"]]


def _read_npy(path: Path) -> list[np.ndarray]:
    return read_object_array(path, N_ARRAYS)


def _read_h5(path: Path) -> list[np.ndarray]:
    with open_hdf5(path) as file:  # a link is not followed to learn what it names
        whole_model = isinstance(file.get("model_weights", getlink=True), h5py.HardLink)
        return read_datasets(file, _whole_model_names() if whole_model else _weights_names())


def _weights_names() -> list[str]:
    """Return where a Keras 3 weights file keeps the 36 arrays."""
    return [*layer_names(), "layers/dense/vars/0", "layers/dense/vars/1"]


def _whole_model_names() -> list[str]:
    """Return where an HDF5 file of a whole model keeps the 36 arrays."""
    norm = ("gamma", "beta", "moving_mean", "moving_variance")
    names: list[str] = []
    for i in range(N_LAYERS):
        conv = f"model_weights/layer{i}_conv/layer{i}_conv_1"
        kernels = ["kernel"] if i == 0 else ["depthwise_kernel", "pointwise_kernel"]
        names += [f"{conv}/{part}:0" for part in (*kernels, "bias")]
        names += [f"model_weights/layer{i}_bn/layer{i}_bn_1/{part}:0" for part in norm]
    return [*names, *(f"model_weights/Beta/Beta_1/{part}:0" for part in ("kernel", "bias"))]


def _read_keras(path: Path) -> list[np.ndarray]:
    with open_hdf5(read_member(path, "model.weights.h5")) as file:
        return read_datasets(file, _weights_names())
