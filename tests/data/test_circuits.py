"""Circuits of V1 and IT: the invariances that define their kinds, and what is counted in them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pocketcortex.data.circuits import KINDS, Neuron, drive, filters
from pocketcortex.data.dead_leaves import dead_leaves
from pocketcortex.data.insilico import InSilicoCortex

GREY = (1 / 3, 1 / 3, 1 / 3)
ALL = [kind for kinds in KINDS.values() for kind in kinds]
# Diameter, and size of the feature, in pixels of an image of 64.
DRAWN = {
    "simple": (10.0, 3.5), "complex": (10.0, 3.5), "edge": (20.0, 7.2), "curve": (20.0, 5.2),
    "dot": (20.0, 3.0), "colour": (20.0, 1.8), "texture": (20.0, 4.4), "pair": (40.0, 2.8),
    "trio": (40.0, 2.8), "figure": (40.0, 2.8),
}  # fmt: skip


def make_neuron(kind, *, scale=1, direction_deg=0.0, **fields):
    size, feature = DRAWN[kind]
    return Neuron(
        kind=kind,
        row=30.0 * scale,
        column=33.0 * scale,
        size=size * scale,
        feature=feature * scale,
        direction_deg=direction_deg,
        colour=GREY,
        **{"polarity": 1, "threshold": 0.1, "softness": 0.03} | fields,
    )


def rates_of(neuron, images):
    return InSilicoCortex(0).rates(np.stack(images), [neuron])[:, 0]


def coordinates(neuron):
    """Distance from the receptive field's centre along the neuron's direction and across it."""
    pixels = np.arange(64.0)
    right, up = np.meshgrid(pixels - neuron.column, neuron.row - pixels)
    turn = np.radians(neuron.direction_deg)
    return right * np.cos(turn) + up * np.sin(turn), up * np.cos(turn) - right * np.sin(turn)


def picture(contrast):
    return np.round(127.5 + 120 * np.tile(contrast, (3, 1, 1))).astype(np.uint8)


def only(neuron, image, keep):
    """Image with mid grey wherever `keep` of (u, v) is false."""
    return np.where(keep(*coordinates(neuron)), image, 128).astype(np.uint8)


def shifted(image, pixels):
    return [np.roll(image, step, axis) for axis in (1, 2) for step in (-pixels, pixels)]


# --- what is counted ----------------------------------------------------------------------------


def n_distinct_up_to_shift(bank):
    """Count filters by their best normalised cross-correlation with those counted before."""
    spectra = torch.fft.rfft2(bank.sum(dim=1))
    spectra = spectra / bank.sum(dim=1).square().sum(dim=(1, 2), keepdim=True).sqrt()
    kept = []
    for spectrum in spectra:
        alike = [torch.fft.irfft2(spectrum * other.conj()).max() for other in kept]
        if not any(peak > 0.9 for peak in alike):
            kept.append(spectrum)
    return len(kept)


@pytest.mark.parametrize("kind", ALL)
def test_filters_and_shapes_are_counted(kind):
    neuron = make_neuron(kind, scale=2, direction_deg=20.0)  # finely sampled
    bank = filters(neuron, 128)
    assert len(bank) == neuron.n_filters
    assert n_distinct_up_to_shift(bank) == neuron.n_shapes


@pytest.mark.parametrize("kind", [*KINDS["V1"], *KINDS["IT"]])
def test_nothing_outside_the_receptive_field_matters(kind):
    neuron = make_neuron(kind, direction_deg=33.0, softness=0.2)
    inside = np.hypot(*coordinates(neuron)) <= neuron.size / 2
    image, another = dead_leaves(2, size=64, seed=7)
    mixed = [np.where(inside, image, another), np.where(inside, another, image)]
    here, same, other = rates_of(neuron, [image, *mixed])
    assert same == pytest.approx(here, rel=1e-4)
    assert other != pytest.approx(here, rel=0.01)


@pytest.mark.parametrize("kind", ["simple", "complex"])
def test_filters_of_v1_ignore_uniform_fields(kind):
    bank = filters(make_neuron(kind, direction_deg=33.0, phase_deg=50.0), 64)
    np.testing.assert_allclose(bank.sum(dim=(2, 3)), 0.0, atol=2e-3)
    np.testing.assert_allclose(bank.abs().sum(dim=(1, 2, 3)), 2.0, rtol=1e-4)


# --- V1: phase ----------------------------------------------------------------------------------


def modulation(neuron):
    """F1/F0 of the rate over the phases of a drifting grating of the preferred kind."""
    u, _ = coordinates(neuron)
    phases = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    rates = rates_of(neuron, [picture(np.sin(np.pi / neuron.feature * u + p)) for p in phases])
    return 2 * abs(np.mean(rates * np.exp(1j * phases))) / rates.mean()


@pytest.mark.parametrize("direction", [0.0, 70.0, 200.0])
def test_simple_cells_are_modulated_by_phase_and_complex_ones_are_not(direction):
    assert modulation(make_neuron("simple", direction_deg=direction, phase_deg=40.0)) > 1.0
    assert modulation(make_neuron("complex", direction_deg=direction)) < 0.1


@pytest.mark.parametrize("phase", [0.0, 90.0, 250.0])
def test_simple_cells_prefer_their_phase_and_polarity(phase):
    neuron = make_neuron("simple", direction_deg=30.0, phase_deg=phase)
    turned = [replace(neuron, phase_deg=phase + turn) for turn in (0, 90, 180, 270)]
    rates = rates_of(neuron, [other.preferred_stimulus(64) for other in turned])
    assert rates[0] > 3 * rates[1:].max()
    opposite = replace(neuron, polarity=-1)
    assert rates_of(opposite, [turned[2].preferred_stimulus(64)])[0] == pytest.approx(
        rates[0], rel=0.05
    )


@pytest.mark.parametrize("kind", ["simple", "complex"])
def test_v1_prefers_its_orientation_and_period(kind):
    neuron = make_neuron(kind, direction_deg=25.0)
    u, v = coordinates(neuron)
    waves = [np.sin(np.pi / neuron.feature * x) for x in (u, v, u / 3, 2 * u)]
    best, across, coarse, fine = rates_of(neuron, [picture(wave) for wave in waves])
    assert best > 20 * across
    assert best > 1.4 * max(coarse, fine)


# --- IT: conjunctions anywhere ------------------------------------------------------------------


def tolerance(neuron, pixels):
    """Rate to the preferred drawing moved in four directions, over the rate to it in place."""
    drawn = neuron.preferred_stimulus(64)
    rates = rates_of(neuron, [drawn, *shifted(drawn, pixels)])
    return rates[1:].mean() / rates[0]


def test_it_tolerates_changes_of_position_that_v4_features_do_not():
    directions = (0.0, 75.0, 160.0)
    at = {
        kind: [tolerance(make_neuron(kind, direction_deg=d), 5) for d in directions]
        for kind in ("edge", "curve", "dot", "pair", "trio", "figure")
    }
    v4 = max(max(at[kind]) for kind in ("edge", "curve", "dot"))
    assert min(min(at[kind]) for kind in KINDS["IT"]) > max(0.6, 1.3 * v4), at


def drives_of(neuron, images):
    pixels = torch.from_numpy(np.stack(images)).flatten(1) / 255
    return drive(neuron, pixels @ filters(neuron, 64).flatten(1).T).numpy()


@pytest.mark.parametrize(("kind", "most"), [("pair", 0.6), ("trio", 0.85), ("figure", 0.5)])
def test_it_needs_every_part(kind, most):
    neuron = make_neuron(kind, direction_deg=40.0)
    whole = neuron.preferred_stimulus(64)
    kept = {
        "pair": [lambda u, v: v > 0, lambda u, v: v < 0],
        "trio": [
            lambda u, v: v < 3,
            lambda u, v: (v > 3) | (u < 0),
            lambda u, v: (v > 3) | (u > 0),
        ],
        "figure": [lambda u, v: u > 0, lambda u, v: u < 0],
    }[kind]
    drives = drives_of(neuron, [whole, *[only(neuron, whole, keep) for keep in kept]])
    assert drives[1:].max() < most * drives[0]


def test_parts_of_a_pair_may_change_places_and_those_of_a_figure_may_not():
    figure = make_neuron("figure", direction_deg=20.0)
    pair = make_neuron("pair", direction_deg=20.0)
    drawn = [neuron.preferred_stimulus(64) for neuron in (figure, pair)]  # the same two parts
    together, apart = drives_of(pair, drawn)
    assert together > 0.85 * apart
    together, apart = drives_of(figure, drawn)
    assert apart < 0.5 * together
