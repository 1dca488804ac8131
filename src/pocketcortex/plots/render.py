"""From a figure to the bytes of a file or of a page."""

import base64
import io
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pocketcortex.plots.style import DPI

_SCREEN_DPI = 96


@dataclass(frozen=True)
class RenderedFigure:
    """A figure as bytes.

    Attributes
    ----------
    png
        Bitmap with two pixels for each pixel of an ordinary screen.
    data_uri
        What an ``<img>`` takes as its source, with nothing outside it: a drawing (SVG) or the
        bitmap, whichever is smaller; always the bitmap where the figure shows images.
    width, height
        Size on the page, in CSS pixels.
    svg
        The figure as a drawing, for print; None where it shows images, whose pixels are the
        bitmap's.
    """

    png: bytes
    data_uri: str
    width: int
    height: int
    svg: bytes | None = None


def render_figure(drawn: Figure | Axes) -> RenderedFigure:
    """Render a figure, or the figure that holds some axes, without time stamps.

    The same numbers give the same bytes with one version of matplotlib.

    Parameters
    ----------
    drawn
        What a `figure_*` or `plot_*` function returned.
    """
    figure = drawn if isinstance(drawn, Figure) else drawn.get_figure(root=True)
    if figure is None:
        raise ValueError("these axes belong to no figure any more")
    width, height = (round(inches * _SCREEN_DPI) for inches in figure.get_size_inches())
    png = _saved(figure, "png")
    svg = None if any(axes.images for axes in figure.axes) else _saved(figure, "svg")
    kind, content = "image/png", png
    if svg is not None and len(svg) < len(png):
        kind, content = "image/svg+xml", svg
    uri = f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
    return RenderedFigure(png=png, data_uri=uri, width=width, height=height, svg=svg)


def _saved(figure: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    unstamped: dict[str, str | None] = {"Software": None}
    if kind == "svg":
        unstamped = {"Date": None, "Creator": None}
    with mpl.rc_context({"svg.hashsalt": "pocketcortex"}):
        figure.savefig(buffer, format=kind, dpi=DPI, facecolor="white", metadata=unstamped)
    return buffer.getvalue()
