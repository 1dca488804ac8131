import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from pocketcortex import plots
from pocketcortex.core import InputError
from pocketcortex.plots.sheet import colour_patch, diverging, number_text, sequential

SIZE = 32  # pixels; maps of the later layers have 8 positions
N = 2


def maps(rng, *shape, rectified=False):
    values = rng.normal(size=(N, *shape))
    return np.maximum(values, 0) if rectified else values


def layer(rng, n_in, n_out, side_in, side, outputs=None):
    return plots.TracedLayer(
        inputs=np.arange(n_in) + 10,
        maps=maps(rng, n_in, side_in, side_in, rectified=True),
        kernels=rng.normal(size=(n_in, 5, 5)),
        filtered=maps(rng, n_in, side, side),
        outputs=np.arange(n_out) if outputs is None else outputs,
        weights=rng.normal(size=(n_out, n_in)),
        summed=maps(rng, n_out, side, side),
        rectified=maps(rng, n_out, side, side, rectified=True),
    )


def parts(rng, n_out=2):
    first = plots.TracedConvolution(
        channels=np.arange(3) + 10,
        kernels=rng.normal(size=(3, 3, 5, 5)),
        summed=maps(rng, 3, SIZE, SIZE),
        rectified=maps(rng, 3, SIZE, SIZE, rectified=True),
    )
    layers = [layer(rng, 3, n_out, 32, 16), layer(rng, n_out, 2, 16, 8)]
    readout = plots.TracedReadout(
        channels=np.array([4, 7]),
        maps=maps(rng, 2, 8, 8, rectified=True),
        weights=rng.normal(size=(2, 8, 8)),
        total=maps(rng, 8, 8),
        responses=np.array([-0.604, 2.556]),
        bias=-0.25,
    )
    images = rng.integers(256, size=(N, 3, SIZE, SIZE), dtype=np.uint8)
    return {
        "images": images, "names": ["small dot", "large dot"], "first": first, "layers": layers,
        "readout": readout,
    }  # fmt: skip


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def sheet_of(figure):
    (drawn,) = figure.axes[0].images
    return np.asarray(drawn.get_array())


def holds(sheet, tile, scale):
    """Whether a picture is on the sheet, `scale` pixels a cell each way."""
    wanted = tile.repeat(scale, 0).repeat(scale, 1)
    first = np.argwhere((sheet == wanted[0, 0]).all(axis=-1))
    high, wide = wanted.shape[:2]
    return any(np.array_equal(sheet[y : y + high, x : x + wide], wanted) for y, x in first)


