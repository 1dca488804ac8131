"""Images to distil with: no hidden one among them, some kept aside; and the teacher's responses."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pocketcortex.core import InputError, Session, StimulusSet
from pocketcortex.models import EnsembleMember, EnsembleShape, SharedCompactModel
from pocketcortex.pipeline import bank as bank_module
from pocketcortex.pipeline import teacher as teacher_module
from pocketcortex.pipeline.bank import Bank, distillation_bank, first_of_each_content, label
from pocketcortex.pipeline.config import InSilicoConfig, RecordingsConfig, StudentsConfig
from pocketcortex.pipeline.inputs import RunInputs, prepare_inputs
from pocketcortex.pipeline.teacher import Prior, map_teacher
from pocketcortex.training import SessionFeatures
from pocketcortex.training.schedule import seeded
from pocketcortex.zoo import Backbone, FeatureStore, filter_bank

SIZE = 8


def pixels(n: int, seed: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 3, size, size), dtype=np.uint8)


def stimuli(n: int, seed: int, size: int = SIZE) -> StimulusSet:
    return StimulusSet.from_array(pixels(n, seed, size))


SHOWN = {
    "a": (pixels(24, 1), "train"), "b": (pixels(24, 2), "train"),
    "c": (pixels(24, 3), "validation"), "d": (pixels(40, 4), "test"),
}  # fmt: skip


def prepare(folder: Path, test: Sequence[str] = ("d",), **changed: np.ndarray) -> RunInputs:
    """Return sessions of these images; the second half of each test session's is hidden."""
    folder.mkdir()
    for id, (images, role) in (SHOWN | {k: (v, "test") for k, v in changed.items()}).items():
        role = SHOWN[id][1] if id in SHOWN else role
        names = [f"{id}-{k}" for k in range(len(images))]
        responses = np.random.default_rng(len(images)).poisson(4.0, (len(images), 2, 3))
        shown = StimulusSet.from_array(images, names)
        Session(id, responses, shown, role=role).save(folder / f"{id}.npz")
    config = RecordingsConfig.model_validate({"path": str(folder), "test": list(test)})
    return prepare_inputs(config, seed=0)


def students(*banks: dict[str, object], **settings: object) -> StudentsConfig:
    return StudentsConfig.model_validate({"banks": banks, "n_monitor": 10} | settings)


def with_images(id: str, where: Sequence[int], images: np.ndarray) -> np.ndarray:
    changed = SHOWN[id][0].copy()
    changed[list(where)] = images
    return changed


def write_zip(path: Path, images: Sequence[np.ndarray]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for k, image in enumerate(images):
            buffer = io.BytesIO()
            Image.fromarray(image.transpose(1, 2, 0)).save(buffer, format="PNG")
            archive.writestr(f"{path.stem}{k:04d}.png", buffer.getvalue())
    return path


# Which images.


def test_hidden_images_and_repetitions_leave_the_bank(tmp_path: Path) -> None:
    hidden, new = SHOWN["d"][0][20:], pixels(6, 9)
    other = pixels(40, 5)
    also_hidden = other[20:]
    b = with_images("b", range(4), SHOWN["a"][0][:4])  # shown in two sessions
    inputs = prepare(tmp_path / "in", ("d", "e"), b=b, e=other)
    zipped = write_zip(
        tmp_path / "zipped.zip",
        [new[0], hidden[3], new[1], new[0], hidden[19], also_hidden[7]],
    )
    folder = tmp_path / "folder"
    folder.mkdir()
    for k, image in enumerate([hidden[0], new[1], new[2], also_hidden[0]]):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"folder{k:04d}.png")
    config = students({"path": str(zipped)}, {"path": str(folder)})
    bank = distillation_bank(inputs, config, seed=0).stimuli
    for test in inputs.tests:
        assert set(test.held_out.require_stimuli().digests).isdisjoint(bank.digests)
    assert len(set(bank.digests)) == len(bank)
    shown = [f"a-{k}" for k in range(24)] + [f"b-{k}" for k in range(4, 24)]
    shown += [f"{id}-{k}" for id, n in (("c", 24), ("d", 20), ("e", 20)) for k in range(n)]
    assert list(bank.names) == [*shown, "zipped0000.png", "zipped0002.png", "folder0002.png"]


