"""A run's TOML file: what it may say, and one line naming the key for everything else."""

import json
from pathlib import Path

import pydantic
import pytest

from pocketcortex.core import InputError
from pocketcortex.pipeline import RunConfig, demo_config, read_config

SOURCE = '[recordings]\npath = "x"\n'


def refused(path: Path) -> str:
    """Return the one line that reading a configuration is refused with."""
    with pytest.raises(InputError) as caught:
        read_config(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def write(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text)
    return path


def test_reads_every_table(tmp_path: Path) -> None:
    config = read_config(
        write(
            tmp_path,
            "seed = 4\n"
            '[recordings]\npath = "data"\ntrain = ["a", "b"]\nvalidation = "c"\ntest = "d"\n'
            "skip_synthesized = true\nn_neurons = { d = 20 }\n"
            '[backbone]\nnetwork = "net.py:build"\nlayers = ["blocks.2"]\ninput_size = 224\n'
            "[teacher]\nn_members = 2\nlearning_rate = 1\n"
            '[students]\nkind = "separate"\nfilters = [1, 2, 3, 4, 5]\npatience = 3\n'
            'schedule = "constant"\n[[students.banks]]\npath = "one.zip"\ncrops = 8\n'
            '[[students.banks]]\npath = "two"\nn_images = 9\n'
            "[compact]\nthreshold = 0.5\npatience = 1\n"
            "[stimuli]\nn_synthesis_steps = 7\nbudget = 2\n",
        )
    )
    assert config.seed == 4
    assert config.recordings.path == "data"
    assert config.recordings.train == ("a", "b")
    assert (config.recordings.validation, config.recordings.test) == ("c", ("d",))
    assert config.recordings.skip_synthesized is True
    assert (config.backbone.network, config.backbone.layers) == ("net.py:build", ("blocks.2",))
    assert config.backbone.input_size == 224
    assert (config.teacher.n_members, config.teacher.learning_rate) == (2, 1.0)
    assert config.students.filters == (1, 2, 3, 4, 5)
    assert [(b.path, b.n_images, b.crops) for b in config.students.banks] == [
        ("one.zip", None, 8), ("two", 9, 0)
    ]  # fmt: skip
    assert (config.students.kind, config.students.schedule) == ("separate", "constant")
    assert (config.students.patience, config.compact.patience) == (3, 1)
    assert config.recordings.n_neurons == {"d": 20}
    assert config.compact.threshold == 0.5
    assert (config.stimuli.counts.n_synthesis_steps, config.stimuli.counts.budget) == (7, 2.0)


def test_what_is_not_said_has_its_default(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, SOURCE))
    assert config == RunConfig.model_validate({"recordings": {"path": "x"}})
    assert config.seed is None
    assert config.recordings.train == ()
    assert config.teacher.n_members == 25
    assert config.students.filters == (100,) * 5


def test_json_of_a_configuration_reads_back(tmp_path: Path) -> None:
    config = demo_config()
    text = json.dumps(config.model_dump(mode="json"), allow_nan=False)
    assert RunConfig.model_validate(json.loads(text)) == config
    assert config.seed is not None
    assert config.recordings.insilico is not None


def test_a_configuration_cannot_be_changed() -> None:
    config = demo_config()
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        config.seed = 8  # type: ignore[misc]


def test_variables_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_DATA", "/lab")
    monkeypatch.setenv("NIGHT", "190923")
    config = read_config(
        write(
            tmp_path,
            '[recordings]\npath = "${LAB_DATA}/v4"\ntest = "${NIGHT}"\n'
            '[students]\nbanks = [{path = "${LAB_DATA}/${NIGHT}.zip"}, {path = "$LAB_DATA"}]\n',
        )
    )
    assert config.recordings.path == "/lab/v4"
    assert config.recordings.test == ("190923",)
    assert [bank.path for bank in config.students.banks] == ["/lab/190923.zip", "$LAB_DATA"]


