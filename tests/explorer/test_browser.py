"""The pages used as a person would use them, in a real headless Chromium.

Screenshots go to the folder that POCKETCORTEX_SCREENSHOTS names, if it names one.
"""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from explored_models import NAMES, SIDE, small_model
from PIL import Image

from pocketcortex.core import decode_image
from pocketcortex.models import Ablations
from pocketcortex.stimuli import synthesize

playwright = pytest.importorskip("playwright.sync_api")
Page = playwright.Page

CHROMIUM = "/usr/bin/chromium"
NAME = NAMES[1]
RUN = "import sys; from pocketcortex.cli import main; sys.exit(main())"
COMMAND = [sys.executable, "-c", RUN, "explore"]
QUICK = ["--images", "12"]


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    if not Path(CHROMIUM).exists():
        if os.environ.get("CI"):
            pytest.fail(f"{CHROMIUM} is missing; CI needs it: apt-get install chromium")
        pytest.skip(f"{CHROMIUM} is missing; install it with: apt-get install chromium")
    with playwright.sync_playwright() as started:
        made = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def address(models: Path, cache: Path) -> Iterator[str]:
    """The address that `pocketcortex explore` prints; Ctrl-C must end it well."""
    words = [*COMMAND, str(models), "--cache", str(cache), *QUICK]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        yield started.stdout.readline().strip()
        started.send_signal(signal.SIGINT)
        assert started.wait(timeout=120) == 0


@pytest.fixture
def page(browser: object, address: str) -> Iterator[object]:
    yield from opened(browser, address)


def opened(browser: object, address: str) -> Iterator[object]:
    """A window of its own; anything wrong in its console fails the test."""
    window = browser.new_context(viewport={"width": 1280, "height": 900})  # type: ignore[attr-defined]
    page = window.new_page()
    page.set_default_timeout(60_000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if amiss(said) else None)
    page.goto(address)
    yield page
    window.close()
    assert wrong == []


def amiss(said: object) -> bool:
    """An error in the console, but for the one Chromium tells of every refused upload."""
    refused = "status of 400"
    return said.type == "error" and refused not in said.text  # type: ignore[attr-defined]


LAST_MAP = "[...document.querySelectorAll('.equation canvas.map')].pop().toDataURL()"


