"""Receptive fields lie where models wired by hand look."""

import numpy as np
import pytest
import torch
from planted_models import (
    BOX,
    CENTRE_PX,
    SIZE,
    SPOT,
    chained,
    natural_images,
    silent,
    texture_model,
)
from population_models import population

from pocketcortex.core import InputError
from pocketcortex.dissect import receptive_fields


@pytest.mark.parametrize("cell", [(3, 4), (2, 2), (6, 5), (4, 2)])
def test_field_lies_under_the_cell_that_is_read(cell: tuple[int, int]) -> None:
    """Two strided layers put the middle of cell k on pixel 4 k + 3."""
    found = receptive_fields([chained([SPOT], cell=cell)], natural_images())
    row, column = (4 * k + 3 for k in cell)
    assert found.x_px == pytest.approx([column], abs=0.3)
    assert found.y_px == pytest.approx([row], abs=0.3)
    outside = found.energy[0].copy()
    outside[row - 2 : row + 3, column - 2 : column + 3] = 0
    assert outside.max() == 0  # one layer of 5 x 5 kernels, and copies behind
    assert found.energy[0, row, column] > 0


def test_pooling_widens_the_field() -> None:
    small, wide = chained([SPOT]), texture_model()
    found = receptive_fields([small, wide], natural_images())
    assert found.diameter_px[1] > 1.5 * found.diameter_px[0]
    assert (found.share_of_image < 0.05).all()
    assert found.share_of_image == pytest.approx(np.pi / 4 * found.diameter_px**2 / SIZE**2)
    for along, wanted in zip((found.x_px, found.y_px), CENTRE_PX, strict=True):
        assert along == pytest.approx([wanted] * 2, abs=1)


def test_energy_is_the_mean_squared_gradient() -> None:
    models, rng = population(3, (SIZE, 28)), np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 3, SIZE, 28), dtype=np.uint8)
    found = receptive_fields(models, images)
    assert found.energy.shape == (3, SIZE, 28)
    for model, energy in zip(models, found.energy, strict=True):
        x = torch.from_numpy(images).float().requires_grad_()
        (gradient,) = torch.autograd.grad(model(x).sum(), x)
        wanted = gradient.double().square().sum(1).mean(0).numpy()
        assert np.abs(energy - wanted).max() <= 1e-4 * wanted.max()


def test_diameter_is_that_of_half_the_energy() -> None:
    (energy,) = (found := receptive_fields(population(1), _noise())).energy
    n_half = np.pi / 4 * found.diameter_px[0] ** 2
    ranked = np.sort(energy, axis=None)[::-1]
    assert ranked[: round(n_half)].sum() >= energy.sum() / 2
    assert ranked[: round(n_half) - 1].sum() <= energy.sum() / 2


def _noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 3, 14, 17), dtype=np.uint8)


def test_blind_model_has_no_field_and_spoils_no_other() -> None:
    found = receptive_fields([silent(), chained([BOX])], natural_images())
    for values in (found.x_px, found.y_px, found.diameter_px, found.share_of_image):
        assert np.isnan(values[0])
        assert np.isfinite(values[1])
    assert (found.energy[0] == 0).all()


def test_wrong_input_is_refused() -> None:
    with pytest.raises(InputError, match="one or more images, got none"):
        receptive_fields([silent()], natural_images()[:0])
    with pytest.raises(InputError, match="at least one compact model"):
        receptive_fields([], natural_images())
    with pytest.raises(InputError, match="images"):
        receptive_fields([silent()], natural_images()[..., :32])
