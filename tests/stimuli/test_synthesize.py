"""Synthesized images, on models whose preferred image is known by construction."""

import importlib
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch

from pocketcortex.core import InputError
from pocketcortex.models import CompactModel
from pocketcortex.stimuli import NaturalConstraint, Synthesized, synthesize

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


def start(seed: int = 0, n_starts: int = 1, model: int = 0) -> np.ndarray:
    """Return the noise that searches for one model start from, not yet in whole levels."""
    rngs = [np.random.default_rng([seed, model, j]) for j in range(n_starts)]
    noise = [rng.uniform(128, 178, (3, SIZE, SIZE)).astype(np.float32) for rng in rngs]
    return np.array(noise)


def one(model: CompactModel, n_steps: int = 20, **given: Any) -> tuple[np.ndarray, float]:
    """Return the image found from one start, and its response."""
    found = synthesize([model], **{"n_starts": 1, "seed": 0, "n_steps": n_steps} | given)
    return found.images[0, 0], float(found.responses[0, 0])


def best_possible(model: CompactModel) -> float:
    """Return the response to the preferred image: each pixel at the end its gradient points to.

    Exact where nothing is rectified, since the model is linear there.
    """
    x = torch.full((1, 3, SIZE, SIZE), 128.0, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(x).sum(), x)
    return respond(model, ((gradient[0] > 0) * 255).to(torch.uint8).numpy())


def published(
    model: CompactModel, image: np.ndarray, n_steps: int, *, grayscale: bool = False
) -> tuple[np.ndarray, float]:
    """Return the best image as the published recipe finds it, one image at a time, and rounded."""
    if grayscale:
        image = np.broadcast_to(image.mean(axis=0), image.shape)
    best, best_response = image, respond_to_levels(model, image)
    for step in range(n_steps):
        x = torch.from_numpy(image[None].astype(np.float32)).requires_grad_()
        (gradient,) = torch.autograd.grad(model(x).sum(), x)
        g = gradient[0].double().numpy()
        if grayscale:
            g = np.broadcast_to(g.mean(axis=0), g.shape)
        g = g / (np.sqrt(np.mean(g**2)) + 1e-5)
        g = scipy.ndimage.gaussian_filter(g, sigma=(0, 1, 1))
        image = np.clip(image + 10 * g, 0, 255)
        response = respond_to_levels(model, image)
        if response > best_response:
            best, best_response = image, response
        if step and step % 50 == 0:
            image = scipy.ndimage.gaussian_filter(image, sigma=(0, 1, 1))
    whole: np.ndarray = best.round().astype(np.uint8)
    return whole, respond(model, whole)


def respond_to_levels(model: CompactModel, image: np.ndarray) -> float:
    with torch.inference_mode():
        return float(model(torch.from_numpy(image[None].astype(np.float32)))[0])


