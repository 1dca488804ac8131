import base64
import io
import itertools
import math

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from pocketcortex import plots
from pocketcortex.core import InputError
from pocketcortex.plots.style import swarm_offsets


def texts(ax):
    return [text.get_text() for text in ax.texts]


def pixels(figure):
    with Image.open(io.BytesIO(plots.render_figure(figure).png)) as image:
        return np.asarray(image.convert("RGB"))


def weights(filters=(4, 3, 2, 3, 2), *, rng, side=7, **more):
    draw = rng.normal
    return plots.CompactWeights(
        name="neuron 0",
        conv=draw(size=(filters[0], 3, 5, 5)),
        depthwise=[draw(size=(n, 5, 5)) for n in filters[:-1]],
        pointwise=[draw(size=(m, n)) for n, m in itertools.pairwise(filters)],
        readout=draw(size=(filters[-1], side, side)),
        **more,
    )


@pytest.fixture
def rng():
    return np.random.default_rng(0)


class TestScatter:
    def test_draws_each_neuron_with_both_scores(self):
        x = np.array([0.1, 0.5, np.nan, 0.7, 0.3])
        y = np.array([0.2, np.nan, np.nan, 0.6, 0.4])
        ax = plots.plot_r2_scatter(x, y, x_label="teacher, r²", y_label="compact, r²")
        points = ax.collections[0].get_offsets()
        assert np.array_equal(points, [[0.1, 0.2], [0.7, 0.6], [0.3, 0.4]])
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("teacher, r²", "compact, r²")
        assert "n = 3 neurons\n2 left out: no score" in texts(ax)
        assert {"median 0.30", "median 0.40"} <= set(texts(ax))

    def test_axes_are_equal_and_hold_negative_scores(self):
        ax = plots.plot_r2_scatter(
            np.array([-0.2, 1.1]), np.array([0.1, 0.2]), x_label="a", y_label="b"
        )
        assert ax.get_xlim() == ax.get_ylim()
        assert ax.get_xlim()[0] < -0.2
        assert ax.get_xlim()[1] > 1.1
        assert np.array_equal(ax.get_xticks(), ax.get_yticks())

    def test_without_any_score_says_so(self):
        nothing = np.full(3, np.nan)
        ax = plots.plot_r2_scatter(nothing, nothing, x_label="a", y_label="b")
        assert texts(ax) == ["n = 0 neurons\n3 left out: no score"]
        plots.render_figure(ax)

    def test_refuses_other_neurons_and_infinities(self):
        with pytest.raises(InputError, match="infinite"):
            plots.plot_r2_scatter(np.array([np.inf]), np.ones(1), x_label="a", y_label="b")

    def test_draws_where_it_is_told(self):
        ax = Figure().add_subplot()
        assert plots.plot_r2_scatter(np.ones(2), np.ones(2), x_label="", y_label="", ax=ax) is ax


class TestByModel:
    def test_points_medians_and_missing(self):
        scores = {
            "teacher": np.array([0.5, 0.6, 0.7]),
            "compact": np.array([0.4, np.nan, 0.6]),
        }
        ax = plots.plot_r2_by_model(scores, metric="r²", median_ci={"teacher": (0.45, 0.65)})
        labels = [tick.get_text() for tick in ax.get_xticklabels()]
        assert labels == ["teacher\nn = 3", "compact\nn = 2\n1 without score"]
        assert texts(ax) == ["0.60", "0.50"]
        lines, teacher, band, compact = ax.collections
        assert [len(teacher.get_offsets()), len(compact.get_offsets())] == [3, 2]
        assert len(lines.get_segments()) == 2
        band_y = band.get_paths()[0].vertices[:, 1]
        assert (band_y.min(), band_y.max()) == (0.45, 0.65)
        assert to_hex(teacher.get_facecolor()[0]) == plots.MODEL_COLOURS["teacher"].lower()

    def test_all_missing_and_mathematical_names(self):
        scores = {"$x^": np.full(2, np.nan), "b": np.array([-0.1, 0.2])}
        plots.render_figure(plots.plot_r2_by_model(scores, metric="cost in $"))

    def test_refuses_models_of_other_neurons(self):
        with pytest.raises(InputError, match="one score per neuron"):
            plots.plot_r2_by_model({"a": np.ones(2), "b": np.ones(3)}, metric="r²")
        with pytest.raises(InputError, match="one score per neuron"):
            plots.plot_r2_by_model({}, metric="r²")


