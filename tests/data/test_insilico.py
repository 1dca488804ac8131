"""The in-silico cortex: its statistics, and that each circuit is what its ground truth says."""

from dataclasses import replace

import numpy as np
import pytest

from pocketcortex.core.errors import InputError
from pocketcortex.core.stimuli import StimulusSet
from pocketcortex.data.circuits import KINDS, Neuron, filters
from pocketcortex.data.dead_leaves import dead_leaves
from pocketcortex.data.insilico import InSilicoCortex, insilico_neurons, insilico_recordings

GREY = (1 / 3, 1 / 3, 1 / 3)
ROW, COLUMN, SIZE = 28.0, 34.0, 20.0
FEATURE = {"edge": 7.0, "curve": 5.2, "dot": 3.0, "colour": 1.8, "texture": 4.4}


@pytest.fixture(scope="module")
def cortex():
    return InSilicoCortex(seed=3)


@pytest.fixture(scope="module")
def neurons(cortex):
    return cortex.sample_neurons(60, rng=np.random.default_rng(0))


@pytest.fixture(scope="module")
def rates(cortex, neurons):
    return cortex.rates(dead_leaves(400, size=64, seed=11), neurons)


def make_neuron(kind, *, direction_deg=0.0, colour=GREY, polarity=1):
    return Neuron(
        kind=kind,
        row=ROW,
        column=COLUMN,
        size=SIZE,
        feature=FEATURE[kind],
        direction_deg=direction_deg,
        colour=colour,
        polarity=polarity,
        threshold=0.1,
        softness=0.05,
    )


def coordinates():
    """Distance right of and above the receptive field's centre."""
    pixels = np.arange(64.0)
    right, up = np.meshgrid(pixels - COLUMN, ROW - pixels)
    return right, up


def picture(contrast, colour=(1.0, 1.0, 1.0)):
    """Uint8 image: mid grey plus a contrast in -1..1 along a colour."""
    channels = np.asarray(colour)[:, None, None] * contrast
    return np.round(127.5 + 120 * channels).astype(np.uint8)


def disc(radius):
    return (np.hypot(*coordinates()) <= radius) * 1.0


def edge(direction_deg):
    right, up = coordinates()
    turn = np.radians(direction_deg)
    return np.sign(right * np.cos(turn) + up * np.sin(turn) + 1e-9)


def grating(direction_deg, period):
    right, up = coordinates()
    turn = np.radians(direction_deg)
    return np.sin(2 * np.pi / period * (right * np.cos(turn) + up * np.sin(turn)))


def rate_of(cortex, neuron, *images):
    return cortex.rates(np.stack(images), [neuron])[:, 0]


def assert_first_wins(rates, factor=1.5):
    assert rates[0] > factor * rates[1:].max(), rates


# --- statistics of the population ---------------------------------------------------------------


def test_rates_are_positive_and_finite(rates):
    assert np.isfinite(rates).all()
    assert (rates > 0).all()


def test_mean_rates_and_their_variation_are_as_asked(rates):
    means = rates.mean(axis=0)
    assert (means > 1.2).all()
    assert (means < 6.0).all()
    variation = rates.std(axis=0) / means
    assert np.median(variation) == pytest.approx(0.75, abs=0.15)
    assert (variation > 0.35).all()
    assert (variation < 1.3).all()


def test_v4_is_the_cortex_that_published_figures_were_made_with():
    neurons = insilico_neurons(7, 0, n_neurons=8)
    assert [neuron.kind for neuron in neurons] == [
        "colour", "texture", "dot", "dot", "colour", "edge", "texture", "texture"
    ]  # fmt: skip
    rates = InSilicoCortex(7).rates(dead_leaves(2, size=64, seed=1), neurons)
    known = [
        [1.616111, 2.944608, 11.188135, 13.200761, 2.860924, 1.59199, 1.788116, 5.708259],
        [3.370937, 1.255069, 2.545296, 8.171409, 4.074758, 3.046746, 1.635222, 1.127113],
    ]
    np.testing.assert_allclose(rates, known, rtol=1e-4)


