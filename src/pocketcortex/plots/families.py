"""A population ranked by families of stimuli: which models prefer dots, edges, curves, ..."""

import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pocketcortex.core import InputError
from pocketcortex.plots.sheet import PixelSheet, number_text
from pocketcortex.plots.style import (
    FAINT,
    INK,
    MUTED,
    SMALL_SIZE,
    TEXT_SIZE,
    axes_or_new,
    label_axes,
)

_MARGIN, _GAP, _SIDE, _FOOT, _ROW_GAP = 24, 12, 112, 56, 18  # in pixels of the bitmap
_CHARACTER, _LEAST_LEFT, _HEAD = 13, 150, 70
_TITLE_CHARACTER, _NOTE_CHARACTER = 19, 13
_FEW_NAMES = 45  # more models than this are not named one by one


def figure_families(
    images: Mapping[str, UInt8[np.ndarray, "_ 3 h w"]],
    scores: Mapping[str, Float[np.ndarray, " _"]],
    names: Mapping[str, Sequence[str]],
    *,
    columns: int = 10,
    title: str = "",
    score_name: str = "score",
) -> Figure:
    """Return the best models of each family of stimuli, each as its preferred stimulus there.

    A row a family, in the mapping's order; below each image stand the model's name and its score.
    Pixels of an image are whole pixels of the figure.

    Parameters
    ----------
    images
        Family, such as "dot", to the preferred stimulus in it of each model, best model first; RGB
        levels 0..255, all of one size.
    scores
        Family to those models' scores.
    names
        Family to those models' names.
    columns
        Images side by side; a family with more goes on below.
    title
        Heading; empty leaves it out.
    score_name
        What the scores are, written below the heading.

    Raises
    ------
    InputError
        If there is no family, one has no image, images, scores and names differ in families or
        number, sizes differ, scores do not fall, or `columns` is below 1.

    References
    ----------
    Cowley et al., bioRxiv 2023.11.22.568315, Extended Data Fig. 6.
    """
    if not images or not images.keys() == scores.keys() == names.keys():
        raise InputError(
            f"need the same families, one or more, of images {list(images)}, scores "
            f"{list(scores)} and names {list(names)}"
        )
    if columns < 1:
        raise InputError(f"columns must be at least 1, got {columns}")
    for family, of_family in images.items():
        counts = len(of_family), len(scores[family]), len(names[family])
        if not counts[0] or len(set(counts)) > 1:
            raise InputError(
                f"family {family!r} needs a score and a name for each image and one image at "
                f"least, got {counts[0]} images, {counts[1]} scores, {counts[2]} names"
            )
        if not (np.diff(scores[family]) <= 0).all() or np.isnan(scores[family]).any():
            raise InputError(f"family {family!r}: scores must fall from the first model on")
    sizes = {one.shape[2:] for one in images.values()}
    if len(sizes) > 1:
        raise InputError(f"images must be of one size (height, width), got {sorted(sizes)}")
    (size,) = sizes
    scale = max(1, round(_SIDE / max(size)))
    high, wide = scale * size[0], scale * size[1]
    columns = min(columns, max(len(one) for one in images.values()))
    left = max(_LEAST_LEFT, 2 * _MARGIN + _CHARACTER * max(len(family) for family in images))
    pitch = high + _FOOT + _ROW_GAP
    n_lines = [math.ceil(len(one) / columns) for one in images.values()]
    head = _HEAD if title else _MARGIN + 14
    note = f"below: model, {score_name}"
    across = 2 * _MARGIN + max(
        left - _MARGIN + columns * (wide + _GAP) - _GAP,
        _TITLE_CHARACTER * len(title),
        _NOTE_CHARACTER * len(note),
    )
    sheet = PixelSheet(across, head + 20 + sum(n_lines) * pitch)
    if title:
        sheet.text(_MARGIN, 44, title, size=TEXT_SIZE + 2, fontweight="bold")
    sheet.text(_MARGIN, head + 2, note, size=SMALL_SIZE, color=MUTED)
    top = head + 20
    for (family, of_family), lines in zip(images.items(), n_lines, strict=True):
        sheet.text(_MARGIN, top + high / 2, family, size=TEXT_SIZE, fontweight="bold", va="center")
        for k, image in enumerate(of_family):
            line, column = divmod(k, columns)
            x, y = left + column * (wide + _GAP), top + line * pitch
            sheet.paste(image.transpose(1, 2, 0), x, y, scale)
            name = textwrap.shorten(names[family][k], max(4, wide // 11), placeholder="…")
            for row, (said, colour) in enumerate(
                ((name, INK), (number_text(float(scores[family][k]), digits=3), MUTED))
            ):
                sheet.text(
                    x + wide / 2, y + high + 22 + 24 * row, said, size=SMALL_SIZE - 0.5,
                    color=colour, ha="center",
                )  # fmt: skip
        top += lines * pitch
    return sheet.figure()


def plot_family_scores(
    scores: Float[np.ndarray, "n_models n_families"],
    families: Sequence[str],
    *,
    names: Sequence[str] | None = None,
    measure: str = "normalised response",
    ax: Axes | None = None,
) -> Axes:
    """Draw every model's response to each family as a map, models of one preference together.

    A column a model, a row a family. Models stand in the order of the family they prefer (their
    largest value), and within it by that value; above each group stands its number of models.

    Parameters
    ----------
    scores
        Such as each model's largest response to the family over its largest to any.
    families
        Their names.
    names
        Of the models, written below the columns if there are not more than 45; None leaves them
        out.
    measure
        What the scores are.
    ax
        Where to draw; by default the axes of a new figure.

    Raises
    ------
    InputError
        If there is no model, families, names and scores differ in number, or a score is not
        finite.
    """
    n, n_families = scores.shape
    if len(families) != n_families or not scores.size or (names is not None and len(names) != n):
        raise InputError(
            f"need a name for each family and model, got {len(families)} families and "
            f"{'no' if names is None else len(names)} names for scores {scores.shape}"
        )
    if not np.isfinite(scores).all():
        raise InputError("scores hold NaN or infinite values; leave those models out")
    ax = axes_or_new(ax, (10.0, 0.9 + 0.36 * n_families + 0.5 * (names is not None)))
    preferred = scores.argmax(axis=1)
    order = np.lexsort((-scores.max(axis=1), preferred))
    drawn = ax.imshow(scores[order].T, cmap="viridis", aspect="auto", interpolation="nearest")
    ends = np.cumsum(np.bincount(preferred, minlength=n_families))
    for start, end in zip(np.append(0, ends[:-1]), ends, strict=True):
        if start < end:
            ax.annotate(
                str(end - start), ((start + end - 1) / 2, -0.5), (0, 3), ha="center", va="bottom",
                textcoords="offset points", fontsize=SMALL_SIZE, color=INK,
            )  # fmt: skip
        if start and start < n:
            ax.axvline(start - 0.5, color="white", linewidth=1.6)
    ax.set_yticks(range(n_families), families)
    few = names is not None and n <= _FEW_NAMES
    labels = [names[k] for k in order] if names is not None and few else []
    ax.set_xticks(range(len(labels)), labels, rotation=90)
    for tick in (*ax.get_xticklabels(), *ax.get_yticklabels()):
        tick.set_parse_math(False)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    bar = ax.figure.colorbar(drawn, cax=ax.inset_axes((1.012, 0, 0.012, 1)))
    bar.ax.tick_params(labelsize=SMALL_SIZE, length=2, color=MUTED, labelcolor=INK)
    bar.outline.set(edgecolor=FAINT, linewidth=0.5)
    bar.set_label(measure, fontsize=SMALL_SIZE, color=INK, parse_math=False)
    label_axes(ax, f"{n} models, by preferred family (above: how many)", "")
    return ax
