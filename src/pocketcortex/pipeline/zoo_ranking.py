"""Scored networks ranked: leaderboards, pairwise tests, and what scores go with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pocketcortex.benchmark import (
    Correction,
    group_means,
    property_effect,
    rank_models,
    trained_minus_random,
)
from pocketcortex.core import InputError, RunFolder, in_brief, parse_json, provenance, write_json
from pocketcortex.core.tables import read_csv
from pocketcortex.pipeline.zoo_figures import draw_figures, write_zoo_report
from pocketcortex.pipeline.zoo_scored import METRICS, ScoredPair
from pocketcortex.pipeline.zoo_scores import SCORES, plain, write_table

GROUPS = ("family", "architecture", "task", "data")

_SUBSETS = ("trained", "random")


def rank_zoo(
    run: str | Path,
    *,
    correction: Correction = "holm",
    properties: str | Path | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Rank the networks of a folder that :func:`score_zoo` filled, and return the summary.

    Everything goes by the honest protocol. Regression is resampled over images and neurons
    together, the rest over images. Models of neurons that have seen an area's responses are listed
    after the others, without a rank, and enter no comparison. Fills ``rank``: ``leaderboard``,
    ``pairs``, ``trained_random``, ``properties``, ``groups`` and ``models`` as CSV, ``figures``,
    ``report.html``, ``summary.json``.

    Parameters
    ----------
    run
        Folder of scores; pairs that are unfinished or altered are left out.
    correction
        Of p, for the pairs of networks of one area and analysis.
    properties
        CSV file with a column ``model`` (the trained network's name does for its twins) and others:
        numbers are correlated with scores, words group them.
    seed
        Of draws of neurons and networks, and of permutations.

    Raises
    ------
    InputError
        If nothing is scored there, or the file of properties cannot be used.
    """
    folder = RunFolder(run)
    scored = read_scored(folder)
    extra = None if properties is None else _read_properties(Path(properties))
    out = folder.path / "rank"
    out.mkdir(exist_ok=True)
    parts: dict[str, list[pd.DataFrame]] = {
        name: []
        for name in ("leaderboard", "pairs", "trained_random", "properties", "groups", "models")
    }  # fmt: skip
    for area in dict.fromkeys(pair.area for pair in scored):
        for analysis in METRICS:
            own = [pair for pair in scored if pair.area == area and pair.score(analysis)]
            if own:
                found = _rank_area(own, area, analysis, correction, extra, seed)
                for name, table in found.items():
                    table.insert(0, "area", area)
                    table.insert(1, "analysis", analysis)
                    parts[name].append(table)
    if not parts["leaderboard"]:
        raise InputError(f"{run} holds no score to rank")
    tables = {name: pd.concat(p, ignore_index=True) for name, p in parts.items() if p}
    for name, table in tables.items():
        write_table(table, out, name)
    record = provenance(seed) | {"correction": correction, "run": str(run)}
    figures = draw_figures(scored, tables)
    write_zoo_report(out, figures, tables, record)
    summary = _summary(tables, out, seed, correction)
    write_json(out / "summary.json", summary)
    return summary


def read_scored(folder: RunFolder) -> list[ScoredPair]:
    """Return the finished pairs of a run, networks in the order in which they were asked for.

    Raises
    ------
    InputError
        If there is none.
    """
    paths = sorted((folder.path / SCORES).glob("*/*/manifest.json"))
    pairs = []
    for path in paths:
        name = path.parent.relative_to(folder.path).as_posix()
        if not name.endswith(".partial") and folder.finished(name):
            about = parse_json((path.parent / "about.json").read_text())
            pairs.append(ScoredPair(path.parent, about))
    if not pairs:
        raise InputError(
            f"{folder.path} holds no finished scores; make some with `pocketcortex zoo score`"
        )
    try:
        asked = parse_json((folder.path / "zoo.json").read_text())["models"]
        order = {model["name"]: place for place, model in enumerate(asked)}
    except (OSError, ValueError, KeyError, TypeError):
        order = {}
    return sorted(pairs, key=lambda p: (p.area, order.get(p.model, len(order)), p.model))


def _rank_area(
    pairs: Sequence[ScoredPair],
    area: str,
    analysis: str,
    correction: Correction,
    extra: pd.DataFrame | None,
    seed: int,
) -> dict[str, pd.DataFrame]:
    key = [seed, *area.encode()]
    rng = np.random.default_rng([*key, 300])
    rows = [pair.score(analysis) or {} for pair in pairs]
    names = [pair.model for pair in pairs]
    values = np.array([_number(row.get("value")) for row in rows])
    drawn = [pair.resampled(analysis, [*key, 301]) for pair in pairs]
    n_resamples = max((len(s) for s in drawn if s is not None), default=2)
    samples = np.full((n_resamples, len(pairs)), np.nan)
    for k, one in enumerate(drawn):
        if one is not None and len(one) == n_resamples:
            samples[:, k] = one
    shares = None
    if analysis == "regression":
        sizes = {len(pair.samples.get("contributions", ())) for pair in pairs}
        if len(sizes) == 1 and sizes != {0}:
            shares = np.stack([pair.samples["contributions"] for pair in pairs])
    fair = np.array([not pair.in_sample for pair in pairs])
    compared = np.where(fair, samples, np.nan)
    board, tests = rank_models(
        names, np.where(fair, values, np.nan), compared, rng=rng, contributions=shares,
        correction=correction,
    )  # fmt: skip
    models = _models(pairs, rows, extra)
    board = _with_unranked(board.merge(models.drop(columns="value"), on="model"), pairs, rows)
    of_model = dict(zip(names, values, strict=True))
    resampled = {
        name: compared[:, k] for k, name in enumerate(names) if np.isfinite(compared[:, k]).all()
    }
    twins = _twins(pairs, resampled)
    out = {"leaderboard": board, "pairs": tests, "models": models}
    if twins:
        out["trained_random"] = trained_minus_random(of_model, resampled, twins, rng=rng)
    out["properties"] = _property_table(models[fair], rng)
    out["groups"] = _group_table(models[fair], rng)
    return out


