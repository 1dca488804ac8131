"""What is known of models that no run made: r² on the release's held-out halves, and families."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pocketcortex.core import InputError
from pocketcortex.data import read_v4
from pocketcortex.explorer import Explorer, NaturalImages
from pocketcortex.explorer.families import Families
from pocketcortex.explorer.held_out import HeldOut
from pocketcortex.models import import_compact_model

MODELS = Path("v4") / "data_compact_models" / "models_torch"
NAME = "compact_model_190923_neuron7"


def table(folder: Path, families: dict[str, str], dots: dict[str, bool] | None = None) -> Path:
    folder.mkdir(parents=True)
    names = list(families)
    pd.DataFrame({"model": names, "family": [families[n] for n in names]}).to_csv(
        folder / "families.csv", index=False
    )
    if dots is not None:
        pd.DataFrame({"model": list(dots), "is_detector": list(dots.values())}).to_csv(
            folder / "dots.csv", index=False
        )
    return folder


def test_families_are_those_of_the_table(tmp_path: Path) -> None:
    out = tmp_path / "out"
    table(out / "explain", {"a": "edge", "b": "none"}, {"a": False, "b": True})
    for given in (out, out / "explain"):
        found = Families.read(given)
        assert dict(found.of) == {"a": "edge", "b": "none"}
        assert found.dot_detectors == {"b"}
    assert dict(Families.beside(out).of) == {"a": "edge", "b": "none"}
    assert Families.beside(tmp_path) == Families()


def test_a_folder_without_families_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no families\.csv that names models; give"):
        Families.read(tmp_path)
    table(tmp_path / "bad", {"a": "edge"})
    (tmp_path / "bad" / "families.csv").write_text("something,else\n1,2\n")
    with pytest.raises(InputError, match="cannot be read"):
        Families.read(tmp_path / "bad")
    with pytest.raises(InputError, match="holds no data_V4_responses"):
        HeldOut(tmp_path)


@pytest.mark.data
def test_a_published_model_has_the_r2_of_its_second_half(real_data: Path, tmp_path: Path) -> None:
    shutil.copytree(real_data / MODELS.parent, tmp_path / "m", ignore=lambda folder, names: [
        name for name in names if NAME not in name and not (Path(folder) / name).is_dir()
    ])  # fmt: skip
    explained = table(tmp_path / "explained", {NAME: "texture"}, {NAME: True})
    made = Explorer(
        tmp_path / "m" / "models_torch", natural=NaturalImages(n=4), cache=tmp_path / "cache",
        n_steps=2, recordings=real_data / "v4", explained=explained,
    )  # fmt: skip
    study = made.study(NAME)
    assert study.stored_score() is None
    score = study.score()
    assert score is not None
    session = read_v4(real_data / "v4")["190923"]
    rows = np.arange(session.n_stimuli // 2, session.n_stimuli)
    model = import_compact_model(real_data / MODELS / f"{NAME}.pt")
    with torch.inference_mode():
        told = model(torch.from_numpy(session.require_stimuli().read(rows))).double().numpy()
    wanted = np.corrcoef(told, session.mean_responses[rows, 7])[0, 1] ** 2
    assert score["value"] == pytest.approx(wanted, abs=1e-6)
    assert score["low"] < wanted < score["high"]  # type: ignore[operator]
    assert score["n_stimuli"] == len(rows)
    (row,) = made.population()["neurons"]
    assert row["r2"]["value"] == pytest.approx(wanted, abs=1e-6)
    assert (row["family"], row["dot_detector"]) == ("texture", True)
    assert made.population()["known"]["r2"] == 1
    assert "dot detector" in made.population()["families"]


@pytest.mark.data
def test_models_in_the_release_find_it_and_others_have_no_score(
    real_data: Path, tmp_path: Path
) -> None:
    found = HeldOut.beside(real_data / MODELS)
    assert found is not None
    assert found.path.resolve() == (real_data / "v4").resolve()
    assert HeldOut.beside(tmp_path) is None
