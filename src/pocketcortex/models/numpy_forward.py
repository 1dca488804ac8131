"""A compact model of one neuron, whole, in plain NumPy: no other library is needed.

Run it as ``python numpy_forward.py weights.npz images.npy`` to print one response a line, or
import `predict`. Batch normalisation is already inside the kernels and biases of `weights.npz`:

image_mean (3,), conv (n0, 3, 5, 5), then for layers k = 1..4 depthwise{k} (n, 5, 5) and
pointwise{k} (m, n), for layers k = 0..4 bias{k} (n,), and readout (n4, rows, columns),
readout_bias ().
"""

import sys

import numpy as np

STRIDES = (1, 2, 2, 1, 1)


def predict(weights: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    """Return the responses (n,) to images (n, 3, height, width) of levels 0..255."""
    return np.array([respond(weights, image) for image in images], dtype=np.float32)


def respond(weights: dict[str, np.ndarray], image: np.ndarray) -> float:
    """Return the response to one image (3, height, width) of levels 0..255."""
    x = image - weights["image_mean"][:, None, None]
    # Layer 0 looks at all colours: every filter weighs the 3 x 5 x 5 numbers about each pixel.
    x = np.einsum("chwij,fcij->fhw", neighbourhoods(x, 1), weights["conv"], optimize=True)
    x = rectified(x, weights["bias0"])
    for k in range(1, len(STRIDES)):
        # Each filter looks at one channel, 5 x 5 numbers about each pixel; then channels are mixed.
        x = np.einsum("chwij,cij->chw", neighbourhoods(x, STRIDES[k]), weights[f"depthwise{k}"])
        x = np.einsum("chw,fc->fhw", x, weights[f"pointwise{k}"], optimize=True)
        x = rectified(x, weights[f"bias{k}"])
    return float(np.sum(x * weights["readout"]) + weights["readout_bias"])


def neighbourhoods(x: np.ndarray, stride: int) -> np.ndarray:
    """Return the 5 x 5 numbers about every `stride`-th pixel, 0 outside: (c, h, w, 5, 5)."""
    # An odd number of zeros puts one more behind the image: 1 and 2 at stride 2 and even size.
    zeros = [max((-(-size // stride) - 1) * stride + 5 - size, 0) for size in x.shape[1:]]
    padded = np.pad(x, [(0, 0), *((n // 2, n - n // 2) for n in zeros)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(1, 2))
    return windows[:, ::stride, ::stride]


def rectified(x: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Return maps (c, h, w) plus each channel's bias, negative values set to 0."""
    x = x + bias[:, None, None]
    return x * (x > 0)


if __name__ == "__main__":
    _, weights_path, images_path = sys.argv
    np.savetxt(sys.stdout, predict(dict(np.load(weights_path)), np.load(images_path)), fmt="%.9g")
