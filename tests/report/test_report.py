import html
import itertools
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pocketcortex.core import InputError
from pocketcortex.metrics import StimulusRoles, causal_effects, population_effects
from pocketcortex.plots import CompactWeights
from pocketcortex.report import ReportContent, page, write_report
from pocketcortex.report.figures import report_figures
from pocketcortex.report.files import content_tables

MODELS = {"teacher": 0.5, "compact": 0.4, "published": 0.42}
EVIL = "<script>alert('1')</script>"


def scores():
    rng = np.random.default_rng(0)
    rows = []
    for neuron in range(4):
        for model, level in MODELS.items():
            value = level + 0.05 * rng.normal()
            rows.append(("190923", neuron, model, "noise_corrected_r2", value, value - 0.051,
                         value + 0.049, 600, ""))  # fmt: skip
    table = pd.DataFrame(
        rows,
        columns=["session", "neuron", "model", "metric", "value", "ci_low", "ci_high",
                 "n_stimuli", "reason"],
    )  # fmt: skip
    gone = (table["neuron"] == 2) & (table["model"] == "compact")
    table.loc[gone, ["value", "ci_low", "ci_high"]] = np.nan
    table.loc[gone, "reason"] = "variance < noise"
    return table


def weights():
    rng = np.random.default_rng(1)
    filters = (3, 2, 2, 1, 2)
    return CompactWeights(
        "neuron 1",
        rng.normal(size=(3, 3, 5, 5)),
        [rng.normal(size=(n, 5, 5)) for n in filters[:-1]],
        [rng.normal(size=(m, n)) for n, m in itertools.pairwise(filters)],
        rng.normal(size=(2, 7, 7)),
    )


def content(**changes):
    images = np.random.default_rng(2).integers(256, size=(2, 4, 3, 8, 8), dtype=np.uint8)
    given = {
        "title": "Session 190923",
        "subtitle": "4 neurons",
        "headline": [
            ("median r² compact", 0.3125, "3 neurons, 600 held-out images"),
            ("parameters", 12469, "median"),
            ("adversarial rate", None, "not measured"),
        ],
        "scores": scores(),
        "parameters": {"teacher": 62.78e6, "compact": 12469.0, "published": float("nan")},
        "filters": np.array([[48, 48, 60, 3, 3, 3], [46, 46, 12, 3, 9, 3]]),
        "galleries": {"natural": images[0], "synthesized": images[1]},
        "neuron_labels": [f"neuron {k}" for k in range(4)],
        "weights": weights(),
        "methods": ["r² is the unbiased estimator."],
        "provenance": {"seed": 7, "inputs": {"responses.npy": "ab12"}, "commit": None},
        "median_ci": {"noise_corrected_r2": {"compact": (0.3, 0.5)}},
    }
    return ReportContent(**{**given, **changes})


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_report(content(), tmp_path_factory.mktemp("run") / "deep" / "report.html")


