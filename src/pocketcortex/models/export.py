"""Compact models for others to run: ONNX, torch.export, plain NumPy and the Hugging Face Hub."""

import copy
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn

from pocketcortex.core import InputError, explained_writes, sync, whole_file
from pocketcortex.models.compact import CompactModel, bias_of
from pocketcortex.models.hub import ModelCard, export_extra, hub_files

ExportFormat = Literal["onnx", "torch", "numpy", "hub"]

ONNX_OPSET = 18
"""Version of the ONNX operators that exported files use."""

_SUFFIX = {"onnx": ".onnx", "torch": ".pt2", "numpy": "", "hub": ""}


def export_model(
    model: CompactModel | Sequence[CompactModel],
    path: str | Path,
    format: ExportFormat,
    *,
    card: ModelCard | None = None,
) -> Path:
    """Write a model in a form that others run, and return where it is.

    All forms take raw images (levels 0..255) and subtract the mean colour themselves. Nothing is
    at `path` until it is wholly written.

    Parameters
    ----------
    model
        One neuron's model; for "onnx" and "torch" also several, which become one file.
    path
        File to write, or for "numpy" and "hub" folder; an older export there is replaced.
    format
        ``"onnx"`` (`.onnx`, opset 18) and ``"torch"`` (`.pt2`, read by `torch.export.load`): float
        images ``(n, 3, height, width)``, any n, to responses ``(n,)``, or ``(n, n_models)`` of
        several models; batch norm is folded into the convolutions. ``"numpy"``: ``weights.npz``,
        folded too, and ``numpy_forward.py``, which is all the code it takes. ``"hub"``:
        ``config.json`` and ``model.safetensors`` as `CompactModel.load` reads them, batch norm
        kept, and the model card ``README.md``.
    card
        For "hub": what the page should say.

    Raises
    ------
    InputError
        If the format is unknown, there is no model, several are to become one "numpy" or "hub"
        folder, "hub" comes without a card, a library of the extra ``pocketcortex[export]`` is not
        installed, or `path` holds anything but an older export.
    PocketcortexError
        If the disk is full, read-only or at fault; an older export stays as it was.
    """
    if format not in _SUFFIX:
        raise InputError(f"unknown export format {format!r}; use {list(get_args(ExportFormat))}")
    path = Path(path)
    if format == "onnx":
        return _write_file(path, _onnx(_runnable(model)))
    if format == "torch":
        return _write_file(path, _torch_export(_runnable(model)))
    if not isinstance(model, CompactModel):
        raise InputError(f"{format!r} takes one compact model; export several one by one")
    if format == "numpy":
        return write_folder(path, _numpy_files(model))
    if card is None:
        raise InputError(
            "'hub' needs a model card that names the licence of the weights: give "
            "ModelCard(license=...), on the command line --card FILE"
        )
    return write_folder(path, hub_files(model, path.name, card))


def export_name(name: str, format: ExportFormat) -> str:
    """Return the name of the file or folder that holds model `name` in a format."""
    return name + _SUFFIX[format]


def fold_batch_norm(model: CompactModel) -> nn.Module:
    """Return a copy for evaluation whose batch norms are inside its convolutions.

    ``norm(W x + b) = (s W) x + s (b - mean) + shift`` with ``s = scale / sqrt(variance + eps)``,
    computed in float64. Responses are the same up to rounding.

    Parameters
    ----------
    model
        The model, which stays as it is.
    """
    folded = copy.deepcopy(model).eval()
    layers = folded.layers
    with torch.no_grad():
        for conv, norm in zip([layers.conv, *layers.pointwise], layers.norms, strict=True):
            weight, shift, mean, variance = (
                norm.state_dict()[name].double()
                for name in ("weight", "bias", "running_mean", "running_var")
            )
            scale = weight / torch.sqrt(variance + norm.eps)
            bias = bias_of(conv)
            conv.weight.copy_(conv.weight.double() * scale[:, None, None, None])
            bias.copy_((bias.double() - mean) * scale + shift)
    identities = nn.ModuleList(nn.Identity() for _ in layers.norms)
    layers.norms = cast(Sequence[nn.BatchNorm2d], identities)
    return folded.requires_grad_(False)


