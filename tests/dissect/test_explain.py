"""Explanations say what was planted, in words and numbers that are the circuit's."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from planted_models import CENTRE_PX, dot_model, natural_images, planted

from pocketcortex.core import InputError
from pocketcortex.dissect import (
    FAMILIES,
    NONE,
    Explanation,
    dot_search,
    explain,
    preferences,
    probe_text,
    receptive_fields,
)


@pytest.fixture(scope="module")
def found() -> Explanation:
    model, natural = planted(), natural_images(16)
    fields = receptive_fields([model], natural)
    with torch.inference_mode():
        answers = model(torch.from_numpy(natural)).numpy()[:, None]
    answers = answers.mean() + (answers - answers.mean()) / 20  # weakly driven
    table = preferences(
        [model], fields, answers, with_field=np.array([True]), rng=np.random.default_rng(0),
        n_resamples=20,
    ).table  # fmt: skip
    return explain(model, table.iloc[0], natural, name="neuron 7", rng=np.random.default_rng(1))


def test_text_tells_family_counts_and_stability(found: Explanation) -> None:
    text, circuit = found.text, found.circuit
    assert found.preference["family"] in ("edge", "curve")
    assert text.startswith(f"neuron 7 prefers a{'n' * (found.preference['family'] == 'edge')} ")
    assert f"{100 * found.preference['confidence']:.0f} % of resamples" in text
    assert f"{len(circuit.filters)} of its 27 filters" in text
    for stage in range(6):
        count = sum(one.stage == stage for one in circuit.filters)
        name = "readout" if stage == 5 else f"layer {stage}"
        assert f"{count} of {name}" in text
    assert f"overlap by {100 * circuit.overlap:.0f} % (Jaccard index)" in text
    assert f"keeps {100 * circuit.kept_r2_natural:.0f} % of the variance" in text
    for role in ("excitatory", "inhibitory"):
        count = sum(one.role == role for one in circuit.filters)
        assert (f"{count} are {role}" in text) == (count > 0)
    assert not re.search(r"\bnan\b|\binf\b", text, re.IGNORECASE)


def test_stimuli_go_from_strong_to_weak_in_every_family(found: Explanation) -> None:
    assert len(found.stimuli) == len(found.probes)
    assert set(found.probes["family"]) == set(FAMILIES)
    assert found.probes["family"][0] == found.preference["preferred"]
    assert not found.probes.duplicated().any()
    assert len(np.unique(found.stimuli, axis=0)) == len(found.stimuli) > 30
    with torch.inference_mode():
        answers = planted()(torch.from_numpy(found.stimuli)).numpy()
    for _, own in pd.Series(answers).groupby(found.probes["family"]):
        assert (np.diff(own) <= 1e-9).all()


def test_filters_are_told_by_what_drives_them(found: Explanation) -> None:
    for one in found.circuit.filters:
        assert found.detects(one) == probe_text(found.probes.iloc[one.prefers])
    assert found.tuning.centre_px == pytest.approx(CENTRE_PX, abs=1)


def test_models_without_a_family_say_why(found: Explanation) -> None:
    row = found.preference.copy()
    row["family"], row["reason"] = NONE, "no probe drives it"
    other = Explanation("n", row, found.tuning, found.circuit, found.stimuli, found.probes)
    assert other.text.startswith("n prefers none of the families: no probe drives it. Tuning: ")


def test_probes_in_words() -> None:
    colours = {"foreground": "#ffffff", "background": "#000000"}
    disc = pd.Series({"family": "dot", "shape": "ringed disc", "radius_px": 2.04} | colours)
    assert probe_text(disc) == "ringed disc of radius 2.0 px, #ffffff on #000000"
    stripes = {"family": "texture", "shape": "grating", "orientation_deg": 22.5}
    assert probe_text(pd.Series(stripes | {"cycles_per_image": 8.0})) == (
        "grating at 22° with 8 cycles per canvas"
    )
    border = {"family": "edge", "shape": "border", "curvature_per_px": 0.0, "direction_deg": 45.0}
    assert probe_text(pd.Series(border | colours)) == (
        "edge (border, straight, 45°, #ffffff on #000000)"
    )
    bent = border | {"family": "curve", "shape": "arc", "curvature_per_px": 0.2}
    assert probe_text(pd.Series(bent)) == "curve (arc, radius 5.0 px, 45°)"


def test_wrong_input_is_refused(found: Explanation) -> None:
    rng = np.random.default_rng(0)
    row = found.preference.copy()
    row["preferred"] = "face"
    with pytest.raises(InputError, match="family 'face' must be one of dot, edge"):
        explain(planted(), row, natural_images(4), name="n", rng=rng)


def test_a_dot_detector_is_told_so() -> None:
    model, natural = dot_model(), natural_images(16)
    fields = receptive_fields([model], natural)
    with torch.inference_mode():
        answers = 0.1 * model(torch.from_numpy(natural)).numpy()[:, None]
    yes, rng = np.array([True]), np.random.default_rng(0)
    row = preferences([model], fields, answers, with_field=yes, rng=rng).table.iloc[0]
    dots = dot_search([model], fields, answers).iloc[0]
    rng = np.random.default_rng(0)
    told = explain(model, row, natural, name="cell", rng=rng, dots=dots)
    assert "It is a dot detector: a white dot of radius" in told.text
    none = explain(model, row, natural, name="cell", rng=rng)
    assert "dot detector" not in none.text
