"""Score one task-driven layer and one kind of map on one session."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from pocketcortex.core import InputError
from pocketcortex.data import read_recordings
from pocketcortex.mapping import (
    FactorizedMapping,
    PLSMapping,
    RidgeLOO,
    cross_val_predict_mapping,
)
from pocketcortex.pipeline.progress import progress_bar
from pocketcortex.pipeline.scores import medians, score_table
from pocketcortex.pipeline.teacher import flat
from pocketcortex.zoo import Backbone, FeatureStore

MAPPINGS = {"ridge": RidgeLOO, "factorized": FactorizedMapping, "pls": PLSMapping}


def score_mapping(
    recordings: str | Path,
    session: str,
    backbone: Backbone,
    mapping: str,
    *,
    n_folds: int = 8,
    seed: int = 0,
    features: str | Path | None = None,
) -> dict[str, Any]:
    """Return how well a mapping from a backbone's features predicts a session, as a JSON object.

    Predictions are nested cross-validated over all images (copies of one image stay in one fold):
    what the mapping chooses, it chooses inside each training fold. Nothing is held back for a later
    test, so choose layers on a session that nothing else is reported on.

    Parameters
    ----------
    recordings
        A V4 release or a folder of ``.npz`` sessions.
    session
        Its name.
    backbone
        Network and layers.
    mapping
        ``ridge``, ``factorized`` or ``pls``.
    n_folds
        Folds over images.
    seed
        Of the folds and of the bootstrap.
    features
        Folder that keeps the features; None for none.

    Raises
    ------
    InputError
        If the session, its images or the mapping do not exist, or no neuron can be scored.
    """
    if mapping not in MAPPINGS:
        raise InputError(f"mapping must be one of {', '.join(MAPPINGS)}; got {mapping!r}")
    recorded = read_recordings(recordings).select([session])[session]
    stimuli = recorded.require_stimuli()
    missing = np.isnan(recorded.mean_responses).any(axis=0)
    unusable = {int(k): "no response to some images" for k in np.flatnonzero(missing)}
    unusable |= recorded.unusable_neurons()
    usable = np.array([k for k in range(recorded.n_neurons) if k not in unusable], dtype=np.int64)
    if not len(usable):
        raise InputError(f"no neuron of session {session} can be scored: {unusable}")
    with tempfile.TemporaryDirectory() as temporary:
        store = FeatureStore(temporary if features is None else features)
        with progress_bar("features", len(stimuli)) as advance:
            maps = np.array(store.features(backbone, stimuli, advance=advance))
    x = np.asarray(maps, dtype=np.float32) if mapping == "factorized" else flat(maps)
    predicted = cross_val_predict_mapping(
        MAPPINGS[mapping](device=backbone.device.type), x, recorded.mean_responses[:, usable],
        n_folds=n_folds, rng=np.random.default_rng(seed),
        groups=np.array(stimuli.digests), recentre=True,
    )  # fmt: skip
    table = score_table(recorded, {mapping: predicted}, usable, unusable, seed)
    summary = medians(table, seed)
    return {
        "session": session,
        "layers": list(backbone.layers),
        "mapping": mapping,
        "n_folds": n_folds,
        "seed": seed,
        "n_stimuli": recorded.n_stimuli,
        "scores": {metric: models[mapping] for metric, models in summary.items()},
        "values": {
            str(metric): [
                None if np.isnan(v) else float(v) for v in rows.sort_values("neuron")["value"]
            ]
            for metric, rows in table.groupby("metric", sort=False)
        },
        "reasons": {str(k): why for k, why in unusable.items()},
    }
