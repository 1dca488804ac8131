"""Synthesized images, on models whose preferred image is known by construction."""

import numpy as np
import pytest
import torch

from pocketcortex.core import InputError
from pocketcortex.models import CompactModel
from pocketcortex.stimuli import strongest, synthesize, synthesize_all

SIZE = 16
RED = (1.0, -0.5, -0.5)
BRIGHT = (1 / 3, 1 / 3, 1 / 3)


def hand_made(
    colour: tuple[float, float, float], offset: float, thresholds: tuple[float, ...] = (0.0,)
) -> CompactModel:
    """Return a model that averages a colour contrast over 13 x 13 pixels.

    An offset is added to the contrast before it is rectified. Layers 1 and 2, of stride 2, blur
    their maps; the others pass them on, and batch norms do nothing. In the last layer there is
    one filter for each threshold, rectified above it. The readout is zero.
    """
    n = len(thresholds)
    model = CompactModel((n,) * 5, (SIZE, SIZE), image_mean=(0.0, 0.0, 0.0)).eval()
    layers = model.layers
    with torch.no_grad():
        layers.conv.weight.zero_()
        layers.conv.weight[:, :, 2, 2] = torch.tensor(colour)
        layers.conv.get_parameter("bias").fill_(offset)
        for k, pointwise in enumerate(layers.pointwise):
            layers.depthwise[k].weight.fill_(1 / 25 if k < 2 else 0.0)
            layers.depthwise[k].weight[:, :, 2, 2] = 1 / 25 if k < 2 else 1.0
            pointwise.weight.copy_(torch.eye(n)[:, :, None, None])
            pointwise.get_parameter("bias").zero_()
        layers.pointwise[3].get_parameter("bias").copy_(-torch.tensor(thresholds))
        for norm in layers.norms:
            norm.eps = 0.0
    return model


def red_centre(sign: float = 1.0, bias: float = 0.0) -> CompactModel:
    """Return a model that likes red in the middle and cyan around, or the reverse."""
    model = hand_made(RED, 255.0)  # never below zero, so never rectified
    with torch.no_grad():
        model.readout.fill_(-sign / 12)
        model.readout[:, 1:3, 1:3] = sign / 4
        model.readout_bias.fill_(bias)
    return model


def respond(model: CompactModel, image: np.ndarray) -> float:
    with torch.inference_mode():
        return float(model(torch.from_numpy(image[None]))[0])


def start(seed: int, n_starts: int = 1) -> np.ndarray:
    """Return the noise that a search starts from, in whole levels."""
    noise = np.random.default_rng(seed).uniform(128, 178, (n_starts, 3, SIZE, SIZE))
    rounded: np.ndarray = noise.astype(np.float32).round().astype(np.uint8)
    return rounded


def best_possible(model: CompactModel) -> float:
    """Return the response to the preferred image: each pixel at the end its gradient points to.

    Exact where nothing is rectified, since the model is linear there.
    """
    x = torch.full((1, 3, SIZE, SIZE), 128.0, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(x).sum(), x)
    return respond(model, ((gradient[0] > 0) * 255).to(torch.uint8).numpy())


def test_drives_a_known_neuron_above_all_random_images() -> None:
    model = red_centre()
    image, response = synthesize(model, n_starts=2, n_steps=60, rng=np.random.default_rng(0))
    rng = np.random.default_rng(1)
    random = rng.integers(0, 256, (200, 3, SIZE, SIZE), dtype=np.uint8)
    with torch.inference_mode():
        assert response > float(model(torch.from_numpy(random)).max())
    assert response > max(respond(model, one) for one in start(0, 2))
    assert 0.9 * best_possible(model) < response <= best_possible(model) * (1 + 1e-6)
    middle = image[:, 6:10, 6:10].mean(axis=(1, 2))
    corner = image[:, :2, :2].mean(axis=(1, 2))
    assert middle[0] > 200 > 50 > middle[1:].max()
    assert corner[0] < 100 < 150 < corner[1:].min()


def test_image_is_whole_levels_and_has_the_response_it_says() -> None:
    model = red_centre()
    image, response = synthesize(model, n_starts=3, n_steps=5, rng=np.random.default_rng(0))
    assert image.dtype == np.uint8
    assert image.shape == (3, SIZE, SIZE)
    assert response == pytest.approx(respond(model, image), rel=1e-5)


