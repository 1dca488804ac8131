"""Smoothed patches, against plain loops and on linear models, where patches add up."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from perturbed_models import linear_model, rectified_model, response_to, some_images

from pocketcortex.core import InputError
from pocketcortex.data import read_v4
from pocketcortex.models import import_compact_model, published_models
from pocketcortex.stimuli import (
    SmoothedImages,
    SmoothingSaliency,
    randomly_smoothed,
    salient_patches,
    smooth_minus,
    smoothing_saliency,
)

PATCH, STRIDE, SIGMA = 4, 2, 1.5
HOW: dict[str, Any] = {"patch": PATCH, "stride": STRIDE, "sigma": SIGMA}
TOPS, LEFTS = range(0, 9, 2), range(0, 13, 2)  # of images of 12 x 16


def edge(j: int, patch: int = PATCH) -> float:
    """Return Tukey's window of `patch` + 2 points, of which the zeros at the ends are left out."""
    along = (j + 1) / (patch + 1)
    near = min(along, 1 - along)
    return 1.0 if near >= 0.25 else 0.5 * (1 - float(np.cos(np.pi * near / 0.25)))


def smoothed(image: np.ndarray, top: int, left: int) -> np.ndarray:
    """Return an image with one patch smoothed, pixel by pixel."""
    sharp = image.astype(np.float64)
    blurred = np.stack([scipy.ndimage.gaussian_filter(c, SIGMA, mode="reflect") for c in sharp])
    out = sharp.copy()
    for y in range(PATCH):
        for x in range(PATCH):
            weight = edge(y) * edge(x)
            here = np.s_[:, top + y, left + x]
            out[here] = (1 - weight) * sharp[here] + weight * blurred[here]
    rounded: np.ndarray = out.round().astype(np.uint8)
    return rounded


def overlap(a: Any, b: Any, patch: int = PATCH) -> bool:
    return bool(abs(a[0] - b[0]) < patch and abs(a[1] - b[1]) < patch)


def assert_apart(patches: np.ndarray, patch: int = PATCH) -> None:
    for j, a in enumerate(patches):
        assert not any(overlap(a, b, patch) for b in patches[:j])


def test_saliency_is_that_of_a_plain_loop() -> None:
    models, images = [rectified_model(0), rectified_model(1)], some_images(2, 2)
    before = images.copy()
    told: list[int] = []
    found = smoothing_saliency(models, images, **HOW, advance=told.append)
    assert found.maps.shape == (2, 2, len(TOPS), len(LEFTS))
    assert told == [2, 2]
    for k, model in enumerate(models):
        for i, image in enumerate(images[k]):
            plain = response_to(model, image)
            assert found.responses[k, i] == pytest.approx(plain, abs=1e-4)
            for row, top in enumerate(TOPS):
                for column, left in enumerate(LEFTS):
                    assert found.positions[row, column].tolist() == [top, left]
                    change = response_to(model, smoothed(image, top, left)) - plain
                    assert found.maps[k, i, row, column] == pytest.approx(change, abs=1e-4)
    assert np.abs(found.maps).max() > 0.01
    np.testing.assert_array_equal(images, before)


def test_the_grid_is_centred() -> None:
    found = smoothing_saliency(
        [linear_model(0, (13, 16))], some_images(1, 1, (13, 16)), patch=5, stride=3, sigma=1.0
    )
    assert found.positions[:, 0, 0].tolist() == [1, 4, 7]  # 13 - 5 = 8 = 1 + 2 * 3 + 1
    assert found.positions[0, :, 1].tolist() == [1, 4, 7, 10]


def test_patches_are_in_proportion_to_images() -> None:
    found = smoothing_saliency([linear_model(0, (56, 56))], some_images(1, 1, (56, 56)))
    assert found.patch == 6  # 12 of 112
    assert np.diff(found.positions[:, 0, 0]).tolist() == [3] * 16
    told = smoothing_saliency(
        [linear_model(0, (56, 56))], some_images(1, 1, (56, 56)), patch=6, stride=3, sigma=2.0
    )
    np.testing.assert_array_equal(found.maps, told.maps)


def test_a_flat_image_cannot_be_smoothed() -> None:
    images = np.full((1, 1, 3, 12, 16), 77, dtype=np.uint8)
    found = smoothing_saliency([rectified_model(0)], images, **HOW)
    assert (found.maps == 0).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 4), patch=st.integers(1, 4))