def curved() -> CompactModel:
    """Return a model with random weights that its images move through rectified ranges of."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = CompactModel((6, 5, 4, 4, 3), (SIZE, SIZE), image_mean=(0.0, 0.0, 0.0)).eval()
        with torch.no_grad():
            model.readout.normal_()
    return model


def dead_at_noise() -> CompactModel:
    """Return a model that is silent unless red is well above green and blue somewhere."""
    model = hand_made(RED, -55.0)
    with torch.no_grad():
        model.readout.fill_(1.0)
    return model


def test_drives_a_known_neuron_above_all_random_images() -> None:
    model = red_centre()
    image, response = one(model, 60, n_starts=2)
    rng = np.random.default_rng(1)
    random = rng.integers(0, 256, (200, 3, SIZE, SIZE), dtype=np.uint8)
    with torch.inference_mode():
        assert response > float(model(torch.from_numpy(random)).max())
    assert response > max(respond_to_levels(model, noise) for noise in start(n_starts=2))
    assert 0.9 * best_possible(model) < response <= best_possible(model) * (1 + 1e-6)
    middle = image[:, 6:10, 6:10].mean(axis=(1, 2))
    corner = image[:, :2, :2].mean(axis=(1, 2))
    assert middle[0] > 200 > 50 > middle[1:].max()
    assert corner[0] < 100 < 150 < corner[1:].min()


@pytest.mark.parametrize("n_steps", [1, 7, 52])
@pytest.mark.parametrize("grayscale", [False, True])
def test_is_the_published_recipe(n_steps: int, grayscale: bool) -> None:
    """52 steps: the image itself is smoothed once, and moves on."""
    models = [curved(), red_centre()]
    found = synthesize(models, n_starts=2, n_steps=n_steps, seed=1, grayscale=grayscale)
    for k, model in enumerate(models):
        wanted = [published(model, noise, n_steps, grayscale=grayscale) for noise in start(1, 2, k)]
        wanted.sort(key=lambda pair: -pair[1])
        np.testing.assert_allclose(found.responses[k], [r for _, r in wanted], rtol=2e-3)
        apart = np.abs(found.images[k].astype(float) - np.array([image for image, _ in wanted]))
        assert apart.mean() < 0.1


def test_images_are_whole_levels_and_have_the_responses_they_say() -> None:
    models = [red_centre(), curved()]
    found = synthesize(models, n_starts=3, n_steps=5, seed=0)
    assert isinstance(found, Synthesized)
    assert found.images.dtype == np.uint8
    assert found.images.shape == (2, 3, 3, SIZE, SIZE)
    assert found.responses.dtype == np.float64
    for k, model in enumerate(models):
        told = [respond(model, image) for image in found.images[k]]
        np.testing.assert_allclose(found.responses[k], told, rtol=1e-5)
    assert (np.diff(found.responses, axis=1) <= 0).all()
    assert found.climbed.all()


def test_silences_what_the_opposite_neuron_likes() -> None:
    low, least = one(red_centre(), minimize=True)
    high, most = one(red_centre(sign=-1.0))
    np.testing.assert_array_equal(low, high)
    assert least == pytest.approx(-most, rel=1e-5)
    assert least < respond_to_levels(red_centre(), start()[0])


def test_weakest_come_first_if_minimized() -> None:
    found = synthesize([curved()], n_starts=4, n_steps=5, seed=0, minimize=True)
    assert (np.diff(found.responses[0]) > 0).all()


@pytest.mark.parametrize("minimize", [False, True])
@pytest.mark.parametrize("bias", [-1e4, 1e4])
def test_responses_of_one_sign_are_no_obstacle(minimize: bool, bias: float) -> None:
    model = red_centre(bias=bias)
    image, response = one(model, minimize=minimize)
    change = response - respond_to_levels(model, start()[0])
    assert np.sign(response) == np.sign(bias)
    assert (change < -50) if minimize else (change > 50)
    assert response == pytest.approx(respond(model, image), rel=1e-5)


def test_a_step_too_far_does_not_lose_the_start() -> None:
    """A neuron tuned to a mean level just above the start's: one step of ten levels overshoots."""
    model = hand_made(BRIGHT, 0.0)
    with torch.no_grad():
        model.readout[0, 1, 1] = 1.0
    level = respond_to_levels(model, start()[0])
    model = hand_made(BRIGHT, 0.0, (0.0, level + 3))
    with torch.no_grad():
        model.readout[0, 1, 1], model.readout[1, 1, 1] = 1.0, -50.0
    image, response = one(model, 1)
    np.testing.assert_array_equal(image, start()[0].round().astype(np.uint8))
    assert response == pytest.approx(respond(model, image), rel=1e-5)


def test_a_flat_neuron_gives_its_start_and_says_so() -> None:
    found = synthesize([hand_made(RED, 0.0), red_centre()], n_starts=1, n_steps=3, seed=0)
    np.testing.assert_array_equal(found.images[0, 0], start()[0].round().astype(np.uint8))
    assert found.responses[0, 0] == 0.0
    np.testing.assert_array_equal(found.climbed, [[False], [True]])


def test_a_neuron_silent_at_the_noise_does_not_stay_there() -> None:
    model = dead_at_noise()
    x = torch.from_numpy(start(n_starts=3)).requires_grad_()
    (gradient,) = torch.autograd.grad(model(x).sum(), x)
    assert not gradient.any()  # the published recipe would never leave the noise
    found = synthesize([model], n_starts=3, n_steps=40, seed=0)
    assert found.climbed.all()
    assert (found.responses > 0.5 * best_possible_of_red(model)).all()


def best_possible_of_red(model: CompactModel) -> float:
    image = np.zeros((3, SIZE, SIZE), np.uint8)
    image[0] = 255
    return respond(model, image)


def test_more_steps_and_starts_are_never_worse() -> None:
    model = red_centre()

    def best(n_starts: int, n_steps: int) -> float:
        return one(model, n_steps, n_starts=n_starts)[1]

    assert best(1, 1) < best(1, 5) < best(1, 60) <= best(1, 61)
    assert best(1, 5) <= best(4, 5)


def test_a_start_does_not_depend_on_what_runs_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    models = [curved(), dead_at_noise(), red_centre()]
    whole = synthesize(models, n_starts=4, n_steps=6, seed=7)
    told: list[int] = []
    module = importlib.import_module("pocketcortex.stimuli.synthesize")
    monkeypatch.setattr(module, "_IMAGES_AT_ONCE", 3)
    parts = synthesize(models, n_starts=4, n_steps=6, seed=7, advance=told.append)
    assert told == [1, 1, 1]
    for a, b in zip(vars(whole).values(), vars(parts).values(), strict=True):
        np.testing.assert_array_equal(a, b)
    few = synthesize(models[:2], n_starts=2, n_steps=6, seed=7)
    for k in range(2):
        for image in few.images[k]:
            assert any(np.array_equal(image, other) for other in whole.images[k])
    assert (whole.images[0, 0] != whole.images[0, 1]).any()