def test_a_bank_is_cut_to_the_sessions_size_and_its_own_number(tmp_path: Path) -> None:
    inputs = prepare(tmp_path / "in")
    one = write_zip(tmp_path / "one.zip", list(pixels(5, 9, size=20)))
    two = write_zip(tmp_path / "two.zip", list(pixels(5, 8, size=20)))
    config = students({"path": str(one), "n_images": 3}, {"path": str(two), "crops": 2})
    bank = distillation_bank(inputs, config, seed=0)
    assert [len(part) for part in bank.parts] == [24, 24, 24, 20, 3, 10]
    assert bank.stimuli.images().shape == (105, 3, SIZE, SIZE)


def test_crops_depend_on_the_seed_and_the_bank(tmp_path: Path) -> None:
    inputs = prepare(tmp_path / "in")
    paths = [write_zip(tmp_path / f"{n}.zip", list(pixels(4, 9, size=20))) for n in "xy"]
    config = students(*({"path": str(path), "crops": 2} for path in paths))
    first, again, other = (distillation_bank(inputs, config, seed=s).stimuli for s in (1, 1, 2))
    assert first.fingerprint == again.fingerprint
    assert len(first) == 92 + 16  # the same pictures twice, cut in other places
    assert first.digests[:92] == other.digests[:92]
    assert set(first.digests[92:]).isdisjoint(other.digests[92:])


def test_a_source_that_loses_no_image_stays_as_it_was(tmp_path: Path) -> None:
    b = with_images("b", [5], SHOWN["a"][0][5])  # shown in both training sessions
    inputs = prepare(tmp_path / "in", b=b)
    parts = distillation_bank(inputs, students(), seed=0).parts
    assert [len(part) for part in parts] == [24, 23, 24, 20]
    shown = [s.require_stimuli() for s in (*inputs.train, inputs.validation, inputs.tests[0].fit)]
    kept = [part.fingerprint == one.fingerprint for part, one in zip(parts, shown, strict=True)]
    assert kept == [True, False, True, True]


def test_dead_leaves_join_the_bank_by_seed() -> None:
    simulated = InSilicoConfig(n_sessions=3, n_neurons=1, n_stimuli=20, image_size=32)
    inputs = prepare_inputs(RecordingsConfig(insilico=simulated), seed=0)
    config = students(dead_leaves=5)
    first, again, other = (distillation_bank(inputs, config, seed=s).stimuli for s in (1, 1, 2))
    assert len(first) == 50 + 5
    assert first.fingerprint == again.fingerprint
    assert first.digests[:50] == other.digests[:50]
    assert set(first.digests[50:]).isdisjoint(other.digests[50:])


def test_banks_of_oblong_sessions_are_refused(tmp_path: Path) -> None:
    oblong = {id: images[:, :, :4] for id, (images, _) in SHOWN.items()}
    inputs = prepare(tmp_path / "in", **oblong)
    with pytest.raises(InputError, match="cut square; the sessions' are 4 x 8"):
        distillation_bank(inputs, students({"path": "bank.zip"}), seed=0)


def test_first_of_equal_images_is_kept() -> None:
    one, two = pixels(3, 0), pixels(3, 1)
    two[1] = one[2]
    sets = [StimulusSet.from_array(one), StimulusSet.from_array(two)]
    hidden = StimulusSet.from_array(one[:1]).digests
    assert [kept.tolist() for kept in first_of_each_content(sets, hidden)] == [[1, 2], [0, 2]]


# Images kept aside.


def test_the_last_images_of_each_part_are_kept_aside_in_proportion() -> None:
    bank = Bank((stimuli(50, 1), stimuli(30, 2), stimuli(20, 3)), n_monitor=10)
    assert bank.monitored.tolist() == [45, 46, 47, 48, 49, 77, 78, 79, 98, 99]
    assert bank.trained.tolist() == [k for k in range(100) if k not in bank.monitored]