def test_salient_patches_are_those_of_a_plain_loop(seed: int, n: int, patch: int) -> None:
    maps = np.random.default_rng(seed).normal(size=(1, 2, 5, 7)).astype(np.float32)
    positions = np.stack(np.meshgrid(TOPS, LEFTS, indexing="ij"), axis=-1)
    saliency = SmoothingSaliency(maps, positions, np.zeros((1, 2), np.float32), patch)
    found = salient_patches(saliency, n=n)
    assert found.shape == (1, 2, n, 2)
    for i in range(2):
        taken: list[tuple[int, int]] = []
        for flat in np.argsort(-np.abs(maps[0, i]), axis=None):
            cell = (int(flat) // 7, int(flat) % 7)
            if not any(overlap(positions[cell], positions[other], patch) for other in taken):
                taken.append(cell)
        assert found[0, i].tolist() == [positions[cell].tolist() for cell in taken[:n]]


def test_smooth_minus_is_the_greedy_search_of_a_plain_loop() -> None:
    models, images = [rectified_model(0), rectified_model(3)], some_images(2, 2)
    found = smooth_minus(models, images, n_patches=3, **HOW)
    for k, model in enumerate(models):
        for i, image in enumerate(images[k]):
            made, taken = image, []
            answers = [response_to(model, image)]
            for _ in range(3):
                best = None
                for top in TOPS:
                    for left in LEFTS:
                        if any(overlap((top, left), other) for other in taken):
                            continue
                        variant = made.copy()
                        here = np.s_[:, top : top + PATCH, left : left + PATCH]
                        variant[here] = smoothed(image, top, left)[here]
                        answer = response_to(model, variant)
                        if best is None or answer < best[0] - 1e-6:
                            best = (answer, (top, left), variant)
                assert best is not None
                answers.append(best[0])
                taken.append(best[1])
                made = best[2]
            np.testing.assert_array_equal(found.images[k, i], made)
            np.testing.assert_array_equal(found.patches[k, i], taken)
            np.testing.assert_allclose(found.responses[k, i], answers, atol=1e-4)


def test_patches_of_a_linear_model_add_up() -> None:
    models, images = [linear_model(k) for k in range(2)], some_images(2, 3)
    saliency = smoothing_saliency(models, images, **HOW)
    lowered = smooth_minus(models, images, n_patches=4, **HOW)
    random = randomly_smoothed(
        models, images, n_patches=4, n_draws=2, rng=np.random.default_rng(0), **HOW
    )

    def expected(patches: np.ndarray, k: int, i: int) -> np.ndarray:
        rows, columns = patches[:, 0] // STRIDE, patches[:, 1] // STRIDE
        changes = saliency.maps[k, i, rows, columns].cumsum()
        total: np.ndarray = saliency.responses[k, i] + np.concatenate([[0.0], changes])
        return total

    for k in range(2):
        for i in range(3):
            low = expected(lowered.patches[k, i], k, i)
            np.testing.assert_allclose(lowered.responses[k, i], low, rtol=1e-3, atol=1e-3)
            assert lowered.patches[k, i, 0].tolist() == saliency.positions[
                np.unravel_index(saliency.maps[k, i].argmin(), (5, 7))
            ].tolist()  # fmt: skip
            for draw in range(2):
                by_chance = expected(random.patches[draw, k, i], k, i)
                got = random.responses[draw, k, i]
                np.testing.assert_allclose(got, by_chance, rtol=1e-3, atol=1e-3)
                assert got[-1] > lowered.responses[k, i, -1]


@pytest.mark.parametrize("chance", [False, True])
def test_images_are_what_masks_and_responses_say(chance: bool) -> None:
    models, images = [rectified_model(1), rectified_model(2)], some_images(2, 2)
    before = images.copy()
    if chance:
        rng = np.random.default_rng(1)
        drawn = randomly_smoothed(models, images, n_patches=4, n_draws=2, rng=rng, **HOW)
        assert drawn.masks.shape == (2, 2, 2, 12, 16)
        found = SmoothedImages(
            drawn.images[1], drawn.masks[1], drawn.patches[1], drawn.responses[1]
        )
    else:
        found = smooth_minus(models, images, n_patches=4, **HOW)
    blurred = scipy.ndimage.gaussian_filter(images.astype(np.float64), SIGMA, axes=(3, 4))
    weights = found.masks[:, :, None]
    expected = (1 - weights) * images + weights * blurred
    assert np.abs(found.images - expected).max() < 0.501
    area = 4 * sum(edge(j) for j in range(PATCH)) ** 2
    np.testing.assert_allclose(found.masks.sum((2, 3)), area, rtol=1e-5)
    assert found.responses.shape == (2, 2, 5)
    for k, model in enumerate(models):
        for i in range(2):
            assert_apart(found.patches[k, i])
            last = response_to(model, found.images[k, i])
            assert found.responses[k, i, -1] == pytest.approx(last, rel=1e-4, abs=1e-4)
    np.testing.assert_array_equal(images, before)


def test_many_at_once_are_as_one_by_one() -> None:
    models, images = [rectified_model(k) for k in range(3)], some_images(3, 2)
    told: list[int] = []
    together = smooth_minus(models, images, n_patches=3, **HOW, advance=told.append)
    assert told == [6, 6, 6]
    for k in range(3):
        for i in range(2):
            alone = smooth_minus(
                models[k : k + 1], images[k : k + 1, i : i + 1], n_patches=3, **HOW
            )
            np.testing.assert_array_equal(together.patches[k, i], alone.patches[0, 0])
            np.testing.assert_array_equal(together.images[k, i], alone.images[0, 0])
            np.testing.assert_allclose(together.responses[k, i], alone.responses[0, 0], atol=1e-4)


def test_the_generator_decides_the_patches() -> None:
    models, images = [linear_model(0)], some_images(1, 2)

    def patches(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return randomly_smoothed(
            models, images, n_patches=4, n_draws=30, rng=rng, **HOW
        ).patches  # fmt: skip

    drawn = patches(0)
    np.testing.assert_array_equal(drawn, patches(0))
    assert (drawn != patches(1)).any()
    assert (drawn[:, 0, 0] != drawn[:, 0, 1]).any()
    first = drawn[:, :, :, 0].reshape(-1, 2)
    assert len(np.unique(first, axis=0)) > 20  # of 35, in 60 draws
    for one in drawn.reshape(-1, 4, 2):
        assert_apart(one)


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"patch": 13}, "fit into images of 12 x 16, got 13"),
        ({"patch": 0}, "patch must be 1 pixel or more"),
        ({"stride": 0}, "stride and sigma must be above 0"),
        ({"sigma": 0.0}, "stride and sigma must be above 0"),
        ({"sigma": float("nan")}, "stride and sigma must be above 0"),
        ({"images": some_images(2, 1)}, "1 models need as many"),
        ({"images": some_images(1, 1)[:, :0]}, "none empty"),
        ({"images": some_images(1, 1, (8, 8))}, "models take images"),
        ({"models": []}, "at least one compact model"),
    ],
)
def test_bad_input_is_refused(more: dict[str, Any], what: str) -> None:
    how: dict[str, Any] = {"models": [linear_model(0)], "images": some_images(1, 1), **HOW, **more}
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match=what):
        smoothing_saliency(**how)
    with pytest.raises(InputError, match=what):
        smooth_minus(**how, n_patches=1)
    with pytest.raises(InputError, match=what):
        randomly_smoothed(**how, n_patches=1, n_draws=1, rng=rng)


