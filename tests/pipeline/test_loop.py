"""The closed loop: images proposed, recorded, taken in, trained with; and all of it simulated."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pocketcortex.core import InputError, Session, StimulusSet
from pocketcortex.data import read_recordings
from pocketcortex.metrics import bootstrap_median_ci, noise_corrected_r2, pearson_r2
from pocketcortex.pipeline import (
    LoopConfig,
    RunConfig,
    fit_ensemble,
    ingest,
    loop_gain,
    propose,
    simulate_loop,
)
from pocketcortex.pipeline import simulated_loop as simulated
from pocketcortex.pipeline.chain import opened_teachers
from pocketcortex.pipeline.loop import predict_members
from pocketcortex.pipeline.loop_gain import animal_ci, gains
from pocketcortex.pipeline.proposals import read_proposal
from pocketcortex.pipeline.simulated_lab import RidgeMembers, plain_bank, varied_bank
from pocketcortex.stimuli import ChoiceConfig, disagreement, gaudy

SIZE, N_NEURONS = 16, 3
ARMS = {"random": 12, "gaudy": 2, "diverse": 2, "disagreement": 12}
CHOICE = ChoiceConfig(
    n_disagreement=12, n_random=12, n_gaudy=2, n_diverse=2, n_top=20, block=25, core="features"
)


@pytest.fixture(autouse=True, scope="module")
def _few_resamples() -> Iterator[None]:
    """Bootstrap by 200 resamples, as good for these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop_gain, "_N_RESAMPLES", 200)
        yield


def pixels(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 3, SIZE, SIZE), dtype=np.uint8)
    return images // rng.integers(1, 5, (n, 3, 1, 1), dtype=np.uint8)


def counts(images: np.ndarray, seed: int, n_repeats: int = 4) -> np.ndarray:
    """Return spikes of neurons that like bright, dark and red images."""
    level = images.mean(axis=(2, 3)) / 32
    rates = np.stack([level.sum(1), 24 - level.sum(1), 3 * level[:, 0]], axis=1)
    drawn = np.random.default_rng(seed).poisson(rates[:, None], (len(images), n_repeats, N_NEURONS))
    return drawn.astype(np.float64)


def tables(recordings: Path) -> dict[str, Any]:
    teacher = {"n_members": 3, "width": 8, "bottleneck": 4, "n_blocks": 0, "n_epochs": 2}
    return {"seed": 1, "recordings": {"path": str(recordings)}, "teacher": teacher}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lab") / "recordings"
    folder.mkdir()
    for seed, (id, role) in enumerate((("a", "train"), ("b", "validation"), ("c", "test"))):
        images = pixels(40, seed)
        stimuli = StimulusSet.from_array(images)
        Session(id, counts(images, seed), stimuli, role=role).save(folder / f"{id}.npz")
    return folder


@pytest.fixture(scope="module")
def teacher(recordings: Path) -> Path:
    """Return a run folder with a trained teacher and no map yet."""
    out = recordings.parent / "run"
    fit_ensemble(RunConfig.model_validate(tables(recordings)), out, device="cpu")
    assert not (out / "mapping").exists()
    return out


@pytest.fixture(scope="module")
def bank(recordings: Path) -> Path:
    """Return 60 new images, and 10 that were shown: five of them in a held-out half."""
    path = recordings.parent / "bank.npy"
    np.save(path, np.concatenate([pixels(60, 9), pixels(40, 2)[-5:], pixels(40, 0)[:5]]))
    return path


@pytest.fixture(scope="module")
def proposed(teacher: Path, bank: Path) -> tuple[Path, dict[str, Any]]:
    out = teacher.parent / "next"
    return out, propose(teacher, bank, out, choice=CHOICE, seed=5, size_deg=2.5, device="cpu")


