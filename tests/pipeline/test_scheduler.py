"""Where tasks run: in this process, on Dask workers, in jobs of a batch system."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cluster_tasks
import pytest
from dask_cluster import DaskCluster, started_cluster

from pocketcortex.core import InputError, PocketcortexError
from pocketcortex.pipeline.cluster_profile import ClusterProfile, read_cluster_profile
from pocketcortex.pipeline.scheduler import (
    LocalScheduler,
    Scheduler,
    job_cluster,
    open_scheduler,
    parse_scheduler,
)

PROFILE = 'jobs = 2\ncores = 4\nmemory = "16GiB"\n'


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    with started_cluster(tmp_path_factory.mktemp("dask")) as cluster:
        yield cluster


@pytest.fixture(params=["local", "dask"])
def scheduler(request: pytest.FixtureRequest) -> Iterator[Scheduler]:
    where = "local"
    if request.param == "dask":
        where = request.getfixturevalue("cluster").address
    with open_scheduler(where) as opened:
        yield opened


def test_results_come_by_name_in_the_tasks_order(scheduler: Scheduler) -> None:
    told = []
    tasks = {name: (k,) for k, name in enumerate(["c", "a", "b"])}
    found = scheduler.map(
        cluster_tasks.doubled, tasks, report=lambda name, result: told.append((name, result))
    )
    assert list(found.items()) == [("c", 0), ("a", 2), ("b", 4)]
    assert sorted(told) == [("a", 2), ("b", 4), ("c", 0)]
    assert scheduler.map(cluster_tasks.doubled, {}) == {}


def test_an_error_comes_back_with_the_tasks_name(scheduler: Scheduler) -> None:
    tasks = {"good": ("none",), "neuron 7": ("input",)}
    with pytest.raises(InputError, match=r"^task neuron 7: the file is empty; give another$"):
        scheduler.map(cluster_tasks.fails, tasks)
    with pytest.raises(PocketcortexError, match=r"^task b: ZeroDivisionError: by zero$") as caught:
        scheduler.map(cluster_tasks.fails, {"b": ("other",)})
    assert not isinstance(caught.value, InputError)


def test_both_workers_work(cluster: DaskCluster) -> None:
    with open_scheduler(cluster.address) as scheduler:
        found = scheduler.map(cluster_tasks.where, {str(k): (k,) for k in range(6)})
        assert not scheduler.has_gpus
    assert len(set(found.values())) == 2


def test_a_task_whose_worker_is_killed_runs_again(cluster: DaskCluster, tmp_path: Path) -> None:
    with open_scheduler(cluster.address) as scheduler:
        found = scheduler.map(cluster_tasks.dies_once, {"a": (str(tmp_path / "mark"),)})
    assert found == {"a": "alive"}


@pytest.mark.slow
def test_a_task_that_kills_every_worker_is_given_up(cluster: DaskCluster) -> None:
    with (
        open_scheduler(cluster.address) as scheduler,
        pytest.raises(PocketcortexError, match=r"task bad was given up: its worker died"),
    ):
        scheduler.map(cluster_tasks.dies, {"bad": (1,)})


def test_a_gpu_task_runs_where_dask_knows_of_a_gpu(tmp_path: Path) -> None:
    with (
        started_cluster(tmp_path, n_workers=1, resources="GPU=1") as cluster,
        open_scheduler(cluster.address) as scheduler,
    ):
        assert scheduler.has_gpus
        assert scheduler.map(cluster_tasks.doubled, {"a": (3,)}, gpu=True) == {"a": 6}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("cloud", r"must be local, dask://HOST:PORT.*got 'cloud'"),
        ("dask://", r"got 'dask://'"),
        ("slurm:", r"got 'slurm:'"),
        ("slurm:/no/such/file.toml", r"cannot read the cluster profile"),
        ("dask://127.0.0.1:9", r"no Dask scheduler answers at tcp://127.0.0.1:9"),
    ],
)
def test_a_wrong_scheduler_is_refused(word: str, message: str) -> None:
    with pytest.raises(InputError, match=message), open_scheduler(word):
        pass


def test_local_needs_no_dask() -> None:
    code = (
        "import sys\n"
        "sys.modules['distributed'] = sys.modules['dask'] = sys.modules['dask_jobqueue'] = None\n"
        "from pocketcortex.pipeline.scheduler import open_scheduler\n"
        "with open_scheduler('local') as s: print(s.map(abs, {'a': (-3,)}))\n"
        "try:\n"
        "    with open_scheduler('dask://127.0.0.1:8786'): pass\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600
    )
    first, second = done.stdout.splitlines()
    assert first == "{'a': 3}"
    assert second.startswith("InputError --scheduler other than local needs Dask")
    assert "pocketcortex[cluster]" in second


def test_local_runs_here() -> None:
    assert LocalScheduler().map(cluster_tasks.where, {"a": (0,)}) == {"a": cluster_tasks.where(0)}


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_profile_is_read(tmp_path: Path) -> None:
    profile = read_cluster_profile(written(tmp_path / "p.toml", PROFILE + "workers = 2\n"))
    assert (profile.jobs, profile.threads, profile.gpus) == (2, 2, 0)
    assert parse_scheduler(f"pbs:{tmp_path / 'p.toml'}") == ("pbs", profile)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jobs = ", "not valid TOML"),
        ("jobs = 2\n", "memory: Field required"),
        (PROFILE + "nodes = 3\n", "nodes: no such setting"),
        (PROFILE + "workers = 5\n", "5 workers need 5 cores or more, got 4"),
        (PROFILE + "gpus = 1\nworkers = 2\n", "a job with a GPU has workers = 1, got 2"),
        (PROFILE + "gpus = 2\n", "gpus: Input should be less than or equal to 1"),
        (PROFILE + 'gpu_directive = "--gpus=1"\n', "gpus is 0; set gpus = 1"),
        (PROFILE + 'walltime = "a day"\n', "walltime: String should match"),
        ('jobs = 2\nmemory = "lots"\n', "memory: String should match"),
    ],
)
def test_a_wrong_profile_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path / "p.toml", text)
    with pytest.raises(InputError, match=f"{path}.*{message}"):
        read_cluster_profile(path)


def job_script(kind: str, **settings: object) -> list[str]:
    """Return the script that would be handed to the batch system."""
    pytest.importorskip("dask_jobqueue")
    profile = ClusterProfile.model_validate({"jobs": 1, "memory": "16GiB"} | settings)
    with job_cluster(kind, profile) as cluster:
        script: str = cluster.job_script()
    return script.splitlines()


# dask-jobqueue opens a scheduler's sockets even for a script that is never sent, and leaves them
# to the garbage collector.
closes_late = pytest.mark.filterwarnings(
    "default::ResourceWarning", "default::pytest.PytestUnraisableExceptionWarning"
)


@closes_late
def test_a_slurm_job_asks_for_what_the_profile_says() -> None:
    lines = job_script(
        "slurm", cores=8, walltime="12:00:00", queue="gpu", account="vision", gpus=1,
        directives=["--constraint=h100"], setup=["module load cuda", "source env/bin/activate"],
        python="python3",
    )  # fmt: skip
    assert lines[0] == "#!/usr/bin/env bash"
    head = [line for line in lines if line.startswith("#SBATCH")]
    assert head == [
        "#SBATCH -J pocketcortex",
        "#SBATCH -p gpu",
        "#SBATCH -A vision",
        "#SBATCH -n 1",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --mem=16G",
        "#SBATCH -t 12:00:00",
        "#SBATCH --constraint=h100",
        "#SBATCH --gres=gpu:1",
    ]
    setup = [line for line in lines if line and not line.startswith("#")]
    assert setup[:5] == [
        *(f"export {n}_NUM_THREADS=8" for n in ("OMP", "MKL", "OPENBLAS")),
        "module load cuda", "source env/bin/activate",
    ]  # fmt: skip
    assert setup[5].startswith("python3 -m distributed.cli.dask_worker tcp://")
    assert "--nthreads 1" in setup[5]
    assert "--resources GPU=1" in setup[5]


@closes_late
def test_a_pbs_job_asks_for_what_the_profile_says() -> None:
    lines = job_script("pbs", cores=8, workers=2, queue="long", walltime="12:00:00")
    head = [line for line in lines if line.startswith("#PBS")]
    assert head == [
        "#PBS -N pocketcortex",
        "#PBS -q long",
        "#PBS -l select=1:ncpus=8:mem=16GB",
        "#PBS -l walltime=12:00:00",
    ]
    assert "export OMP_NUM_THREADS=4" in lines
    worker = next(line for line in lines if "dask_worker" in line)
    assert "--nthreads 1" in worker
    assert "--nworkers 2" in worker
    assert "resources" not in worker


@closes_late
def test_a_pbs_job_asks_for_a_gpu() -> None:
    lines = job_script("pbs", cores=4, gpus=1)
    assert "#PBS -l select=1:ncpus=4:mem=16GB:ngpus=1" in lines


def slurm_answers() -> bool:
    if shutil.which("sinfo") is None:
        return False
    done = subprocess.run(["sinfo", "-h"], capture_output=True, text=True, check=False)
    return done.returncode == 0 and "idle" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not slurm_answers(), reason="no SLURM controller answers here")
def test_tasks_run_in_slurm_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a real slurmctld and slurmd; docs/cluster.md says how to start them on one machine."""
    monkeypatch.chdir(tmp_path)  # where jobs leave what they say
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    text = 'jobs = 2\ncores = 1\nmemory = "1GiB"\nwalltime = "00:10:00"\ninterface = "lo"\n'
    with open_scheduler(f"slurm:{written(tmp_path / 'p.toml', text)}") as scheduler:
        found = scheduler.map(cluster_tasks.where, {str(k): (k,) for k in range(12)})
        assert scheduler.map(cluster_tasks.doubled, {"a": (4,)}) == {"a": 8}
    assert len(set(found.values())) >= 1
    assert list(tmp_path.glob("slurm-*.out"))
