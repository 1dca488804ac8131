"""What a run works on: roles, the split in halves, and that nothing hidden ever leaks."""

import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketcortex.core import InputError, Session, StimulusSet
from pocketcortex.pipeline.config import InSilicoConfig, RecordingsConfig, StudentsConfig
from pocketcortex.pipeline.inputs import (
    MIN_HALF,
    RunInputs,
    distillation_images,
    prepare_inputs,
    without_duplicates,
)
from pocketcortex.pipeline.scores import medians, score_table

SIZE = 8


def pixels(n: int, seed: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 3, size, size), dtype=np.uint8)


def session(id: str, images: np.ndarray, role: str | None = None, n_neurons: int = 3) -> Session:
    rng = np.random.default_rng([len(images), *id.encode()])
    responses = rng.poisson(4.0, (len(images), 2, n_neurons))
    names = [f"{id}-{k}" for k in range(len(images))]
    return Session(id, responses, StimulusSet.from_array(images, names), role=role)


def sessions() -> dict[str, Session]:
    """Return two training sessions, one for validation, and one of 40 images for testing."""
    return {
        "a": session("a", pixels(24, 1), "train"),
        "b": session("b", pixels(24, 2), "train"),
        "c": session("c", pixels(24, 3), "validation"),
        "d": session("d", pixels(40, 4), "test", n_neurons=5),
    }


def with_responses(given: Session, change: Callable[[np.ndarray], None]) -> Session:
    responses = given.responses.copy()
    change(responses)
    return replace(given, responses=responses)


def prepare(folder: Path, given: dict[str, Session], **settings: object) -> RunInputs:
    for name, one in given.items():
        one.save(folder / f"{name}.npz")
    config = RecordingsConfig.model_validate({"path": str(folder)} | settings)
    return prepare_inputs(config, seed=0)