@pytest.mark.parametrize("n", [0, 5])
def test_more_patches_than_always_fit_are_refused(n: int) -> None:
    models, images = [linear_model(0)], some_images(1, 1)
    what = rf"within 1..4, as many as always fit without overlap; got {n}"
    with pytest.raises(InputError, match=what):
        smooth_minus(models, images, n_patches=n, **HOW)
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match=what):
        randomly_smoothed(models, images, n_draws=1, n_patches=n, rng=rng, **HOW)
    with pytest.raises(InputError, match=what):
        salient_patches(smoothing_saliency(models, images, **HOW), n=n)


def test_no_draws_are_refused() -> None:
    with pytest.raises(InputError, match="n_draws must be at least 1, got 0"):
        randomly_smoothed(
            [linear_model(0)], some_images(1, 1), n_draws=0, rng=np.random.default_rng(0)
        )


@pytest.mark.data
def test_published_models_lose_more_than_by_chance(real_data: Path) -> None:
    files = published_models(real_data / "v4", "190923")
    models = [import_compact_model(files[k]) for k in sorted(files)[:2]]
    images = read_v4(real_data / "v4")["190923"].stimuli.read(np.array([1000]))
    images = np.repeat(images[None], 2, axis=0)
    lowered = smooth_minus(models, images, n_patches=3, patch=24, stride=24)
    random = randomly_smoothed(
        models, images, n_patches=3, patch=24, stride=24, n_draws=4, rng=np.random.default_rng(0)
    )
    assert (lowered.responses[..., -1] < random.responses[..., -1].min(axis=0)).all()