@pytest.mark.parametrize("n_monitor", [2, 3, 7, 19])
def test_as_many_are_kept_aside_as_asked_whatever_the_parts(n_monitor: int) -> None:
    sizes = (3, 17, 1, 9, 11)
    parts = tuple(stimuli(n, k) for k, n in enumerate(sizes))
    bank = Bank(parts, n_monitor)
    starts = np.cumsum([0, *sizes])
    owners = np.searchsorted(starts, bank.monitored, side="right") - 1
    shares = np.bincount(owners, minlength=len(sizes))
    assert sum(shares) == len(bank.monitored) == n_monitor
    assert np.abs(shares - np.array(sizes) * n_monitor / 41).max() < 1
    assert sorted([*bank.monitored, *bank.trained]) == list(range(41))


def test_no_image_kept_aside_is_trained_on(tmp_path: Path) -> None:
    """Also when a zip holds a session's images: each content is in the bank once."""
    inputs = prepare(tmp_path / "in")
    zipped = write_zip(tmp_path / "bank.zip", [*SHOWN["a"][0][-4:], *pixels(30, 9)])
    bank = distillation_bank(inputs, students({"path": str(zipped)}, n_monitor=30), seed=0)
    aside, rest = (bank.stimuli.take(k).digests for k in (bank.monitored, bank.trained))
    assert len(aside) == 30
    assert set(aside).isdisjoint(rest)
    assert {image.digests[-1] for image in bank.parts} <= set(aside)
    responses = np.arange(2.0 * len(bank.stimuli)).reshape(-1, 2)
    monitor = bank.monitor(responses)
    assert monitor.stimuli.digests == aside
    assert np.array_equal(monitor.responses[:, 0] / 2, bank.monitored)


@pytest.mark.parametrize("n_monitor", [46, 500])
def test_keeping_half_of_the_images_aside_is_refused(tmp_path: Path, n_monitor: int) -> None:
    inputs = prepare(tmp_path / "in")
    with pytest.raises(InputError, match=f"n_monitor = {n_monitor} of 92 images to distil with"):
        distillation_bank(inputs, students(n_monitor=n_monitor), seed=0)
    assert len(distillation_bank(inputs, students(n_monitor=45), seed=0).monitored) == 45


# The teacher's responses. Images of 16 pixels; the features of the first part are stored.


def shaded(n: int, seed: int) -> StimulusSet:
    """Return images that differ in brightness and colour."""
    shades = np.random.default_rng(seed).integers(1, 5, (n, 3, 1, 1), dtype=np.uint8)
    return StimulusSet.from_array(pixels(n, seed, 16) // shades)


class StoppedError(Exception):
    """Stands in for a kill."""


class Teaching:
    """Two teachers of two and of three neurons over a bank of 110 images."""

    def __init__(self, folder: Path, prior: Prior | None = None) -> None:
        self.bank = Bank(tuple(shaded(n, k) for k, n in enumerate((50, 40, 20))), 5)
        self.backbone = Backbone(filter_bank(), "maps")
        self.store = FeatureStore(folder)
        self.prior = prior
        self.store.features(self.backbone, self.bank.parts[0])
        shape = EnsembleShape(114, width=4, n_blocks=0, stride=0)
        members = [seeded(k, lambda: EnsembleMember(shape)).eval() for k in range(2)]
        seen = shaded(60, 9)
        features = np.asarray(self.store.features(self.backbone, seen))
        known = None if prior is None else prior(seen)
        self.teachers = []
        level = seen.images().mean(axis=(2, 3)) if known is None else known.outputs[:, :3]
        for responses in (level[:, :2], level):
            mapped, _ = map_teacher(members, SessionFeatures("s", features, responses), known)
            self.teachers.append(mapped)

    def write(self, folder: Path, advance: Callable[[int], None] = lambda n: None) -> None:
        folder.mkdir(exist_ok=True)
        label(self.bank, self.backbone, self.store, self.prior, self.teachers, folder, advance)

    def whole(self) -> np.ndarray:
        """Return what all teachers say of all images, computed at once."""
        features = [
            np.asarray(self.store.stored(self.backbone, self.bank.parts[0]), dtype=np.float32)
        ]
        for part in self.bank.parts[1:]:
            features.append(self.backbone(torch.from_numpy(part.images())).numpy())
        x = np.concatenate(features)
        raw = torch.from_numpy(self.bank.stimuli.images())
        seen = None if self.prior is None else self.prior.features(raw)
        return np.concatenate([t.predict(x, seen) for t in self.teachers], axis=1)


@pytest.fixture
def teaching(tmp_path: Path) -> Teaching:
    return Teaching(tmp_path / "features")


def test_streamed_responses_are_those_of_the_teachers(teaching: Teaching, tmp_path: Path) -> None:
    told: list[int] = []
    teaching.write(tmp_path / "labels", told.append)
    found = np.load(tmp_path / "labels" / "teacher.npy")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, teaching.whole(), rtol=1e-4, atol=1e-5)
    assert found.std(axis=0).min() > 0.1
    assert sum(told) == 110
    assert [path.name for path in (tmp_path / "labels").iterdir()] == ["teacher.npy"]
    assert len(list((tmp_path / "features").glob("*.npy"))) == 2  # no others are kept


