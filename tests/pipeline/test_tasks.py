"""A task's result appears once and whole, whatever happens to its attempts."""

import json
import threading
from pathlib import Path

import pytest

from pocketcortex.core import RunFolder, write_json
from pocketcortex.pipeline.tasks import TASKS, TaskFolder, drop_tasks, plan_tasks, planned_tasks


def write(text: str, folder: Path) -> None:
    (folder / "answer.txt").write_text(text)


def names_of(stage: Path) -> set[str]:
    return {path.name for path in (stage / TASKS).iterdir()}


def test_a_result_is_whole_and_made_once(tmp_path: Path) -> None:
    task = TaskFolder(tmp_path, "a")
    assert not task.is_whole()
    task.fill(lambda folder, checkpoint: write("one", folder))
    assert task.is_whole()
    task.fill(lambda folder, checkpoint: write("two", folder))
    assert (task.path / "answer.txt").read_text() == "one"
    assert names_of(tmp_path) == {"a"}


def test_of_two_attempts_the_first_to_end_gives_the_result(tmp_path: Path) -> None:
    """The second one, of a worker that Dask took for lost, ends while the first is under way."""
    task = TaskFolder(tmp_path, "a")

    def slow(folder: Path, checkpoint: Path) -> None:
        other = TaskFolder(tmp_path, "a")
        attempt = folder.with_name("a.other.partial")
        attempt.mkdir()
        write("first to end", attempt)
        other._publish(attempt)
        write("last to end", folder)

    task.fill(slow)
    assert (task.path / "answer.txt").read_text() == "first to end"
    assert task.is_whole()
    assert names_of(tmp_path) == {"a"}


@pytest.mark.parametrize("damage", ["cut", "lost", "added"])
def test_a_damaged_result_is_made_again(tmp_path: Path, damage: str) -> None:
    task = TaskFolder(tmp_path, "a")
    task.fill(lambda folder, checkpoint: write("whole", folder))
    file = task.path / "answer.txt"
    if damage == "cut":
        file.write_text("who")
    elif damage == "lost":
        file.unlink()
    else:
        (task.path / "foreign").touch()
    assert not task.is_whole()
    task.fill(lambda folder, checkpoint: write("again", folder))
    assert file.read_text() == "again"
    assert task.is_whole()


def test_an_attempt_goes_on_from_the_last_ones_checkpoint(tmp_path: Path) -> None:
    task = TaskFolder(tmp_path, "a")

    def killed(folder: Path, checkpoint: Path) -> None:
        assert not checkpoint.exists()
        checkpoint.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        task.fill(killed)
    assert task.failure() is None

    def goes_on(folder: Path, checkpoint: Path) -> None:
        write(checkpoint.read_text() + " and half", folder)

    task.fill(goes_on)
    assert (task.path / "answer.txt").read_text() == "half and half"


def test_a_failure_is_written_down_until_the_task_is_tried_again(tmp_path: Path) -> None:
    task = TaskFolder(tmp_path, "a")

    def fails(folder: Path, checkpoint: Path) -> None:
        raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing"):
        task.fill(fails)
    assert task.failure() == "ValueError: no such thing"
    noted = json.loads((tmp_path / TASKS / "a.failed.json").read_text())
    assert set(noted) == {"error", "host", "process", "traceback"}
    assert names_of(tmp_path) == {"a.failed.json"}
    task.fill(lambda folder, checkpoint: write("done", folder))
    assert task.failure() is None


def test_tasks_of_one_process_run_one_after_the_other(tmp_path: Path) -> None:
    """Several threads of a Dask worker must not share torch's generator."""
    running, most = 0, 0
    lock = threading.Lock()

    def work(folder: Path, checkpoint: Path) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.02)
        with lock:
            running -= 1

    threads = [
        threading.Thread(target=TaskFolder(tmp_path, f"t{k}").fill, args=(work,)) for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert names_of(tmp_path) == {"t0", "t1", "t2", "t3"}


def test_a_plan_tells_what_is_left(tmp_path: Path) -> None:
    assert planned_tasks(tmp_path) == []
    assert plan_tasks(tmp_path, ["a", "b"]) == ["a", "b"]
    TaskFolder(tmp_path, "b").fill(lambda folder, checkpoint: write("b", folder))
    assert plan_tasks(tmp_path, ["a", "b"]) == ["a"]
    assert [task.name for task in planned_tasks(tmp_path) if task.is_whole()] == ["b"]
    drop_tasks(tmp_path)
    assert planned_tasks(tmp_path) == []


def test_a_task_that_outlives_its_stage_reaches_no_successor(tmp_path: Path) -> None:
    """A failed stage is tried again while a worker still has a task of the first try."""
    stage = tmp_path / "teacher.partial"
    (stage / TASKS).mkdir(parents=True)
    write_json(stage / "failed.json", {"error": "of another task"})
    begun, thrown_away, said = threading.Event(), threading.Event(), []

    def work(folder: Path, checkpoint: Path) -> None:
        begun.set()
        assert thrown_away.wait(30)
        (folder / "late").write_text("of the first try")

    def outlive() -> None:
        with pytest.raises(FileNotFoundError):
            TaskFolder(stage, "a").fill(work)
        said.append("ended")

    thread = threading.Thread(target=outlive)
    thread.start()
    assert begun.wait(30)
    assert RunFolder(tmp_path).clear_failed() == ["teacher"]
    (stage / TASKS).mkdir(parents=True)  # the next try
    thrown_away.set()
    thread.join(30)
    assert said == ["ended"]
    assert list(tmp_path.rglob("*")) == [stage, stage / TASKS]
