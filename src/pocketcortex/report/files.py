"""The tables that lie beside a report: every number that its figures draw, as CSV."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pocketcortex.plots import count_text
from pocketcortex.report.content import ReportContent

STAGES = ("layer 0", "layer 1", "layer 2", "layer 3", "layer 4", "readout")


def content_tables(content: ReportContent) -> Mapping[str, pd.DataFrame]:
    """Return the content's tables by file name, those left out of which it has no numbers.

    Parameters
    ----------
    content
        What a report shows.

    Returns
    -------
    Mapping[str, pd.DataFrame]
        ``medians``: one row a metric and model; ``parameters``: one row a model, NaN if not known;
        ``sizes``: one row a neuron and model; ``filters``: one row a compact model;
        ``causal_effects`` and ``causal_population``; ``family_scores``: one row a compact model.
    """
    tables: dict[str, pd.DataFrame] = {}
    if len(content.scores):
        tables["medians"] = medians(content)
    if content.parameters:
        known = {name: n for name, n in content.parameters.items() if count_text(n) != "–"}
        tables["parameters"] = pd.DataFrame(
            [(name, known.get(name, np.nan)) for name in content.parameters],
            columns=["model", "n_parameters"],
        )
    if content.sizes is not None:
        tables["sizes"] = content.sizes
    if content.filters is not None:
        tables["filters"] = pd.DataFrame(content.filters, columns=list(STAGES))
    if content.causal is not None:
        tables["causal_effects"], tables["causal_population"] = content.causal
    if content.family_scores is not None:
        tables["family_scores"] = pd.DataFrame(
            content.family_scores, columns=list(content.family_names)
        )
    return tables


def medians(content: ReportContent) -> pd.DataFrame:
    """Return the median of every model's scores with its interval, and of how many neurons.

    Parameters
    ----------
    content
        What a report shows.

    Returns
    -------
    pd.DataFrame
        ``metric``, ``model``, ``median``, ``ci_low``, ``ci_high`` (NaN if not computed),
        ``n_neurons`` with a score and ``n_without`` one.
    """
    rows = []
    for (metric, model), own in content.scores.groupby(["metric", "model"], sort=False):
        values = own["value"].astype("float64")
        interval = content.median_ci.get(str(metric), {}).get(str(model), (np.nan, np.nan))
        n = int(values.notna().sum())
        rows.append((metric, model, values.median(), *interval, n, len(own) - n))
    columns = ["metric", "model", "median", "ci_low", "ci_high", "n_neurons", "n_without"]
    return pd.DataFrame(rows, columns=columns)