def numpy_weights(model: CompactModel) -> dict[str, np.ndarray]:
    """Return the arrays that `numpy_forward.predict` takes, batch norm folded, float32."""
    state = {k: v.cpu().float() for k, v in fold_batch_norm(model).state_dict().items()}
    weights = {
        "image_mean": state["layers.image_mean"].flatten(),
        "conv": state["layers.conv.weight"],
        "bias0": state["layers.conv.bias"],
        "readout": state["readout"],
        "readout_bias": state["readout_bias"],
    }
    for k in range(1, len(model.filters)):
        weights[f"depthwise{k}"] = state[f"layers.depthwise.{k - 1}.weight"][:, 0]
        weights[f"pointwise{k}"] = state[f"layers.pointwise.{k - 1}.weight"][:, :, 0, 0]
        weights[f"bias{k}"] = state[f"layers.pointwise.{k - 1}.bias"]
    return {name: tensor.numpy() for name, tensor in weights.items()}


class _Population(nn.Module):
    """Several folded models, one after the other: each one's maps fit a CPU's cache."""

    def __init__(self, models: Sequence[CompactModel]) -> None:
        super().__init__()
        self.models = nn.ModuleList(fold_batch_norm(model) for model in models)

    def forward(self, images: Tensor) -> Tensor:
        """Return responses (n, n_models)."""
        return torch.stack([model(images) for model in self.models], dim=1)


def _runnable(model: CompactModel | Sequence[CompactModel]) -> tuple[nn.Module, Tensor]:
    """Return what is to be exported, on the CPU in float32, and an example of its input."""
    models = [model] if isinstance(model, CompactModel) else list(model)
    sizes = sorted({one.image_size for one in models})
    if len(sizes) != 1:
        raise InputError(f"models in one file must take images of one size; got {sizes or 'none'}")
    module = fold_batch_norm(models[0]) if isinstance(model, CompactModel) else _Population(models)
    return module.cpu().float(), torch.zeros(2, 3, *sizes[0])


def _onnx(runnable: tuple[nn.Module, Tensor]) -> bytes:
    module, example = runnable
    with export_extra():
        import onnx  # noqa: F401  torch needs both
        import onnxscript  # noqa: F401
    with quiet_torch():
        program = torch.onnx.export(
            module, (example,), dynamo=True, opset_version=ONNX_OPSET, verbose=False,
            input_names=["images"], output_names=["responses"], dynamic_shapes=({0: "n"},),
        )  # fmt: skip
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    return bytes(program.model_proto.SerializeToString())


def _torch_export(runnable: tuple[nn.Module, Tensor]) -> bytes:
    module, example = runnable
    buffer = io.BytesIO()
    batch = {0: torch.export.Dim("n", min=1)}
    with quiet_torch():
        program = torch.export.export(module, (example,), dynamic_shapes=(batch,))
        torch.export.save(program, buffer)
    return buffer.getvalue()


def _numpy_files(model: CompactModel) -> dict[str, bytes]:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **numpy_weights(model))
    code = files("pocketcortex.models").joinpath("numpy_forward.py").read_bytes()
    return {"weights.npz": buffer.getvalue(), "numpy_forward.py": code}


@contextmanager
def quiet_torch() -> Iterator[None]:
    """Keep torch's exporters from talking about their own insides: warnings and missing nms."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _write_file(path: Path, content: bytes) -> Path:
    """Write a file whole or not at all."""
    with explained_writes("the export", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            file.write(content)
    return path


def write_folder(path: Path, content: Mapping[str, bytes]) -> Path:
    """Write a folder whole or not at all; one that holds the same names is replaced."""
    if path.exists():
        strangers = sorted({p.name for p in path.iterdir()} - set(content)) if path.is_dir() else []
        if strangers or not path.is_dir():
            raise InputError(
                f"{path} holds {strangers or 'a file'}, which is no older export; choose another "
                "folder or empty it"
            )
    with explained_writes("the export", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as aside:
            new = Path(aside) / "new"
            new.mkdir()
            for name, data in content.items():
                (new / name).write_bytes(data)
                sync(new / name)
            if path.exists():
                os.replace(path, Path(aside) / "old")
            os.replace(new, path)
    return path