def refused(folder: Path, given: dict[str, Session], **settings: object) -> str:
    with pytest.raises(InputError) as caught:
        prepare(folder, given, **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


def names(stimuli: StimulusSet | None) -> list[str]:
    assert stimuli is not None
    return list(stimuli.names)


def test_roles_are_those_of_the_sessions(tmp_path: Path) -> None:
    inputs = prepare(tmp_path, sessions())
    assert [s.id for s in inputs.train] == ["a", "b"]
    assert inputs.validation.id == "c"
    assert (inputs.fit.id, inputs.held_out.id) == ("d", "d")


def test_roles_can_be_given(tmp_path: Path) -> None:
    inputs = prepare(tmp_path, sessions(), train=["d", "c"], validation="b", test="a")
    assert [s.id for s in inputs.train] == ["d", "c"]
    assert (inputs.validation.id, inputs.held_out.id) == ("b", "a")


def test_test_session_is_halved_in_the_order_of_presentation(tmp_path: Path) -> None:
    given = sessions()
    given["d"] = given["d"].take(np.arange(39))
    inputs = prepare(tmp_path, given)
    assert names(inputs.fit.stimuli) == [f"d-{k}" for k in range(19)]
    assert names(inputs.held_out.stimuli) == [f"d-{k}" for k in range(19, 39)]
    np.testing.assert_array_equal(inputs.fit.responses, given["d"].responses[:19])
    np.testing.assert_array_equal(inputs.held_out.responses, given["d"].responses[19:])


def test_hidden_images_leave_every_session_but_the_held_out_half(tmp_path: Path) -> None:
    hidden = pixels(40, 4)[20:]
    given = sessions()
    for name, seed, where in (("a", 1, [0, 7]), ("b", 2, [23]), ("c", 3, [5, 6, 7])):
        images = pixels(24, seed)
        images[where] = hidden[: len(where)]
        given[name] = session(name, images, given[name].role)
    images = pixels(40, 4)
    images[3] = hidden[9]  # an image of the second half, seen in the first one too
    given["d"] = session("d", images, "test", n_neurons=5)
    inputs = prepare(tmp_path, given)
    kept = {s.id: names(s.stimuli) for s in (*inputs.train, inputs.validation, inputs.fit)}
    assert kept["a"] == [f"a-{k}" for k in range(24) if k not in (0, 7)]
    assert kept["b"] == [f"b-{k}" for k in range(23)]
    assert kept["c"] == [f"c-{k}" for k in range(24) if k not in (5, 6, 7)]
    assert kept["d"] == [f"d-{k}" for k in range(20) if k != 3]
    assert len(inputs.held_out.require_stimuli()) == 20
    rows = [k for k in range(24) if k not in (0, 7)]
    np.testing.assert_array_equal(inputs.train[0].responses, given["a"].responses[rows])


def write_zip(path: Path, images: Sequence[np.ndarray]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for k, image in enumerate(images):
            buffer = io.BytesIO()
            Image.fromarray(image.transpose(1, 2, 0)).save(buffer, format="PNG")
            archive.writestr(f"{path.stem}{k:04d}.png", buffer.getvalue())
    return path


def test_hidden_images_and_repetitions_leave_the_bank(tmp_path: Path) -> None:
    hidden, new = pixels(40, 4)[20:], pixels(6, 9)
    given = sessions()
    images = pixels(24, 2)
    images[:4] = pixels(24, 1)[:4]  # shown in two sessions
    given["b"] = session("b", images, "train")
    (tmp_path / "in").mkdir()
    inputs = prepare(tmp_path / "in", given)
    zipped = write_zip(tmp_path / "zipped.zip", [new[0], hidden[3], new[1], new[0], hidden[19]])
    folder = tmp_path / "folder"
    folder.mkdir()
    for k, image in enumerate([hidden[0], new[1], new[2]]):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"folder{k:04d}.png")
    config = StudentsConfig(banks=(str(zipped), str(folder)))
    bank = StimulusSet.concatenate(distillation_images(inputs, config, seed=0))
    assert set(inputs.held_out.require_stimuli().digests).isdisjoint(bank.digests)
    assert len(set(bank.digests)) == len(bank)
    shown = [f"a-{k}" for k in range(24)] + [f"b-{k}" for k in range(4, 24)]
    shown += [f"c-{k}" for k in range(24)] + [f"d-{k}" for k in range(20)]
    assert names(bank) == [*shown, "zipped0000.png", "zipped0002.png", "folder0002.png"]


def test_bank_is_cut_to_the_sessions_size_and_number(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    inputs = prepare(tmp_path / "in", sessions())
    zipped = write_zip(tmp_path / "bank.zip", list(pixels(5, 9, size=20)))
    config = StudentsConfig(banks=(str(zipped),), n_bank_images=3)
    bank = StimulusSet.concatenate(distillation_images(inputs, config, seed=0))
    assert len(bank) == 24 * 3 + 20 + 3
    assert bank.images().shape[2:] == (SIZE, SIZE)


def test_a_source_that_loses_no_image_stays_as_it_was(tmp_path: Path) -> None:
    given = sessions()
    images = pixels(24, 2)
    images[5] = pixels(24, 1)[5]  # shown in both training sessions
    given["b"] = session("b", images, "train")
    inputs = prepare(tmp_path, given)
    parts = distillation_images(inputs, StudentsConfig(), seed=0)
    assert [len(part) for part in parts] == [24, 23, 24, 20]
    shown = [s.require_stimuli() for s in (*inputs.train, inputs.validation, inputs.fit)]
    kept = [part.fingerprint == one.fingerprint for part, one in zip(parts, shown, strict=True)]
    assert kept == [True, False, True, True]


def test_dead_leaves_join_the_bank_by_seed() -> None:
    simulated = InSilicoConfig(n_sessions=3, n_neurons=1, n_stimuli=20, image_size=32)
    inputs = prepare_inputs(RecordingsConfig(insilico=simulated), seed=0)
    config = StudentsConfig(dead_leaves=5)
    first, again, other = (
        StimulusSet.concatenate(distillation_images(inputs, config, seed=s)) for s in (1, 1, 2)
    )
    assert len(first) == 50 + 5
    assert first.fingerprint == again.fingerprint
    assert first.digests[:50] == other.digests[:50]
    assert set(first.digests[50:]).isdisjoint(other.digests[50:])


def test_banks_of_oblong_sessions_are_refused(tmp_path: Path) -> None:
    given = {
        name: session(name, pixels(len(one.responses), k, SIZE)[:, :, :4], one.role)
        for k, (name, one) in enumerate(sessions().items())
    }
    inputs = prepare(tmp_path, given)
    with pytest.raises(InputError, match="cut square; the sessions' are 4 x 8"):
        distillation_images(inputs, StudentsConfig(banks=("bank.zip",)), seed=0)


def test_first_of_equal_images_is_kept() -> None:
    one, two = pixels(3, 0), pixels(3, 1)
    two[1] = one[2]
    sets = [StimulusSet.from_array(one, ["a", "b", "c"]), StimulusSet.from_array(two)]
    hidden = StimulusSet.from_array(one[:1]).digests
    kept = StimulusSet.concatenate(without_duplicates(sets, hidden))
    assert names(kept) == ["b", "c", "image0001", "image0003"]


def test_synthesized_images_are_left_out_if_asked(tmp_path: Path) -> None:
    given = sessions() | {"190924": session("190924", pixels(902, 5), "train")}
    assert prepare(tmp_path, given).train[0].n_stimuli == 902
    inputs = prepare(tmp_path, given, skip_synthesized=True)
    assert [s.n_stimuli for s in inputs.train] == [602, 24, 24]
    expected = [f"190924-{k}" for k in (*range(600), 900, 901)]
    assert names(inputs.train[0].stimuli) == expected


def spoil(responses: np.ndarray) -> None:
    """Leave neurons 2 and 5 of seven usable."""
    responses[:, :, 0] = np.nan
    responses[:, :, 1] = 3.0
    responses[4, :, 3] = np.nan  # in the first half
    responses[[30, 35], :, 4] = np.nan  # in the second half
    responses[:20, :, 6] = 1.0  # constant in the first half alone
    responses[7, 1, 5] = np.nan  # one repeat is no loss


def test_unusable_neurons_have_reasons(tmp_path: Path) -> None:
    given = sessions()
    given["d"] = with_responses(session("d", pixels(40, 4), "test", n_neurons=7), spoil)
    inputs = prepare(tmp_path, given)
    assert inputs.usable.tolist() == [2, 5]
    assert inputs.unusable == {
        0: "all responses are NaN",
        1: "constant response",
        3: "no response to 1 images",
        4: "no response to 2 images",
        6: "constant response",
    }
    assert inputs.fit.n_neurons == inputs.held_out.n_neurons == 7


def test_unusable_neurons_stay_nan_in_the_scores(tmp_path: Path) -> None:
    given = sessions()
    given["d"] = with_responses(session("d", pixels(40, 4), "test", n_neurons=7), spoil)
    inputs = prepare(tmp_path, given)
    seen = inputs.held_out.mean_responses[:, inputs.usable]
    predictions = {"perfect": seen, "flat": np.zeros_like(seen)}
    table = score_table(inputs.held_out, predictions, inputs.usable, inputs.unusable, seed=0)
    assert len(table) == 2 * 2 * 7
    perfect = table.query("model == 'perfect' and metric == 'r2'").set_index("neuron").sort_index()
    assert perfect.index.tolist() == list(range(7))
    np.testing.assert_allclose(perfect["value"][[2, 5]], 1.0)
    lost = perfect.loc[[0, 1, 3, 4, 6]]
    assert lost[["value", "ci_low", "ci_high"]].isna().all(axis=None)
    assert lost["reason"].to_dict() == inputs.unusable
    assert (perfect["reason"][[2, 5]] == "").all()
    flat = table.query("model == 'flat'")
    assert flat["value"].isna().all()
    assert (flat["reason"] != "").all()
    assert (table["n_stimuli"] == 20).all()
    summary = medians(table, seed=0)
    assert summary["r2"]["perfect"]["median"] == pytest.approx(1.0)
    assert summary["r2"]["perfect"]["n_neurons"] == 2
    assert summary["r2"]["flat"] == {
        "median": None,
        "ci": [None, None],
        "mean": None,
        "n_neurons": 0,
    }


def test_scores_without_repeats_are_not_noise_corrected(tmp_path: Path) -> None:
    given = sessions()
    given["d"] = with_responses(given["d"], lambda r: r[:, 1].fill(np.nan))
    inputs = prepare(tmp_path, given)
    predictions = {"perfect": inputs.held_out.mean_responses}
    table = score_table(inputs.held_out, predictions, inputs.usable, inputs.unusable, seed=0)
    assert set(table["metric"]) == {"r2"}


def test_neurons_that_cannot_be_fitted_leave_the_training_sessions(tmp_path: Path) -> None:
    given = sessions()
    given["a"] = with_responses(given["a"], lambda r: r[0, :, 1].fill(np.nan))
    given["c"] = with_responses(given["c"], lambda r: r[:, :, 0].fill(2.0))
    inputs = prepare(tmp_path, given)
    assert [s.n_neurons for s in (*inputs.train, inputs.validation)] == [2, 3, 2]
    np.testing.assert_array_equal(inputs.train[0].responses, given["a"].responses[:, :, [0, 2]])


def test_a_neuron_that_is_constant_but_for_hidden_images_is_unusable(tmp_path: Path) -> None:
    images = pixels(24, 1)
    images[0] = pixels(40, 4)[25]

    def almost_constant(responses: np.ndarray) -> None:
        responses[1:, :, 2] = 5.0
        responses[0, :, 2] = 0.0

    given = sessions()
    given["a"] = with_responses(session("a", images, "train"), almost_constant)
    assert prepare(tmp_path, given).train[0].n_neurons == 2


def test_sessions_without_any_usable_neuron_are_refused(tmp_path: Path) -> None:
    given = sessions()
    silent = given | {"d": with_responses(given["d"], lambda r: r.fill(np.nan))}
    assert "no neuron of session d can be modelled" in refused(tmp_path, silent)
    silent = given | {"b": with_responses(given["b"], lambda r: r.fill(2.0))}
    assert "no neuron of session b can be used" in refused(tmp_path, silent)


@pytest.mark.parametrize("name", ["a", "c", "d"])
def test_images_of_another_size_are_refused(tmp_path: Path, name: str) -> None:
    given = sessions()
    given[name] = session(name, pixels(24, 1, size=12), given[name].role)
    message = refused(tmp_path, given)
    assert "has images of" in message
    assert "(12, 12)" in message
    assert "(8, 8)" in message


@pytest.mark.parametrize("key", ["train", "validation", "test"])
def test_a_named_session_without_images_is_refused(tmp_path: Path, key: str) -> None:
    given = sessions() | {"e": replace(session("e", pixels(24, 5)), stimuli=None)}
    settings: dict[str, object] = {key: ["e"] if key == "train" else "e"}
    assert "session e has no images" in refused(tmp_path, given, **settings)


def test_sessions_without_images_are_not_among_the_default_ones(tmp_path: Path) -> None:
    given = sessions()
    given |= {"e": replace(session("e", pixels(24, 5), "train"), stimuli=None)}
    given |= {"f": replace(session("f", pixels(24, 6), "test"), stimuli=None)}
    inputs = prepare(tmp_path, given)
    assert [s.id for s in inputs.train] == ["a", "b"]
    assert inputs.held_out.id == "d"


def test_no_training_session_is_refused(tmp_path: Path) -> None:
    given = {name: one for name, one in sessions().items() if name in "cd"}
    assert "name some in recordings.train" in refused(tmp_path, given)


@pytest.mark.parametrize("role", ["validation", "test"])
def test_none_or_several_sessions_of_a_role_are_refused(tmp_path: Path, role: str) -> None:
    given = sessions()
    several = given | {"e": session("e", pixels(24, 5), role)}
    message = refused(tmp_path, several)
    assert f"2 sessions with images have the role '{role}'" in message
    assert f"recordings.{role}" in message
    for file in tmp_path.glob("*.npz"):
        file.unlink()
    none = {name: one for name, one in given.items() if one.role != role}
    assert f"0 sessions with images have the role '{role}'" in refused(tmp_path, none)


@pytest.mark.parametrize(
    "settings",
    [
        {"train": ["a", "d"]}, {"train": ["a", "c"]}, {"validation": "d"}, {"test": "a"},
        {"validation": "b"}, {"train": ["a", "a"]},
    ],
)  # fmt: skip
def test_one_session_in_two_roles_is_refused(tmp_path: Path, settings: dict[str, object]) -> None:
    message = refused(tmp_path, sessions(), **settings)
    assert "must not be among" in message or "same id" in message


@pytest.mark.parametrize("settings", [{"train": ["z"]}, {"validation": "z"}, {"test": "z"}])
def test_an_unknown_session_is_refused(tmp_path: Path, settings: dict[str, object]) -> None:
    assert "no session z; there are a, b, c, d" in refused(tmp_path, sessions(), **settings)


def test_too_few_images_to_halve_are_refused(tmp_path: Path) -> None:
    given = sessions()
    few = given | {"d": given["d"].take(np.arange(2 * MIN_HALF - 1))}
    assert "session d has 19 images; too few to halve" in refused(tmp_path, few)
    enough = given | {"d": given["d"].take(np.arange(2 * MIN_HALF))}
    assert prepare(tmp_path, enough).fit.n_stimuli == MIN_HALF


@pytest.mark.parametrize("name", ["a", "c", "d"])
def test_too_few_images_that_are_not_hidden_are_refused(tmp_path: Path, name: str) -> None:
    given = sessions()
    hidden = pixels(40, 4)[20:]
    images = np.concatenate([hidden, hidden]) if name == "d" else hidden
    given[name] = session(name, images, given[name].role, given[name].n_neurons)
    message = refused(tmp_path, given)
    assert f"session {name} has 0 images that are not among the held-out ones" in message


def test_fingerprint_follows_images_and_responses(tmp_path: Path) -> None:
    first = prepare(tmp_path, sessions()).fingerprint
    assert prepare(tmp_path, sessions()).fingerprint == first
    given = sessions()
    changed = [
        given | {"a": with_responses(given["a"], lambda r: r[3, 1, 2:].fill(9.0))},
        given | {"c": session("c", pixels(24, 33), "validation")},
        given | {"d": given["d"].take(np.arange(39))},
    ]
    assert first not in [prepare(tmp_path, other).fingerprint for other in changed]
