"""Tuning of models wired by hand: curves and indices say what they were wired for."""

import numpy as np
import pytest
import torch
from planted_models import (
    BOX,
    CENTRE_PX,
    RED_GREEN,
    SIZE,
    chained,
    dot_model,
    edge_model,
    silent,
    texture_model,
)

from pocketcortex.core import InputError
from pocketcortex.dissect import AXES, Tuning, tune
from pocketcortex.dissect.tuning import N_DRAWS, N_PLACES, NUMBERS, RADII
from pocketcortex.models import CompactModel

AT = (float(CENTRE_PX[0]), float(CENTRE_PX[1]))


def tuned(model: CompactModel, axis: str = AXES[0], seed: int = 0) -> Tuning:
    return tune(model, AT, rng=np.random.default_rng(seed), axis=axis)


@pytest.fixture(scope="module")
def dot() -> Tuning:
    return tuned(dot_model())


@pytest.fixture(scope="module")
def edge() -> Tuning:
    return tuned(edge_model())


@pytest.fixture(scope="module")
def colour() -> Tuning:
    """Red over the whole image."""
    model = chained([BOX], RED_GREEN, pool=BOX)
    with torch.no_grad():
        model.readout[:] = 0.1
    return tuned(model, "hue 0")


def test_a_spot_prefers_small_dots_at_its_place(dot: Tuning) -> None:
    assert dot.colours == ((255, 255, 255), (128, 128, 128))
    assert dot.indices["preferred_radius_px"] == pytest.approx(1.7, abs=0.6)
    assert dot.indices["size_selectivity"] == pytest.approx(1, abs=0.01)  # its surround silences it
    assert dot.indices["size_octaves"] < 3
    assert dot.dot_px == pytest.approx(CENTRE_PX, abs=1.3)
    assert dot.indices["place_diameter_px"] < 6
    row, column = np.unravel_index(dot.dot_place.argmax(), dot.dot_place.shape)
    assert (row / N_PLACES, column / N_PLACES) == pytest.approx(
        (CENTRE_PX[1] / SIZE, CENTRE_PX[0] / SIZE), abs=0.05
    )


def test_an_edge_is_oriented(edge: Tuning, dot: Tuning) -> None:
    around = edge.grating.mean(2).max(1)
    assert abs(edge.orientations_deg[around.argmax()] - 90) <= 15
    assert edge.indices["orientation_selectivity"] > 0.4
    assert edge.indices["orientation_selectivity"] > dot.indices["orientation_selectivity"] + 0.3
    assert edge.indices["phase_invariance"] < 0.6
    straight = edge.contour[edge.curvatures_per_px == 0][0]
    assert edge.directions_deg[straight.argmax()] == 180  # dark on the left
    assert straight.max() == edge.contour.max()
    assert edge.indices["curvature_preference"] == 0


def test_many_phases_are_one_to_a_texture(edge: Tuning) -> None:
    texture = tuned(texture_model())
    assert texture.indices["phase_invariance"] > 0.8 > edge.indices["phase_invariance"]
    best = texture.orientations_deg[texture.grating.mean(2).max(1).argmax()]
    assert abs(best - 90) <= 15
    cycles = texture.cycles_per_image[texture.grating.mean((0, 2)).argmax()]
    assert cycles in (6, 9, 12)  # four pixels a period are 9


def test_colours(colour: Tuning) -> None:
    assert colour.colours[0] == (248, 8, 128)
    assert colour.hue_colours[0] == (248, 8, 128)
    assert colour.hue_colours[6] == (8, 248, 128)
    assert colour.hues_deg[colour.hue.argmax()] in (0, 330, 30)
    assert colour.hue[6] == pytest.approx(colour.grey)
    assert colour.indices["colour_selectivity"] == 1
    assert colour.indices["size_selectivity"] == pytest.approx(0, abs=1e-6)  # larger is never worse


def test_a_wide_field_counts_dots(colour: Tuning) -> None:
    mean = colour.dot_number.mean(1) - colour.grey
    assert colour.dot_number.shape == (len(NUMBERS), N_DRAWS)
    assert mean[0] == pytest.approx(0, abs=1e-6)
    assert colour.indices["number_gain"] == pytest.approx(mean[-1] / mean[1])
    assert colour.indices["number_gain"] > 16


def test_curves_are_the_models_responses(dot: Tuning) -> None:
    model = dot_model()
    with torch.inference_mode():
        sizes = model(torch.from_numpy(dot.size_stimuli)).numpy()
        numbers = model(torch.from_numpy(dot.number_stimuli)).numpy()
    assert dot.dot_size == pytest.approx(sizes, abs=1e-6)
    assert dot.dot_number.ravel() == pytest.approx(numbers, abs=1e-6)
    assert dot.dot_size[0] == pytest.approx(dot.grey, abs=0.05)  # radius 0 shows none
    assert dot.radii_px == pytest.approx(RADII * SIZE)
    white = (dot.size_stimuli[-1, 0] == 255).sum()
    assert white == pytest.approx(np.pi * dot.radii_px[-1] ** 2, rel=0.15)


def test_axes_of_the_arrays(edge: Tuning) -> None:
    assert edge.dot_place.shape == (N_PLACES, N_PLACES)
    assert edge.grating.shape == (12, 6, 4)
    assert edge.contour.shape == (len(edge.curvatures_per_px), 16) == (11, 16)
    assert (np.diff(edge.curvatures_per_px) > 0).all()
    assert edge.curvatures_per_px == pytest.approx(-edge.curvatures_per_px[::-1])


def test_concave_is_convex_with_colours_exchanged(edge: Tuning) -> None:
    """Slight curvatures of either sign come close to the straight border on all sides."""
    middle = len(edge.curvatures_per_px) // 2
    for k in (middle - 1, middle + 1):
        r = np.corrcoef(edge.contour[k], edge.contour[middle])[0, 1]
        assert r > 0.9


def test_same_rng_same_numbers(dot: Tuning) -> None:
    again = tuned(dot_model())
    assert (again.number_stimuli == dot.number_stimuli).all()
    assert (again.dot_number == dot.dot_number).all()
    draws = dot.number_stimuli.reshape(len(NUMBERS), N_DRAWS, -1)[1:]
    assert (draws[:, 0] != draws[:, 1]).any(axis=1).all()


def test_blind_model_has_no_indices() -> None:
    index = tuned(silent()).indices
    nameless = {name for name, value in index.items() if np.isnan(value)}
    assert nameless == set(index) - {"preferred_radius_px"}


def test_wrong_input_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="square images; the model takes 36 x 40"):
        tune(CompactModel((1,) * 5, (36, 40)), AT, rng=rng)
    for centre in ((36.0, 3.0), (3.0, -0.5), (float("nan"), 3.0)):
        with pytest.raises(InputError, match=r"must lie within the image, 0\.\.35"):
            tune(silent(), centre, rng=rng)
    with pytest.raises(InputError, match="axis 'green' must be one of"):
        tune(silent(), AT, rng=rng, axis="green")
