"""Every tutorial runs, prints what stands in it, and leaves the figures it shows."""

import os
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs" / "scripts"))

import tutorials  # noqa: E402

PAGES = sorted(page for page in tutorials.TUTORIALS.glob("*.md") if page.stem != "index")


@pytest.mark.data
@pytest.mark.parametrize(
    "page", [p for p in PAGES if tutorials.needs_data(p)], ids=lambda p: p.stem
)
def test_tutorial_on_published_recordings(
    page: Path, tmp_path: Path, real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POCKETCORTEX_DATA", os.path.abspath(real_data))
    check(page, tmp_path)


@pytest.mark.parametrize(
    "page", [p for p in PAGES if not tutorials.needs_data(p)], ids=lambda p: p.stem
)
def test_tutorial(page: Path, tmp_path: Path) -> None:
    check(page, tmp_path)


def check(page: Path, folder: Path) -> None:
    text = page.read_text("utf-8")
    shown = tutorials.outputs(text)
    printed = tutorials.outputs(tutorials.run_tutorial(page, folder))
    for place, (old, new) in enumerate(zip(shown, printed, strict=True)):
        assert tutorials.same_output(old, new), (
            f"block {place + 1} of {page.name} prints\n{new}\nwhere the page has\n{old}\n"
            f"run docs/scripts/tutorials.py {page.stem} if that is right"
        )
    figures = re.findall(r"\]\(\.\./figures/([\w-]+\.png)\)", text)
    assert figures
    assert {path.name for path in folder.glob("*.png")} == set(figures)
    for name in figures:
        with Image.open(folder / name) as made, Image.open(tutorials.FIGURES / name) as kept:
            assert abs(made.width - kept.width) < 0.1 * kept.width


def test_there_are_six_and_the_index_names_them() -> None:
    index = (tutorials.TUTORIALS / "index.md").read_text("utf-8")
    assert re.findall(r"\]\(([\w-]+\.md)\)", index) == [
        "noise-ceilings.md", "mappings.md", "compact-models.md", "stimuli.md", "dot-detector.md",
        "layers.md",
    ]  # fmt: skip
    assert len(PAGES) == 6
    for page in PAGES:
        assert "You will learn" in page.read_text("utf-8")


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("median 0.41\n", "median 0.42\n", True),
        ("median 0.41\n", "median 0.52\n", False),
        ("12,469 parameters", "12,400 parameters", True),
        ("12,469 parameters", "11,000 parameters", False),
        ("gain −0.10", "gain 0.10", False),
        ("neuron a 0.4", "neuron b 0.4", False),
        ("1 2", "1 2 3", False),
    ],
)
def test_outputs_are_compared_by_words_and_numbers(shown: str, printed: str, same: bool) -> None:
    assert tutorials.same_output(shown, printed) == same


def test_a_block_that_prints_something_else_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 2\nprint(x)\n```\n\n```text\n3\n```\n\n```python\ny = x\n```\n")
    new = tutorials.run_tutorial(page, tmp_path)
    assert tutorials.outputs(page.read_text()) == ["3\n", ""]
    assert tutorials.outputs(new) == ["2\n", ""]
    page.write_text(new)
    assert tutorials.run_tutorial(page, tmp_path) == new


def test_an_error_names_the_page_and_its_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("words\n\n```python\nx = 1\nx / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as caught:
        tutorials.run_tutorial(page, tmp_path)
    last = caught.traceback[-1]
    assert (Path(str(last.path)).name, last.lineno + 1) == ("page.md", 5)
