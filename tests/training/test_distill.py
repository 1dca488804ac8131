"""One network for all neurons learns its teacher, repeatably, and goes on where it was stopped."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import nn

from pocketcortex.core import InputError, StimulusSet
from pocketcortex.metrics import pearson_r2
from pocketcortex.models import CompactLayers, CompactModel, SharedCompactModel
from pocketcortex.training import Distillation, distill_shared, optimize, refresh_batch_norm
from pocketcortex.training.distill import smooth_
from pocketcortex.training.schedule import seeded

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
STIMULI = StimulusSet.from_array(IMAGES)
RESPONSES = target(IMAGES)


def learned(distillation: Distillation = SHORT, **settings: Any) -> SharedCompactModel:
    asked = {"filters": FILTERS, "seed": 0} | settings
    return distill_shared(STIMULI, RESPONSES, distillation=distillation, **asked)


def assert_equal_weights(got: nn.Module, expected: nn.Module) -> None:
    state = got.state_dict()
    for name, tensor in expected.state_dict().items():
        assert torch.equal(state[name], tensor), name


def test_student_learns_a_known_target() -> None:
    images, held_out = some_images(512), some_images(200, seed=1)
    distillation = Distillation(n_epochs=12, learning_rate=1e-2, smoothing=0.0)
    stimuli = StimulusSet.from_array(images)
    model = distill_shared(stimuli, target(images), FILTERS, distillation, seed=0)
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


@pytest.mark.parametrize("stop", [33, 97, 161])
def test_distillation_stopped_within_a_pass_goes_on_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    monkeypatch.setattr(optimize, "_IMAGES_A_CHECKPOINT", 32)
    checkpoint = tmp_path / "c.safetensors"
    with pytest.raises(StoppedError):
        learned(checkpoint=checkpoint, advance=stop_after(stop))
    told: list[int] = []
    assert_equal_weights(learned(checkpoint=checkpoint, advance=told.append), learned())
    assert told[0] == stop - 1
    assert sum(told) == 3 * 64


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
    few = STIMULI.take(slice(n_images))
    distill_shared(few, RESPONSES[:n_images], FILTERS, settings, seed=0, advance=told.append)
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
        learned(filters=(1, 2))
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


def test_readouts_have_a_learning_rate_of_their_own() -> None:
    """With all layers frozen only readouts learn, so a rate and its multiple are the same."""
    slow = replace(SHORT, learning_rate=1e-3, readout_rate=5.0)
    fast = replace(SHORT, learning_rate=5e-3, readout_rate=1.0)
    one, other = (learned(d, n_frozen=5).state_dict() for d in (slow, fast))
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], msg=name)
    still = learned(replace(SHORT, readout_rate=0.0))
    assert not still.spatial.any()


# Starting from another network, and frozen layers.


def parts_of(layers: CompactLayers, index: int) -> dict[str, torch.Tensor]:
    """Return the tensors of one layer, statistics and all."""
    modules: dict[str, nn.Module] = {"norm": layers.norms[index]}
    if index == 0:
        modules["conv"] = layers.conv
    else:
        modules |= {"depthwise": layers.depthwise[index - 1]}
        modules |= {"pointwise": layers.pointwise[index - 1]}
    named = {
        f"{kind}.{name}": tensor
        for kind, module in modules.items()
        for name, tensor in module.state_dict().items()
    }
    named.pop("norm.num_batches_tracked")
    return named


def equal_parts(one: CompactLayers, other: CompactLayers, index: int) -> set[str]:
    of_other = parts_of(other, index)
    return {n for n, tensor in parts_of(one, index).items() if torch.equal(tensor, of_other[n])}


@pytest.fixture(scope="module")
def start() -> CompactLayers:
    """Layers of a network trained on other targets."""
    stimuli = StimulusSet.from_array(some_images(64, seed=3))
    return distill_shared(stimuli, RESPONSES[::-1].copy(), FILTERS, SHORT, seed=5).layers


@pytest.mark.parametrize("n_frozen", [1, 3, 5])
def test_frozen_layers_stay_to_the_bit_while_the_others_learn(
    start: CompactLayers, n_frozen: int
) -> None:
    layers = learned(start=start, n_frozen=n_frozen).layers
    for index in range(5):
        same = equal_parts(layers, start, index)
        assert same == (set(parts_of(start, index)) if index < n_frozen else set())
    assert all(p.requires_grad for p in layers.parameters())


def test_a_network_starts_from_given_layers(start: CompactLayers) -> None:
    still = replace(SHORT, learning_rate=0.0, smoothing=0.0)
    layers, fresh = learned(still, start=start, n_start=3).layers, learned(still).layers
    statistics = {"norm.running_mean", "norm.running_var"}
    for index in range(5):
        source = start if index < 3 else fresh
        assert equal_parts(layers, source, index) >= set(parts_of(source, index)) - statistics
    assert not equal_parts(layers, start, 4) & {"depthwise.weight", "pointwise.weight"}


@pytest.mark.parametrize("filters", [(5, 6, 4, 4, 4), (6, 6, 5, 4, 4)])
def test_layers_of_other_sizes_cannot_be_started_from(
    start: CompactLayers, filters: tuple[int, ...]
) -> None:
    with pytest.raises(InputError, match=r"start from have \[6, 6, 4\] filters, the network"):
        learned(filters=filters, start=start, n_start=3)
    assert learned(filters=(6, 6, 4, 3, 3), start=start, n_start=3).layers.filters[3:] == (3, 3)


def test_fixed_random_filters_are_those_of_the_seed_with_statistics_of_the_images() -> None:
    fixed, trained = learned(n_frozen=3).layers, learned().layers
    untouched = learned(replace(SHORT, learning_rate=0.0, smoothing=0.0)).layers
    for index in range(3):
        weights = {n for n in parts_of(fixed, index) if not n.startswith("norm.running")}
        assert equal_parts(fixed, untouched, index) >= weights
        assert not equal_parts(fixed, trained, index) & {"conv.weight", "depthwise.weight"}
    normed: list[torch.Tensor] = []
    for norm in fixed.norms[:3]:
        norm.register_forward_hook(lambda _module, _inputs, z: normed.append(z.detach()))
    fixed(torch.from_numpy(IMAGES))
    for z in normed:
        assert z.mean((0, 2, 3)).abs().max() < 0.1
        assert (z.var((0, 2, 3)) - 1).abs().max() < 0.2
    assert not torch.equal(fixed.depthwise[2].weight, untouched.depthwise[2].weight)


@pytest.mark.parametrize("value", [0.0, 0.1, -1234.567, np.nan, np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_targets_without_variance_are_refused(value: float, dtype: type) -> None:
    responses = RESPONSES.astype(dtype)
    responses[:, 1] = value
    with pytest.raises(InputError, match=r"neurons \[1\] are constant or not finite"):
        distill_shared(STIMULI, responses, FILTERS, SHORT, seed=0)


def test_one_missing_response_is_refused() -> None:
    responses = RESPONSES.copy()
    responses[3, 0] = np.nan
    with pytest.raises(InputError, match=r"neurons \[0\]"):
        distill_shared(STIMULI, responses, FILTERS, SHORT, seed=0)


# Their parts.


def a_model() -> CompactModel:
    return seeded(0, lambda: CompactModel((3, 4, 3, 5, 2), (16, 16)))


def test_norms_that_evaluate_keep_their_statistics() -> None:
    model = a_model().train()
    model.layers.norms[1].eval()
    refresh_batch_norm(model, STIMULI)
    moved = [bool(norm.get_buffer("running_mean").any()) for norm in model.layers.norms]
    assert moved == [True, False, True, True, True]


@pytest.mark.parametrize("n_images", [64, 40])
def test_refreshed_statistics_are_means_over_batches(n_images: int) -> None:
    model = a_model()
    images = torch.from_numpy(some_images(n_images, seed=2))
    refresh_batch_norm(model.train(), StimulusSet.from_array(images.numpy()))
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
    model = a_model().train()
    refresh_batch_norm(model, STIMULI)
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
