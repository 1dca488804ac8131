"""Words for kernels and filters: what a small matrix of weights responds to."""

import numpy as np
from jaxtyping import Float

_COLOURS = {
    "luminance": np.array([1.0, 1.0, 1.0]) / 3**0.5,
    "red–green": np.array([1.0, -1.0, 0.0]) / 2**0.5,
    "blue–yellow": np.array([-1.0, -1.0, 2.0]) / 6**0.5,
}
_POOLS = 0.5  # share of energy in the mean above which a kernel pools
_ORIENTED = 0.5


def describe_kernel(kernel: Float[np.ndarray, "h w"]) -> str:
    """Return what a kernel does: pools, shifts, detects an edge or bar, a spot, or fine texture.

    - *pools*: half of its energy or more is in its mean;
    - *edge* or *bar* with the direction across it: its gradient energy has one axis; an edge is
      odd about the middle, a bar even;
    - *spot*: none of these, and centre and surround have opposite signs;
    - *mixed*: anything else.

    The sign says what excites: ``+`` bright (or strong) in the middle or on the side named.
    """
    values = np.asarray(kernel, dtype=np.float64)
    energy = float((values**2).sum())
    if not energy > 0:
        return "nothing"
    mean = values.mean()
    if mean**2 * values.size >= _POOLS * energy:
        rows, columns = np.indices(values.shape)
        weight = np.abs(values).sum()
        down = (np.abs(values) * rows).sum() / weight - (len(values) - 1) / 2
        right = (np.abs(values) * columns).sum() / weight - (values.shape[1] - 1) / 2
        word = "pools" if np.hypot(down, right) < 0.5 else f"pools {_compass(right, -down)}"
        return f"{word} ({'+' if mean > 0 else '−'})"
    flat = values - mean
    spectrum = np.abs(np.fft.fftshift(np.fft.fft2(flat, (32, 32)))) ** 2
    frequency = np.fft.fftshift(np.fft.fftfreq(32))
    across, along = np.meshgrid(frequency, -frequency)  # up is positive
    total = spectrum.sum()
    doubled = (spectrum * np.exp(2j * np.angle(across + 1j * along))).sum() / total
    odd = (((flat - flat[::-1, ::-1]) / 2) ** 2).sum() / (flat**2).sum()
    if abs(doubled) >= _ORIENTED:
        turn = np.rad2deg(np.angle(doubled) / 2)
        if odd < 0.5:
            return f"bar at {round(turn + 90) % 180}°"
        ways = np.indices(values.shape) - (np.array(values.shape)[:, None, None] - 1) / 2
        push = flat * (np.cos(np.deg2rad(turn)) * ways[1] - np.sin(np.deg2rad(turn)) * ways[0])
        return f"edge, + towards {round(turn + (0 if push.sum() > 0 else 180)) % 360}°"
    middle = values[tuple(slice(n // 2 - 1, n // 2 + 2) for n in values.shape)].mean()
    rim = (values.sum() - middle * 9) / max(values.size - 9, 1)
    if odd < 0.5 and middle * rim < 0:
        return f"spot ({'+' if middle > 0 else '−'} centre)"
    return "mixed"


def describe_colour_kernel(kernel: Float[np.ndarray, "3 h w"]) -> str:
    """Return what a kernel over red, green and blue does, and along which axis of colour.

    Axes are luminance, red–green and blue–yellow; the one with most of the kernel's energy counts,
    and the kernel along it is described as `describe_kernel` does.
    """
    along = {
        name: np.tensordot(axis, np.asarray(kernel, np.float64), 1)
        for name, axis in _COLOURS.items()
    }
    name = max(along, key=lambda one: float((along[one] ** 2).sum()))
    return f"{name} {describe_kernel(along[name])}"


def _compass(right: float, up: float) -> str:
    """Return a direction as an arrow."""
    arrows = "→↗↑↖←↙↓↘"
    return arrows[round(np.arctan2(up, right) / (np.pi / 4)) % 8]
