"""An image's way through a compact model, stage by stage, as maps around a point of interest."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure

from pocketcortex.core import InputError
from pocketcortex.plots.sheet import (
    FRAME,
    NEGATIVE,
    POSITIVE,
    PixelSheet,
    colour_patch,
    diverging,
    limit_of,
    number_text,
    sequential,
)
from pocketcortex.plots.style import INK, MUTED, SMALL_SIZE, TEXT_SIZE
from pocketcortex.plots.traced import (
    TracedConvolution,
    TracedLayer,
    TracedReadout,
    check_traced,
)

_MARGIN, _GAP, _BLOCK_GAP, _BETWEEN = 24, 10, 40, 70  # all lengths in pixels of the bitmap
_HEAD, _BLOCK_HEAD, _COLUMN_HEAD, _WEIGHT = 70, 44, 26, 28
_TILE, _CHARACTER, _LEAST_LEFT = 112, 12, 170
_LEAST_WIDTH = 1100
_SIGN_WIDTH = 2.2  # points, of the frame that tells a weight's sign


def figure_trace(
    images: UInt8[np.ndarray, "n_images 3 size size"],
    names: Sequence[str],
    first: TracedConvolution,
    layers: Sequence[TracedLayer],
    readout: TracedReadout,
    *,
    centre_px: tuple[float, float] | None = None,
    window_px: int | None = None,
    title: str = "",
    units: str = "a.u.",
) -> Figure:
    """Return what each stage of a model makes of one or more images, on one sheet.

    A block for each stage: its input maps, the kernels, the maps convolved with them and their
    weights for each output; at the right the outputs before and after rectification. The readout's
    block shows whole maps, how each is weighted, and the sum that is the response. Red is
    positive (excitatory), blue negative (inhibitory), each kind of map within its own limits,
    written beside it and the same for all channels and images. Layer 0's outputs after
    rectification are left out where layer 1's block begins with the same maps. With one output, a
    frame around a convolved map tells the sign of its weight.

    Parameters
    ----------
    images
        RGB levels 0..255, square.
    names
        What to call each image, such as "small dot".
    first
        Layer 0.
    layers
        The separable layers, layer 1 first.
    readout
        The spatial readout.
    centre_px
        x and y of the point of interest; by default the image's middle.
    window_px
        Side of the square around it that is shown of the maps, a multiple of the pixels that one
        position of the last layer stands for; by default the whole image.
    title
        Heading of the sheet.
    units
        Of the responses.

    Raises
    ------
    InputError
        If there is no image, or no channel in a stage, numbers of images, channels, kernels and
        maps differ, values are not finite, maps do not divide the image evenly, or the window does
        not fit.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Fig. 4f-g and Extended Data Fig. 5.
    """
    check_traced(images, names, first, layers, readout)
    size = images.shape[-1]
    coarsest = size // readout.maps.shape[-1]
    window = size if window_px is None else window_px
    if window % coarsest or not 0 < window <= size:
        raise InputError(
            f"window_px must be a multiple of {coarsest} (pixels to a position of the last layer) "
            f"up to {size}, got {window_px}"
        )
    middle = ((size - 1) / 2, (size - 1) / 2) if centre_px is None else centre_px
    left, top = (
        int(np.clip((at + 0.5 - window / 2) // coarsest * coarsest, 0, size - window))
        for at in middle
    )
    trace = _Trace(names, _Window(left, top, window, size), title)
    trace.show_images(images, readout, units)
    again = len(layers) > 0 and np.array_equal(first.channels, layers[0].inputs)
    trace.show_first(first, rectified=not again)
    for number, layer in enumerate(layers, 1):
        trace.show_layer(number, layer)
    trace.show_readout(readout, units)
    return trace.figure()


@dataclass(frozen=True)
class _Window:
    """The square of the image, in pixels, that is shown of every map."""

    left: int
    top: int
    side: int
    size: int

    def crop(self, maps: np.ndarray) -> np.ndarray:
        """Return that part of maps or images `(..., h, w)`."""
        pixels = self.size // maps.shape[-1]
        top, left, side = self.top // pixels, self.left // pixels, self.side // pixels
        return maps[..., top : top + side, left : left + side]


@dataclass(frozen=True)
class _Tile:
    """Something to put on the sheet once its size is known."""

    colours: np.ndarray
    left: int
    top: int
    scale: int
    frame: str = FRAME
    frame_width: float = 0.5


class _Trace:
    """Blocks of tiles one below the other, kept until the sheet's size is known."""

    def __init__(self, names: Sequence[str], window: _Window, title: str) -> None:
        self._names = names
        self._window = window
        self._tile = window.side * max(1, round(_TILE / window.side))
        longest = max(22, *(len(name) + 12 for name in names))
        self._left = max(_LEAST_LEFT, _MARGIN + _CHARACTER * longest)
        self._tiles: list[_Tile] = []
        self._texts: list[tuple[float, float, str, dict[str, object]]] = []
        self._boxes: list[tuple[float, float, float, float, str, float]] = []
        self._right, self._down = _LEAST_WIDTH, _MARGIN
        if title:
            self._text(_MARGIN, self._down + 30, title, size=TEXT_SIZE + 3, fontweight="bold")
            self._down += _HEAD
        self._key()

    def figure(self) -> Figure:
        sheet = PixelSheet(self._right + _MARGIN, self._down + _MARGIN - _BLOCK_GAP)
        for tile in self._tiles:
            sheet.paste(
                tile.colours, tile.left, tile.top, tile.scale, frame=tile.frame,
                frame_width=tile.frame_width,
            )  # fmt: skip
        for left, top, wide, high, colour, width in self._boxes:
            sheet.rectangle(left, top, wide, high, colour=colour, width=width)
        for x, y, text, style in self._texts:
            sheet.text(x, y, text, **style)  # type: ignore[arg-type]
        return sheet.figure()

    def show_images(self, images: np.ndarray, readout: TracedReadout, units: str) -> None:
        """Show whole images with the window's frame, and the window enlarged beside each."""
        window = self._window
        whole, part = max(1, 2 * _TILE // window.size), max(1, 2 * _TILE // window.side)
        part_only = window.side < window.size
        detail = "in the frame: what is shown below" if part_only else "shown whole below"
        top = self._head("Image", detail) + _COLUMN_HEAD
        left = self._left
        for name, image, response in zip(self._names, images, readout.responses, strict=True):
            said = f"{name}: {number_text(float(response), digits=3)} {units}"
            self._text(left, top - 9, said, size=SMALL_SIZE)
            self._put(image.transpose(1, 2, 0), left, top, whole)
            if part_only:
                self._boxes.append((
                    left + whole * window.left, top + whole * window.top, whole * window.side,
                    whole * window.side, POSITIVE, 1.0,
                ))  # fmt: skip
                beside = left + whole * window.size + _GAP
                self._put(window.crop(image).transpose(1, 2, 0), beside, top, part)
                left = beside + part * window.side
            else:
                left += whole * window.size
            left += _BETWEEN
        self._down = top + max(whole * window.size, part * window.side) + _BLOCK_GAP

    def show_first(self, first: TracedConvolution, *, rectified: bool) -> None:
        """Show layer 0: kernels, their sums, and, if asked, what rectification leaves of them."""
        top = self._head("Layer 0", _sizes(first.rectified)) + _COLUMN_HEAD
        self._numbers(first.channels, self._left, top)
        top = self._kernels([colour_patch(kernel) for kernel in first.kernels], top, "about grey")
        top = self._signed("sum", first.summed, self._left, top, label=True)
        if rectified:
            top = self._rectified("after ReLU", first.rectified, self._left, top, label=True)
        self._down = top - _GAP + _BLOCK_GAP

    def show_layer(self, number: int, layer: TracedLayer) -> None:
        """Show a separable layer: inputs, kernels and weights at the left, outputs right."""
        top = start = self._head(f"Layer {number}", _sizes(layer.rectified)) + _COLUMN_HEAD
        self._numbers(layer.inputs, self._left, top)
        top = self._rectified("input", layer.maps, self._left, top, label=True)
        limit = limit_of(layer.kernels)
        patches = [diverging(kernel, limit) for kernel in layer.kernels]
        top = middle = self._kernels(patches, top, _plus_minus(limit))
        signs = layer.weights[0] if len(layer.weights) == 1 else None
        top = self._signed("convolved", layer.filtered, self._left, top, label=True, signs=signs)
        low = self._weights(layer, top)
        right = self._left + len(layer.inputs) * (self._tile + _GAP) - _GAP + _BETWEEN
        self._numbers(layer.outputs, right, start, "output")
        told = self._signed("sum", layer.summed, right, start)
        self._text(right, told + 16, f"sum {_plus_minus(limit_of(layer.summed))}", **_NOTE)
        told = self._rectified("after ReLU", layer.rectified, right, middle)
        self._text(right, told + 16, f"after ReLU {_up_to(limit_of(layer.rectified))}", **_NOTE)
        self._down = max(low, told + 24) + _BLOCK_GAP

    def show_readout(self, readout: TracedReadout, units: str) -> None:
        """Show the readout: maps, weights and products, and their sum at the right."""
        n, size = len(readout.channels), readout.maps.shape[-1]
        scale = max(1, round(max(self._tile, _TILE) / size))
        pitch = scale * size + _GAP
        top = self._head("Readout", f"{size} × {size} maps, whole image") + _COLUMN_HEAD
        self._numbers(readout.channels, self._left, top, width=pitch - _GAP)
        largest, limit = limit_of(readout.maps), limit_of(readout.weights)
        products = readout.maps * readout.weights
        strongest = limit_of(products)
        for name, maps in zip(self._names, readout.maps, strict=True):
            self._label(top, "input", name, _up_to(largest))
            for k, one in enumerate(maps):
                self._put(sequential(one, largest), self._left + k * pitch, top, scale)
            top += pitch
        self._label(top, "weights", "", _plus_minus(limit))
        for k, one in enumerate(readout.weights):
            self._put(diverging(one, limit), self._left + k * pitch, top, scale)
        top += pitch
        most = limit_of(readout.total)
        right = self._left + n * pitch - _GAP + _BETWEEN
        self._numbers([], right, top, f"sum over all filters, {_plus_minus(most)}")
        for name, weighted, total, response in zip(
            self._names, products, readout.total, readout.responses, strict=True
        ):
            self._label(top, "input × weights", name, _plus_minus(strongest))
            for k, one in enumerate(weighted):
                left = self._left + k * pitch
                self._put(diverging(one, strongest), left, top, scale)
                said = number_text(float(one.sum()), plus=True)
                self._text(left + pitch / 2, top + pitch + 12, said, **(_NOTE | {"ha": "center"}))
            self._put(diverging(total, most), right, top, scale)
            sums = (
                f"sum {number_text(float(total.sum()), digits=3, plus=True)}",
                f"bias {number_text(readout.bias, digits=3, plus=True)}",
                f"= {number_text(float(response), digits=3)} {units}",
            )
            for line, said in enumerate(sums):
                weight = {"color": INK, "fontweight": "bold"} if line == 2 else {}
                self._text(right + pitch + 4, top + 26 + 30 * line, said, **(_NOTE | weight))
            top += pitch + 24
        self._down = top + _BLOCK_GAP

    def _key(self) -> None:
        """Show the two scales of colours, and what their ends mean."""
        top, wide, left = self._down, 180, self._left
        ramp = np.broadcast_to(np.linspace(-1, 1, wide), (18, wide))
        said = ("− inhibitory", "excitatory +", "0", "largest, after ReLU")
        for colours, low, high in (
            (diverging(ramp, 1.0), *said[:2]), (sequential((ramp + 1) / 2, 1.0), *said[2:]),
        ):  # fmt: skip
            left += _CHARACTER * len(low)
            self._text(left - 8, top + 16, low, **(_NOTE | {"ha": "right"}))
            self._put(colours, left, top, 1)
            left += wide
            self._text(left + 8, top + 16, high, **_NOTE)
            left += _CHARACTER * len(high) + _BETWEEN
        self._down += 18 + _BLOCK_GAP

    def _weights(self, layer: TracedLayer, top: int) -> int:
        limit = limit_of(layer.weights)
        for output, row in zip(layer.outputs, layer.weights, strict=True):
            self._text(self._left - 14, top + 19, f"weight → {output}", **(_NOTE | {"ha": "right"}))
            for k, weight in enumerate(row):
                left = self._left + k * (self._tile + _GAP)
                colour = diverging(np.full((_WEIGHT - 4, self._tile), weight), limit)
                self._put(colour, left, top, 1)
                shade = "white" if abs(weight) > 0.6 * limit else INK
                said = number_text(float(weight), plus=True)
                place = {"ha": "center", "color": shade}
                self._text(left + self._tile / 2, top + 19, said, **(_NOTE | place))
            top += _WEIGHT
        return top

    def _kernels(self, patches: Sequence[np.ndarray], top: int, limits: str) -> int:
        side = len(patches[0])
        scale = max(1, round(0.6 * self._tile / side))
        self._label(top, "kernel", "", limits)
        for k, patch in enumerate(patches):
            left = self._left + k * (self._tile + _GAP) + (self._tile - scale * side) // 2
            self._put(patch, left, top, scale)
        return top + scale * side + _GAP

    def _signed(
        self,
        kind: str,
        maps: np.ndarray,
        left: int,
        top: int,
        *,
        label: bool = False,
        signs: np.ndarray | None = None,
    ) -> int:
        limit = limit_of(maps)
        for name, row in zip(self._names, self._window.crop(maps), strict=True):
            if label:
                self._label(top, kind, name, _plus_minus(limit))
            for k, one in enumerate(row):
                sign = 0.0 if signs is None else float(signs[k])
                colour = POSITIVE if sign > 0 else NEGATIVE if sign < 0 else FRAME
                self._put(
                    diverging(one, limit), left + k * (self._tile + _GAP), top,
                    self._tile // one.shape[0], colour, _SIGN_WIDTH if sign else 0.5,
                )  # fmt: skip
            top += self._tile + _GAP
        return top

    def _rectified(
        self, kind: str, maps: np.ndarray, left: int, top: int, *, label: bool = False
    ) -> int:
        limit = limit_of(maps)
        for name, row in zip(self._names, self._window.crop(maps), strict=True):
            if label:
                self._label(top, kind, name, _up_to(limit))
            for k, one in enumerate(row):
                place = left + k * (self._tile + _GAP)
                self._put(sequential(one, limit), place, top, self._tile // one.shape[0])
            top += self._tile + _GAP
        return top

    def _head(self, name: str, detail: str) -> int:
        self._text(_MARGIN, self._down + 22, name, size=TEXT_SIZE + 1, fontweight="bold")
        self._text(self._left, self._down + 22, detail, **_NOTE)
        return self._down + _BLOCK_HEAD

    def _numbers(
        self,
        channels: Sequence[int] | np.ndarray,
        left: int,
        top: int,
        head: str = "",
        width: int | None = None,
    ) -> None:
        """Write the channels' numbers above their columns."""
        width = self._tile if width is None else width
        if head and not len(channels):
            self._text(left, top - 8, head, **_NOTE)
        for k, channel in enumerate(channels):
            said = f"{head} {channel}".strip() if k == 0 else str(channel)
            middle = left + k * (width + _GAP) + width / 2
            self._text(middle, top - 8, said, size=SMALL_SIZE, ha="center")

    def _label(self, top: int, kind: str, name: str, limits: str) -> None:
        self._text(_MARGIN, top + 22, kind, size=SMALL_SIZE + 0.5)
        detail = f"{name}, {limits}" if name and len(self._names) > 1 else limits
        self._text(_MARGIN, top + 48, detail, **_NOTE)

    def _put(
        self,
        colours: np.ndarray,
        left: int,
        top: int,
        scale: int,
        frame: str = FRAME,
        frame_width: float = 0.5,
    ) -> None:
        self._tiles.append(_Tile(colours, left, top, scale, frame, frame_width))
        self._right = max(self._right, left + scale * colours.shape[1])

    def _text(self, x: float | int, y: float | int, text: str, **style: object) -> None:
        self._texts.append((x, y, text, style))
        shift = {"center": 0.5, "right": 0.0}.get(str(style.get("ha")), 1.0)
        self._right = max(self._right, round(x + shift * _CHARACTER * len(text)))


_NOTE: dict[str, object] = {"size": SMALL_SIZE, "color": MUTED}


def _plus_minus(limit: float) -> str:
    return f"±{number_text(limit)}"


def _up_to(limit: float) -> str:
    return f"0 to {number_text(limit)}"


def _sizes(maps: np.ndarray) -> str:
    return f"{maps.shape[-2]} × {maps.shape[-1]} maps"
