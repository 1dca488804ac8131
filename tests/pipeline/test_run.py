"""A whole run: what it leaves, what it does again, and that being stopped changes no number."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import pytest
import torch

from pocketcortex.cli import main
from pocketcortex.core import InputError, RunFolder, Session, StimulusSet
from pocketcortex.data import read_recordings
from pocketcortex.metrics import bootstrap_ci, pearson_r2
from pocketcortex.models import CompactModel, SharedCompactModel
from pocketcortex.pipeline import (
    CausalSession,
    RunConfig,
    compress,
    fit_ensemble,
    resolve_device,
    run,
    scores,
    stages,
)

STAGES = (
    "teacher", "mapping", "labels", "students", "pruned", "compact", "scores", "stimuli",
    "circuits", "report",
)  # fmt: skip
MODELS = ("backbone ridge", "teacher", "student", "compact")
N_NEURONS = 3
Undisturbed: TypeAlias = tuple[dict[str, Any], dict[str, bytes]]
"""Summary of a run that nobody killed, and its files."""


@pytest.fixture(autouse=True, scope="module")
def _few_resamples() -> Iterator[None]:
    """Bootstrap by 20 resamples: types are checked in each of thousands of calls otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "bootstrap_ci", partial(bootstrap_ci, n_resamples=20))
        yield


def settings(recordings: dict[str, Any], **changed: dict[str, Any]) -> dict[str, Any]:
    """Return the tables of a run of a second."""
    tables: dict[str, dict[str, Any]] = {
        "recordings": recordings,
        "teacher": {"n_members": 1, "width": 8, "bottleneck": 4, "n_blocks": 1, "n_epochs": 3},
        "students": {
            "filters": [24, 4, 4, 4, 4], "n_epochs": 3, "batch_size": 16, "n_monitor": 12,
        },
        "compact": {
            "threshold": 0.95, "n_pruning_images": 30, "n_images": 32, "n_epochs": 2, "patience": 1,
        },
        "stimuli": {
            "n_random": 4, "n_natural": 1, "n_synthesized": 1, "n_synthesis_steps": 2,
            "n_adversarial": 1, "n_smoothed": 1, "n_patches": 2,
        },
    }  # fmt: skip
    return {
        "seed": 3,
        **{name: table | changed.get(name, {}) for name, table in tables.items()},
    }


def do(tables: dict[str, Any], out: Path) -> dict[str, Any]:
    return run(RunConfig.model_validate(tables), out, device="cpu")


