"""Pictures and arrays as a page takes them: PNG, base64, bytes with a scale."""

import base64
import io
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image


def to_png(image: UInt8[np.ndarray, "3 h w"]) -> bytes:
    """Return an image as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(buffer, "PNG")
    return buffer.getvalue()


def data_url(png: bytes) -> str:
    """Return a PNG file as a URL that holds it."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def floats(values: np.ndarray) -> dict[str, Any]:
    """Return numbers as shape and base64 of little-endian float32, rows first."""
    whole = np.ascontiguousarray(values, dtype="<f4")
    return {"shape": list(whole.shape), "float32": base64.b64encode(whole.tobytes()).decode()}


def quantized(maps: Float[np.ndarray, "n h w"]) -> dict[str, Any]:
    """Return maps in 255 steps from minus to plus each map's own largest size.

    ``value = byte / 127 * limit``; enough to draw, not to compute with.
    """
    limits = np.abs(maps).max(axis=(1, 2))
    scaled = maps / np.maximum(limits, 1e-30)[:, None, None] * 127
    steps = np.ascontiguousarray(np.rint(scaled), dtype=np.int8)
    return {
        "shape": list(maps.shape), "limits": [float(x) for x in limits],
        "int8": base64.b64encode(steps.tobytes()).decode(),
    }  # fmt: skip
