"""Every bad input is refused in words, and the page that lists them is current."""

from pathlib import Path

import pytest

from bad_inputs import CASES, PAGE, BadInput, answer, page


@pytest.mark.parametrize("bad", CASES, ids=[f"{bad.kind}: {bad.what}" for bad in CASES])
def test_a_bad_input_is_refused_in_words(bad: BadInput, tmp_path: Path) -> None:
    said = answer(bad, tmp_path)
    assert said != "accepted"
    assert 20 < len(said) < 700
    assert "Traceback" not in said
    assert str(tmp_path) not in said


def test_the_page_of_bad_inputs_is_current() -> None:
    assert PAGE.read_text() == page(), "write it anew: python tests/bad_inputs.py"


def test_inputs_are_told_apart() -> None:
    assert len({(bad.kind, bad.what) for bad in CASES}) == len(CASES)
