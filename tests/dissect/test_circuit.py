"""The circuit found in a model wired by hand is the one that was planted."""

import copy
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from planted_models import (
    CENTRE_PX,
    EDGE,
    EXCITATORY,
    INHIBITORY,
    SIZE,
    natural_images,
    planted,
    silent,
)

from pocketcortex.core import InputError
from pocketcortex.dissect import (
    AXES,
    STAGES,
    Circuit,
    CircuitFilter,
    eliminate,
    find_circuit,
    lost_selectivity,
    probes,
)
from pocketcortex.models import Ablations, CompactModel


@cache
def stimuli() -> np.ndarray:
    """Return probes in the middle of the field, from the strongest to the weakest."""
    shown = probes(SIZE, AXES[0]).at(*CENTRE_PX)
    with torch.inference_mode():
        order = np.argsort(-planted()(torch.from_numpy(shown)).numpy(), kind="stable")
    return np.ascontiguousarray(shown[order[np.linspace(0, len(order) - 1, 24).astype(int)]])


def kernel(model: CompactModel, stage: int, number: int) -> torch.Tensor:
    layers = model.layers
    if stage == 0:
        return layers.conv.weight[number]
    return layers.depthwise[stage - 1].weight[number, 0] if stage < 5 else model.readout[number]


@pytest.fixture(scope="module")
def found() -> Circuit:
    return find_circuit(planted(), stimuli(), natural_images(16))


def by_place(circuit: Circuit) -> dict[tuple[int, int], CircuitFilter]:
    return {(one.stage, one.number): one for one in circuit.filters}


def test_planted_filters_stay_and_others_go(found: Circuit) -> None:
    assert list(by_place(found)) == sorted(EXCITATORY + INHIBITORY)
    assert found.n_filters == 5 + 5 + 4 + 5 + 4 + 4
    assert found.elimination.kept().sum() == len(found.filters)


def test_stability_is_that_of_searches_over_halves(found: Circuit) -> None:
    ablations = Ablations(planted(), torch.from_numpy(natural_images(16)))
    one, other = (
        eliminate(
            ablations, stimuli()[half::2], lost_selectivity, limit=1 - 0.9, at_once=0.5
        ).kept() for half in (0, 1)
    )  # fmt: skip
    assert found.overlap == pytest.approx((one & other).sum() / (one | other).sum())
    assert 0.5 < found.overlap <= 1
    for place, kept in by_place(found).items():
        k = ablations.filter(*place)
        assert kept.stability == (one[k] + int(other[k])) / 2


def test_roles_and_effects_are_those_of_kernels_set_to_zero(found: Circuit) -> None:
    roles = {place: one.role for place, one in by_place(found).items()}
    assert all(roles[place] == "inhibitory" for place in INHIBITORY)
    assert all(roles[place] == "excitatory" for place in EXCITATORY)
    shown, model = torch.from_numpy(stimuli()), planted()
    with torch.no_grad():
        intact = model(shown).numpy()
        for place, one in by_place(found).items():
            other = copy.deepcopy(model)
            kernel(other, *place).zero_()
            wanted = (intact.mean() - other(shown).numpy().mean()) / intact.std()
            assert one.effect == pytest.approx(wanted, abs=1e-9)


def test_kernels_are_told(found: Circuit) -> None:
    own, model = by_place(found), planted()
    for place, one in own.items():
        assert one.weights == pytest.approx(kernel(model, *place).detach().numpy())
    assert own[EXCITATORY[0]].weights.sum(0) == pytest.approx(EDGE)
    assert own[EXCITATORY[0]].kernel == "luminance edge, + towards 0°"
    assert own[INHIBITORY[0]].kernel == "luminance pools (+)"
    assert own[EXCITATORY[5]].kernel.startswith("reads ")
    assert own[EXCITATORY[5]].kernel.endswith("% positively")


def test_connections_are_the_planted_ones(found: Circuit) -> None:
    table = found.connections
    ends = zip(table["from_stage"], table["from_number"], table["to_stage"], table["to_number"],
               strict=True)  # fmt: skip
    strength = {
        ((a, b), (c, d)): s for (a, b, c, d), s in zip(ends, table["strength"], strict=True)
    }
    strong = {pair for pair, one in strength.items() if abs(one) > 0.05}
    wanted = set(pairwise(EXCITATORY))
    wanted |= set(zip(INHIBITORY, [*INHIBITORY[1:], EXCITATORY[5]], strict=True))
    assert strong == wanted
    assert strength[INHIBITORY[4], EXCITATORY[5]] < 0 < strength[EXCITATORY[4], EXCITATORY[5]]
    strongest = table.assign(size=table["strength"].abs()).groupby("from_stage")["size"].max()
    assert strongest.to_numpy() == pytest.approx(np.ones(5))
    assert all(b == d for (a, b), (_, d) in strength if a == 0)


def test_what_is_kept_is_measured_anew(found: Circuit) -> None:
    """With the others' means over the natural images in their place."""
    ablations = Ablations(planted(), torch.from_numpy(natural_images(16)))
    kept = found.elimination.kept()
    for images, told in (
        (stimuli(), found.kept_r2), (natural_images(16), found.kept_r2_natural),
    ):  # fmt: skip
        shown = torch.from_numpy(images)
        intact, left = (ablations.responses(shown, some).numpy() for some in (None, kept))
        assert told == pytest.approx(1 - float(lost_selectivity(intact, left)), abs=1e-9)
        assert told > 0.9


def test_what_filters_prefer_drives_them_most(found: Circuit) -> None:
    shown = torch.from_numpy(stimuli())
    model = planted()
    with torch.no_grad():
        maps = [model.layers.layer(0, model.layers.centre(shown))]
        for i in range(1, 5):
            maps.append(model.layers.layer(i, maps[-1]))
    for one in found.filters:
        peak = maps[max(one.stage - 1, 0)][:, one.number].amax((1, 2))
        assert peak[one.prefers] == pytest.approx(float(peak.max()))


def test_more_to_keep_takes_more_filters() -> None:
    few = find_circuit(planted(), stimuli(), natural_images(16), keep_r2=0.3)
    assert 0 < len(few.filters) < len(EXCITATORY + INHIBITORY)
    assert few.kept_r2 >= 0.3
    assert len(STAGES) == 6


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"stimuli": stimuli()[:7]}, "8 stimuli and 2 natural images or more.*got 7, 16 and 0.9"),
        ({"natural": natural_images(1)}, "got .* 1 and 0.9"),
        ({"keep_r2": 0.0}, "keep_r2 between 0 and 1.* 0.0"),
        ({"keep_r2": 1.0}, "keep_r2 between 0 and 1"),
        ({"model": silent()}, "answers all images alike"),
    ],
)
def test_wrong_input_is_refused(changed: dict[str, Any], message: str) -> None:
    given = {"model": planted(), "stimuli": stimuli(), "natural": natural_images(16)} | changed
    with pytest.raises(InputError, match=message):
        find_circuit(**given)
