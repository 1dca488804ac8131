"""Words for kernels drawn by formula."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pocketcortex.dissect import describe_colour_kernel, describe_kernel

_Y, _X = -np.mgrid[-2:3, -2:3].astype(float)[0], np.mgrid[-2:3, -2:3].astype(float)[1]
"""Up and right of the middle."""


def gauss(sd: float, x: float = 0, y: float = 0) -> np.ndarray:
    return np.exp(-((_X - x) ** 2 + (_Y - y) ** 2) / (2 * sd**2))


def gabor(direction_deg: float, phase_deg: float, period: float = 4.5) -> np.ndarray:
    """Return a Gabor function whose waves run in a direction; a phase of 90 is odd."""
    turn = np.deg2rad(direction_deg)
    along = _X * np.cos(turn) + _Y * np.sin(turn)
    wave = np.cos(2 * np.pi * along / period - np.deg2rad(phase_deg)) * gauss(1.5)
    return wave - wave.mean()


def angle_of(words: str, turn: int) -> float:
    angle = float(words.split()[-1].rstrip("°"))
    assert 0 <= angle < turn
    return angle


def test_gaussians_pool() -> None:
    assert describe_kernel(gauss(1.5)) == "pools (+)"
    assert describe_kernel(-0.01 * gauss(2)) == "pools (−)"


@pytest.mark.parametrize(
    ("x", "y", "arrow"),
    [(1.5, 0, "→"), (1, 1, "↗"), (0, 1.5, "↑"), (-1, 1, "↖"), (-1.5, 0, "←"), (-1, -1, "↙"),
     (0, -1.5, "↓"), (1, -1, "↘")],
)  # fmt: skip
def test_gaussians_beside_the_middle_shift(x: float, y: float, arrow: str) -> None:
    assert describe_kernel(gauss(1.5, x, y)) == f"pools {arrow} (+)"


@pytest.mark.parametrize("direction", np.arange(0, 360, 30))
def test_odd_gabors_are_edges(direction: float) -> None:
    words = describe_kernel(gabor(direction, 90))
    assert words.startswith("edge, + towards ")
    assert abs((angle_of(words, 360) - direction + 180) % 360 - 180) <= 8
    turned = describe_kernel(-gabor(direction, 90))
    assert abs(angle_of(turned, 360) - angle_of(words, 360)) == 180


@pytest.mark.parametrize("direction", np.arange(0, 180, 22.5))
@pytest.mark.parametrize("sign", [1, -1])
def test_even_gabors_are_bars(direction: float, sign: int) -> None:
    """A bar runs across the waves; a dark one is told as well."""
    words = describe_kernel(sign * gabor(direction, 0, 4))
    assert words.startswith("bar at ")
    assert abs((angle_of(words, 180) - direction) % 180 - 90) <= 8


def test_differences_of_gaussians_are_spots() -> None:
    spot = gauss(0.8) / gauss(0.8).sum() - gauss(3) / gauss(3).sum()
    assert describe_kernel(spot) == "spot (+ centre)"
    assert describe_kernel(-3 * spot) == "spot (− centre)"


def test_zeros_are_nothing_and_noise_is_mixed() -> None:
    assert describe_kernel(np.zeros((5, 5))) == "nothing"
    corners = np.zeros((5, 5))
    corners[0, 0] = corners[4, 4] = 1
    corners[0, 4] = corners[4, 0] = -1
    corners[1, 2], corners[3, 3] = 0.3, -0.4
    assert describe_kernel(corners) in ("mixed", "bar at 45°", "bar at 135°")
    noise = np.random.default_rng(0).normal(size=(200, 5, 5))
    words = [describe_kernel(one) for one in noise]
    assert words.count("mixed") > 40


@given(arrays(np.float64, (5, 5), elements=st.floats(-5, 5, width=32)), st.floats(0.01, 100))
def test_scale_changes_nothing(kernel: np.ndarray, factor: float) -> None:
    """A power of two changes no digit."""
    power = 2.0 ** np.round(np.log2(factor))
    assert describe_kernel(kernel) == describe_kernel(power * kernel) or np.abs(kernel).max() < 1e-9


def test_axes_of_colour() -> None:
    edge, spot = gabor(0, 90), gauss(0.8) - gauss(0.8).mean()
    for colour, name in (
        ([1, 1, 1], "luminance"), ([1, -1, 0], "red–green"), ([-1, -1, 2], "blue–yellow"),
    ):  # fmt: skip
        kernel = np.array(colour)[:, None, None] * edge
        assert describe_colour_kernel(kernel).startswith(f"{name} edge, + towards ")
    blended = np.array([1, 1, 1])[:, None, None] * edge * 0.2
    blended = blended + np.array([1, -1, 0])[:, None, None] * spot
    assert describe_colour_kernel(blended).startswith("red–green ")
    assert describe_colour_kernel(np.zeros((3, 5, 5))) == "luminance nothing"
    green = np.zeros((3, 5, 5))
    green[1] = gauss(1.5)
    assert describe_colour_kernel(green) == "red–green pools (−)"
