"""Sheets of stimuli: every image is where it belongs, pixel for pixel."""

import io

import numpy as np
import pytest
from PIL import Image

from pocketcortex import plots
from pocketcortex.core import InputError


def images(n, size=28, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 3, size, size), dtype=np.uint8)


def bitmap(figure):
    png = plots.render_figure(figure).png
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def texts(figure):
    return [text.get_text() for text in figure.texts]


def found_at(sheet, image, scale):
    """Return top and left of where an enlarged image lies in a bitmap; it lies there once."""
    tile = image.transpose(1, 2, 0).repeat(scale, 0).repeat(scale, 1)
    high, wide = tile.shape[:2]
    starts = np.argwhere((sheet == tile[0, 0]).all(axis=2))
    places = [
        (int(y), int(x)) for y, x in starts
        if np.array_equal(sheet[y : y + high, x : x + wide], tile)
    ]  # fmt: skip
    assert len(places) == 1
    return places[0]


class TestContactSheet:
    def test_rows_are_kinds_and_columns_images(self):
        rows = {"dots": images(3), "$noise^": images(2, seed=1)}
        figure = plots.figure_contact_sheet(rows)
        assert texts(figure) == ["dots", "$noise^"]
        sheet = bitmap(figure)
        dots, noise = ([found_at(sheet, image, 3) for image in kind] for kind in rows.values())
        assert len({top for top, _ in dots}) == 1
        assert [left for _, left in dots[:2]] == [left for _, left in noise]
        assert dots[0][1] < dots[1][1] < dots[2][1]
        assert noise[0][0] >= dots[0][0] + 28 * 3
        for (top, _), text in zip((dots[0], noise[0]), figure.texts, strict=True):
            middle = (1 - text.get_position()[1]) * len(sheet)
            assert middle == pytest.approx(top + 42, abs=1)

    def test_many_images_go_on_below(self):
        kind = images(5)
        sheet = bitmap(plots.figure_contact_sheet({"a": kind}, columns=2))
        places = [found_at(sheet, image, 3) for image in kind]
        assert [sum(top == y for y, _ in places) for top in sorted({y for y, _ in places})] == [
            2, 2, 1,
        ]  # fmt: skip

    def test_a_white_image_has_a_frame(self):
        sheet = bitmap(plots.figure_contact_sheet({"": np.full((1, 3, 96, 96), 255, np.uint8)}))
        assert (sheet == 200).all(axis=2).sum() == 4 * 97

    def test_refuses_bad_input(self):
        for rows, columns, message in (
            ({}, 2, "no kind"), ({"a": images(0)}, 2, "n > 0"), ({"a": images(2)}, 0, "columns"),
            ({"a": images(1), "b": images(1, 20)}, 2, "one size"),
        ):  # fmt: skip
            with pytest.raises(InputError, match=message):
                plots.figure_contact_sheet(rows, columns=columns)


class TestPopulationGallery:
    def test_groups_stand_apart_in_the_order_given(self):
        population = images(9)
        labels = np.array([0, 1, 0, 1, 2, 0, 1, 1, 1])
        order = np.array([5, 0, 2, 8, 1, 3, 7, 6, 4])
        figure = plots.figure_population_gallery(population, order, labels, columns=4)
        assert texts(figure) == [
            "A · 3", "5", "0", "2", "B · 5", "8", "1", "3", "7", "6", "C", "4",
        ]  # fmt: skip
        sheet = bitmap(figure)
        at = {neuron: found_at(sheet, population[neuron], 4) for neuron in order}
        tops = [at[neuron][0] for neuron in order]
        assert tops == sorted(tops)
        assert len(set(tops[:3])) == len(set(tops[3:7])) == 1
        assert [at[n][1] for n in (5, 0, 2)] == [at[n][1] for n in (8, 1, 3)]
        assert at[6][1] == at[8][1]
        apart_within, apart_between = at[6][0] - at[8][0], at[8][0] - at[5][0]
        assert apart_between > apart_within

    def test_small_groups_share_a_line_with_a_wider_gap(self):
        population = images(5)
        figure = plots.figure_population_gallery(
            population, np.arange(5), np.array([0, 0, 1, 1, 2]), names=[], columns=8
        )
        assert texts(figure) == ["A · 2", "B · 2", "C"]
        sheet = bitmap(figure)
        places = [found_at(sheet, image, 4) for image in population]
        assert len({top for top, _ in places}) == 1
        steps = np.diff([left for _, left in places])
        assert steps[0] == steps[2]
        assert steps[1] == steps[3] > steps[0] + 10

    def test_a_part_of_the_neurons_and_their_names(self):
        figure = plots.figure_population_gallery(
            images(4), np.array([3, 1]), np.array([9, 2, 9, 2]), names=list("abcd")
        )
        assert texts(figure) == ["A · 2", "d", "b"]

    def test_many_neurons_of_many_groups(self):
        n = 219
        labels = np.sort(np.random.default_rng(0).integers(0, 40, n))
        figure = plots.figure_population_gallery(images(n, 14), np.arange(n), labels, columns=20)
        letters = [text for text in texts(figure) if not text.isdigit()]
        assert letters[26].startswith("AA")
        assert len(letters) == len(set(labels))

    def test_refuses_bad_input(self):
        good = {"images": images(3), "order": np.arange(3), "labels": np.array([0, 0, 1])}
        for wrong, message in (
            ({"images": images(0)}, "n > 0"), ({"labels": np.zeros(2, int)}, "a label"),
            ({"names": ["a"]}, "a name"), ({"order": np.array([0, 0])}, "each once"),
            ({"order": np.array([0, 3])}, "0..2"), ({"order": np.arange(0)}, "each once"),
            ({"order": np.array([0, 2, 1])}, "together"), ({"columns": 0}, "columns"),
        ):  # fmt: skip
            with pytest.raises(InputError, match=message):
                plots.figure_population_gallery(**(good | wrong))
