"""Networks by areas, end to end: rows by reference, resume after a kill, rankings, report."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from pocketcortex.benchmark import AreaSettings
from pocketcortex.cli import main
from pocketcortex.core import BrainArea, InputError, Session, StimulusSet
from pocketcortex.data import read_areas
from pocketcortex.models import CompactModel, EnsembleMember, EnsembleShape
from pocketcortex.pipeline import RunConfig, demo_config
from pocketcortex.pipeline.zoo_made_with import made_with
from pocketcortex.pipeline.zoo_models import ZooModel, zoo_models
from pocketcortex.pipeline.zoo_ranking import rank_zoo
from pocketcortex.pipeline.zoo_scores import StreamSettings, score_zoo, slug

BUILDERS = """
import torch
from torch import nn

def small(width):
    torch.manual_seed(width)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, stride=2), nn.ReLU(), nn.Conv2d(width, 6, 3, stride=2), nn.ReLU()
    )

def narrow():
    return small(4)

def resnet18():  # a name of the registry
    return small(8)

def broken():
    raise_it = nn.Linear(3, 3)
    return raise_it

BACKBONES = {"narrow": None, "resnet18": None}
"""
QUICK = AreaSettings(n_resamples=40, n_permutations=1, n_splits=2)
QUICK_WORDS = ("--resamples", "40", "--permutations", "1", "--splits", "2")


@pytest.fixture(autouse=True)
def _torch_seed() -> object:
    """Leave torch's generator as it was: the builders above set it."""
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.fixture
def builders(tmp_path: Path) -> Path:
    path = tmp_path / "nets.py"
    path.write_text(BUILDERS)
    return path


