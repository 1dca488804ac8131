import io

import numpy as np
import pytest
from PIL import Image

from pocketcortex import plots
from pocketcortex.core import InputError

SIDE = 16
SCALE = 14  # tiles are enlarged by a whole factor


def pixels(figure):
    with Image.open(io.BytesIO(plots.render_figure(figure).png)) as image:
        return np.asarray(image.convert("RGB"))


def images(n, seed):
    return np.random.default_rng(seed).integers(0, 256, (n, 3, SIDE, SIDE), dtype=np.uint8)


def tiles(figure):
    """Return the image in each axes, in the order drawn."""
    return [np.asarray(ax.images[0].get_array()) for ax in figure.axes if ax.images]


def texts(figure):
    return [text.get_text() for text in figure.texts]


def adversarial(n=2, **more):
    base = images(n, 0)
    up = np.clip(base.astype(int) + 3, 0, 255).astype(np.uint8)
    down = np.clip(base.astype(int) - 2, 0, 255).astype(np.uint8)
    responses = np.array([[-0.5, 1.25, -2.0]] * n)
    names = [f"neuron {k}" for k in range(n)]
    return base, up, down, plots.figure_adversarial(base, up, down, responses, names, **more)


def saliency_input(n=2):
    tops = np.arange(0, 13, 4)
    return {
        "images": images(n, 0),
        "maps": np.random.default_rng(1).normal(size=(n, 4, 4)),
        "positions": np.stack(np.meshgrid(tops, tops, indexing="ij"), axis=-1),
        "patches": np.tile([[0, 0], [4, 12], [8, 8]], (n, 1, 1)),
        "smoothed": images(n, 2),
        "random": images(n, 3),
        "responses": np.tile([0.5, -1.0, 0.25], (n, 1)),
        "labels": [f"neuron {k}" for k in range(n)],
        "patch": 4,
    }


class TestAdversarial:
    def test_shows_images_and_magnified_differences(self):
        base, up, down, figure = adversarial(factor=5.0)
        shown = tiles(figure)
        assert len(shown) == 10
        for k in range(2):
            low, fall, middle, rise, high = shown[5 * k : 5 * k + 5]
            np.testing.assert_array_equal(low, down[k].transpose(1, 2, 0))
            np.testing.assert_array_equal(middle, base[k].transpose(1, 2, 0))
            np.testing.assert_array_equal(high, up[k].transpose(1, 2, 0))
            for tile, other in ((fall, down), (rise, up)):
                difference = other[k].astype(float) - base[k]
                expected = (127.5 + 5 * difference).clip(0, 255).round()
                np.testing.assert_array_equal(tile, expected.transpose(1, 2, 0))

    def test_says_factor_responses_and_sizes(self):
        base, up, _, figure = adversarial(factor=5.0, units="spikes/s")
        said = texts(figure)
        assert said.count("difference × 5") == 2
        assert said.count("−0.50") == said.count("+1.25") == said.count("−2.00") == 2
        rms = float(np.sqrt(((up[0].astype(float) - base[0]) ** 2).mean()))
        assert f"rms {rms:.1f}" in said
        assert {"neuron 0", "neuron 1"} <= set(said)
        assert any("(spikes/s)" in text for text in said)

    def test_every_pixel_is_a_whole_block(self):
        base, _, _, figure = adversarial()
        drawn = pixels(figure)
        box = figure.axes[2].get_position()  # the first row's base image
        height, width = drawn.shape[:2]
        left, top = round(box.x0 * width), round((1 - box.y1) * height)
        centres = SCALE * np.arange(SIDE) + SCALE // 2
        np.testing.assert_array_equal(
            drawn[np.ix_(top + centres, left + centres)], base[0].transpose(1, 2, 0)
        )

    @pytest.mark.parametrize("factor", [0.0, -1.0, np.nan])
    def test_refuses_a_factor_that_is_none(self, factor):
        with pytest.raises(InputError, match="factor must be positive"):
            adversarial(factor=factor)

    def test_refuses_no_rows_and_other_shapes(self):
        base, answers = images(2, 0), np.zeros((2, 3))
        with pytest.raises(InputError, match="n > 0"):
            plots.figure_adversarial(base[:0], base[:0], base[:0], answers[:0], [])
        with pytest.raises(InputError, match="one label a row, got 1 for 2"):
            plots.figure_adversarial(base, base, base, answers, ["a"])


