"""Scores of models: paired differences, and what a score cannot tell."""

import numpy as np
import pandas as pd
import pytest

from pocketcortex.core import Session
from pocketcortex.pipeline.scores import differences, hardly_varying, score_table


def table(scores: dict[str, list[float]], session: str = "a", metric: str = "r2") -> pd.DataFrame:
    rows = [
        {"session": session, "neuron": k, "model": model, "metric": metric, "value": value}
        for model, values in scores.items()
        for k, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_differences_are_taken_neuron_by_neuron() -> None:
    scores = {"teacher": [0.5, 0.2, 0.9, np.nan], "compact": [0.4, 0.3, 0.5, 0.7]}
    found = differences(table(scores).sample(frac=1, random_state=1), "compact", 0)
    entry = found["r2"]["teacher"]
    assert list(found["r2"]) == ["teacher"]
    assert entry["median"] == pytest.approx(-0.1)  # of -0.1, +0.1, -0.4
    assert entry["of_medians"] == pytest.approx(0.4 - 0.5)
    assert entry["n_neurons"] == 3
    low, high = entry["ci"]
    assert -0.4 <= low <= entry["median"] <= high <= 0.1


def test_neurons_of_several_sessions_are_told_apart() -> None:
    both = pd.concat(
        [
            table({"teacher": [0.5], "compact": [0.4]}, "a"),
            table({"teacher": [0.1], "compact": [0.4]}, "b"),
        ]
    )
    entry = differences(both, "compact", 0)["r2"]["teacher"]
    assert entry["median"] == pytest.approx(0.1)
    assert entry["n_neurons"] == 2


def test_without_a_common_score_there_is_no_difference() -> None:
    scores = table({"teacher": [np.nan, 0.1], "compact": [0.2, np.nan]})
    assert differences(scores, "compact", 0)["r2"]["teacher"] == {
        "median": None,
        "ci": [None, None],
        "of_medians": None,
        "n_neurons": 0,
    }
    assert differences(scores, "student", 0) == {}


def test_metrics_are_kept_apart() -> None:
    both = pd.concat(
        [
            table({"teacher": [0.5, 0.6], "compact": [0.4, 0.5]}, metric="r2"),
            table({"teacher": [0.5, 0.6], "compact": [0.7, 0.8]}, metric="noise-corrected r2"),
        ]
    )
    found = differences(both, "compact", 0)
    assert found["r2"]["teacher"]["median"] == pytest.approx(-0.1)
    assert found["noise-corrected r2"]["teacher"]["median"] == pytest.approx(0.2)


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_a_score_of_predictions_that_hardly_vary_is_told(scale: float) -> None:
    rng = np.random.default_rng(0)
    drive = rng.normal(size=(60, 3))
    session = Session("a", drive[:, None, :] + rng.normal(size=(60, 4, 3)))
    predicted = drive[:, [0, 2]] * [1.0, scale] + 3.0
    scores = score_table(session, {"compact": predicted}, np.array([0, 2]), {1: "silent"}, 0)
    assert scores.set_index("neuron").loc[[0, 2], "value"].min() > 0.5  # r² does not see scale
    told = scores.set_index("neuron")["reason"]
    assert (told[0] == "").all()
    assert (told[1] == "silent").all()
    assert told[2].str.contains("hardly vary").all() == (scale < 1)
    assert hardly_varying(scores, "compact") == ([("a", 2)] if scale < 1 else [])