def test_seed_decides_the_images_and_every_model_has_noise_of_its_own() -> None:
    models = [red_centre(), red_centre()]
    a, b, c = (synthesize(models, n_starts=1, n_steps=3, seed=s).images for s in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()
    assert (a[0] != a[1]).any()


def test_grayscale_keeps_channels_equal() -> None:
    found = synthesize([curved(), dead_at_noise()], n_starts=2, n_steps=60, seed=0, grayscale=True)
    assert (found.images == found.images[:, :, :1]).all()
    assert found.climbed[0].all()
    assert not found.climbed[1].any()  # it sees colour only


def test_given_images_are_started_from_too() -> None:
    model = red_centre()
    rng = np.random.default_rng(0)
    given = rng.integers(0, 256, (1, 2, 3, SIZE, SIZE), dtype=np.uint8)
    both = synthesize([model], n_starts=1, n_steps=8, seed=0, starts=given)
    assert both.images.shape[1] == 3
    alone = synthesize([model], n_starts=0, n_steps=8, seed=0, starts=given)
    noise = synthesize([model], n_starts=1, n_steps=8, seed=0)
    wanted = np.sort(np.concatenate([alone.responses[0], noise.responses[0]]))[::-1]
    np.testing.assert_array_equal(both.responses[0], wanted)
    for image, response in (published(model, image.astype(np.float32), 8) for image in given[0]):
        nearest = np.abs(alone.responses[0] - response).argmin()
        assert alone.responses[0, nearest] == pytest.approx(response, rel=2e-3)
        assert np.abs(alone.images[0, nearest].astype(float) - image).mean() < 0.1


def test_a_given_image_that_is_best_already_is_returned() -> None:
    model = red_centre()
    x = torch.full((1, 3, SIZE, SIZE), 128.0, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(x).sum(), x)
    best = ((gradient > 0) * 255).to(torch.uint8).numpy()
    image, response = one(model, 5, n_starts=0, starts=best[None])
    np.testing.assert_array_equal(image, best[0])
    assert response == pytest.approx(best_possible(model), rel=1e-6)


def test_constraint_keeps_mean_and_contrast() -> None:
    constraint = NaturalConstraint(mean=120.0, contrast=40.0)
    models = [curved(), red_centre()]
    found = synthesize(models, n_starts=2, n_steps=30, seed=0, constraint=constraint)
    levels = found.images.reshape(4, -1).astype(float)
    np.testing.assert_allclose(levels.mean(axis=1), 120, atol=1.0)
    np.testing.assert_allclose(levels.std(axis=1), 40, atol=1.0)
    few = synthesize(models, n_starts=2, n_steps=1, seed=0, constraint=constraint)
    assert (found.responses > few.responses).all()
    free = synthesize(models, n_starts=2, n_steps=30, seed=0)
    assert (free.responses[1] > found.responses[1]).all()


def test_models_are_left_as_they_were() -> None:
    model = red_centre().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    synthesize([model], n_starts=1, n_steps=3, seed=0)
    assert model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.gpu
def test_on_an_accelerator() -> None:
    models = [curved(), dead_at_noise(), red_centre()]
    wanted = synthesize(models, n_starts=2, n_steps=10, seed=0)
    found = synthesize(models, n_starts=2, n_steps=10, seed=0, device="cuda")
    np.testing.assert_allclose(found.responses, wanted.responses, rtol=1e-2)


@pytest.mark.parametrize(("n_starts", "n_steps"), [(0, 1), (1, 0), (-1, 1)])
def test_no_start_or_step_is_refused(n_starts: int, n_steps: int) -> None:
    with pytest.raises(InputError, match=f"got {n_starts} and {n_steps}"):
        synthesize([red_centre()], n_starts=n_starts, n_steps=n_steps, seed=0)


def test_no_model_is_refused() -> None:
    with pytest.raises(InputError, match="at least one model"):
        synthesize([], n_starts=1, n_steps=1, seed=0)


def test_starts_that_do_not_fit_are_refused() -> None:
    starts = np.zeros((2, 1, 3, SIZE, SIZE), np.uint8)
    with pytest.raises(InputError, match=r"starts must be \(1 models, n, 3, 16, 16\), got \(2, 1"):
        synthesize([red_centre()], n_starts=1, n_steps=1, seed=0, starts=starts)
