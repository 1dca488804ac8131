"""The loop that trains students: every image once a pass, stopped anywhere and gone on with."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pocketcortex.core import InputError, StimulusSet
from pocketcortex.training import Distillation, Monitor, optimize
from pocketcortex.training.schedule import one_cycle

N_IMAGES, SIZE = 22, 4
IMAGES = np.random.default_rng(0).integers(0, 256, (N_IMAGES, 3, 4, 4), dtype=np.uint8)
STIMULI = StimulusSet.from_array(IMAGES)
SETTINGS = Distillation(n_epochs=3, batch_size=SIZE, learning_rate=1.0)
N_STEPS = 3 * (N_IMAGES // SIZE)


class StoppedError(Exception):
    """Stands in for a kill."""


class Diary:
    """A learner that writes down what it is shown; killed after some steps of its own life."""

    def __init__(self, *, killed_after: int = 1000, n_active: int = 2) -> None:
        self.n_active, self.killed_after = n_active, killed_after
        self.seen, self.rates, self.ends = torch.zeros(0, SIZE), torch.zeros(0), torch.zeros(0)

    def step(self, images: Tensor, index: np.ndarray, rate: float) -> None:
        if not self.killed_after:
            raise StoppedError
        self.killed_after -= 1
        assert np.array_equal(images.numpy(), IMAGES[index])
        self.seen = torch.cat([self.seen, torch.from_numpy(index)[None].float()])
        self.rates = torch.cat([self.rates, torch.tensor([rate])])

    def end_epoch(self, *, last: bool) -> None:
        self.ends = torch.cat([self.ends, torch.tensor([len(self.seen) + last / 2])])

    def tensors(self) -> dict[str, Tensor]:
        return {"seen": self.seen, "rates": self.rates, "ends": self.ends}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self.seen, self.rates, self.ends = (tensors[name] for name in ("seen", "rates", "ends"))


def keep(
    learner: Diary,
    settings: Distillation = SETTINGS,
    checkpoint: Path | None = None,
    told: list[int] | None = None,
) -> Diary:
    optimize.optimize(
        learner, STIMULI, settings,
        seed=1, device="cpu", checkpoint=checkpoint, advance=(told or []).append,
    )  # fmt: skip
    return learner


def test_every_pass_shows_every_image_once_in_an_order_of_its_own() -> None:
    passes = keep(Diary()).seen.reshape(3, -1).numpy()
    assert passes.shape[1] == 20  # what does not fill a batch is left out
    assert all(len(set(row)) == 20 for row in passes)
    assert len({tuple(row) for row in passes}) == 3


def test_a_pass_ends_after_its_steps_and_the_last_one_is_told() -> None:
    assert keep(Diary()).ends.tolist() == [5, 10, 15.5]


@pytest.mark.parametrize("every", [4, 12, 20, 20_000])
@pytest.mark.parametrize("killed_after", [0, 1, 4, 5, 7, 12, 14])
def test_a_killed_loop_goes_on_where_its_checkpoint_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int, killed_after: int
) -> None:
    monkeypatch.setattr(optimize, "_IMAGES_A_CHECKPOINT", every)
    checkpoint = tmp_path / "c.safetensors"
    with pytest.raises(StoppedError):
        keep(Diary(killed_after=killed_after), checkpoint=checkpoint)
    steps = every // SIZE
    left = max(killed_after // 5 * 5, killed_after // steps * steps)
    told, whole = [-1], keep(Diary())
    again = keep(Diary(killed_after=N_STEPS - left), checkpoint=checkpoint, told=told)
    for name, tensor in whole.tensors().items():
        assert torch.equal(again.tensors()[name], tensor), name
    per_step = SIZE * whole.n_active
    assert told[1:] == ([left * per_step] if left else []) + [per_step] * (N_STEPS - left)
    assert keep(Diary(killed_after=0), checkpoint=checkpoint).seen.shape == whole.seen.shape


def test_nothing_is_done_for_networks_that_have_all_stopped(tmp_path: Path) -> None:
    class Tired(Diary):
        def end_epoch(self, *, last: bool) -> None:
            super().end_epoch(last=last)
            self.n_active = 0

    assert len(keep(Tired(), checkpoint=tmp_path / "c").seen) == 5


def test_rates_are_those_of_the_schedule() -> None:
    expected = [one_cycle(1.0, step, N_STEPS, 0.1) for step in range(N_STEPS)]
    np.testing.assert_allclose(keep(Diary()).rates, expected, rtol=1e-6)
    constant = keep(Diary(), replace(SETTINGS, schedule="constant", learning_rate=0.25))
    assert set(constant.rates.tolist()) == {0.25}


def test_a_batch_is_never_larger_than_the_bank() -> None:
    assert keep(Diary(), replace(SETTINGS, n_epochs=1)).seen.shape == (5, 4)
    few = STIMULI.take(slice(SIZE))
    learner = Diary()
    optimize.optimize(
        learner, few, replace(SETTINGS, batch_size=100),
        seed=1, device="cpu", checkpoint=None, advance=lambda n: None,
    )  # fmt: skip
    assert learner.seen.tolist() == [[0, 1, 2, 3]] * 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_epochs": 0}, {"batch_size": 0}, {"patience": 0}, {"learning_rate": -1e-3},
        {"readout_rate": -1.0}, {"smoothing": -0.5}, {"mixing_l1": -1.0},
        {"learning_rate": float("nan")}, {"smoothing": float("inf")},
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="distillation needs epochs"):
        Distillation(**wrong)


def test_an_unknown_schedule_is_refused() -> None:
    settings = Distillation()
    object.__setattr__(settings, "schedule", "cosine")  # the type check of these tests comes first
    with pytest.raises(InputError, match="one_cycle or constant, got 'cosine'"):
        settings.__post_init__()


def test_moments_are_those_of_each_neuron() -> None:
    responses = np.random.default_rng(1).normal(3, [1, 5], (N_IMAGES, 2)).astype(np.float32)
    mean, sd = optimize.moments(STIMULI, responses)
    np.testing.assert_allclose(mean, responses.astype(float).mean(axis=0))
    np.testing.assert_allclose(sd, responses.astype(float).std(axis=0))
    assert mean.dtype == sd.dtype == np.float64


def test_images_and_responses_must_agree_in_number() -> None:
    responses = np.zeros((N_IMAGES - 1, 2))
    with pytest.raises(InputError, match="22 images for responses to 21"):
        optimize.moments(STIMULI, responses)
    with pytest.raises(InputError, match="22 monitored images for responses to 21"):
        Monitor(STIMULI, responses)
    with pytest.raises(InputError, match="no images to distil with"):
        optimize.moments(STIMULI.take([]), np.zeros((0, 2)))


def test_raw_batches_are_all_images_in_order() -> None:
    batches = list(optimize.raw_batches(STIMULI, 8))
    assert [len(batch) for batch in batches] == [8, 8, 6]
    assert np.array_equal(np.concatenate(batches), IMAGES)