@pytest.mark.parametrize("area", ["V1", "IT"])
def test_other_areas_have_their_kinds_and_the_same_statistics(area):
    cortex = InSilicoCortex(3, area=area)
    neurons = cortex.sample_neurons(40, rng=np.random.default_rng(0))
    assert {neuron.kind for neuron in neurons} == set(KINDS[area])
    images = dead_leaves(400, size=64, seed=11)
    rates = cortex.rates(images, neurons)
    means, drawn = rates.mean(axis=0), []
    assert (rates > 0).all()
    assert (means > 1.2).all()
    assert (means < 6.0).all()
    assert np.median(rates.std(axis=0) / means) == pytest.approx(0.75, abs=0.15)
    for neuron in neurons:
        drawn.append(rate_of(cortex, neuron, neuron.preferred_stimulus(64))[0])
        assert neuron.row - neuron.size / 2 >= 0
        assert neuron.row + neuron.size / 2 <= 63
        assert neuron.column - neuron.size / 2 >= 0
        assert neuron.column + neuron.size / 2 <= 63
    assert (np.array(drawn) > np.quantile(rates, 0.98, axis=0)).all()
    again = InSilicoCortex(3, area=area).sample_neurons(40, rng=np.random.default_rng(0))
    assert again == neurons


def test_receptive_fields_grow_from_area_to_area():
    sizes = {
        area: [
            n.size
            for n in InSilicoCortex(3, area=area).sample_neurons(40, rng=np.random.default_rng(0))
        ]
        for area in KINDS
    }
    assert max(sizes["V1"]) <= min(sizes["V4"])
    assert max(sizes["V4"]) < min(sizes["IT"])


@pytest.mark.parametrize("area", ["V1", "IT"])
def test_recordings_of_an_area_come_from_its_neurons(area):
    recordings = insilico_recordings(
        2, n_sessions=2, n_neurons=3, n_stimuli=60, image_size=48, n_repeats=40, area=area
    )
    test = list(recordings.values())[1]
    truth = insilico_neurons(2, 1, n_neurons=3, image_size=48, area=area)
    rates = InSilicoCortex(2, 48, area).rates(test.require_stimuli().images(), truth)
    noise = test.responses.mean(axis=1) - rates
    assert np.abs(noise).max() < 6 * np.sqrt(rates.max() / 40)
    assert (np.diagonal(np.corrcoef(test.responses.mean(axis=1).T, rates.T)[:3, 3:]) > 0.95).all()


def test_neurons_differ(rates):
    alike = np.abs(np.corrcoef(rates.T)[np.triu_indices(rates.shape[1], 1)])
    assert alike.mean() < 0.2


def test_population_has_every_kind_in_the_central_half(neurons):
    assert {neuron.kind for neuron in neurons} == set(KINDS["V4"])
    for neuron in neurons:
        assert 16 <= neuron.row <= 48
        assert 16 <= neuron.column <= 48
        assert 12 <= neuron.size <= 28


def test_neurons_are_the_same_for_the_same_seed(cortex, neurons):
    again = InSilicoCortex(seed=3).sample_neurons(60, rng=np.random.default_rng(0))
    assert again == neurons
    assert cortex.sample_neurons(60, rng=np.random.default_rng(1)) != neurons


def test_animals_have_arrays_at_different_places():
    near = [
        InSilicoCortex(seed).sample_neurons(40, rng=np.random.default_rng(0)) for seed in (1, 2)
    ]
    rows = [np.mean([neuron.row for neuron in neurons]) for neurons in near]
    assert rows[0] != rows[1]


def test_rates_do_not_depend_on_the_other_images_or_neurons(cortex, neurons):
    images = dead_leaves(140, size=64, seed=2)  # more than one chunk
    whole = cortex.rates(images, neurons)
    part = cortex.rates(images[130:], neurons[7:9])
    np.testing.assert_allclose(part, whole[130:, 7:9], rtol=1e-4)


def test_another_image_size_scales_the_circuits():
    cortex = InSilicoCortex(seed=0, image_size=96)
    neurons = cortex.sample_neurons(5, rng=np.random.default_rng(0))
    assert all(18 <= neuron.size <= 42 for neuron in neurons)
    rates = cortex.rates(dead_leaves(50, size=96, seed=1), neurons)
    assert (rates.mean(axis=0) > 0.8).all()


# --- each circuit prefers what its ground truth says --------------------------------------------


@pytest.mark.parametrize("kind", KINDS["V4"])
def test_nothing_outside_the_receptive_field_matters(cortex, kind):
    inside = np.hypot(*coordinates()) <= SIZE / 2
    image = dead_leaves(1, size=64, seed=7)[0]
    other = np.where(inside, image, 255 - image)
    here, there = rate_of(cortex, make_neuron(kind, colour=(0.5, -0.3, -0.2)), image, other)
    assert here == pytest.approx(there, rel=1e-4)
    assert cortex.rates(np.where(inside, 255 - image, image)[None], [make_neuron(kind)]) != here


@pytest.mark.parametrize("kind", ["edge", "curve", "texture"])
def test_filters_of_contours_ignore_uniform_fields(kind):
    bank = filters(make_neuron(kind, direction_deg=33.0), 64)
    np.testing.assert_allclose(bank.sum(dim=(2, 3)), 0.0, atol=2e-3)
    np.testing.assert_allclose(bank.abs().sum(dim=(1, 2, 3)), 2.0, rtol=1e-4)