def save_sessions(folder: Path, *, n_held_out: int = 16) -> Path:
    """Write four sessions whose neurons like bright, dark and red images of 16 pixels.

    A bank of pictures of 40 pixels lies beside them.
    """
    folder.mkdir()
    rng = np.random.default_rng(5)
    for id, role in (("a", "train"), ("b", "validation"), ("c", "test"), ("d", "test")):
        images = rng.integers(0, 256, (16 + n_held_out, 3, 16, 16), dtype=np.uint8)
        images //= rng.integers(1, 4, (len(images), 3, 1, 1), dtype=np.uint8)
        level = images.mean(axis=(2, 3)) / 32  # (n_stimuli, 3)
        rates = np.stack([level.sum(1), 24 - level.sum(1), 3 * level[:, 0]], axis=1)
        counts = rng.poisson(rates[:, None], (len(images), 4, N_NEURONS))
        Session(id, counts, StimulusSet.from_array(images), role=role).save(folder / f"{id}.npz")
    np.save(folder.parent / "bank.npy", rng.integers(0, 256, (24, 3, 40, 40), dtype=np.uint8))
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Where sessions saved by their owner are; two of them are to be predicted."""
    folder = save_sessions(tmp_path_factory.mktemp("recordings") / "sessions")
    return {"path": str(folder), "test": ["c", "d"]}


def bank_of(recordings: dict[str, Any]) -> dict[str, Any]:
    """Return settings of students that also learn from crops of the bank beside the sessions."""
    path = str(Path(recordings["path"]).parent / "bank.npy")
    return {"banks": [{"path": path, "crops": 2}]}


SEPARATE = {
    "kind": "separate", "filters": [6, 4, 4, 4, 4], "batch_size": 32, "patience": 1,
    "learning_rate": 0.02, "n_epochs": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def tables(saved: dict[str, Any]) -> dict[str, Any]:
    """Return what the run that nobody killed was asked for."""
    return settings(saved, students=bank_of(saved))


@pytest.fixture
def copied(undisturbed_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(undisturbed_folder, tmp_path / "run"))


def redone(capsys: pytest.CaptureFixture[str], last: str = "report") -> list[str]:
    """Return the stages that were not skipped, by what a run up to one of them said."""
    lines = capsys.readouterr().err.splitlines()
    told = [line.split(" (")[0] for line in lines if line.split(":")[0] in STAGES and "(" in line]
    assert [line.split(":")[0] for line in told] == list(STAGES[: STAGES.index(last) + 1])
    return [line.split(":")[0] for line in told if not line.endswith("done before")]


def without_report(summary: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in summary.items() if name != "report"}


def test_folder_holds_every_stage(undisturbed_folder: Path) -> None:
    out = undisturbed_folder
    entries = {path.name for path in out.iterdir()}
    assert entries == {*STAGES, "features", "config.json", "manifest.json", ".lock"}
    for stage in STAGES:
        assert (out / stage / "manifest.json").is_file()
    assert not list(out.rglob("*.partial"))
    assert not list(out.rglob("checkpoint*"))
    config = RunConfig.model_validate_json((out / "config.json").read_text())
    assert config.seed == 3
    record = json.loads((out / "manifest.json").read_text())
    assert record["device"] == "cpu"
    assert {"seed", "date", "packages", "machine", "commit", "inputs"} <= set(record)


def test_summary_tells_the_scores_of_all_models(undisturbed: Undisturbed) -> None:
    summary, _ = undisturbed
    assert (summary["n_neurons"], summary["seed"]) == (2 * N_NEURONS, 3)
    assert list(summary["sessions"]) == ["c", "d"]
    assert summary["n_images_distilled"] == 32 + 32 + 16 + 16 + 48 - 12
    for session in summary["sessions"].values():
        assert (session["n_neurons"], session["unusable_neurons"]) == (N_NEURONS, {})
        assert (session["n_images_fit"], session["n_images_held_out"]) == (16, 16)
    for part in (summary, *summary["sessions"].values()):
        assert set(part["scores"]) == {"r2", "noise-corrected r2"}
        for models in part["scores"].values():
            assert tuple(models) == MODELS
            for score in models.values():
                assert np.isfinite([score["median"], *score["ci"]]).all()
                assert score["ci"][0] <= score["median"] <= score["ci"][1]
                assert score["n_neurons"] == part["n_neurons"]
    assert tuple(summary["n_parameters"]) == MODELS
    assert summary["n_parameters"]["compact"] < summary["n_parameters"]["student"]
    assert summary["n_filters"]["compact"] < summary["n_filters"]["student"] == 24 + 24 + 16


def test_table_has_one_row_for_each_neuron_model_and_metric(undisturbed: Undisturbed) -> None:
    summary, files = undisturbed
    table = pd.read_parquet(io.BytesIO(files["scores/scores.parquet"]))
    keys = table[["session", "neuron", "model", "metric"]]
    assert len(table) == len(keys.drop_duplicates()) == 2 * N_NEURONS * len(MODELS) * 2
    assert np.isfinite(table["value"]).all()
    pooled = table.groupby(["metric", "model"])["value"].median()
    means = table.groupby(["session", "metric", "model"])["value"].mean()
    for metric, models in summary["scores"].items():
        for model, score in models.items():
            assert pooled[metric, model] == pytest.approx(score["median"])
            for name, session in summary["sessions"].items():
                mean = session["scores"][metric][model]["mean"]
                assert means[name, metric, model] == pytest.approx(mean)


def test_scores_of_each_session_are_of_its_own_neurons(
    undisturbed: Undisturbed, undisturbed_folder: Path, saved: dict[str, Any]
) -> None:
    """The models in the folder, asked anew, have the scores that the table gives them."""
    table = pd.read_parquet(undisturbed_folder / "scores" / "scores.parquet")
    for session in "cd":
        held = read_recordings(saved["path"])[session].take(np.arange(16, 32))
        images = torch.from_numpy(held.require_stimuli().images())
        folder = undisturbed_folder / "compact"
        models = [CompactModel.load(folder / f"{session}_neuron{k:03d}") for k in range(N_NEURONS)]
        with torch.inference_mode():
            answers = torch.stack([model(images) for model in models], dim=1).double().numpy()
        r2 = pearson_r2(held.mean_responses, answers)
        rows = table.query("session == @session and model == 'compact' and metric == 'r2'")
        np.testing.assert_allclose(rows.sort_values("neuron")["value"], r2, rtol=1e-3)


def test_report_and_models_can_be_read(undisturbed: Undisturbed, undisturbed_folder: Path) -> None:
    summary, out = undisturbed[0], undisturbed_folder
    page = (out / "report" / "report.html").read_text()
    assert "sessions c, d" in page
    assert f"{summary['scores']['noise-corrected r2']['compact']['median']:.3g}" in page
    session = CausalSession.load(out / "stimuli")
    assert len(session.stimuli) == len(session.roles) == 4 + 6 * (2 + 1 + 3 + 2)
    assert session.roles.n_targets == 2 * N_NEURONS
    answers = np.load(out / "stimuli" / "responses.npy")
    assert answers.shape == (len(session.stimuli), 2 * N_NEURONS)
    assert {p.stem for p in (out / "report" / "figures").glob("*.png")} >= {
        "stimuli",
        "population",
        "adversarial",
        "smoothed",
    }
    assert not (out / "causal").exists()  # the animal cannot be shown more
    for name in (f"{session}_neuron{k:03d}" for session in "cd" for k in range(N_NEURONS)):
        compact, pruned = (CompactModel.load(out / part / name) for part in ("compact", "pruned"))
        assert compact.filters == pruned.filters
        assert not torch.equal(compact.readout, pruned.readout)


def test_agreement_with_the_teacher_is_told_on_images_kept_aside(undisturbed_folder: Path) -> None:
    for stage in ("students", "pruned", "compact"):
        told = json.loads((undisturbed_folder / stage / "agreement.json").read_text())
        assert told["n_images"] == 12
        values = list(told["neurons"].values())
        assert len(values) == 2 * N_NEURONS
        assert told["median"] == pytest.approx(np.median(values))
        assert all(0 <= value <= 1 for value in values)


def test_second_call_does_nothing_again(
    undisturbed: Undisturbed,
    undisturbed_folder: Path,
    tables: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = undisturbed_folder
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/**/*") if path.is_file()}
    report = str(out / "report" / "report.html")
    assert do(tables, out) == undisturbed[0] | {"report": report}
    assert redone(capsys) == []
    after = {path: path.stat().st_mtime_ns for path in out.glob("*/**/*") if path.is_file()}
    assert after == before


def test_a_late_setting_redoes_only_what_follows(
    copied: Path, tables: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    changed = tables | {"stimuli": tables["stimuli"] | {"n_synthesis_steps": 3}}
    do(changed, copied)
    assert redone(capsys) == ["stimuli", "report"]


@pytest.mark.parametrize(
    ("table", "change", "first"),
    [
        ("compact", {"learning_rate": 2e-3}, "compact"),
        ("compact", {"threshold": 0.5}, "pruned"),
        ("students", {"learning_rate": 1e-3}, "students"),
        ("students", {"dead_leaves": 3}, "labels"),
    ],
)
def test_a_setting_redoes_only_what_follows(
    copied: Path,
    tables: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    table: str,
    change: dict[str, Any],
    first: str,
) -> None:
    changed = RunConfig.model_validate(tables | {table: tables[table] | change})
    compress(changed, copied, "retrain", device="cpu")
    assert redone(capsys, "compact") == list(STAGES[STAGES.index(first) : 6])


@pytest.mark.parametrize(
    "name",
    [
        "mapping/d/held_out_teacher.npy", "labels/teacher.npy", "students/shared.safetensors",
        "pruned/d_neuron001/model.safetensors", "compact/c_neuron002/model.safetensors",
    ],
)  # fmt: skip
def test_a_damaged_file_is_made_again(
    copied: Path, tables: dict[str, Any], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = copied / name
    content = path.read_bytes()
    path.write_bytes(content[:-8] + bytes(8))
    do(tables, copied)
    assert redone(capsys) == [name.split("/")[0]]
    assert path.read_bytes() == content


def test_a_drawn_seed_is_stored_kept_and_decides_the_numbers(
    tables: dict[str, Any],
    undisturbed: Undisturbed,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = RunConfig.model_validate(tables | {"seed": None})
    drawn = compress(config, tmp_path, "retrain", device="cpu")
    seed = json.loads((tmp_path / "config.json").read_text())["seed"]
    assert f"seed {seed}\n" in capsys.readouterr().err
    assert seed != 3
    assert compress(config, tmp_path, "retrain", device="cpu") == drawn
    assert redone(capsys, "compact") == []
    other, three = contents(tmp_path), undisturbed[1]
    same = {name for name, content in other.items() if content == three[name]}
    same -= {name for name in same if name.endswith("/config.json")}  # counts may agree by chance
    assert same == {  # nothing random in it
        "mapping/parameters.json",
        *(f"mapping/{s}/{n}" for s in "cd" for n in ("held_out_ridge.npy", "teacher/teacher.json")),
    }  # fmt: skip


def test_a_run_without_any_score_ends_all_the_same(tmp_path: Path) -> None:
    folder = save_sessions(tmp_path / "in")
    with np.load(folder / "c.npz") as arrays:
        images, responses = arrays["images"].copy(), arrays["responses"]
    images[16:] = 128  # the same grey screen throughout the second half
    averages, stimuli = responses.mean(axis=1, keepdims=True), StimulusSet.from_array(images)
    Session("c", averages, stimuli, has_repeats=False, role="test").save(folder / "c.npz")
    summary = do(settings({"path": str(folder), "test": "c"}), tmp_path / "out")
    none = {"median": None, "ci": [None, None], "mean": None, "n_neurons": 0}
    assert summary["scores"] == {"r2": dict.fromkeys(MODELS, none)}
    json.dumps(summary, allow_nan=False)
    table = pd.read_parquet(tmp_path / "out" / "scores" / "scores.parquet")
    assert table["value"].isna().all()
    assert (table["reason"] != "").all()
    assert Path(summary["report"]).is_file()


def test_a_model_that_hardly_varies_bears_a_dagger(
    copied: Path, tables: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weak = scores.hardly_varying(pd.read_parquet(copied / "scores" / "scores.parquet"), "compact")
    assert weak  # hardly trained, so five of the six here
    config = write_config(tmp_path / "run.toml", tables)
    assert main(["run", str(config), "--out", str(copied), "--device", "cpu"]) == 0
    told = capsys.readouterr().out
    page = (copied / "report" / "report.html").read_text()
    named = ", ".join(f"{session} {neuron}" for session, neuron in weak)
    assert page.count(f"† ({named}): the compact model") == 1
    for session, neuron in ((s, k) for s in "cd" for k in range(N_NEURONS)):
        words = f"session {session}: neuron {neuron} was hardly predicted"
        assert told.count(words) == ((session, neuron) in weak)


def test_a_missing_bank_is_found_before_the_work(saved: dict[str, Any], tmp_path: Path) -> None:
    tables = settings(saved, students={"banks": [{"path": str(tmp_path / "absent.zip")}]})
    with pytest.raises(InputError, match=r"absent\.zip does not exist"):
        do(tables, tmp_path / "out")
    assert not (tmp_path / "out" / "features").exists()


def test_too_many_images_to_keep_aside_are_found_before_the_work(
    saved: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"n_monitor = 48 of 96 images"):
        do(settings(saved, students={"n_monitor": 48}), tmp_path / "out")
    assert not (tmp_path / "out" / "features").exists()


def test_missing_published_models_are_found_before_the_work(
    saved: dict[str, Any], tmp_path: Path
) -> None:
    tables = settings(saved | {"published_models": str(tmp_path)})
    with pytest.raises(InputError, match="no published compact models of session 'c'"):
        do(tables, tmp_path / "out")
    assert not (tmp_path / "out" / "features").exists()


def test_a_folder_in_use_is_refused(saved: dict[str, Any], tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path).locked(),
        pytest.raises(InputError, match="another process is running in"),
    ):
        do(settings(saved), tmp_path)


def test_devices() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") in ("cpu", "cuda")
    with pytest.raises(InputError, match="must be auto, cpu or cuda; got 'tpu'"):
        resolve_device("tpu")


def test_another_choice_of_neurons_redoes_what_depends_on_it(
    saved: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for count in (1, 2):
        tables = settings(saved | {"n_neurons": {"d": count}}, students={"n_epochs": 1})
        config = RunConfig.model_validate(tables)
        if count == 1:
            fit_ensemble(config, tmp_path, device="cpu")
            assert redone(capsys, "teacher") == ["teacher"]
        told = compress(config, tmp_path, "retrain", device="cpu")
        assert told["n_neurons"] == N_NEURONS + count
        assert redone(capsys, "compact") == list(STAGES[1:6])  # the teacher serves all


def test_layers_to_start_from_of_other_sizes_are_found_before_the_work(
    saved: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = SharedCompactModel((3, 3, 3, 4, 4), 2, (16, 16))
    monkeypatch.setattr(stages, "import_shared_model", lambda path: published)
    with pytest.raises(InputError, match=r"start has \[3, 3, 3, 4, 4\] filters, students.filters"):
        do(settings(saved, students={"start": "a model"}), tmp_path / "out")
    assert not (tmp_path / "out" / "features").exists()


# Stopped runs. The program is the real one, in processes of its own with one thread.

COMMAND = Path(sys.executable).parent / "pocketcortex"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "80"}

STOPPED_AT = """
import fnmatch, json, os, signal, sys
import matplotlib.pyplot, pocketcortex.pipeline, torch._dynamo  # once, not in every child
from pocketcortex.cli import main
from pocketcortex.pipeline import bank
from pocketcortex.training import optimize

