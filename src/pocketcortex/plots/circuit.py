"""A diagram of a small circuit: kernels stage by stage, and the weights between them."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8
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
)
from pocketcortex.plots.style import INK, MUTED, SMALL_SIZE, TEXT_SIZE

_STAGES = ("layer 0", "layer 1", "layer 2", "layer 3", "layer 4", "readout")
_KINDS = ("convolution", "depthwise", "depthwise", "depthwise", "depthwise", "spatial")
_WIDTH, _MARGIN, _TOP = 1920, 24, 200  # all lengths in pixels of the bitmap
_PITCH = (_WIDTH - 2 * _MARGIN) / (len(_STAGES) + 2)
_MANY = 7  # nodes in a column: from here on tiles are smaller and labels one line
_TILE, _TILE_MANY, _LINE, _ROW_GAP = 100, 60, 24, 27
_LABEL_LINES, _LABEL_CHARACTERS, _PAGE_CHARACTERS = 3, 18, 145
_IMAGE = 150
_BORDER, _FINEST, _WIDEST = 2.8, 0.5, 5.0  # points


@dataclass(frozen=True, eq=False)
class CircuitNode:
    """One kernel of a circuit.

    Attributes
    ----------
    stage
        0 for layer 0's kernels, 1 to 4 for depthwise kernels, 5 for spatial readouts.
    channel
        Its number within the stage.
    kernel
        Weights: over red, green and blue in stage 0, one map in the others.
    effect
        What it does for the response, such as its change by ablation: above 0 is excitatory,
        below inhibitory, 0 neither.
    label
        What it detects, in a few words.
    """

    stage: int
    channel: int
    kernel: Float[np.ndarray, "..."]
    effect: float = 0.0
    label: str = ""


def figure_circuit(
    nodes: Sequence[CircuitNode],
    links: Int[np.ndarray, "n_links 3"],
    weights: Float[np.ndarray, " n_links"],
    *,
    image: UInt8[np.ndarray, "3 h w"] | None = None,
    max_links: int = 80,
    title: str = "",
    explanation: str = "",
    link_name: str = "pointwise weight",
    response_name: str = "response",
) -> Figure:
    """Return a diagram of kernels, stage by stage from the image to the response.

    Every kernel is a tile with its number and label, its border red where it is excitatory, blue
    where it is inhibitory. A line from one kernel to one of the next stage is as wide as its
    weight's size, and red or blue by its sign. Grey lines have no weight: from the image, and from
    a kernel of layer 0 to the depthwise kernel of layer 1 that alone sees its map. Lines from the
    readouts to the response follow their effect in sign and width. Columns order their kernels so
    that lines cross little.

    Parameters
    ----------
    nodes
        The kernels. Layer 0's are patches about grey, all others red and blue, each by its own
        largest weight.
    links
        Stage (1 to 4), channel there and channel in the next stage, of each weighted line.
    weights
        Of each line.
    image
        Shown at the left; RGB levels 0..255.
    max_links
        Of more lines, only so many are drawn, the largest, and the figure says so.
    title
        Heading.
    explanation
        Text below the diagram, wrapped to the page.
    link_name
        What the weights are.
    response_name
        What stands at the right.

    Raises
    ------
    InputError
        If there is no node, two are the same, a kernel's shape does not fit its stage, a line
        begins or ends at a node that is not there, or a weight or effect is not finite.
    """
    _check(nodes, links, weights)
    columns = _ordered(nodes, links, weights)
    most = max(len(column) for column in columns)
    tile, n_lines = (_TILE, _LABEL_LINES) if most < _MANY else (_TILE_MANY, 1)
    labels = {_key(node): _label(node, n_lines) for node in nodes}
    pitch = tile + _LINE * max(len(lines) for lines in labels.values()) + _ROW_GAP
    body = max(most * pitch, _IMAGE + 3 * _LINE)
    text = [
        line
        for paragraph in explanation.splitlines()
        for line in textwrap.wrap(paragraph, _PAGE_CHARACTERS) or [""]
    ]
    sheet = PixelSheet(_WIDTH, _TOP + body + _MARGIN + 30 * len(text))
    if title:
        sheet.text(_MARGIN, 54, title, size=TEXT_SIZE + 3, fontweight="bold")
    drawn = np.sort(np.argsort(-np.abs(weights), kind="stable")[:max_links])
    _legend(sheet, link_name, weights, len(drawn))
    middle = _TOP + body / 2 - (pitch - tile) / 2
    centres = {
        _key(node): (_across(node.stage), middle + pitch * (k - (len(column) - 1) / 2))
        for column in columns
        for k, node in enumerate(column)
    }
    _draw_links(sheet, links[drawn], weights[drawn], centres, tile)
    _draw_ends(sheet, nodes, centres, tile, middle, image, response_name)
    for node in nodes:
        _draw_node(sheet, node, centres[_key(node)], tile, labels[_key(node)])
    for stage, (name, kind) in enumerate(zip(_STAGES, _KINDS, strict=True)):
        colour = INK if columns[stage] else MUTED
        sheet.text(
            _across(stage), _TOP - 54, name, size=TEXT_SIZE, fontweight="bold", ha="center",
            color=colour,
        )  # fmt: skip
        sheet.text(_across(stage), _TOP - 26, kind, size=SMALL_SIZE, ha="center", color=MUTED)
    for k, line in enumerate(text):
        sheet.text(_MARGIN, _TOP + body + 30 * (k + 1) - 6, line, size=TEXT_SIZE - 0.5)
    return sheet.figure()


def _across(stage: int) -> float:
    """Return the middle of a stage's column; -1 is the image, 6 the response."""
    return _MARGIN + _PITCH * (stage + 1.5)


