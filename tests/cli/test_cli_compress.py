"""`pocketcortex compress`: each verb goes as far as its stage, and says what came of it."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from pocketcortex.cli import main
from pocketcortex.core import Session, StimulusSet
from pocketcortex.metrics import bootstrap_ci
from pocketcortex.models import CompactModel
from pocketcortex.pipeline import compression, scores

N_NEURONS = 2
STAGES = ("teacher", "mapping", "labels", "students", "pruned", "compact")
TINY = """
seed = 1
[recordings]
path = "HERE"
test = ["c", "d"]
n_neurons = { d = 1 }
[teacher]
n_members = 1
width = 8
bottleneck = 4
n_blocks = 0
n_epochs = 1
[compact]
threshold = 0.8
n_pruning_images = 40
n_images = 32
[students]
filters = [12, 6, 6, 5, 4]
n_epochs = 4
batch_size = 8
n_monitor = 12
"""


@pytest.fixture(autouse=True, scope="module")
def _few_resamples() -> Iterator[None]:
    """Bootstrap by 20 resamples: types are checked in each of thousands of calls otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "bootstrap_ci", partial(bootstrap_ci, n_resamples=20))
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write four sessions of neurons that like bright and red images, and a configuration."""
    folder = tmp_path_factory.mktemp("sessions")
    rng = np.random.default_rng(0)
    for id, role in (("a", "train"), ("b", "validation"), ("c", "test"), ("d", "test")):
        images = rng.integers(0, 256, (32, 3, 16, 16), dtype=np.uint8)
        images //= rng.integers(1, 4, (32, 3, 1, 1), dtype=np.uint8)
        level = images.mean(axis=(2, 3)) / 16  # (n_stimuli, 3)
        rates = np.stack([level.sum(1), 2 * level[:, 0]], axis=1)
        responses = rng.poisson(rates[:, None], (32, 3, N_NEURONS))
        Session(id, responses, StimulusSet.from_array(images), role=role).save(folder / f"{id}.npz")
    path = folder / "run.toml"
    path.write_text(TINY.replace("HERE", str(folder)))
    return str(path)


def other_config(folder: Path, config: str, more: str) -> str:
    """Return a configuration that says more of the students, in the last table."""
    path = folder / "other.toml"
    path.write_text(Path(config).read_text() + more)
    return str(path)


def compress(
    capsys: pytest.CaptureFixture[str], verb: str, config: str, out: Path, *words: str
) -> str:
    """Run one verb to its end and return its standard output."""
    arguments = ["compress", verb, config, "--out", str(out), "--device", "cpu", *words]
    assert main(arguments) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def finite(constant: str) -> float:
    raise AssertionError(f"{constant} is no JSON")


def only_object(text: str) -> dict[str, Any]:
    """Return the one JSON object that is all of an output."""
    assert text.count("\n") == 1
    answer: dict[str, Any] = json.loads(text, parse_constant=finite)
    return answer


def stages_in(out: Path) -> tuple[str, ...]:
    found = {path.parent.name for path in out.glob("*/manifest.json")}
    assert found <= set(STAGES) | {"shared"}
    return tuple(name for name in STAGES if name in found)


def written(out: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in out.glob("*/**/*") if p.is_file()}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run folder that the verbs go on with one after the other."""
    return tmp_path_factory.mktemp("out") / "run"


@pytest.mark.parametrize(
    ("verb", "stage"), [("distil", "students"), ("prune", "pruned"), ("retrain", "compact")]
)
def test_each_verb_goes_exactly_as_far_as_its_stage(
    capsys: pytest.CaptureFixture[str], config: str, out: Path, verb: str, stage: str
) -> None:
    answer = only_object(compress(capsys, verb, config, out, "--json"))
    assert stages_in(out) == STAGES[: STAGES.index(stage) + 1]
    assert answer["models"] == str(out / stage)
    assert (answer["n_neurons"], answer["n_images"]) == (3, 32 + 32 + 16 + 16 - 12)
    assert answer["n_images_monitored"] == 12
    told = json.loads((out / stage / "agreement.json").read_text())
    assert answer["r2_teacher"] == told["median"]
    assert 0 < told["median"] <= 1
    assert set(told["neurons"]) == {"c_neuron000", "c_neuron001", "d_neuron000"}
    if verb == "distil":
        models = [CompactModel((12, 6, 6, 5, 4), (16, 16))]
    else:
        models = [CompactModel.load(out / stage / name) for name in told["neurons"]]
        assert answer["n_parameters"] < 2_000
    sizes = [model.n_parameters.total for model in models]
    assert answer["n_parameters"] == np.median(sizes)
    assert answer["n_filters"] == np.median([sum(m.filters_per_layer) for m in models])

    before = written(out)
    assert only_object(compress(capsys, verb, config, out, "--json")) == answer
    first, second = compress(capsys, verb, config, out).splitlines()
    assert first.startswith(f"3 models in {out / stage}, 84 images, ")
    assert f"squared correlation with the teacher {told['median']:.3f} (12 images" in second
    assert written(out) == before


def test_an_earlier_verb_leaves_what_later_ones_did(
    capsys: pytest.CaptureFixture[str], config: str, out: Path
) -> None:
    compress(capsys, "retrain", config, out)
    before = written(out)
    compress(capsys, "distil", config, out)
    assert written(out) == before


