"""Readers of mouse cortex: what the published files mean, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketcortex.core import BrainArea, InputError, Session
from pocketcortex.data import read_allen_rsms, read_antolik

LEVELS = np.arange(5 * 4).reshape(5, 4) % 256  # five images of 2 x 2
RAW = np.random.default_rng(0).gamma(2.0, size=(3, 5, 4))  # repeats, images, neurons


def write_region(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    arrays = {
        "raw_validation_set": RAW,
        "validation_set": RAW.mean(axis=0),
        "validation_inputs": LEVELS * 1e-6,
    }
    for name, array in (arrays | changes).items():
        if array is not None:
            np.save(folder / f"{name}.npy", array)
    return folder


def session_of(area: BrainArea) -> Session:
    assert area.session is not None
    return area.session


def test_antolik_axes_units_and_images(tmp_path: Path) -> None:
    write_region(tmp_path / "region2")
    write_region(tmp_path / "region1", raw_validation_set=RAW[:, :, :2], validation_set=None)
    first, second = read_antolik(tmp_path)
    assert (first.id, second.id) == ("antolik2016/region1", "antolik2016/region2")
    assert (first.n_neurons, second.n_neurons) == (2, 4)
    assert (second.species, second.area) == ("mouse", "V1")
    np.testing.assert_array_equal(session_of(second).responses, RAW.transpose(1, 0, 2))
    pixels = second.stimuli.images()
    assert pixels.shape == (5, 3, 2, 2)
    np.testing.assert_array_equal(pixels[2, 1], LEVELS[2].reshape(2, 2))
    assert second.held_out is None
    assert "only the validation images" in second.note
    assert second.cells is not None
    assert (second.cells["reliability"] <= 1).all()
    assert read_antolik(tmp_path / "region1")[0].id == "antolik2016/region1"


def test_antolik_training_images_are_used_where_they_are(tmp_path: Path) -> None:
    training = np.random.default_rng(1).gamma(2.0, size=(6, 4))
    inputs = np.full((6, 4), 9e-6)
    write_region(tmp_path / "region1", training_set=training, training_inputs=inputs)
    (area,) = read_antolik(tmp_path)
    session = session_of(area)
    assert session.responses.shape == (11, 3, 4)
    np.testing.assert_array_equal(session.responses[:6, 0], training)
    assert np.isnan(session.responses[:6, 1:]).all()
    assert area.held_out is not None
    assert area.held_out.tolist() == [False] * 6 + [True] * 5
    assert (area.stimuli.images()[:6] == 9).all()
    assert area.stimuli.names[5:7] == ("training0006", "validation0001")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"raw_validation_set": RAW[0]}, r"axes \(repeats, images, neurons\)"),
        ({"validation_set": RAW.mean(axis=0) + 1}, "is not the mean over repeats"),
        ({"validation_set": RAW.mean(axis=0)[:4]}, "is not the mean over repeats"),
        ({"validation_inputs": LEVELS}, "whole grey levels from 0 to 255"),
        ({"validation_inputs": (LEVELS + 0.4) * 1e-6}, "whole grey levels from 0 to 255"),
        ({"validation_inputs": LEVELS[:4] * 1e-6}, "should hold 5 square images"),
        ({"validation_inputs": LEVELS[:, :3] * 1e-6}, "should hold 5 square images"),
        ({"validation_inputs": None}, "does not exist"),
        (
            {"training_set": np.ones((6, 3)), "training_inputs": np.zeros((6, 4))},
            r"should be \(images, 4 neurons\)",
        ),
    ],
)
def test_antolik_refuses(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    write_region(tmp_path / "region1", **changes)
    with pytest.raises(InputError, match=reason):
        read_antolik(tmp_path)


def test_antolik_refuses_another_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no raw_validation_set\.npy"):
        read_antolik(tmp_path)


def similarity(seed: int = 0) -> np.ndarray:
    return np.corrcoef(np.random.default_rng(seed).normal(size=(119, 20)))


def write_matrices(folder: Path, matrices: dict[str, np.ndarray], **changes: Any) -> Path:
    np.savez(folder / "similarity_matrices.npz", allow_pickle=False, **matrices)
    scenes = np.random.default_rng(3).integers(0, 256, (118, 4, 4), dtype=np.uint8)
    np.save(folder / "scenes_31x31.npy", changes.get("scenes", scenes))
    text = changes.get("ceilings", "area,layer,ceiling\nVISp,L2/3,0.9\n")
    (folder / "noise_ceilings.csv").write_text(text)
    return folder


def test_similarities_become_dissimilarities_without_the_blank(tmp_path: Path) -> None:
    matrices = {"VISp_L4": similarity(1), "VISp_L2-3": similarity(0)}
    first, second = read_allen_rsms(write_matrices(tmp_path, matrices))
    assert (first.id, first.area, first.layer) == ("allen/VISp_L2-3", "VISp", "L2/3")
    assert (first.rdm_ceiling, second.rdm_ceiling) == (0.9, None)
    assert first.rdms is not None
    expected = 1 - similarity(0)[:118, :118]
    np.fill_diagonal(expected, 0)
    np.testing.assert_array_equal(first.rdms, expected[None])
    assert first.session is None
    assert first.stimuli.names[:2] == ("scene000", "scene001")


@pytest.mark.parametrize(
    ("matrix", "changes", "reason"),
    [
        (1 - similarity(), {}, "no unit diagonal, so it holds no similarities"),
        (similarity()[:118, :118], {}, "should be a matrix 119 x 119"),
        (np.triu(similarity()), {}, "not symmetric"),
        (similarity(), {"scenes": np.zeros((119, 2, 2), np.uint8)}, "should hold 118 scenes"),
        (similarity(), {"scenes": np.zeros((118, 4), np.uint8)}, r"\(images, height, width\)"),
        (similarity(), {"ceilings": "area,layer\nVISp,L4\n"}, "area, layer and ceiling"),
    ],
)
def test_matrices_refused(
    tmp_path: Path, matrix: np.ndarray, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        read_allen_rsms(write_matrices(tmp_path, {"VISp_L4": matrix}, **changes))


@pytest.mark.data
def test_released_regions(real_data: Path) -> None:
    areas = read_antolik(real_data / "mouse" / "antolik2016")
    shapes = [session_of(area).responses.shape for area in areas]
    assert shapes == [(50, 10, 103), (50, 8, 55), (50, 12, 102)]
    assert all(area.stimuli.image_size == (31, 31) for area in areas)
    assert areas[0].stimuli.digests == areas[1].stimuli.digests
    assert set(areas[0].stimuli.digests).isdisjoint(areas[2].stimuli.digests)
    assert all(area.reliable(0.5).n_neurons > area.n_neurons / 2 for area in areas)


@pytest.mark.data
def test_released_matrices(real_data: Path) -> None:
    areas = read_allen_rsms(real_data / "mouse" / "allen_rsm")
    assert len(areas) == 21
    assert all(area.rdm_ceiling is not None for area in areas)
    assert [area.id for area in areas if area.note] == ["allen/VISrl_L5"]
    pixels = areas[0].stimuli.images()[:, 0].reshape(118, -1).astype(float)
    upper = np.triu_indices(118, 1)
    of_pixels = 1 - np.corrcoef(pixels)[upper]
    alike = [
        np.corrcoef(of_pixels, area.rdms[0][upper])[0, 1] for area in areas if area.rdms is not None
    ]
    assert max(alike) > 0.15  # the sign: alike scenes have alike responses
