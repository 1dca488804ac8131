"""Students trained together have the numbers of students trained alone, whatever stops them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import nn

from pocketcortex.core import InputError, StimulusSet
from pocketcortex.metrics import pearson_r2
from pocketcortex.models import CompactLayers, CompactModel, CompactStack
from pocketcortex.training import (
    Distillation,
    Distilled,
    Monitor,
    distill_students,
    new_students,
    optimize,
    refresh_batch_norm,
    retrain,
    students,
    students_on_trunk,
)
from pocketcortex.training.schedule import seeded

SIZE = (16, 16)
N_IMAGES, BATCH, N_STEPS = 48, 12, 4  # steps a pass
SHORT = Distillation(n_epochs=2, batch_size=BATCH, learning_rate=5e-3)


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
    noise = np.random.default_rng(seed).normal(size=(n, 3, *SIZE))
    blurred = scipy.ndimage.gaussian_filter(noise, (0, 0, 1.5, 1.5))
    return np.clip(128 + 300 * blurred, 0, 255).astype(np.uint8)


def target(images: np.ndarray) -> np.ndarray:
    """Answer as three toy neurons: redness at one place, an edge at another, and noise."""
    x = images.astype(float)
    red = (x[:, 0] - x[:, 1])[:, 4:9, 4:9].mean((1, 2))
    edge = x[:, :, 8:12, 2:8].mean((1, 2, 3)) - x[:, :, 8:12, 8:14].mean((1, 2, 3))
    noise = np.random.default_rng(len(images)).normal(size=len(images))
    return np.stack([red * 0.1 + 7, noise, -3 * edge], axis=1)


IMAGES = some_images(N_IMAGES)
STIMULI = StimulusSet.from_array(IMAGES)
RESPONSES = target(IMAGES)
SEEN = some_images(32, seed=1)
MONITOR = Monitor(StimulusSet.from_array(SEEN), target(SEEN))


class Kind(NamedTuple):
    """Students of one kind, in double precision, and how they are trained."""

    models: list[CompactModel]
    settings: dict[str, Any]


def fresh() -> Kind:
    filters = [(6, 4, 4, 3, 4), (4, 4, 4, 4, 4), (4, 5, 2, 4, 3)]
    models = [new_students(1, f, SIZE, seed=k)[0] for k, f in enumerate(filters)]
    return Kind([m.double() for m in models], {})


def on_trunk() -> Kind:
    models = students_on_trunk(a_trunk(), 3, (4, 3), seed=0)
    return Kind([m.double() for m in models], {"n_shared": 3})


def ragged() -> Kind:
    models = []
    for seed, filters in enumerate([(5, 3, 3, 3, 3), (3, 4, 3, 5, 2), (7, 2, 4, 3, 3)]):
        model = seeded(seed, lambda f=filters: CompactModel(f, SIZE)).train()
        seeded(seed, lambda m=model: nn.init.normal_(m.readout, std=0.02))
        refresh_batch_norm(model, STIMULI)
        models.append(model.double())
    return Kind(models, {"keep_statistics": True})


def a_trunk() -> CompactLayers:
    """Return layers with statistics of their own and norms that do something."""
    model = new_students(1, (5, 4, 3, 2, 2), SIZE, seed=9)[0].train()
    with torch.no_grad():
        for norm in model.layers.norms:
            norm.weight.copy_(torch.linspace(0.5, 1.5, len(norm.weight)))
            norm.bias.copy_(torch.linspace(-0.2, 0.3, len(norm.bias)))
    refresh_batch_norm(model, STIMULI)
    return model.layers


KINDS = pytest.mark.parametrize("kind", [fresh, on_trunk, ragged])
GROUPED_KINDS = pytest.mark.parametrize(
    ("kind", "grouped"), [(fresh, False), (fresh, True), (on_trunk, True), (ragged, False)]
)


def trained(
    kind: Kind,
    distillation: Distillation = SHORT,
    columns: Sequence[int] = (0, 1, 2),
    **more: Any,
) -> Distilled:
    """Train some of the students; `monitored=True` follows them."""
    if more.pop("monitored", False):
        more["monitor"] = Monitor(MONITOR.stimuli, MONITOR.responses[:, columns])
    models, responses = [kind.models[k] for k in columns], RESPONSES[:, columns]
    return distill_students(
        models, STIMULI, responses, distillation, **({"seed": 0} | kind.settings | more)
    )


def assert_equal_weights(got: nn.Module, expected: nn.Module) -> None:
    state = got.state_dict()
    for name, tensor in expected.state_dict().items():
        assert torch.equal(state[name], tensor), name


def assert_close_weights(got: nn.Module, expected: nn.Module) -> None:
    """Compare weights to a part in 10⁷: double precision over some steps of Adam."""
    state = named_tensors(got)
    for name, tensor in named_tensors(expected).items():
        torch.testing.assert_close(state[name], tensor, rtol=1e-7, atol=1e-9, msg=name)


def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let students step in groups of two and one, or of one and two."""
    monkeypatch.setattr(students, "_GROUP_FILTERS", 8)
    monkeypatch.setattr(students, "_GROUP_ON_TRUNK", 2)


