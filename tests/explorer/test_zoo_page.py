"""The zoo's page: the ranking and the layers as the folder holds them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pocketcortex.core import InputError
from pocketcortex.explorer import Explorer, export_site


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """A scored and ranked folder, written as zoo score and zoo rank write it."""
    (tmp_path / "zoo.json").write_text("{}")
    layers = pd.DataFrame({
        "layer": ["early", "late"], "depth": [0.0, 1.0], "r": [0.2, np.nan], "rsa": [0.1, 0.3],
    })  # fmt: skip
    for network in ("one", "two"):
        folder = tmp_path / "scores" / f"{network}-1234" / "VISp-5678"
        folder.mkdir(parents=True)
        layers.to_parquet(folder / "layers.parquet")
        about = {"area": {"id": "VISp"}, "model": {"name": network}}
        (folder / "about.json").write_text(json.dumps(about))
        (folder / "manifest.json").write_text("{}")
    unfinished = tmp_path / "scores" / "three-1" / "VISp-5678.partial"
    unfinished.mkdir(parents=True)
    layers.to_parquet(unfinished / "layers.parquet")
    rank = tmp_path / "rank"
    rank.mkdir()
    pd.DataFrame({
        "area": "VISp", "analysis": "rsa", "rank": [1, 2], "model": ["two", "one"],
        "value": [0.3, np.nan], "ci_low": [0.2, np.nan], "ci_high": [0.4, np.nan],
        "as_good_as_best": [True, False], "reason": ["", "too few images"],
        "n_parameters": [10, 20], "kind": "trained",
    }).to_parquet(rank / "leaderboard.parquet")  # fmt: skip
    return tmp_path


def test_the_ranking_and_the_layers_are_told(zoo: Path, tmp_path: Path) -> None:
    made = Explorer(zoo, cache=tmp_path / "cache")
    assert made.population()["neurons"] == []
    told = made.zoo()
    assert told is not None
    (board,) = told["boards"]
    assert [row["model"] for row in board["rows"]] == ["two", "one"]
    assert (board["rows"][0]["value"], board["rows"][1]["value"]) == (0.3, None)
    assert board["rows"][1]["reason"] == "too few images"
    assert [curve["model"] for curve in board["curves"]] == ["one", "two"]
    assert board["curves"][0]["value"] == [0.1, 0.3]
    json.dumps(told, allow_nan=False)
    found: dict[str, Any] = {}
    exec(board["python"], found)  # noqa: S102
    names = [label.get_text() for label in found["ranking"].get_yticklabels()]
    assert {"one", "two"} <= set(names)
    np.testing.assert_array_equal(found["curves"]["two"][1], [0.1, 0.3])


def test_the_zoo_is_exported_too(zoo: Path, tmp_path: Path) -> None:
    made = Explorer(zoo, cache=tmp_path / "cache")
    export_site(made, tmp_path / "site")
    twin = json.loads((tmp_path / "site" / "zoo.json").read_text())
    assert [row["model"] for row in twin["zoo"]["boards"][0]["rows"]] == ["two", "one"]
    assert str(zoo.parent) not in (tmp_path / "site" / "zoo.json").read_text()
    assert "data/zoo.js" in (tmp_path / "site" / "zoo.html").read_text()


def test_beside_models_the_zoo_is_named(zoo: Path, models: Path, tmp_path: Path) -> None:
    assert Explorer(models, cache=tmp_path / "cache").zoo() is None
    assert Explorer(models, cache=tmp_path / "cache", zoo=zoo).zoo() is not None
    with pytest.raises(InputError, match="holds no scores of networks"):
        Explorer(models, cache=tmp_path / "cache", zoo=models)


def test_an_unranked_zoo_says_what_to_do(zoo: Path, tmp_path: Path) -> None:
    (zoo / "rank" / "leaderboard.parquet").unlink()
    with pytest.raises(InputError, match="zoo rank"):
        Explorer(zoo, cache=tmp_path / "cache").zoo()


def test_a_damaged_table_is_one_clear_line(zoo: Path, tmp_path: Path) -> None:
    (zoo / "rank" / "leaderboard.parquet").write_bytes(b"no table")
    with pytest.raises(InputError, match="cannot be read"):
        Explorer(zoo, cache=tmp_path / "cache").zoo()