class TestSaliency:
    def test_shows_images_map_and_patches_by_sign(self):
        given = saliency_input()
        figure = plots.figure_saliency(**given)
        axes = [ax for ax in figure.axes if ax.images]
        assert len(axes) == 10
        for k in range(2):
            plain, heat, outlined, smooth, random = axes[5 * k : 5 * k + 5]
            for ax, name in ((plain, "images"), (smooth, "smoothed"), (random, "random")):
                shown = np.asarray(ax.images[0].get_array())
                np.testing.assert_array_equal(shown, given[name][k].transpose(1, 2, 0))
            drawn = heat.images[0]
            np.testing.assert_array_equal(drawn.get_array(), given["maps"][k])
            limit = np.abs(given["maps"][k]).max()
            assert drawn.get_clim() == (-limit, limit)
            frames = outlined.patches[1::2]  # each on a white one
            assert len(frames) == 3
            for frame, (top, left) in zip(frames, given["patches"][k], strict=True):
                assert left <= frame.get_x() + 0.5 <= left + 1
                assert top <= frame.get_y() + 0.5 <= top + 1
                raises = given["maps"][k][top // 4, left // 4] > 0
                red, _, blue, _ = frame.get_edgecolor()
                assert (red > blue) == raises
                assert (frame.get_linestyle() != "solid") == raises

    def test_smoothed_images_may_be_left_out(self):
        given = saliency_input() | {"random": None}
        given["responses"] = given["responses"][:, :2]
        figure = plots.figure_saliency(**given)
        assert len([ax for ax in figure.axes if ax.images]) == 8
        assert "random patches" not in texts(figure)
        with pytest.raises(InputError, match="responses to 1 images a row"):
            plots.figure_saliency(**(given | {"smoothed": None}))

    def test_map_lies_where_its_patches_are(self):
        given = saliency_input(1)
        given["positions"] = given["positions"][:2, :3]
        given["maps"] = given["maps"][:, :2, :3]
        given["patches"] = given["patches"][:, :1]
        figure = plots.figure_saliency(**given)
        heat = [ax for ax in figure.axes if ax.images][1]
        left, right, bottom, top = heat.images[0].get_extent()
        # patches 4 wide at 0, 4, 8: pixels 0 to 11, whose edges are at -0.5 and 11.5
        assert (left, right, top, bottom) == (-0.5, 11.5, -0.5, 7.5)
        assert heat.get_ylim() == (15.5, -0.5)

    def test_bar_and_words(self):
        given = saliency_input(1)
        given["maps"] = np.zeros((1, 4, 4))
        given["maps"][0, 1, 3] = -0.25
        figure = plots.figure_saliency(**given, units="z")
        bar = next(
            ax for ax in figure.axes if [t.get_text() for t in ax.get_yticklabels()]
        )  # fmt: skip
        assert [t.get_text() for t in bar.get_yticklabels()] == ["−0.25", "0", "+0.25"]
        assert {"+0.50", "−1.00", "+0.25", "3 of 16 patches", "change (z)"} <= set(texts(figure))

    def test_no_text_leaves_the_sheet(self):
        given = saliency_input(3)
        for figure in (plots.figure_saliency(**given, units="z"), adversarial()[-1]):
            sheet = figure.bbox
            for text in figure.texts:
                box = text.get_window_extent()
                assert box.x0 >= 0, text
                assert box.x1 <= sheet.x1, text

    def test_flat_map_and_one_patch(self):
        given = saliency_input(1)
        given |= {"maps": np.zeros((1, 1, 1)), "positions": np.array([[[6, 6]]])}
        given["patches"] = np.zeros((1, 1, 2), dtype=np.int64)
        plots.render_figure(plots.figure_saliency(**given))

    def test_refuses_no_rows_and_other_numbers_of_names(self):
        with pytest.raises(InputError, match="one label a row"):
            plots.figure_saliency(**(saliency_input() | {"labels": ["a"]}))
        with pytest.raises(InputError, match="n > 0"):
            plots.figure_saliency(**saliency_input(0))


def test_the_same_numbers_give_the_same_bytes():
    one, two = (plots.render_figure(plots.figure_saliency(**saliency_input())) for _ in range(2))
    assert one.png == two.png