@pytest.fixture
def folder(proposed: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(proposed[0], tmp_path / "next"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# Propose.


def test_folder_is_ready_to_show(proposed: tuple[Path, dict[str, Any]]) -> None:
    out, said = proposed
    assert said == {
        "folder": str(out), "n_images": 28, "arms": said["arms"], "n_candidates": 60 - 16,
        "seed": 5, "image_size": [SIZE, SIZE],
    }  # fmt: skip
    assert {k: said["arms"][k] for k in sorted(said["arms"])} == dict(sorted(ARMS.items()))
    files = [f"{k:04d}.png" for k in range(1, 29)]
    assert sorted(p.name for p in out.iterdir()) == sorted(
        [*files, "README.txt", "manifest.csv", "manifest.json"]
    )
    assert not (out.parent / "next.partial").exists()
    table = pd.read_csv(out / "manifest.csv")
    assert table["file"].tolist() == files
    assert table["order"].tolist() == list(range(1, 29))
    assert set(table["seed"]) == {5}
    assert set(table["size_px"]) == {SIZE}
    assert set(table["size_deg"]) == {2.5}
    assert table["arm"].tolist() != sorted(table["arm"])  # shown mixed
    assert "2.5 degrees" in (out / "README.txt").read_text()
    assert "28 images" in (out / "README.txt").read_text()


def test_pngs_hold_the_bank_s_pixels_and_nothing_shown_before(
    proposed: tuple[Path, dict[str, Any]], bank: Path
) -> None:
    table = pd.read_csv(proposed[0] / "manifest.csv")
    of_bank = np.load(bank)
    names = StimulusSet.from_npy(bank).names
    for row in table.itertuples():
        shown = np.asarray(Image.open(proposed[0] / str(row.file))).transpose(2, 0, 1)
        source = of_bank[names.index(str(row.source))]
        expected = gaudy(source[None])[0] if row.gaudy else source
        np.testing.assert_array_equal(shown, expected)
        assert names.index(str(row.source)) < 60  # ten of the bank are in the sessions


def test_disagreement_is_that_of_the_teacher_s_members(
    proposed: tuple[Path, dict[str, Any]], teacher: Path, bank: Path
) -> None:
    table = pd.read_csv(proposed[0] / "manifest.csv")
    pool = StimulusSet.from_npy(bank)
    with opened_teachers(teacher, device="cpu") as (stages, teachers, _):
        predicted = predict_members(stages.backbone, teachers, pool)
    assert predicted.shape == (3, len(pool), N_NEURONS)
    values = dict(zip(pool.names, disagreement(predicted), strict=True))
    chosen = table[table["arm"] == "disagreement"]
    assert chosen["disagreement"].to_numpy() == pytest.approx(
        [values[name] for name in chosen["source"]], rel=1e-4
    )
    assert table.loc[table["arm"] != "disagreement", "disagreement"].isna().all()
    least = sorted(values[name] for name in pool.names[:60])[-20 - 16]
    assert chosen["disagreement"].min() >= least * (1 - 1e-4)  # of the best 20 that were left


def test_asked_again_nothing_changes(
    folder: Path, teacher: Path, bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(folder)
    monkeypatch.setattr("pocketcortex.pipeline.loop.choose_images", None)  # not called
    said = propose(teacher, bank, folder, choice=CHOICE, size_deg=2.5, device="cpu")
    assert said["seed"] == 5  # the folder's own
    assert contents(folder) == before


def test_stopped_and_repeated_ends_the_same(
    proposed: tuple[Path, dict[str, Any]],
    teacher: Path,
    bank: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, calls = tmp_path / "next", []

    def counted(*arguments: Any) -> np.ndarray:
        calls.append(len(arguments[2]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return predict_members(*arguments)

    monkeypatch.setattr("pocketcortex.pipeline.loop.predict_members", counted)
    with pytest.raises(KeyboardInterrupt):
        propose(teacher, bank, out, choice=CHOICE, seed=5, size_deg=2.5, device="cpu")
    assert not out.exists()
    propose(teacher, bank, out, choice=CHOICE, size_deg=2.5, device="cpu")  # with the same seed
    assert len(calls) == 4  # two blocks were remembered, the third done again
    assert not list(tmp_path.glob("*.partial"))
    own, other = contents(out), contents(proposed[0])
    for name in ("manifest.json",):  # holds the time
        facts = [json.loads(one.pop(name)) for one in (own, other)]
        assert [f.pop("provenance")["seed"] for f in facts] == [5, 5]
        assert facts[0] == facts[1]
    assert own == other


def test_folders_of_others_are_left_alone(teacher: Path, bank: Path, folder: Path) -> None:
    def again(out: Path, **changed: Any) -> None:
        settings = {"choice": CHOICE, "seed": 5, "device": "cpu"} | changed
        propose(teacher, bank, out, **settings)

    before = contents(folder)
    with pytest.raises(InputError, match="another proposal"):
        again(folder, seed=6)
    assert contents(folder) == before
    foreign = folder.parent / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("all of it")
    with pytest.raises(InputError, match="holds no proposal"):
        again(foreign)
    with pytest.raises(InputError, match="is a file"):
        again(foreign / "thesis.txt")
    foreign.rename(folder.parent / "new.partial")
    with pytest.raises(InputError, match="something else"):
        again(folder.parent / "new")
    assert (folder.parent / "new.partial" / "thesis.txt").read_text() == "all of it"


def test_no_run_no_bank_too_few_images_no_size(teacher: Path, bank: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run"):
        propose(tmp_path / "nowhere", bank, tmp_path / "out", choice=CHOICE, seed=0)
    with pytest.raises(InputError, match="does not exist"):
        propose(teacher, tmp_path / "nowhere", tmp_path / "out", choice=CHOICE, seed=0)
    with pytest.raises(InputError, match="larger bank"):
        propose(teacher, bank, tmp_path / "out", seed=0, device="cpu")
    with pytest.raises(InputError, match="size_deg"):
        propose(teacher, bank, tmp_path / "out", seed=0, size_deg=-1.0)
    with pytest.raises(InputError, match="seed must be 0"):
        propose(teacher, bank, tmp_path / "out", seed=-1)


# Ingest.


def record(folder: Path, seed: int = 20) -> np.ndarray:
    """Return what the same neurons answer to a proposal."""
    return counts(read_proposal(folder).stimuli.images(), seed)


def test_round_trip_from_proposal_to_a_retrained_teacher(
    folder: Path, recordings: Path, teacher: Path, tmp_path: Path
) -> None:
    mine = Path(shutil.copytree(recordings, tmp_path / "recordings"))
    responses = record(folder)
    np.save(tmp_path / "responses.npy", responses)
    result = ingest(
        folder, tmp_path / "responses.npy", mine, session="d", animal="m", bin_ms=100.0,
        run=teacher, same_as="c", device="cpu",
    )  # fmt: skip
    found = read_recordings(mine)["d"]
    np.testing.assert_array_equal(found.responses, responses)
    assert (found.animal, found.role, found.bin_ms) == ("m", "train", 100.0)
    assert found.require_stimuli().digests == read_proposal(folder).stimuli.digests
    kept = pd.read_csv(mine / "d.images.csv")
    pd.testing.assert_frame_equal(
        kept.drop(columns="session"), pd.read_csv(folder / "manifest.csv")
    )
    assert result["unusable_neurons"] == {}
    assert {k: v for k, v in result["arms"].items() if v} == result["arms"]
    before = contents(mine)
    again = ingest(folder, tmp_path / "responses.npy", mine, session="d", animal="m", bin_ms=100.0)
    assert contents(mine) == before
    assert again["before_retraining"] is None
    fitted = fit_ensemble(RunConfig.model_validate(tables(mine)), tmp_path / "run2", device="cpu")
    assert fitted["train"] == ["a", "d"]


def test_a_teacher_stays_as_it_was_trained_when_its_recordings_grow(
    folder: Path, recordings: Path, bank: Path, tmp_path: Path
) -> None:
    mine = Path(shutil.copytree(recordings, tmp_path / "recordings"))
    run = tmp_path / "run"
    fit_ensemble(RunConfig.model_validate(tables(mine)), run, device="cpu")
    np.save(tmp_path / "r.npy", record(folder))
    words = (folder, tmp_path / "r.npy", mine)
    settings: dict[str, Any] = {"session": "d", "run": run, "same_as": "c", "device": "cpu"}
    first = ingest(*words, **settings)
    members = contents(run / "teacher")
    assert ingest(*words, **settings) == first
    more = ChoiceConfig(n_disagreement=6, n_random=6, n_top=6)
    propose(run, bank, tmp_path / "after", choice=more, seed=0, device="cpu")
    assert contents(run / "teacher") == members
    before, after = (read_proposal(f).stimuli.digests for f in (folder, tmp_path / "after"))
    assert not set(before) & set(after)
    shutil.rmtree(run / "mapping")
    with pytest.raises(InputError, match="have changed since the teacher"):
        ingest(*words, **settings)
    shutil.rmtree(run / "teacher")
    with pytest.raises(InputError, match="no trained teacher"):
        ingest(*words, **settings)


def test_names_put_rows_in_order(folder: Path, tmp_path: Path) -> None:
    responses = record(folder)
    order = np.random.default_rng(0).permutation(len(responses))
    names = read_proposal(folder).images["file"].to_numpy(dtype=str)
    np.savez(tmp_path / "r.npz", responses=responses[order], names=names[order])
    ingest(folder, tmp_path / "r.npz", tmp_path / "new", session="d")
    np.testing.assert_array_equal(read_recordings(tmp_path / "new")["d"].responses, responses)


def test_before_retraining_by_arm(folder: Path, teacher: Path, tmp_path: Path) -> None:
    responses = record(folder)
    np.save(tmp_path / "r.npy", responses)
    before = ingest(
        folder, tmp_path / "r.npy", tmp_path / "new", session="d", run=teacher, same_as="c",
        device="cpu", seed=3,
    )["before_retraining"]  # fmt: skip
    assert before["predicted_by"] == "same neurons"
    assert before["metric"] == "noise-corrected r2"
    shown = read_proposal(folder)
    with opened_teachers(teacher, device="cpu") as (stages, teachers, _):
        predicted = predict_members(stages.backbone, teachers, shown.stimuli).mean(axis=0)
    arms = shown.images["arm"].to_numpy()
    for arm in ("random", "disagreement"):
        here = arms == arm
        values = noise_corrected_r2(responses[here], predicted[here].astype(np.float64))
        known = values[np.isfinite(values)]
        low, high = bootstrap_median_ci(known, rng=np.random.default_rng(3))
        assert before["arms"][arm]["n_neurons"] == len(known) > 0
        assert before["arms"][arm]["median"] == pytest.approx(np.median(known), abs=2e-2)
        assert before["arms"][arm]["ci"] == pytest.approx([low, high], abs=2e-2)
        assert before["arms"][arm]["n_images"] == 12
    assert before["arms"]["all"]["median"] > 0.2  # they do like bright images
    assert before["arms"]["gaudy"] == {
        "n_images": 2, "n_neurons": 0, "median": None, "ci": [None, None],
    }  # fmt: skip


def test_new_neurons_are_predicted_out_of_sample(
    folder: Path, teacher: Path, tmp_path: Path
) -> None:
    """Neurons that nothing can predict score about zero, though maps are fitted to them."""
    noise = np.random.default_rng(1).poisson(5.0, (28, 1, 8)).astype(np.float64)
    real = record(folder)[:, :1]
    np.save(tmp_path / "r.npy", np.concatenate([noise, real, np.full((28, 1, 1), 2.0)], axis=2))
    result = ingest(
        folder, tmp_path / "r.npy", tmp_path / "new", session="e", run=teacher, device="cpu"
    )
    before = result["before_retraining"]
    assert result["unusable_neurons"] == {"11": "constant response"}
    assert before["predicted_by"] == "cross-validated map"
    assert before["metric"] == "r2"
    assert before["arms"]["all"]["n_neurons"] == 11
    assert before["arms"]["all"]["median"] < 0.25


def nan_at(responses: np.ndarray, *place: Any) -> np.ndarray:
    changed = responses.copy()
    changed[place] = np.nan
    return changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r[:-1], "27 rows of responses for 28"),
        (lambda r: r.transpose(2, 1, 0), "turn the axes round"),
        (lambda r: r[:, 0], "of shape"),
        (lambda r: nan_at(r, 3), "1 images have no response of any neuron, such as 0004.png"),
        (lambda r: np.ones_like(r), "no neuron of session d can be used"),
        (lambda r: np.where(r > 20, np.inf, r), "responses are infinite"),
    ],
)
def test_responses_that_do_not_fit_are_refused(
    change: Any, message: str, folder: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "r.npy", change(record(folder)))
    with pytest.raises(InputError, match=message):
        ingest(folder, tmp_path / "r.npy", tmp_path / "new", session="d")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (lambda r, n: {"counts": r}, "no array `responses`"),
        (lambda r, n: {"responses": r, "names": n[:-1]}, "28 rows of responses for 27"),
        (lambda r, n: {"responses": r, "names": np.append(n[:-1], "cat.png")}, "unknown: .'cat"),
        (lambda r, n: {"responses": r, "names": np.append(n[:-1], n[0])}, "missing: .'0028"),
    ],
)
def test_names_that_do_not_fit_are_refused(
    arrays: Any, message: str, folder: Path, tmp_path: Path
) -> None:
    names = read_proposal(folder).images["file"].to_numpy(dtype=str)
    np.savez(tmp_path / "r.npz", **arrays(record(folder), names))
    with pytest.raises(InputError, match=message):
        ingest(folder, tmp_path / "r.npz", tmp_path / "new", session="d")


def test_neurons_that_missed_an_image_are_reported(folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "r.npy", nan_at(record(folder), 3, slice(None), 1))
    result = ingest(folder, tmp_path / "r.npy", tmp_path / "new", session="d")
    assert result["unusable_neurons"] == {"1": "no response to 1 images"}


def test_images_that_changed_are_refused(folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "r.npy", record(folder))
    other = Image.open(folder / "0002.png").convert("RGB")
    other.putpixel((0, 0), (1, 2, 3))
    other.save(folder / "0002.png")
    with pytest.raises(
        InputError, match=r"1 images .* not as they were proposed, such as 0002\.png"
    ):
        ingest(folder, tmp_path / "r.npy", tmp_path / "new", session="d")
    (folder / "0002.png").unlink()
    with pytest.raises(InputError, match="lacks 1 of its 28"):
        ingest(folder, tmp_path / "r.npy", tmp_path / "new", session="d")
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="written by something else"):
        ingest(folder, tmp_path / "r.npy", tmp_path / "new", session="d")


def test_recordings_are_not_overwritten_nor_mixed(
    folder: Path, recordings: Path, tmp_path: Path
) -> None:
    mine = Path(shutil.copytree(recordings, tmp_path / "recordings"))
    np.save(tmp_path / "r.npy", record(folder))
    with pytest.raises(InputError, match="another session of that name"):
        ingest(folder, tmp_path / "r.npy", mine, session="a")
    for bad in ("", "x/y", ".hidden"):
        with pytest.raises(InputError, match="cannot be a file's name"):
            ingest(folder, tmp_path / "r.npy", mine, session=bad)
    (mine / "a.npz").rename(mine / "z.npz")
    with pytest.raises(InputError, match="have a session a already"):
        ingest(folder, tmp_path / "r.npy", mine, session="a")
    small = StimulusSet.from_array(pixels(4, 1)[:, :, :8, :8])
    Session("s", counts(small.images(), 0), small).save(mine / "s.npz")
    with pytest.raises(InputError, match="keep sessions of one size"):
        ingest(folder, tmp_path / "r.npy", mine, session="d")
    other = tmp_path / "other"
    other.mkdir()
    (other / "responses_raw").mkdir()
    with pytest.raises(InputError, match=r"holds no .npz session"):
        ingest(folder, tmp_path / "r.npy", other, session="d")


def test_same_neurons_must_be_as_many(folder: Path, teacher: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "r.npy", record(folder)[:, :, :2])
    for same_as, message in (("c", "has 3 neurons, d 2"), ("a", "must be a test session, c")):
        with pytest.raises(InputError, match=message):
            ingest(
                folder, tmp_path / "r.npy", tmp_path / "new", session="d", run=teacher,
                same_as=same_as, device="cpu",
            )  # fmt: skip
    assert not (tmp_path / "new").exists()


# The simulation.

TINY = LoopConfig(
    n_animals=2, n_neurons=3, n_sessions=2, n_first=12, n_images=8, n_repeats=2, n_members=2,
    n_bank=80, n_test=30,
)  # fmt: skip


@pytest.fixture(scope="module")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("simulation")
    return out, simulate_loop(TINY, out=out, seed=4)


def test_simulation_leaves_scores_summary_and_figure(
    simulation: tuple[Path, dict[str, Any]],
) -> None:
    out, summary = simulation
    assert summary["n_images"] == [12, 20, 28]
    table = pd.read_parquet(out / "scores.parquet")
    assert len(table) == 2 * len(simulated.STRATEGIES) * 3 * 3
    assert (out / "learning_curves.png").stat().st_size > 10_000
    first = table[table["session"] == 0].pivot(
        index=["animal", "neuron"], columns="strategy", values="r2"
    )
    assert (first.nunique(axis=1, dropna=False) == 1).all()  # the same start for all
    last = table[table["session"] == 2].groupby("strategy")["r2"].mean()
    if summary["n_left_out"] == 0:
        for name, entry in summary["strategies"].items():
            assert entry["r2"][-1] == pytest.approx(last[name])
            assert entry["gain"][-1] == pytest.approx(last[name] - last["random"])
    assert json.loads((out / "summary.json").read_text())["best"] == summary["best"]


def test_simulation_goes_on_and_keeps_its_seed(
    simulation: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copytree(simulation[0], tmp_path / "again"))
    shutil.rmtree(out / "animal_001")
    made: list[int] = []
    whole = simulated._animal

    def counted(*arguments: Any) -> np.ndarray:
        made.append(arguments[3])
        return whole(*arguments)

    monkeypatch.setattr(simulated, "_animal", counted)
    summary = simulate_loop(TINY, out=out)
    assert made == [1]
    assert summary["strategies"] == simulation[1]["strategies"]


def test_interval_of_a_gain_is_paired_and_over_animals() -> None:
    rng = np.random.default_rng(0)
    r2 = np.repeat(rng.uniform(size=(6, 1, 1, 20)), 5, axis=1)
    r2 = np.repeat(r2, 2, axis=2)
    r2[:, 1] += 0.05
    entry = gains(r2, simulated.STRATEGIES, reference="random", seed=0)["strategies"]["loop"]
    assert entry["gain"] == pytest.approx([0.05, 0.05])
    assert entry["gain_ci_low"] == pytest.approx([0.05, 0.05])
    assert entry["ci_high"][0] - entry["ci_low"][0] > 0.05
    assert entry["apart"] == [False, False]
    r2[2, 3, 1, 4] = np.nan  # one score of one neuron missing: out everywhere
    summary = gains(r2, simulated.STRATEGIES, reference="random", seed=0)
    assert (summary["n_neurons"], summary["n_left_out"]) == (119, 1)
    expected = np.delete(r2[:, 0, 0].ravel(), 2 * 20 + 4).mean()
    assert summary["strategies"]["random"]["r2"][0] == pytest.approx(expected)


def test_interval_is_wider_where_animals_differ() -> None:
    rng = np.random.default_rng(0)
    alike = rng.normal(size=(8, 1, 30))
    apart = alike + 3 * rng.normal(size=(8, 1, 1))
    known = np.ones((8, 30), dtype=bool)
    widths = []
    for values in (alike, apart):
        _, low, high = animal_ci(values, known, np.random.default_rng(1))
        widths.append(float(high[0] - low[0]))
    assert widths[1] > 4 * widths[0]


def test_members_answer_in_standard_deviations_and_differ() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(90, 5)).astype(np.float32)
    responses = 7 + 4 * (features[:, :2] + 0.1 * rng.normal(size=(90, 2)))
    learner = RidgeMembers(features, responses.astype(np.float64), 4, rng)
    predicted = learner.predict(features)
    assert predicted.shape == (4, 90, 2)
    assert predicted.mean(axis=(0, 1)) == pytest.approx([0, 0], abs=0.1)
    assert predicted.std(axis=(0, 1)) == pytest.approx([1, 1], abs=0.1)
    assert (pearson_r2(responses.astype(np.float64), predicted.mean(axis=0)) > 0.95).all()
    assert (predicted.std(axis=0) > 0).all()


def test_bank_varies_and_is_a_function_of_its_seed() -> None:
    one, again, other = (varied_bank(40, 32, seed=s).images() for s in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    ranges = [
        np.percentile(b.std(axis=(1, 2, 3)), (10, 90))
        for b in (one, plain_bank(40, 32, seed=1).images())
    ]
    (dull, vivid), (least, most) = ranges
    assert vivid / dull > 2 * most / least


def test_every_strategy_chooses_as_many_images() -> None:
    for name in simulated.STRATEGIES:
        assert simulated.choice_of(name, 21).n_images == 21
    with pytest.raises(InputError, match="luck"):
        simulated.choice_of("luck", 21)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n_animals": 1}, "n_animals must be 2"), ({"n_images": 0}, "n_images must be 1"),
        ({"n_bank": 300}, "n_bank = 300"), ({"image_size": 16}, "image_size must be 32"),
    ],
)  # fmt: skip
def test_simulations_too_small(changed: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LoopConfig(**changed)
    with pytest.raises(InputError, match="seed"):
        simulate_loop(TINY, out="unused", seed=-1)