def recorded(n: int = 30, n_neurons: int = 12, seed: int = 0) -> BrainArea:
    """Neurons that sum pixels, with repeats."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 3, 16, 16), dtype=np.uint8)
    pixels = images.reshape(n, -1) / 255 - 0.5
    signal = pixels @ rng.normal(size=(pixels.shape[1], n_neurons))
    noise = rng.normal(size=(n, 4, n_neurons))
    stimuli = StimulusSet.from_array(images)
    session = Session("lab/one", signal[:, None] + noise, stimuli)
    return BrainArea("lab/one", stimuli, session, area="V1")


def tables(run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / "scores.parquet")


class TestModels:
    def test_rows_by_reference(self, builders: Path) -> None:
        rows = zoo_models(["*", "first=narrow@random:4"], builders=builders, n_twins=2)
        names = [row.spec.name for row in rows]
        assert names == [
            "narrow", "narrow@random:0", "narrow@random:1", "resnet18", "resnet18@random:0",
            "resnet18@random:1", "first@random:4",
        ]  # fmt: skip
        assert {row.trained_name for row in rows} == {"narrow", "resnet18", "first"}
        known, twin = rows[3].spec, rows[4].spec
        assert (known.family, known.task) == ("convolutional", "classification")
        assert (twin.family, twin.task) == ("convolutional", "none")
        trained, random = rows[0].build(), rows[1].build()
        assert trained.key != random.key == zoo_models(["narrow@random:0"], builders=builders)[
            0
        ].build().key  # fmt: skip

    def test_references_of_the_registry_and_of_libraries_need_no_builders(self) -> None:
        rows = zoo_models(["alexnet@random:1", "timm:resnet10t", "x=torchvision:resnet18"])
        assert [row.spec.name for row in rows] == ["alexnet@random:1", "timm:resnet10t", "x"]
        assert rows[0].spec.architecture == "AlexNet"

    def test_what_names_nothing_is_refused(self, builders: Path, tmp_path: Path) -> None:
        for references, match in (
            (["narow"], "no network 'narow'"),
            ([], "name one network"),
            (["narrow", "narrow"], "rows of one name: narrow"),
            ([f"{tmp_path}/nothing*.pt"], "no file matches"),
            ([str(tmp_path)], "neither compact models nor a run"),
        ):
            with pytest.raises(InputError, match=match):
                zoo_models(references, builders=builders)
        with pytest.raises(InputError, match="no Python file"):
            zoo_models(["narrow"], builders=tmp_path / "none.py")
        with pytest.raises(InputError, match="0 or more"):
            zoo_models(["narrow"], builders=builders, n_twins=-1)

    def test_our_own_models_are_rows(self, tmp_path: Path) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for k in range(2):
                model = CompactModel((3, 4, 2, 3, 2 + k), (20, 20))
                torch.nn.init.normal_(model.readout)
                model.save(tmp_path / "compact" / f"neuron{k}")
        trained, random = zoo_models([f"pop={tmp_path / 'compact'}"], n_twins=1)
        assert trained.spec.family == "compact"
        network = trained.build()
        layers = trained.layers(network)
        names = ("layer0", "layer1", "layer2", "layer3", "layer4", "responses")
        assert layers == tuple(f"taps.{name}" for name in names)
        images = torch.randint(0, 256, (3, 3, 20, 20), dtype=torch.uint8)
        kept: dict[str, torch.Tensor] = {}
        for name, tap in network.network.get_submodule("taps").named_children():
            tap.register_forward_hook(lambda _m, _i, out, name=name: kept.update({name: out}))
        with torch.inference_mode():
            network(images)
            alone = [CompactModel.load(tmp_path / "compact" / f"neuron{k}") for k in range(2)]
            answers = torch.stack([model(images) for model in alone], dim=1)
            maps = torch.cat([model.layers(images.float()) for model in alone], dim=1)
        torch.testing.assert_close(kept["responses"], answers)
        torch.testing.assert_close(kept["layer4"], maps)
        twin_layers = random.layers(random.build())
        assert twin_layers is not None
        assert "taps.responses" not in twin_layers  # nothing initialises a readout anew

    def test_a_run_s_ensemble_is_a_row(self, tmp_path: Path) -> None:
        run = tmp_path / "run"
        (run / "teacher").mkdir(parents=True)
        (run / "config.json").write_text(demo_config().model_dump_json())
        probe = torch.zeros(1, 3, 32, 32)
        from pocketcortex.zoo import filter_bank

        channels = filter_bank()(probe).shape[1]
        shape = EnsembleShape(channels, 6, 4, 1, 2)
        members = [EnsembleMember(shape) for _ in range(2)]
        state = {
            f"{k}.{n}": t.contiguous() for k, m in enumerate(members)
            for n, t in m.state_dict().items()
        }  # fmt: skip
        safetensors.torch.save_file(state, run / "teacher" / "members.safetensors")
        (run / "teacher" / "history.json").write_text(json.dumps({"shape": shape.as_dict()}))
        (row,) = zoo_models([f"teacher={run}"])
        network = row.build()
        assert row.spec.family == "ensemble"
        assert row.layers(network) == ("taps.features", "taps.embeddings")
        with torch.inference_mode():
            out = network(torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8))
            expected = [
                m.eval()(filter_bank()(torch.zeros(1, 3, 32, 32))).shape[1] for m in members
            ]
        assert isinstance(out, torch.Tensor)
        assert out.shape[:2] == (2, sum(expected))


class TestInSample:
    """Whose responses our own models were made with is told, and such rows are not ranked."""

    @pytest.mark.parametrize(
        ("name", "seen", "unseen"),
        [
            ("compact_model_201025_neuron3.pt", {"201025", "190925", "210224", "210325"},
             {"190923", "211022", "lab/one"}),
            ("shared_compact_model_5filters.keras", {"190923", "201025", "211022", "190925"},
             {"lab/one", "200101"}),
        ],
    )  # fmt: skip
    def test_published_models_by_their_names(
        self, name: str, seen: set[str], unseen: set[str], tmp_path: Path
    ) -> None:
        found = made_with([tmp_path / name])
        assert found is not None
        whole = recorded()
        assert whole.session is not None
        for session in seen | unseen:
            own = replace(whole.session, id=session)
            area = BrainArea(session, whole.stimuli, own)
            assert bool(found.reason(area)) == (session in seen), session
        square = np.ones((30, 30)) - np.eye(30)
        assert found.reason(BrainArea("201025", whole.stimuli, rdms=square)) == ""

    def test_models_of_a_run_by_its_configuration(self, tmp_path: Path) -> None:
        run = self.run_of(tmp_path, test=("day3",))
        models = made_with([run / "compact" / "neuron0"])
        assert models is not None
        assert models.as_list() == ["day1", "day2", "day3"]
        assert made_with([tmp_path / "elsewhere"]) is None
        (run / "teacher").mkdir()
        (run / "teacher" / "members.safetensors").touch()
        ensemble = made_with([run])
        assert ensemble is not None
        assert ensemble.as_list() == ["day1", "day2"]
        by_role = made_with([self.run_of(tmp_path / "two", test=()) / "compact"])
        assert by_role is not None
        area = recorded()
        assert area.session is not None
        of_test = BrainArea("x", area.stimuli, replace(area.session, id="any", role="test"))
        assert by_role.reason(of_test) == "made with sessions of role test, which any has"
        assert by_role.reason(area) == ""

    def test_a_model_of_these_neurons_has_a_score_and_no_rank(
        self, builders: Path, tmp_path: Path
    ) -> None:
        run = self.run_of(tmp_path, test=("lab/one",))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for k in range(2):
                model = CompactModel((3, 4, 2, 3, 2), (16, 16))
                torch.nn.init.normal_(model.readout)
                model.save(run / "compact" / f"neuron{k}")
        rows = zoo_models([f"own={run / 'compact'}", "narrow"], builders=builders, n_twins=1)
        assert rows[0].in_sample(recorded()) == "made with responses of session lab/one"
        assert [row.in_sample(recorded()) for row in rows[1:]] == ["", "", ""]
        result = score_zoo(rows, [recorded()], tmp_path / "zoo", seed=0, settings=QUICK)
        assert [(row["model"], row["area"]) for row in result["in_sample"]] == [("own", "lab/one")]
        ranked = rank_zoo(tmp_path / "zoo")
        for name, board in ranked["leaderboards"].items():
            last = board[-1]
            assert (last["model"], last["rank"], last["as_good_as_best"]) == ("own", None, False)
            assert last["reason"] == "not ranked: made with responses of session lab/one"
            assert last["ci_low"] <= last["value"] <= last["ci_high"], name
            assert [row["rank"] for row in board[:-1]] == [1, 2, 3]
        pairs = pd.read_parquet(tmp_path / "zoo" / "rank" / "pairs.parquet")
        assert "own" not in {*pairs["first"], *pairs["second"]}
        assert {row["model"] for row in ranked["trained_random"]} == {"narrow", "(all)"}
        page = (tmp_path / "zoo" / "rank" / "report.html").read_text()
        assert "not ranked: made with responses of session lab/one" in page
        alone = score_zoo(rows[:1], [recorded()], tmp_path / "one", seed=0, settings=QUICK)
        assert alone["in_sample"]
        assert rank_zoo(tmp_path / "one")["leaderboards"]["lab/one, rsa"][0]["rank"] is None

    @staticmethod
    def run_of(folder: Path, test: tuple[str, ...]) -> Path:
        """Return a folder with a run's configuration."""
        run = folder / "run"
        run.mkdir(parents=True)
        recordings = {
            "path": "sessions", "train": ["day1"], "validation": "day2", "test": list(test),
        }  # fmt: skip
        config = demo_config().model_dump() | {"recordings": recordings}
        (run / "config.json").write_text(RunConfig.model_validate(config).model_dump_json())
        return run


