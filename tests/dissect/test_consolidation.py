import numpy as np
import pytest
import torch
from population_models import RAGGED, population

from pocketcortex.core import InputError
from pocketcortex.dissect import (
    ChannelStatistics,
    consolidation_table,
    filters_table,
    model_alignment,
)
from pocketcortex.models import CompactModel


def channels(models: list[CompactModel]) -> ChannelStatistics:
    shown = np.random.default_rng(0).integers(0, 256, (12, 3, 14, 17), dtype=np.uint8)
    return model_alignment(models, shown).channels


def test_filters_are_those_of_the_models() -> None:
    models = population(3)
    found = channels(models)
    table = filters_table(models, found)
    assert table["n_filters"].tolist() == [n for filters in RAGGED[:3] for n in filters]
    assert table["layer"].tolist() == [0, 1, 2, 3, 4] * 3
    assert table["model"].tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert np.isnan(table["ratio"][0])
    np.testing.assert_allclose(table["ratio"][1:5], [6 / 4, 3 / 6, 5 / 3, 3 / 5])
    np.testing.assert_array_equal(table["dimensionality"][5:10], found.dimensionality[:, 1])
    assert "dimensionality" not in filters_table(models)


def test_the_narrowest_layer_and_what_it_combines() -> None:
    models = population(2)
    with torch.no_grad():
        weights = models[0].layers.pointwise[1].weight  # 6 channels to 3
        weights.zero_()
        weights[0, 2] = 5.0  # one input
        weights[1, :4] = torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None, None]  # four alike
    found = channels(models)
    table = consolidation_table(models, found)
    assert table["layer"].tolist() == [2, 1]  # 6 to 3, and 7 to 3
    assert table["ratio"].tolist() == pytest.approx([3 / 6, 3 / 7])
    assert table[["n_inputs", "n_outputs"]].to_numpy().tolist() == [[6, 3], [7, 3]]
    assert table["inputs_combined_by_weight"][0] == pytest.approx((1 + 4) / 2)  # zeros left out
    variance = found.input_sd[0][1][:4] ** 2
    four = variance.sum() ** 2 / (variance**2).sum()
    assert table["inputs_combined"][0] == pytest.approx((1 + four) / 2)
    assert table["dimensionality_before"][1] == found.dimensionality[0, 1]
    assert table["dimensionality_after"][0] == found.dimensionality[2, 0]
    assert list(consolidation_table(models).columns) == [
        "model", "layer", "ratio", "n_inputs", "n_outputs", "inputs_combined_by_weight",
    ]  # fmt: skip


def test_bad_input_is_refused() -> None:
    models = population(3)
    with pytest.raises(InputError, match="no model"):
        filters_table([])
    found = channels(models[:2])
    for wrong in (models, models[1::-1]):
        with pytest.raises(InputError, match="same order"):
            filters_table(wrong, found)
        with pytest.raises(InputError, match="same order"):
            consolidation_table(wrong, found)