@pytest.mark.parametrize(
    "text",
    [
        '[recordings]\npath = "${LAB_DATA}/v4"\n',
        SOURCE + '[students]\nbanks = [{path = "a.zip"}, {path = "${LAB_DATA}/b.zip"}]\n',
        SOURCE + '[backbone]\nnetwork = "${LAB_DATA}/net.py:build"\n',
    ],
)
def test_an_unset_variable_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.delenv("LAB_DATA", raising=False)
    assert "${LAB_DATA}, which is not set" in refused(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            SOURCE + "n_session = 3\n",
            "recordings.n_session: no such setting; there are insilico, n_neurons, path, ",
        ),
        (
            SOURCE + "[students]\nepochs = 3\n",
            "students.epochs: no such setting; did you mean n_epochs?",
        ),
        (
            SOURCE + "[explorer]\nport = 1\n",
            "explorer: no such setting; there are backbone, compact, ",
        ),
        ("[recordings.insilico]\nanimals = 1\n", "recordings.insilico.animals: no such setting"),
        (SOURCE + "[recordings.insilico]\nn_neurons = 4\n", "recordings: "),
        ("[recordings]\n", "recordings: "),
        ("", "recordings: Field required"),
        ("recordings = 3\n", "recordings: "),
        ("seed = -1\n" + SOURCE, "seed: "),
        ('seed = "one"\n' + SOURCE, "seed: "),
        (f"seed = {2**63}\n" + SOURCE, "seed: "),
        (SOURCE + "[teacher]\nn_members = 0\n", "teacher.n_members: "),
        (SOURCE + "[teacher]\nn_epochs = 1.5\n", "teacher.n_epochs: "),
        (SOURCE + "[teacher]\nlearning_rate = 0\n", "teacher.learning_rate: "),
        (SOURCE + "[teacher]\nlearning_rate = nan\n", "teacher.learning_rate: "),
        (SOURCE + "[teacher]\nlearning_rate = inf\n", "teacher.learning_rate: "),
        (SOURCE + "[teacher]\nweight_decay = -0.1\n", "teacher.weight_decay: "),
        (SOURCE + "[students]\nsmoothing = inf\n", "students.smoothing: "),
        (SOURCE + "[students]\nfilters = [4, 4, 4, 4]\n", "students.filters"),
        (SOURCE + "[students]\nfilters = [4, 4, 0, 4, 4]\n", "students.filters.2: "),
        (SOURCE + "n_neurons = { d = 0 }\n", "recordings.n_neurons.d: "),
        (SOURCE + '[students]\nbanks = "one.zip"\n', "students.banks: "),
        (SOURCE + '[students]\nbanks = ["one.zip"]\n', "students.banks.0: "),
        (SOURCE + '[students]\nbanks = [{path = ""}]\n', "students.banks.0.path: "),
        (SOURCE + '[students]\nbanks = [{path = "a", crops = -1}]\n', "students.banks.0.crops: "),
        (SOURCE + '[students]\nbanks = [{path = "a", n_images = 0}]\n', "students.banks.0.n_im"),
        (SOURCE + '[students]\nschedule = "cosine"\n', "students.schedule: "),
        (SOURCE + '[students]\nkind = "one"\n', "students.kind: "),
        (SOURCE + "[students]\npatience = 3\n", "students: Value error, patience is for kind"),
        (
            SOURCE + '[students]\nkind = "separate"\nstart = "x.keras"\n',
            "students: Value error, start and mixing_l1 are for kind = shared",
        ),
        (
            SOURCE + '[students]\nkind = "separate"\nmixing_l1 = 0.1\n',
            "students: Value error, start and mixing_l1 are for kind = shared",
        ),
        (SOURCE + '[students]\nkind = "separate"\npatience = 0\n', "students.patience: "),
        (SOURCE + "[students]\nn_monitor = 1\n", "students.n_monitor: "),
        (SOURCE + "[students]\ndead_leaves = -1\n", "students.dead_leaves: "),
        (SOURCE + "[compact]\nthreshold = 1.1\n", "compact.threshold: "),
        (SOURCE + "[compact]\nn_images = 0\n", "compact.n_images: "),
        (SOURCE + "[stimuli]\nn_synthesis_steps = 0\n", "stimuli.n_synthesis_steps: "),
        (
            SOURCE + "[stimuli]\nn_natural = 1\nn_smoothed = 2\n",
            "stimuli: Value error, n_smoothed = 2 images are made from n_natural = 1",
        ),
        (
            SOURCE + "[stimuli]\nn_candidates = 108\n",
            "stimuli: Value error, n_candidates must exceed n_random + 2 n_natural",
        ),
        (SOURCE + "[backbone]\ninput_size = -1\n", "backbone.input_size: "),
        ("[recordings.insilico]\nn_sessions = 2\n", "recordings.insilico.n_sessions: "),
        ("[recordings.insilico]\nn_stimuli = 19\n", "recordings.insilico.n_stimuli: "),
        ("[recordings.insilico]\nimage_size = 31\n", "recordings.insilico.image_size: "),
    ],
)
def test_what_is_wrong_is_named_by_its_key(tmp_path: Path, text: str, reason: str) -> None:
    path = write(tmp_path, text)
    assert f"{path}: {reason}" in refused(path)


def test_two_sources_and_none_are_told_what_to_do(tmp_path: Path) -> None:
    for text in (SOURCE + "[recordings.insilico]\n", "[recordings]\ntest = 'a'\n"):
        message = refused(write(tmp_path, text))
        assert "either recordings.path or recordings.insilico, not both" in message


@pytest.mark.parametrize(
    "content", [b"seed = ", b"[recordings", b"\xff\xfe\x00", b"a = 1\na = 2\n"]
)
def test_what_is_not_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    assert "is not valid TOML" in refused(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "absent.toml")
    assert "cannot read the configuration" in refused(tmp_path)


@pytest.mark.parametrize(
    ("name", "test"),
    [
        ("v4-quick", ("190923",)),
        ("v4-teacher", ("190923", "201025", "210325")),
        ("v4-compact", ("190923", "201025")),
    ],
)
def test_the_examples_are_valid_runs(
    monkeypatch: pytest.MonkeyPatch, name: str, test: tuple[str, ...]
) -> None:
    monkeypatch.setenv("POCKETCORTEX_DATA", "data")
    config = read_config(Path(__file__).parents[2] / "examples" / f"{name}.toml")
    assert config.recordings.test == test
    assert set(config.recordings.test).isdisjoint(config.recordings.train)
    assert config.recordings.path == "data/v4"