bank._IMAGES_A_MARK, optimize._IMAGES_A_CHECKPOINT = 32, 48  # within a pass over so few, too

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's is ignored

def arm(event, name, count, number):
    left = [count]
    def watch(seen, arguments):
        if seen == event and fnmatch.fnmatch(str(arguments[0]), name):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), number)
    sys.addaudithook(watch)

for event, name, count, number in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        arm(event, name, count, number)
        os._exit(main(sys.argv[2:]))
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
    out = sys.argv[sys.argv.index("--out") + 1]
    print(json.dumps(sorted(os.listdir(out))), flush=True)
"""
"""Run the program again and again, each time stopped by a signal just before the `count`-th
renaming or removal of a file of this name. Prints each time's exit code and what it leaves."""


class Moment(NamedTuple):
    """When to stop a run and by what signal; the name is a pattern."""

    event: str
    name: str
    count: int
    number: int = signal.SIGKILL


SAVE = "checkpoint.safetensors"
MOMENTS = {  # a stage that has removed its checkpoint starts anew, so that comes first
    Moment("os.rename", "*/features/*.partial", 2): "teacher",  # a file not yet whole
    Moment("os.rename", f"*/teacher.partial/{SAVE}.partial", 2): "teacher",
    Moment("os.remove", f"*/teacher.partial/{SAVE}", 1): "teacher",
    Moment("os.rename", "*/teacher.partial", 1): "teacher",  # complete but for its name
    Moment("os.rename", "*/mapping.partial", 1): "mapping",
    Moment("os.rename", "*/labels.partial/mark.json.partial", 2): "labels",
    Moment("os.remove", "*/labels.partial/mark.json", 1): "labels",
    Moment("os.rename", f"*/students.partial/{SAVE}.partial", 2): "students",
    Moment("os.rename", f"*/students.partial/{SAVE}.partial", 3, signal.SIGINT): "students",
    Moment("os.rename", "*/students.partial/shared.safetensors.partial", 1): "students",
    Moment("os.remove", f"*/students.partial/{SAVE}", 1): "students",
    Moment("os.rename", "*/pruned.partial/d_neuron001/config.json.partial", 1): "pruned",
    Moment("os.rename", "*/pruned.partial", 1): "pruned",
    Moment("os.rename", f"*/compact.partial/{SAVE}.partial", 2): "compact",
    Moment("os.rename", "*/compact.partial/c_neuron001/model.safetensors.partial", 1): "compact",
    Moment("os.rename", "*/scores.partial/summary.json.partial", 1): "scores",
    Moment("os.rename", "*/stimuli.partial", 1): "stimuli",
    Moment("os.rename", "*/report.html.partial", 1): "report",
}
MOMENTS_OF_SEPARATE = {
    Moment("os.rename", f"*/students.partial/{SAVE}.partial", 2): "students",
    Moment("os.rename", f"*/students.partial/{SAVE}.partial", 10): "students",  # some have stopped
    Moment("os.rename", "*/students.partial/d_neuron000/config.json.partial", 1): "students",
    Moment("os.remove", f"*/students.partial/{SAVE}", 1): "students",
}
NEVER = Moment("os.rename", "never", 1)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def command(config: Path, out: Path, *verb: str) -> list[str]:
    return [*(verb or ["run"]), str(config), "--out", str(out), "--device", "cpu", "--json"]


