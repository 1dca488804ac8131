"""The Python that a page shows makes what the page shows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explored_models import NAMES
from PIL import Image

from pocketcortex.explorer import Explorer, NaturalImages

NAME = NAMES[2]


def run(code: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    exec(code, found)  # noqa: S102
    return found


def test_looks(explorer: Explorer) -> None:
    study = explorer.study(NAME)
    found = run(explorer.neuron(NAME)["python"]["looks"])
    for kind in ("synthesized_max", "natural_max", "natural_min", "synthesized_min"):
        np.testing.assert_array_equal(found[kind], study.image(kind), err_msg=kind)


def test_response_and_ablation(explorer: Explorer, tmp_path: Path) -> None:
    image = explorer.study(NAME).image("natural_max")
    assert image is not None
    path = tmp_path / "shown.png"
    Image.fromarray(image.transpose(1, 2, 0)).save(path)
    python = explorer.neuron(NAME)["python"]
    opened = explorer.opened(NAME)
    found = run(python["response"].replace("PICTURE.png", str(path)))
    assert found["response"] == pytest.approx(float(opened.responses(image[None])[0]), rel=1e-4)
    without = [(1, 0), (4, 2)]
    code = python["ablation"].replace("PICTURE.png", str(path)).replace("FILTERS", str(without))
    left = opened.responses(image[None], without)
    assert run(code)["response"] == pytest.approx(float(left[0]), rel=1e-4)
    stages = run(python["trace"].replace("PICTURE.png", str(path)))["stages"]
    assert stages.response == pytest.approx(found["response"], rel=1e-4)
    saliency = run(python["saliency"].replace("PICTURE.png", str(path)))["saliency"]
    np.testing.assert_allclose(
        saliency.maps[0, 0], opened.saliency(image)["map"], rtol=1e-4, atol=1e-5
    )


def test_population(explorer: Explorer, models: Path) -> None:
    rows = run(explorer.population()["python"])["rows"]
    assert [row["name"] for row in rows] == NAMES


def test_population_of_what_was_named(models: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "bank.npy", np.zeros((3, 3, 40, 40), np.uint8))
    natural = NaturalImages(tmp_path / "bank.npy", 3)
    made = Explorer(models, natural=natural, cache=tmp_path / "cache")
    assert len(run(made.population()["python"])["rows"]) == len(NAMES)


def test_two_models_answer_one_image(explorer: Explorer, tmp_path: Path) -> None:
    image = explorer.study(NAME).image("natural_max")
    assert image is not None
    path = tmp_path / "shown.png"
    Image.fromarray(image.transpose(1, 2, 0)).save(path)
    code = explorer.compare(NAME, NAMES[0])["python"].replace("PICTURE.png", str(path))
    expected = [float(explorer.opened(one).responses(image[None])[0]) for one in (NAME, NAMES[0])]
    assert run(code)["responses"] == pytest.approx(expected, rel=1e-4)


def test_adversarial(explorer: Explorer) -> None:
    found = run(explorer.adversarial(NAME)["python"])
    np.testing.assert_array_equal(
        found["raised"].images[0, 0], explorer.study(NAME).image("raised")
    )