class TestSize:
    def test_parameters_are_written_out_with_their_ratio(self):
        counts = {"teacher": 62.78e6, "compact": 12469.0, "published": math.nan}
        ax = plots.plot_parameters(counts)
        assert texts(ax) == ["62.8 M", "12,469", "–", "5,035× fewer"]
        assert [bar.get_width() for bar in ax.patches] == [62.78e6 - 1, 12468.0, 0.0]
        assert [tick.get_text() for tick in ax.get_yticklabels()] == list(counts)
        assert ax.get_xscale() == "log"

    @pytest.mark.parametrize("counts", [{}, {"a": 0.0}, {"a": math.inf}])
    def test_parameters_refuse_what_is_no_count(self, counts):
        with pytest.raises(InputError, match="at least 1"):
            plots.plot_parameters(counts)

    def test_filters_show_every_model_and_the_medians(self):
        filters = np.array([[48, 48, 60, 3, 3, 3], [46, 46, 12, 3, 9, 3], [39, 39, 72, 11, 4, 3]])
        ax = plots.plot_filters_per_layer(filters)
        assert [len(points.get_offsets()) for points in ax.collections] == [3] * 6
        assert sorted(ax.collections[2].get_offsets()[:, 1]) == [12, 60, 72]
        assert texts(ax) == [
            "46",
            "46",
            "60",
            "3",
            "4",
            "3",
            "n = 3 models\nmedian 165 filters in all",
        ]
        assert len(ax.get_xticklabels()) == 6

    def test_filters_refuse_zero(self):
        with pytest.raises(InputError, match="positive counts"):
            plots.plot_filters_per_layer(np.zeros((2, 6), dtype=int))