class TestTrace:
    def test_shows_the_window_of_every_map_in_its_rows_limits(self, rng):
        given = parts(rng)
        figure = plots.figure_trace(**given, centre_px=(20.0, 12.0), window_px=16)
        sheet = sheet_of(figure)
        tile = 112  # a multiple of the window
        one = given["layers"][0]
        limit = np.abs(one.filtered).max()
        # rows 4 to 19 and columns 12 to 27 of the image: of 16 x 16 maps rows 2 to 9
        window = one.filtered[1, 2][2:10, 6:14]
        assert holds(sheet, diverging(window, limit), tile // 8)
        window = one.maps[0, 1][4:20, 12:28]
        assert holds(sheet, sequential(window, one.maps.max()), tile // 16)
        readout = given["readout"]
        products = readout.maps * readout.weights
        assert holds(sheet, diverging(products[0, 1], np.abs(products).max()), 14)
        assert holds(sheet, colour_patch(given["first"].kernels[2]), 13)
        assert holds(sheet, given["images"][1].transpose(1, 2, 0), 7)

    def test_tells_channels_limits_weights_and_the_sum(self, rng):
        given = parts(rng)
        told = texts(plots.figure_trace(**given, title="neuron 3", units="z"))
        one = given["layers"][0]
        assert {"neuron 3", "Layer 0", "Layer 2", "Readout", "weight → 1", "output 0"} <= set(told)
        assert f"small dot, ±{number_text(np.abs(one.filtered).max())}" in told
        assert f"large dot, 0 to {number_text(one.maps.max())}" in told
        assert number_text(float(one.weights[1, 2]), plus=True) in told
        assert {"bias −0.250", "= −0.604 z", "= 2.56 z"} <= set(told)
        total = number_text(float(given["readout"].total[1].sum()), digits=3, plus=True)
        assert f"sum {total}" in told

    def test_layer_0_after_relu_is_left_out_where_it_follows_anyway(self, rng):
        given = parts(rng)
        assert texts(plots.figure_trace(**given)).count("after ReLU") == 0
        given["first"] = dataclasses.replace(given["first"], channels=np.array([1, 2, 3]))
        assert texts(plots.figure_trace(**given)).count("after ReLU") == N

    def test_one_output_frames_its_inputs_by_sign(self, rng):
        given = parts(rng, n_out=1)
        one = given["layers"][0]
        one.weights[:] = [[1.0, -1.0, 0.0]]
        frames = plots.figure_trace(**given).axes[0].collections[-1]
        thick = np.array(frames.get_linewidths()) > 2
        colours = frames.get_edgecolor()[thick]
        # two maps of either sign for two images; none for a weight of zero
        red = [bool(colour[0] > colour[2]) for colour in colours[: 2 * N]]
        assert red == [True, False] * N

    def test_nothing_leaves_the_sheet(self, rng):
        given = parts(rng) | {"names": ["a small dark dot", "a large dark dot"]}
        figure = plots.figure_trace(**given, title="neuron 3", units="z-score")
        figure.canvas.draw()
        for text in figure.axes[0].texts:
            box = text.get_window_extent()
            assert box.x0 >= 0, text
            assert box.x1 <= figure.bbox.x1, text
            assert box.y0 >= 0, text

    def test_zeros_and_the_same_bytes(self, rng):
        given = parts(rng)
        for array in (given["first"].summed, given["layers"][0].weights):
            array[:] = 0
        one, two = (plots.render_figure(plots.figure_trace(**given)).png for _ in range(2))
        assert one == two

    def test_refuses_what_does_not_fit(self, rng):
        good = parts(rng)

        def refused(match, **changed):
            with pytest.raises(InputError, match=match):
                plots.figure_trace(**(good | changed))

        one = good["layers"][0]
        refused("got 2 images, 1 names", names=["a"])
        refused("multiple of 4", window_px=6)
        refused("multiple of 4 .* up to 32", window_px=36)
        refused("layer 1: need", layers=[dataclasses.replace(one, inputs=np.arange(2))])
        refused("layer 1: need", layers=[dataclasses.replace(one, maps=one.maps[:1])])
        refused("layer 1: .*NaN", layers=[dataclasses.replace(one, maps=one.maps * np.nan)])
        odd = dataclasses.replace(one, maps=one.maps[:, :, :30, :30])
        refused("divide the image's 32 pixels", layers=[odd])
        readout = dataclasses.replace(good["readout"], channels=np.zeros(0, dtype=int))
        refused("readout: need", readout=readout)


class TestSheet:
    @pytest.mark.parametrize(
        ("value", "digits", "plus", "text"),
        [(0.0, 2, True, "0"), (-0.3604, 2, False, "−0.36"), (2.0, 2, True, "+2.0"),
         (0.0327, 3, False, "0.0327"), (1240.2, 2, False, "1,240"), (12.4, 2, False, "12")],
    )  # fmt: skip
    def test_numbers(self, value, digits, plus, text):
        assert number_text(value, digits=digits, plus=plus) == text

    def test_signs_have_their_colours(self):
        red, white, blue = diverging(np.array([[2.0, 0.0, -2.0]]), 2.0)[0].astype(int)
        assert red[0] > red[2]
        assert blue[2] > blue[0]
        assert white.min() > 240

    def test_frames_do_not_cover_the_picture(self):
        sheet = plots.sheet.PixelSheet(40, 30)
        picture = np.full((2, 3, 3), 7, dtype=np.uint8)
        sheet.paste(picture, 10, 8, 4, frame="#FF0000", frame_width=2.0)
        png = plots.render_figure(sheet.figure()).png
        with Image.open(io.BytesIO(png)) as image:
            drawn = np.asarray(image.convert("RGB"))
        assert drawn.shape == (30, 40, 3)
        assert (drawn[8:16, 10:22] == 7).all()
        assert drawn[12, 7].tolist() == [255, 0, 0]
