"""What the pages tell a user to write does what they say."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketcortex.data import read_recordings
from pocketcortex.pipeline import RunConfig, read_config
from pocketcortex.pipeline.inputs import prepare_inputs

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def blocks(page: str, language: str) -> list[str]:
    """Return the code of a page's fenced blocks."""
    text = (DOCS / page).read_text("utf-8")
    return re.findall(rf"^```{language}[^\n]*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["your-data.md", "configuration.md"])
def test_configurations_in_pages_are_valid(page: str) -> None:
    found = blocks(page, "toml")
    assert found
    for block in found:
        assert RunConfig.model_validate(tomllib.loads(block)).recordings.path == "recordings"


def test_first_run_is_valid_and_needs_no_file() -> None:
    config = read_config(ROOT / "examples" / "first.toml")
    assert config.recordings.insilico is not None
    assert not config.students.banks
    assert len(prepare_inputs(config.recordings, 3).train) == 1


def test_a_folder_and_an_array_become_sessions_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for k, levels in enumerate(rng.integers(0, 256, (300, 8, 8, 3), dtype=np.uint8), start=1):
        Image.fromarray(levels).save(tmp_path / "images" / f"image{k:04d}.png")
    np.save("spike_counts.npy", rng.poisson(3.0, (4, 300, 5)).astype(float))
    make, split, _ = blocks("your-data.md", "python")
    exec(make, {})  # noqa: S102 - the repository's own page
    exec(split, {})  # noqa: S102 - by itself: whoever comes back another day
    (tmp_path / "recordings" / "day1.npz").unlink()
    assert {name: len(s.stimuli) for name, s in read_recordings(tmp_path / "recordings").items()
            if s.stimuli is not None} == {
        "day1-train": 120, "day1-validation": 45, "day1-test": 135,
    }  # fmt: skip
    config = RunConfig.model_validate(tomllib.loads(blocks("your-data.md", "toml")[0]))
    inputs = prepare_inputs(config.recordings, 1)
    assert [s.id for s in inputs.train] == ["day1-train"]
    assert inputs.validation.id == "day1-validation"
    (test,) = inputs.tests
    assert (test.fit.n_stimuli, test.held_out.n_stimuli, len(test.usable)) == (67, 68, 4)


def test_every_link_between_pages_leads_somewhere() -> None:
    pages = [*DOCS.rglob("*.md")]
    missing = []
    for page in pages:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            generated = re.fullmatch(r"(\.\./)*api/\w+\.md", link)
            if not generated and not (page.parent / link).exists():
                missing.append(f"{page.relative_to(DOCS)}: {link}")
    assert not missing
