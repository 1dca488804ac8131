"""What the benchmarks compute besides times."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch

from pocketcortex.models import CompactLayers


@pytest.fixture
def distillation(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    return importlib.import_module("benchmarks.distillation")


def test_a_score_is_reached_between_two_numbers_of_images_by_the_logarithm(
    distillation: ModuleType,
) -> None:
    points = [distillation.Point(100, 0.1, 10.0), distillation.Point(400, 0.3, 40.0)]
    reached = distillation.reached(points, 0.2)
    assert reached.n_images == pytest.approx(200)
    assert reached.seconds == pytest.approx(20)
    assert distillation.reached(points, 0.05) == points[0]


def test_bytes_of_maps_are_those_of_the_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    population = importlib.import_module("benchmarks.population")
    filters = (5, 4, 3, 7, 6)
    layers = CompactLayers(filters)
    x = layers.centre(torch.zeros(1, 3, 112, 112))
    n_bytes = 0
    with torch.inference_mode():
        for k in range(5):
            out = layers.layer(k, x)
            n_bytes += x.nbytes + out.nbytes
            x = out
    assert population.bytes_of_maps([filters, filters]) == 2 * n_bytes
