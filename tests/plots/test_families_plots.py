import numpy as np
import pytest

from pocketcortex import plots
from pocketcortex.core import InputError


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def families(rng, counts=(3, 2)):
    names = ["dot", "edge"]
    return {
        "images": {
            name: rng.integers(256, size=(n, 3, 28, 28), dtype=np.uint8)
            for name, n in zip(names, counts, strict=True)
        },
        "scores": {
            name: np.sort(rng.uniform(size=n))[::-1].copy()
            for name, n in zip(names, counts, strict=True)
        },
        "names": {
            name: [f"neuron {k}" for k in range(n)] for name, n in zip(names, counts, strict=True)
        },
    }


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


class TestFamilies:
    def test_every_image_pixel_for_pixel_with_name_and_score(self, rng):
        given = families(rng)
        given["scores"]["dot"] = np.array([2.5, 0.75, -0.25])
        figure = plots.figure_families(**given, title="a session", score_name="d′")
        sheet = np.asarray(figure.axes[0].images[0].get_array())
        for of_family in given["images"].values():
            for image in of_family:
                big = image.transpose(1, 2, 0).repeat(4, 0).repeat(4, 1)
                starts = np.argwhere((sheet == big[0, 0]).all(axis=-1))
                assert any(np.array_equal(sheet[y : y + 112, x : x + 112], big) for y, x in starts)
        told = texts(figure)
        assert {"a session", "dot", "edge", "below: model, d′", "2.50", "−0.250"} <= set(told)
        assert told.count("neuron 0") == 2

    def test_long_rows_go_on_below(self, rng):
        heights = [
            plots.figure_families(**families(rng, (5, 1)), columns=columns).get_figheight()
            for columns in (5, 2)
        ]
        assert heights[1] > heights[0]

    def test_texts_do_not_meet(self, rng):
        figure = plots.figure_families(**families(rng), title="a")
        figure.canvas.draw()
        boxes = [text.get_window_extent() for text in figure.axes[0].texts]
        for k, box in enumerate(boxes):
            assert box.x0 >= 0
            assert box.x1 <= figure.bbox.x1
            assert not any(box.overlaps(other) for other in boxes[:k])

    def test_refuses_what_does_not_fit(self, rng):
        good = families(rng)

        def refused(match, **changed):
            with pytest.raises(InputError, match=match):
                plots.figure_families(**(good | changed))

        refused("same families", images={})
        refused("same families", names={"dot": ["a"] * 3})
        refused("got 3 images, 3 scores, 1 names", names={"dot": ["a"], "edge": ["a"] * 2})
        refused("must fall", scores={"dot": np.arange(3.0), "edge": np.zeros(2)})
        refused("columns", columns=0)
        other = dict(good["images"]) | {"edge": np.zeros((2, 3, 8, 8), dtype=np.uint8)}
        refused("one size", images=other)


class TestScores:
    def test_models_stand_by_preferred_family_and_score(self):
        scores = np.array([[0.1, 0.9], [0.5, 0.2], [0.0, 1.0], [0.8, 0.3]])
        ax = plots.plot_family_scores(scores, ["dot", "edge_$"], names=list("abcd"), measure="d′")
        np.testing.assert_array_equal(ax.images[0].get_array(), scores[[3, 1, 2, 0]].T)
        assert [t.get_text() for t in ax.get_xticklabels()] == ["d", "b", "c", "a"]
        assert [t.get_text() for t in ax.get_yticklabels()] == ["dot", "edge_$"]
        assert [(t.get_text(), t.xy[0]) for t in ax.texts] == [("2", 0.5), ("2", 2.5)]
        assert ax.child_axes[0].get_ylabel() == "d′"

    def test_a_family_nobody_prefers_has_no_count(self):
        ax = plots.plot_family_scores(np.array([[1.0, 0.0, 0.5]]), ["a", "b", "c"])
        assert [t.get_text() for t in ax.texts] == ["1"]

    def test_many_models_are_not_named(self, rng):
        scores = rng.uniform(size=(60, 2))
        ax = plots.plot_family_scores(scores, ["a", "b"], names=[str(k) for k in range(60)])
        assert not ax.get_xticklabels()

    def test_same_numbers_same_bytes(self):
        one, two = (
            plots.render_figure(
                plots.plot_family_scores(np.random.default_rng(1).uniform(size=(5, 2)), ["a", "b"])
            ).png
            for _ in range(2)
        )
        assert one == two

    def test_refuses_what_does_not_fit(self, rng):
        scores = rng.uniform(size=(3, 2))
        with pytest.raises(InputError, match="1 families"):
            plots.plot_family_scores(scores, ["a"])
        with pytest.raises(InputError, match="2 names"):
            plots.plot_family_scores(scores, ["a", "b"], names=["x", "y"])
        with pytest.raises(InputError, match="NaN"):
            plots.plot_family_scores(scores * np.nan, ["a", "b"])
