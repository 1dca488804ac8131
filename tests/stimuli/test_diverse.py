"""Diverse images: a plain greedy search, what counts as different, and what is refused."""

import itertools

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketcortex.core import InputError
from pocketcortex.stimuli import most_diverse

SIZE = 12


def squares(places: list[tuple[int, int]]) -> np.ndarray:
    """Return grey images with one white square each, 4 pixels wide."""
    images = np.full((len(places), 3, SIZE, SIZE), 100, np.uint8)
    for image, (row, column) in zip(images, places, strict=True):
        image[:, row : row + 4, column : column + 4] = 255
    return images


def distances(images: np.ndarray) -> np.ndarray:
    blurred = [scipy.ndimage.gaussian_filter(i.astype(float), (0, 2, 2)) for i in images]
    return np.array([[np.sqrt(np.mean((a - b) ** 2)) for a in blurred] for b in blurred])


def test_strongest_first_then_the_farthest() -> None:
    images = squares([(0, 0), (0, 1), (8, 8), (0, 8), (8, 0)])
    responses = np.array([9.0, 10.0, 9.5, 9.4, 2.0])
    assert most_diverse(images, responses, 3).tolist()[0] == 1
    assert sorted(most_diverse(images, responses, 3)) == [1, 2, 3]
    assert 4 not in most_diverse(images, responses, 5)  # it does not drive the neuron
    assert len(most_diverse(images, responses, 5)) == 4
    assert most_diverse(images, responses, 1).tolist() == [1]
    assert sorted(most_diverse(images, responses, 5, at_least=0.0)) == [0, 1, 2, 3, 4]


def test_share_is_of_what_is_above_the_baseline() -> None:
    images, responses = squares([(0, 0), (8, 8)]), np.array([-1.0, -2.0])
    assert sorted(most_diverse(images, responses, 2, baseline=-10.0)) == [0, 1]  # 8 of 9
    assert most_diverse(images, responses, 2, baseline=-5.0).tolist() == [0]  # 3 of 4
    with pytest.raises(InputError, match="no response is above the baseline of 0; the best is -1"):
        most_diverse(images, responses, 2)


def test_noise_is_not_called_different() -> None:
    """Pixels of the noisy copy differ more than those of the square one place on."""
    images = squares([(4, 4), (4, 4), (4, 6)])
    images[1, :, ::2, ::2] -= 60
    images[1, :, 1::2, ::2] += 0
    images[1, :, ::2, 1::2] = np.minimum(images[1, :, ::2, 1::2], 195) + 60
    raw = np.sqrt(((images.astype(float) - images[0]) ** 2).mean(axis=(1, 2, 3)))
    assert raw[1] > 0.5 * raw[2]
    assert most_diverse(images, np.array([2.0, 1.9, 1.9]), 2).tolist() == [0, 2]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 7), k=st.integers(2, 4))
def test_smallest_distance_is_at_least_half_the_largest_possible(seed: int, n: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 3, 6, 6), dtype=np.uint8)
    responses = rng.uniform(1, 2, n)
    k = min(k, n)
    chosen = most_diverse(images, responses, k, at_least=0.0)
    assert len(set(chosen.tolist())) == k
    assert chosen[0] == responses.argmax()
    apart = distances(images)

    def smallest(indices: tuple[int, ...]) -> float:
        return min(apart[a, b] for a, b in itertools.combinations(indices, 2))

    best = max(smallest(some) for some in itertools.combinations(range(n), k))
    assert smallest(tuple(chosen.tolist())) >= 0.5 * best * (1 - 1e-4)
    np.testing.assert_array_equal(chosen, most_diverse(images, responses, k, at_least=0.0))


def test_equal_images_are_taken_in_order() -> None:
    images = squares([(0, 0)] * 4)
    assert most_diverse(images, np.ones(4), 3).tolist() == [0, 1, 2]


def test_responses_that_are_not_finite_are_never_chosen() -> None:
    images = squares([(0, 0), (8, 8), (0, 8)])
    assert most_diverse(images, np.array([np.nan, 1.0, 0.9]), 3).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("n", "k", "at_least", "told"),
    [(2, 0, 0.5, "k must be"), (2, 1, 1.1, "at_least"), (3, 1, 0.5, "got 2 for 3"),
     (0, 1, 0.5, "got 2 for 0")],
)  # fmt: skip
def test_bad_input_is_refused(n: int, k: int, at_least: float, told: str) -> None:
    with pytest.raises(InputError, match=told):
        most_diverse(squares([(0, 0)] * n), np.array([1.0, 2.0]), k, at_least=at_least)
