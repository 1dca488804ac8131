"""The site builds without a warning, asks nothing of a network, and is current."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

import pocketcortex

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs" / "scripts"))

import command_line  # noqa: E402
import configuration  # noqa: E402
import docstrings  # noqa: E402
import site_hooks  # noqa: E402


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
        env={"PATH": "/usr/bin:/bin", "NO_MKDOCS_2_WARNING": "1", "http_proxy": "http://127.0.0.1:9",
             "https_proxy": "http://127.0.0.1:9"},
    )  # fmt: skip
    assert built.returncode == 0, built.stderr[-3000:]
    return folder


class _Asked(HTMLParser):
    """Collects what a page loads by itself, and the equations in it."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.n_equations = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.n_equations += tag == "math"
        if tag in ("script", "img", "iframe", "source"):
            self.loads.append(given.get("src") or "")
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.loads.append(given.get("href") or "")


def asked(page: Path) -> _Asked:
    parsed = _Asked()
    parsed.feed(page.read_text("utf-8"))
    return parsed


def test_no_page_asks_anything_of_a_network(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        away = [link for link in asked(page).loads if re.match(r"(https?:)?//", link)]
        assert not away, f"{page.name} loads {away}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?https?:|@import", sheet.read_text("utf-8")), sheet.name


def test_equations_are_mathml(site: Path) -> None:
    scores = site / "methods" / "scores.html"
    assert asked(scores).n_equations == 4
    assert asked(site / "api" / "metrics.html").n_equations > 10
    for page in site.rglob("*.html"):
        assert ".. math::" not in page.read_text("utf-8"), page.name
        assert ":math:" not in page.read_text("utf-8"), page.name


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    for room in site_hooks.ROOMS:
        page = (site / "api" / f"{room}.html").read_text("utf-8")
        module = __import__(f"pocketcortex.{room}", fromlist=["__all__"])
        for name in module.__all__:
            path = f"{name}.{name}" if name in site_hooks.hidden_by_modules(room) else name
            assert f'id="pocketcortex.{room}.{path}"' in page, f"{room}.{name}"


def test_search_finds_pages_by_their_words(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text("utf-8"))
    found = {d["location"].split("#")[0] for d in index["docs"] if "noise ceiling" in d["text"]}
    assert "tutorials/noise-ceilings.html" in found | {
        d["location"].split("#")[0] for d in index["docs"] if "ceiling" in d["text"]
    }


def test_every_room_with_public_names_is_in_reference_and_navigation() -> None:
    folder = Path(pocketcortex.__file__).parent
    rooms = {path.parent.name for path in folder.glob("*/__init__.py")} - {"cli"}
    assert set(site_hooks.ROOMS) == rooms
    listed = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]
    reference = next(part["API reference"] for part in listed if "API reference" in part)
    assert [next(iter(entry)) for entry in reference] == list(site_hooks.ROOMS)


def test_command_line_page_is_current() -> None:
    assert command_line.PAGE.read_text("utf-8") == command_line.command_line_page(), (
        "commands have changed; run python docs/scripts/command_line.py"
    )


def test_configuration_page_is_current() -> None:
    assert configuration.PAGE.read_text("utf-8") == configuration.configuration_page(), (
        "settings have changed; run python docs/scripts/configuration.py"
    )


def test_every_setting_of_a_run_is_described() -> None:
    settings = [line for line in configuration.configuration_page().splitlines() if "| `" in line]
    assert len(settings) > 60
    untold = [line for line in settings if line.endswith("|  |") and "its table" not in line]
    assert not untold


def test_command_line_page_holds_every_command_and_option() -> None:
    page = command_line.command_line_page()
    assert "### pocketcortex stimuli maximize" in page
    assert "| `--mapping ridge\\|factorized\\|pls` | Kind of map. | `ridge` |" in page
    assert "pocketcortex data show" in page


def test_formulas_of_docstrings_become_equations() -> None:
    text = (
        "First.\n\n    .. math::\n        a = b\n            + c\n\n"
        "    With :math:`x^2` and :func:`f`."
    )
    shown = docstrings.as_markdown(text)
    assert "    ```math\n    a = b + c\n    ```\n" in shown
    assert "<msup>" in shown
    assert "`f`" in shown
    one = docstrings.as_markdown(".. math:: a = b\n\nNext.")
    assert "```math\na = b\n```\n" in one
    assert one.endswith("Next.")
