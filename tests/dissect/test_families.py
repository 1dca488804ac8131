"""Models wired by hand prefer what they were wired for; shuffled and blind ones prefer nothing."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from planted_models import (
    BOX,
    CENTRE_PX,
    SIZE,
    chained,
    colour_model,
    dot_model,
    edge_model,
    natural_images,
    planted,
    silent,
    texture_model,
)
from scipy.ndimage import gaussian_filter

from pocketcortex.core import InputError
from pocketcortex.dissect import (
    AXES,
    FAMILIES,
    NONE,
    Preferences,
    ReceptiveFields,
    has_field,
    merits,
    preferences,
    probes,
    receptive_fields,
    shuffled_weights,
)
from pocketcortex.models import CompactModel

WIRED = ("dot", "edge", "texture", "colour")


def models() -> list[CompactModel]:
    return [dot_model(), edge_model(), texture_model(), colour_model(), silent()]


def natural_responses(some: Sequence[CompactModel]) -> np.ndarray:
    with torch.inference_mode():
        shown = torch.from_numpy(natural_images())
        return np.stack([0.1 * model(shown).numpy() for model in some], axis=1)  # weakly driven


def ask(some: Sequence[CompactModel], **changed: object) -> Preferences:
    fields = receptive_fields(some, natural_images())
    settings = {
        "with_field": np.ones(len(some), dtype=bool),
        "rng": np.random.default_rng(0),
        "n_resamples": 20,
    } | changed
    return preferences(some, fields, natural_responses(some), **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def found() -> Preferences:
    return ask(models())


def test_wired_models_get_their_families(found: Preferences) -> None:
    assert found.table["family"].tolist() == [*WIRED, NONE]
    assert found.table["axis"][:4].tolist() == [AXES[0]] * 3 + ["hue 0"]
    assert (found.table["reason"][:4] == "").all()
    assert (found.table["margin"][:4] > 0.2).all()
    assert (found.table["confidence"][:4] > 0.4).all()
    assert found.table["confidence"].between(0, 1).all()


def test_the_best_probe_is_the_one_wired(found: Preferences) -> None:
    dot, edge, texture, colour = (found.table.iloc[k] for k in range(4))
    assert dot["shape"] == "ringed disc"
    assert dot["radius_px"] == pytest.approx(1.62)
    assert (dot["foreground"], dot["background"]) == ("#ffffff", "#000000")
    assert (edge["shape"], edge["direction_deg"]) == ("border", 180)  # dark on the left
    assert texture["orientation_deg"] % 180 == 90  # stripes across
    assert (colour["shape"], colour["foreground"]) == ("plain", "#f80880")


def test_scores_and_margin(found: Preferences) -> None:
    table = found.table[:4]
    scores = table[[f"score_{name}" for name in FAMILIES]].to_numpy()
    assert scores.max(axis=1) == pytest.approx(np.ones(4))
    for k, name in enumerate(WIRED):
        others = np.delete(scores[k], FAMILIES.index(name))
        assert scores[k, FAMILIES.index(name)] == 1
        assert table["margin"][k] == pytest.approx(1 - others.max())


def test_stimuli_were_shown_and_responses_are_theirs(found: Preferences) -> None:
    some = models()
    for k, model in enumerate(some[:4]):
        with torch.inference_mode():
            answers = model(torch.from_numpy(found.stimuli[k])).numpy()
        assert found.responses[k] == pytest.approx(answers, abs=1e-6)
        row = found.table.iloc[k]
        assert row["response"] == pytest.approx(answers[FAMILIES.index(row["family"])])
        (grey,) = model(torch.full((1, 3, SIZE, SIZE), 128, dtype=torch.uint8)).tolist()
        assert row["grey"] == pytest.approx(grey, abs=1e-9)
    natural = natural_responses(some)
    wanted = (found.table["response"] - natural.mean(0))[:4] / natural.std(0)[:4]
    assert found.table["sd_above_mean"][:4].to_numpy() == pytest.approx(wanted.to_numpy())


def test_probes_are_shown_in_the_middle_of_the_field(found: Preferences) -> None:
    assert (found.table["x_px"][:4] - CENTRE_PX[0]).abs().max() <= 1
    assert (found.table["y_px"][:4] - CENTRE_PX[1]).abs().max() <= 1
    (dot,) = found.stimuli[0, [FAMILIES.index("dot")]]
    rows, columns = np.nonzero((dot == 255).all(axis=0))
    assert (columns.mean(), rows.mean()) == pytest.approx(CENTRE_PX)
    assert any((image == dot).all() for image in probes(SIZE, AXES[0]).at(*CENTRE_PX))


def test_blind_model_has_no_family_and_a_reason(found: Preferences) -> None:
    row = found.table.iloc[4]
    assert row["family"] == NONE
    assert row["reason"].startswith("no ")
    assert np.isnan(row["margin"])
    assert (row["x_px"], row["y_px"]) == (18, 18)  # the middle, for want of a field


def test_models_in_any_company_and_twice_are_the_same(found: Preferences) -> None:
    some = [edge_model()]
    one, other = ask(some), ask(some)
    assert one.table.equals(other.table)
    assert (one.stimuli == other.stimuli).all()
    assert one.table["family"][0] == "edge"
    assert one.stimuli[0] == pytest.approx(found.stimuli[1])


def test_field_of_the_whole_image_is_none() -> None:
    model = chained([BOX], pool=BOX)
    with torch.no_grad():
        model.readout[:] = 0.1
        model.layers.norms[0].bias += 1000  # linear: every pixel counts
    with_field = has_field([model], natural_images(8), rng=np.random.default_rng(1))
    row = ask([model], n_resamples=0, with_field=with_field).table.iloc[0]
    assert row["family"] == NONE
    assert row["reason"].startswith("no receptive field: shuffled weights have as good a one")
    assert row["preferred"] in FAMILIES
    assert np.isnan(row["confidence"])


def test_model_that_natural_images_drive_as_much_is_none() -> None:
    some = [dot_model()]
    fields = receptive_fields(some, natural_images())
    wide = np.array([[-100.0], [100.0]])  # far more than any probe
    row = preferences(
        some, fields, wide, with_field=np.array([True]), rng=np.random.default_rng(0), n_resamples=0
    ).table.iloc[0]  # fmt: skip
    assert row["family"] == NONE
    assert row["preferred"] == "dot"
    assert row["reason"].startswith("no probe drives it: the best is 0.2 standard deviations")


def test_large_dots_are_not_enough_to_be_a_dot_cell() -> None:
    blob = chained([BOX], pool=BOX)  # light, pooled: the larger the dot, the better
    row = ask([blob]).table.iloc[0]
    assert row["preferred"] == "dot"
    assert row["family"] == NONE
    assert row["reason"].startswith("no best size: a dot of radius")
    assert row["largest_dot"] > 0.5
    small = ask([dot_model()]).table.iloc[0]
    assert small["family"] == "dot"
    assert small["largest_dot"] <= 0.5


def test_family_that_few_resamples_give_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pocketcortex.dissect.families._LIKELY", 1.01)
    row = ask([edge_model()]).table.iloc[0]
    assert row["family"] == NONE
    assert row["reason"].startswith("not sure:")


def mapped(model: CompactModel) -> CompactModel:
    """Read not from one place but from a small disc about it, as trained models do."""
    with torch.no_grad():
        blurred = gaussian_filter(model.readout.numpy(), (0, 1, 1))
        model.readout.copy_(torch.from_numpy(blurred))
    return model


def test_wired_models_have_a_field_and_their_shuffled_copies_have_none() -> None:
    blind = [silent() for _ in range(8)]  # whose field is the whole image
    some, images = [*map(mapped, models()[:4]), *blind], natural_images(8)
    has = has_field(some, images, rng=np.random.default_rng(5))
    assert has.tolist() == [True] * 4 + [False] * 8
    rng = np.random.default_rng(6)
    mixed = [shuffled_weights(model, rng=rng) for model in some[:4] for _ in range(10)]
    assert not has_field([*mixed, *blind * 10], images, rng=rng).any()
    kept = [shuffled_weights(model, rng=rng, keep_readout=True) for model in some[:4]]
    for one, model in zip(kept, some, strict=False):
        assert torch.equal(one.readout, model.readout)
        assert not torch.equal(one.layers.conv.weight, model.layers.conv.weight)
    with pytest.raises(InputError):
        has_field([], images, rng=rng)


def test_one_large_weight_of_the_readout_is_no_field() -> None:
    """Wherever it falls the field is small."""
    model, images, rng = planted(), natural_images(8), np.random.default_rng(0)
    with torch.no_grad():
        model.readout.copy_(torch.from_numpy(rng.normal(size=model.readout.shape)))
        model.readout[0, 3, 3] = 1000
    assert receptive_fields([model], images).share_of_image[0] < 0.2
    assert not has_field([model], images, rng=rng)[0]


def test_shuffled_weights_lose_the_preference() -> None:
    model = texture_model()
    rng = np.random.default_rng(0)
    shuffled = shuffled_weights(model, rng=rng)
    before, after = model.state_dict(), shuffled.state_dict()
    for name, values in before.items():
        assert torch.equal(values.flatten().sort()[0], after[name].flatten().sort()[0]), name
    assert not torch.equal(before["layers.conv.weight"], after["layers.conv.weight"])
    assert torch.equal(before["layers.image_mean"], after["layers.image_mean"])
    again = shuffled_weights(model, rng=np.random.default_rng(0)).state_dict()
    assert all(torch.equal(after[name], again[name]) for name in after)
    assert torch.equal(model.layers.conv.weight, before["layers.conv.weight"])
    fields = receptive_fields([shuffled], natural_images())
    natural = shuffled(torch.from_numpy(natural_images())).detach().numpy()[:, None]
    with_field = has_field([shuffled], natural_images(8), rng=rng)
    table = preferences(
        [shuffled], fields, natural, with_field=with_field, rng=rng, n_resamples=0
    ).table
    assert table["family"][0] == NONE
    assert table["reason"][0]


def test_ranked_by_merit(found: Preferences) -> None:
    table = found.table.iloc[[1, 1, 0, 1]].reset_index(drop=True)
    table["confidence"] = [0.5, 0.9, 1.0, 0.7]
    both = Preferences(table, found.stimuli[[1, 1, 0, 1]], found.responses[[1, 1, 0, 1]])
    assert both.ranked("edge").tolist() == [1, 3, 0]
    assert both.ranked("dot").tolist() == [2]
    assert both.ranked("curve").tolist() == []
    wanted = table["confidence"] * table["margin"] * table["sd_above_mean"]
    assert merits(table) == pytest.approx(wanted.to_numpy())
    assert (merits(table.assign(margin=-0.1)) == 0).all()


def test_wrong_input_is_refused() -> None:
    some, rng = [dot_model()], np.random.default_rng(0)
    fields = receptive_fields(some, natural_images(2))
    yes, five = np.ones(1, dtype=bool), np.zeros((5, 1))
    for two, natural, with_field in (
        (some, np.zeros((5, 2)), yes), (some * 2, np.zeros((5, 2)), yes), (some, five, yes[:0]),
    ):  # fmt: skip
        with pytest.raises(InputError, match="give one of each a model"):
            preferences(two, fields, natural, with_field=with_field, rng=rng)
    with pytest.raises(InputError, match="two images or more, got 1"):
        preferences(some, fields, np.zeros((1, 1)), with_field=yes, rng=rng)
    one = np.ones(1)
    oblong = ReceptiveFields(np.ones((1, 14, 17)), one, one, one)
    with pytest.raises(InputError, match="probes are square; the models take 14 x 17"):
        preferences([CompactModel((1,) * 5, (14, 17))], oblong, five, with_field=yes, rng=rng)