def test_a_published_model_speaks_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    published = seeded(0, lambda: SharedCompactModel((3, 3, 3, 3, 4), 6, (16, 16))).eval()
    seeded(1, lambda: torch.nn.init.normal_(published.spatial))
    monkeypatch.setattr(teacher_module, "import_shared_model", lambda path: published)
    prior = Prior("a model", FeatureStore(tmp_path / "prior"), "cpu")
    teaching = Teaching(tmp_path / "features", prior)
    teaching.write(tmp_path / "labels")
    found = np.load(tmp_path / "labels" / "teacher.npy")
    np.testing.assert_allclose(found, teaching.whole(), rtol=1e-4, atol=1e-5)
    assert all(sum(t.weights[1:]) > 0.1 for t in teaching.teachers)


@pytest.mark.parametrize("n_images", [0, 50, 64, 96, 109])
def test_killed_labels_go_on_from_the_last_mark(
    teaching: Teaching, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_images: int
) -> None:
    monkeypatch.setattr(bank_module, "_IMAGES_A_MARK", 32)
    teaching.write(tmp_path / "whole")
    seen = 0

    def advance(n: int) -> None:
        nonlocal seen
        seen += n
        if seen > n_images:
            raise StoppedError

    folder = tmp_path / "labels"
    with pytest.raises(StoppedError):
        teaching.write(folder, advance)
    mark = folder / "mark.json"
    done = json.loads(mark.read_text())["done"] if mark.exists() else 0
    assert n_images - 40 < done <= n_images
    half = np.lib.format.open_memmap(folder / "teacher.npy", "r+")
    half[done:] = np.nan  # what lies behind the mark counts for nothing
    half.flush()
    told: list[int] = []
    teaching.write(folder, told.append)
    assert told[0] == done
    assert sum(told) == 110
    whole = (tmp_path / "whole" / "teacher.npy").read_bytes()
    assert (folder / "teacher.npy").read_bytes() == whole
    assert not mark.exists()


def test_what_lies_before_the_mark_is_not_asked_for_again(
    teaching: Teaching, tmp_path: Path
) -> None:
    folder = tmp_path / "labels"
    teaching.write(folder)
    half = np.lib.format.open_memmap(folder / "teacher.npy", "r+")
    whole = half.copy()
    half[:] = 7
    half.flush()
    told = {"done": 82, "sha256": hashlib.sha256(half[:82]).hexdigest()}
    (folder / "mark.json").write_text(json.dumps(told))  # a batch ends there: 50 and 32 images
    teaching.write(folder)
    found = np.load(folder / "teacher.npy")
    assert (found[:82] == 7).all()
    assert np.array_equal(found[82:], whole[82:])


@pytest.mark.parametrize("damage", ["altered", "cut", "other mark", "broken mark"])
def test_damaged_half_of_the_labels_is_not_gone_on_from(
    teaching: Teaching, tmp_path: Path, damage: str
) -> None:
    folder = tmp_path / "labels"
    teaching.write(folder)
    path, mark = folder / "teacher.npy", folder / "mark.json"
    whole = path.read_bytes()
    told = {"done": 82, "sha256": hashlib.sha256(np.load(path)[:82]).hexdigest()}
    mark.write_text(json.dumps(told))
    if damage == "altered":
        path.write_bytes(whole[:200] + b"x" + whole[201:])
    elif damage == "cut":
        path.write_bytes(whole[:400])
    else:
        mark.write_text('{"done": 82}' if damage == "other mark" else '{"done": 8')
    said: list[int] = []
    teaching.write(folder, said.append)
    assert said[0] == 0
    assert path.read_bytes() == whole
    assert not mark.exists()
