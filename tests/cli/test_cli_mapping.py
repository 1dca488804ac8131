"""`pocketcortex mapping score`: one session, one network, one kind of map."""

import json
from pathlib import Path

import numpy as np
import pytest

from pocketcortex.cli import main
from pocketcortex.core import Session, StimulusSet


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One session of three neurons that like bright, dark and red images, and one silent one."""
    folder = tmp_path_factory.mktemp("mapping") / "sessions"
    folder.mkdir()
    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (60, 3, 16, 16), dtype=np.uint8)
    images //= rng.integers(1, 4, (len(images), 3, 1, 1), dtype=np.uint8)
    level = images.mean(axis=(2, 3)) / 32
    rates = np.stack([level.sum(1), 24 - level.sum(1), 3 * level[:, 0], 0 * level[:, 0]], axis=1)
    counts = rng.poisson(rates[:, None], (len(images), 4, 4))
    Session("a", counts, StimulusSet.from_array(images), role="train").save(folder / "a.npz")
    return folder


def words(sessions: Path, *more: str) -> list[str]:
    network = ["--network", "pocketcortex.zoo:filter_bank", "--layer", "maps"]
    return ["mapping", "score", str(sessions), "--session", "a", *network, "--folds", "4", *more]


@pytest.mark.parametrize("mapping", ["ridge", "factorized", "pls"])
def test_every_mapping_scores_every_neuron(
    sessions: Path, capsys: pytest.CaptureFixture[str], mapping: str
) -> None:
    assert main(words(sessions, "--mapping", mapping, "--json")) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["mapping"], result["layers"], result["n_stimuli"]) == (mapping, ["maps"], 60)
    assert set(result["scores"]) == {"r2", "noise-corrected r2"}
    values = result["values"]["r2"]
    assert values[3] is None
    assert "constant" in result["reasons"]["3"]
    assert np.median(values[:3]) > 0.3  # brightness is easy
    assert result["scores"]["r2"]["median"] == pytest.approx(np.median(values[:3]))


def test_features_are_kept_where_asked_and_the_answer_is_the_same(
    sessions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = []
    for _ in range(2):
        assert main(words(sessions, "--features", str(tmp_path), "--json")) == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0] == answers[1]
    assert len(list(tmp_path.glob("*.npy"))) == 1


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (("--session", "absent"), "absent"),
        (("--layer", "absent"), "no layer 'absent'"),
        (("--mapping", "magic"), "magic"),
        (("--folds", "61"), "n_folds must be from 2"),
    ],
)
def test_bad_input_is_exit_2(
    sessions: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], reason: str
) -> None:
    assert main(words(sessions, *more)) == 2
    captured = capsys.readouterr()
    assert reason in captured.err
    assert captured.out == ""
