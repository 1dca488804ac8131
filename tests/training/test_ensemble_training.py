"""The ensemble learns what sessions share, repeatably, and goes on where it was stopped."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pocketcortex.core import InputError
from pocketcortex.mapping import RidgeLOO
from pocketcortex.metrics import pearson_r2
from pocketcortex.models import EnsembleMember, EnsembleShape
from pocketcortex.training import (
    EnsembleTraining,
    SessionFeatures,
    embed,
    fit_members,
    map_ensemble,
    predict_responses,
)

SHAPE = EnsembleShape(in_channels=6, width=8, bottleneck=4, n_blocks=1)
TRAINING = EnsembleTraining(n_epochs=3, batch_size=16)
N_STIMULI = 40


class StoppedError(Exception):
    """Stands in for a kill in the middle of training."""


def session(seed: int, n_neurons: int = 5, n_stimuli: int = N_STIMULI) -> SessionFeatures:
    """Make neurons that read rectified mixtures of channels, the same mixtures everywhere."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n_stimuli, 6, 4, 4)).astype(np.float32)
    mixtures = np.random.default_rng(99).normal(size=(4, 6))
    shared = np.maximum(np.einsum("kc,ncij->nkij", mixtures, features), 0).mean((2, 3))
    responses = shared @ rng.normal(size=(4, n_neurons)) * 3 + 10
    return SessionFeatures(f"s{seed}", features, responses)


SESSIONS = [session(1, 5), session(2, 3)]
VALIDATION = session(3, 4)


def fitted(
    training: EnsembleTraining = TRAINING,
    *,
    n_members: int = 2,
    seed: int = 0,
    checkpoint: Path | None = None,
    advance: Callable[[int], None] = lambda n: None,
) -> tuple[list[EnsembleMember], list[float]]:
    return fit_members(
        SESSIONS, VALIDATION, SHAPE,
        n_members=n_members, training=training, seed=seed, checkpoint=checkpoint, advance=advance,
    )  # fmt: skip


def stop_after(n_images: int) -> Callable[[int], None]:
    seen = 0

    def advance(n: int) -> None:
        nonlocal seen
        seen += n
        if seen > n_images:
            raise StoppedError

    return advance


def assert_equal_members(got: list[EnsembleMember], expected: list[EnsembleMember]) -> None:
    assert len(got) == len(expected)
    for member, other in zip(got, expected, strict=True):
        for name, tensor in other.state_dict().items():
            assert torch.equal(member.state_dict()[name], tensor), name


def test_same_seed_gives_the_same_members() -> None:
    (first, history), (second, again) = fitted(), fitted()
    assert_equal_members(first, second)
    assert history == again


def test_members_of_an_ensemble_differ() -> None:
    first, second = fitted()[0]
    assert not torch.equal(first.reduce[0].weight, second.reduce[0].weight)


def test_another_seed_gives_other_members() -> None:
    first, second = fitted()[0][0], fitted(seed=10)[0][0]
    assert not torch.equal(first.reduce[0].weight, second.reduce[0].weight)


def test_every_epoch_is_in_the_history() -> None:
    _, history = fitted()
    assert len(history) == 3
    assert np.isfinite(history).all()


def test_best_members_are_kept() -> None:
    training = replace(TRAINING, n_epochs=6, learning_rate=0.3)  # too fast to end at its best
    members, history = fitted(training)
    _, held_out = map_ensemble(members, VALIDATION)
    score = np.median(pearson_r2(VALIDATION.responses, held_out))
    assert history[-1] < max(history)
    assert score == pytest.approx(max(history))
    assert not any(member.training for member in members)


def test_training_improves_the_embedding() -> None:
    sessions, validation = [session(k, 20, 120) for k in (11, 12)], session(13, 20, 120)
    training = EnsembleTraining(n_epochs=30, batch_size=32, learning_rate=1e-2)
    scores = [
        max(fit_members(sessions, validation, SHAPE, n_members=1, training=t, seed=0)[1])
        for t in (replace(training, learning_rate=0.0, n_epochs=1), training)
    ]
    assert scores[1] > scores[0] + 0.05


@pytest.mark.parametrize("stop", [10, 81, 150, 161, 239])
def test_stopped_training_ends_with_the_same_members(tmp_path: Path, stop: int) -> None:
    checkpoint = tmp_path / "c.safetensors"
    with pytest.raises(StoppedError):
        fitted(checkpoint=checkpoint, advance=stop_after(stop))
    assert checkpoint.exists() == (stop > 80)
    members, history = fitted(checkpoint=checkpoint)
    expected, whole = fitted()
    assert_equal_members(members, expected)
    assert history == whole


