"""Read the published shared compact models (`.keras`), one network for 219 neurons each."""

import re
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from pocketcortex.core import InputError, parse_json
from pocketcortex.core.hdf5 import open_hdf5
from pocketcortex.models._release import (
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
from pocketcortex.models.compact import BATCH_NORM_EPS, KERNEL, STRIDES, readout_size
from pocketcortex.models.shared import SharedCompactModel

_NEURONS = {"190923": 33, "201025": 89, "210225": 55, "211022": 42}
_NAME = re.compile(r"shared_compact_model_(?P<n_filters>\d+)filters\.keras")
_READOUT_NAMES = [
    f"layers/{layer}/vars/{k}" for layer in ("conv2d_1", "depthwise_conv2d") for k in range(2)
]


def import_shared_model(path: str | Path) -> SharedCompactModel:
    """Return a published shared compact model, in float32, for evaluation.

    The file's readout adds a bias to every neuron's mixture of filters and another after its
    spatial map. A bias under a map is one number a neuron, so both become one:
    ``b_n = spatial bias_n + mixing bias_n * sum_ij S_nij``, summed in float64. The last layer's
    maps, to fit other readouts to, are ``model.layers(images)``: (n_stimuli, filters, height / 4,
    width / 4).

    The 219 outputs are the neurons of four sessions: see :func:`shared_outputs`. Those of the
    distilled models are z-scored like the compact models'. Those of the models fitted to
    recordings directly (``from_V4data_direct_fit``) lie about each neuron's mean spike count and
    vary 20 to 30 times less than the recorded counts; to judge by their scores, their readouts
    were fitted to the first half of a session's images. Median
    :func:`pocketcortex.metrics.pearson_r2` on the first and second half of 1,200 images: direct
    fit, 100 filters, 0.669 and 0.247 (190923), 0.577 and 0.357 (201025); second halves of
    ``from_ensemble_model``, 200 filters: 0.409 and 0.501.

    Parameters
    ----------
    path
        ``shared_compact_model_<n>filters.keras``.

    Raises
    ------
    InputError
        If the file is missing, truncated, too large, of another architecture (the release's
        variant without ReLU among them), or holds anything but plain arrays: no code from a file
        is ever run.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, released models; Methods, "Shared compact models".
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise InputError(f"{path.name}: unknown model format {path.suffix!r}; use '.keras'")
    return read_model(path, "shared compact model", _read)


def published_shared_models(folder: str | Path) -> dict[str, dict[int, Path]]:
    """Return ``{kind: {n_filters: path}}`` of a release's shared models, both in order.

    Parameters
    ----------
    folder
        The release's folder (the one with ``data_shared_compact_models``). A kind is a folder in
        there, such as ``"from_ensemble_model"``; `n_filters` is that of the first three layers.

    Raises
    ------
    InputError
        If there is no shared model.
    """
    models = Path(folder) / "data_shared_compact_models"
    found: dict[str, dict[int, Path]] = {}
    for path in models.glob("*/*.keras"):
        if match := _NAME.fullmatch(path.name):
            found.setdefault(path.parent.name, {})[int(match["n_filters"])] = path
    if not found:
        raise InputError(
            f"no published shared compact models in {models}; expected files such as "
            "from_ensemble_model/shared_compact_model_200filters.keras"
        )
    return {kind: dict(sorted(found[kind].items())) for kind in sorted(found)}


def shared_outputs(session: str) -> slice:
    """Return which outputs of a published shared model are a session's neurons, in their order.

    Parameters
    ----------
    session
        ``"190923"`` (33 neurons), ``"201025"`` (89), ``"210225"`` (55) or ``"211022"`` (42).

    Raises
    ------
    InputError
        If it is none of these.

    Examples
    --------
    >>> shared_outputs("201025")
    slice(33, 122, None)
    """
    if session not in _NEURONS:
        raise InputError(
            f"published shared models predict no neurons of session {session!r}, only of "
            f"{list(_NEURONS)}; fit a readout to their layers' maps for another session"
        )
    stops = dict(zip(_NEURONS, accumulate(_NEURONS.values()), strict=True))
    return slice(stops[session] - _NEURONS[session], stops[session])


def _read(path: Path) -> SharedCompactModel:
    image_size = _image_size(parse_json(read_member(path, "config.json").getvalue()))
    with open_hdf5(read_member(path, "model.weights.h5")) as file:
        tensors = as_tensors(read_datasets(file, [*layer_names(), *_READOUT_NAMES]))
    filters, state = layers_state(tensors[:N_LAYER_ARRAYS])
    mixing, mixing_bias, spatial, spatial_bias = tensors[N_LAYER_ARRAYS:]
    n_neurons = spatial_bias.numel()
    shapes = {
        "mixing": (mixing, (1, 1, filters[-1], n_neurons)),
        "mixing bias": (mixing_bias, (n_neurons,)),
        "spatial": (spatial, (*readout_size(image_size), n_neurons, 1)),
        "spatial bias": (spatial_bias, (n_neurons,)),
    }
    for name, (tensor, expected) in shapes.items():
        if tensor.shape != expected or n_neurons < 1:
            raise InputError(f"{name} has shape {tuple(tensor.shape)}, expected {expected}")
    state["mixing"] = mixing[0, 0].T
    state["spatial"] = spatial[..., 0].permute(2, 0, 1)
    under_map = mixing_bias.double() * spatial.double().sum(dim=(0, 1, 3))
    state["bias"] = (spatial_bias.double() + under_map).to(torch.float32)
    with torch.random.fork_rng(devices=[]):  # what it draws is replaced
        model = SharedCompactModel(filters, n_neurons, image_size)
    return with_state(model, state)


def _image_size(config: dict[str, Any]) -> tuple[int, int]:
    """Return the height and width of the images, or say where the network is another one.

    The weights alone do not tell strides, paddings, epsilons or whether there is a ReLU.
    """
    layers = config["config"]["layers"]
    expected = _architecture()
    kinds = [layer["class_name"] for layer in layers]
    if kinds != [kind for kind, _ in expected]:
        raise InputError(f"has layers {kinds}: not a shared compact model")
    for layer, (kind, settings) in zip(layers, expected, strict=True):
        for name, value in settings.items():
            if (got := layer["config"][name]) != value:
                raise InputError(
                    f"layer {layer['config']['name']!r} ({kind}) has {name} {got!r}, expected "
                    f"{value!r} in a shared compact model"
                )
    _, height, width, channels = layers[0]["config"]["batch_shape"]
    sides = (height, width)
    if channels != 3 or not all(isinstance(n, int) and 1 <= n <= 4096 for n in sides):
        raise InputError(f"takes images {(height, width, channels)}, expected (height, width, 3)")
    return height, width


def _architecture() -> Sequence[tuple[str, dict[str, Any]]]:
    """Return each layer's Keras class and the settings that the weights do not tell."""
    plain = {"activation": "linear", "use_bias": True, "dilation_rate": [1, 1]}
    five = plain | {"kernel_size": [KERNEL, KERNEL], "padding": "same"}
    layers: list[tuple[str, dict[str, Any]]] = [("InputLayer", {})]
    for i in range(N_LAYERS):
        kind = "Conv2D" if i == 0 else "SeparableConv2D"
        layers += [
            (kind, five | {"strides": [STRIDES[i], STRIDES[i]]}),
            ("BatchNormalization", {"epsilon": BATCH_NORM_EPS, "center": True, "scale": True}),
            ("Activation", {"activation": "relu"}),
        ]
    return [
        *layers,
        ("Conv2D", plain | {"kernel_size": [1, 1], "strides": [1, 1]}),
        ("DepthwiseConv2D", plain | {"padding": "valid", "strides": [1, 1]}),
        ("Flatten", {}),
    ]
