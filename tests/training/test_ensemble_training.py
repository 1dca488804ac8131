"""The ensemble learns what sessions share, repeatably, and goes on where it was stopped."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from pocketcortex.core import InputError, PocketcortexError
from pocketcortex.mapping import FactorizedMapping, RidgeLOO
from pocketcortex.metrics import pearson_r2
from pocketcortex.models import EnsembleMember, EnsembleModel, EnsembleShape, FactorizedReadout
from pocketcortex.training import (
    EnsembleTraining,
    SessionFeatures,
    embed,
    fit_members,
    map_ensemble,
    member_disagreement,
    predict_responses,
)
from pocketcortex.training.schedule import one_cycle

SHAPE = EnsembleShape(in_channels=6, width=8, bottleneck=4, n_blocks=1)
TRAINING = EnsembleTraining(n_epochs=3, batch_size=16)
PUBLISHED = EnsembleTraining(
    n_epochs=2, learning_rate=0.5, batch_size=16, readout_scale=0.1, schedule="published"
)
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
    _, held_out = map_ensemble(members, VALIDATION, mapping="ridge")
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


@pytest.mark.parametrize("stop", [10, 81, 200])
def test_stopped_published_training_ends_with_the_same_members(tmp_path: Path, stop: int) -> None:
    checkpoint, told = tmp_path / "c.safetensors", []
    with pytest.raises(StoppedError):
        fitted(PUBLISHED, checkpoint=checkpoint, advance=stop_after(stop))
    members, history = fitted(PUBLISHED, checkpoint=checkpoint, advance=told.append)
    expected, whole = fitted(PUBLISHED)
    assert_equal_members(members, expected)
    assert history == whole
    assert sum(told) == 80 * (1 + 2)


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


# All members at once are each member alone.


def always_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the last members the best, so that trainings end at the same epoch."""
    scores = iter(range(1000))
    monkeypatch.setattr(
        "pocketcortex.training.ensemble._validation_score", lambda *_: float(next(scores))
    )


def assert_close_members(got: list[EnsembleMember], expected: list[EnsembleMember]) -> None:
    assert len(got) == len(expected)
    for member, other in zip(got, expected, strict=True):
        for name, tensor in other.state_dict().items():
            torch.testing.assert_close(
                member.state_dict()[name], tensor, rtol=2e-3, atol=2e-4, msg=name
            )


def seeded_readout(k: int, session: int, scale: float, *place: int) -> FactorizedReadout:
    n_neurons = SESSIONS[session].responses.shape[1]
    seed = int(np.random.SeedSequence([k, session, *place]).generate_state(1)[0])
    source = torch.Generator().manual_seed(seed)
    return FactorizedReadout(8, 2, 2, n_neurons, scale=scale, generators=[source])


def seeded_member(seed: int) -> EnsembleMember:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        member = EnsembleMember(SHAPE)
    maps = np.concatenate([s.features for s in SESSIONS]).astype(np.float64)
    member.feature_scale.copy_(torch.from_numpy(maps.std(axis=(0, 2, 3)) + 1e-3))
    for name, parameter in member.named_parameters():  # before a batch norm: no gradient
        parameter.requires_grad_(not name.endswith((".0.bias", ".0.1.bias", ".3.1.bias")))
    return member.train()


def squared_error(member: EnsembleMember, readout: FactorizedReadout, k: int, b: np.ndarray):
    x = torch.from_numpy(SESSIONS[k].features[b])
    y = torch.from_numpy(SESSIONS[k].z_scored()[b].astype(np.float32))
    return (readout(member(x)[None])[0] - y).square()


def parts(rng: np.random.Generator, k: int) -> list[tuple[int, np.ndarray]]:
    return [(k, np.sort(part)) for part in np.array_split(rng.permutation(N_STIMULI), 3)]


def jointly_trained(seed: int, orders: int) -> EnsembleMember:
    """Train one member as a plain loop would, with torch's plain AdamW."""
    member = seeded_member(seed)
    readouts = [seeded_readout(seed, k, 0.05) for k in range(2)]
    trained = nn.ModuleList([member, *readouts])
    optimizer = torch.optim.AdamW(
        [p for p in trained.parameters() if p.requires_grad], weight_decay=0.1, foreach=False
    )
    for epoch in range(3):
        rng = np.random.default_rng([orders, epoch])
        batches = parts(rng, 0) + parts(rng, 1)
        for step, index in enumerate(rng.permutation(6), 6 * epoch):
            optimizer.param_groups[0]["lr"] = one_cycle(1e-2, step, 18, 0.2)
            optimizer.zero_grad()
            squared_error(member, readouts[batches[index][0]], *batches[index]).mean().backward()
            optimizer.step()
    return member


