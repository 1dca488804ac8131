"""Tables from users' text files."""

import warnings
from pathlib import Path
from typing import Any

import pandas as pd

_MAX_CELLS = 10_000


def read_csv(path: Path, **how: Any) -> pd.DataFrame:
    """Return a table of comma-separated values whose first line names the columns.

    Parameters
    ----------
    path
        The file.
    **how
        Further arguments of `pandas.read_csv`.

    Raises
    ------
    ValueError
        If it is no such table, or a row has more cells than the first line, which pandas would
        take for an index of as many levels, or over 10,000, over which it would take seconds.
    OSError
        If it cannot be read.
    """
    with path.open(encoding="latin-1") as lines:
        if any(line.count(",") >= _MAX_CELLS for line in lines):
            raise ValueError(f"a row has over {_MAX_CELLS:,} cells")
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            table: pd.DataFrame = pd.read_csv(path, index_col=False, **how)
        except pd.errors.ParserWarning as warning:
            raise ValueError("a row has more cells than the first line names") from warning
    return table
