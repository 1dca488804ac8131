"""A zoo's ranking and layer curves, read from the folder that scored and ranked it."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from pocketcortex.core import InputError, in_brief

_CURVES = {"regression": "r", "rsa": "rsa"}
"""Column of the layers' table that an analysis ranks networks by."""
_COLUMNS = ("rank", "model", "value", "ci_low", "ci_high", "reason", "kind", "n_parameters",
            "architecture", "task", "data", "depth", "ceiling", "as_good_as_best")  # fmt: skip


def is_zoo(path: Path) -> bool:
    """Return whether a folder holds scores of networks."""
    return (path / "zoo.json").is_file() and (path / "scores").is_dir()


def read_zoo(run: Path) -> dict[str, Any]:
    """Return every leaderboard with its layer curves, ready for JSON.

    Parameters
    ----------
    run
        Folder of ``pocketcortex zoo score``, ranked by ``pocketcortex zoo rank``.

    Returns
    -------
    ``boards``: one an area and analysis, with ``rows`` (best first) and ``curves`` (depth and score
    of every layer; none for analyses that have no score a layer), and ``python`` that draws it.

    Raises
    ------
    InputError
        If it is not ranked, or a table cannot be read.
    """
    import pandas as pd

    path = run / "rank" / "leaderboard.parquet"
    if not path.is_file():
        raise InputError(f"{run} is not ranked yet; run: pocketcortex zoo rank {run}")
    try:
        table = pd.read_parquet(path)
        curves = _curves(run)
        boards = [
            {
                "area": str(area), "analysis": str(analysis), "metric": _metric(str(analysis)),
                "rows": [_row(row) for row in own.to_dict("records")],
                "curves": curves.get((str(area), str(analysis)), []),
                "python": _python(run, str(area), str(analysis)),
            }
            for (area, analysis), own in table.groupby(["area", "analysis"], sort=False)
        ]  # fmt: skip
    except (OSError, LookupError, ValueError, TypeError) as error:
        raise InputError(f"the tables of {run} cannot be read ({in_brief(error)})") from error
    return {"title": run.resolve().name, "boards": boards}


def _python(run: Path, area: str, analysis: str) -> str:
    """Return Python that draws one leaderboard and its layer curves again."""
    board = (
        "from pathlib import Path\nimport pandas as pd\n"
        "from pocketcortex.plots import Leaderboard, plot_leaderboard\n"
        f"run, area, metric = Path({str(run)!r}), {area!r}, {_metric(analysis)!r}\n"
        "board = pd.read_parquet(run / 'rank' / 'leaderboard.parquet')\n"
        f"board = board[(board['area'] == area) & (board['analysis'] == {analysis!r})]\n"
        "ranking = plot_leaderboard(Leaderboard(\n"
        "    area, metric, list(board['model']), board['value'].to_numpy(float),\n"
        "    board[['ci_low', 'ci_high']].to_numpy(float), list(board['kind'])))\n"
    )
    if analysis not in _CURVES:
        return board
    return board + (
        "import json\nfrom pocketcortex.plots import LayerCurves, plot_layer_curves\n"
        "curves = {}\n"
        "for about in run.glob('scores/*/*/about.json'):\n"
        "    told = json.loads(about.read_text())\n"
        "    if told['area']['id'] == area and (about.parent / 'manifest.json').exists():\n"
        "        layers = pd.read_parquet(about.parent / 'layers.parquet')\n"
        f"        curves[told['model']['name']] = tuple(layers[['depth', {_CURVES[analysis]!r}]]"
        ".to_numpy(float).T)\n"
        "layers = plot_layer_curves(LayerCurves(area, metric, curves))\n"
    )


def _curves(run: Path) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return the layer curves of every network, by area and analysis."""
    import pandas as pd

    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for path in sorted(run.glob("scores/*/*/layers.parquet")):
        if not (path.parent / "manifest.json").is_file() or path.parent.name.endswith(".partial"):
            continue
        about = json.loads((path.parent / "about.json").read_text())
        table = pd.read_parquet(path)
        for analysis, column in _CURVES.items():
            if column in table and table[column].notna().any():
                found.setdefault((str(about["area"]["id"]), analysis), []).append({
                    "model": str(about["model"]["name"]),
                    "layers": [str(name) for name in table["layer"]],
                    "depth": [_plain(value) for value in table["depth"]],
                    "value": [_plain(value) for value in table[column]],
                })  # fmt: skip
    return found


def _metric(analysis: str) -> str:
    return {"regression": "r, held out", "rsa": "correlation of matrices"}.get(
        analysis, "correlation with predicted matrix"
    )


def _row(row: dict[Any, Any]) -> dict[str, Any]:
    return {name: _plain(row.get(name)) for name in _COLUMNS}


def _plain(value: Any) -> Any:
    """Return a cell as JSON has it: None where there is none."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return None
    return value if isinstance(value, bool | int | float | str) else str(value)
