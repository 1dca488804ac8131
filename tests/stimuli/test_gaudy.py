"""Gaudy images: both thresholds against a plain loop, and images with nothing to threshold."""

import doctest
import importlib

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pocketcortex.core import InputError
from pocketcortex.stimuli import gaudy

PHOTOS = arrays(np.uint8, st.tuples(st.integers(1, 3), st.just(3), *[st.integers(1, 6)] * 2))


def loop(images, threshold):
    out = np.zeros_like(images)
    for n, c, i, j in np.ndindex(images.shape):
        whole = images[n] if threshold == "image" else images[n, c]
        total = sum(int(level) for level in whole.flat)
        if int(images[n, c, i, j]) * whole.size >= total:
            out[n, c, i, j] = 255
    return out


@settings(max_examples=40, deadline=None)
@given(PHOTOS, st.sampled_from(["channel", "image"]))
def test_equals_a_plain_loop(images, threshold):
    before = images.copy()
    result = gaudy(images, threshold=threshold)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, loop(images, threshold))
    np.testing.assert_array_equal(images, before)


@settings(max_examples=40, deadline=None)
@given(PHOTOS, st.sampled_from(["channel", "image"]))
def test_a_gaudy_image_is_a_fixed_point_but_for_black(images, threshold):
    once = gaudy(images, threshold=threshold)
    np.testing.assert_array_equal(gaudy(once, threshold=threshold), once)


@pytest.mark.parametrize("blur", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("level", [0, 1, 77, 254, 255])
def test_a_constant_image_becomes_white(blur, level):
    images = np.full((1, 3, 7, 5), level, dtype=np.uint8)
    for threshold in ("channel", "image"):
        assert (gaudy(images, blur=blur, threshold=threshold) == 255).all()


def test_a_constant_channel_becomes_white_by_channel_and_takes_sides_by_image():
    images = np.zeros((1, 3, 4, 4), dtype=np.uint8)
    images[0, 2] = 200
    assert (gaudy(images) == 255).all()
    assert gaudy(images, threshold="image")[0, :, 0, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize("threshold", ["channel", "image"])
def test_blur_is_spatial_and_comes_first(threshold):
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 20, 24), dtype=np.uint8)
    result = gaudy(images, blur=1.5, threshold=threshold)
    for image, got in zip(images, result, strict=True):
        blurred = np.stack([scipy.ndimage.gaussian_filter(c.astype(float), 1.5) for c in image])
        axes = (1, 2) if threshold == "channel" else None
        np.testing.assert_array_equal(got, 255 * (blurred >= blurred.mean(axes, keepdims=True)))
    assert (
        np.abs(np.diff(result.astype(int))).sum() < np.abs(np.diff(gaudy(images).astype(int))).sum()
    )


def test_images_are_treated_one_by_one():
    images = np.random.default_rng(1).integers(0, 256, (3, 3, 8, 8), dtype=np.uint8)
    np.testing.assert_array_equal(gaudy(images)[1:2], gaudy(images[1:2]))
    assert gaudy(images[:0]).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("blur", [-1.0, np.nan, np.inf])
def test_bad_blur_is_refused(blur):
    with pytest.raises(InputError, match="blur must be 0 or more"):
        gaudy(np.zeros((1, 3, 4, 4), dtype=np.uint8), blur=blur)


def test_images_without_pixels_are_refused():
    with pytest.raises(InputError, match="must have pixels"):
        gaudy(np.zeros((1, 3, 0, 4), dtype=np.uint8))


def test_examples_run():
    result = doctest.testmod(importlib.import_module("pocketcortex.stimuli.gaudy"))
    assert result.attempted > 0
    assert result.failed == 0