def published_trained(seed: int, orders: int) -> EnsembleMember:
    """Train one member by the published schedule as a plain loop would."""
    member = seeded_member(seed)
    for epoch in range(2):
        rng = np.random.default_rng([orders, epoch])
        rate, momenta = (
            0.5 * 0.85**epoch,
            [torch.zeros_like(p) for p in member.parameters() if p.requires_grad],
        )
        for k in map(int, rng.permutation(2)):
            readout = seeded_readout(seed, k, 0.1, epoch + 1)
            parameters = [
                p for p in (*member.parameters(), *readout.parameters()) if p.requires_grad
            ]
            both = momenta + [torch.zeros_like(p) for p in readout.parameters()]
            for _, batch in [b for _ in range(epoch + 1) for b in parts(rng, k)]:
                error = squared_error(member, readout, k, batch).sum(1).mean() / 200
                gradients = torch.autograd.grad(error, parameters)
                with torch.no_grad():
                    for p, gradient, momentum in zip(parameters, gradients, both, strict=True):
                        momentum.mul_(0.75).add_(gradient.clamp(-0.5, 0.5))
                        p.sub_(rate * momentum)
    return member


@pytest.mark.parametrize("n_members", [1, 3])
def test_members_in_one_pass_are_each_trained_alone(
    n_members: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    always_better(monkeypatch)
    members, _ = fitted(n_members=n_members, seed=4)
    assert_close_members(members, [jointly_trained(4 + k, 4) for k in range(n_members)])


@pytest.mark.parametrize("n_members", [1, 3])
def test_published_schedule_is_a_plain_loop(
    n_members: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    always_better(monkeypatch)
    members, history = fitted(PUBLISHED, n_members=n_members, seed=4)
    assert_close_members(members, [published_trained(4 + k, 4) for k in range(n_members)])
    assert len(history) == 4  # one validation a visit


@pytest.mark.parametrize("training", [TRAINING, PUBLISHED], ids=["joint", "published"])
def test_an_ensemble_may_be_trained_in_parts(
    training: EnsembleTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    always_better(monkeypatch)
    whole = fitted(training, n_members=3)[0]
    last = fit_members(
        SESSIONS, VALIDATION, SHAPE, n_members=2, training=training, seed=0, first_member=1
    )[0]
    assert_close_members(last, whole[1:])


@pytest.mark.gpu
@pytest.mark.parametrize("training", [TRAINING, PUBLISHED], ids=["joint", "published"])
def test_training_runs_on_a_gpu(training: EnsembleTraining) -> None:
    members, history = fit_members(
        SESSIONS, VALIDATION, SHAPE, n_members=2, training=training, seed=0, device="cuda"
    )
    assert members[0].reduce[0].weight.device.type == "cuda"
    assert members[0].reduce[0].weight.dtype == torch.float32
    assert max(history) > 0


def test_published_values_are_the_schedule_s_defaults() -> None:
    assert EnsembleTraining().resolved() == (1e-2, 32, 0.05)
    assert EnsembleTraining(schedule="published").resolved() == (2.0, 64, 1e-4)
    given = EnsembleTraining(learning_rate=0.5, batch_size=7, readout_scale=0.2)
    assert given.resolved() == (0.5, 7, 0.2)


@pytest.mark.parametrize(
    "wrong",
    [{"n_epochs": 0}, {"batch_size": 0}, {"learning_rate": -1.0}, {"readout_scale": 0.0}],
    ids=str,
)
def test_impossible_training_is_refused(wrong: dict[str, int | float]) -> None:
    with pytest.raises(InputError, match="training needs"):
        replace(TRAINING, **wrong)


def test_members_keep_the_scale_of_the_sessions_features() -> None:
    factors = np.array([1, 1e-3, 30, 1, 1, 0], np.float32)[:, None, None]
    offset = np.array([0, 0, 900, 0, 0, 7], np.float32)[:, None, None]
    sessions = [replace(s, features=s.features * factors + offset) for s in SESSIONS]
    training = replace(TRAINING, n_epochs=1, learning_rate=0.0)
    members, _ = fit_members(sessions, sessions[0], SHAPE, n_members=2, training=training, seed=0)
    maps = np.concatenate([s.features for s in sessions]).astype(np.float64)
    for member in members:
        scale = member.feature_scale.numpy()
        np.testing.assert_allclose(scale, maps.std(axis=(0, 2, 3)) + 1e-3, rtol=1e-5)
        assert scale[5] == np.float32(1e-3)


def test_unscaled_layers_learn_as_scaled_ones() -> None:
    factors = np.array([1, 1000, 1, 20, 1, 1], np.float32)[:, None, None]
    scaled = [replace(s, features=s.features * factors) for s in (*SESSIONS, VALIDATION)]
    _, expected = fitted()
    _, history = fit_members(scaled[:2], scaled[2], SHAPE, n_members=2, training=TRAINING, seed=0)
    np.testing.assert_allclose(history, expected, atol=0.05)


def test_member_of_one_convolution_is_trained() -> None:
    shape = EnsembleShape(6, 8, 1, n_blocks=0, stride=0)
    members, history = fit_members(
        SESSIONS, VALIDATION, shape, n_members=2, training=TRAINING, seed=0
    )
    assert embed(members, VALIDATION.features)[0].shape == (N_STIMULI, 8, 4, 4)
    assert max(history) > 0


@pytest.mark.parametrize("schedule", ["joint", "published"])
def test_diverged_training_is_said(schedule: Literal["joint", "published"]) -> None:
    with pytest.raises(PocketcortexError, match=r"diverged in epoch 1.*lower the learning rate"):
        fitted(replace(TRAINING, schedule=schedule, learning_rate=1e30))


def test_features_that_do_not_fit_are_refused() -> None:
    other = replace(SESSIONS[1], features=SESSIONS[1].features[:, :, :3])
    for sessions, shape in (([SESSIONS[0], other], SHAPE), (SESSIONS, EnsembleShape(7, 8, 4))):
        with pytest.raises(InputError, match="features of one size with"):
            fit_members(sessions, VALIDATION, shape, n_members=1, training=TRAINING, seed=0)


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
        expected = [m(torch.from_numpy(whole.features)).numpy() for m in members]
    for got, embedding in zip(embed(members, whole.features), expected, strict=True):
        np.testing.assert_allclose(got, embedding, rtol=1e-4, atol=1e-5)


def flat(maps: np.ndarray) -> np.ndarray:
    return maps.reshape(len(maps), -1)


def test_mapped_ensemble_predicts_as_its_ridge_maps() -> None:
    members = random_members(3)
    model, _ = map_ensemble(members, VALIDATION, mapping="ridge")
    new = session(5).features
    expected = np.zeros((len(new), 4))
    for member in members:
        maps, new_maps = (flat(embed([member], x)[0]) for x in (VALIDATION.features, new))
        expected += RidgeLOO().fit(maps, VALIDATION.z_scored()).predict(new_maps) / len(members)
    np.testing.assert_allclose(predict_responses(model, new), expected, rtol=1e-3, atol=1e-4)


def test_mapped_ensemble_predicts_as_its_factorized_maps() -> None:
    members = random_members(2)
    model, _ = map_ensemble(members, VALIDATION)
    new = session(5).features
    expected = np.zeros((len(new), 4))
    for member in members:
        fitted_map = FactorizedMapping().fit(
            embed([member], VALIDATION.features)[0], VALIDATION.z_scored()
        )
        expected += fitted_map.predict(embed([member], new)[0]) / len(members)
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


# Disagreement.


def mapped(n_members: int, n_neurons: int = 4) -> EnsembleModel:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(n_members, 8 * 4, n_neurons, generator=generator)
    return EnsembleModel(random_members(n_members), weights, torch.zeros(n_members, n_neurons))


@pytest.mark.parametrize("n_members", [2, 4, 5])
def test_disagreement_is_the_median_distance_of_pairs(n_members: int) -> None:
    model, features = mapped(n_members), session(6, n_stimuli=70).features
    distances, deviations = member_disagreement(model, features)
    with torch.inference_mode():
        answers = model.predict_members(torch.from_numpy(features)).numpy()
    for image in (0, 30, 69):
        pairs = [
            np.sqrt(np.square(answers[k, image] - answers[j, image]).sum())
            for k in range(n_members)
            for j in range(k)
        ]
        assert distances[image] == pytest.approx(np.median(pairs), rel=1e-4)
        spread = np.std(answers[:, image], axis=0, ddof=1)
        np.testing.assert_allclose(deviations[image], spread, rtol=1e-3)
    assert distances.shape == (70,)
    assert deviations.shape == (70, 4)


def test_members_that_agree_have_no_disagreement() -> None:
    member = random_members(1)[0]
    weights = torch.ones(1, 32, 4).expand(3, -1, -1)
    model = EnsembleModel([member] * 3, weights, torch.zeros(3, 4))
    distances, deviations = member_disagreement(model, VALIDATION.features)
    assert (distances == 0).all()
    np.testing.assert_allclose(deviations, 0, atol=1e-5)


def test_one_member_cannot_disagree() -> None:
    with pytest.raises(InputError, match="two members or more"):
        member_disagreement(mapped(1), VALIDATION.features)


def test_read_only_features_are_taken() -> None:
    features = VALIDATION.features.copy()
    features.flags.writeable = False
    np.testing.assert_array_equal(
        embed(random_members(1), features)[0], embed(random_members(1), VALIDATION.features)[0]
    )
