import dataclasses

import numpy as np
import pytest

from pocketcortex import plots
from pocketcortex.core import InputError
from pocketcortex.plots.sheet import colour_patch, diverging


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def circuit(rng, counts=(2, 2, 3, 2, 2, 1)):
    nodes = []
    for stage, count in enumerate(counts):
        for channel in range(count):
            shape = (3, 5, 5) if stage == 0 else (28, 28) if stage == 5 else (5, 5)
            effect = float(rng.normal())
            nodes.append(
                plots.CircuitNode(stage, channel, rng.normal(size=shape), effect, "left edge")
            )
    links = [
        (stage, a, b)
        for stage in range(1, 5)
        for a in range(counts[stage])
        for b in range(counts[stage + 1])
    ]
    return nodes, np.array(links), rng.normal(size=len(links))


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def strength_lines(figure):
    """Return widths and reds of the weighted lines."""
    drawn = figure.axes[0].collections[2]  # after the two samples of the legend
    return drawn.get_linewidths(), drawn.get_colors()[:, 0] > drawn.get_colors()[:, 2]


class TestCircuit:
    def test_lines_have_width_and_colour_of_their_weight(self, rng):
        nodes, links, weights = circuit(rng)
        widths, red = strength_lines(plots.figure_circuit(nodes, links, weights))
        order = np.argsort(np.abs(weights), kind="stable")
        assert len(widths) == len(weights)
        np.testing.assert_array_equal(red, weights[order] > 0)
        assert (np.diff(widths) >= 0).all()
        share = np.abs(weights[order]) / np.abs(weights).max()
        np.testing.assert_allclose(widths, 0.5 + 4.5 * share)

    def test_lines_join_their_nodes(self, rng):
        nodes, _, _ = circuit(rng, (1, 1, 2, 1, 1, 1))
        links = np.array([[1, 0, 1], [2, 1, 0]])
        figure = plots.figure_circuit(nodes, links, np.array([1.0, 2.0]))
        first, second = (p.vertices for p in figure.axes[0].collections[2].get_paths())
        assert first[0, 0] < first[-1, 0] < second[0, 0] < second[-1, 0]
        assert first[-1, 1] == pytest.approx(second[0, 1])  # both at layer 2's kernel 1
        assert first[0, 1] != pytest.approx(first[-1, 1])

    def test_kernels_and_borders(self, rng):
        nodes, links, weights = circuit(rng)
        figure = plots.figure_circuit(nodes, links, weights)
        sheet = np.asarray(figure.axes[0].images[0].get_array())
        for node in (nodes[0], nodes[4]):
            kernel = node.kernel
            tile = (
                colour_patch(kernel) if node.stage == 0 else diverging(kernel, np.abs(kernel).max())
            )
            big = tile.repeat(20, 0).repeat(20, 1)
            starts = np.argwhere((sheet == big[0, 0]).all(axis=-1))
            assert any(np.array_equal(sheet[y : y + 100, x : x + 100], big) for y, x in starts)
        frames = figure.axes[0].collections[-1].get_colors()
        red = frames[:, 0] > frames[:, 2]
        np.testing.assert_array_equal(red, [node.effect > 0 for node in nodes])

    def test_tells_title_labels_and_explanation(self, rng):
        nodes, links, weights = circuit(rng)
        explanation = "Edges " * 60 + "\n\nsecond paragraph"
        figure = plots.figure_circuit(
            nodes, links, weights, title="neuron 3", explanation=explanation,
            response_name="response (z)",
        )  # fmt: skip
        told = texts(figure)
        assert {"neuron 3", "layer 0", "readout", "image", "response (z)"} <= set(told)
        assert told.count("0  left edge") == 6
        assert "second paragraph" in told
        assert max(map(len, told)) < 160
        assert any(f"the widest ±{np.abs(weights).max():.2g}" in text for text in told)

    def test_only_the_strongest_lines_where_there_are_many(self, rng):
        nodes, links, weights = circuit(rng)
        figure = plots.figure_circuit(nodes, links, weights, max_links=5)
        widths, _ = strength_lines(figure)
        assert len(widths) == 5
        assert widths[0] == pytest.approx(
            0.5 + 4.5 * np.sort(np.abs(weights))[-5] / np.abs(weights).max()
        )
        assert any(f"5 largest of {len(weights)} drawn" in text for text in texts(figure))

    @pytest.mark.parametrize("counts", [(1, 1, 1, 0, 0, 0), (12, 12, 8, 3, 3, 3)])
    def test_nothing_leaves_the_sheet_or_meets(self, counts, rng):
        nodes, links, weights = circuit(rng, counts)
        image = rng.integers(256, size=(3, 112, 112), dtype=np.uint8)
        figure = plots.figure_circuit(nodes, links, weights, image=image, title="a")
        figure.canvas.draw()
        boxes = [text.get_window_extent() for text in figure.axes[0].texts]
        for k, box in enumerate(boxes):
            assert box.x0 >= 0
            assert box.x1 <= figure.bbox.x1
            assert box.y0 >= 0
            assert not any(box.overlaps(other) for other in boxes[:k])

    def test_columns_are_ordered_by_what_they_lead_to(self, rng):
        nodes, _, _ = circuit(rng, (0, 0, 0, 0, 2, 2))
        # kernel 0 of layer 4 leads to readout 1 only, kernel 1 to readout 0: no line crosses
        links = np.array([[4, 0, 1], [4, 1, 0]])
        figure = plots.figure_circuit(nodes, links, np.ones(2))
        for path in figure.axes[0].collections[2].get_paths():
            assert path.vertices[0, 1] == pytest.approx(path.vertices[-1, 1])

    def test_same_numbers_same_bytes(self):
        one, two = (
            plots.render_figure(plots.figure_circuit(*circuit(np.random.default_rng(1)))).png
            for _ in range(2)
        )
        assert one == two

    def test_refuses_what_is_no_circuit(self, rng):
        nodes, links, weights = circuit(rng)

        def refused(match, nodes=nodes, links=links, weights=weights):
            with pytest.raises(InputError, match=match):
                plots.figure_circuit(nodes, links, weights)

        none = np.zeros((0, 3), dtype=int), np.zeros(0)
        refused("needs nodes", [], *none)
        refused("each stage and channel once", [nodes[0], nodes[0]], *none)
        refused("stages are 0 to 5", [dataclasses.replace(nodes[5], stage=6)], *none)
        refused(r"must be \(3,", [dataclasses.replace(nodes[5], stage=0)], *none)
        refused("NaN", [dataclasses.replace(nodes[5], effect=np.nan)], *none)
        refused("finite weight", weights=weights * np.nan)
        refused("must join two nodes", links=links + np.array([0, 9, 0]))
        refused("stages 1 to 5", links=links * np.array([0, 1, 1]))
