"""The bank of dead leaves: the same bytes however it is cut, and natural statistics."""

import pickle

import numpy as np
import pytest

from pocketcortex.core.errors import InputError
from pocketcortex.data.dead_leaves import dead_leaves, dead_leaves_bank


@pytest.fixture(scope="module")
def bank():
    return dead_leaves(192, size=64, seed=5)


@pytest.mark.parametrize(("start", "n"), [(0, 1), (3, 7), (15, 18), (191, 1)])
def test_any_slice_has_the_same_bytes(bank, start, n):
    np.testing.assert_array_equal(
        dead_leaves(n, size=64, seed=5, start=start), bank[start : start + n]
    )


def test_the_lazy_bank_makes_the_same_images_in_any_order(bank):
    lazy = dead_leaves_bank(150, size=64, seed=5, start=40)
    order = np.random.default_rng(0).permutation(150)[:40]
    np.testing.assert_array_equal(lazy.read(order), bank[40:][order])
    assert lazy.names[149] == "dead_leaves189"
    streamed = list(lazy.stream([[3, 0], [149]]))
    np.testing.assert_array_equal(np.concatenate(streamed), bank[[43, 40, 189]])
    assert pickle.loads(pickle.dumps(lazy)).read([7]).tobytes() == bank[47].tobytes()  # noqa: S301


def test_images_differ_within_a_bank_and_between_banks(bank):
    assert len({image.tobytes() for image in bank}) == len(bank)
    other = dead_leaves(4, size=64, seed=6)
    assert (other != bank[:4]).any(axis=(1, 2, 3)).all()


def test_no_image_of_a_far_index_is_refused():
    assert dead_leaves(2, size=16, seed=0, start=2**40).shape == (2, 3, 16, 16)


@pytest.mark.parametrize("size", [8, 33, 112])
def test_shape_and_type(size):
    images = dead_leaves(3, size=size, seed=0)
    assert images.shape == (3, 3, size, size)
    assert images.dtype == np.uint8


def test_empty_bank():
    assert dead_leaves(0, size=16, seed=0).shape == (0, 3, 16, 16)


def test_channel_means_are_near_natural_ones(bank):
    np.testing.assert_allclose(bank.mean(axis=(0, 2, 3)), [116, 109, 100], atol=8)


def test_luminance_varies_most_then_blue_yellow_then_red_green(bank):
    pixels = bank.transpose(1, 0, 2, 3).reshape(3, -1).astype(np.float64)
    variance, axes = np.linalg.eigh(np.cov(pixels))
    assert variance[2] > 10 * variance[1] > 20 * variance[0]
    luminance, blue_yellow = axes[:, 2], axes[:, 1]
    assert (np.sign(luminance) == np.sign(luminance[0])).all()
    assert np.abs(blue_yellow).argmax() == 2


def test_amplitude_spectrum_falls_about_as_one_over_f(bank):
    grey = bank.mean(axis=1)
    window = np.hanning(64)[:, None] * np.hanning(64)
    centred = (grey - grey.mean(axis=(1, 2), keepdims=True)) * window
    amplitude = np.abs(np.fft.fft2(centred)).mean(axis=0)
    cycles = 64 * np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64))
    radii = np.arange(2, 25)  # cycles per image
    radial = [amplitude[np.abs(cycles - r) < 0.5].mean() for r in radii]
    slope = np.polyfit(np.log(radii), np.log(radial), 1)[0]
    assert -1.5 < slope < -0.7


def test_contrast_steps_are_heavy_tailed(bank):
    steps = np.diff(bank.mean(axis=1), axis=2).ravel()
    kurtosis = ((steps - steps.mean()) ** 4).mean() / steps.var() ** 2
    assert kurtosis > 6  # 3 for a Gaussian


@pytest.mark.parametrize(
    "wrong",
    [{"n": -1}, {"size": 7}, {"seed": -1}, {"start": -1}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_refuses_what_cannot_be(wrong):
    with pytest.raises(InputError, match="must be at least"):
        dead_leaves(**({"n": 1, "size": 16, "seed": 0, "start": 0} | wrong))
    with pytest.raises(InputError, match="must be at least"):
        dead_leaves_bank(**({"n": 1, "size": 16, "seed": 0, "start": 0} | wrong))
