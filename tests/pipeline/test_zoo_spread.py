"""A sweep over networks on Dask workers has the tables of one process."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cluster_tasks
import pandas as pd
import pytest
from dask_cluster import DaskCluster, started_cluster

from pocketcortex.benchmark import AreaSettings
from pocketcortex.pipeline.zoo_models import zoo_models
from pocketcortex.pipeline.zoo_scores import StreamSettings
from pocketcortex.pipeline.zoo_spread import ZooSweep, spread_zoo

BUILDERS = """
import torch
from torch import nn

def small(width):
    torch.manual_seed(width)
    return nn.Sequential(nn.Conv2d(3, width, 3, stride=2), nn.ReLU(), nn.Flatten())

def narrow():
    return small(4)

def wide():
    return small(8)

def broken():
    return 3
"""
QUICK = AreaSettings(n_resamples=40, n_permutations=1, n_splits=2)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    with started_cluster(tmp_path_factory.mktemp("dask")) as cluster:
        yield cluster


def test_the_tables_are_those_of_one_process(cluster: DaskCluster, tmp_path: Path) -> None:
    builders = tmp_path / "nets.py"
    builders.write_text(BUILDERS)
    rows = partial(zoo_models, ["narrow", "wide", "broken"], builders=builders, n_twins=1)
    sweep = ZooSweep(rows, partial(cluster_tasks.recorded, 30), 0, QUICK, StreamSettings())
    here = spread_zoo(sweep, tmp_path / "here")
    there = spread_zoo(sweep, tmp_path / "there", scheduler=cluster.address, device="cpu")
    assert set(here["failed"]) == set(there["failed"]) == {"broken", "broken@random:0"}
    assert there["scores"] == here["scores"]
    assert (there["n_pairs"], there["n_done_before"]) == (4, 4)  # all by the workers
    tables = [pd.read_parquet(tmp_path / p / "scores.parquet") for p in ("here", "there")]
    pd.testing.assert_frame_equal(*tables)
    assert not (tmp_path / "there" / "tasks").exists()
    # settings that change are sent to the workers again
    changed = ZooSweep(rows, sweep.areas, 1, QUICK, StreamSettings())
    again = spread_zoo(changed, tmp_path / "there", scheduler=cluster.address, device="cpu")
    assert (again["n_pairs"], again["n_done_before"], again["seed"]) == (4, 4, 1)