def shoot(page: object, name: str) -> None:
    folder = os.environ.get("POCKETCORTEX_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)  # type: ignore[attr-defined]


def until(page: Page, expression: str, seconds: float = 60.0) -> None:
    """Wait until an expression is true; the pages' policy forbids playwright's own way."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never true: {expression}"
        page.wait_for_timeout(50)


def open_neuron(page: Page, name: str = NAME) -> None:
    page.click(f'a[data-name="{name}"]')
    page.wait_for_selector("#intact")


def told(page: Page, what: str = "response") -> float:
    return float(page.get_attribute(".response", f"data-{what}") or "nan")


def preferred(page: Page) -> torch.Tensor:
    """The synthesized image that the page shows first, as the server sends it."""
    path = page.get_attribute('[data-picture="synthesized_max"] img', "src")
    png = page.request.get(page.url.split("/neuron")[0] + (path or "")).body()
    return torch.from_numpy(decode_image(png, "preferred"))[None]


def expected(image: torch.Tensor, without: list[tuple[int, int]]) -> float:
    ablations = Ablations(small_model(1))
    kept = np.ones(len(ablations), dtype=bool)
    kept[[ablations.filter(*one) for one in without]] = False
    return float(ablations.responses(image, kept)[0])


def test_a_population_is_sorted_filtered_and_walked_by_keyboard(page: Page) -> None:
    until(page, "document.querySelectorAll('.tiles img').length === 3")
    assert "token" not in page.url
    shoot(page, "population")
    page.select_option("#sort", "strongest response first")
    names = page.eval_on_selector_all(".tiles a", "all => all.map((one) => one.dataset.name)")
    rows = page.request.get(page.url.split("#")[0] + "population.json").json()["neurons"]
    by_response = sorted(rows, key=lambda row: -row["responses"]["synthesized_max"])
    assert names == [row["name"] for row in by_response]
    page.keyboard.press("/")
    page.keyboard.type("neuron2")
    until(page, "document.querySelectorAll('.tiles li').length === 1")
    assert "1 of 3" in page.inner_text(".count")
    page.click("button[type=reset]")
    page.focus(".tiles a")
    page.keyboard.press("ArrowRight")
    second = page.evaluate("document.activeElement.dataset.name")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/neuron/{second}")


def test_taking_out_filters_changes_what_python_says_it_changes(page: Page) -> None:
    open_neuron(page)
    image = preferred(page)
    assert told(page) == pytest.approx(expected(image, []), rel=1e-4)
    page.wait_for_selector("[data-curve=size]")
    before = json.loads(page.get_attribute("[data-curve=size]", "data-values") or "")
    page.click('[data-filter="2.1"]')
    page.click("#takeout")
    page.wait_for_selector("#ablated")
    assert told(page) == pytest.approx(expected(image, [(2, 1)]), rel=1e-4)
    page.focus('[data-filter="5.0"]')
    page.keyboard.press("a")
    until(page, "document.querySelector('.charts').dataset.without === '2.1,5.0'")
    until(page, "document.querySelector('.outlist').textContent.startsWith('2 of')")
    both = expected(image, [(2, 1), (5, 0)])
    until(page, f"Math.abs(document.querySelector('.response').dataset.response - {both}) < 1e-3")
    after = json.loads(page.get_attribute("[data-curve=size]", "data-values") or "")
    assert np.abs(np.array(after) - before).max() > 1e-3
    shoot(page, "neuron")
    page.reload()
    page.wait_for_selector("#ablated")  # the address keeps what was taken out
    page.click("#restore")
    until(page, "!document.querySelector('#ablated')")
    assert told(page) == pytest.approx(told(page, "intact"))


def test_maps_of_a_filter_taken_out_are_those_it_would_have(page: Page) -> None:
    open_neuron(page)
    page.click('[data-filter="1.1"]')
    page.wait_for_selector(".equation canvas.map")
    intact = page.evaluate(LAST_MAP)
    page.click("#takeout")
    page.wait_for_selector("#isout")
    assert page.evaluate(LAST_MAP) == intact
    assert page.get_attribute("#takeout", "aria-pressed") == "true"


def test_a_neuron_is_looked_at_by_keyboard_alone(page: Page) -> None:
    until(page, "document.querySelectorAll('.tiles img').length === 3")
    for key, reached in (("Tab", "skip"), ("Tab", "brand")):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.className") == reached
    tab_to(page, f"document.activeElement.dataset.name === '{NAME}'")
    page.keyboard.press("Enter")
    page.wait_for_selector("#intact")
    tab_to(page, "document.activeElement.dataset.picture === 'natural_min'")
    page.keyboard.press("Enter")
    until(page, "document.querySelector('.response .label').textContent === 'least, dead leaves'")
    tab_to(page, "document.activeElement.id === 'start'")
    tab_to(page, "document.activeElement.dataset.filter === '0.0'")
    page.keyboard.press("Enter")
    page.wait_for_selector("#takeout")
    page.keyboard.press("ArrowRight")
    filters = page.evaluate("document.activeElement.dataset.filter")
    assert filters != "0.0"
    page.keyboard.press("a")
    page.wait_for_selector("#ablated")
    tab_to(page, "document.activeElement.id === 'takeout'")
    page.keyboard.press("]")
    page.wait_for_url(f"**/neuron/{NAMES[2]}")


def tab_to(page: Page, reached: str) -> None:
    """Press Tab until something is reached."""
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate(reached):
            return
    raise AssertionError(f"Tab never leads to: {reached}")


@pytest.mark.parametrize("path", ["", f"neuron/{NAME}", f"compare?a={NAMES[0]}&b={NAME}"])
def test_pages_fit_a_tablet(browser: object, address: str, path: str) -> None:
    made = browser.new_context(viewport={"width": 820, "height": 1180}, has_touch=True)  # type: ignore[attr-defined]
    page = made.new_page()
    page.goto(address)
    page.goto(address.partition("?")[0] + path)
    until(page, "document.querySelector('h1') !== null")
    assert page.evaluate("document.documentElement.scrollWidth") <= 820
    made.close()


def test_an_image_of_ones_own_is_answered_as_python_does(page: Page, photo: Path) -> None:
    open_neuron(page)
    page.set_input_files("#upload", photo)
    until(page, "document.querySelector('.response .label').textContent === 'photo.png'")
    image = decode_image(photo.read_bytes(), "photo", size=SIDE)
    assert told(page) == pytest.approx(expected(torch.from_numpy(image)[None], []), rel=1e-4)
    page.check("#saliency")
    page.wait_for_timeout(500)
    page.set_input_files("#upload", {"name": "x.png", "mimeType": "image/png", "buffer": b"no"})
    page.wait_for_selector(".problem")
    assert "cannot be decoded" in page.inner_text(".problem")
    page.evaluate("document.querySelector('.problem').remove()")


STOP_AT_FIVE = """() => {
  const [progress, stop] = ["progress", "stop"].map((id) => document.getElementById(id));
  const begun = setInterval(() => {
    if (stop.disabled || !(progress.dataset.step >= 5) || progress.dataset.done) return;
    clearInterval(begun);
    document.body.dataset.stopped = "yes";
    stop.click();
  }, 1);
}"""


def test_a_synthesis_runs_and_is_stopped(page: Page) -> None:
    open_neuron(page)
    page.fill("#seed", "3")
    page.fill("#steps", "12")
    page.click("#start")
    page.wait_for_selector('#progress[data-done="yes"]')
    made = synthesize([small_model(1)], n_starts=1, n_steps=12, seed=3)
    best = float(page.get_attribute("#progress", "data-best") or "nan")
    assert best == pytest.approx(float(made.responses[0, 0]), rel=1e-4)
    page.fill("#steps", "2000")
    page.evaluate(STOP_AT_FIVE)  # in the page: so small a model is done while one looks from here
    page.click("#start")
    until(page, "document.body.dataset.stopped === 'yes'")
    page.wait_for_selector("#start:enabled")
    stopped = int(page.get_attribute("#progress", "data-step") or 0)
    assert 5 <= stopped < 2000
    until(page, "document.querySelector('.response .label').textContent.includes('stopped')")


def test_two_windows_share_nothing(browser: object, address: str, page: Page) -> None:
    open_neuron(page)
    for other in opened(browser, address):
        open_neuron(other)
        other.click('[data-filter="5.1"]')
        other.click("#takeout")
        other.wait_for_selector("#ablated")
        page.reload()
        page.wait_for_selector("#intact")
        assert page.query_selector("#ablated") is None


def test_two_neurons_are_compared(page: Page) -> None:
    until(page, "document.querySelectorAll('.tiles img').length === 3")  # pictures are made
    for name in NAMES[:2]:
        page.hover(f'a[data-name="{name}"]')
        page.check(f'li:has(a[data-name="{name}"]) input')
    page.click("#compare")
    page.wait_for_selector("[aria-label^='Size of a dot']")
    cells = page.eval_on_selector_all(".crossed td.number", "all => all.length")
    assert cells == 8
    shoot(page, "compare")


@pytest.fixture(scope="module")
def site(models: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "out"
    words = [
        *COMMAND,
        str(models),
        "--cache",
        str(cache),
        *QUICK,
        "--export",
        str(folder),
        "--json",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["n_neurons"] == len(NAMES)
    return folder


def test_exported_files_answer_as_python_does(
    browser: object, site: Path, photo: Path, tmp_path: Path
) -> None:
    for page in opened(browser, (site / "index.html").as_uri()):
        shoot(page, "static-population")
        open_neuron(page)
        data = (page.get_attribute('[data-picture="natural_max"] img', "src") or "").split(",")[1]
        page.click('[data-picture="natural_max"]')
        until(
            page, "document.querySelector('.response .label').textContent.includes('dead leaves')"
        )
        png = base64.b64decode(data)
        image = torch.from_numpy(decode_image(png, "natural"))[None]
        assert told(page) == pytest.approx(expected(image, []), abs=1e-3)
        page.click('[data-filter="1.2"]')
        page.click("#takeout")
        page.wait_for_selector("#ablated")
        assert told(page) == pytest.approx(expected(image, [(1, 2)]), abs=1e-3)
        until(page, "document.querySelector('.charts').dataset.without === '1.2'")
        page.click("#restore")
        large = tmp_path / "large.png"
        with Image.open(photo) as small:
            small.resize((331, 250)).save(large)
        for path in (photo, large):
            page.set_input_files("#upload", path)
            until(page, f"document.querySelector('.response .label').textContent === '{path.name}'")
            own = torch.from_numpy(decode_image(path.read_bytes(), "own", size=SIDE))[None]
            assert told(page) == pytest.approx(expected(own, []), abs=1e-3), path.name
        page.fill("#steps", "5")
        page.click("#start")
        page.wait_for_selector('#progress[data-done="yes"]')
        shoot(page, "static-neuron")
