"""Drawn stimuli: areas, orientations and curvatures as computed, not as drawn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from pocketcortex.core import InputError
from pocketcortex.stimuli import (
    Drawn,
    bars,
    catalogue,
    curves,
    dots_at,
    dots_in_number,
    dots_of_size,
    edges,
    gaudy,
    gratings,
    plain_colours,
    white_noise,
)

BLACK, WHITE = (0, 0, 0), (255, 255, 255)
ON_BLACK = {"foreground": WHITE, "background": BLACK}


def share(images):
    """Return the foreground's share of each pixel of white on black."""
    assert images.dtype == np.uint8
    assert (images == images[:, :1]).all()
    return images[:, 0] / 255


def area(images):
    return share(images).sum(axis=(1, 2))


def centre_of_mass(image):
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return (x * image).sum() / image.sum(), (y * image).sum() / image.sum()


def orientation_of(image):
    """Return the direction in which mass is spread most, degrees within 0..180."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    x0, y0 = centre_of_mass(image)
    dx, dy = x - x0, -(y - y0)
    angle = 0.5 * np.arctan2(2 * (image * dx * dy).sum(), (image * (dx**2 - dy**2)).sum())
    return np.rad2deg(angle) % 180


def wave_vector(image):
    """Return cycles to the right and up of the strongest frequency."""
    spectrum = np.abs(np.fft.fft2(image - image.mean()))
    row, column = np.unravel_index(spectrum.argmax(), spectrum.shape)
    frequency = np.fft.fftfreq(len(image), 1 / len(image))
    return frequency[column], -frequency[row]


def turned(angle, other, period=180.0):
    """Return how far two angles are apart."""
    return abs((angle - other + period / 2) % period - period / 2)


class TestDots:
    @settings(max_examples=30, deadline=None)
    @given(st.floats(1, 20), st.floats(21, 42), st.floats(21, 42))
    def test_area_and_place_are_exact(self, radius, x, y):
        dot = dots_of_size([radius], 64, centre_px=(x, y), **ON_BLACK)
        assert area(dot.images)[0] == pytest.approx(np.pi * radius**2, rel=0.01, abs=0.05)
        assert centre_of_mass(share(dot.images)[0]) == pytest.approx((x, y), abs=0.05)
        row = dot.parameters.iloc[0]
        assert (row["kind"], row["x_px"], row["y_px"], row["radius_px"]) == (
            "dot size", x, y, radius,
        )  # fmt: skip

    def test_levels_are_the_pixels_coverage(self):
        size, radius = 12, 3.3
        dot = share(dots_of_size([radius], size, **ON_BLACK).images)[0]
        fine = (np.arange(size * 100) + 0.5) / 100 - 0.5 - (size - 1) / 2
        inside = np.hypot(fine, fine[:, None]) < radius
        covered = inside.reshape(size, 100, size, 100).mean((1, 3))
        np.testing.assert_allclose(dot, covered, atol=0.01)

    def test_colours_and_no_dot(self):
        dots = dots_of_size([0, 50], 16, foreground=(250, 0, 10), background=(1, 2, 3))
        assert np.unique(dots.images[0].reshape(3, -1), axis=1).T.tolist() == [[1, 2, 3]]
        assert np.unique(dots.images[1].reshape(3, -1), axis=1).T.tolist() == [[250, 0, 10]]
        assert dots.parameters["foreground"].tolist() == ["#fa000a"] * 2
        assert dots.parameters["background"].tolist() == ["#010203"] * 2

    def test_a_grid_has_a_dot_in_the_middle_of_each_square(self):
        dots = dots_at(4, 32, **ON_BLACK)
        maps = share(dots.images).reshape(4, 4, 4, 8, 4, 8).sum((3, 5))
        for row, column in np.ndindex(4, 4):
            expected = np.zeros((4, 4))
            expected[row, column] = np.pi * 2.5**2
            np.testing.assert_allclose(maps[row, column], expected, rtol=0.01)
        table = dots.parameters
        assert table["x_px"].tolist() == [3.5, 11.5, 19.5, 27.5] * 4
        assert table["y_px"].tolist() == np.repeat([3.5, 11.5, 19.5, 27.5], 4).tolist()

    def test_numbers_of_dots_do_not_touch_and_are_where_the_table_says(self):
        numbers = [0, 1, 5, 12]
        dots = dots_in_number(
            numbers,
            48,
            rng=np.random.default_rng(0),
            n_draws=3,
            radius_px=3.0,
            gap_px=2.0,
            **ON_BLACK,
        )
        assert len(dots) == 12
        table = dots.parameters
        assert table["n_dots"].tolist() == np.repeat(numbers, 3).tolist()
        assert table["draw"].tolist() == [0, 1, 2] * 4
        np.testing.assert_allclose(area(dots.images), table["n_dots"] * np.pi * 9, rtol=0.01)
        for image, centres in zip(share(dots.images), table["dots_px"], strict=True):
            drawn_again = sum(
                (share(dots_of_size([3], 48, centre_px=c, **ON_BLACK).images)[0] for c in centres),
                np.zeros((48, 48)),
            )
            np.testing.assert_allclose(image, drawn_again, atol=0.005)
            apart = [np.hypot(*np.subtract(a, b)) for a in centres for b in centres if a != b]
            assert all(d >= 8 for d in apart)
            assert all(2.5 <= value <= 44.5 for c in centres for value in c)
        again = dots_in_number(
            numbers,
            48,
            rng=np.random.default_rng(0),
            n_draws=3,
            radius_px=3.0,
            gap_px=2.0,
            **ON_BLACK,
        )
        np.testing.assert_array_equal(dots.images, again.images)

    def test_refuses_more_than_fit(self):
        with pytest.raises(InputError, match="do not fit into 20 x 20"):
            dots_in_number([30], 20, rng=np.random.default_rng(0), radius_px=3.0)
        with pytest.raises(InputError, match="do not fit"):
            dots_in_number([1], 20, rng=np.random.default_rng(0), radius_px=11.0)


class TestGratings:
    @pytest.mark.parametrize("orientation", [0.0, 90.0])
    @pytest.mark.parametrize("cycles", [3, 8])
    def test_frequency_and_orientation_by_fourier(self, orientation, cycles):
        image = share(gratings([orientation], [cycles], [0], 64).images)[0]
        right, up = np.abs(wave_vector(image))
        assert (right, up) == ((0, cycles) if orientation == 0 else (cycles, 0))
        assert image.mean() == pytest.approx(0.5, abs=0.01)

    @pytest.mark.parametrize("orientation", [30.0, 45.0, 120.0])
    def test_oblique_stripes_lie_as_said(self, orientation):
        right, up = wave_vector(share(gratings([orientation], [12], [0], 96).images)[0])
        assert np.hypot(right, up) == pytest.approx(12, abs=0.8)
        across = np.rad2deg(np.arctan2(up, right))
        assert turned(across, orientation + 90) < 4

    def test_phase_contrast_and_window(self):
        made = gratings([90], [4], [0, 90, 180], 65, contrast=0.5, radius_px=20.0)
        middle = share(made.images)[:, 32, 32]
        np.testing.assert_allclose(middle, [0.75, 0.5, 0.25], atol=0.005)
        y, x = np.mgrid[:65, :65]
        outside = np.hypot(x - 32, y - 32) > 21
        assert (np.round(made.images[:, 0][:, outside] / 255, 2) == 0.5).all()
        # distance grows to the left, so a stripe a quarter period on lies to the right
        row = share(made.images)[1, 32]
        assert 24 + row[24:41].argmax() == 36
        assert made.parameters["phase_deg"].tolist() == [0, 90, 180]
        assert made.parameters["radius_px"].tolist() == [20] * 3

    def test_formula(self):
        made = gratings([20], [5], [70], 40, centre_px=(10.0, 15.0), contrast=0.8)
        y, x = np.mgrid[:40, :40]
        angle = np.deg2rad(110)
        d = (x - 10) * np.cos(angle) - (y - 15) * np.sin(angle)
        wanted = 0.5 + 0.4 * np.cos(2 * np.pi * 5 * d / 40 + np.deg2rad(70))
        np.testing.assert_allclose(share(made.images)[0], wanted, atol=0.003)
        assert np.isinf(made.parameters["radius_px"][0])

    def test_order_is_orientation_frequency_phase(self):
        table = gratings([0, 90], [2, 4], [0, 180], 16).parameters
        assert table["orientation_deg"].tolist() == [0] * 4 + [90] * 4
        assert table["cycles_per_image"].tolist() == [2, 2, 4, 4] * 2
        assert table["phase_deg"].tolist() == [0, 180] * 4

    def test_refuses_what_pixels_cannot_show(self):
        with pytest.raises(InputError, match="at most 8 cycles"):
            gratings([0], [9], [0], 16)
        with pytest.raises(InputError, match="contrast must be within"):
            gratings([0], [2], [0], 16, contrast=1.5)


class TestLines:
    @settings(max_examples=20, deadline=None)
    @given(st.floats(0, 180), st.floats(12, 40), st.floats(2, 9))
    def test_bars(self, orientation, length, width):
        bar = bars([orientation], 64, length_px=length, width_px=width, **ON_BLACK)
        assert area(bar.images)[0] == pytest.approx(length * width, rel=0.01)
        assert turned(orientation_of(share(bar.images)[0]), orientation) < 1

    @settings(max_examples=20, deadline=None)
    @given(st.floats(0, 360), st.floats(-10, 10))
    def test_edges(self, direction, offset):
        made = share(edges([direction], [offset], 41).images)[0]
        y, x = np.mgrid[:41, :41] - 20
        angle = np.deg2rad(direction)
        ahead = x * np.cos(angle) - y * np.sin(angle) - offset
        assert (made[ahead > 0.75] == 1).all()
        assert (made[ahead < -0.75] == 0).all()
        # a border pixel's level is how far the edge lies from its middle, if the edge is upright
        straight = share(edges([0], [offset], 41).images)[0]
        np.testing.assert_allclose(straight.sum(axis=1), 20.5 - offset, atol=0.01)

    @settings(max_examples=20, deadline=None)
    @given(st.floats(0.01, 0.12), st.floats(0, 360), st.floats(3, 6))
    def test_curves_have_the_length_bend_and_direction_asked_for(self, curvature, direction, width):
        length = 40.0
        made = curves([curvature], [direction], 81, length_px=length, width_px=width, **ON_BLACK)
        image = share(made.images)[0]
        assert image.sum() == pytest.approx(length * width + np.pi * width**2 / 4, rel=0.01)
        angles = np.deg2rad(direction) + np.linspace(-0.5, 0.5, 41) * length * curvature
        outward = np.stack([np.cos(angles), -np.sin(angles)])  # right and down
        middle = outward[:, 20:21]  # from the arc's centre to its middle
        for aside, level in ((-width / 2 - 1.5, 0), (0, 1), (width / 2 + 1.5, 0)):
            at = 40 + (1 / curvature + aside) * outward - middle / curvature
            np.testing.assert_allclose(map_coordinates(image, at[::-1], order=1), level, atol=0.02)

    def test_a_curve_of_no_curvature_is_a_bar_with_round_ends(self):
        line = curves([0], [90], 64, length_px=30.0, width_px=4.0, **ON_BLACK)
        assert area(line.images)[0] == pytest.approx(30 * 4 + np.pi * 4, rel=0.005)
        assert turned(orientation_of(share(line.images)[0]), 0) < 0.1
        nearly = curves([1e-4], [90], 64, length_px=30.0, width_px=4.0, **ON_BLACK)
        assert np.abs(line.images.astype(int) - nearly.images).max() <= 4

    def test_refuses_arcs_beyond_a_full_turn(self):
        with pytest.raises(InputError, match=r"bends by at most 0\.157"):
            curves([0.2], [0], 64, length_px=40.0, width_px=2.0)


class TestNoiseAndColours:
    def test_noise_is_uniform_grey_and_seeded(self):
        noise = white_noise(3, 100, rng=np.random.default_rng(0))
        assert (noise.images == noise.images[:, :1]).all()
        levels = noise.images[:, 0].ravel()
        assert (levels.min(), levels.max()) == (0, 255)
        assert levels.mean() == pytest.approx(127.5, abs=1.5)
        assert levels.std() == pytest.approx(73.9, abs=1)
        again = white_noise(3, 100, rng=np.random.default_rng(0))
        np.testing.assert_array_equal(noise.images, again.images)

    def test_blocks(self):
        coarse = white_noise(1, 10, rng=np.random.default_rng(0), block_px=4).images[0, 0]
        assert len(np.unique(coarse[:4, :4])) == 1
        assert len(np.unique(coarse)) == 9
        assert coarse.shape == (10, 10)

    def test_plain_colours(self):
        plain = plain_colours([(1, 2, 3), (255, 0, 0)], 5)
        assert plain.images[:, :, 2, 3].tolist() == [[1, 2, 3], [255, 0, 0]]
        assert plain.images.reshape(2, 3, -1).std(axis=2).max() == 0
        assert plain.parameters["foreground"].tolist() == ["#010203", "#ff0000"]


class TestCatalogue:
    def test_every_kind_and_its_own_parameters(self):
        natural = np.random.default_rng(1).integers(0, 256, (3, 3, 48, 48), dtype=np.uint8)
        made = catalogue(48, rng=np.random.default_rng(0), natural=natural)
        assert made.kinds == (
            "natural", "gaudy", "dot size", "dot place", "dot number", "grating", "edge", "bar",
            "curve", "colour", "noise",
        )  # fmt: skip
        assert [len(made.of_kind(kind)) for kind in made.kinds] == [3, 3, 8, 9, *[8] * 7]
        np.testing.assert_array_equal(made.of_kind("natural").images, natural)
        np.testing.assert_array_equal(made.of_kind("gaudy").images, gaudy(natural))
        assert set(made.of_kind("bar").parameters) == {
            "kind", "x_px", "y_px", "orientation_deg", "length_px", "width_px", "foreground",
            "background",
        }  # fmt: skip
        assert not made.of_kind("curve").parameters.isna().any().any()
        flat = made.images.reshape(len(made), -1)
        assert len(np.unique(flat, axis=0)) == len(made)
        assert made.stimuli().names[:4] == (
            "natural0001",
            "natural0002",
            "natural0003",
            "gaudy0001",
        )
        assert repr(made.of_kind("edge")) == "Drawn(8 images: edge)"

    def test_looks_the_same_at_any_size(self):
        small, large = (
            catalogue(size, rng=np.random.default_rng(0)).of_kind("curve").images / 255
            for size in (56, 112)
        )
        halved = large.reshape(8, 3, 56, 2, 56, 2).mean((3, 5))
        np.testing.assert_allclose(small.mean((2, 3)), halved.mean((2, 3)), atol=0.003)

    def test_refuses_bad_input(self):
        with pytest.raises(InputError, match="at least 32"):
            catalogue(31, rng=np.random.default_rng(0))
        made = dots_of_size([1], 16)
        for call, message in (
            (lambda: made.of_kind("bar"), "no kind 'bar'; there are dot size"),
            (lambda: Drawn.concatenate([]), "give at least one"),
            (lambda: Drawn.concatenate([made, dots_of_size([1], 17)]), "different sizes"),
            (lambda: Drawn(made.images[:0], made.parameters), "one row an image"),
            (lambda: Drawn(made.images, made.parameters.drop(columns="kind")), "no column `kind`"),
        ):
            with pytest.raises(InputError, match=message):
                call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dots_of_size([], 16), "radii_px must be"),
        (lambda: dots_of_size([-1], 16), "at least 0"),
        (lambda: dots_of_size([np.nan], 16), "finite"),
        (lambda: dots_of_size([1], 0), "size must be"),
        (lambda: dots_of_size([1], 16, foreground=(0, 0, 256)), "whole levels"),
        (lambda: dots_at(0, 16), "n_across"),
        (lambda: dots_in_number([1], 16, rng=np.random.default_rng(0), n_draws=0), "n_draws"),
        (lambda: gratings([], [1], [0], 16), "orientations_deg"),
        (lambda: gratings([0], [0], [0], 16), "above 0"),
        (lambda: gratings([0], [1], [0], 16, radius_px=0.0), "radius_px"),
        (lambda: bars([0], 16, length_px=0.0, width_px=1.0), "length_px"),
        (lambda: curves([-0.1], [0], 16, length_px=2.0, width_px=1.0), "curvatures_per_px"),
        (lambda: edges([], [0], 16), "directions_deg"),
        (lambda: plain_colours([], 16), "no colour"),
        (lambda: white_noise(0, 16, rng=np.random.default_rng(0)), "at least 1"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
