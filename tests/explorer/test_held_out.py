"""r² of models in the layout of the V4 release, on the half of a session that fitted nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from explored_models import NAMES, write_release

from pocketcortex.core import InputError
from pocketcortex.data import read_v4
from pocketcortex.explorer import Explorer, NaturalImages
from pocketcortex.models import import_compact_model

MODELS = Path("data_compact_models") / "models_torch"
UNKNOWN = "compact_model_s2_neuron0"


@pytest.fixture
def release(tmp_path: Path) -> Path:
    write_release(tmp_path / "release")
    return tmp_path / "release"


def explorer(path: Path, cache: Path, recordings: Path | None = None) -> Explorer:
    natural = NaturalImages(n=4)
    return Explorer(path, natural=natural, cache=cache, n_steps=1, recordings=recordings)


def plain_r2(release: Path, name: str, neuron: int) -> float:
    model = import_compact_model(release / MODELS / f"{name}.pt")
    session = read_v4(release)["s1"]
    images = session.require_stimuli().read(range(12, 24))
    with torch.inference_mode():
        predicted = model(torch.from_numpy(images)).numpy()
    return float(np.corrcoef(predicted, session.mean_responses[12:, neuron])[0, 1] ** 2)


@pytest.mark.parametrize("below", ["", str(MODELS), str(MODELS / f"{NAMES[1]}.pt")])
def test_r2_is_that_of_the_second_half(release: Path, tmp_path: Path, below: str) -> None:
    made = explorer(release / below, tmp_path / "cache")
    assert all(row["r2"] is None for row in made.population()["neurons"])  # not computed yet
    score = made.study(NAMES[1]).score()
    assert score is not None
    assert score["value"] == pytest.approx(plain_r2(release, NAMES[1], 1), rel=1e-4)
    assert 0 <= score["low"] <= score["high"] <= 1
    row = next(row for row in made.population()["neurons"] if row["name"] == NAMES[1])
    assert row["r2"] == score
    found: dict[str, np.ndarray] = {}
    exec(str(made.neuron(NAMES[1])["python"]["r2"]), found)  # noqa: S102
    assert found["r2"] == pytest.approx([score["value"]], rel=1e-4)


def test_what_cannot_be_known_is_told_as_unknown(
    release: Path, models: Path, tmp_path: Path
) -> None:
    made = explorer(release, tmp_path / "cache")
    assert made.study(UNKNOWN).score() is None  # its session has responses, but no images
    told = made.population()
    assert told["neurons"][-1]["name"] == UNKNOWN
    assert (told["known"]["r2"], told["known"]["r2_waiting"]) == (0, len(NAMES))
    assert made.neuron(UNKNOWN)["python"]["r2"] is None
    saved = explorer(models, tmp_path / "cache", release)  # what fitted saved models is not known
    assert saved.study(NAMES[0]).score() is None


def test_other_responses_are_another_score(release: Path, tmp_path: Path) -> None:
    first = explorer(release, tmp_path / "cache").study(NAMES[0]).score()
    path = release / "data_V4_responses" / "responses_repeat_averaged" / "responses_s1.npy"
    responses = np.load(path)
    responses[:, :12] += 5  # the first half has no say
    np.save(path, responses)
    assert explorer(release, tmp_path / "cache").study(NAMES[0]).score() == first
    responses[0, 12:] = np.arange(12)
    np.save(path, responses)
    assert explorer(release, tmp_path / "cache").study(NAMES[0]).score() != first


def test_models_elsewhere_are_scored_by_the_release_that_is_named(
    release: Path, tmp_path: Path
) -> None:
    alone = (release / MODELS).rename(tmp_path / "models")
    assert explorer(alone, tmp_path / "cache").study(NAMES[0]).score() is None
    assert explorer(alone, tmp_path / "cache", release).study(NAMES[0]).score() is not None


def test_a_neuron_that_was_not_recorded_is_one_clear_line(release: Path, tmp_path: Path) -> None:
    one = release / MODELS / f"{NAMES[0]}.pt"
    one.rename(one.with_name("compact_model_s1_neuron7.pt"))
    made = explorer(release, tmp_path / "cache")
    with pytest.raises(InputError, match="there is no neuron 7"):
        made.study("compact_model_s1_neuron7").score()