@pytest.mark.parametrize("direction", [0.0, 60.0, 135.0, 290.0])
def test_edge_prefers_its_direction(cortex, direction):
    turned = [picture(edge(direction + turn)) for turn in (0, 90, 180, 270)]
    rates = rate_of(
        cortex, make_neuron("edge", direction_deg=direction), *turned, picture(0 * disc(1))
    )
    assert_first_wins(rates, factor=3)


def test_polarity_swaps_the_bright_side_of_an_edge(cortex):
    neuron = make_neuron("edge", polarity=-1)
    assert_first_wins(rate_of(cortex, neuron, picture(edge(180)), picture(edge(0))), factor=3)


@pytest.mark.parametrize("polarity", [1, -1])
def test_dot_prefers_a_dot_of_its_size_and_sign(cortex, polarity):
    shapes = [disc(3), disc(9), disc(30), edge(0), edge(90), 0 * disc(1), -disc(3)]
    rates = rate_of(
        cortex, make_neuron("dot", polarity=polarity), *[picture(polarity * s) for s in shapes]
    )
    assert_first_wins(rates, factor=2)


def test_dot_is_tuned_to_size(cortex):
    radii = np.arange(1, 11)
    rates = rate_of(cortex, make_neuron("dot"), *[picture(disc(radius)) for radius in radii])
    assert radii[rates.argmax()] in (2, 3, 4)


def test_dot_prefers_its_place(cortex):
    dot = picture(disc(3))
    moved = [np.roll(dot, shift, axis=axis) for axis in (1, 2) for shift in (-6, 6)]
    assert_first_wins(rate_of(cortex, make_neuron("dot"), dot, *moved), factor=2)


def test_curve_needs_the_whole_arc(cortex):
    right, up = coordinates()
    half_disc = np.where((disc(FEATURE["curve"]) > 0) & (right > -2), 1.0, -1.0)
    upper, lower = np.where(up > 1, half_disc, 0), np.where(up < -1, half_disc, 0)
    shapes = [half_disc, half_disc[:, ::-1], upper, lower, edge(180), 0 * right, -half_disc]
    shapes[1] = np.roll(shapes[1], int(2 * COLUMN - 63), axis=1)  # mirrored about the centre
    rates = rate_of(cortex, make_neuron("curve"), *[picture(shape) for shape in shapes])
    assert_first_wins(rates, factor=1.2)


@pytest.mark.parametrize("direction", [0.0, 45.0, 110.0])
def test_texture_prefers_its_orientation_and_period_at_any_phase(cortex, direction):
    neuron = make_neuron("texture", direction_deg=direction)
    period = FEATURE["texture"]
    same = rate_of(cortex, neuron, *[picture(s * grating(direction, period)) for s in (1, -1)])
    others = [grating(direction + 90, period), grating(direction, 4 * period), 0 * disc(1)]
    rates = rate_of(cortex, neuron, *[picture(other) for other in others])
    assert same[0] == pytest.approx(same[1], rel=0.1)
    assert_first_wins(np.append(same[:1], rates))


def test_colour_prefers_its_hue_and_ignores_luminance(cortex):
    neuron = make_neuron("colour", colour=(0.5, -0.5, 0.0))
    patch = disc(9)
    hues = [(1, -1, 0), (-1, 1, 0), (-0.5, -0.5, 1), (1, 1, 1), (-1, -1, -1)]
    assert_first_wins(rate_of(cortex, neuron, *[picture(patch, hue) for hue in hues]), factor=3)


def test_preferred_stimulus_beats_natural_images_and_other_kinds(cortex, neurons, rates):
    for k, neuron in enumerate(neurons):
        drawn = rate_of(cortex, neuron, neuron.preferred_stimulus(64))[0]
        assert drawn > np.quantile(rates[:, k], 0.98), neuron
        turn = 90 if neuron.kind == "texture" else 180
        turned = replace(neuron, direction_deg=neuron.direction_deg + turn)
        if neuron.kind in ("edge", "curve", "texture"):
            assert drawn > 1.5 * rate_of(cortex, neuron, turned.preferred_stimulus(64))[0], neuron


# --- recording ----------------------------------------------------------------------------------


def test_counts_are_poisson(cortex, neurons):
    stimuli = StimulusSet.from_array(dead_leaves(20, size=64, seed=4))
    session = cortex.record(
        stimuli, neurons[:6], n_repeats=400, rng=np.random.default_rng(0), id="s", role="train"
    )
    rates = cortex.rates(stimuli.images(), neurons[:6])
    counts = session.responses
    assert (counts == np.floor(counts)).all()
    np.testing.assert_allclose(counts.mean(axis=1), rates, atol=5 * np.sqrt(rates.max() / 400))
    fano = counts.var(axis=1, ddof=1) / rates
    assert fano.mean() == pytest.approx(1.0, abs=0.03)


