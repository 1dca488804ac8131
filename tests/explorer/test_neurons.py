"""Which neurons a path holds, and what a run folder says of them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from explored_models import NAMES, SIDE, small_model

from pocketcortex.core import InputError
from pocketcortex.explorer import Explorer, NaturalImages
from pocketcortex.explorer.neurons import Collection, Neuron
from pocketcortex.metrics import StimulusRoles

ROLES = ("natural_max", "natural_min", "synthesized_max")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder of two sessions, neuron 1 of the first one unusable."""
    rows = []
    for session, neuron, why in (("a.b", 0, ""), ("a.b", 1, "silent"), ("c", 2, "")):
        if not why:
            small_model(neuron).save(
                tmp_path / "compact" / f"{session.replace('.', '%2E')}_neuron{neuron:03d}"
            )
        for model in ("teacher", "compact"):
            for metric, value in (("r2", 0.4), ("noise-corrected r2", 0.5 + neuron / 10)):
                known = not why
                rows.append({
                    "session": session, "neuron": neuron, "model": model, "metric": metric,
                    "value": value if known else np.nan, "ci_low": 0.1 if known else np.nan,
                    "ci_high": 0.9 if known else np.nan, "n_stimuli": 30, "reason": why,
                })  # fmt: skip
    (tmp_path / "scores").mkdir()
    pd.DataFrame(rows).to_parquet(tmp_path / "scores" / "scores.parquet")
    (tmp_path / "circuits").mkdir()
    pd.DataFrame({"family": ["dot", "none"]}).to_csv(tmp_path / "circuits" / "families.csv")
    write_stimuli(tmp_path / "stimuli")
    return tmp_path


def write_stimuli(folder: Path) -> None:
    folder.mkdir()
    rng = np.random.default_rng(3)
    table = [("random", -1, -1)] * 4 + [(role, k, -1) for role in ROLES for k in (0, 1)]
    table += [(role, k, 0) for role in ("adversarial+", "adversarial-") for k in (0, 1)]
    roles, targets, bases = zip(*table, strict=True)
    made = StimulusRoles(roles, np.array(targets), np.array(bases), n_targets=2).to_table()
    made.to_parquet(folder / "roles.parquet")
    images = rng.integers(0, 256, (len(table), 3, SIDE, SIDE), dtype=np.uint8)
    np.save(folder / "images.npy", images)
    np.save(folder / "responses.npy", rng.normal(size=(len(table), 2)))


@pytest.mark.parametrize(
    ("name", "session", "neuron"),
    [
        ("compact_model_190923_neuron12", "190923", 12), ("a%2Eb_neuron003", "a%2Eb", 3),
        ("mine", None, None),
    ],
)  # fmt: skip
def test_a_name_tells_session_and_neuron(
    name: str, session: str | None, neuron: int | None
) -> None:
    found = Neuron.at(Path("there") / f"{name}.pt")
    assert (found.name, found.session, found.neuron) == (name, session, neuron)


def test_models_come_in_natural_order(tmp_path: Path) -> None:
    for k in (10, 2):
        small_model(0).save(tmp_path / f"s_neuron{k}")
    assert list(Collection.open(tmp_path).neurons) == ["s_neuron2", "s_neuron10"]
    assert list(Collection.open(tmp_path / "s_neuron2").neurons) == ["s_neuron2"]


def test_no_models_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no compact model; expected a run folder"):
        Explorer(tmp_path)


def test_a_run_tells_scores_families_and_its_stimuli(run: Path, tmp_path: Path) -> None:
    made = Explorer(run, natural=NaturalImages(n=4), cache=tmp_path / "cache", n_steps=3)
    rows = {row["name"]: row for row in made.population()["neurons"]}
    assert list(rows) == ["a%2Eb_neuron000", "c_neuron002"]
    second = rows["c_neuron002"]
    assert second["r2"] == {
        "metric": "noise-corrected r2", "value": 0.7, "low": 0.1, "high": 0.9, "n_stimuli": 30,
        "on": "images held out by the run", "remark": "",
    }  # fmt: skip
    assert (rows["a%2Eb_neuron000"]["family"], second["family"]) == ("dot", "none")
    assert made.population()["known"]["r2_on"] == ["noise-corrected, images held out by the run"]
    looks = made.study("c_neuron002").looks()
    responses = np.load(run / "stimuli" / "responses.npy")
    place = 4 + 2 * ROLES.index("natural_min") + 1
    assert looks["responses"]["natural_min"] == responses[place, 1]
    assert looks["sources"]["natural_min"] == "run"
    assert looks["sources"]["synthesized_min"] == "3 steps, seed 0"  # the run has none
    image = made.study("c_neuron002").image("natural_min")
    assert image is not None
    np.testing.assert_array_equal(image, np.load(run / "stimuli" / "images.npy")[place])
    changed = made.study("c_neuron002").adversarial()
    assert changed["responses"]["base"] == responses[0, 1]
    assert changed["source"] == "run"


def test_damaged_tables_are_one_clear_line(run: Path) -> None:
    (run / "scores" / "scores.parquet").write_bytes(b"no table")
    with pytest.raises(InputError, match="tables of the run"):
        Collection.open(run)


def test_the_bank_is_named_and_must_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        NaturalImages(tmp_path / "none.zip")
    with pytest.raises(InputError, match="2 or more"):
        NaturalImages(n=1)
    images = np.random.default_rng(0).integers(0, 256, (5, 3, SIDE, SIDE), dtype=np.uint8)
    np.save(tmp_path / "bank.npy", images)
    bank = NaturalImages(tmp_path / "bank.npy", 3)
    np.testing.assert_array_equal(bank.read((SIDE, SIDE)), images[:3])
    assert bank.key != NaturalImages(tmp_path / "bank.npy", 4).key
    with pytest.raises(InputError, match="square"):
        bank.read((SIDE, SIDE + 1))


def test_one_damaged_model_does_not_stop_the_others(models: Path, tmp_path: Path) -> None:
    small_model(0).save(tmp_path / "m" / "x_neuron0")
    small_model(1).save(tmp_path / "m" / "x_neuron1")
    (tmp_path / "m" / "x_neuron0" / "model.safetensors").write_bytes(b"damaged")
    made = Explorer(tmp_path / "m", natural=NaturalImages(n=4), cache=tmp_path / "c", n_steps=2)
    made.background.start()
    made.background.join(timeout=60.0)
    told = made.population()
    assert list(told["failures"]) == ["x_neuron0"]
    assert told["neurons"][1]["pictures"] is not None
    assert NAMES
