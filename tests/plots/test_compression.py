"""Accuracy against size, and filters by group: what is drawn, and that nothing overlaps."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.text import Text

from pocketcortex import plots
from pocketcortex.core import InputError


def models(n=30, *, rng):
    scores = np.clip(rng.normal(0.6, 0.15, n), -0.1, 0.98)
    sizes = rng.integers(5_000, 25_000, n)
    return {
        "teacher": (np.full(n, 62_780_000), scores),
        "backbone ridge": (np.full(n, 6_546_304), scores - 0.15),
        "compact": (sizes // 2, scores - 0.06),
        "published compact": (sizes, scores - 0.05),
    }


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def overlapping(ax):
    """Return the pairs of texts that touch, and the texts that leave the figure."""
    figure = ax.get_figure()
    FigureCanvasAgg(figure).draw()
    unseen = []
    for axis in (ax.xaxis, ax.yaxis):
        low, high = axis.get_view_interval()
        unseen += [t.label1 for t in axis.get_major_ticks() if not low <= t.get_loc() <= high]
    texts = [text for text in ax.findobj(Text) if text.get_visible() and text not in unseen]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]
    touching = [(a, b) for (a, x), (b, y) in itertools.combinations(boxes, 2) if x.overlaps(y)]
    width, height = figure.bbox.size
    return touching + [
        text for text, box in boxes if min(box.x0, box.y0) < 0 or box.x1 > width or box.y1 > height
    ]


class TestPareto:
    def test_each_neuron_is_a_point_and_medians_are_marked(self, rng):
        drawn = models(rng=rng)
        ax = plots.plot_pareto(drawn, metric="r²", median_ci={"compact": (0.4, 0.7)})
        clouds, medians = ax.collections[::2], ax.collections[1::2]
        for (name, (sizes, scores)), cloud, mark in zip(
            drawn.items(), clouds, medians, strict=True
        ):
            x, y = cloud.get_offsets().T
            assert np.array_equal(y, scores)
            if np.ptp(sizes):
                np.testing.assert_allclose(x, sizes)
            else:  # one size for all: spread a little about it
                assert len(set(zip(x, y, strict=True))) == len(scores)
                assert np.all(np.abs(np.log10(x / sizes)) < 0.4)
            np.testing.assert_allclose(mark.get_offsets(), [[np.median(sizes), np.median(scores)]])
            colour = plots.model_colours(drawn)[name].lower()
            assert to_hex(mark.get_facecolor()[0]) == to_hex(cloud.get_facecolor()[0]) == colour
        interval = ax.lines[0].get_ydata()
        assert np.array_equal(interval, (0.4, 0.7))
        assert ax.get_xscale() == "log"

    def test_every_kind_is_named_with_its_median(self, rng):
        drawn = models(rng=rng)
        ax = plots.plot_pareto(drawn, metric="r²")
        assert {t.get_text() for t in ax.texts} == {
            f"{name} {np.median(scores):.2f}" for name, (_, scores) in drawn.items()
        }

    def test_nothing_overlaps_or_is_cut_off(self, rng):
        drawn = models(rng=rng)
        drawn |= {f"compact, keep {k} %": (drawn["compact"][0] // 2, drawn["compact"][1])
                  for k in (10, 30, 50)}  # fmt: skip
        ax = plots.plot_pareto(drawn, metric="noise-corrected r²")
        assert overlapping(ax) == []
        names = [t.get_window_extent().transformed(ax.transData.inverted()) for t in ax.texts]
        highest = max(scores.max() for _, scores in drawn.values())
        assert min(box.y0 for box in names) > highest  # no name lies on a point

    def test_neurons_without_a_score_are_left_out_and_counted(self):
        scores = np.array([0.5, np.nan, -0.2])
        ax = plots.plot_pareto({"compact": (np.array([3, 4, 5]), scores)}, metric="r²")
        assert np.array_equal(ax.collections[0].get_offsets(), [[3, 0.5], [5, -0.2]])
        assert "1 without a score left out" in ax.get_title(loc="left")
        assert ax.get_ylim()[0] < -0.2
        plots.render_figure(ax)

    @pytest.mark.parametrize(
        ("drawn", "reason"),
        [
            ({}, "none given"),
            ({"a": (np.ones(1), np.array([np.nan]))}, "no kind of model has a score"),
            ({"a": (np.ones(2), np.ones(1))}, "got 2 and 1"),
            ({"a": (np.zeros(1), np.ones(1))}, "parameters at least 1"),
            ({"a": (np.array([np.nan]), np.ones(1))}, "parameters at least 1"),
            ({"a": (np.ones(1), np.array([np.inf]))}, "must be finite or NaN"),
        ],
    )
    def test_refuses(self, drawn, reason):
        with pytest.raises(InputError, match=reason):
            plots.plot_pareto(drawn, metric="r²")


class TestFiltersByGroup:
    def test_medians_and_quartiles(self, rng):
        groups = {"V4": rng.integers(1, 60, (9, 6)), "IT": rng.integers(1, 60, (4, 6))}
        ax = plots.plot_filters_by_group(groups)
        for counts, line, bars in zip(groups.values(), ax.lines, ax.collections, strict=True):
            assert np.array_equal(line.get_ydata(), np.median(counts, axis=0))
            ends = np.array([segment[:, 1] for segment in bars.get_segments()])
            assert np.array_equal(ends.T, np.quantile(counts, [0.25, 0.75], axis=0))
        first, second = (line.get_xdata() for line in ax.lines)
        assert np.all(first < second)  # beside each other, not on top
        assert [t.get_text() for t in ax.get_legend().get_texts()] == ["V4 (n = 9)", "IT (n = 4)"]

    def test_nothing_overlaps_or_is_cut_off(self, rng):
        names = ["variance, late to early", "early to late", "magnitude, one shot", "a", "random"]
        groups = {name: rng.integers(1, 60, (9, 6)) for name in names}
        assert overlapping(plots.plot_filters_by_group(groups)) == []

    @pytest.mark.parametrize(
        "groups", [{}, {"a": np.zeros((0, 6), int)}, {"a": np.zeros((2, 6), int)}]
    )
    def test_refuses(self, groups):
        with pytest.raises(InputError, match="every group needs positive counts"):
            plots.plot_filters_by_group(groups)


class TestScoreByFilters:
    def test_medians_stand_at_their_sizes_in_order(self):
        kinds = {
            "trained": {25: (0.4, 0.35, 0.45), 5: (0.3, 0.25, 0.33)},
            "random": {5: (0.2, 0.15, 0.25), 25: (0.33, 0.3, 0.36)},
        }
        ax = plots.plot_score_by_filters(kinds, metric="r²")
        lines = {line.get_label(): line for line in ax.lines}
        assert list(lines) == ["trained", "random"]
        np.testing.assert_allclose(lines["trained"].get_ydata(), [0.3, 0.4])
        np.testing.assert_allclose(lines["trained"].get_xdata(), [5, 25], rtol=0.02)
        (low, high) = ax.collections[0].get_segments()[1][:, 1]
        assert (low, high) == (0.35, 0.45)
        assert [t.get_text() for t in ax.get_xticklabels()] == ["5", "25"]
        assert ax.get_ylim()[0] == 0
        assert overlapping(ax) == []

    @pytest.mark.parametrize(
        "wrong", [{}, {"a": {}}, {"a": {0: (0.1, 0.0, 0.2)}}, {"a": {3: (np.nan, 0.0, 0.1)}}]
    )
    def test_what_cannot_be_drawn_is_refused(self, wrong):
        with pytest.raises(InputError, match="finite scores"):
            plots.plot_score_by_filters(wrong, metric="r²")