def test_what_cannot_be_told_is_null(
    capsys: pytest.CaptureFixture[str], config: str, out: Path, tmp_path: Path
) -> None:
    """Students that hardly learn anything answer alike to all images: no correlation."""
    still = other_config(tmp_path, config, "learning_rate = 1e-30\n")
    answer = only_object(compress(capsys, "distil", still, out, "--json"))
    assert answer["r2_teacher"] is None
    assert "teacher undefined (12 images" in compress(capsys, "distil", still, out)
    told = tmp_path / "told"  # a folder of its own: the others' shared models stay
    answer = only_object(compress(capsys, "shared", still, told, "--filters", "2", "--json"))
    assert answer["agreement"] == {"trained 2": None, "random 2": None}
    assert answer["scores"]["r2"]["random 2"]["median"] is None
    assert compress(capsys, "shared", still, told, "--filters", "2").count("undefined") == 4


def test_separate_students_are_distilled_too(
    capsys: pytest.CaptureFixture[str], config: str, out: Path, tmp_path: Path
) -> None:
    separate = other_config(tmp_path, config, 'kind = "separate"\npatience = 2\n')
    answer = only_object(compress(capsys, "retrain", separate, out, "--json"))
    assert answer["r2_teacher"] > 0
    for name in ("c_neuron000", "c_neuron001", "d_neuron000"):
        assert CompactModel.load(out / "students" / name).filters == (12, 6, 6, 5, 4)
    assert np.load(out / "students" / "monitor_r2.npy").shape[1] == 3


# Shared models of several sizes.


def test_shared_models_are_trained_with_learned_and_with_random_filters(
    capsys: pytest.CaptureFixture[str], config: str, out: Path
) -> None:
    words = ("shared", config, out, "--filters", "2,3")
    answer = only_object(compress(capsys, *words, "--json"))
    names = [f"{kind} {size}" for kind in ("trained", "random") for size in (2, 3)]
    assert list(answer["agreement"]) == names
    assert all(0 <= value <= 1 for value in answer["agreement"].values())
    table = pd.read_parquet(out / "shared" / "scores.parquet")
    assert len(table) == 4 * 2 * 3  # models, metrics, neurons
    assert set(table["model"]) == set(names)
    for metric, models in answer["scores"].items():
        for name, score in models.items():
            values = table[(table["model"] == name) & (table["metric"] == metric)]["value"]
            assert score["median"] == pytest.approx(values.median())
            assert score["n_neurons"] == 3
    assert {p.stem for p in (out / "shared").glob("*.png")} == {
        metric.replace(" ", "_") for metric in answer["scores"]
    }
    kernels = {}
    for path in (out / "shared").glob("*.safetensors"):
        state = safetensors.torch.load_file(path)
        size = int(path.stem[-3:])
        kernels[path.stem] = state["layers.conv.weight"]
        shapes = [state[f"layers.pointwise.{k}.weight"].shape[:2] for k in range(4)]
        assert shapes == [(size, size), (size, size), (5, size), (4, 5)]
    assert set(kernels) == {"trained002", "trained003", "random002", "random003"}
    assert not torch.equal(kernels["trained003"], kernels["random003"])

    before = written(out)
    assert only_object(compress(capsys, *words, "--json")) == answer
    head, *lines = compress(capsys, *words).splitlines()
    assert written(out) == before
    assert "r² to teacher" in head
    assert [" ".join(line.split()[:2]) for line in lines] == names
    assert lines[0].split()[2] == f"{answer['agreement']['trained 2']:.3f}"


class StoppedError(Exception):
    """Stands in for a kill."""


def test_killed_shared_models_go_on_and_end_the_same(
    capsys: pytest.CaptureFixture[str], config: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle of a model, and between saving one and forgetting its checkpoint."""
    words = ["shared", config, out, "--filters", "2,3"]
    compress(capsys, *words)
    whole = {p.name: p.read_bytes() for p in (out / "shared").glob("*.[sp]a*")}
    assert len(whole) == 5
    (out / "shared" / "manifest.json").unlink()

    def dies_at(number: int, method: Callable[..., object]) -> Callable[..., object]:
        def called(*arguments: object, **named: object) -> object:
            nonlocal number
            number -= 1
            if number < 0:
                raise StoppedError
            return method(*arguments, **named)

        return called

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", dies_at(1, Path.unlink))
        assert main(["compress", *map(str, words[:2]), "--out", str(out), *words[3:]]) == 1
    assert "StoppedError" in capsys.readouterr().err
    assert len(list((out / "shared.partial").glob("*0??.safetensors"))) == 2
    with monkeypatch.context() as patch:
        patch.setattr(compression, "_save_shared", dies_at(0, compression._save_shared))
        assert main(["compress", *map(str, words[:2]), "--out", str(out), *words[3:]]) == 1
    assert "StoppedError" in capsys.readouterr().err
    compress(capsys, *words)
    assert {p.name: p.read_bytes() for p in (out / "shared").glob("*.[sp]a*")} == whole


@pytest.mark.parametrize(
    ("filters", "reason"),
    [
        ("x", "filters must be numbers like 5,10,25,50,100,200, got 'x'"),
        ("2,", "filters must be numbers like"),
        ("2.5", "filters must be numbers like"),
        ("2,2", "sizes must be different numbers of filters, 1 or more; got [2, 2]"),
        ("3,0", "sizes must be different numbers of filters, 1 or more; got [3, 0]"),
    ],
)
def test_wrong_filters_are_exit_2(
    capsys: pytest.CaptureFixture[str], config: str, tmp_path: Path, filters: str, reason: str
) -> None:
    out = tmp_path / "out"
    assert main(["compress", "shared", config, "--out", str(out), "--filters", filters]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("pocketcortex: ")
    assert captured.err.count("\n") == 1
    assert reason in captured.err
    assert not out.exists()


@pytest.mark.parametrize("words", [["compress"], ["compress", "all"], ["compress", "distil"]])
def test_wrong_words_are_exit_2(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(words) == 2
    assert "pocketcortex: " in capsys.readouterr().err
