"""`ReportContent`: finished numbers, and how they came about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, UInt8

from pocketcortex.core import InputError
from pocketcortex.plots import (
    CompactWeights,
    LayerCurves,
    Leaderboard,
    PropertyScatter,
    TrainedRandom,
)

SCORE_COLUMNS = (
    "session", "neuron", "model", "metric", "value", "ci_low", "ci_high", "n_stimuli", "reason",
)  # fmt: skip

Tile = tuple[str, str | int | float | None, str]


@dataclass(frozen=True, eq=False, repr=False)
class ZooPanels:
    """What is drawn of networks ranked on one area by one analysis.

    Attributes
    ----------
    name
        Area and analysis.
    board, curves
        Scores of networks, and of their layers.
    pairs
        Trained networks beside random ones; None if there are no twins.
    scatters
        Scores against properties.
    """

    name: str
    board: Leaderboard
    curves: LayerCurves
    pairs: TrainedRandom | None = None
    scatters: Sequence[PropertyScatter] = ()


@dataclass(frozen=True, eq=False, repr=False)
class ReportTable:
    """A table as it stands, numbers to three decimals.

    Attributes
    ----------
    heading
        What it is.
    table
        Its columns and rows.
    note
        Written below it.
    """

    heading: str
    table: pd.DataFrame
    note: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class ReportContent:
    """Everything a report shows; nothing is computed from it but medians that figures mark.

    Parameters
    ----------
    title, subtitle
        What the run is, and its data in a few words.
    headline
        The few numbers that matter: label, value, and a note with n and unit. A value of None or
        NaN is shown as a dash, and the note must then say why there is none.
    scores
        One row per session, neuron, model and metric: the score, its interval, the number of
        stimuli behind it, and, where the score is NaN, the reason.
    parameters
        Model name to number of parameters; for one model per neuron, the median.
    sizes
        One row per session, neuron and model of its own: ``n_parameters``; None for none.
    filters
        Filters of every compact model in six stages: layer 0's kernels, the depthwise kernels of
        layers 1 to 4, spatial readouts.
    galleries
        Name of a kind of stimulus to one image per neuron of `neuron_labels`. Two kinds are
        shown as pairs.
    neuron_labels
        Names of the neurons of the galleries, in their order.
    weights
        The compact model to show in full; None to leave it out.
    methods
        Sentences that say how each number was computed.
    provenance
        Versions, seeds, hashes, inputs; nested values are written as JSON.
    median_ci
        Metric to model to the interval of that model's median over neurons, as drawn in the
        figures; whatever is absent is not drawn.
    gallery_notes
        Name of a kind of stimulus to how it was found, for its caption.
    groups
        Order and group of the neurons of the galleries, by how alike they answer.
    adversarial, smoothed
        What `plots.figure_adversarial` and `plots.figure_saliency` draw, by argument; None to
        leave it out.
    causal
        Effects on every neuron and over neurons, as `plots.figure_causal` draws them.
    stimuli_notes
        How the images of ``adversarial``, ``smoothed`` and ``causal`` came about, for captions.
    families, circuit
        What `plots.figure_families` and `plots.figure_circuit` draw, by argument; None to leave
        them out.
    family_scores, family_names
        Each neuron's response to the best stimulus of each family, over that to the best of all,
        and the families' names; None to leave them out.
    zoo
        Networks ranked on areas.
    tables
        Further tables, shown in this order.

    Raises
    ------
    InputError
        If a column of the scores is missing, a neuron has two scores for one model and metric, a
        missing number has no reason, or a gallery's images and the labels differ in number.
    """

    title: str
    subtitle: str
    headline: Sequence[Tile]
    scores: pd.DataFrame
    parameters: Mapping[str, int | float] = field(default_factory=dict)
    sizes: pd.DataFrame | None = None
    filters: Int[np.ndarray, "_ 6"] | None = None
    galleries: Mapping[str, UInt8[np.ndarray, "_ 3 _ _"]] = field(default_factory=dict)
    neuron_labels: Sequence[str] = ()
    weights: CompactWeights | None = None
    methods: Sequence[str] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    median_ci: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)
    gallery_notes: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[Int[np.ndarray, " _"], Int[np.ndarray, " _"]] | None = None
    adversarial: Mapping[str, Any] | None = None
    smoothed: Mapping[str, Any] | None = None
    causal: tuple[pd.DataFrame, pd.DataFrame] | None = None
    stimuli_notes: Mapping[str, str] = field(default_factory=dict)
    families: Mapping[str, Any] | None = None
    family_scores: Float[np.ndarray, "_ _"] | None = None
    family_names: Sequence[str] = ()
    circuit: Mapping[str, Any] | None = None
    zoo: Sequence[ZooPanels] = ()
    tables: Sequence[ReportTable] = ()

    def __post_init__(self) -> None:
        for label, value, note in self.headline:
            if is_missing(value) and not note:
                raise InputError(f"headline {label!r} has no value; its note must say why")
        missing = [name for name in SCORE_COLUMNS if name not in self.scores.columns]
        if missing:
            raise InputError(
                f"scores lack the column{'s' * (len(missing) > 1)} {', '.join(missing)}; "
                f"they need {', '.join(SCORE_COLUMNS)}"
            )
        keys = self.scores[["session", "neuron", "model", "metric"]]
        if keys.duplicated().any():
            twice = keys[keys.duplicated()].iloc[0].to_dict()
            raise InputError(f"scores hold two rows for {twice}; keep one")
        told = np.array([has_text(reason) for reason in self.scores["reason"]], dtype=bool)
        unexplained = self.scores["value"].isna().to_numpy() & ~told
        if unexplained.any():
            which = keys[unexplained].iloc[0].to_dict()
            raise InputError(f"the score of {which} is missing and has no reason; say why")
        for name, images in self.galleries.items():
            if len(images) != len(self.neuron_labels):
                raise InputError(
                    f"gallery {name!r} holds {len(images)} images for "
                    f"{len(self.neuron_labels)} neuron labels; give one image a neuron"
                )

    def __repr__(self) -> str:
        return (
            f"ReportContent({self.title!r}, {len(self.scores)} scores, "
            f"{len(self.galleries)} galleries)"
        )


def is_missing(value: object) -> bool:
    """Return whether a single value is None, NaN or pandas' NA."""
    if value is None or value is pd.NA:
        return True
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def has_text(value: object) -> bool:
    """Return whether a cell holds any text: neither missing nor blank."""
    return not is_missing(value) and bool(str(value).strip())
