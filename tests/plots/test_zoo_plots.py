"""Figures of a ranked zoo show the numbers they are given."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.text import Text
from matplotlib.transforms import Bbox

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


def crowd(kinds: list[str] | None = None) -> plots.PropertyScatter:
    """Scores of networks that stand close together, the cluster of a real zoo, and its twins."""
    x = np.array([1.24e6, 2.78e6, 8.54e6, 2.21e6, 0.96e6, 2.4e6, 2.78e6, 2.78e6, 2.78e6])
    y = np.array([0.5056, 0.4981, 0.4957, 0.4817, 0.4604, 0.4990, 0.33, 0.329, 0.335])
    names = ["squeezenet1_1", "resnet18", "resnet50v2", "mobilenet_v2", "vgg11_bn", "compact"]
    own = ["trained"] * 5 + ["own"] + ["random"] * 3
    return plots.PropertyScatter(
        "parameters", "r", [*names, "", "", ""], x, y, own if kinds is None else kinds, "", True
    )


@pytest.mark.parametrize("whole", [True, False])
def test_names_of_a_crowd_are_apart(whole: bool) -> None:
    if whole:
        curves = plots.LayerCurves("v4", "r", {"a": (np.arange(2.0), np.arange(2.0))})
        figure = plots.figure_zoo(board(), curves, None, [crowd()] * 3)
        ax = figure.axes[2]
    else:
        ax = plots.plot_property_scatter(crowd())
        figure = ax.get_figure()
    figure.set_dpi(192)  # of the bitmaps of reports, in which letters are a little wider
    figure.draw_without_rendering()
    boxes = {text.get_text(): Text.get_window_extent(text) for text in ax.texts}
    assert set(boxes) == set(crowd().models[:6])
    for first, second in combinations(boxes.values(), 2):
        assert Bbox.intersection(first, second) is None
    for box in boxes.values():
        inside = Bbox.intersection(box, ax.bbox)
        assert inside is not None
        assert inside.width == pytest.approx(box.width, rel=0.02)
        for point in ax.transData.transform(np.column_stack([crowd().x, crowd().y])):
            assert not box.contains(*point)
    colours = {line.get_color() for line in ax.lines}
    assert len(colours) == 3  # a colour a kind


def test_many_networks_have_no_names() -> None:
    many = np.linspace(1, 2, 40)
    scatter = plots.PropertyScatter("x", "r", ["n"] * 40, many, many, ["trained"] * 40)
    assert not plots.plot_property_scatter(scatter).texts


def test_a_scatter_of_unknown_kinds_is_refused() -> None:
    with pytest.raises(InputError, match="one name, property, score and kind"):
        crowd(["trained"] * 9 + ["random"])
    with pytest.raises(InputError, match="kinds"):
        crowd(["other"] * 9)


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
        ["trained", "random"], "ρ = 0.1", True,
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
