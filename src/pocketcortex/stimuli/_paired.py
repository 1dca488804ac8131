"""What the perturbations have in common: images checked, responses in tiles of bounded memory."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from pocketcortex.core import InputError
from pocketcortex.models import PairedStack

_PER_MODEL_CPU, _PER_MODEL = 8, 64
_AT_ONCE = 512


def tiles(n_models: int, n: int, device: str | torch.device) -> Iterator[slice]:
    """Yield the images of every model to work on at once: few enough for the memory.

    On a CPU few of one model, whose maps then fit in its cache; at most 512 of all together.
    """
    most = _PER_MODEL_CPU if torch.device(device).type == "cpu" else _PER_MODEL
    size = max(1, min(most, _AT_ONCE // n_models))
    for first in range(0, n, size):
        yield slice(first, min(first + size, n))


def check_images(images: np.ndarray, n_models: int) -> None:
    """Refuse images that are not one set for each model; the stack refuses wrong sizes itself."""
    if images.ndim != 5 or images.dtype != np.uint8 or 0 in images.shape:
        raise InputError(
            "images must be uint8 (n_models, n, 3, height, width), one set a model, none empty; "
            f"got {images.dtype} {images.shape}"
        )
    if len(images) != n_models:
        raise InputError(f"{n_models} models need as many sets of images, got {len(images)}")


def respond(
    paired: PairedStack,
    images: UInt8[np.ndarray, "n_models n 3 h w"],
    device: str | torch.device,
) -> Float32[np.ndarray, "n_models n"]:
    """Return every model's responses to its own images, tile by tile."""
    parts = [
        paired.responses(torch.from_numpy(images[:, tile]).to(device)).float().cpu().numpy()
        for tile in tiles(len(images), images.shape[1], device)
    ]
    return np.concatenate(parts, axis=1)