# Together and alone.


@GROUPED_KINDS
def test_students_together_equal_each_alone(
    kind: Callable[[], Kind], grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if grouped:
        small_groups(monkeypatch)
    together = trained(kind(), monitored=True)
    for k, model in enumerate(together.models):
        alone = trained(kind(), columns=[k], monitored=True)
        assert_close_weights(model, alone.models[0])
        np.testing.assert_allclose(together.monitor_r2[:, [k]], alone.monitor_r2, rtol=1e-6)


@KINDS
def test_students_learn_and_what_they_start_from_is_left_alone(kind: Callable[[], Kind]) -> None:
    before = kind()
    after = trained(before, replace(PATIENT, n_epochs=8, learning_rate=1e-2, patience=None))
    answer = CompactStack(after.models).predict(torch.from_numpy(IMAGES)).numpy()
    error = np.square(answer - RESPONSES).mean(axis=0)  # in the target's units
    assert (error < 0.6 * RESPONSES.var(axis=0)).all()
    for model, same, new in zip(before.models, kind().models, after.models, strict=True):
        assert_equal_weights(model, same)
        assert not new.training
        assert all(p.requires_grad for p in new.parameters())


def test_a_shared_trunk_stays_to_the_bit() -> None:
    early = ("conv.", "norms.0.", "norms.1.", "norms.2.", "depthwise.0.", "depthwise.1.",
             "pointwise.0.", "pointwise.1.")  # fmt: skip
    trunk = named_tensors(a_trunk().double())
    for model in trained(on_trunk()).models:
        state = named_tensors(model.layers)
        same = {n for n in trunk if torch.equal(state[n][: len(trunk[n])], trunk[n])}
        assert same == {n for n in trunk if n.startswith(early)} | {"image_mean"}


def named_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    state = module.state_dict().items()
    return {name: tensor for name, tensor in state if not name.endswith("num_batches_tracked")}


def test_retraining_keeps_the_statistics_and_nothing_else() -> None:
    before = ragged().models
    after = retrain(before, STIMULI, RESPONSES, SHORT, seed=0).models
    for model, new in zip(before, after, strict=True):
        state, old = named_tensors(new), named_tensors(model)
        same = {n.split(".")[-1] for n, tensor in state.items() if torch.equal(tensor, old[n])}
        assert same == {"image_mean", "running_mean", "running_var"}


def test_new_statistics_are_those_of_the_images() -> None:
    (model, *_) = trained(fresh()).models
    held = {n: tensor.clone() for n, tensor in named_tensors(model).items()}
    refresh_batch_norm(model.train(), STIMULI)
    for name, tensor in named_tensors(model).items():
        torch.testing.assert_close(tensor, held[name], rtol=1e-7, atol=1e-9, msg=name)


def test_readouts_have_a_learning_rate_of_their_own() -> None:
    settings = replace(SHORT, readout_rate=0.0, smoothing=0.0)
    before = ragged()
    for old, new in zip(before.models, trained(before, settings).models, strict=True):
        torch.testing.assert_close(new.readout, old.readout)
        assert not torch.allclose(new.layers.conv.weight, old.layers.conv.weight, rtol=1e-3)


def test_the_last_of_the_history_is_what_the_students_answer() -> None:
    found = trained(fresh(), monitored=True)
    answer = CompactStack(found.models).predict(torch.from_numpy(SEEN)).numpy()
    assert found.monitor_r2.shape == (2, 3)
    np.testing.assert_allclose(found.monitor_r2[-1], pearson_r2(MONITOR.responses, answer))
    assert trained(fresh()).monitor_r2.shape == (0, 3)


def test_watching_changes_no_weight() -> None:
    for watched, other in zip(
        trained(fresh(), monitored=True).models, trained(fresh()).models, strict=True
    ):
        assert_equal_weights(watched, other)


# Students that stop early.


@cache
def patient(kind: Callable[[], Kind]) -> Distilled:
    return trained(kind(), PATIENT, monitored=True)


PATIENT = Distillation(
    n_epochs=7, batch_size=BATCH, learning_rate=3e-3, schedule="constant", patience=2, smoothing=0.0
)


def checked_stops(history: np.ndarray) -> tuple[int, list[int]]:
    """Return when the first students stop and which then go on; check when each stopped."""
    counts = np.isfinite(history).sum(axis=0)
    for k, n in enumerate(counts):
        assert np.isfinite(history[:n, k]).all()
        assert np.isnan(history[n:, k]).all()
        best = int(np.argmax(history[:n, k]))
        assert n == min(best + 1 + 2, len(history))
    first = int(counts.min())
    going = np.flatnonzero(counts > first).tolist()
    assert 1 <= len(going) < len(counts)
    return first, going


@GROUPED_KINDS
def test_a_student_that_stops_changes_nothing_for_the_others(
    kind: Callable[[], Kind], grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if grouped:
        small_groups(monkeypatch)
    together = trained(kind(), PATIENT, monitored=True) if grouped else patient(kind)
    _, going = checked_stops(together.monitor_r2)
    without = trained(kind(), PATIENT, columns=going, monitored=True)
    for k, other in zip(going, without.models, strict=True):
        assert_close_weights(together.models[k], other)
    np.testing.assert_allclose(together.monitor_r2[:, going], without.monitor_r2, rtol=1e-6)


@KINDS
def test_every_student_has_the_weights_of_its_best_epoch(kind: Callable[[], Kind]) -> None:
    found = patient(kind)
    _, going = checked_stops(found.monitor_r2)
    for k in (going[0], next(k for k in range(3) if k not in going)):
        best = 1 + int(np.nanargmax(found.monitor_r2[:, k]))
        settings = replace(PATIENT, n_epochs=best, patience=None)
        (alone,) = trained(kind(), settings, columns=[k]).models
        assert_close_weights(found.models[k], alone)


def test_without_patience_every_student_has_its_last_weights() -> None:
    settings = replace(PATIENT, patience=None, n_epochs=5)
    found = trained(fresh(), settings, monitored=True)
    assert np.isfinite(found.monitor_r2).all()
    assert np.argmax(found.monitor_r2[:, 1]) < 4
    (alone,) = trained(fresh(), settings, columns=[1]).models
    assert_close_weights(found.models[1], alone)


def test_a_student_without_any_agreement_stops_with_what_it_has() -> None:
    """A monitored target that is constant has no r², so nothing is ever gained."""
    monitor = Monitor(MONITOR.stimuli, MONITOR.responses * [1, 0, 1])
    found = trained(fresh(), PATIENT, monitor=monitor)
    assert np.isnan(found.monitor_r2[:, 1]).all()
    (alone,) = trained(fresh(), replace(PATIENT, n_epochs=2, patience=None), columns=[1]).models
    assert_close_weights(found.models[1], alone)


# Students that are killed.


@KINDS
def test_stopped_students_end_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Callable[[], Kind]
) -> None:
    monkeypatch.setattr(optimize, "_IMAGES_A_CHECKPOINT", 2 * BATCH)
    small_groups(monkeypatch)
    whole = trained(kind()).models
    for n_steps in (0, 7):
        checkpoint = tmp_path / f"{n_steps}.safetensors"
        with pytest.raises(StoppedError):
            trained(kind(), checkpoint=checkpoint, advance=stop_after(n_steps * 3 * BATCH))
        told: list[int] = []
        resumed = trained(kind(), checkpoint=checkpoint, advance=told.append).models
        assert told[0] == max(1, n_steps // 2 * 2) * 3 * BATCH
        assert sum(told) == 2 * 3 * N_IMAGES
        for model, expected in zip(resumed, whole, strict=True):
            assert_equal_weights(model, expected)


@KINDS
def test_killed_students_of_which_some_have_stopped_end_with_the_same_weights(
    tmp_path: Path, kind: Callable[[], Kind]
) -> None:
    whole = patient(kind)
    first, going = checked_stops(whole.monitor_r2)
    before = first * N_STEPS * 3 + 2 * len(going)  # steps, counted once for each student
    checkpoint = tmp_path / "c.safetensors"
    with pytest.raises(StoppedError):
        trained(
            kind(), PATIENT, monitored=True,
            checkpoint=checkpoint, advance=stop_after(before * BATCH),
        )  # fmt: skip
    resumed = trained(kind(), PATIENT, monitored=True, checkpoint=checkpoint)
    np.testing.assert_array_equal(resumed.monitor_r2, whole.monitor_r2)
    for model, expected in zip(resumed.models, whole.models, strict=True):
        assert_equal_weights(model, expected)


def test_finished_students_are_not_trained_again(tmp_path: Path) -> None:
    settings = replace(PATIENT, patience=1, learning_rate=0.0)  # nobody ever gains after epoch 1
    checkpoint, told = tmp_path / "c.safetensors", []
    first = trained(fresh(), settings, monitored=True, checkpoint=checkpoint, advance=told.append)
    assert sum(told) == 2 * 3 * N_IMAGES
    told.clear()
    again = trained(fresh(), settings, monitored=True, checkpoint=checkpoint, advance=told.append)
    assert sum(told) == 0
    np.testing.assert_array_equal(first.monitor_r2, again.monitor_r2)
    for model, expected in zip(again.models, first.models, strict=True):
        assert_equal_weights(model, expected)


def test_global_random_state_is_left_alone() -> None:
    torch.manual_seed(5)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    one = trained(on_trunk(), replace(SHORT, n_epochs=1))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state[1])  # noqa: NPY002
    torch.manual_seed(6)
    for model, expected in zip(
        trained(on_trunk(), replace(SHORT, n_epochs=1)).models, one.models, strict=True
    ):
        assert_equal_weights(model, expected)


# New students.


def test_a_new_student_depends_on_its_number_and_the_seed_alone() -> None:
    few, many, others = (
        new_students(n, (4, 3, 2, 3, 4), SIZE, seed=s) for n, s in ((2, 1), (5, 1), (2, 2))
    )
    assert_equal_weights(few[1], many[1])
    kernels = {tuple(m.layers.conv.weight.flatten().tolist()) for m in (*many, *others)}
    assert len(kernels) == 7


def test_new_students_are_glorot_uniform_without_biases() -> None:
    (model,) = new_students(1, (40, 40, 40, 40, 40), SIZE, seed=0)
    bounds = {
        model.layers.conv.weight: 6 / (3 * 25 + 40 * 25),
        model.layers.depthwise[0].weight: 6 / (25 + 40 * 25),
        model.layers.pointwise[0].weight: 6 / 80,
        model.readout: 6 / (40 * 16 + 1),
    }
    for weight, square in bounds.items():
        largest = weight.detach().abs().max().item()
        assert 0.95 * square**0.5 < largest <= square**0.5 * (1 + 1e-6)
        assert weight.detach().std().item() == pytest.approx((square / 3) ** 0.5, rel=0.1)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name


def test_students_on_a_trunk_are_the_trunk_and_new_layers() -> None:
    trunk = a_trunk()
    grown = students_on_trunk(trunk, 2, (4, 3), seed=3)
    fresh_ones = new_students(2, (5, 4, 3, 4, 3), SIZE, seed=3)
    for model, other in zip(grown, fresh_ones, strict=True):
        assert model.filters == (5, 4, 3, 4, 3)
        for index in (2, 3):
            assert torch.equal(
                model.layers.pointwise[index].weight, other.layers.pointwise[index].weight
            )
        assert torch.equal(model.readout, other.readout)
    assert len(CompactStack(grown, 3)) == 2  # which refuses trunks that differ
    for name in ("conv.weight", "depthwise.1.weight", "norms.2.running_var"):
        assert torch.equal(grown[1].layers.state_dict()[name], trunk.state_dict()[name]), name


# What is refused.


def test_a_column_for_each_model_is_needed() -> None:
    with pytest.raises(InputError, match="3 models for 2 columns"):
        distill_students(fresh().models, STIMULI, RESPONSES[:, :2], SHORT, seed=0)


def test_constant_targets_are_refused() -> None:
    with pytest.raises(InputError, match=r"neurons \[2\] are constant"):
        retrain(ragged().models, STIMULI, RESPONSES * [1, 1, 0], SHORT, seed=0)


def test_patience_needs_images_to_monitor() -> None:
    with pytest.raises(InputError, match="give a monitor or set patience to None"):
        trained(fresh(), PATIENT)


def test_a_monitored_column_for_each_model_is_needed() -> None:
    monitor = Monitor(MONITOR.stimuli, MONITOR.responses[:, :2])
    with pytest.raises(InputError, match="3 models, but monitored responses of 2"):
        trained(fresh(), monitor=monitor)


def test_students_that_do_not_share_their_first_layers_are_refused() -> None:
    with pytest.raises(InputError, match="shared layers must be equal"):
        trained(fresh(), n_shared=1)