def test_resumed_training_does_not_repeat_what_is_done(tmp_path: Path) -> None:
    checkpoint = tmp_path / "c.safetensors"
    with pytest.raises(StoppedError):
        fitted(checkpoint=checkpoint, advance=stop_after(100))
    told: list[int] = []
    fitted(checkpoint=checkpoint, advance=told.append)
    assert told[0] == 80
    assert sum(told) == 80 * 3


def test_finished_training_is_read_from_its_checkpoint(tmp_path: Path) -> None:
    expected, _ = fitted(checkpoint=tmp_path / "c")
    told: list[int] = []
    members, _ = fitted(checkpoint=tmp_path / "c", advance=told.append)
    assert told == [240]
    assert_equal_members(members, expected)


def test_global_random_state_is_left_alone() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    fitted()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("n_members", [0, -1])
def test_no_members_are_refused(n_members: int) -> None:
    with pytest.raises(InputError, match="need sessions and members"):
        fitted(n_members=n_members)


def test_no_sessions_are_refused() -> None:
    with pytest.raises(InputError, match="need sessions and members"):
        fit_members([], VALIDATION, SHAPE, n_members=1, training=TRAINING, seed=0)


@pytest.mark.parametrize("value", [0.0, 0.1, np.nan, np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_neurons_without_variance_are_refused(value: float, dtype: type) -> None:
    responses = SESSIONS[0].responses.astype(dtype)
    responses[:, 2] = value
    with pytest.raises(InputError, match="session x: drop constant and unrecorded neurons"):
        SessionFeatures("x", SESSIONS[0].features, responses)


def test_targets_are_z_scored_with_the_population_deviation() -> None:
    z = SESSIONS[0].z_scored()
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(np.square(z).mean(axis=0), 1)


# Mapping.


def random_members(n: int) -> list[EnsembleMember]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [EnsembleMember(SHAPE).eval() for _ in range(n)]


def test_embedding_is_the_member_run_in_batches() -> None:
    members, whole = random_members(2), session(4, n_stimuli=130)
    with torch.inference_mode():
        expected = [m(torch.from_numpy(whole.features)).flatten(1).numpy() for m in members]
    for got, embedding in zip(embed(members, whole.features), expected, strict=True):
        np.testing.assert_allclose(got, embedding, rtol=1e-4, atol=1e-5)


def test_mapped_ensemble_predicts_as_its_ridge_maps() -> None:
    members = random_members(3)
    model, _ = map_ensemble(members, VALIDATION)
    new = session(5).features
    expected = np.zeros((len(new), 4))
    for member in members:
        ridge = RidgeLOO().fit(embed([member], VALIDATION.features)[0], VALIDATION.z_scored())
        expected += ridge.predict(embed([member], new)[0]) / len(members)
    np.testing.assert_allclose(predict_responses(model, new), expected, rtol=1e-3, atol=1e-4)


def test_held_out_predictions_have_not_seen_their_image() -> None:
    members = random_members(1)
    _, held_out = map_ensemble(members, VALIDATION)
    changed = VALIDATION.responses.copy()
    changed[7] = changed[7] + 1e-3  # too little to choose another alpha
    _, again = map_ensemble(members, replace(VALIDATION, responses=changed))
    shift = np.abs(again - held_out)
    seen_by_itself = map_ensemble(members, VALIDATION)[0]
    fitted_shift = np.abs(
        predict_responses(
            map_ensemble(members, replace(VALIDATION, responses=changed))[0], VALIDATION.features
        )
        - predict_responses(seen_by_itself, VALIDATION.features)
    )
    assert (shift[7] < fitted_shift[7]).all()


def test_predictions_are_in_standard_deviations() -> None:
    scaled = replace(VALIDATION, responses=VALIDATION.responses * 1000 - 5)
    members = random_members(2)
    first = predict_responses(map_ensemble(members, VALIDATION)[0], VALIDATION.features)
    second = predict_responses(map_ensemble(members, scaled)[0], VALIDATION.features)
    np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-4)


def test_half_precision_features_are_taken() -> None:
    model, _ = map_ensemble(random_members(2), VALIDATION)
    half = predict_responses(model, VALIDATION.features.astype(np.float16))
    full = predict_responses(model, VALIDATION.features)
    np.testing.assert_allclose(half, full, atol=0.05)
