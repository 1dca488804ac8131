"""Dot detectors wired by hand are found by their best size; edges and blobs are not."""

import numpy as np
import pytest
import torch
from planted_models import (
    BOX,
    SIZE,
    SPOT,
    chained,
    dot_model,
    natural_images,
    silent,
)

from pocketcortex.core import InputError
from pocketcortex.dissect import DOT_RADII, dot_search, receptive_fields
from pocketcortex.models import CompactModel
from pocketcortex.stimuli import dots_of_size


def searched(models: list[CompactModel], weakly: float = 0.1):  # type: ignore[no-untyped-def]
    fields = receptive_fields(models, natural_images())
    with torch.inference_mode():
        shown = torch.from_numpy(natural_images())
        natural = np.stack([weakly * model(shown).numpy() for model in models], axis=1)
    return dot_search(models, fields, natural), fields, natural


def test_wired_dot_detectors_are_found_with_size_and_colour() -> None:
    models = [dot_model(), chained([BOX], pool=BOX), silent(), chained([-SPOT])]
    table, fields, natural = searched(models)
    assert table["is_detector"].tolist() == [True, False, False, True]
    assert table["foreground"][[0, 3]].tolist() == ["white", "black"]
    assert (table["radius_px"][[0, 3]] < 0.07 * SIZE).all()
    assert table["selectivity"][1] < 0.5  # light pooled: the larger, the better
    assert np.isnan(table["selectivity"][2])
    assert sorted(table["rank"].dropna()) == [1, 2]
    assert table.loc[table["rank"].idxmin(), "merit"] == table["merit"].max()
    best = table.loc[0, "response"]
    assert table["sd_above_mean"][0] == pytest.approx(
        (best - natural[:, 0].mean()) / natural[:, 0].std()
    )
    curve = table.filter(like="curve_").iloc[0].to_numpy(float)
    assert len(curve) == len(DOT_RADII)
    assert curve.max() == pytest.approx(1)
    at = (float(fields.x_px[0]), float(fields.y_px[0]))
    shown = dots_of_size([0, table["radius_px"][0]], SIZE, centre_px=at).images
    with torch.inference_mode():
        grey, in_the_middle = models[0](torch.from_numpy(shown)).numpy()
    assert best - grey >= in_the_middle - grey > 0


def test_dots_that_natural_images_outdo_make_no_detector() -> None:
    table, _, _ = searched([dot_model()], weakly=100)
    assert not table["is_detector"][0]
    assert table["merit"][0] == 0


def test_wrong_input_is_refused() -> None:
    models = [dot_model()]
    fields = receptive_fields(models, natural_images())
    with pytest.raises(InputError, match="give one of each a model"):
        dot_search(models, fields, np.zeros((5, 2)))
    with pytest.raises(InputError, match="two images or more"):
        dot_search(models, fields, np.zeros((1, 1)))
    oblong = [CompactModel((1,) * 5, (14, 17))]
    with pytest.raises(InputError, match="squares"):
        dot_search(oblong, fields, np.zeros((5, 1)))