def _with_unranked(
    board: pd.DataFrame, pairs: Sequence[ScoredPair], rows: Sequence[Mapping[str, Any]]
) -> pd.DataFrame:
    """Return the leaderboard with the scores of models that are not ranked, and the reasons."""
    board = board.copy()
    for pair, row in zip(pairs, rows, strict=True):
        if pair.in_sample:
            own = board["model"] == pair.model
            for name in ("value", "ci_low", "ci_high"):
                board.loc[own, name] = _number(row.get(name))
            board.loc[own, "reason"] = f"not ranked: {pair.in_sample}"
    return board


def _models(
    pairs: Sequence[ScoredPair], rows: Sequence[Mapping[str, Any]], extra: pd.DataFrame | None
) -> pd.DataFrame:
    """Return score and properties of each network."""
    fields = ("name", "trained_name", "n_parameters", *GROUPS, "weights")
    table = pd.DataFrame([{f: pair.about["model"][f] for f in fields} for pair in pairs])
    table = table.rename(columns={"name": "model"})
    table["trained"] = ~table["weights"].str.startswith("random:")
    table["kind"] = [_kind(pair.about["model"]) for pair in pairs]
    table["in_sample"] = [pair.in_sample for pair in pairs]
    for name in ("value", "depth", "dimensionality", "ceiling", "null"):
        table[name] = [_number(row.get(name)) for row in rows]
    table = table.drop(columns="weights")
    if extra is None:
        return table
    by_name = extra.set_index("model")
    for name in by_name.columns:
        given = table["model"].map(by_name[name]).combine_first(
            table["trained_name"].map(by_name[name])
        )  # fmt: skip
        table[name] = given.combine_first(table[name]) if name in table else given
    return table


def _kind(model: Mapping[str, Any]) -> str:
    if str(model["weights"]).startswith("random:"):
        return "random"
    return "own" if str(model["source"]).startswith("own:") else "trained"


def _twins(
    pairs: Sequence[ScoredPair], resampled: Mapping[str, np.ndarray]
) -> dict[str, list[str]]:
    """Return the random twins of each trained network that has any."""
    found: dict[str, list[str]] = {}
    for pair in pairs:
        base = str(pair.about["model"]["trained_name"])
        if pair.model != base and pair.model in resampled and base in resampled:
            found.setdefault(base, []).append(pair.model)
    return found


def _property_table(models: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    numeric = [
        name
        for name in models.columns
        if pd.api.types.is_numeric_dtype(models[name])
        and name not in ("value", "ceiling", "null", "trained")
    ]
    rows = []
    for name in numeric:
        for subset in _SUBSETS:
            own = models[models["trained"] == (subset == "trained")]
            x = own[name].to_numpy(np.float64)
            log = name == "n_parameters" or name == "dimensionality"
            x = np.log10(np.where(x > 0, x, np.nan)) if log else x
            found = property_effect(x, own["value"].to_numpy(np.float64), rng=rng)
            rows.append({"property": f"log10 {name}" if log else name, "networks": subset, **found})
    return pd.DataFrame(rows)


def _group_table(models: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    trained = models[models["trained"]]
    words = [
        name
        for name in models.columns.drop(["model", "trained_name", "kind", "in_sample"])
        if not pd.api.types.is_numeric_dtype(models[name])
    ]
    parts = [
        group_means(
            ["" if pd.isna(word) else str(word) for word in trained[name]],
            trained["value"].to_numpy(np.float64), rng=rng,
        ).assign(property=name)
        for name in words
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _read_properties(path: Path) -> pd.DataFrame:
    try:
        table = read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the properties {path}: {in_brief(error)}") from error
    if "model" not in table or len(table.columns) < 2 or table["model"].duplicated().any():
        raise InputError(
            f"{path} must have a column model, each network once, and others; it has "
            f"{', '.join(map(str, table.columns))}"
        )
    return table


def _summary(
    tables: Mapping[str, pd.DataFrame], out: Path, seed: int, correction: str
) -> dict[str, Any]:
    board = tables["leaderboard"]
    kept = ["rank", "model", "value", "ci_low", "ci_high", "rank_low", "rank_high", "ceiling",
            "null", "depth", "as_good_as_best", "reason", "in_sample"]  # fmt: skip
    boards = {
        f"{area}, {analysis}": [plain(row) for row in part[kept].to_dict("records")]
        for (area, analysis), part in board.groupby(["area", "analysis"], sort=False)
    }
    compared = tables.get("trained_random", pd.DataFrame())
    return {
        "out": str(out), "seed": seed, "correction": correction, "leaderboards": boards,
        "trained_random": [plain(row) for row in compared.to_dict("records")],
        "properties": [plain(row) for row in tables["properties"].to_dict("records")],
        "groups": [plain(r) for r in tables.get("groups", pd.DataFrame()).to_dict("records")],
    }  # fmt: skip


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
