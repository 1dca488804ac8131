import dataclasses
import itertools

import numpy as np
import pytest
from matplotlib.colors import to_hex

from pocketcortex import plots
from pocketcortex.core import InputError
from pocketcortex.plots.tuning import CURVE_COLOURS

GREY = -0.5


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def tuning_map(rng, shape=(3, 5)):
    return plots.TuningMap(
        rng.normal(size=shape), np.arange(shape[0]) * 22.5, 2.0 ** np.arange(shape[1]),
        "orientation (deg)", "cycles per image",
    )  # fmt: skip


def dots(rng, n_draws=4):
    radii = np.array([0, 1, 2, 4, 8, 16.0])
    return plots.DotTuning(
        radii_px=radii,
        size={"light dot": rng.normal(size=6), "dark dot": rng.normal(size=6)},
        place=rng.normal(size=(7, 7)),
        preferred_px=(20.0, 90.0),
        numbers=np.array([0, 2, 8]),
        number=rng.normal(size=(3, n_draws)),
        grey_response=GREY,
    )


def sheet(rng, **more):
    colours = np.array([[255, 0, 0], [0, 0, 0]], dtype=np.uint8)
    return plots.figure_tuning(
        "neuron 3", dots(rng), tuning_map(rng), tuning_map(rng), colours, np.array([1.0, -2.0]),
        **more,
    )  # fmt: skip


class TestCurve:
    def test_draws_curves_bands_and_reference(self):
        x, one, two = np.array([1.0, 2, 4]), np.array([0.0, 1, 2]), np.array([3.0, 2, 1])
        ax = plots.plot_tuning(
            x, {"a": one, "b_$": two}, x_label="radius (px)", units="z", reference=GREY,
            spread={"a": np.full(3, 0.25)},
        )  # fmt: skip
        line, *curves = ax.lines
        assert line.get_ydata()[0] == GREY
        for curve, y, colour in zip(curves, (one, two), CURVE_COLOURS, strict=False):
            np.testing.assert_array_equal(curve.get_xydata(), np.stack([x, y], axis=1))
            assert to_hex(curve.get_color()) == colour.lower()
        (band,) = ax.collections
        heights = band.get_paths()[0].vertices[:, 1]
        assert (heights.min(), heights.max()) == (-0.25, 2.25)
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("radius (px)", "response (z)")
        assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a", "b_$"]
        plots.render_figure(ax)

    def test_one_curve_has_no_legend(self):
        ax = plots.plot_tuning(np.arange(2), {"a": np.zeros(2)}, x_label="x")
        assert ax.get_legend() is None
        assert len(ax.lines) == 1

    def test_refuses_what_is_no_curve(self):
        x, y = np.arange(3), np.zeros(3)
        with pytest.raises(InputError, match="increasing x"):
            plots.plot_tuning(x[::-1].copy(), {"a": y}, x_label="x")
        with pytest.raises(InputError, match="needs responses"):
            plots.plot_tuning(x, {}, x_label="x")
        with pytest.raises(InputError, match="'a' holds NaN"):
            plots.plot_tuning(x, {"a": y * np.nan}, x_label="x")
        with pytest.raises(InputError, match="not there"):
            plots.plot_tuning(x, {"a": y}, x_label="x", spread={"c": y})


class TestMaps:
    def test_limits_are_symmetric_about_grey_and_the_largest_is_marked(self, rng):
        tuning = tuning_map(rng)
        ax = plots.plot_tuning_map(tuning, reference=GREY, units="z")
        drawn = ax.images[0]
        np.testing.assert_array_equal(drawn.get_array(), tuning.responses)
        limit = np.abs(tuning.responses - GREY).max()
        assert drawn.get_clim() == pytest.approx((GREY - limit, GREY + limit))
        (square,) = ax.patches
        row, column = np.unravel_index(tuning.responses.argmax(), tuning.responses.shape)
        assert square.get_xy() == (column - 0.5, row - 0.5)
        assert [t.get_text() for t in ax.get_yticklabels()] == ["0", "22.5", "45"]
        assert ax.get_ylim() == (-0.5, 2.5)
        assert ax.get_xlabel() == "cycles per image"

    def test_ticks_are_thinned_where_there_is_no_room(self, rng):
        ax = plots.plot_tuning_map(tuning_map(rng, (2, 16)), reference=0.0)
        labels = [t.get_text() for t in ax.get_xticklabels()]
        assert 2 < len(labels) < 16
        assert labels[0] == "1"

    def test_a_place_lies_where_it_was_shown(self, rng):
        responses = rng.normal(size=(4, 4))
        ax = plots.plot_place_map(
            responses, image_size=112, reference=0.0, preferred_px=(13.5, 97.5)
        )
        drawn = ax.images[0]
        left, right, bottom, top = drawn.get_extent()
        assert (left, right, bottom, top) == (-0.5, 111.5, 111.5, -0.5)
        # drawn with the first row at the bottom, which is the image's last
        np.testing.assert_array_equal(drawn.get_array()[::-1], responses)
        assert drawn.origin == "lower"
        assert ax.lines[0].get_xydata().tolist() == [[13.5, 97.5]]

    def test_a_flat_map_can_be_drawn(self):
        flat = plots.TuningMap(np.zeros((2, 2)), np.arange(2), np.arange(2), "a", "b")
        plots.render_figure(plots.plot_tuning_map(flat, reference=0.0))

    def test_refuses_what_does_not_fit(self, rng):
        with pytest.raises(InputError, match=r"\(3, 2\)"):
            plots.TuningMap(np.zeros((2, 2)), np.arange(3), np.arange(2), "a", "b")
        with pytest.raises(InputError, match="NaN"):
            plots.TuningMap(np.full((1, 1), np.nan), np.arange(1), np.arange(1), "a", "b")
        with pytest.raises(InputError, match="finite number, got nan"):
            plots.plot_tuning_map(tuning_map(rng), reference=np.nan)
        with pytest.raises(InputError, match="finite numbers"):
            plots.plot_place_map(np.full((2, 2), np.inf), image_size=8, reference=0.0)


