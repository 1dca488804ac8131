"""A figure laid out in whole pixels of its bitmap, and the colours of weights and maps."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Num, UInt8
from matplotlib import colormaps
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from pocketcortex.plots.style import DPI, INK

DIVERGING = "RdBu_r"
"""Colours of what has a sign; red and blue stay apart for red-green colour-blind readers."""
SEQUENTIAL = "viridis"
"""Colours of what is never negative."""
POSITIVE, NEGATIVE = "#B2182B", "#2166AC"
"""Lines and frames of excitatory and of inhibitory parts: near that map's ends."""
FRAME = "#BBBBBB"


class PixelSheet:
    """One bitmap on which tiles are pasted, with text and lines over it.

    Positions are pixels from the top left; the sheet is taken as finished when `figure` is called.

    Parameters
    ----------
    width, height
        In pixels of the bitmap.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._pixels = np.full((height, width, 3), 255, dtype=np.uint8)
        self._figure = Figure(figsize=(width / DPI, height / DPI))
        self._axes = self._figure.add_axes((0, 0, 1, 1))
        self._axes.set_axis_off()
        self._frames: list[tuple[list[tuple[float, float]], str, float]] = []

    def paste(
        self,
        colours: UInt8[np.ndarray, "h w 3"],
        left: int,
        top: int,
        scale: int,
        *,
        frame: str = FRAME,
        frame_width: float = 0.5,
    ) -> None:
        """Put a picture on the sheet, `scale` pixels a cell each way, in a frame around it."""
        tile = colours.repeat(scale, axis=0).repeat(scale, axis=1)
        high, wide = tile.shape[:2]
        self._pixels[top : top + high, left : left + wide] = tile
        self.rectangle(left, top, wide, high, colour=frame, width=frame_width)

    def rectangle(
        self,
        left: float | int,
        top: float | int,
        wide: float | int,
        high: float | int,
        *,
        colour: str,
        width: float,
    ) -> None:
        """Draw the outline of a rectangle of pixels, wholly outside it; its width in points."""
        out = 0.5 + width * DPI / 72 / 2
        left, right, top, bottom = (
            left - out,
            left + wide - 1 + out,
            top - out,
            top + high - 1 + out,
        )
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        self._frames.append(([*corners, *corners[:2]], colour, width))  # its corner closed

    def lines(
        self,
        paths: Sequence[Sequence[tuple[float, float]]],
        colours: Sequence[str],
        widths: Sequence[float],
        *,
        alpha: float = 1.0,
    ) -> None:
        """Draw lines through points (x, y); widths in points."""
        drawn = LineCollection(
            [np.asarray(path, dtype=np.float64) for path in paths], colors=colours,
            linewidths=widths, alpha=alpha, capstyle="butt", joinstyle="miter", snap=False,
        )  # fmt: skip
        self._axes.add_collection(drawn)

    def text(
        self,
        x: float | int,
        y: float | int,
        text: str,
        *,
        size: float,
        halo: bool = False,
        **style: Any,
    ) -> None:
        """Write text at a place, by default to the right of it and with its baseline there.

        A halo keeps it legible on lines.
        """
        style = {"color": INK, "va": "baseline", "ha": "left"} | style
        if halo:
            style["path_effects"] = [withStroke(linewidth=2.5, foreground="white")]
        self._axes.text(x, y, text, fontsize=size, parse_math=False, **style)

    def figure(self) -> Figure:
        """Return the figure."""
        if self._frames:
            self.lines(*zip(*self._frames, strict=True))
        self._axes.imshow(self._pixels, interpolation="nearest", aspect="auto")
        self._axes.set(xlim=(-0.5, self.width - 0.5), ylim=(self.height - 0.5, -0.5))
        return self._figure


def diverging(
    values: Num[np.ndarray, "h w"], limit: float, middle: float = 0.0
) -> UInt8[np.ndarray, "h w 3"]:
    """Return the colours of values that have a sign: white at `middle`, `limit` to either side."""
    shares = 0.5 + 0.5 * (values - middle) / (limit or 1.0)
    return _levels(colormaps[DIVERGING](shares.clip(0, 1))[..., :3])


def sequential(values: Num[np.ndarray, "h w"], limit: float) -> UInt8[np.ndarray, "h w 3"]:
    """Return the colours of values from 0 to `limit`."""
    return _levels(colormaps[SEQUENTIAL]((values / (limit or 1.0)).clip(0, 1))[..., :3])


def colour_patch(kernel: Float[np.ndarray, "3 h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Return a kernel over red, green and blue as a patch about grey, by its largest weight."""
    limit = float(np.abs(kernel).max()) or 1.0
    return _levels((0.5 + 0.5 * kernel / limit).transpose(1, 2, 0))


def limit_of(*arrays: Num[np.ndarray, "..."]) -> float:
    """Return the largest absolute value of several arrays; 1 if all are zero."""
    return max(float(np.abs(array).max()) for array in arrays) or 1.0


def number_text(value: float, *, digits: int = 2, plus: bool = False) -> str:
    """Return a number in so many digits with a true minus, such as −0.36 or 1,240."""
    large = abs(value) >= 10**digits
    text = f"{abs(value):,.0f}" if large else f"{abs(value):#.{digits}g}".rstrip(".")
    if value == 0:
        return "0"
    return f"−{text}" if value < 0 else f"+{text}" if plus else text


def _levels(shares: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    levels: np.ndarray = (255 * np.asarray(shares, dtype=np.float64)).round().astype(np.uint8)
    return levels
