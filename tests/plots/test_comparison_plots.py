import dataclasses

import numpy as np
import pytest

from pocketcortex import plots
from pocketcortex.core import InputError


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def comparison(rng, n=30, **more):
    layers = [f"layer {k}" for k in range(1, 5)]
    values = [rng.uniform(0.2 * k, 0.2 * k + 0.2, n) for k in range(4)]
    return plots.LayerComparison("kernel similarity", layers, values, **more)


def texts(ax):
    return [text.get_text() for text in ax.texts]


class TestByLayer:
    def test_points_means_and_intervals(self, rng):
        interval = np.array([[0.05, 0.15]] * 4)
        given = comparison(rng, interval=interval)
        ax = plots.plot_by_layer(given)
        for points, values in zip(ax.collections, given.values, strict=True):
            np.testing.assert_array_equal(np.sort(points.get_offsets()[:, 1]), np.sort(values))
        means = [line.get_ydata()[0] for line in ax.lines[::2]]
        np.testing.assert_allclose(means, [values.mean() for values in given.values])
        assert ax.lines[1].get_ydata().tolist() == [0.05, 0.15]
        assert ax.get_ylabel() == "kernel similarity"

    def test_many_values_are_a_density(self, rng):
        ax = plots.plot_by_layer(comparison(rng, n=500))
        assert len(ax.collections) == 4
        assert all(len(body.get_paths()[0].vertices) > 50 for body in ax.collections)

    def test_many_equal_values_can_be_drawn(self, rng):
        given = comparison(rng, n=500)
        plots.plot_by_layer(dataclasses.replace(given, values=[np.ones(500)] * 4))

    def test_reference_band_of_each_layer(self, rng):
        reference = np.array([[0.0, 0.1], [0.1, 0.2], [0.2, 0.3], [0.3, 1.4]])
        ax = plots.plot_by_layer(comparison(rng, reference=reference, reference_name="N(0, 1)"))
        bands = [(p.get_y(), p.get_y() + p.get_height()) for p in ax.patches]
        np.testing.assert_allclose(bands, reference)
        assert ax.get_title("left") == "grey: N(0, 1)"
        assert ax.get_ylim()[1] > 1.4

    def test_brackets_join_the_groups_above_all_values(self, rng):
        tests = [([0, 1], [2, 3], 0.0004), ([0], [3], 0.21)]
        given = comparison(rng, tests=tests)
        ax = plots.plot_by_layer(given)
        assert texts(ax) == ["p < 0.001", "p = 0.21"]
        joins = [line for line in ax.lines if len(line.get_xdata()) == 4]
        assert [line.get_xdata()[[0, -1]].tolist() for line in joins] == [[0.5, 2.5], [0, 3]]
        heights = [line.get_ydata().max() for line in joins]
        assert max(map(np.max, given.values)) < heights[0] < heights[1] < ax.get_ylim()[1]

    def test_refuses_what_does_not_fit(self, rng):
        with pytest.raises(InputError, match="each of 4 layers"):
            dataclasses.replace(comparison(rng), values=[np.ones(2)] * 3)
        with pytest.raises(InputError, match="NaN"):
            dataclasses.replace(comparison(rng), values=[np.full(2, np.nan)] * 4)
        with pytest.raises(InputError, match=r"layers 0 to 3, got \[0\] and \[4\]"):
            comparison(rng, tests=[([0], [4], 0.5)])


class TestFigure:
    def test_panels_side_by_side(self, rng):
        filters = np.array([[48, 48, 60, 3, 3, 3], [46, 46, 12, 3, 9, 3]])
        figure = plots.figure_comparison(filters, [comparison(rng), comparison(rng)], title="a")
        first, second, _ = figure.axes
        assert first.get_ylabel().startswith("filters per model")
        assert second.get_ylabel() == "kernel similarity"
        one = plots.render_figure(figure).png
        again = plots.figure_comparison(filters, [comparison(np.random.default_rng(0))])
        assert one != plots.render_figure(again).png

    def test_same_numbers_same_bytes(self):
        one, two = (
            plots.render_figure(plots.plot_by_layer(comparison(np.random.default_rng(1), 300))).png
            for _ in range(2)
        )
        assert one == two

    def test_refuses_no_measure_and_too_many(self, rng):
        filters = np.ones((1, 6), dtype=int)
        with pytest.raises(InputError, match="got 0"):
            plots.figure_comparison(filters, [])
        with pytest.raises(InputError, match="got 4"):
            plots.figure_comparison(filters, [comparison(rng)] * 4)
