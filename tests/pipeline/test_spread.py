"""A run on Dask workers gives the numbers of one process, a worker killed in the middle or not."""

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from dask_cluster import DaskCluster, started_cluster

from pocketcortex.core import InputError, RunFolder, Session, StimulusSet
from pocketcortex.pipeline import (
    RunConfig,
    compress,
    compress_shared,
    compression,
    fit_ensemble,
    read_config,
    run,
)
from pocketcortex.pipeline.tasks import TASKS

STAGES = ("teacher", "mapping", "labels", "students", "pruned", "compact")
N_NEURONS = 3


def save_sessions(folder: Path) -> Path:
    """Write four sessions whose neurons like bright, dark and red images of 16 pixels."""
    folder.mkdir()
    rng = np.random.default_rng(5)
    for id, role in (("a", "train"), ("b", "validation"), ("c", "test"), ("d", "test")):
        images = rng.integers(0, 256, (32, 3, 16, 16), dtype=np.uint8)
        images //= rng.integers(1, 4, (len(images), 3, 1, 1), dtype=np.uint8)
        level = images.mean(axis=(2, 3)) / 32  # (n_stimuli, 3)
        rates = np.stack([level.sum(1), 24 - level.sum(1), 3 * level[:, 0]], axis=1)
        counts = rng.poisson(rates[:, None], (len(images), 4, N_NEURONS))
        Session(id, counts, StimulusSet.from_array(images), role=role).save(folder / f"{id}.npz")
    np.save(folder.parent / "bank.npy", rng.integers(0, 256, (80, 3, 40, 40), dtype=np.uint8))
    return folder


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = save_sessions(tmp_path_factory.mktemp("recordings") / "sessions")
    return {
        "seed": 3,
        "recordings": {"path": str(folder), "test": ["c", "d"]},
        "teacher": {
            "n_members": 3, "group": 2, "width": 8, "bottleneck": 4, "n_blocks": 1, "n_epochs": 3,
        },
        "students": {
            "kind": "separate", "filters": [24, 4, 4, 4, 4], "n_epochs": 3, "batch_size": 16,
            "n_monitor": 12, "patience": 1, "learning_rate": 0.02,
            "banks": [{"path": str(folder.parent / "bank.npy"), "crops": 1}],
        },
        "compact": {
            "threshold": 0.95, "n_pruning_images": 30, "n_images": 32, "n_epochs": 2, "patience": 1,
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    with started_cluster(tmp_path_factory.mktemp("dask")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def in_process(tables: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run in one process."""
    out = tmp_path_factory.mktemp("in_process") / "run"
    compress(RunConfig.model_validate(tables), out, "retrain", device="cpu")
    return out


def contents(out: Path, stages: tuple[str, ...] = STAGES) -> dict[str, bytes]:
    """Return every file of the stages' that holds a number."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for stage in stages
        for path in sorted((out / stage).rglob("*"))
        if path.is_file() and path.name not in ("manifest.json", "inputs.json")
    }


def test_a_run_on_workers_has_the_same_numbers_to_the_last_bit(
    tables: dict[str, Any], in_process: Path, cluster: DaskCluster, tmp_path: Path
) -> None:
    config = RunConfig.model_validate(tables)
    compress(config, tmp_path / "run", "retrain", device="cpu", scheduler=cluster.address)
    expected = contents(in_process)
    assert {"teacher/history.json", "labels/teacher.npy", "students/monitor_r2.npy"} <= set(
        expected
    )
    assert contents(tmp_path / "run") == expected
    history = json.loads((tmp_path / "run" / "teacher" / "history.json").read_text())
    assert np.mean(history["groups"], axis=0).tolist() == history["validation"]
    assert not list((tmp_path / "run").rglob("*.partial"))
    # each goes on from what the other left
    compress(config, tmp_path / "run", "retrain", device="cpu")
    assert RunFolder(tmp_path / "run").clear_failed() == []


def test_a_shared_student_and_fixed_layers_too(
    tables: dict[str, Any], in_process: Path, cluster: DaskCluster, tmp_path: Path
) -> None:
    """Later stages on copies of the earlier ones, which do not depend on these settings."""
    shared = {"kind": "shared", "filters": [6, 6, 6, 4, 4], "patience": None}
    changed = tables | {
        "students": tables["students"] | shared,
        "compact": tables["compact"] | {"n_fixed": 3},
    }
    found = []
    for place in ("local", cluster.address):
        out = Path(shutil.copytree(in_process, tmp_path / place[:5]))
        compress(RunConfig.model_validate(changed), out, "retrain", device="cpu", scheduler=place)
        found.append(contents(out))
    assert "students/shared.safetensors" in found[0]
    assert found[0] == found[1] != contents(in_process)


def test_shared_models_of_several_sizes_too(
    tables: dict[str, Any], in_process: Path, cluster: DaskCluster, tmp_path: Path
) -> None:
    asked = {"kind": "shared", "filters": [6, 6, 6, 4, 4], "patience": None, "n_epochs": 1}
    config = RunConfig.model_validate(tables | {"students": tables["students"] | asked})
    found = []
    for place in ("local", cluster.address):
        out = Path(shutil.copytree(in_process, tmp_path / place[:5]))
        summary = compress_shared(config, out, [2, 4], device="cpu", scheduler=place)
        found.append((summary["agreement"], contents(out, ("shared",))))
    assert set(found[0][0]) == {"trained 2", "trained 4", "random 2", "random 4"}
    assert found[0] == found[1]


def workers_of(cluster: DaskCluster) -> list[psutil.Process]:
    """Return the processes that run tasks: what the nannies started."""
    nannies = psutil.Process(cluster.processes[1].pid)
    return [
        process for process in nannies.children(recursive=True)
        if "spawn_main" in " ".join(process.cmdline()) or "forkserver" in process.name()
    ]  # fmt: skip


def kill_when_busy(out: Path, stage: str, cluster: DaskCluster, killed: list[int]) -> None:
    """Kill a worker as soon as attempts at tasks of a stage are under way."""
    for _ in range(6000):
        if list((out / f"{stage}.partial" / TASKS).glob("*.partial")):
            for process in workers_of(cluster):
                os.kill(process.pid, signal.SIGKILL)
                killed.append(process.pid)
            return
        time.sleep(0.01)


@pytest.mark.parametrize("stage", ["teacher", "students"])
def test_workers_killed_in_the_middle_change_nothing(
    stage: str, tables: dict[str, Any], in_process: Path, cluster: DaskCluster, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(in_process, out)
    shutil.rmtree(out / stage)
    killed: list[int] = []
    killer = threading.Thread(target=kill_when_busy, args=(out, stage, cluster, killed))
    killer.start()
    compress(
        RunConfig.model_validate(tables), out, "retrain", device="cpu", scheduler=cluster.address
    )
    killer.join()
    assert killed
    assert contents(out) == contents(in_process)
    assert not list(out.rglob("*.partial"))


def test_a_task_that_fails_is_named_and_told_by_the_folder(
    tables: dict[str, Any], in_process: Path, cluster: DaskCluster, tmp_path: Path
) -> None:
    """The learning rate of one member's group is far too high."""
    out = Path(shutil.copytree(in_process, tmp_path / "run"))
    shutil.rmtree(out / "teacher")
    config = RunConfig.model_validate(tables)
    diverging = config.teacher.model_copy(update={"learning_rate": 1e30})
    config = config.model_copy(update={"teacher": diverging})
    with pytest.raises(Exception, match=r"task members\d+-\d+: features must be finite"):
        fit_ensemble(config, out, device="cpu", scheduler=cluster.address)
    failed = json.loads((out / "teacher.partial" / "failed.json").read_text())
    assert ": features must be finite" in failed["error"]
    assert list((out / "teacher.partial" / TASKS).glob("members*.failed.json"))
    with pytest.raises(InputError, match="scheduler must be"):
        fit_ensemble(config, out, device="cpu", scheduler="nowhere", retry=True)
    sound = RunConfig.model_validate(tables)
    fit_ensemble(sound, out, device="cpu", retry=True)
    assert contents(out, ("teacher",)) == contents(in_process, ("teacher",))


class StoppedError(Exception):
    """Stands in for a kill."""


@pytest.mark.parametrize("first", ["local", "dask"])
def test_a_stage_begun_in_one_place_ends_in_another(
    first: str, tables: dict[str, Any], in_process: Path, cluster: DaskCluster, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What the one left in the stage's folder is not taken for the other's."""
    places = ["local", cluster.address]
    begun, ended = places if first == "local" else places[::-1]
    out = Path(shutil.copytree(in_process, tmp_path / "run"))
    shutil.rmtree(out / "students")
    config = RunConfig.model_validate(tables)

    def stops(*arguments: object) -> None:
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(compression, "write_student_agreement", stops)
        with pytest.raises(StoppedError):
            compress(config, out, "distil", device="cpu", scheduler=begun)
    left = {path.name for path in (out / "students.partial").iterdir()}
    assert ("tasks" if first == "dask" else "checkpoint.safetensors") in left
    compress(config, out, "distil", device="cpu", scheduler=ended)
    assert contents(out) == contents(in_process)


@pytest.mark.slow
@pytest.mark.data
def test_the_thin_v4_run_has_the_same_numbers(
    real_data: Path, cluster: DaskCluster, tmp_path: Path
) -> None:
    """`examples/v4-quick.toml` from real recordings, smaller where that changes no code path."""
    example = Path(__file__).parents[2] / "examples" / "v4-quick.toml"
    config = read_config(example)
    teacher = config.teacher.model_copy(update={"n_members": 4, "group": 2, "n_epochs": 1})
    students = config.students.model_copy(update={"n_epochs": 1})
    recordings = config.recordings.model_copy(update={"n_neurons": {"190923": 6}})
    compact = config.compact.model_copy(update={"n_images": 500})
    stimuli = config.stimuli.model_copy(update={"n_synthesis_steps": 10})
    config = config.model_copy(
        update={
            "teacher": teacher, "students": students, "recordings": recordings,
            "compact": compact, "stimuli": stimuli,
        }
    )  # fmt: skip
    found = []
    for place in ("local", cluster.address):
        out = tmp_path / place[:5]
        if place != "local":  # the sessions' features, which take longest, are content-addressed
            shutil.copytree(tmp_path / "local" / "features", out / "features")
        run(config, out, device="cpu", scheduler=place)
        found.append(contents(out, (*STAGES, "scores", "stimuli", "circuits")))
    assert found[0] == found[1]
