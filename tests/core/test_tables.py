"""Tables of comma-separated values."""

import time
from pathlib import Path

import pytest

from pocketcortex.core.tables import read_csv


def test_a_table_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("model,depth\nfirst,1\nsecond,2\n")
    assert read_csv(path)["depth"].tolist() == [1, 2]
    assert read_csv(path, dtype=str)["depth"].tolist() == ["1", "2"]


@pytest.mark.parametrize("n_more", [1, 9_000])
def test_a_row_longer_than_the_header_is_refused_at_once(tmp_path: Path, n_more: int) -> None:
    path = tmp_path / "t.csv"
    path.write_text("model,depth\nfirst,1" + ",2" * n_more + "\n")
    begun = time.monotonic()
    with pytest.raises(ValueError, match="more cells than the first line"):
        read_csv(path)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    "text", ["," * 100_000 + "\nfirst,1\n", "model,depth\nfirst" + ",1" * 10_000]
)
def test_endless_rows_are_refused_at_once(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    begun = time.monotonic()
    with pytest.raises(ValueError, match="over 10,000 cells"):
        read_csv(path)
    assert time.monotonic() - begun < 1


def test_many_rows_are_read_whatever_ends_them(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for end in ("\n", "\r\n", "\r"):
        path.write_bytes(f"model,depth{end}".encode() + f"first,1{end}".encode() * 20_000)
        assert len(read_csv(path)) == 20_000