def finish(config: Path, out: Path, *verb: str) -> dict[str, Any]:
    """Run the program to its end and return the one JSON object that it prints."""
    done = subprocess.run(
        [COMMAND, *command(config, out, *verb)], env=ENVIRONMENT, capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def contents(out: Path) -> dict[str, bytes]:
    """Return every file of the stages' that holds a number."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for stage in STAGES[:-1]
        for path in sorted((out / stage).rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def write_config(path: Path, tables: dict[str, Any]) -> Path:
    path.write_text("\n".join(f"{name} = {toml(value)}" for name, value in tables.items()))
    return path


@pytest.fixture(scope="module")
def config_file(tables: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("config") / "run.toml", tables)


@pytest.fixture(scope="module")
def undisturbed_folder(config_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that nobody killed."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    finish(config_file, out)
    return out


@pytest.fixture(scope="module")
def undisturbed(undisturbed_folder: Path) -> Undisturbed:
    """Return its summary and files."""
    summary = json.loads((undisturbed_folder / "scores" / "summary.json").read_text())
    return summary, contents(undisturbed_folder)


def stop_and_finish(config: Path, out: Path, moments: dict[Moment, str], *verb: str) -> Undisturbed:
    """Stop a run at each moment in turn, then let it end; return what it says and its files."""
    words = command(config, out, *verb)
    told = subprocess.run(
        [sys.executable, "-c", STOPPED_AT, json.dumps([*moments, NEVER]), *words],
        env=ENVIRONMENT, capture_output=True, text=True, check=True, timeout=3000,
    )  # fmt: skip
    *before, answer, code, folder = told.stdout.splitlines()
    for moment, stopped, left in zip(moments, before[::2], before[1::2], strict=True):
        assert int(stopped) == (130 if moment.number == signal.SIGINT else -signal.SIGKILL), moment
        unfinished = [name for name in json.loads(left) if name.endswith(".partial")]
        assert unfinished == [f"{moments[moment]}.partial"], moment
    lines = [line for line in told.stderr.splitlines() if line.startswith("pocketcortex: ")]
    n_interrupted = sum(moment.number == signal.SIGINT for moment in moments)
    assert lines == ["pocketcortex: interrupted"] * n_interrupted
    assert "Traceback" not in told.stderr
    assert code == "0"
    assert set(STAGES) <= set(json.loads(folder))
    assert not list(out.rglob("*.partial"))
    return without_report(json.loads(answer)), contents(out)


def test_a_run_stopped_at_any_moment_ends_with_the_same_numbers(
    config_file: Path, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    assert stop_and_finish(config_file, tmp_path / "run", MOMENTS) == undisturbed


def test_separate_students_stopped_at_any_moment_end_with_the_same_numbers(
    tables: dict[str, Any], copied: Path, tmp_path: Path
) -> None:
    """The stages before are done: they do not depend on the kind of student."""
    asked = tables | {"students": tables["students"] | SEPARATE}
    stopped = Path(shutil.copytree(copied, tmp_path / "stopped"))
    expected = compress(RunConfig.model_validate(asked), copied, "distil", device="cpu")
    history = np.load(copied / "students" / "monitor_r2.npy")
    assert history.shape[1] == 2 * N_NEURONS
    n_epochs = np.isfinite(history).sum(axis=0)
    assert n_epochs.min() == 2 < n_epochs.max()
    config = write_config(tmp_path / "run.toml", asked)
    told, files = stop_and_finish(config, stopped, MOMENTS_OF_SEPARATE, "compress", "distil")
    assert files == contents(copied)
    kept = ("n_neurons", "n_images", "r2_teacher", "n_parameters", "n_filters")
    assert {name: told[name] for name in kept} == {name: expected[name] for name in kept}
    assert "students/c_neuron000/model.safetensors" in files
    assert "students/shared.safetensors" not in files


def test_too_few_images_for_the_stimuli_are_refused_before_any_work(
    tables: dict[str, Any], tmp_path: Path
) -> None:
    wanted = tables | {"stimuli": tables["stimuli"] | {"n_random": 1500}}
    with pytest.raises(InputError, match=r"too few to take stimuli.n_random = 1500"):
        do(wanted, tmp_path / "run")
    assert not (tmp_path / "run" / "teacher").exists()
