"""The teacher by itself: trained once, scored on several sessions beside its peers."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pocketcortex.cli import main
from pocketcortex.core import Session, StimulusSet
from pocketcortex.metrics import bootstrap_ci
from pocketcortex.models import EnsembleMember, EnsembleShape
from pocketcortex.pipeline import RunConfig, fit_ensemble, score_ensemble, scores
from pocketcortex.pipeline.teacher import (
    BACKBONE_RIDGE,
    LAYER_FACTORIZED,
    LAYER_RIDGE,
    TEACHER,
    TEACHER_WITH_PRIOR,
    PriorFeatures,
    map_teacher,
)
from pocketcortex.training import SessionFeatures

N_NEURONS = 3


@pytest.fixture(autouse=True, scope="module")
def _few_resamples() -> Iterator[None]:
    """Bootstrap by 20 resamples: types are checked in each of thousands of calls otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "bootstrap_ci", partial(bootstrap_ci, n_resamples=20))
        yield


NETWORK = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AvgPool2d(4),
                         nn.Conv2d(6, 4, 1))
"""


def save_sessions(folder: Path, *, shared_images: bool = False) -> Path:
    """Write four sessions whose neurons like bright, dark and red images of 16 pixels."""
    folder.mkdir()
    rng = np.random.default_rng(5)
    for index, id in enumerate("abcd"):
        images = rng.integers(0, 256, (48, 3, 16, 16), dtype=np.uint8)
        images //= rng.integers(1, 4, (len(images), 3, 1, 1), dtype=np.uint8)
        if shared_images and id == "d":
            images[30:] = np.load(folder / "images_of_a.npy")[:18]
        if id == "a":
            np.save(folder / "images_of_a.npy", images)
        level = images.mean(axis=(2, 3)) / 32  # (n_stimuli, 3)
        rates = np.stack([level.sum(1), 24 - level.sum(1), 3 * level[:, 0]], axis=1)
        counts = rng.poisson(rates[:, None], (len(images), 4, N_NEURONS))
        role = ("train", "validation", "test", "test")[index]
        Session(id, counts, StimulusSet.from_array(images), role=role).save(folder / f"{id}.npz")
    (folder / "images_of_a.npy").unlink()
    (folder.parent / "net.py").write_text(NETWORK)
    return folder


def config_of(folder: Path, **teacher: Any) -> RunConfig:
    settings = {"n_members": 2, "width": 8, "bottleneck": 4, "n_blocks": 0, "stride": 0}
    return RunConfig.model_validate(
        {
            "seed": 3,
            "recordings": {
                "path": str(folder), "train": ["a"], "validation": "b", "test": ["c", "d"],
            },
            "backbone": {"network": f"{folder.parent}/net.py:build", "layers": ["1", "3"]},
            "teacher": settings | {"n_epochs": 3} | teacher,
        }
    )  # fmt: skip


def test_one_training_serves_several_test_sessions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sessions, out = save_sessions(tmp_path / "sessions"), tmp_path / "out"
    fitted = fit_ensemble(config_of(sessions), out, device="cpu")
    assert (fitted["train"], fitted["validation"], fitted["n_members"]) == (["a"], "b", 2)
    assert len(fitted["validation_r2"]) == 3
    assert main(["ensemble", "score", str(out), "--device", "cpu", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert set(summary["sessions"]) == {"c", "d"}
    assert summary["best_layer"] in ("1", "3")
    table = pd.read_parquet(out / "ensemble_scores" / "scores.parquet")
    models = [LAYER_RIDGE, LAYER_FACTORIZED, BACKBONE_RIDGE, TEACHER]
    assert (out / "ensemble_scores" / "predicted_c.npz").is_file()
    for metric in ("r2", "noise-corrected r2", "BrainScore r2"):
        rows = table[table["metric"] == metric]
        assert rows.groupby("session")["model"].unique().map(list).tolist() == [models, models]
        assert len(rows) == 2 * len(models) * N_NEURONS
    for session, entry in summary["sessions"].items():
        assert entry["n_images_fit"] == entry["n_images_held_out"] == 24
        of_teacher = (table["model"] == TEACHER) & (table["metric"] == "r2")
        values = table[of_teacher & (table["session"] == session)]
        assert entry["scores"]["r2"]["teacher"]["mean"] == pytest.approx(values["value"].mean())
        assert values["value"].median() > 0.3  # brightness is easy to predict


def test_scoring_again_does_nothing_and_says_the_same(tmp_path: Path) -> None:
    sessions, out = save_sessions(tmp_path / "sessions"), tmp_path / "out"
    fit_ensemble(config_of(sessions), out, device="cpu")
    first = score_ensemble(out, device="cpu")
    written = (out / "ensemble_scores" / "manifest.json").stat().st_mtime_ns
    assert score_ensemble(out, device="cpu") == first
    assert (out / "ensemble_scores" / "manifest.json").stat().st_mtime_ns == written


def test_images_of_any_held_out_half_are_not_trained_on(tmp_path: Path) -> None:
    sessions = save_sessions(tmp_path / "sessions", shared_images=True)
    fitted = fit_ensemble(config_of(sessions), tmp_path / "out", device="cpu")
    assert fitted["n_images"] == 48 - 18


def test_a_folder_without_a_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ensemble", "score", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err


def members_of(n_channels: int) -> list[EnsembleMember]:
    shape = EnsembleShape(in_channels=n_channels, width=4, n_blocks=0, stride=0)
    return [EnsembleMember(shape).eval()]


def prior_of(outputs: np.ndarray) -> PriorFeatures:
    rng = np.random.default_rng(1)
    maps = rng.normal(size=(len(outputs), 3, 2, 2)).astype(np.float32)
    return PriorFeatures(maps, outputs)


def test_the_prior_weighs_what_it_predicts() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 5, 2, 2)).astype(np.float32)
    hidden = rng.normal(size=(200, 3)).astype(np.float32)
    noise = rng.normal(size=(200, 40)).astype(np.float32)
    other = hidden @ rng.normal(size=(3, 2))  # the features say nothing of it
    known, _ = map_teacher(members_of(5), SessionFeatures("s", features, other), prior_of(hidden))
    assert known.weights[1] == pytest.approx(1.0, abs=0.05)
    predicted = known.predict(features, prior_of(hidden))
    assert np.corrcoef(predicted[:, 0], other[:, 0])[0, 1] > 0.99
    own = np.maximum(features[:, :2, 0, 0], 0) @ rng.normal(size=(2, 2))
    unknown, _ = map_teacher(members_of(5), SessionFeatures("s", features, own), prior_of(noise))
    assert unknown.weights[0] > 0.8
    assert max(unknown.weights[1:]) < 0.2


def test_without_a_prior_the_ensemble_is_the_teacher() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 5, 2, 2)).astype(np.float32)
    session = SessionFeatures("s", features, rng.normal(size=(60, 2)))
    mapped, held_out = map_teacher(members_of(5), session)
    assert mapped.weights == (1.0, 0.0, 0.0)
    assert mapped.predict(features).shape == held_out.shape == (60, 2)
    assert np.abs(held_out - mapped.predict(features)).max() > 1e-3  # by maps that did not see it


def test_the_release_s_models_are_scored_and_averaged_in(real_data: Path, tmp_path: Path) -> None:
    """On real recordings, members of a moment: every peer has a score for every neuron."""
    release = real_data / "v4"
    shared = release / "data_shared_compact_models" / "from_ensemble_model"
    config = RunConfig.model_validate(
        {
            "seed": 1,
            "recordings": {"path": str(release), "train": ["190928"], "validation": "210305",
                           "test": ["190923"], "skip_synthesized": True},
            "teacher": {"n_members": 1, "width": 8, "n_blocks": 0, "stride": 0, "n_epochs": 1,
                        "prior": str(shared / "shared_compact_model_5filters.keras")},
        }
    )  # fmt: skip
    fit_ensemble(config, tmp_path / "out", device="cpu")
    summary = score_ensemble(tmp_path / "out", device="cpu")["sessions"]["190923"]
    scores = summary["scores"]["r2"]
    assert list(scores) == [LAYER_RIDGE, LAYER_FACTORIZED, TEACHER, TEACHER_WITH_PRIOR]
    assert all(entry["n_neurons"] == 33 for entry in scores.values())
    # five filters trained on 45 sessions are worth more than a fixed filter bank
    assert scores[TEACHER_WITH_PRIOR]["mean"] > scores[TEACHER]["mean"] + 0.05
    assert sum(summary["weights"][1:]) > summary["weights"][0]
