"""Learning curves: what is drawn where, and what is refused."""

from typing import Any

import numpy as np
import pytest
from matplotlib.collections import PolyCollection

from pocketcortex.core import InputError
from pocketcortex.plots import plot_learning_curves, render_figure

SHOWN = np.array([60, 160, 260])


def curve(*values: float, half: float = 0.02) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    value = np.array(values)
    return value, value - half, value + half


CURVES = {
    "random": curve(0.2, 0.25, 0.28), "loop": curve(0.2, 0.3, 0.35),
    "diverse": curve(0.2, 0.3, 0.349), "gaudy": curve(0.2, 0.21, 0.22),
}  # fmt: skip


def test_every_curve_has_its_line_band_and_name() -> None:
    ax = plot_learning_curves(SHOWN, CURVES, metric="r²")
    lines = ax.get_lines()
    assert len(lines) == 4
    for line, (value, _, _) in zip(lines, CURVES.values(), strict=True):
        np.testing.assert_array_equal(line.get_xydata(), np.stack([SHOWN, value], axis=1))
    bands = [c for c in ax.collections if isinstance(c, PolyCollection)]
    for band, (_, low, high) in zip(bands, CURVES.values(), strict=True):
        drawn = band.get_paths()[0].vertices[:, 1]
        assert (drawn.min(), drawn.max()) == (low.min(), high.max())
    texts = [t.get_text() for t in ax.texts]
    assert {"random  0.280", "loop  0.350", "gaudy  0.220"} <= set(texts)
    assert "bands: 90% intervals" in texts
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("images shown", "r²")
    assert ax.get_xticks().tolist() == SHOWN.tolist()


def test_names_do_not_overlap_and_colours_differ() -> None:
    ax = plot_learning_curves(SHOWN, CURVES, metric="r²")
    named = [t for t in ax.texts if not t.get_text().startswith("bands")]
    heights = sorted(t.get_position()[1] for t in named)
    low, high = ax.get_ylim()
    assert np.diff(heights).min() >= 0.05 * (high - low)
    colours = [line.get_color() for line in ax.get_lines()]
    assert len(set(colours)) == 4
    assert len(render_figure(ax).png) > 1000


def test_missing_values_break_a_line_and_lose_the_name() -> None:
    ax = plot_learning_curves(
        SHOWN, {"random": curve(0.2, np.nan, np.nan), "loop": curve(0.2, 0.3, 0.4)}, metric="r²"
    )
    assert [t.get_text() for t in ax.texts if "random" in t.get_text()] == []


def test_one_session_is_enough() -> None:
    ax = plot_learning_curves(SHOWN[:1], {"random": curve(0.2)}, metric="r²")
    left, right = ax.get_xlim()
    assert left < 60 < right


@pytest.mark.parametrize("curves", [{}, {"random": curve(0.2, 0.3)}])
def test_curves_that_do_not_fit_are_refused(curves: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="each of 3 sessions"):
        plot_learning_curves(SHOWN, curves, metric="r²")
