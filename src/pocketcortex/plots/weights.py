"""All weights of one compact model on one sheet."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from pocketcortex.core import InputError
from pocketcortex.plots.style import DPI, INK, MUTED, SMALL_SIZE, TEXT_SIZE

_N_SEPARABLE = 4
_DIVERGING = "RdBu_r"  # red and blue stay apart for red-green colour-blind readers
_FRAME = "#BBBBBB"

# The sheet, in pixels of the bitmap.
_SHEET, _MARGIN, _LEFT = 1920, 24, 250
_KERNELS, _MATRIX_LEFT, _MATRIX, _MATRIX_HIGH = 960, 1290, 590, 260
_HEAD, _TITLE, _ROW_GAP = 150, 40, 44
_KERNEL_PIXEL, _KERNEL_PIXEL_FEW, _FEW, _TILE_GAP = 13, 20, 9, 12
_MAP_TILE, _MAP_TILE_MANY, _MANY_MAPS = 224, 112, 12


@dataclass(frozen=True, eq=False)
class CompactWeights:
    """The weights of one compact model, as plain arrays.

    A sign means excitation or inhibition of the next stage only if batch normalisation's scale is
    positive, as in all published models; where it is not, multiply a layer's outgoing kernels by
    its sign first.

    Attributes
    ----------
    name
        What to call the model, such as "190923, neuron 4".
    conv
        Layer 0's kernels over red, green and blue.
    depthwise, pointwise
        Layers 1 to 4: one kernel per input map, then how they are mixed (outputs by inputs).
    readout
        Spatial weights of every map of layer 4.
    r2
        Score to write in the heading; NaN if there is none.
    n_parameters
        Number of parameters to write in the heading; None to leave it out.

    Raises
    ------
    InputError
        If there are not four separable layers, one layer's shape does not fit the next one's, or
        a weight is not finite.
    """

    name: str
    conv: Float[np.ndarray, "_ 3 _ _"]
    depthwise: Sequence[Float[np.ndarray, "_ _ _"]]
    pointwise: Sequence[Float[np.ndarray, "_ _"]]
    readout: Float[np.ndarray, "_ _ _"]
    r2: float = math.nan
    n_parameters: int | None = None

    def __post_init__(self) -> None:
        if not len(self.depthwise) == len(self.pointwise) == _N_SEPARABLE:
            raise InputError(
                f"{self.name}: a compact model has {_N_SEPARABLE} separable layers, got "
                f"{len(self.depthwise)} depthwise and {len(self.pointwise)} pointwise"
            )
        maps = len(self.conv)
        for layer, (depthwise, pointwise) in enumerate(
            zip(self.depthwise, self.pointwise, strict=True), 1
        ):
            if len(depthwise) != maps or pointwise.shape[1] != maps:
                raise InputError(
                    f"{self.name}: layer {layer} has {maps} input maps, but depthwise kernels "
                    f"{depthwise.shape} and pointwise weights {pointwise.shape}"
                )
            maps = len(pointwise)
        if len(self.readout) != maps:
            raise InputError(
                f"{self.name}: the readout {self.readout.shape} must have one map for each of the "
                f"last layer's {maps} filters"
            )
        arrays = (self.conv, *self.depthwise, *self.pointwise, self.readout)
        if not all(array.size and np.isfinite(array).all() for array in arrays):
            raise InputError(f"{self.name}: weights are empty, NaN or infinite")

    @property
    def filters(self) -> tuple[int, ...]:
        """Filters per layer, first layer first."""
        return (len(self.conv), *(len(mixed) for mixed in self.pointwise))


@dataclass(frozen=True)
class _Box:
    """A place on the sheet in pixels from its top left."""

    left: int
    top: int
    width: int
    height: int


def figure_weights(weights: CompactWeights) -> Figure:
    """Return one sheet with every kernel, mixing matrix and readout of a compact model.

    Row by row: layer 0's kernels as coloured patches, each scaled by its own largest weight about
    mid grey; for layers 1 to 4 the depthwise kernels and the pointwise matrix; the readout as one
    map a filter. Red is positive (excitatory), blue negative (inhibitory); white is zero. Colours
    of one panel share limits symmetric about zero, written above it.

    Parameters
    ----------
    weights
        The model's weights.
    """
    sheet_width = _SHEET - _LEFT - _MARGIN
    grids = [_grid(len(weights.conv), sheet_width, _kernel_tile(weights.conv))]
    grids += [_grid(len(kernels), _KERNELS, _kernel_tile(kernels)) for kernels in weights.depthwise]
    grids.append(_grid(len(weights.readout), sheet_width, _map_tile(weights.readout)))
    matrices = [(0, 0), *(_matrix_size(mixing) for mixing in weights.pointwise), (0, 0)]
    heights = [max(grid.height, size[1], 80) for grid, size in zip(grids, matrices, strict=True)]
    tops = _HEAD + _TITLE + np.cumsum([0, *(h + _TITLE + _ROW_GAP for h in heights)])
    sheet = _Sheet(int(tops[-1]) - _TITLE)
    sheet.heading(weights)
    for row, (grid, top) in enumerate(zip(grids, tops[:-1].tolist(), strict=True)):
        if row == 0:
            sheet.label(top, "Layer 0", "convolution")
            sheet.title(_LEFT, top, f"{_described(weights.conv, 'kernel')} × RGB, each about grey")
            sheet.tiles(_colour_patches(weights.conv), grid, top)
        elif row <= _N_SEPARABLE:
            kernels, mixing = weights.depthwise[row - 1], weights.pointwise[row - 1]
            sheet.label(top, f"Layer {row}", "separable")
            text = f"depthwise: {_described(kernels, 'kernel')}, {_limit(kernels)}"
            sheet.title(_LEFT, top, text)
            sheet.tiles(_coloured(kernels), grid, top)
            outputs, inputs = (
                _counted(*it) for it in zip(mixing.shape, ("output", "input"), strict=True)
            )
            text = f"pointwise: {outputs} (rows) × {inputs}, {_limit(mixing)}"
            sheet.title(_MATRIX_LEFT, top, text)
            box = _Box(_MATRIX_LEFT, top, *matrices[row])
            sheet.image(_coloured(mixing), box)
            sheet.cell_lines(mixing.shape, box)
        else:
            sheet.label(top, "Readout", "spatial")
            text = f"{_described(weights.readout, 'map')}, {_limit(weights.readout)}"
            sheet.title(_LEFT, top, text)
            sheet.tiles(_coloured(weights.readout), grid, top)
    return sheet.figure


@dataclass(frozen=True)
class _Grid:
    """Where tiles go: so many columns of tiles of this width and height in pixels."""

    n: int
    columns: int
    tile: tuple[int, int]

    @property
    def height(self) -> int:
        rows = math.ceil(self.n / self.columns)
        return rows * self.tile[1] + (rows - 1) * _TILE_GAP

    def corner(self, k: int) -> tuple[int, int]:
        row, column = divmod(k, self.columns)
        return column * (self.tile[0] + _TILE_GAP), row * (self.tile[1] + _TILE_GAP)


class _Sheet:
    """A figure on which things are put at whole pixels from the top left."""

    def __init__(self, height: int) -> None:
        self.height = height
        self.figure = Figure(figsize=(_SHEET / DPI, height / DPI))
        self._axes = self.figure.add_axes((0, 0, 1, 1))
        self._axes.set(xlim=(0, _SHEET), ylim=(height, 0))
        self._axes.set_axis_off()

    def text(self, left: int, top: int, text: str, **style: object) -> None:
        self._axes.text(left, top, text, parse_math=False, **style)  # type: ignore[arg-type]

    def title(self, left: int, top: int, text: str) -> None:
        self.text(left, top - 10, text, fontsize=SMALL_SIZE, color=MUTED, va="bottom")

    def label(self, top: int, name: str, kind: str) -> None:
        self.text(_MARGIN, top, name, fontsize=TEXT_SIZE, color=INK, va="top", fontweight="bold")
        self.text(_MARGIN, top + 34, kind, fontsize=SMALL_SIZE, color=MUTED, va="top")

    def heading(self, weights: CompactWeights) -> None:
        self.text(
            _MARGIN, 58, weights.name, fontsize=TEXT_SIZE + 3, color=INK, fontweight="bold",
            va="baseline",
        )  # fmt: skip
        facts = [f"filters {', '.join(map(str, weights.filters))}"]
        if weights.n_parameters is not None:
            facts.append(f"{weights.n_parameters:,} parameters")
        facts.append("r² – (none given)" if math.isnan(weights.r2) else f"r² = {weights.r2:.2f}")
        self.text(
            _MARGIN, 98, "   ·   ".join(facts), fontsize=TEXT_SIZE, color=MUTED, va="baseline"
        )
        ramp = np.broadcast_to(np.linspace(-1, 1, 256), (1, 256))
        key = _Box(_MATRIX_LEFT + 170, 40, 250, 22)
        self.image(_coloured(ramp), key)
        style = {"fontsize": SMALL_SIZE, "color": INK, "va": "center"}
        self.text(key.left - 12, 51, "inhibitory −", ha="right", **style)
        self.text(key.left + key.width + 12, 51, "+ excitatory", ha="left", **style)
        self.text(
            key.left + key.width // 2, 84, "0", ha="center", fontsize=SMALL_SIZE, color=MUTED,
            va="center",
        )  # fmt: skip

    def image(self, colours: np.ndarray, box: _Box) -> None:
        """Show an image `(height, width, 3)`, every pixel a plain rectangle, in a thin frame."""
        ax = self.figure.add_axes(
            (
                box.left / _SHEET,
                1 - (box.top + box.height) / self.height,
                box.width / _SHEET,
                box.height / self.height,
            )
        )
        ax.imshow(colours, interpolation="nearest", aspect="auto")
        ax.set(xticks=[], yticks=[])
        for spine in ax.spines.values():
            spine.set(color=_FRAME, linewidth=0.5)

    def tiles(self, tiles: np.ndarray, grid: _Grid, top: int) -> None:
        """Show tiles `(n, height, width, 3)` as one image, with a thin frame around each."""
        width, height = grid.tile
        columns, rows = min(grid.n, grid.columns), math.ceil(grid.n / grid.columns)
        across = columns * (width + _TILE_GAP) - _TILE_GAP
        canvas = np.ones((rows * (height + _TILE_GAP) - _TILE_GAP, across, 3))
        frames = []
        for k, tile in enumerate(tiles):
            x, y = grid.corner(k)
            scaled = tile.repeat(height // tile.shape[0], 0).repeat(width // tile.shape[1], 1)
            canvas[y : y + height, x : x + width] = scaled
            left, right, up, down = _LEFT + x, _LEFT + x + width, top + y, top + y + height
            frames.append([(left, up), (right, up), (right, down), (left, down), (left, up)])
        ax = self.figure.add_axes(
            (
                _LEFT / _SHEET,
                1 - (top + canvas.shape[0]) / self.height,
                across / _SHEET,
                canvas.shape[0] / self.height,
            )
        )
        ax.imshow(canvas, interpolation="nearest", aspect="auto")
        ax.set_axis_off()
        self._axes.add_collection(LineCollection(frames, colors=_FRAME, linewidths=0.5))
        self._axes.set_zorder(1)
        self._axes.patch.set_visible(False)

    def cell_lines(self, shape: tuple[int, ...], box: _Box) -> None:
        """Draw hairlines between the cells of a matrix that has few enough."""
        n_rows, n_columns = shape
        if max(n_rows, n_columns) > 24:
            return
        right, bottom = box.left + box.width, box.top + box.height
        ys = np.linspace(box.top, bottom, n_rows + 1)[1:-1]
        xs = np.linspace(box.left, right, n_columns + 1)[1:-1]
        lines = [[(box.left, y), (right, y)] for y in ys]
        lines += [[(x, box.top), (x, bottom)] for x in xs]
        self._axes.add_collection(LineCollection(lines, colors="white", linewidths=0.6))


def _grid(n: int, width: int, tile: tuple[int, int]) -> _Grid:
    return _Grid(n, max(1, (width + _TILE_GAP) // (tile[0] + _TILE_GAP)), tile)


def _kernel_tile(kernels: np.ndarray) -> tuple[int, int]:
    pixel = _KERNEL_PIXEL if len(kernels) > _FEW else _KERNEL_PIXEL_FEW
    return pixel * kernels.shape[-1], pixel * kernels.shape[-2]


def _matrix_size(matrix: np.ndarray) -> tuple[int, int]:
    """Return width and height in whole pixels a cell: wide matrices get taller cells."""
    n_out, n_in = matrix.shape
    wide, high = min(34, _MATRIX // n_in), min(34, max(5, _MATRIX_HIGH // n_out))
    return max(wide, 1) * n_in, high * n_out


def _coloured(weights: np.ndarray) -> np.ndarray:
    """Return the diverging colours of weights, `(..., 3)`, with white at zero."""
    limit = float(np.abs(weights).max()) or 1.0
    return np.asarray(colormaps[_DIVERGING](Normalize(-limit, limit)(weights)))[..., :3]


def _colour_patches(kernels: np.ndarray) -> np.ndarray:
    """Return kernels `(n, 3, h, w)` as colours `(n, h, w, 3)`, each about mid grey."""
    limit = np.abs(kernels).max(axis=(1, 2, 3), keepdims=True)
    scaled = kernels / np.where(limit > 0, limit, 1.0)
    return np.asarray(0.5 + 0.5 * scaled, dtype=np.float64).transpose(0, 2, 3, 1)


def _map_tile(maps: np.ndarray) -> tuple[int, int]:
    """Return width and height of a readout map's tile, a whole number of pixels a weight."""
    side = _MAP_TILE if len(maps) <= _MANY_MAPS else _MAP_TILE_MANY
    scale = max(1, round(side / max(maps.shape[1:])))
    return scale * maps.shape[2], scale * maps.shape[1]


def _described(tiles: np.ndarray, noun: str) -> str:
    return f"{_counted(len(tiles), noun)} {tiles.shape[-2]} × {tiles.shape[-1]}"


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"


def _limit(weights: np.ndarray) -> str:
    return f"±{float(np.abs(weights).max()):#.2g}"
