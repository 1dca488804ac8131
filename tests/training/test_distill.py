"""Students learn their teacher, repeatably, and go on where they were stopped."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import nn

from pocketcortex.core import InputError
from pocketcortex.metrics import pearson_r2
from pocketcortex.models import CompactModel, SharedCompactModel
from pocketcortex.training import Distillation, distill, refresh_batch_norm, retrain
from pocketcortex.training.distill import smooth_

FILTERS = (6, 6, 4, 4, 4)
SHORT = Distillation(n_epochs=3, batch_size=16, learning_rate=5e-3)


class StoppedError(Exception):
    """Stands in for a kill in the middle of training."""


def stop_after(n_images: int) -> Callable[[int], None]:
    seen = 0

    def advance(n: int) -> None:
        nonlocal seen
        seen += n
        if seen > n_images:
            raise StoppedError

    return advance


def some_images(n: int, seed: int = 0) -> np.ndarray:
    """Draw images of blobs, so that neighbouring pixels agree."""
    noise = np.random.default_rng(seed).normal(size=(n, 3, 16, 16))
    blurred = scipy.ndimage.gaussian_filter(noise, (0, 0, 1.5, 1.5))
    return np.clip(128 + 300 * blurred, 0, 255).astype(np.uint8)


def target(images: np.ndarray) -> np.ndarray:
    """Answer as two toy neurons: redness at one place, a bright-dark edge at another."""
    x = images.astype(float)
    red = (x[:, 0] - x[:, 1])[:, 4:9, 4:9].mean((1, 2))
    edge = x[:, :, 8:12, 2:8].mean((1, 2, 3)) - x[:, :, 8:12, 8:14].mean((1, 2, 3))
    return np.stack([np.maximum(red, 0) * 0.1 + 7, -3 * edge], axis=1)


IMAGES = some_images(64)
RESPONSES = target(IMAGES)


def learned(distillation: Distillation = SHORT, **settings: object) -> SharedCompactModel:
    return distill(IMAGES, RESPONSES, FILTERS, distillation, **({"seed": 0} | settings))


def assert_equal_weights(got: nn.Module, expected: nn.Module) -> None:
    state = got.state_dict()
    for name, tensor in expected.state_dict().items():
        assert torch.equal(state[name], tensor), name


def test_student_learns_a_known_target() -> None:
    images, held_out = some_images(512), some_images(200, seed=1)
    distillation = Distillation(n_epochs=12, learning_rate=1e-2, smoothing=0.0)
    model = distill(images, target(images), FILTERS, distillation, seed=0)
    with torch.inference_mode():
        answer = model(torch.from_numpy(held_out)).double().numpy()
    assert (pearson_r2(target(held_out), answer) > 0.7).all()
    # in the target's own units
    error = np.square(answer - target(held_out)).mean(axis=0) / target(held_out).var(axis=0)
    assert (error < 0.5).all()


def test_loss_falls_with_training() -> None:
    def error(model: SharedCompactModel) -> float:
        with torch.inference_mode():
            answer = model(torch.from_numpy(IMAGES)).numpy()
        return float((np.square(answer - RESPONSES) / RESPONSES.var(axis=0)).mean())

    little, more = learned(replace(SHORT, n_epochs=1)), learned(replace(SHORT, n_epochs=10))
    assert error(more) < 0.8 * error(little)


def test_same_seed_gives_the_same_weights() -> None:
    assert_equal_weights(learned(), learned())


def test_another_seed_gives_other_weights() -> None:
    assert not torch.equal(learned().layers.conv.weight, learned(seed=1).layers.conv.weight)


@pytest.mark.parametrize("stop", [1, 65, 130, 191])
def test_stopped_distillation_ends_with_the_same_weights(tmp_path: Path, stop: int) -> None:
    checkpoint = tmp_path / "c.safetensors"
    with pytest.raises(StoppedError):
        learned(checkpoint=checkpoint, advance=stop_after(stop))
    assert checkpoint.exists() == (stop >= 64)
    assert_equal_weights(learned(checkpoint=checkpoint), learned())


def test_resumed_distillation_does_not_repeat_what_is_done(tmp_path: Path) -> None:
    checkpoint = tmp_path / "c.safetensors"
    with pytest.raises(StoppedError):
        learned(checkpoint=checkpoint, advance=stop_after(130))
    told: list[int] = []
    learned(checkpoint=checkpoint, advance=told.append)
    assert told == [128, 16, 16, 16, 16]


@pytest.mark.parametrize(("n_images", "batch_size"), [(64, 16), (40, 16), (10, 16)])
def test_progress_adds_up_to_all_images_used(n_images: int, batch_size: int) -> None:
    told: list[int] = []
    settings = replace(SHORT, batch_size=batch_size)
    distill(IMAGES[:n_images], RESPONSES[:n_images], FILTERS, settings, seed=0, advance=told.append)
    assert sum(told) == 3 * max(n_images // batch_size * batch_size, min(n_images, batch_size))


def test_global_random_state_is_left_alone() -> None:
    torch.manual_seed(5)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    learned()
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state[1])  # noqa: NPY002


def test_global_random_state_is_left_alone_by_a_refusal() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    with pytest.raises(InputError, match="five positive counts"):
        distill(IMAGES, RESPONSES, (1, 2), SHORT, seed=0)
    assert torch.equal(torch.get_rng_state(), state)


def test_result_does_not_depend_on_the_global_random_state() -> None:
    torch.manual_seed(5)
    first = learned()
    torch.manual_seed(6)
    assert_equal_weights(learned(), first)


def test_stronger_penalty_gives_sparser_mixing() -> None:
    free, bound = learned(), learned(replace(SHORT, mixing_l1=3.0))
    scale = torch.from_numpy(RESPONSES.std(axis=0))[:, None]
    assert (bound.mixing / scale).abs().mean() < 0.9 * (free.mixing / scale).abs().mean()


@pytest.mark.parametrize("value", [0.0, 0.1, -1234.567, np.nan, np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_targets_without_variance_are_refused(value: float, dtype: type) -> None:
    responses = RESPONSES.astype(dtype)
    responses[:, 1] = value
    with pytest.raises(InputError, match=r"neurons \[1\] are constant or not finite"):
        distill(IMAGES, responses, FILTERS, SHORT, seed=0)


def test_one_missing_response_is_refused() -> None:
    responses = RESPONSES.copy()
    responses[3, 0] = np.nan
    with pytest.raises(InputError, match=r"neurons \[0\]"):
        distill(IMAGES, responses, FILTERS, SHORT, seed=0)


# Retraining.


def ragged_models() -> list[CompactModel]:
    models = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for filters in [(30, 3, 3, 3, 3), (3, 4, 3, 5, 2), (30, 2, 4, 3, 3)]:
            model = CompactModel(filters, (16, 16))
            nn.init.normal_(model.readout, std=0.02)
            refresh_batch_norm(model, IMAGES)
            models.append(model)
    return models


THREE = np.concatenate([RESPONSES, RESPONSES.sum(axis=1, keepdims=True)], axis=1)


def test_retraining_a_stack_equals_retraining_each_alone() -> None:
    together = retrain(ragged_models(), IMAGES, THREE, SHORT, seed=0)
    for k, model in enumerate(ragged_models()):
        (alone,) = retrain([model], IMAGES, THREE[:, [k]], SHORT, seed=0)
        state = together[k].state_dict()
        for name, tensor in alone.state_dict().items():
            torch.testing.assert_close(state[name], tensor, rtol=1e-3, atol=1e-5, msg=name)


def test_retraining_lowers_the_error() -> None:
    def errors(models: list[CompactModel]) -> np.ndarray:
        with torch.inference_mode():
            x = torch.from_numpy(IMAGES)
            answers = torch.stack([model(x) for model in models], dim=1).numpy()
        return np.asarray(np.square(answers - THREE).mean(axis=0))

    before = ragged_models()
    after = retrain(before, IMAGES, THREE, replace(SHORT, n_epochs=8), seed=0)
    assert (errors(after) < 0.9 * errors(before)).all()


def test_retraining_leaves_its_models_and_their_statistics_alone() -> None:
    models = ragged_models()
    after = retrain(models, IMAGES, THREE, SHORT, seed=0)
    for model, same, new in zip(models, ragged_models(), after, strict=True):
        assert_equal_weights(model, same)
        assert not new.training
        for norm, other in zip(new.layers.norms, model.layers.norms, strict=True):
            assert torch.equal(norm.get_buffer("running_var"), other.get_buffer("running_var"))


@pytest.mark.parametrize("stop", [1, 70, 64 * 3 + 10, 64 * 3 * 2 + 70])
def test_stopped_retraining_ends_with_the_same_weights(tmp_path: Path, stop: int) -> None:
    checkpoint = tmp_path / "c.safetensors"
    with pytest.raises(StoppedError):
        retrain(
            ragged_models(), IMAGES, THREE, SHORT,
            seed=0, checkpoint=checkpoint, advance=stop_after(stop),
        )  # fmt: skip
    resumed = retrain(ragged_models(), IMAGES, THREE, SHORT, seed=0, checkpoint=checkpoint)
    whole = retrain(ragged_models(), IMAGES, THREE, SHORT, seed=0)
    for model, expected in zip(resumed, whole, strict=True):
        assert_equal_weights(model, expected)


def test_retraining_needs_a_column_for_each_model() -> None:
    with pytest.raises(InputError, match="3 models for 2 columns"):
        retrain(ragged_models(), IMAGES, RESPONSES, SHORT, seed=0)


def test_retraining_refuses_constant_targets() -> None:
    with pytest.raises(InputError, match=r"neurons \[2\] are constant"):
        retrain(ragged_models(), IMAGES, THREE * [1, 1, 0], SHORT, seed=0)


# Their parts.


@pytest.mark.parametrize("n_images", [64, 40])
def test_refreshed_statistics_are_means_over_batches(n_images: int) -> None:
    model = ragged_models()[1]
    images = torch.from_numpy(some_images(n_images, seed=2))
    refresh_batch_norm(model, images.numpy())
    model.train()
    means: list[list[torch.Tensor]] = [[] for _ in range(5)]
    variances: list[list[torch.Tensor]] = [[] for _ in range(5)]
    hooks = [
        norm.register_forward_pre_hook(
            lambda _module, args, k=k: (
                means[k].append(args[0].mean((0, 2, 3))),
                variances[k].append(args[0].var((0, 2, 3))),
                None,
            )[-1]
        )
        for k, norm in enumerate(model.layers.norms)
    ]
    statistics = [(n.running_mean.clone(), n.running_var.clone()) for n in model.layers.norms]
    with torch.no_grad():
        for batch in images.split(32):
            model(batch)
    for hook in hooks:
        hook.remove()
    for k, (mean, variance) in enumerate(statistics):
        expected = torch.stack(means[k]).mean(0), torch.stack(variances[k]).mean(0)
        torch.testing.assert_close(mean, expected[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(variance, expected[1], rtol=1e-4, atol=1e-4)


def test_refreshing_restores_momentum_and_evaluates() -> None:
    model = ragged_models()[1].train()
    refresh_batch_norm(model, IMAGES)
    assert not model.training
    assert {norm.momentum for norm in model.layers.norms} == {0.01}


def test_smoothing_is_a_gaussian_with_mirrored_edges() -> None:
    weights = torch.zeros(1, 1, 7, 7)
    weights[0, 0, 0, 3] = 1
    smooth_(weights, 0.5)
    kernel = np.exp(-0.5 * (np.arange(-2, 3) / 0.5) ** 2)
    kernel /= kernel.sum()
    expected = np.zeros((7, 7))
    expected[0, 1:6] = kernel * (kernel[2] + kernel[1])
    expected[1, 1:6] = kernel * (kernel[1] + kernel[0])
    expected[2, 1:6] = kernel * kernel[0]
    np.testing.assert_allclose(weights[0, 0].numpy(), expected, atol=1e-6)


def test_no_smoothing_changes_nothing() -> None:
    weights = torch.randn(2, 5, 5)
    before = weights.clone()
    smooth_(weights, 0.0)
    assert torch.equal(weights, before)
