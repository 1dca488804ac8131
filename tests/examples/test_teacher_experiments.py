"""The experiments on the teacher, on two tiny simulated animals."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from pocketcortex.pipeline.config import (
    InSilicoConfig,
    RecordingsConfig,
    RunConfig,
    TeacherConfig,
)

SCRIPT = Path(__file__).parents[2] / "examples" / "teacher_experiments.py"


@pytest.fixture(scope="module")
def experiments() -> ModuleType:
    spec = importlib.util.spec_from_file_location("teacher_experiments", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_all_four_experiments_end_in_one_record_and_a_figure(
    experiments: ModuleType, tmp_path: Path
) -> None:
    teacher = TeacherConfig(n_members=2, width=8, bottleneck=4, n_blocks=0, n_epochs=1)
    simulated = InSilicoConfig(n_sessions=4, n_neurons=4, n_stimuli=40, image_size=32, n_repeats=2)
    config = RunConfig(seed=1, recordings=RecordingsConfig(insilico=simulated), teacher=teacher)
    setting = experiments.ImagesSetting(
        n_animals=2, n_start=20, n_added=10, n_pool=40, n_mapping=20, n_held_out=30,
        n_validation=20, n_neurons_validation=4, n_neurons=4, image_size=32, teacher=teacher,
    )  # fmt: skip
    lab = experiments.Laboratory(config, tmp_path, "cpu", (), setting)
    experiments.do(lab, ["mapping", "sessions"])
    assert not (tmp_path / "teacher-experiments.json").exists()
    experiments.do(lab, list(experiments.EXPERIMENTS))
    found = json.loads((tmp_path / "teacher-experiments.json").read_text())
    assert set(found) == set(experiments.EXPERIMENTS)
    assert found["sessions"]["counts"] == [1, 2]
    assert found["members"]["counts"] == [1, 2]
    assert found["members"]["means"]["2"] == found["mapping"]["means"]["ensemble, factorized"]
    assert len(found["images"]["held-out neurons"]["of_each_animal"]["gaudy"]) == 2
    assert (tmp_path / "teacher-experiments.png").read_bytes().startswith(b"\x89PNG")


def test_interval_over_animals_is_students(experiments: ModuleType) -> None:
    found = experiments.over_animals({"a": [1.0, 2.0, 3.0], "b": [0.0, 0.0, 0.0]}, [("a", "b")])
    low, high = found["differences"]["a − b"]["ci"]
    assert np.allclose([low, high], [2 - 4.302653 / np.sqrt(3), 2 + 4.302653 / np.sqrt(3)])