class TestColours:
    def test_bars_have_their_colour_and_begin_at_grey(self):
        colours = np.array([[255, 0, 0], [0, 128, 255]], dtype=np.uint8)
        ax = plots.plot_colour_tuning(colours, np.array([1.0, -2.0]), reference=GREY)
        for bar, colour, end in zip(ax.patches, colours, (1.0, -2.0), strict=True):
            np.testing.assert_allclose(bar.get_facecolor()[:3], colour / 255)
            assert bar.get_y() == GREY
            assert bar.get_y() + bar.get_height() == pytest.approx(end)

    def test_refuses_none_and_nan(self):
        colours = np.zeros((1, 3), dtype=np.uint8)
        with pytest.raises(InputError, match="at least one"):
            plots.plot_colour_tuning(colours[:0], np.zeros(0), reference=0.0)
        with pytest.raises(InputError, match="finite"):
            plots.plot_colour_tuning(colours, np.array([np.nan]), reference=0.0)


class TestDots:
    def test_three_panels_with_what_they_are_given(self, rng):
        given = dots(rng)
        size, place, number = plots.figure_dot_tuning(given, title="a", units="z").axes
        curves = [line.get_ydata() for line in size.lines[1:]]
        np.testing.assert_array_equal(curves, list(given.size.values()))
        np.testing.assert_array_equal(place.images[0].get_array()[::-1], given.place)
        assert place.lines[0].get_xydata().tolist() == [[20.0, 90.0]]
        np.testing.assert_allclose(number.lines[1].get_ydata(), given.number.mean(axis=1))
        band = number.collections[0].get_paths()[0].vertices[:, 1]
        spread = given.number.std(axis=1)
        assert band.max() == pytest.approx((given.number.mean(axis=1) + spread).max())
        assert "± sd, 4 draws" in [t.get_text() for t in number.texts]

    def test_pictures_stand_above_their_size_without_overlap(self, rng):
        pictures = rng.integers(256, size=(6, 3, 8, 8), dtype=np.uint8)
        figure = plots.figure_dot_tuning(dots(rng), pictures=pictures)
        figure.canvas.draw()
        ax = figure.axes[0]
        tiles = [tile for tile in ax.child_axes if tile.images]
        boxes = [tile.get_window_extent() for tile in tiles]
        assert 2 <= len(tiles) < 6
        assert all(b.x0 > a.x1 for a, b in itertools.pairwise(boxes))
        assert all(box.y0 > ax.get_window_extent().y1 for box in boxes)
        last = np.asarray(tiles[-1].images[0].get_array())
        np.testing.assert_array_equal(last, pictures[5].transpose(1, 2, 0))
        x = ax.transData.transform((16.0, 0))[0]
        assert (boxes[-1].x0 + boxes[-1].x1) / 2 == pytest.approx(x, abs=1)

    def test_one_draw_has_no_band(self, rng):
        number = plots.figure_dot_tuning(dots(rng, n_draws=1)).axes[2]
        assert not number.collections
        assert "one draw" in [t.get_text() for t in number.texts]

    def test_refuses_what_does_not_fit(self, rng):
        good = dots(rng)
        with pytest.raises(InputError, match="one picture for each of 6 sizes, got 2"):
            plots.figure_dot_tuning(good, pictures=np.zeros((2, 3, 8, 8), dtype=np.uint8))
        with pytest.raises(InputError, match="each of 2 numbers"):
            dataclasses.replace(good, numbers=np.arange(2))
        with pytest.raises(InputError, match="'a' must hold"):
            dataclasses.replace(good, size={"a": np.zeros(2)})
        with pytest.raises(InputError, match="NaN"):
            dataclasses.replace(good, grey_response=np.nan)


class TestSheet:
    def test_six_panels_and_indices(self, rng):
        figure = sheet(rng, indices={"dot-size selectivity": 0.814, "bias": -0.2})
        assert len(figure.axes) == 6
        told = [text.get_text() for text in figure.texts]
        assert told == ["neuron 3", "dot-size selectivity 0.81   ·   bias −0.20"]
        assert figure.axes[3].get_ylabel() == "orientation (deg)"
        assert len(figure.axes[5].patches) == 2

    def test_nothing_leaves_the_sheet_and_panels_do_not_meet(self, rng):
        figure = sheet(rng, units="z-score")
        figure.canvas.draw()
        boxes = [ax.get_tightbbox() for ax in figure.axes]
        for k, box in enumerate(boxes):
            assert box.x0 >= 0, k
            assert box.y0 >= 0, k
            assert box.x1 <= figure.bbox.x1, k
            assert not any(box.overlaps(other) for other in boxes[:k]), k

    def test_same_numbers_same_bytes(self):
        one, two = (plots.render_figure(sheet(np.random.default_rng(1))).png for _ in range(2))
        assert one == two
