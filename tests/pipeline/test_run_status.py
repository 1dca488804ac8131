"""What a run folder says of its stages, made by hand as runs leave them."""

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from pocketcortex.cli import main
from pocketcortex.core import InputError, PocketcortexError, RunFolder, write_json
from pocketcortex.pipeline import RunConfig, run_status
from pocketcortex.pipeline.run_status import STAGES
from pocketcortex.pipeline.tasks import TaskFolder, plan_tasks

CONFIG = RunConfig.model_validate({"seed": 3, "recordings": {"path": "here"}})


def fill(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "answer.txt").write_text(text) and None


def inputs_of(table: str, config: RunConfig = CONFIG) -> dict[str, Any]:
    whole = config.model_dump(mode="json")
    return {"seed": 3, "data": "abc", "prior": None, table: whole[table]}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Return a run that has gone as far as its students."""
    folder = RunFolder(tmp_path / "run")
    with folder.locked():
        folder.write_json("config.json", CONFIG.model_dump(mode="json"))
        packages = {"pocketcortex": version("pocketcortex")}
        folder.write_json(
            "manifest.json",
            {"seed": 3, "inputs": "abc", "device": "cpu", "date": "now", "packages": packages},
        )
        teacher = {"seed": 3, "data": "of training", "teacher": {"n_members": 25}}
        folder.stage("teacher", teacher, fill("t"))
        folder.stage(
            "mapping", {"seed": 3, "data": "abc", "prior": None}, fill("m"), after="teacher"
        )
        folder.stage(
            "labels", {"seed": 3, "data": "abc", "prior": None}, fill("l"), after="mapping"
        )
        folder.stage("students", inputs_of("students"), fill("s"), after="labels")
    return folder.path


def states(out: Path, **options: bool) -> dict[str, tuple[str, str]]:
    return {s.name: (s.state, s.why) for s in run_status(out, **options).stages}


def test_what_is_done_and_what_is_waiting(out: Path) -> None:
    status = run_status(out, check_files=True)
    assert (status.is_held, status.seed, status.device) == (False, 3, "cpu")
    assert [s.name for s in status.stages] == [name for name in STAGES if name != "causal"]
    assert [s.state for s in status.stages] == ["done"] * 4 + ["waiting"] * 6
    assert all(s.seconds is not None for s in status.stages[:4])


def test_a_failed_stage_tells_why(out: Path) -> None:
    folder = RunFolder(out)
    folder.digests["students"] = "s"

    def fails(stage: Path) -> None:
        (stage / "checkpoint").touch()
        raise PocketcortexError("training diverged; lower the learning rate")

    with pytest.raises(PocketcortexError):
        folder.stage("pruned", {}, fails, after="students")
    assert states(out)["pruned"] == ("failed", "training diverged; lower the learning rate")
    tried = (out / "pruned.partial" / "checkpoint").exists()
    folder.stage("pruned", {}, fill("p"), after="students")  # a new try takes the mark away
    assert tried
    assert not (out / "pruned" / "failed.json").exists()


def test_clearing_throws_away_what_failed_and_nothing_else(out: Path) -> None:
    folder = RunFolder(out)

    def fails(stage: Path) -> None:
        raise ZeroDivisionError("by zero")

    with pytest.raises(ZeroDivisionError):
        folder.stage("pruned", {}, fails)
    (out / "compact.partial").mkdir()  # killed, not failed
    assert states(out)["pruned"] == ("failed", "ZeroDivisionError: by zero")
    assert folder.clear_failed() == ["pruned"]
    assert states(out)["pruned"] == ("waiting", "")
    assert states(out)["compact"] == ("stopped", "")


def test_running_is_told_from_stopped_by_who_holds_the_folder(out: Path) -> None:
    (out / "pruned.partial").mkdir()
    assert states(out)["pruned"] == ("stopped", "")
    with RunFolder(out).locked():
        assert run_status(out).is_held
        assert states(out)["pruned"] == ("running", "")


def test_tasks_are_counted_and_their_errors_named(out: Path) -> None:
    stage = out / "pruned.partial"
    stage.mkdir()
    plan_tasks(stage, ["a", "b", "c"])
    TaskFolder(stage, "a").fill(lambda folder, checkpoint: (folder / "x").touch())

    def fails(folder: Path, checkpoint: Path) -> None:
        raise ValueError("bad image")

    with pytest.raises(ValueError, match="bad image"):
        TaskFolder(stage, "c").fill(fails)
    found = next(s for s in run_status(out).stages if s.name == "pruned")
    assert (found.n_tasks, found.n_tasks_done) == (3, 1)
    assert found.failed_tasks == {"c": "ValueError: bad image"}


@pytest.mark.parametrize(
    ("change", "stage", "why"),
    [
        ({"students": {"learning_rate": 1.0}}, "students",
         "settings have changed: students.learning_rate"),
        ({"teacher": {"n_members": 3}}, "teacher", "settings have changed: teacher.n_members"),
        ({"seed": 4}, "labels", "made with seed 3"),
    ],
)  # fmt: skip
def test_changed_settings_make_stale(
    out: Path, change: dict[str, Any], stage: str, why: str
) -> None:
    config = CONFIG.model_dump(mode="json")
    for table, value in change.items():
        config[table] = config[table] | value if isinstance(value, dict) else value
    write_json(out / "config.json", config)
    assert states(out)[stage] == ("stale", why)
    if "teacher" in change:  # and what was made from it
        assert states(out)["mapping"] == ("stale", "teacher is stale")
        assert states(out)["students"] == ("stale", "labels is stale")


def test_changed_recordings_versions_and_upstream_make_stale(out: Path) -> None:
    record = json.loads((out / "manifest.json").read_text())
    write_json(out / "manifest.json", record | {"inputs": "others"})
    assert states(out)["labels"] == ("stale", "the recordings have changed")
    write_json(out / "manifest.json", record)
    folder = RunFolder(out)
    folder.stage("teacher", {"seed": 3}, fill("another"))
    assert states(out)["mapping"] == ("stale", "made from another teacher")
    manifest = json.loads((out / "teacher" / "manifest.json").read_text())
    write_json(out / "teacher" / "manifest.json", manifest | {"version": "0.0.1"})
    assert states(out)["teacher"] == ("stale", "made by pocketcortex 0.0.1")


def test_damage_is_seen_when_files_are_read_back(out: Path) -> None:
    (out / "labels" / "answer.txt").write_text("x")
    assert states(out)["labels"] == ("done", "")
    assert states(out, check_files=True)["labels"] == (
        "stale",
        "files are not as they were written",
    )


def test_the_command_tells_it_in_words_and_in_json(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", "show", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "no process is running in it; seed 3, cpu" in lines[0]
    assert [line.split()[:2] for line in lines[1:5]] == [
        [name, "done"] for name in STAGES[:4]
    ]  # fmt: skip
    assert main(["runs", "show", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads(json.dumps(run_status(out).as_dict()))


def test_a_folder_without_a_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="holds no run"):
        run_status(tmp_path)
    assert main(["runs", "show", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err
