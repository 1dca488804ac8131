"""Run folders: stages finish whole or not at all, and are done again only when they must."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pocketcortex.core import InputError, RunFolder, parse_json, provenance, write_json
from pocketcortex.core.runs import read_json_object

Work = Callable[[Path], None]


class Counter:
    """A stage that writes `text` and counts its tries."""

    def __init__(self, text: str = "result") -> None:
        self.text = text
        self.n_tries = 0

    def __call__(self, folder: Path) -> None:
        self.n_tries += 1
        (folder / "sub").mkdir(exist_ok=True)
        (folder / "result.txt").write_text(self.text)
        (folder / "sub" / "more.txt").write_text("more")


def run(path: Path, first: Work, second: Work, **inputs: object) -> list[bool]:
    """Run two stages, the second on the first; return which were skipped."""
    folder = RunFolder(path)
    with folder.locked():
        one = folder.stage("first", {"a": 1} | inputs, first)
        two = folder.stage("second", {"b": 2}, second, after="first")
    return [one[1], two[1]]


def test_stages_are_done_once(tmp_path: Path) -> None:
    first, second = Counter(), Counter()
    assert run(tmp_path / "run", first, second) == [False, False]
    assert run(tmp_path / "run", first, second) == [True, True]
    assert (first.n_tries, second.n_tries) == (1, 1)


def test_stage_folder_holds_its_files_and_manifest(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    path, _ = folder.stage("first", {"a": 1}, Counter())
    assert path == tmp_path / "first"
    assert (path / "sub" / "more.txt").read_text() == "more"
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["inputs"] == {"a": 1}
    assert set(manifest["files"]) == {"result.txt", "sub/more.txt"}
    assert folder.seconds("first") == manifest["seconds"]
    assert not (tmp_path / "first.partial").exists()


def test_changed_inputs_redo_the_stage(tmp_path: Path) -> None:
    first, second = Counter(), Counter()
    run(tmp_path, first, second)
    assert run(tmp_path, first, second, a=2)[0] is False
    assert run(tmp_path, first, second, extra=None)[0] is False


def test_order_of_inputs_does_not_matter(tmp_path: Path) -> None:
    RunFolder(tmp_path).stage("first", {"a": 1, "b": 2}, Counter())
    assert RunFolder(tmp_path).stage("first", {"b": 2, "a": 1}, Counter())[1]


def test_changed_upstream_redoes_the_stage(tmp_path: Path) -> None:
    second = Counter()
    run(tmp_path, Counter("one"), second)
    assert run(tmp_path, Counter("other"), second, a=2) == [False, False]
    assert second.n_tries == 2


def test_upstream_redone_to_the_same_files_changes_nothing(tmp_path: Path) -> None:
    run(tmp_path, Counter(), Counter())
    assert run(tmp_path, Counter(), Counter(), a=2) == [False, True]


@pytest.mark.parametrize("name", ["result.txt", "sub/more.txt"])
@pytest.mark.parametrize("change", ["flip", "remove", "append"])
def test_changed_file_redoes_the_stage(tmp_path: Path, name: str, change: str) -> None:
    counter = Counter()
    run(tmp_path, counter, Counter())
    path = tmp_path / "first" / name
    content = path.read_bytes()
    if change == "flip":
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif change == "append":
        path.write_bytes(content + b"x")
    else:
        path.unlink()
    assert run(tmp_path, counter, Counter()) == [False, True]
    assert path.read_bytes() == content


def test_file_that_does_not_belong_redoes_the_stage(tmp_path: Path) -> None:
    run(tmp_path, Counter(), Counter())
    (tmp_path / "first" / "stray.txt").touch()
    assert run(tmp_path, Counter(), Counter())[0] is False
    assert not (tmp_path / "first" / "stray.txt").exists()


@pytest.mark.parametrize("name", ["manifest.json", "inputs.json"])
def test_a_stages_own_json_files_below_are_watched_too(tmp_path: Path, name: str) -> None:
    def work(folder: Path) -> None:
        (folder / "model").mkdir()
        (folder / "model" / name).write_text("{}")

    RunFolder(tmp_path).stage("first", {}, work)
    (tmp_path / "first" / "model" / name).write_text('{"changed": true}')
    assert not RunFolder(tmp_path).stage("first", {}, work)[1]


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", b"\xff\xfe\x00"])
def test_broken_manifest_redoes_the_stage(tmp_path: Path, content: str | bytes) -> None:
    run(tmp_path, Counter(), Counter())
    text = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "first" / "manifest.json").write_bytes(text)
    assert run(tmp_path, Counter(), Counter())[0] is False


def test_manifest_without_files_redoes_the_stage(tmp_path: Path) -> None:
    run(tmp_path, Counter(), Counter())
    path = tmp_path / "first" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["files"]
    path.write_text(json.dumps(manifest))
    assert run(tmp_path, Counter(), Counter())[0] is False


class FailsOnceError(Exception):
    """Raised by a stage in the middle."""


class Checkpointed:
    """A stage that fails on its first try and looks for what that try left."""

    def __init__(self) -> None:
        self.found: list[bool] = []

    def __call__(self, folder: Path) -> None:
        checkpoint = folder / "checkpoint"
        self.found.append(checkpoint.exists())
        checkpoint.write_text("half way")
        if len(self.found) == 1:
            raise FailsOnceError
        (folder / "result.txt").write_text("done")


def test_stage_that_raises_leaves_no_finished_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(FailsOnceError):
        folder.stage("first", {}, Checkpointed())
    assert not (tmp_path / "first").exists()
    assert "first" not in folder.digests


def test_stage_that_raises_keeps_the_older_result(tmp_path: Path) -> None:
    RunFolder(tmp_path).stage("first", {"a": 1}, Counter("older"))
    with pytest.raises(FailsOnceError):
        RunFolder(tmp_path).stage("first", {"a": 2}, Checkpointed())
    assert RunFolder(tmp_path).stage("first", {"a": 1}, Counter())[1]
    assert (tmp_path / "first" / "result.txt").read_text() == "older"


def test_next_try_with_the_same_inputs_finds_the_checkpoint(tmp_path: Path) -> None:
    work = Checkpointed()
    with pytest.raises(FailsOnceError):
        RunFolder(tmp_path).stage("first", {"a": 1}, work)
    RunFolder(tmp_path).stage("first", {"a": 1}, work)
    assert work.found == [False, True]


def test_next_try_with_other_inputs_starts_afresh(tmp_path: Path) -> None:
    work = Checkpointed()
    with pytest.raises(FailsOnceError):
        RunFolder(tmp_path).stage("first", {"a": 1}, work)
    path, _ = RunFolder(tmp_path).stage("first", {"a": 2}, work)
    assert work.found == [False, False]
    assert (path / "result.txt").exists()


def test_stage_needs_its_upstream_done(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        RunFolder(tmp_path).stage("second", {}, Counter(), after="first")


# Other processes.


def child(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


HOLDS_LOCK = """
import sys
from pocketcortex.core import RunFolder
with RunFolder(sys.argv[1]).locked():
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_second_process_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    with child(HOLDS_LOCK, tmp_path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with (
            pytest.raises(InputError, match="another process is running"),
            RunFolder(tmp_path).locked(),
        ):
            pytest.fail("the lock was given twice")
        holder.kill()
        holder.wait()
        with RunFolder(tmp_path).locked():
            pass


def test_lock_is_given_back(tmp_path: Path) -> None:
    with pytest.raises(FailsOnceError), RunFolder(tmp_path).locked():
        raise FailsOnceError
    with RunFolder(tmp_path).locked():
        pass


KILLED = """
import os, signal, sys
from pocketcortex.core import RunFolder

def work(folder):
    (folder / "checkpoint").write_text("half way")
    (folder / "result.txt").write_text("half a resu")
    if sys.argv[2] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)

folder = RunFolder(sys.argv[1])
with folder.locked():
    folder.stage("first", {"a": 1}, lambda path: (path / "x").write_text("x"))
    folder.stage("second", {"b": 1}, work, after="first")
"""


def test_killed_run_goes_on_and_ends_right(tmp_path: Path) -> None:
    with child(KILLED, tmp_path, "kill") as killed:
        assert killed.wait() == -signal.SIGKILL
    assert (tmp_path / "first" / "manifest.json").exists()
    assert not (tmp_path / "second").exists()

    def work(folder: Path) -> None:
        assert (folder / "checkpoint").read_text() == "half way"
        (folder / "result.txt").write_text("a whole result")

    folder = RunFolder(tmp_path)
    with folder.locked():
        assert folder.stage("first", {"a": 1}, Counter())[1]
        path, skipped = folder.stage("second", {"b": 1}, work, after="first")
    assert not skipped
    assert (path / "result.txt").read_text() == "a whole result"
    assert not (tmp_path / "second.partial").exists()


# Where it cannot write.


def test_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with (
            pytest.raises(InputError, match="cannot write to the run folder"),
            RunFolder(path).locked(),
        ):
            pytest.fail("locked a folder that cannot be")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with (
        pytest.raises(InputError, match="cannot write to the run folder"),
        RunFolder(tmp_path / "run").locked(),
    ):
        pytest.fail("locked a folder that cannot be")


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": [1, 2]})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1, 2]}


def test_provenance_names_seed_versions_and_machine() -> None:
    record = provenance(7)
    assert record["seed"] == 7
    assert {"pocketcortex", "torch", "numpy"} <= set(record["packages"])
    assert "not installed" not in record["packages"].values()
    assert record["machine"]["n_cpus"] >= 1
    json.dumps(record)


def test_json_nested_too_deeply_is_no_json(tmp_path: Path) -> None:
    for text in ("[" * 100_000, b'{"a":' * 100_000, "{", b"\xff"):
        with pytest.raises(ValueError):  # noqa: PT011 - any of them, but no RecursionError
            parse_json(text)
    (tmp_path / "deep.json").write_text("[" * 100_000)
    assert read_json_object(tmp_path / "deep.json") == {}