def test_silences_what_the_opposite_neuron_likes() -> None:
    low, least = synthesize(
        red_centre(), n_starts=1, n_steps=20, rng=np.random.default_rng(0), minimize=True
    )
    high, most = synthesize(
        red_centre(sign=-1.0), n_starts=1, n_steps=20, rng=np.random.default_rng(0)
    )
    np.testing.assert_array_equal(low, high)
    assert least == pytest.approx(-most, rel=1e-5)
    assert least < respond(red_centre(), start(0)[0])


@pytest.mark.parametrize("minimize", [False, True])
@pytest.mark.parametrize("bias", [-1e4, 1e4])
def test_responses_of_one_sign_are_no_obstacle(minimize: bool, bias: float) -> None:
    model = red_centre(bias=bias)
    image, response = synthesize(
        model, n_starts=1, n_steps=20, rng=np.random.default_rng(0), minimize=minimize
    )
    change = response - respond(model, start(0)[0])
    assert np.sign(response) == np.sign(bias)
    assert (change < -50) if minimize else (change > 50)
    assert response == pytest.approx(respond(model, image), rel=1e-5)


def test_a_step_too_far_does_not_lose_the_start() -> None:
    """A neuron tuned to a mean level just above the start's: one step of ten levels overshoots."""
    model = hand_made(BRIGHT, 0.0)
    with torch.no_grad():
        model.readout[0, 1, 1] = 1.0
    level = respond(model, start(0)[0])
    model = hand_made(BRIGHT, 0.0, (0.0, level + 3))
    with torch.no_grad():
        model.readout[0, 1, 1], model.readout[1, 1, 1] = 1.0, -50.0
    image, response = synthesize(model, n_starts=1, n_steps=1, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(image, start(0)[0])
    assert response == pytest.approx(respond(model, start(0)[0]), rel=1e-5)


def test_a_flat_neuron_gives_its_start() -> None:
    image, response = synthesize(
        hand_made(RED, 0.0), n_starts=1, n_steps=3, rng=np.random.default_rng(0)
    )
    np.testing.assert_array_equal(image, start(0)[0])
    assert response == 0.0


def test_more_steps_and_starts_are_never_worse() -> None:
    model = red_centre()

    def best(n_starts: int, n_steps: int) -> float:
        rng = np.random.default_rng(0)
        return synthesize(model, n_starts=n_starts, n_steps=n_steps, rng=rng)[1]

    assert best(1, 1) < best(1, 5) < best(1, 60) <= best(1, 61)
    assert best(1, 5) <= best(4, 5) * (1 + 1e-6)


def test_generator_decides_the_image() -> None:
    def made(seed: int) -> np.ndarray:
        return synthesize(
            red_centre(), n_starts=2, n_steps=3, rng=np.random.default_rng(seed)
        )[0]  # fmt: skip

    np.testing.assert_array_equal(made(0), made(0))
    assert (made(0) != made(1)).any()


def test_model_is_left_as_it_was() -> None:
    model = red_centre()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    synthesize(model, n_starts=1, n_steps=3, rng=np.random.default_rng(0))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(("n_starts", "n_steps"), [(0, 1), (1, 0), (-1, 1)])
def test_no_start_or_step_is_refused(n_starts: int, n_steps: int) -> None:
    with pytest.raises(InputError, match=f"got {n_starts} and {n_steps}"):
        synthesize(red_centre(), n_starts=n_starts, n_steps=n_steps, rng=np.random.default_rng(0))


def test_each_of_many_models_gets_its_own_image() -> None:
    models = [red_centre(), red_centre(sign=-1.0), red_centre()]
    told: list[int] = []
    images = synthesize_all(models, n_starts=1, n_steps=4, seed=7, advance=told.append)
    assert told == [1, 1, 1]
    assert images.shape == (3, 3, SIZE, SIZE)
    for k, model in enumerate(models):
        rng = np.random.default_rng([7, k])
        alone, _ = synthesize(model, n_starts=1, n_steps=4, rng=rng)
        np.testing.assert_array_equal(images[k], alone)
    assert (images[0] != images[2]).any()  # the same neuron, from other noise


def test_strongest_come_first() -> None:
    responses = np.array([[1.0, -3.0], [5.0, -1.0], [3.0, -2.0], [5.0, np.nan]])
    np.testing.assert_array_equal(strongest(responses, 1), [[1, 1]])
    np.testing.assert_array_equal(strongest(responses, 4), [[1, 1], [3, 2], [2, 0], [0, 3]])


@pytest.mark.parametrize("k", [0, -1, 4])
def test_strongest_of_none_or_too_many_are_refused(k: int) -> None:
    with pytest.raises(InputError, match=rf"k must be within 1 and the 3 images, got {k}"):
        strongest(np.zeros((3, 2)), k)