def _key(node: CircuitNode) -> tuple[int, int]:
    return node.stage, node.channel


def _label(node: CircuitNode, n_lines: int) -> list[str]:
    text = f"{node.channel}  {node.label}".strip()
    return textwrap.wrap(text, _LABEL_CHARACTERS, max_lines=n_lines, placeholder=" …")


def _ordered(
    nodes: Sequence[CircuitNode], links: np.ndarray, weights: np.ndarray
) -> list[list[CircuitNode]]:
    """Return the nodes of each stage from the top, each near the middle of those it leads to."""
    columns: list[list[CircuitNode]] = []
    heights: dict[tuple[int, int], float] = {}
    for stage in reversed(range(len(_STAGES))):
        column = sorted((n for n in nodes if n.stage == stage), key=lambda n: n.channel)
        pulls: dict[int, list[tuple[float, float]]] = {node.channel: [] for node in column}
        for (start, source, target), weight in zip(links.tolist(), weights, strict=True):
            if start == stage:
                pulls[source].append((heights[start + 1, target], abs(float(weight))))
        if stage == 0:
            for channel, pull in pulls.items():
                pull += [(heights[1, channel], 1.0)] if (1, channel) in heights else []
        wanted = {channel: _weighted_mean(pull) for channel, pull in pulls.items()}
        column.sort(key=lambda node: wanted[node.channel])
        for k, node in enumerate(column):
            heights[_key(node)] = k - (len(column) - 1) / 2
        columns.insert(0, column)
    return columns


def _weighted_mean(pulls: Sequence[tuple[float, float]]) -> float:
    total = sum(weight for _, weight in pulls)
    return sum(height * weight for height, weight in pulls) / total if total else 0.0


def _draw_links(
    sheet: PixelSheet,
    links: np.ndarray,
    weights: np.ndarray,
    centres: dict[tuple[int, int], tuple[float, float]],
    tile: int,
) -> None:
    """Draw lines between kernels, the strongest on top."""
    if not len(links):
        return
    limit = limit_of(weights)
    order = np.argsort(np.abs(weights), kind="stable")
    paths = []
    for stage, source, target in links[order].tolist():
        (x, y), (to_x, to_y) = centres[stage, source], centres[stage + 1, target]
        paths.append(_curve((x + tile / 2 + 5, y), (to_x - tile / 2 - 5, to_y)))
    colours = [_colour(float(weight)) for weight in weights[order]]
    widths = [_FINEST + (_WIDEST - _FINEST) * abs(float(w)) / limit for w in weights[order]]
    sheet.lines(paths, colours, widths, alpha=0.75)


def _draw_ends(
    sheet: PixelSheet,
    nodes: Sequence[CircuitNode],
    centres: dict[tuple[int, int], tuple[float, float]],
    tile: int,
    middle: float,
    image: np.ndarray | None,
    response_name: str,
) -> None:
    """Draw the image, what it feeds, the response, and what feeds it."""
    left, right = _across(-1), _across(len(_STAGES))
    if image is None:
        sheet.text(left, middle + 8, "image", size=TEXT_SIZE, fontweight="bold", ha="center")
        half = 45.0
    else:
        scale = max(1, round(_IMAGE / max(image.shape)))
        high, wide = scale * image.shape[1], scale * image.shape[2]
        sheet.paste(
            image.transpose(1, 2, 0), round(left - wide / 2), round(middle - high / 2), scale
        )
        sheet.text(
            left, middle + high / 2 + _LINE + 2, "image", size=TEXT_SIZE, fontweight="bold",
            ha="center",
        )  # fmt: skip
        half = wide / 2
    paths = []
    for channel in [node.channel for node in nodes if node.stage == 0]:
        x, y = centres[0, channel]
        paths.append(_curve((left + half + 5, middle), (x - tile / 2 - 5, y)))
        if (1, channel) in centres:
            to_x, to_y = centres[1, channel]
            paths.append(_curve((x + tile / 2 + 5, y), (to_x - tile / 2 - 5, to_y)))
    sheet.lines(paths, [FRAME] * len(paths), [1.0] * len(paths))
    lines = textwrap.wrap(response_name, _LABEL_CHARACTERS - 4) or [""]
    for k, line in enumerate(lines):
        y = middle + 8 + 28 * (k - (len(lines) - 1) / 2)
        sheet.text(right, y, line, size=TEXT_SIZE, fontweight="bold", ha="center")
    half = 9.0 * max(len(line) for line in lines) + 8
    last = [node for node in nodes if node.stage == len(_STAGES) - 1]
    limit = max((abs(node.effect) for node in last), default=0.0) or 1.0
    paths = []
    for node in last:
        x, y = centres[_key(node)]
        paths.append(_curve((x + tile / 2 + 5, y), (right - half, middle)))
    widths = [_FINEST + (_WIDEST - _FINEST) * abs(node.effect) / limit for node in last]
    sheet.lines(paths, [_colour(node.effect) for node in last], widths, alpha=0.75)


