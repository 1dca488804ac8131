"""How large models are, against what they store, do and were published with."""

from pathlib import Path

import numpy as np
import pytest
from test_compact import single_model, some_images
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pocketcortex.models import (
    SharedCompactModel,
    count_macs,
    fold_batch_norm,
    import_compact_model,
    model_size,
    published_models,
)

FILTERS = (4, 3, 5, 2, 6)


def counted_macs(model: nn.Module, size: tuple[int, int]) -> int:
    """Return what torch counts itself, two operations a multiply-add."""
    with FlopCounterMode(display=False) as counter:
        model(some_images(1, size).float())
    return int(counter.get_total_flops()) // 2


def test_macs_are_what_torch_counts() -> None:
    # Odd sizes need no widened kernels, whose zeros torch would count as work.
    size = (17, 21)
    model = single_model(FILTERS, size)
    assert model_size(model).macs == counted_macs(fold_batch_norm(model), size)
    shared = SharedCompactModel(FILTERS, 7, size).eval()
    assert model_size(shared).macs == counted_macs(shared, size)


def test_macs_by_hand() -> None:
    # 16 x 16 pixels, then 8 x 8, then 4 x 4 three times, the readout 4 x 4.
    layers = [256 * 75 * 4, 64 * (25 * 4 + 4 * 3), 16 * (25 * 3 + 3 * 5)]
    layers += [16 * (25 * 5 + 5 * 2), 16 * (25 * 2 + 2 * 6)]
    assert count_macs(FILTERS, (16, 16)) == (*layers, 16 * 6)


def test_size_of_a_model(tmp_path: Path) -> None:
    model = single_model(FILTERS)
    size = model_size(model)
    assert size.filters == FILTERS
    assert size.filters_per_stage == model.filters_per_layer == (4, 4, 3, 5, 2, 6)
    assert size.n_filters == 24
    assert size.parameters == model.n_parameters
    folded = fold_batch_norm(model)
    assert size.parameters.folded == sum(p.numel() for p in folded.parameters())
    saved = (model.save(tmp_path) / "model.safetensors").stat().st_size
    assert 0 <= saved - size.n_bytes < 200  # the file holds its hash as well


def test_size_of_a_shared_model() -> None:
    size = model_size(SharedCompactModel(FILTERS, 7, (16, 16)))
    assert size.filters_per_stage == (4, 4, 3, 5, 2, 7)
    assert size.parameters.readout == 7 * 6 + 7 * 16 + 7
    assert size.parameters.convolution == single_model(FILTERS).n_parameters.convolution


@pytest.mark.data
def test_published_sizes(real_data: Path) -> None:
    folder = real_data / "v4" / "data_compact_models" / "nums_filters"
    filters = [np.load(path).tolist() for path in sorted(folder.glob("*.npy"))]
    macs = [count_macs(n, (112, 112)) for n in filters]
    assert len(macs) == 219
    assert np.median(np.sum(macs, axis=1)) == 57_346_464
    assert np.median(macs, axis=0)[0] == 44_217_600  # the first layer does three quarters
    first = published_models(real_data / "v4", "190923")[0]
    size = model_size(import_compact_model(first))
    assert (size.parameters.total, size.n_filters, size.macs) == (12_466, 165, 59_404_464)
