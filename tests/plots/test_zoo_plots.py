"""Figures of a ranked zoo show the numbers they are given."""

import numpy as np
import pytest

from pocketcortex import plots
from pocketcortex.core import InputError


def board(**more: object) -> plots.Leaderboard:
    given = {
        "area": "v4", "metric": "r", "models": ["a", "b$", "c"],
        "values": np.array([0.5, 0.3, np.nan]),
        "intervals": np.array([[0.4, 0.6], [0.2, 0.4], [np.nan, np.nan]]),
        "kinds": ["trained", "random", "own"], "ceiling": 0.8,
    }  # fmt: skip
    return plots.Leaderboard(**given | more)


def test_a_leaderboard_has_points_intervals_and_ceiling() -> None:
    ax = plots.plot_leaderboard(board())
    drawn = [(line.get_xdata(), line.get_ydata()) for line in ax.lines]
    np.testing.assert_array_equal(drawn[0][0], [0.4, 0.6])
    assert [float(np.ravel(x)[0]) for x, _ in (drawn[1], drawn[3])] == [0.5, 0.3]
    assert any(np.allclose(x, 0.8) for x, _ in drawn if len(np.ravel(x)) == 2)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a", "b$", "c"]
    assert "–" in [text.get_text() for text in ax.texts]
    with pytest.raises(InputError, match="one value, interval and kind"):
        board(kinds=["trained", "random", "other"])


def test_the_whole_figure_renders() -> None:
    depth = np.linspace(0, 1, 4)
    curves = plots.LayerCurves(
        "v4", "r", {"a": (depth, depth / 2)}, {"a": [(depth, depth / 3)] * 2}
    )
    pairs = plots.TrainedRandom(
        "v4", "r", ["a"], np.array([0.5]), np.array([[0.4, 0.6]]), [np.array([0.1, 0.3])], "note"
    )
    scatter = plots.PropertyScatter(
        "parameters", "r", ["a", "b"], np.array([1e6, 1e7]), np.array([0.5, 0.3]),
        np.array([True, False]), "ρ = 0.1", True,
    )  # fmt: skip
    ax = plots.plot_trained_random(pairs)
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [0.2, 0.5])  # the mean of seeds, trained
    ax = plots.plot_layer_curves(curves)
    np.testing.assert_allclose(ax.lines[2].get_ydata(), depth / 3)
    assert plots.plot_property_scatter(scatter).get_xscale() == "log"
    figure = plots.figure_zoo(board(), curves, pairs, [scatter] * 3)
    assert len(figure.axes) == 6
    assert len(plots.render_figure(figure).png) > 10_000
    assert len(plots.figure_zoo(board(), curves).axes) == 2
