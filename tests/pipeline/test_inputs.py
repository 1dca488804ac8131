"""What a run works on: roles, the split in halves, and that nothing hidden ever leaks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pocketcortex.core import InputError, Session, StimulusSet
from pocketcortex.pipeline.config import RecordingsConfig
from pocketcortex.pipeline.inputs import MIN_HALF, RunInputs, TestSession, prepare_inputs
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


def halves(folder: Path, given: dict[str, Session], **settings: object) -> TestSession:
    (test,) = prepare(folder, given, **settings).tests
    return test


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
    assert [(test.fit.id, test.held_out.id) for test in inputs.tests] == [("d", "d")]


def test_roles_can_be_given(tmp_path: Path) -> None:
    inputs = prepare(tmp_path, sessions(), train=["d"], validation="b", test=["c", "a"])
    assert [s.id for s in inputs.train] == ["d"]
    assert inputs.validation.id == "b"
    assert [test.held_out.id for test in inputs.tests] == ["c", "a"]
    assert inputs.n_usable == 6


def test_test_session_is_halved_in_the_order_of_presentation(tmp_path: Path) -> None:
    given = sessions()
    given["d"] = given["d"].take(np.arange(39))
    test = halves(tmp_path, given)
    assert names(test.fit.stimuli) == [f"d-{k}" for k in range(19)]
    assert names(test.held_out.stimuli) == [f"d-{k}" for k in range(19, 39)]
    np.testing.assert_array_equal(test.fit.responses, given["d"].responses[:19])
    np.testing.assert_array_equal(test.held_out.responses, given["d"].responses[19:])


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
    (test,) = inputs.tests
    kept = {s.id: names(s.stimuli) for s in (*inputs.train, inputs.validation, test.fit)}
    assert kept["a"] == [f"a-{k}" for k in range(24) if k not in (0, 7)]
    assert kept["b"] == [f"b-{k}" for k in range(23)]
    assert kept["c"] == [f"c-{k}" for k in range(24) if k not in (5, 6, 7)]
    assert kept["d"] == [f"d-{k}" for k in range(20) if k != 3]
    assert len(test.held_out.require_stimuli()) == 20
    rows = [k for k in range(24) if k not in (0, 7)]
    np.testing.assert_array_equal(inputs.train[0].responses, given["a"].responses[rows])


def test_an_image_of_one_held_out_half_leaves_the_other_test_sessions(tmp_path: Path) -> None:
    given = sessions()
    images = pixels(40, 5)
    images[2], images[37] = pixels(40, 4)[30], pixels(40, 4)[31]
    given["e"] = session("e", images, "test")
    inputs = prepare(tmp_path, given, test=["d", "e"])
    first, second = inputs.tests
    assert names(second.fit.stimuli) == [f"e-{k}" for k in range(20) if k != 2]
    assert names(first.fit.stimuli) == [f"d-{k}" for k in range(20)]
    assert [len(test.held_out.require_stimuli()) for test in inputs.tests] == [20, 20]


def test_only_the_first_neurons_are_modelled_where_so_many_are_asked_for(tmp_path: Path) -> None:
    given = sessions()
    given["c"] = with_responses(given["c"], lambda r: r[:, :, 0].fill(2.0))
    settings = {"train": ["a"], "validation": "b", "test": ["c", "d"]}
    few = prepare(tmp_path, given, **settings, n_neurons={"d": 3, "c": 9})
    assert [test.usable.tolist() for test in few.tests] == [[1, 2], [0, 1, 2]]
    assert few.n_usable == 5
    assert prepare(tmp_path, given, **settings).n_usable == 7


@pytest.mark.parametrize(
    ("id", "name"), [("190923", "190923"), ("a b-c_d", "a b-c_d"), ("../x/y", "%2E%2E%2Fx%2Fy")]
)
def test_files_of_a_session_are_named_after_its_id(tmp_path: Path, id: str, name: str) -> None:
    given = sessions() | {"d": replace(sessions()["d"], id=id)}
    assert halves(tmp_path, given).name == name


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
    test = halves(tmp_path, given)
    assert test.usable.tolist() == [2, 5]
    assert test.unusable == {
        0: "all responses are NaN",
        1: "constant response",
        3: "no response to 1 images",
        4: "no response to 2 images",
        6: "constant response",
    }
    assert test.fit.n_neurons == test.held_out.n_neurons == 7


def test_unusable_neurons_stay_nan_in_the_scores(tmp_path: Path) -> None:
    given = sessions()
    given["d"] = with_responses(session("d", pixels(40, 4), "test", n_neurons=7), spoil)
    test = halves(tmp_path, given)
    seen = test.held_out.mean_responses[:, test.usable]
    predictions = {"perfect": seen, "flat": np.zeros_like(seen)}
    table = score_table(test.held_out, predictions, test.usable, test.unusable, seed=0)
    assert len(table) == 2 * 2 * 7
    perfect = table.query("model == 'perfect' and metric == 'r2'").set_index("neuron").sort_index()
    assert perfect.index.tolist() == list(range(7))
    np.testing.assert_allclose(perfect["value"][[2, 5]], 1.0)
    lost = perfect.loc[[0, 1, 3, 4, 6]]
    assert lost[["value", "ci_low", "ci_high"]].isna().all(axis=None)
    assert lost["reason"].to_dict() == test.unusable
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
    test = halves(tmp_path, given)
    predictions = {"perfect": test.held_out.mean_responses}
    table = score_table(test.held_out, predictions, test.usable, test.unusable, seed=0)
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
    assert [test.fit.id for test in inputs.tests] == ["d"]


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
    told = refused(tmp_path, none)
    assert f"0 sessions with images have the role '{role}'" in told
    assert "cut in three by its images" in told


@pytest.mark.parametrize(
    "settings",
    [
        {"train": ["a", "d"]}, {"train": ["a", "c"]}, {"validation": "d"}, {"test": "a"},
        {"validation": "b"}, {"train": ["a", "a"]}, {"test": ["d", "d"]}, {"test": ["d", "c"]},
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
    assert halves(tmp_path, enough).fit.n_stimuli == MIN_HALF


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


def test_the_teacher_s_fingerprint_follows_what_it_is_trained_on(tmp_path: Path) -> None:
    given = sessions()
    first = prepare(tmp_path, given).teacher_fingerprint
    shorter = given | {"d": given["d"].take(np.arange(39))}
    assert prepare(tmp_path, shorter).teacher_fingerprint == first
    other = given | {"a": with_responses(given["a"], lambda r: r[3, 1, 2:].fill(9.0))}
    assert prepare(tmp_path, other).teacher_fingerprint != first


def test_a_count_of_neurons_of_no_test_session_is_refused(tmp_path: Path) -> None:
    message = refused(tmp_path, sessions(), n_neurons={"z": 2})
    assert "recordings.n_neurons names z; the test sessions are d" in message
