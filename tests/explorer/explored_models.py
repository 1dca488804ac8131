"""Small models to explore, and their names."""

import io
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pocketcortex.models import CompactModel

SIDE, N_MODELS = 40, 3
FILTERS = (4, 3, 3, 3, 2)
TOKEN = "a-secret-of-the-tests"  # noqa: S105
NAMES = [f"compact_model_s1_neuron{k}" for k in range(N_MODELS)]


def small_model(seed: int) -> CompactModel:
    """Return a model with random kernels that reads about one place."""
    rows, columns = np.mgrid[: SIDE // 4, : SIDE // 4]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CompactModel(FILTERS, (SIDE, SIDE))
        blob = np.exp(-((rows - 4 - seed % 2) ** 2 + (columns - 5) ** 2) / 4)
        with torch.no_grad():
            model.readout.copy_(torch.randn(FILTERS[-1], 1, 1) * torch.from_numpy(blob))
            for norm in model.layers.norms:
                norm.bias.uniform_(0.5, 1)
    return model.eval()


def published_state(model: CompactModel) -> dict[str, torch.Tensor]:
    """Name a model's tensors as the released state dicts do, 0.001 added to later variances."""
    own, state = model.state_dict(), {}
    for i in range(5):
        if i == 0:
            state["layer0_conv.weight"] = own["layers.conv.weight"]
            state["layer0_conv.bias"] = own["layers.conv.bias"]
        else:
            state[f"layer{i}_conv_depth.weight"] = own[f"layers.depthwise.{i - 1}.weight"]
            state[f"layer{i}_conv_point.weight"] = own[f"layers.pointwise.{i - 1}.weight"]
            state[f"layer{i}_conv_point.bias"] = own[f"layers.pointwise.{i - 1}.bias"]
        for name in ("weight", "bias", "running_mean", "running_var"):
            offset = 1e-3 if i and name == "running_var" else 0
            state[f"layer{i}_bn.{name}"] = own[f"layers.norms.{i}.{name}"] + offset
    state["Beta.weight"] = own["readout"].permute(1, 2, 0).reshape(1, -1)
    state["Beta.bias"] = own["readout_bias"].reshape(1)
    return {f"layers.{name}": tensor.contiguous() for name, tensor in state.items()}


def write_release(folder: Path, n_images: int = 24) -> None:
    """Write the models as a V4 release: session s1 with images, s2 with responses alone."""
    models = folder / "data_compact_models" / "models_torch"
    models.mkdir(parents=True)
    for k, name in enumerate((*NAMES, "compact_model_s2_neuron0")):
        torch.save(published_state(small_model(k)), models / f"{name}.pt")
    rng = np.random.default_rng(11)
    recorded = folder / "data_V4_responses"
    (recorded / "images").mkdir(parents=True)
    (recorded / "responses_repeat_averaged").mkdir()
    for session in ("s1", "s2"):
        path = recorded / "responses_repeat_averaged" / f"responses_{session}.npy"
        np.save(path, rng.normal(size=(N_MODELS, n_images)))
    with zipfile.ZipFile(recorded / "images" / "images_s1.zip", "w") as archive:
        for k in range(n_images):
            small = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
            image = Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            buffer = io.BytesIO()
            image.save(buffer, "JPEG")
            archive.writestr(f"image{k + 1:04d}.jpg", buffer.getvalue())
