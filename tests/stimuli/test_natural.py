"""The natural constraint: what it keeps, how it shapes, what it refuses."""

import numpy as np
import pytest
import torch

from pocketcortex.core import InputError
from pocketcortex.stimuli import NaturalConstraint


def noise(size: tuple[int, int] = (12, 15)) -> torch.Tensor:
    levels = np.random.default_rng(0).uniform(100, 150, (2, 3, 3, *size))
    return torch.from_numpy(levels)


def test_mean_and_contrast_are_set() -> None:
    x = NaturalConstraint(90.0, 30.0).projected(noise())
    np.testing.assert_allclose(x.mean((2, 3, 4)), 90.0, rtol=1e-9)
    np.testing.assert_allclose(x.flatten(2).std(2, correction=0), 30.0, rtol=1e-9)
    again = NaturalConstraint(90.0, 30.0).projected(x)
    torch.testing.assert_close(again, x)


def test_levels_stay_within_range_where_contrast_is_high() -> None:
    x = NaturalConstraint(70.0, 60.0).projected(noise() ** 4)
    assert float(x.min()) >= 0
    assert float(x.max()) <= 255
    np.testing.assert_allclose(x.mean((2, 3, 4)), 70.0, atol=3)
    np.testing.assert_allclose(x.flatten(2).std(2, correction=0), 60.0, atol=3)


def test_an_image_of_one_level_becomes_the_mean() -> None:
    x = NaturalConstraint(90.0, 30.0).projected(torch.full((1, 1, 3, 4, 4), 7.0))
    torch.testing.assert_close(x, torch.full_like(x, 90.0))


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("size", [(12, 15), (15, 12)])
def test_amplitudes_are_divided_by_frequency(exponent: float, size: tuple[int, int]) -> None:
    x = noise(size)
    shaped = NaturalConstraint(exponent=exponent).shaped(x)
    before, after = (np.fft.fft2(maps.numpy()) for maps in (x, shaped))
    rows, columns = (np.fft.fftfreq(n)[: n // 2] for n in size)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            frequency = np.hypot(row, column) or 1 / 15
            wanted = before[..., i, j] / frequency**exponent
            np.testing.assert_allclose(after[..., i, j], wanted, rtol=1e-9)


def test_is_measured_from_images() -> None:
    rng = np.random.default_rng(0)
    spread = [[10.0], [20.0], [50.0]]
    levels = rng.normal(120, spread, (3, 3 * 64)).clip(0, 255).round().astype(np.uint8)
    constraint = NaturalConstraint.of(levels.reshape(3, 3, 8, 8))
    assert constraint.mean == pytest.approx(np.median(levels.mean(axis=1)))
    assert constraint.contrast == pytest.approx(levels[1].std())
    assert constraint.exponent == 1.0


def test_black_and_white_images_have_the_most_contrast() -> None:
    images = np.zeros((1, 3, 4, 4), np.uint8)
    images[:, :, :2] = 255
    assert NaturalConstraint.of(images).contrast == 127.5


@pytest.mark.parametrize(
    ("mean", "contrast", "exponent", "told"),
    [
        (0.0, 1.0, 1.0, "mean must be"),
        (255.0, 1.0, 1.0, "mean must be"),
        (float("nan"), 1.0, 1.0, "mean must be"),
        (50.0, 51.0, 1.0, "at most 50 levels around a mean of 50"),
        (205.0, 51.0, 1.0, "at most 50 levels around a mean of 205"),
        (50.0, 0.0, 1.0, "contrast must be above 0"),
        (50.0, 10.0, -0.1, "exponent must be"),
        (50.0, 10.0, 5.0, "exponent must be"),
    ],
)
def test_what_no_image_has_is_refused(
    mean: float, contrast: float, exponent: float, told: str
) -> None:
    with pytest.raises(InputError, match=told):
        NaturalConstraint(mean, contrast, exponent)


def test_no_images_are_refused() -> None:
    with pytest.raises(InputError, match="at least one image"):
        NaturalConstraint.of(np.zeros((0, 3, 4, 4), np.uint8))
    with pytest.raises(InputError, match="contrast must be above 0"):
        NaturalConstraint.of(np.full((2, 3, 4, 4), 9, np.uint8))