def text_of(path):
    """Return a page's text as a reader sees it."""
    source = re.sub(r"<style>.*?</style>", "", path.read_text(), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", source)).split())


def test_page_holds_every_number(written):
    text = text_of(written)
    known = scores().dropna(subset="value")
    for column in ("value", "ci_low", "ci_high"):
        for value in known[column]:
            assert f"{value:.3f}" in text
    for expected in ("0.312", "12,469", "62,780,000", "600", "not measured", "3 neurons, 600",
                     "r² is the unbiased estimator.", '{"responses.npy": "ab12"}', "seed 7",
                     "n = 3 of 4", "Figure 6."):  # fmt: skip
        assert expected in text


def test_missing_numbers_are_dashes_with_reasons(written):
    text = text_of(written)
    assert "adversarial rate – not measured" in text
    assert "– variance < noise" in text
    assert "1 neuron under compact (variance < noise)" in text
    assert "published – not known" in text
    assert "commit – (not recorded)" in text
    assert not re.search(r"\bnan\b|\bNone\b", text)


def test_page_is_self_contained_and_well_formed(written):
    class Page(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open, self.links = [], []

        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "img"):
                self.open.append(tag)
            self.links += [value for name, value in attrs if name in ("src", "href", "srcset")]

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    source = written.read_text()
    parsed = Page()
    parsed.feed(source)
    assert not parsed.open
    assert len(parsed.links) == 6
    assert all(link.startswith("data:image/") for link in parsed.links)
    assert not re.search(r"https?://|//cdn|url\(|@import|<script|<link", source)


def test_figures_and_tables_lie_beside_the_page(written):
    figures = sorted(path.name for path in (written.parent / "figures").iterdir())
    assert figures == [
        "filters_per_layer.png", "filters_per_layer.svg", "noise_corrected_r2_by_model.png",
        "noise_corrected_r2_by_model.svg", "noise_corrected_r2_scatter.png",
        "noise_corrected_r2_scatter.svg", "parameters.png", "parameters.svg", "stimuli.png",
        "weights.png",
    ]  # fmt: skip
    for name in figures:
        if name.endswith(".png"):
            with Image.open(written.parent / "figures" / name) as image:
                assert min(image.size) > 100
        else:
            drawing = ElementTree.parse(written.parent / "figures" / name)  # noqa: S314 - our own
            linked = [value for node in drawing.iter() for key, value in node.attrib.items()
                      if key.endswith("href")]  # fmt: skip
            assert all(link.startswith("#") for link in linked)
    read = pd.read_csv(written.parent / "scores.csv", dtype={"session": str}, keep_default_na=True)
    assert np.allclose(read["value"], scores()["value"], equal_nan=True)
    assert sorted(p.name for p in written.parent.iterdir()) == [
        "figures", "report.html", "scores.csv", "tables",
    ]  # fmt: skip


def test_tables_hold_what_figures_draw(written):
    tables = {path.stem: pd.read_csv(path) for path in (written.parent / "tables").iterdir()}
    assert sorted(tables) == ["filters", "medians", "parameters"]
    compact = tables["medians"].set_index("model").loc["compact"]
    own = scores().query("model == 'compact'")["value"]
    assert compact["median"] == pytest.approx(own.median())
    assert (compact["n_neurons"], compact["n_without"]) == (3, 1)
    assert (compact["ci_low"], compact["ci_high"]) == (0.3, 0.5)
    assert np.isnan(tables["medians"].set_index("model").loc["teacher", "ci_low"])
    counts = tables["parameters"].set_index("model")["n_parameters"]
    assert counts["compact"] == 12469
    assert np.isnan(counts["published"])
    assert tables["filters"].columns.tolist() == [*(f"layer {k}" for k in range(5)), "readout"]
    assert tables["filters"].to_numpy().tolist() == content().filters.tolist()


def test_tables_of_causal_tests_and_families_and_sizes(tmp_path):
    effects = pd.DataFrame({"neuron": [0, 1], "percent": [12.5, np.nan]})
    population = pd.DataFrame({"role": ["random"], "n_neurons": [2], "percent_mean": [12.5]})
    sizes = pd.DataFrame({"session": ["190923"], "neuron": [0], "model": ["compact"],
                          "n_parameters": [9]})  # fmt: skip
    given = content(
        causal=(effects, population), sizes=sizes,
        family_scores=np.array([[1.0, 0.5]]), family_names=("dot", "edge"),
    )  # fmt: skip
    tables = content_tables(given)
    assert tables["causal_effects"] is effects
    assert tables["causal_population"] is population
    assert tables["sizes"] is sizes
    assert tables["family_scores"].to_dict("list") == {"dot": [1.0], "edge": [0.5]}
    assert not content_tables(ReportContent("Empty", "", [], scores().iloc[:0]))


def test_names_are_escaped(tmp_path):
    table = scores()
    table["session"] = EVIL
    table.loc[table["reason"] != "", "reason"] = EVIL
    evil = content(
        title=EVIL, subtitle=EVIL, headline=[(EVIL, EVIL, EVIL)], scores=table,
        parameters={EVIL: 3.0}, galleries={}, neuron_labels=[], methods=[EVIL],
        provenance={EVIL: EVIL},
    )  # fmt: skip
    source = write_report(evil, tmp_path / "report.html").read_text()
    assert "<script" not in source
    assert source.count("&lt;script&gt;") > 10


def test_metric_names_cannot_leave_the_folder(tmp_path):
    table = scores()
    table["metric"] = "../../r2"
    write_report(ReportContent("Run", "", [], table), tmp_path / "run" / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_page_of_nothing_says_so(tmp_path):
    bare = ReportContent("Empty", "no data", [], scores().iloc[:0])
    text = text_of(write_report(bare, tmp_path / "report.html"))
    assert text.count("– The run gave no numbers for this part.") == 5
    assert "– No scores were given." in text


def test_a_failure_leaves_the_old_page(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(page.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(ReportContent("New", "", [], scores().iloc[:0]), path)
    assert path.read_text() == "old"
    assert not list(tmp_path.rglob("*.partial"))


def test_the_same_content_gives_the_same_page(written, tmp_path):
    again = write_report(content(), tmp_path / "report.html")
    assert again.read_bytes() == written.read_bytes()


def test_refuses_a_path_that_is_no_page(tmp_path):
    with pytest.raises(InputError, match=r"ending in \.html"):
        write_report(content(), tmp_path / "report.pdf")


def test_content_refuses_what_cannot_be_shown_honestly():
    table = scores()
    with pytest.raises(InputError, match="lack the column ci_low"):
        content(scores=table.drop(columns="ci_low"))
    with pytest.raises(InputError, match="two rows"):
        content(scores=pd.concat([table, table]))
    with pytest.raises(InputError, match="has no reason"):
        content(scores=table.assign(reason=""))
    nullable = table.astype({"value": "Float64", "n_stimuli": "Int64"}).assign(reason="")
    with pytest.raises(InputError, match="has no reason"):
        content(scores=nullable)
    with pytest.raises(InputError, match="must say why"):
        content(headline=[("rate", float("nan"), "")])
    with pytest.raises(InputError, match="one image a neuron"):
        content(neuron_labels=["only one"])


def test_stimuli_and_their_causal_test_are_drawn_with_how_they_were_made(tmp_path):
    rng = np.random.default_rng(3)
    images = [rng.integers(256, size=(2, 3, 16, 16), dtype=np.uint8) for _ in range(5)]
    names = ["neuron 0", "neuron 3"]
    roles = StimulusRoles(
        ("random",) * 8 + ("natural_max", "adversarial+") * 4,
        np.array([-1] * 8 + [0, 0, 1, 1, 0, 0, 1, 1]),
        np.array([-1] * 8 + [-1, 0, -1, 0, -1, 1, -1, 1]),
    )
    responses = rng.poisson(5.0, (16, 4, 2)).astype(float)
    responses[8:] += 6
    effects = causal_effects(responses, roles, rng=rng, n_permutations=200)
    shown = content(
        groups=(np.array([2, 0, 1]), np.array([0, 1, 0, 2])),
        adversarial={
            "base": images[0], "raised": images[1], "lowered": images[2],
            "responses": rng.normal(size=(2, 3)), "labels": names,
        },
        smoothed={
            "images": images[0], "maps": rng.normal(size=(2, 3, 3)), "patch": 4,
            "positions": np.stack(np.meshgrid([0, 4, 8], [0, 4, 8], indexing="ij"), axis=-1),
            "patches": np.array([[[0, 4]], [[8, 8]]]), "responses": rng.normal(size=(2, 3)),
            "labels": names, "smoothed": images[3], "random": images[4],
        },
        causal=(effects, population_effects(effects, rng=rng, n_permutations=200)),
        stimuli_notes={"adversarial": "Largest change: 4 levels rms.", "causal": "Five repeats."},
    )  # fmt: skip
    path = write_report(shown, tmp_path / "report.html")
    drawn = {p.stem for p in (tmp_path / "figures").glob("*.png")}
    assert {"population", "adversarial", "smoothed", "causal"} <= drawn
    assert "population" not in {p.stem for p in write_report(content(), tmp_path / "b" / "r.html")
                                .parent.glob("figures/*.png")}  # fmt: skip
    text = text_of(path)
    assert "Largest change: 4 levels rms." in text
    assert "Five repeats." in text
    for figure in report_figures(shown):  # how many neurons or models each rests on
        if figure.name != "parameters":
            assert re.search(r"n = \d|\b\d+ (neurons|compact models)", figure.caption), figure.name
