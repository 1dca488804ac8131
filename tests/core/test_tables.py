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


@pytest.mark.parametrize("n_more", [1, 100_000])
def test_a_row_longer_than_the_header_is_refused_at_once(tmp_path: Path, n_more: int) -> None:
    path = tmp_path / "t.csv"
    path.write_text("model,depth\nfirst,1" + ",2" * n_more + "\n")
    begun = time.monotonic()
    with pytest.raises(ValueError, match="more cells than the first line"):
        read_csv(path)
    assert time.monotonic() - begun < 5
