import numpy as np
import pytest

from pocketcortex import plots
from pocketcortex.core import InputError

N = (8, 8, 6, 3, 4, 3)
X = np.array([0.0, 2, 4, 8, 16])


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def effects(rng):
    return [rng.uniform(-0.2, 0.9, n) for n in N]


def texts(ax):
    return [text.get_text() for text in ax.texts]


def ablation(rng, n_curves=3, **more):
    curves = {f"filter {k}": rng.normal(size=5) for k in range(n_curves)}
    return plots.figure_ablation(
        effects(rng), X, rng.normal(size=5), curves, {"layer 1": np.zeros(5)}, **more
    )


def cumulative(rng, **more):
    n_left = np.array(
        [[8, 8, 6, 3, 4, 3], [5, 5, 6, 3, 4, 3], [2, 2, 2, 2, 2, 3], [1, 0, 0, 0, 0, 0]]
    )
    responses = rng.normal(size=(4, 5))
    responses[3] = 1.0
    given = {"x": X, "responses": responses, "n_left": n_left}
    given |= {"kept": np.array([1, 0.99, 0.6, np.nan])}
    return plots.figure_cumulative_ablation(**(given | more))


class TestEffects:
    def test_every_filter_is_a_point_and_the_largest_are_named(self, rng):
        given = effects(rng)
        given[2][4], given[0][7] = 0.97, -0.95
        ax = plots.plot_ablation(given, measure="index", n_labelled=2)
        drawn = [np.sort(points.get_offsets()[:, 1]) for points in ax.collections]
        for points, stage in zip(drawn, given, strict=True):
            np.testing.assert_array_equal(points, np.sort(stage))
        assert texts(ax) == ["4", "7"]
        assert ax.get_ylabel() == "index"
        assert len(ax.get_xticklabels()) == 6

    def test_values_far_below_are_arrowheads_with_the_least_told(self, rng):
        given = effects(rng)
        given[2][:2] = -7.5, -1.5
        ax = plots.plot_ablation(given, measure="index", n_labelled=0)
        assert texts(ax) == ["to −7.5"]
        assert ax.get_ylim()[0] > -1.2
        heads = [c for c in ax.collections if len(c.get_offsets()) == 2]
        assert heads
        assert (heads[0].get_offsets()[:, 1] == -1).all()

    def test_labels_of_equal_values_stand_apart(self, rng):
        given = [np.zeros(n) for n in N]
        given[4][:3] = 0.8, 0.8, 0.81
        ax = plots.plot_ablation(given, measure="index", n_labelled=3)
        heights = sorted(text.xy[1] for text in ax.texts)
        assert min(np.diff(heights)) > 0.03

    def test_all_equal_can_be_drawn(self):
        plots.render_figure(plots.plot_ablation([np.zeros(n) for n in N], measure="index"))

    def test_refuses_other_stages_and_nan(self, rng):
        with pytest.raises(InputError, match="6 stages"):
            plots.plot_ablation(effects(rng)[:5], measure="index")
        with pytest.raises(InputError, match="6 stages"):
            plots.plot_ablation([*effects(rng)[:5], np.zeros(0)], measure="index")
        with pytest.raises(InputError, match="NaN"):
            plots.plot_ablation([np.full(n, np.nan) for n in N], measure="index")


class TestFigure:
    def test_curves_beside_the_points(self, rng):
        figure = ablation(rng, title="neuron 3", units="z")
        points, filters, layers = figure.axes
        assert len(points.collections) == 6
        assert [line.get_label() for line in filters.lines] == [
            "intact", "filter 0", "filter 1", "filter 2",
        ]  # fmt: skip
        np.testing.assert_array_equal(layers.lines[1].get_ydata(), np.zeros(5))
        assert filters.get_ylim() == layers.get_ylim()
        assert points.get_title("left") == "each of 32 filters ablated by itself"
        plots.render_figure(figure)

    def test_refuses_more_curves_than_colours(self, rng):
        with pytest.raises(InputError, match="at most 6 curves"):
            ablation(rng, n_curves=7)


class TestCumulative:
    def test_rows_are_scaled_and_flat_ones_grey(self, rng):
        figure = cumulative(rng)
        mesh = figure.axes[0].collections[0]
        drawn = np.ma.filled(mesh.get_array().reshape(4, 5), np.nan)
        assert drawn[:3].min(axis=1).tolist() == [0, 0, 0]
        assert drawn[:3].max(axis=1).tolist() == [1, 1, 1]
        assert np.isnan(drawn[3]).all()
        label = figure.axes[0].child_axes[0].get_xlabel()
        assert label == "response (row's least: 0, largest: 1); grey: flat"

    def test_panels_share_the_filters_left(self, rng):
        curves, line, stack = cumulative(rng, chosen=1, title="a").axes
        assert curves.get_ylim() == line.get_ylim() == stack.get_ylim()
        assert line.lines[0].get_ydata().tolist() == [32, 26, 13, 1]
        assert texts(line) == ["26 filters:\n0.99"]
        for ax in (curves, line, stack):
            assert ax.lines[-1].get_ydata()[0] == 26
        told = [t.get_text() for t in stack.get_legend().get_texts()]
        assert told[:2] == ["layer 0: 5 of 8", "layer 1: 5 of 8"]

    def test_stages_fill_the_whole_width(self, rng):
        stack = cumulative(rng).axes[2]
        first, last = stack.collections[0], stack.collections[-1]
        vertices = first.get_paths()[0].vertices
        assert vertices[vertices[:, 1] == 32, 0].max() == pytest.approx(8 / 32)
        assert last.get_paths()[0].vertices[:, 0].max() == 1

    def test_raw_curves_are_coloured_about_grey(self, rng):
        figure = cumulative(rng, normalised=False, reference=0.25, units="z")
        low, high = figure.axes[0].collections[0].get_clim()
        assert (low + high) / 2 == pytest.approx(0.25)
        assert "(z)" in figure.axes[0].child_axes[0].get_xlabel()

    def test_same_numbers_same_bytes(self):
        one, two = (
            plots.render_figure(cumulative(np.random.default_rng(1), chosen=2)).png
            for _ in range(2)
        )
        assert one == two

    def test_refuses_what_is_no_elimination(self, rng):
        with pytest.raises(InputError, match="fewer filters left"):
            cumulative(rng, n_left=np.full((4, 6), 3))
        with pytest.raises(InputError, match="one at least"):
            cumulative(rng, n_left=np.array([[4] * 6, [3] * 6, [2] * 6, [0] * 6]))
        with pytest.raises(InputError, match="got 4"):
            cumulative(rng, chosen=4)
        with pytest.raises(InputError, match="as `reference`"):
            cumulative(rng, normalised=False)
        with pytest.raises(InputError, match="NaN"):
            cumulative(rng, responses=np.full((4, 5), np.nan))
