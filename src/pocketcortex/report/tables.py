"""Rows of text for the report's tables; a missing number is a dash with its reason."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pocketcortex.report.content import ReportTable, Tile, has_text, is_missing

DASH = "–"
_METRICS = {
    "noise_corrected_r2": "noise-corrected r²",
    "brainscore_r2": "noise-corrected r² (split halves)",
    "pearson_r2": "r² (not noise-corrected)",
}


@dataclass(frozen=True)
class ScoreCell:
    """A score as written: value, interval, how far a bar of it reaches, or why there is none."""

    value: str
    interval: str
    bar_percent: float
    reason: str


@dataclass(frozen=True)
class ScoreRow:
    """One neuron's scores under all models."""

    session: str
    neuron: str
    n_stimuli: str
    cells: tuple[ScoreCell, ...]


@dataclass(frozen=True)
class ScoreTable:
    """All neurons' scores of one metric, models in columns."""

    metric: str
    label: str
    models: tuple[str, ...]
    rows: tuple[ScoreRow, ...]


def metric_label(metric: str) -> str:
    """Return a metric's name as readers know it."""
    return _METRICS.get(metric, re.sub(r"\br2\b", "r²", metric.replace("_", " ")))


def score_tables(scores: pd.DataFrame) -> tuple[ScoreTable, ...]:
    """Return one table per metric, neurons by session and number, models in order of appearance.

    Parameters
    ----------
    scores
        As `ReportContent.scores`.
    """
    tables = []
    for metric, of_metric in scores.groupby("metric", sort=False):
        models = tuple(str(model) for model in of_metric["model"].unique())
        grouped = of_metric.groupby(["session", "neuron"], sort=True, dropna=False)
        rows = tuple(_score_row(of_neuron, models) for _, of_neuron in grouped)
        tables.append(ScoreTable(str(metric), metric_label(str(metric)), models, rows))
    return tuple(tables)


def table_rows(given: ReportTable) -> tuple[str, list[str], list[list[str]], str]:
    """Return a table's heading, column names, cells as text, and note."""
    columns = [str(name).replace("_", " ") for name in given.table.columns]
    rows = [[_cell_text(value) for value in row] for row in given.table.itertuples(index=False)]
    return given.heading, columns, rows, given.note


def tile_text(tile: Tile) -> tuple[str, str, str]:
    """Return a headline tile's label, value and note as text."""
    label, value, note = tile
    if is_missing(value):
        return label, DASH, note
    if isinstance(value, float | np.floating):
        return label, f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}", note
    return label, f"{value:,}" if isinstance(value, int) else str(value), note


def provenance_rows(provenance: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return the provenance as name and text, nested values as JSON."""
    rows = []
    for name, value in provenance.items():
        if is_missing(value):
            text = f"{DASH} (not recorded)"
        elif isinstance(value, str | int | float | np.number):
            text = str(value)
        else:
            text = json.dumps(value, ensure_ascii=False, default=str)
        rows.append((str(name), text))
    return tuple(rows)


def _cell_text(value: Any) -> str:
    if is_missing(value):
        return DASH
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        number = float(value)
        return f"{number:.3g}" if 0 < abs(number) < 0.001 else f"{number:.3f}"
    return f"{value:,}" if isinstance(value, int | np.integer) else str(value)


def _score_row(of_neuron: pd.DataFrame, models: tuple[str, ...]) -> ScoreRow:
    by_model = {str(row["model"]): row for row in of_neuron.to_dict("records")}
    session, neuron = of_neuron.iloc[0][["session", "neuron"]]
    used = {_whole(row["n_stimuli"]) for row in by_model.values()}
    n_stimuli = " / ".join(sorted(used, key=lambda text: (len(text), text)))
    cells = tuple(_score_cell(by_model.get(model)) for model in models)
    return ScoreRow(str(session), str(neuron), n_stimuli, cells)


def _score_cell(row: Mapping[Any, Any] | None) -> ScoreCell:
    if row is None:
        return ScoreCell(DASH, "", 0.0, "not scored")
    if is_missing(row["value"]):
        return ScoreCell(DASH, "", 0.0, str(row["reason"]))
    value = float(row["value"])
    low, high = row["ci_low"], row["ci_high"]
    interval = "" if is_missing(low) or is_missing(high) else f"{low:.3f} to {high:.3f}"
    remark = str(row["reason"]) if has_text(row["reason"]) else ""
    return ScoreCell(f"{value:.3f}", interval, round(100 * min(max(value, 0.0), 1.0), 1), remark)


def _whole(count: Any) -> str:
    return DASH if is_missing(count) else f"{int(count):,}"