def _draw_node(
    sheet: PixelSheet,
    node: CircuitNode,
    centre: tuple[float, float],
    tile: int,
    label: Sequence[str],
) -> None:
    """Draw a kernel in its frame, and its number and label below."""
    if node.stage == 0:
        colours = colour_patch(node.kernel)
    else:
        colours = diverging(node.kernel, limit_of(node.kernel))
    scale = max(1, round(tile / max(colours.shape)))
    high, wide = scale * colours.shape[0], scale * colours.shape[1]
    x, y = centre
    sheet.paste(
        colours, round(x - wide / 2), round(y - high / 2), scale,
        frame=_colour(node.effect), frame_width=_BORDER,
    )  # fmt: skip
    for k, line in enumerate(label):
        down = y + max(high, tile) / 2 + 13 + _LINE * (k + 0.75)
        sheet.text(x, down, line, size=SMALL_SIZE - 0.5, ha="center", halo=True)


def _legend(sheet: PixelSheet, link_name: str, weights: np.ndarray, n_drawn: int) -> None:
    """Explain lines and borders, and say how many lines are drawn."""
    x, y = float(_MARGIN), 92.0
    for colour, said in ((POSITIVE, "excitatory (+)"), (NEGATIVE, "inhibitory (−)")):
        sheet.lines([[(x, y), (x + 40, y)]], [colour], [3.5])
        sheet.text(x + 48, y + 8, said, size=SMALL_SIZE)
        x += 230
    said = "borders: effect"
    if len(weights):
        limit = number_text(float(np.abs(weights).max()))
        said += f"   ·   lines: {link_name}, the widest ±{limit}"
    if n_drawn < len(weights):
        said += f"   ·   {n_drawn} largest of {len(weights)} drawn"
    sheet.text(x, y + 8, said, size=SMALL_SIZE, color=MUTED)


def _curve(start: tuple[float, float], end: tuple[float, float]) -> list[tuple[float, float]]:
    """Return points from start to end that leave and arrive level."""
    t = np.linspace(0, 1, 24)
    rise = t * t * (3 - 2 * t)
    return [
        (start[0] + (end[0] - start[0]) * float(a), start[1] + (end[1] - start[1]) * float(b))
        for a, b in zip(t, rise, strict=True)
    ]


def _colour(sign: float) -> str:
    return POSITIVE if sign > 0 else NEGATIVE if sign < 0 else FRAME


def _check(nodes: Sequence[CircuitNode], links: np.ndarray, weights: np.ndarray) -> None:
    """Refuse nodes that are none or twice the same, kernels and lines that do not fit."""
    places = {_key(node) for node in nodes}
    if not nodes or len(places) < len(nodes):
        raise InputError(
            f"a circuit needs nodes, each stage and channel once; got {len(nodes)} nodes at "
            f"{len(places)} places"
        )
    for node in nodes:
        name = f"stage {node.stage}, channel {node.channel}"
        expected = (3,) if node.stage == 0 else ()
        if not 0 <= node.stage < len(_STAGES):
            raise InputError(f"{name}: stages are 0 to {len(_STAGES) - 1}")
        if node.kernel.shape[:-2] != expected or not node.kernel.size:
            raise InputError(
                f"{name}: a kernel must be (3, height, width) in stage 0 and (height, width) in "
                f"the others, got {node.kernel.shape}"
            )
        if not np.isfinite(node.kernel).all() or not np.isfinite(node.effect):
            raise InputError(f"{name}: kernel or effect is NaN or infinite")
    if len(links) != len(weights) or not np.isfinite(weights).all():
        raise InputError(
            f"need a finite weight for each of {len(links)} lines, got {len(weights)} weights"
        )
    for stage, source, target in links.tolist():
        if stage < 1 or not {(stage, source), (stage + 1, target)} <= places:
            raise InputError(
                f"the line from stage {stage}, channel {source} to stage {stage + 1}, channel "
                f"{target} must join two nodes that are there, of stages 1 to 5"
            )