def test_repeats_not_shown_are_nan_at_the_end_for_all_neurons(cortex, neurons):
    stimuli = StimulusSet.from_array(dead_leaves(60, size=64, seed=4))
    session = cortex.record(
        stimuli, neurons[:3], n_repeats=(2, 5), rng=np.random.default_rng(0), id="s"
    )
    missing = np.isnan(session.responses)
    assert missing.shape == (60, 5, 3)
    assert (missing == missing[:, :, :1]).all()
    assert (np.diff(missing.astype(int), axis=1) >= 0).all()
    assert set((~missing[:, :, 0]).sum(axis=1)) == {2, 3, 4, 5}


def test_a_neuron_can_be_recorded_again(cortex, neurons):
    images = dead_leaves(5, size=64, seed=4)
    np.testing.assert_allclose(
        cortex.rates(images, neurons[2:3]), InSilicoCortex(seed=3).rates(images, neurons[2:3])
    )


def test_recordings_have_roles_shapes_and_known_neurons():
    asked = {"n_sessions": 4, "n_neurons": 5, "n_stimuli": 30, "image_size": 32}
    recordings = insilico_recordings(1, **asked, n_repeats=(3, 6))
    sessions = list(recordings.values())
    assert [session.role for session in sessions] == ["train", "train", "validation", "test"]
    assert {session.responses.shape for session in sessions} == {(30, 6, 5)}
    assert {session.bin_ms for session in sessions} == {100.0}
    assert len({session.animal for session in sessions}) == 1
    digests = [digest for session in sessions for digest in session.stimuli.digests]
    assert len(set(digests)) == len(digests)

    again = insilico_recordings(1, **asked, n_repeats=(3, 6))
    for session in sessions:
        np.testing.assert_array_equal(session.responses, again[session.id].responses)

    truth = insilico_neurons(1, 3, n_neurons=5, image_size=32)
    rates = InSilicoCortex(1, image_size=32).rates(sessions[3].stimuli.images(), truth)
    noise = np.nanmean(sessions[3].responses, axis=1) - rates
    assert np.abs(noise.mean(axis=0)).max() < 1.0


def test_two_sessions_train_and_test():
    recordings = insilico_recordings(0, n_sessions=2, n_neurons=2, n_stimuli=4, image_size=32)
    assert [session.role for session in recordings.values()] == ["train", "test"]


# --- what is refused ----------------------------------------------------------------------------


def test_refuses_what_cannot_be(cortex, neurons):
    stimuli = StimulusSet.from_array(np.zeros((2, 3, 64, 64), dtype=np.uint8))
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="seed"):
        InSilicoCortex(-1)
    with pytest.raises(InputError, match="image_size"):
        InSilicoCortex(0, image_size=16)
    with pytest.raises(InputError, match="48 pixels for V1"):
        InSilicoCortex(0, image_size=32, area="V1")
    with pytest.raises(InputError, match="at least 1 neuron"):
        cortex.sample_neurons(0, rng=rng)
    with pytest.raises(InputError, match="32 x 32"):
        cortex.rates(np.zeros((1, 3, 32, 32), dtype=np.uint8), neurons)
    with pytest.raises(InputError, match="no neuron"):
        cortex.rates(stimuli.images(), [])
    for n_repeats in (0, (3, 2), (0, 2)):
        with pytest.raises(InputError, match="n_repeats"):
            cortex.record(stimuli, neurons, n_repeats=n_repeats, rng=rng, id="s")
    with pytest.raises(InputError, match="n_sessions"):
        insilico_recordings(0, n_sessions=1, n_neurons=1, n_stimuli=1)
    with pytest.raises(InputError, match="n_stimuli"):
        insilico_recordings(0, n_sessions=2, n_neurons=1, n_stimuli=0)
    with pytest.raises(InputError, match="session"):
        insilico_neurons(0, -1, n_neurons=1)


@pytest.mark.parametrize("wrong", [{"size": 0.0}, {"feature": -1.0}, {"softness": 0.0}])
def test_neuron_refuses_lengths_that_are_not_positive(wrong):
    with pytest.raises(InputError, match="above 0"):
        replace(make_neuron("dot"), **wrong)


def test_neuron_refuses_a_feature_that_does_not_fit():
    with pytest.raises(InputError, match="below half"):
        replace(make_neuron("curve"), feature=SIZE / 2)
