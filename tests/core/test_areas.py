"""`BrainArea`: what it refuses, and what is left of it after taking a part."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist, squareform

from pocketcortex.core import BrainArea, InputError, Session, StimulusSet

N_STIMULI, N_NEURONS = 6, 4


def make_stimuli(n: int = N_STIMULI) -> StimulusSet:
    rng = np.random.default_rng(0)
    return StimulusSet.from_array(rng.integers(0, 256, (n, 3, 4, 4), dtype=np.uint8))


def make_rdm(n: int = N_STIMULI) -> np.ndarray:
    return squareform(pdist(np.random.default_rng(1).normal(size=(n, 9)), "correlation"))


def make_area(**changes: Any) -> BrainArea:
    stimuli = make_stimuli()
    responses = np.random.default_rng(2).normal(size=(N_STIMULI, 3, N_NEURONS))
    cells = pd.DataFrame({"depth_um": [1, 2, 3, 4], "reliability": [0.9, 0.4, np.nan, 0.8]})
    fields: dict[str, Any] = {
        "id": "a",
        "stimuli": stimuli,
        "session": Session("s", responses, stimuli),
        "rdms": make_rdm(),
        "cells": cells,
        "held_out": np.array([False, False, True, False, False, True]),
        "rdm_ceiling": 0.8,
    }
    return BrainArea(**(fields | changes))


def test_counts_and_repr() -> None:
    area = make_area()
    assert (area.n_stimuli, area.n_neurons) == (6, 4)
    assert repr(area) == "BrainArea('a': 4 neurons, 6 images, 1 dissimilarity matrix)"
    two = BrainArea("b", make_stimuli(), rdms=np.stack([make_rdm(), make_rdm()]))
    assert repr(two) == "BrainArea('b': 6 images, 2 dissimilarity matrices)"
    assert two.n_neurons == 0


def test_one_matrix_becomes_that_of_one_subject() -> None:
    rdm = make_rdm().astype(np.float32)
    rdm = (rdm + rdm.T) / 2
    area = make_area(rdms=rdm)
    assert area.rdms is not None
    assert area.rdms.shape == (1, 6, 6)
    assert area.rdms.dtype == np.float64
    rdm[0, 1] = 9.0  # was copied
    assert area.rdms.max() < 9.0
    with pytest.raises(ValueError, match="read-only"):
        area.rdms[0, 0, 1] = 1.0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"session": None, "rdms": None, "cells": None}, "neither responses nor dissimilarities"),
        ({"stimuli": make_stimuli(5)}, "5 images but responses to 6"),
        ({"rdms": make_rdm(5)}, "must be (n_subjects, 6, 6) for 6 images; got shape (5, 5)"),
        ({"rdms": np.zeros((0, 6, 6))}, "got shape (0, 6, 6)"),
        ({"rdms": make_rdm().astype(str)}, "dissimilarities must be numbers"),
        ({"rdms": np.where(make_rdm() > 1, np.nan, 0)}, "dissimilarities are not finite"),
        ({"rdms": 1 - make_rdm()}, "similarities have to be turned round first"),
        ({"rdms": np.triu(make_rdm())}, "not symmetric"),
        ({"cells": pd.DataFrame({"x": [1, 2]})}, "cells has 2 rows but there are 4 neurons"),
        ({"session": None}, "cells has 4 rows but there are 0 neurons"),
        ({"held_out": np.ones(5, dtype=bool)}, "held_out must be 6 truth values"),
        ({"held_out": np.array([0, 1, 2, 3, 4, 5])}, "got int64 of shape (6,)"),
        ({"held_out": np.ones(6, dtype=bool)}, "True for 6 of 6 images"),
        ({"held_out": np.zeros(6, dtype=bool)}, "True for 0 of 6 images"),
    ],
)
def test_refuses(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match="area a: .*" + re.escape(reason)):
        make_area(**changes)


def test_refuses_images_of_other_names() -> None:
    area = make_area()
    pixels = area.stimuli.images()
    other = StimulusSet.from_array(pixels, [f"other{k}" for k in range(6)])
    with pytest.raises(InputError, match="different names"):
        replace(area, stimuli=other)
    same = StimulusSet.from_array(pixels)
    assert replace(area, stimuli=same).stimuli is same


def test_take_keeps_everything_together() -> None:
    area = make_area()
    part = area.take([5, 0, 2, 1])
    assert part.session is not None
    assert part.rdms is not None
    assert area.session is not None
    assert area.rdms is not None
    assert part.held_out is not None
    assert part.stimuli.names == ("image0006", "image0001", "image0003", "image0002")
    np.testing.assert_array_equal(part.session.responses, area.session.responses[[5, 0, 2, 1]])
    assert part.rdms[0, 0, 3] == area.rdms[0, 5, 1]
    assert part.held_out.tolist() == [True, False, True, False]
    assert part.rdm_ceiling is None
    assert area.take([0, 1]).held_out is None
    assert area.take(area.held_out).held_out is None  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no image is left"):
        area.take([])


def test_select_neurons_keeps_rows_of_cells() -> None:
    area = make_area().select_neurons([3, 0])
    assert area.cells is not None
    assert area.session is not None
    assert area.cells["depth_um"].tolist() == [4, 1]
    assert area.cells.index.tolist() == [0, 1]
    whole = make_area().session
    assert whole is not None
    np.testing.assert_array_equal(area.session.responses, whole.responses[:, :, [3, 0]])
    with pytest.raises(InputError, match="no neuron is left of 4"):
        make_area().select_neurons([])


def test_reliable_keeps_those_at_or_over_the_threshold() -> None:
    area = make_area()
    kept = area.reliable(0.8)
    assert kept.cells is not None
    assert kept.cells["depth_um"].tolist() == [1, 4]
    given = area.reliable(0.5, reliability=np.array([0.0, 0.6, 0.5, np.nan]))
    assert given.cells is not None
    assert given.cells["depth_um"].tolist() == [2, 3]


@pytest.mark.parametrize(
    ("area", "arguments", "reason"),
    [
        (
            make_area(),
            {"threshold": 0.95},
            "no neuron of 4 has a reliability of 0.95 or more .the ",
        ),
        (make_area(), {"threshold": 1.5}, "at most 1; got 1.5"),
        (make_area(), {"threshold": float("nan")}, "at most 1; got nan"),
        (make_area(), {"threshold": 0.5, "reliability": np.ones(3)}, r"of shape \(3,\)"),
        (make_area(cells=None), {"threshold": 0.5}, "is not known"),
        (make_area(cells=None, session=None), {"threshold": 0.5}, "no single neurons"),
    ],
)
def test_reliable_refuses(area: BrainArea, arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        area.reliable(**arguments)