class TestGallery:
    def test_every_pixel_is_a_whole_block(self, rng):
        images = rng.integers(256, size=(3, 3, 28, 28), dtype=np.uint8)
        figure = plots.figure_gallery(images, ["a", "b_1", "$c"], columns=2)
        assert [text.get_text() for text in figure.texts] == ["a", "b_1", "$c"]
        shown = pixels(figure)
        scale = 8
        left, top = 12, 12 + 34
        tile = shown[top : top + scale * 28, left : left + scale * 28]
        inner = tile[scale // 2 :: scale, scale // 2 :: scale]
        assert np.array_equal(inner, images[0].transpose(1, 2, 0))
        assert np.array_equal(tile[scale + 2, scale + 2], tile[2 * scale - 2, 2 * scale - 2])

    def test_pairs_stand_side_by_side(self, rng):
        images = rng.integers(256, size=(2, 3, 3, 16, 16), dtype=np.uint8)
        figure = plots.figure_gallery_pairs(*images, ["a", "b", "c"], columns=2)
        shown = [ax.images[0].get_array() for ax in figure.axes]
        assert len(shown) == 6
        assert np.array_equal(shown[3], images[1, 1].transpose(1, 2, 0))
        assert figure.axes[3].get_xlabel() == "synthesized"

    def test_refuses_titles_that_do_not_fit(self, rng):
        images = rng.integers(256, size=(2, 3, 8, 8), dtype=np.uint8)
        with pytest.raises(InputError, match="one title an image"):
            plots.figure_gallery(images, ["a"])
        with pytest.raises(InputError, match="columns"):
            plots.figure_gallery(images, ["a", "b"], columns=0)
        with pytest.raises(InputError, match="n > 0"):
            plots.figure_gallery(images[:0], [])


class TestWeights:
    @pytest.mark.parametrize("filters", [(48, 60, 3, 3, 3), (12, 9, 3, 4, 3), (1, 1, 1, 1, 1)])
    def test_shows_every_part_with_its_counts(self, filters, rng):
        figure = plots.figure_weights(weights(filters, rng=rng, r2=0.414, n_parameters=12466))
        told = " | ".join(texts(figure.axes[0]))
        assert f"filters {', '.join(map(str, filters))}" in told
        assert "12,466 parameters" in told
        assert "r² = 0.41" in told
        for n in filters[:-1]:
            assert f"depthwise: {n} kernel" in told
        assert f"{filters[-1]} map" in told
        assert len([ax for ax in figure.axes if ax.images]) == 1 + 1 + 2 * 4 + 1
        plots.render_figure(figure)

    def test_sign_and_zero_have_their_colours(self, rng):
        given = weights(rng=rng)
        given.pointwise[0][:] = [[2, -2, 0, 1]] * 3
        figure = plots.figure_weights(given)
        mixing = next(
            ax.images[0].get_array() for ax in figure.axes
            if ax.images and ax.images[0].get_array().shape[:2] == (3, 4)
        )  # fmt: skip
        red, blue, white, _ = mixing[0]
        assert red[0] > red[2]
        assert blue[2] > blue[0]
        assert white.min() > 0.95

    def test_all_zero_weights_and_no_score(self, rng):
        given = weights(rng=rng)
        for array in (given.conv, *given.depthwise, *given.pointwise, given.readout):
            array[:] = 0
        figure = plots.figure_weights(given)
        assert any("r² – (none given)" in text for text in texts(figure.axes[0]))
        plots.render_figure(figure)

    def test_refuses_layers_that_do_not_fit(self, rng):
        good = weights(rng=rng)
        parts = {"name": "x", "conv": good.conv, "depthwise": good.depthwise,
                 "pointwise": good.pointwise, "readout": good.readout}  # fmt: skip
        with pytest.raises(InputError, match="4 separable layers"):
            plots.CompactWeights(**{**parts, "depthwise": good.depthwise[:3]})
        with pytest.raises(InputError, match="layer 1 has 3 input maps"):
            plots.CompactWeights(**{**parts, "conv": good.conv[:3]})
        with pytest.raises(InputError, match="readout"):
            plots.CompactWeights(**{**parts, "readout": good.readout[:1]})
        with pytest.raises(InputError, match="NaN"):
            plots.CompactWeights(**{**parts, "readout": good.readout * np.nan})


def test_colours_follow_the_kind_of_model():
    colours = plots.model_colours(["published compact", "compact", "other", "third"])
    assert colours["published compact"] == plots.MODEL_COLOURS["published"]
    assert colours["compact"] == plots.MODEL_COLOURS["compact"]
    assert len(set(colours.values())) == 4


def test_swarm_keeps_points_apart_and_within_bounds(rng):
    values = rng.integers(3, size=200).astype(float)
    offsets = swarm_offsets(values, bin_width=0.5, step=0.05, half_width=0.3)
    assert len(set(zip(values, offsets, strict=True))) == 200
    assert np.abs(offsets).max() <= 0.3
    assert np.array_equal(offsets, swarm_offsets(values, bin_width=0.5, step=0.05, half_width=0.3))


def test_rendering_is_reproducible_and_bitmap_for_images(rng):
    def draw():
        return plots.render_figure(plots.plot_parameters({"teacher": 10.0, "compact": 2.0}))

    assert draw() == draw()
    images = rng.integers(256, size=(1, 3, 8, 8), dtype=np.uint8)
    rendered = plots.render_figure(plots.figure_gallery(images, ["a"]))
    kind, content = rendered.data_uri.split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(content) == rendered.png
    with Image.open(io.BytesIO(rendered.png)) as image:
        assert image.size == pytest.approx((2 * rendered.width, 2 * rendered.height), abs=2)


def test_public_names():
    assert sorted(plots.__all__) == sorted(set(plots.__all__))
    assert all(hasattr(plots, name) for name in plots.__all__)
