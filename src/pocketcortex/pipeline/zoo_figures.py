"""What the ranking of a zoo shows: numbers handed to the figures, and its report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pocketcortex.pipeline.zoo_scored import ScoredPair
from pocketcortex.plots import (
    IN_SAMPLE,
    LayerCurves,
    Leaderboard,
    PropertyScatter,
    TrainedRandom,
)
from pocketcortex.report import ReportContent, ReportTable, ZooPanels, write_report

LABELS = {
    "regression": "Pearson's r, mean over neurons",
    "rsa": "similarity of dissimilarity matrices",
    "rsr": "Pearson's r of predicted dissimilarities",
}
"""Of the axes, by analysis."""

_PROPERTIES = {
    "n_parameters": ("parameters", True),
    "depth": ("relative depth, chosen layer", False),
    "dimensionality": ("effective dimensionality, chosen layer", False),
}
_LAYER_COLUMN = {"regression": "r", "rsa": "rsa"}


def draw_figures(
    scored: Sequence[ScoredPair], tables: Mapping[str, pd.DataFrame]
) -> list[ZooPanels]:
    """Return what is drawn of each area and analysis, in order."""
    return [
        _panels(str(area), str(analysis), board, scored, tables)
        for (area, analysis), board in tables["leaderboard"].groupby(
            ["area", "analysis"], sort=False
        )
        if analysis in _LAYER_COLUMN and board["value"].notna().any()
    ]


def write_zoo_report(
    out: Path,
    panels: Sequence[ZooPanels],
    tables: Mapping[str, pd.DataFrame],
    record: Mapping[str, Any],
) -> None:
    """Write ``report.html``, with a figure for each area and analysis in ``figures``."""
    board = tables["leaderboard"]
    write_report(
        ReportContent(
            title="Networks ranked against recordings",
            subtitle=(
                f"{_counted(board['model'].nunique(), 'network')}, "
                f"{_counted(board['area'].nunique(), 'area')}, seed {record['seed']}"
            ),
            headline=_headline(tables),
            scores=pd.DataFrame(columns=_SCORE_COLUMNS),
            methods=_METHODS,
            provenance=record,
            zoo=panels,
            tables=_report_tables(tables),
        ),
        out / "report.html",
    )


def _panels(
    area: str,
    analysis: str,
    board: pd.DataFrame,
    scored: Sequence[ScoredPair],
    tables: Mapping[str, pd.DataFrame],
) -> ZooPanels:
    own = {pair.model: pair for pair in scored if pair.area == area}
    label = LABELS[analysis]
    ceilings = board["ceiling"].dropna()
    drawn = Leaderboard(
        f"{area}, {analysis}\n(honest protocol, 95 % intervals)", label, board["model"].tolist(),
        board["value"].to_numpy(np.float64),
        board[["ci_low", "ci_high"]].to_numpy(np.float64),
        board["kind"].where(board["in_sample"] == "", IN_SAMPLE).tolist(),
        float(ceilings.median()) if len(ceilings) else None,
    )  # fmt: skip
    curves, random = _curves(own, board, _LAYER_COLUMN[analysis])
    compared = tables.get("trained_random")
    pairs = None
    if compared is not None:
        rows = compared[(compared["area"] == area) & (compared["analysis"] == analysis)]
        pairs = _trained_random(rows, board, area, label) if len(rows) else None
    effects = tables["properties"]
    effects = effects[(effects["area"] == area) & (effects["analysis"] == analysis)]
    fair = board[board["in_sample"] == ""]
    scatters = [
        PropertyScatter(
            text, label,
            fair["model"].tolist() if name == "n_parameters" else [""] * len(fair),
            fair[name].to_numpy(np.float64), fair["value"].to_numpy(np.float64),
            fair["kind"].tolist(),
            _effect_text(effects, name), log,
        )
        for name, (text, log) in _PROPERTIES.items()
    ]  # fmt: skip
    return ZooPanels(
        f"{area} {analysis}", drawn, LayerCurves("layers, each by itself", label, curves, random),
        pairs, scatters,
    )  # fmt: skip


def _curves(own: Mapping[str, ScoredPair], board: pd.DataFrame, column: str) -> tuple[Any, Any]:
    curves: dict[str, Any] = {}
    random: dict[str, list[Any]] = {}
    for row in board.to_dict("records"):
        layers = own[row["model"]].layers
        if column not in layers or row["in_sample"]:
            continue
        known = layers[layers[column].notna()]
        curve = (known["depth"].to_numpy(np.float64), known[column].to_numpy(np.float64))
        if row["trained"]:
            curves[row["model"]] = curve
        else:
            random.setdefault(row["trained_name"], []).append(curve)
    return curves, {name: twins for name, twins in random.items() if name in curves}


def _trained_random(
    rows: pd.DataFrame, board: pd.DataFrame, area: str, label: str
) -> TrainedRandom:
    each = rows[rows["model"] != "(all)"].sort_values("trained", ascending=False)
    whole = rows[rows["model"] == "(all)"].iloc[0]
    by_name = board.set_index("model")
    random = [
        board[~board["trained"] & (board["trained_name"] == name)]["value"].to_numpy(np.float64)
        for name in each["model"]
    ]
    note = (
        f"trained − random: {whole['difference']:+.3f} ({whole['ci_low']:+.3f} to "
        f"{whole['ci_high']:+.3f})"
        + (f",\nmean of {int(whole['n_networks'])} networks" if whole["n_networks"] > 1 else "")
    )
    note = _signed(note)
    return TrainedRandom(
        "", label, each["model"].tolist(), each["trained"].to_numpy(np.float64),
        by_name.loc[each["model"], ["ci_low", "ci_high"]].to_numpy(np.float64), random, note,
    )  # fmt: skip


def _effect_text(effects: pd.DataFrame, name: str) -> str:
    told = []
    own = effects["property"].isin([name, f"log10 {name}"])
    for row in effects[own].to_dict("records"):
        if np.isfinite(row["spearman"]):
            told.append(
                f"{row['networks']}: ρ = {row['spearman']:+.2f} ({row['ci_low']:+.2f} to "
                f"{row['ci_high']:+.2f}), n = {row['n_networks']}"
            )
    return _signed("\n".join(told))


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _signed(numbers: str) -> str:
    """Return numbers with minus signs where they have hyphens."""
    return numbers.replace("-", "−")


def _headline(tables: Mapping[str, pd.DataFrame]) -> list[tuple[str, Any, str]]:
    tiles: list[tuple[str, Any, str]] = []
    board = tables["leaderboard"]
    for (area, analysis), part in list(board.groupby(["area", "analysis"], sort=False))[:3]:
        best = part.iloc[0]
        value = None if pd.isna(best["value"]) else float(best["value"])
        note = _signed(f"{best['ci_low']:.3f} to {best['ci_high']:.3f}") + f"; {area}, {analysis}"
        tiles.append(
            (f"best: {best['model']}", value, note if value is not None else best["reason"])
        )
    compared = tables.get("trained_random")
    if compared is not None:
        for row in compared[compared["model"] == "(all)"].to_dict("records")[:3]:
            tiles.append(
                (
                    f"trained − random, {row['area']}, {row['analysis']}",
                    _signed(f"{row['difference']:+.3f}"),
                    _signed(f"{row['ci_low']:+.3f} to {row['ci_high']:+.3f}")
                    + f", {_counted(row['n_networks'], 'network')}",
                )
            )
    return tiles


_SCORE_COLUMNS = [
    "session", "neuron", "model", "metric", "value", "ci_low", "ci_high", "n_stimuli", "reason",
]  # fmt: skip


def _report_tables(tables: Mapping[str, pd.DataFrame]) -> list[ReportTable]:
    wanted = {
        "leaderboard": (
            "Leaderboards",
            ["area", "analysis", "rank", "model", "value", "ci_low", "ci_high", "rank_low",
             "rank_high", "ceiling", "null", "depth", "as_good_as_best", "reason"],
            "Rank with its interval; as good as the best: not told apart from it after correction. "
            "Without a rank: models of neurons made with the responses that they are scored on.",
        ),
        "trained_random": (
            "Trained against random weights",
            ["area", "analysis", "model", "trained", "random", "n_seeds", "difference", "ci_low",
             "ci_high", "p", "networks_low", "networks_high", "p_networks"],
            "ci: other images (and neurons), these networks; networks: other networks as well.",
        ),
        "properties": (
            "What scores go with",
            ["area", "analysis", "property", "networks", "n_networks", "spearman", "ci_low",
             "ci_high", "p", "slope", "slope_low", "slope_high", "reason"],
            "Over networks, which are no independent sample: relatives share architectures.",
        ),
        "groups": (
            "Families, tasks and data (trained networks)",
            ["area", "analysis", "property", "group", "n_networks", "mean", "ci_low", "ci_high",
             "reason"],
            "Intervals over networks.",
        ),
        "pairs": (
            "Every two networks",
            ["area", "analysis", "first", "second", "difference", "ci_low", "ci_high", "p",
             "p_corrected", "p_permutation", "p_permutation_corrected"],
            "p from resamples of images (and neurons); by permutation: predictions of an image "
            "exchanged between the two networks.",
        ),
    }  # fmt: skip
    out = []
    for name, (heading, columns, note) in wanted.items():
        table = tables.get(name)
        if table is not None and len(table):
            out.append(ReportTable(heading, table.reindex(columns=columns), note))
    return out


_METHODS = [
    "Honest protocol. Regression: images are dealt into folds; penalty and layer are chosen for "
    "each neuron outside a fold, by exact leave-one-out error, and reported on the fold. RSA: the "
    "layer is chosen on one random half of the images and reported on the other, averaged over "
    "halvings. Scores of noise are 0 on average; the null is measured with images permuted.",
    "Intervals: 95 % percentile bootstrap over images within folds, and for means over neurons "
    "over neurons too, which counts the noise of single responses twice and is rather too wide. "
    "RSA: over images, pairs of copies left out; too wide likewise.",
    "All networks of an area share folds, halves and draws, so that differences are taken draw by "
    "draw. p is corrected within each area and analysis.",
    "Noise ceilings: regression, square root of the Spearman-Brown corrected reliability of single "
    "neurons, averaged; RSA, the same of matrices from halves of repeats, the upper bound over "
    "subjects, or as published.",
]
