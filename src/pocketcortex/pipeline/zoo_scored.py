"""A network scored on an area, as its finished folder holds it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64

from pocketcortex.benchmark import neuron_draws
from pocketcortex.pipeline.zoo_scores import plain

METRICS = {"regression": "pearson r", "rsa": "rsa", "rsr": "rsr pearson"}
"""What is ranked, by analysis; the honest protocol."""


@dataclass(frozen=True, eq=False)
class ScoredPair:
    """One finished folder of a network and an area.

    Attributes
    ----------
    folder
        Where it lies.
    about
        What the network and the area are.
    """

    folder: Path
    about: Mapping[str, Any]

    @property
    def area(self) -> str:
        """Id of the area."""
        return str(self.about["area"]["id"])

    @property
    def model(self) -> str:
        """Name of the network."""
        return str(self.about["model"]["name"])

    @property
    def in_sample(self) -> str:
        """Why its scores are no fair comparison, "" if they are."""
        return str(self.about.get("in_sample", ""))

    @cached_property
    def table(self) -> pd.DataFrame:
        """Its scores."""
        return pd.read_parquet(self.folder / "scores.parquet")

    @cached_property
    def layers(self) -> pd.DataFrame:
        """Its layers."""
        return pd.read_parquet(self.folder / "layers.parquet")

    @cached_property
    def samples(self) -> dict[str, np.ndarray]:
        """What rankings resample."""
        with np.load(self.folder / "samples.npz", allow_pickle=False) as file:
            return {name: file[name] for name in file.files}

    def score(self, analysis: str) -> dict[str, Any] | None:
        """Return the honest row over the area's neurons or of its matrix; None if not scored."""
        rows = self.table[
            (self.table["analysis"] == analysis)
            & (self.table["protocol"] == "honest")
            & self.table["metric"].str.startswith(METRICS[analysis])
            & self.table["statistic"].isin(["mean", "area"])
        ]
        return None if rows.empty else plain(rows.iloc[0].to_dict())

    def resampled(
        self, analysis: str, draws: Sequence[int]
    ) -> Float64[np.ndarray, " n_resamples"] | None:
        """Return the score in each resample; of regression, of the neurons drawn in it."""
        if analysis != "regression":
            return self.samples.get(analysis)
        r = self.samples.get("r")
        if r is None:
            return None
        chosen = neuron_draws(r.shape[1], len(r), np.random.default_rng(draws))
        return _nan_mean(np.take_along_axis(r, chosen, axis=1))


def _nan_mean(values: Float64[np.ndarray, "n m"]) -> Float64[np.ndarray, " n"]:
    known = np.isfinite(values)
    count = known.sum(axis=1)
    return np.asarray(np.where(known, values, 0).sum(axis=1) / np.where(count > 0, count, np.nan))