class TestScores:
    def test_a_killed_sweep_goes_on_and_ends_with_the_same_bytes(
        self, builders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        area = recorded()
        assert area.session is not None
        (tmp_path / "lab").mkdir()
        area.session.save(tmp_path / "lab" / "one.npz")
        words = [
            "zoo", "score", "--models", "*", "--twins", "9", "--builders", str(builders),
            "--recordings", str(tmp_path / "lab"), "--limit", "26", "--n-layers", "3",
            *QUICK_WORDS, "--device", "cpu", "--json",
        ]  # fmt: skip
        killed, whole = tmp_path / "killed", tmp_path / "whole"
        child = subprocess.Popen(
            [sys.executable, "-c", "import sys; from pocketcortex.cli import main; main()",
             *words, "--out", str(killed)],
            env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            end = time.monotonic() + 240
            while len(list(killed.glob("scores/*/*/manifest.json"))) < 8:
                assert child.poll() is None, "the sweep ended before it was killed"
                assert time.monotonic() < end, "no score within four minutes"
                time.sleep(0.02)
        finally:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        before = {p: p.stat().st_mtime_ns for p in killed.glob("scores/*/*/manifest.json")}
        assert 8 <= len(before) < 20
        assert not (killed / "scores.parquet").exists()
        assert main([*words, "--out", str(killed)]) == 0
        finished = json.loads(capsys.readouterr().out)
        assert (finished["n_pairs"], finished["n_done_before"]) == (20, len(before))
        assert main([*words, "--out", str(whole)]) == 0
        assert json.loads(capsys.readouterr().out)["n_done_before"] == 0
        after = {p: p.stat().st_mtime_ns for p in killed.glob("scores/*/*/manifest.json")}
        assert len(after) == 20
        assert {p: after[p] for p in before} == before  # what was done is not done again
        assert tables(whole)["model"].nunique() == 20
        names = ["scores.parquet", "scores.csv", "failed.json"]
        names += [f"{p.relative_to(whole)}" for p in whole.glob("scores/*/*/*.parquet")]
        assert len(names) == 3 + 20 * 2
        for name in names:
            assert (killed / name).read_bytes() == (whole / name).read_bytes()
        for path in sorted(whole.glob("scores/*/*/samples.npz")):
            with np.load(path) as one, np.load(killed / path.relative_to(whole)) as other:
                for name in one.files:
                    np.testing.assert_array_equal(one[name], other[name])
        assert not list(killed.glob("kernels/*"))

    def test_what_changes_a_number_is_done_again(self, builders: Path, tmp_path: Path) -> None:
        area, rows = recorded(), zoo_models(["narrow"], builders=builders)

        def again(rows: list[ZooModel], area: BrainArea = area, **more: object) -> int:
            given = {"seed": 0, "settings": QUICK} | more
            return score_zoo(rows, [area], tmp_path / "run", **given)["n_done_before"]

        assert again(rows) == 0
        assert again(rows) == 1
        assert again(rows, stream=StreamSettings(memory_gib=1.5, keep_kernels=True)) == 1
        resized = zoo_models(["narrow"], builders=builders, input_size=24)
        assert again(resized) == 0  # the size of the input
        assert again(rows) == 0
        assert again(rows, seed=1) == 0
        assert again(rows, area=recorded(seed=1)) == 0  # the recordings
        assert again(rows, stream=StreamSettings(n_layers=2)) == 0
        builders.write_text(BUILDERS.replace("manual_seed(width)", "manual_seed(99)"))
        assert again(zoo_models(["narrow"], builders=str(builders))) == 0  # the weights

    def test_twins_have_the_same_layers(self, builders: Path, tmp_path: Path) -> None:
        rows = zoo_models(["narrow"], builders=builders, n_twins=1)
        how = StreamSettings(n_layers=2)
        score_zoo(rows, [recorded()], tmp_path, seed=0, settings=QUICK, stream=how)
        layers = [
            pd.read_parquet(path)["layer"].tolist()
            for path in tmp_path.glob("scores/*/*/layers.parquet")
        ]
        assert layers[0] == layers[1]
        assert len(layers[0]) == 2

    def test_a_network_that_fails_is_passed_over(self, builders: Path, tmp_path: Path) -> None:
        rows = zoo_models(["broken", "narrow"], builders=builders)
        missing = zoo_models(["torchvision:resnet18"])
        result = score_zoo([*missing, rows[1]], [recorded()], tmp_path, seed=0, settings=QUICK)
        assert list(result["failed"]) == ["torchvision:resnet18"]
        assert "weights" in result["failed"]["torchvision:resnet18"]
        assert set(tables(tmp_path)["model"]) == {"narrow"}
        with pytest.raises(InputError, match="no network could be scored"):
            score_zoo(missing, [recorded()], tmp_path / "none", seed=0, settings=QUICK)

    def test_names_of_folders_are_their_own(self) -> None:
        assert slug("resnet18@random:0").startswith("resnet18@random_0-")
        assert slug("resnet18") == "resnet18"
        assert slug("a/b") != slug("a_b") == "a_b"


class TestRanking:
    def test_tables_figures_and_report(self, builders: Path, tmp_path: Path) -> None:
        rows = zoo_models(["*"], builders=builders, n_twins=2)
        run = tmp_path / "run"
        score_zoo(rows, [recorded()], run, seed=0, settings=QUICK)
        properties = tmp_path / "properties.csv"
        properties.write_text("model,lab,top1\nnarrow,ours,0.5\nresnet18,theirs,0.7\n")
        summary = rank_zoo(run, properties=properties)
        board = pd.read_parquet(run / "rank" / "leaderboard.parquet")
        assert set(board["analysis"]) == {"regression", "rsa", "rsr"}
        first = board[board["analysis"] == "regression"].sort_values("rank")
        assert first["value"].is_monotonic_decreasing
        scored = tables(run)
        mean = scored[(scored["statistic"] == "mean") & (scored["metric"] == "pearson r")]
        honest = mean[mean["protocol"] == "honest"].set_index("model")["value"]
        np.testing.assert_allclose(honest[first["model"]], first["value"])
        pairs = pd.read_parquet(run / "rank" / "pairs.parquet")
        assert len(pairs[pairs["analysis"] == "regression"]) == 15
        compared = pd.read_parquet(run / "rank" / "trained_random.parquet")
        assert set(compared["model"]) == {"narrow", "resnet18", "(all)"}
        groups = pd.read_parquet(run / "rank" / "groups.parquet")
        assert {"family", "lab"} <= set(groups["property"])
        effects = pd.read_parquet(run / "rank" / "properties.parquet")
        assert {"top1", "depth", "log10 n_parameters", "log10 dimensionality"} == set(
            effects["property"]
        )
        assert summary["leaderboards"].keys() == {
            f"lab/one, {analysis}" for analysis in ("regression", "rsa", "rsr")
        }
        page = (run / "rank" / "report.html").read_text()
        assert "Networks ranked: lab/one regression" in page
        assert "Every two networks" in page
        assert (run / "rank" / "figures" / "lab_one_regression.png").stat().st_size > 10_000
        json.dumps(summary, allow_nan=False)

    def test_the_same_seed_ranks_alike_and_altered_scores_are_left_out(
        self, builders: Path, tmp_path: Path
    ) -> None:
        rows = zoo_models(["narrow", "resnet18"], builders=builders)
        score_zoo(rows, [recorded()], tmp_path, seed=0, settings=QUICK)
        assert rank_zoo(tmp_path, seed=3) == rank_zoo(tmp_path, seed=3)
        next(tmp_path.glob("scores/narrow/*/samples.npz")).write_bytes(b"altered")
        assert len(rank_zoo(tmp_path)["leaderboards"]["lab/one, regression"]) == 1
        with pytest.raises(InputError, match="no finished scores"):
            rank_zoo(tmp_path / "elsewhere")
        (tmp_path / "bad.csv").write_text("network,x\na,1\n")
        with pytest.raises(InputError, match="must have a column model"):
            rank_zoo(tmp_path, properties=tmp_path / "bad.csv")


@pytest.mark.data
def test_a_pretrained_network_predicts_mouse_v1_above_its_null(
    real_data: Path, tmp_path: Path
) -> None:
    rows = zoo_models(["squeezenet1_1"], builders=real_data / "weights" / "backbones.py",
                      input_size=48)  # fmt: skip
    areas = [a for a in read_areas(real_data / "mouse" / "antolik2016") if "region1" in a.id]
    how = StreamSettings(n_layers=3)
    result = score_zoo(rows, areas, tmp_path, seed=0, settings=QUICK, stream=how)
    found = {row["metric"]: row for row in result["scores"]}
    assert found["pearson r"]["ci_low"] > 0
    assert found["pearson r"]["value"] > found["pearson r"]["null"] + 0.05
    assert 0.5 < found["pearson r"]["ceiling"] < 1
    assert np.isfinite(found["rsa pearson"]["ceiling"])


@pytest.mark.data
def test_published_models_are_rows(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "v4"
    pattern = folder / "data_compact_models" / "models_torch" / "compact_model_201025_neuron1*.pt"
    shared = next((folder / "data_shared_compact_models").rglob("shared*_5filters.keras"))
    rows = zoo_models([f"compact={pattern}", f"shared={shared}"])
    populations = [row.layers(row.build()) for row in rows]
    assert all(layers is not None and "taps.responses" in layers for layers in populations)
    areas = [a.take(slice(0, 20)) for a in read_areas(folder) if a.id.endswith("190923")]
    result = score_zoo(rows, areas, tmp_path, seed=0, settings=QUICK)
    assert {row["model"] for row in result["scores"]} == {"compact", "shared"}
    assert all(row["ceiling"] is None for row in result["scores"] if "r2" not in row["metric"])
