"""The causal test end to end, on a simulated animal and models of known quality."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pocketcortex.core import InputError, StimulusSet
from pocketcortex.data import InSilicoCortex, dead_leaves
from pocketcortex.models import CompactModel, CompactStack
from pocketcortex.pipeline import CausalCounts, make_causal_session, simulate_causal_test
from pocketcortex.training import refresh_batch_norm

SIZE, N = 32, 3
COUNTS = CausalCounts(
    n_random=40, n_natural=7, n_synthesized=2, n_synthesis_steps=8, n_adversarial=2, n_smoothed=1,
    n_patches=1,
)  # fmt: skip
ROLES = [
    "natural_max", "natural_min", "synthesized_max", "adversarial+", "adversarial-", "perturbed",
    "smooth-", "smoothed_randomly",
]  # fmt: skip


@pytest.fixture(scope="module")
def cortex():
    return InSilicoCortex(seed=1, image_size=SIZE)


@pytest.fixture(scope="module")
def neurons(cortex):
    """Neurons that small models learn in a moment: those that tell colours apart."""
    drawn = cortex.sample_neurons(60, rng=np.random.default_rng(0))
    return [neuron for neuron in drawn if neuron.kind == "colour"][:N]


@pytest.fixture(scope="module")
def models(cortex, neurons):
    """Models of common layers, trained together on the neurons' rates for a few steps."""
    images = dead_leaves(1000, size=SIZE, seed=5)
    rates = cortex.rates(images, neurons)
    x, y = torch.from_numpy(images), torch.from_numpy(rates - rates.mean(axis=0)).float()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trunk = CompactModel((8, 8, 8, 8, 8), (SIZE, SIZE)).train()
        readout = torch.nn.Linear(trunk.readout.numel(), N)
        trained = [*trunk.layers.parameters(), *readout.parameters()]
        optimizer = torch.optim.Adam(trained, lr=5e-3)
        for _ in range(60):
            batch = torch.randint(len(x), (48,))
            loss = (readout(trunk.layers(x[batch]).flatten(1)) - y[batch]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    refresh_batch_norm(trunk, StimulusSet.from_array(images[:200]))
    made = []
    for k in range(N):
        model = CompactModel(trunk.filters, (SIZE, SIZE))
        model.load_state_dict(trunk.state_dict())
        with torch.no_grad():
            model.readout.copy_(readout.weight[k].reshape(model.readout.shape))
            model.readout_bias.fill_(float(rates[:, k].mean()) + readout.bias[k].detach())
        made.append(model.eval())
    return made


@pytest.fixture(scope="module")
def bank():
    return StimulusSet.from_array(dead_leaves(400, size=SIZE, seed=6))


@pytest.fixture(scope="module")
def session(models, bank):
    return make_causal_session(models, bank, counts=COUNTS, seed=3)


@pytest.fixture(scope="module")
def test(cortex, neurons, models, session):
    matching = StimulusSet.from_array(dead_leaves(150, size=SIZE, seed=7))
    return simulate_causal_test(
        cortex, neurons[::-1], models, session, matching=matching, n_repeats=(8, 12), seed=2,
        n_permutations=500,
    )  # fmt: skip


def predict(models, images):
    return CompactStack(models).predict(torch.from_numpy(images)).numpy()


def test_every_stimulus_has_its_role(session):
    roles = session.roles
    assert roles.tested == tuple(ROLES)
    assert len(session.stimuli) == len(roles) == COUNTS.n_stimuli(N) == N * 24 + 40
    assert session.stimuli.names == roles.names
    assert (roles.target[:40] == -1).all()
    for role, n in zip(ROLES, (7, 7, 2, 2, 2, 2, 1, 1), strict=True):
        for target in range(N):
            assert len(roles.rows(role, target)) == n
        assert roles.is_paired(role) == (role in ROLES[3:])


def test_natural_images_are_those_of_the_bank_and_no_image_is_random_and_chosen(session, bank):
    from_bank = session.bank_positions >= 0
    natural = np.isin(session.roles.role, ["random", "natural_max", "natural_min"])
    assert np.array_equal(from_bank, natural)
    shown = session.stimuli.images()
    assert np.array_equal(shown[from_bank], bank.read(session.bank_positions[from_bank]))
    random, chosen = session.bank_positions[:40], session.bank_positions[40:]
    assert len(set(random)) == 40
    assert not set(random) & set(chosen[chosen >= 0])


def test_maximizing_images_are_the_best_of_what_is_not_random(session, models, bank):
    rest = np.setdiff1d(np.arange(400), session.bank_positions[:40])
    responses = predict(models, bank.read(rest))
    for k in range(N):
        for role, sign in (("natural_max", -1), ("natural_min", 1)):
            best = rest[np.argsort(sign * responses[:, k], kind="stable")[:7]]
            rows = session.roles.rows(role, k)
            assert session.bank_positions[rows].tolist() == best.tolist()


def test_made_images_are_near_their_bases_and_do_what_they_should(session, models):
    images = session.stimuli.images().astype(float)
    predicted = predict(models, session.stimuli.images())
    roles = session.roles
    for k in range(N):
        rms = {}
        for role in ROLES[3:]:
            rows = roles.rows(role, k)
            bases = roles.base[rows]
            kind = "natural_max" if role.startswith("smooth") else "random"
            assert {roles.role[b] for b in bases} == {kind}
            assert set(roles.target[bases]) == {k if kind == "natural_max" else -1}
            rms[role] = np.sqrt(((images[rows] - images[bases]) ** 2).mean(axis=(1, 2, 3)))
            change = predicted[rows, k] - predicted[bases, k]
            if role == "adversarial+":
                assert (change > 0).all()
            if role in ("adversarial-", "smooth-"):
                assert (change < 0).all()
        for role in ("adversarial+", "adversarial-", "perturbed"):
            assert (rms[role] <= COUNTS.budget + 1e-3).all()
            assert (rms[role] > 0).all()
        assert np.allclose(rms["perturbed"], rms["adversarial+"], rtol=0.1)
        synthesized = predicted[roles.rows("synthesized_max", k), k]
        assert synthesized.mean() > predicted[:40, k].mean()


def test_the_same_seed_gives_the_same_session(session, models, bank):
    again = make_causal_session(models, bank, counts=COUNTS, seed=3)
    assert again.stimuli.fingerprint == session.stimuli.fingerprint
    few = replace(COUNTS, n_synthesized=0, n_adversarial=0, n_smoothed=0)
    other = make_causal_session(models[:2], bank, counts=few, seed=4)
    assert other.bank_positions[:40].tolist() != session.bank_positions[:40].tolist()


def test_roles_may_be_left_out_and_progress_is_told(models, bank):
    counts = CausalCounts(
        n_random=5, n_natural=0, n_synthesized=0, n_adversarial=2, n_smoothed=0, n_patches=1
    )
    told = []
    session = make_causal_session(models[:2], bank, counts=counts, seed=0, advance=told.append)
    assert session.roles.tested == ("adversarial+", "adversarial-", "perturbed")
    assert sum(told) == len(session.stimuli) == counts.n_stimuli(2) == 17


def test_neurons_are_matched_to_their_own_models(test):
    # neurons were recorded in reverse order
    matched = test.matches[test.matches["model"] >= 0]
    assert len(matched) == N
    assert (matched["model"] == N - 1 - matched["neuron"]).all()


def test_the_true_neurons_do_what_models_say(test):
    found = test.population.set_index("role")
    assert found.index.tolist() == ROLES
    assert found.loc["natural_max", "percent_mean"] > 40
    assert found.loc["natural_min", "percent_mean"] < -15
    assert found.loc["natural_max", "n_increased"] >= 3
    predicted = test.predicted.groupby("role")["difference"].mean()
    assert predicted["adversarial+"] > 0 > predicted["adversarial-"]


def test_unmatched_neurons_are_left_out_with_a_reason(test):
    for row in test.matches.itertuples():
        own = test.effects[test.effects["neuron"] == row.neuron]
        assert (own["target"] == row.model).all()
        if row.model < 0:
            assert (own["reason"] == "neuron stands for no model").all()


def test_neurons_known_to_be_the_models_need_no_matching(cortex, neurons, models, session, test):
    known = simulate_causal_test(
        cortex, neurons, models, session, n_repeats=4, seed=2, n_permutations=200
    )
    assert known.matches is None
    assert known.effects["target"].tolist() == known.effects["neuron"].tolist()
    assert known.session.responses.shape == (len(session.stimuli), 4, N)


def test_images_for_matching_must_not_be_tested(cortex, neurons, models, session):
    matching = session.stimuli.take([0, 1, 2, 3])
    with pytest.raises(InputError, match="4 images used for matching are among the test stimuli"):
        simulate_causal_test(cortex, neurons, models, session, matching=matching, seed=0)


def test_models_and_neurons_must_fit(cortex, neurons, models, session):
    with pytest.raises(InputError, match="made for 3 models, got 2"):
        simulate_causal_test(cortex, neurons, models[:2], session, seed=0)
    with pytest.raises(InputError, match="2 neurons and 3 models"):
        simulate_causal_test(cortex, neurons[:2], models, session, seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_random": 1}, "n_random must be at least 2"),
        ({"n_natural": -1}, "n_natural must be at least 0"),
        ({"n_adversarial": 41}, "made from n_random = 40"),
        ({"n_smoothed": 8}, "made from n_natural = 7"),
    ],
)
def test_counts_refuse(change, message):
    with pytest.raises(InputError, match=message):
        replace(COUNTS, **change)


def test_a_session_refuses(models, bank):
    with pytest.raises(InputError, match="54 images, too few"):
        make_causal_session(models, bank.take(range(54)), counts=COUNTS, seed=0)
    with pytest.raises(InputError, match="at least one model"):
        make_causal_session([], bank, counts=COUNTS, seed=0)
    with pytest.raises(InputError, match="seed"):
        make_causal_session(models, bank, counts=COUNTS, seed=-1)
    alike = StimulusSet.from_array(np.repeat(bank.read([0]), 70, axis=0))
    with pytest.raises(InputError, match="too few different images: a model has 1"):
        make_causal_session(models, alike, counts=COUNTS, seed=0)
