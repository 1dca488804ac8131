"""Traces: every stage is the model's own, their sum its response, and cuts are slices."""

from pathlib import Path

import numpy as np
import pytest
import torch
from planted_models import CENTRE_PX, SIZE, dot_model
from population_models import population
from torch.nn import functional as F

from pocketcortex.core import InputError
from pocketcortex.dissect import Trace, trace
from pocketcortex.models import CompactModel, import_compact_model, published_models
from pocketcortex.models.compact import STRIDES, same_conv


def an_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8)


def response(model: CompactModel, image: np.ndarray) -> float:
    with torch.inference_mode():
        return float(model(torch.from_numpy(image)[None])[0])


@pytest.mark.parametrize("size", [(36, 36), (14, 17), (20, 28)])
def test_sums_to_the_response(size: tuple[int, int]) -> None:
    for k, model in enumerate(population(3, size)):
        image = an_image(*size, k)
        found = trace(model.double(), image)
        assert found.response == pytest.approx(response(model, image), rel=1e-10)
        assert found.by_filter == pytest.approx(found.products.sum((1, 2)))
        assert (found.image == image).all()
        assert abs(found.by_filter).max() > 1e-3


@torch.no_grad()
def test_every_stage_is_the_models_own() -> None:
    model = population(1, (20, 28))[0].double()
    image = an_image(20, 28)
    found = trace(model, image)
    x = model.layers.centre(torch.from_numpy(image)[None])
    assert len(found.layers) == len(STRIDES)
    for i, layer in enumerate(found.layers):
        assert layer.inputs == pytest.approx(x[0].numpy(), abs=1e-9)
        if i > 0:
            assert layer.filtered == pytest.approx(model.layers.filtered(i, x)[0].numpy(), abs=1e-9)
            kernels = model.layers.depthwise[i - 1].weight[:, 0]
            assert layer.kernels == pytest.approx(kernels.numpy())
        x = model.layers.layer(i, x)
        assert layer.maps == pytest.approx(x[0].numpy(), abs=1e-9)
        assert layer.maps == pytest.approx(np.maximum(layer.sums, 0))
    assert found.products == pytest.approx((x[0] * model.readout).numpy(), abs=1e-9)
    assert found.readout == pytest.approx(model.readout.numpy())
    assert found.bias == pytest.approx(float(model.readout_bias))


def test_kernels_and_mixing_make_the_next_maps() -> None:
    """Convolved anew from the arrays told, batch norm folded in."""
    found = trace(population(1, (20, 28))[0].double(), an_image(20, 28))
    for i, layer in enumerate(found.layers):
        kernels = torch.from_numpy(layer.kernels)
        inputs = torch.from_numpy(layer.inputs)[None]
        n = len(inputs[0])
        if i == 0:
            filtered = same_conv(inputs, kernels, None, 1, 1)
            assert (layer.mixing == np.eye(len(layer.sums))).all()
        else:
            filtered = same_conv(inputs, kernels[:, None], None, STRIDES[i], n)
        assert layer.filtered == pytest.approx(filtered[0].numpy(), abs=1e-9)
        mixed = np.tensordot(layer.mixing, layer.filtered, 1)
        offset = (layer.sums - mixed).reshape(len(mixed), -1)
        assert np.ptp(offset, axis=1) == pytest.approx(np.zeros(len(mixed)), abs=1e-9)


def slices(maps: np.ndarray, top: int, left: int, width: int) -> np.ndarray:
    scale = SIZE // maps.shape[1]
    rows, columns = (slice(at // scale, (at + width) // scale) for at in (top, left))
    return maps[:, rows, columns]


@pytest.mark.parametrize(
    ("x", "y", "corner"),
    [(18, 18, (12, 12)), (0, 0, (0, 0)), (35, 3.5, (0, 24)), (19.4, 25, (20, 12))],
)
def test_cut_is_a_slice_of_every_stage(x: float, y: float, corner: tuple[int, int]) -> None:
    """The corner (row, column) lies on every fourth pixel, and within the image."""
    whole = trace(population(1, (SIZE, SIZE))[0], an_image(SIZE, SIZE))
    part = whole.around(float(x), float(y), 12)
    assert part.image.shape == (3, 12, 12)
    assert (part.image == whole.image[:, slice(corner[0], corner[0] + 12),
                                      slice(corner[1], corner[1] + 12)]).all()  # fmt: skip
    for one, other in zip(part.layers, whole.layers, strict=True):
        for name in ("inputs", "filtered", "sums", "maps"):
            wanted = slices(getattr(other, name), *corner, 12)
            assert (getattr(one, name) == wanted).all(), name
        assert (one.kernels == other.kernels).all()
        assert (one.mixing == other.mixing).all()
    assert (part.readout == slices(whole.readout, *corner, 12)).all()
    assert part.products.shape[1:] == (3, 3)
    assert part.response == pytest.approx(part.products.sum() + whole.bias)


def test_cut_of_the_whole_changes_nothing() -> None:
    whole = trace(population(1, (SIZE, SIZE))[0], an_image(SIZE, SIZE))
    assert whole.around(3.0, 30.0, SIZE).response == whole.response


def test_cut_about_a_field_holds_the_response() -> None:
    model, image = dot_model(), an_image(SIZE, SIZE)
    image[:, CENTRE_PX[1] - 1 : CENTRE_PX[1] + 2, CENTRE_PX[0] - 1 : CENTRE_PX[0] + 2] = 255
    whole = trace(model, image)
    assert whole.response != 0
    assert whole.around(*map(float, CENTRE_PX), 8).response == pytest.approx(whole.response)
    assert whole.around(35.0, 35.0, 8).response == 0


def test_wrong_input_is_refused() -> None:
    whole: Trace = trace(dot_model(), an_image(SIZE, SIZE))
    for width in (0, -4, 2, 6, 40):
        with pytest.raises(InputError, match=f"multiple of 4 up to 36, got {width}"):
            whole.around(18.0, 18.0, width)
    with pytest.raises(InputError, match="the model takes images"):
        trace(dot_model(), an_image(SIZE, 32))


def test_rectified_sums_are_maps_in_single_precision_too() -> None:
    model = population(1, (14, 17))[0]
    layer = trace(model, an_image(14, 17)).layers[2]
    assert (layer.maps == F.relu(torch.from_numpy(layer.sums)).numpy()).all()
    assert layer.maps.dtype == np.float64


@pytest.mark.data
def test_of_a_published_model(real_data: Path) -> None:
    files = published_models(real_data / "v4", "190923")
    model = import_compact_model(files[min(files)])
    image = an_image(*model.image_size)
    found = trace(model, image)
    assert found.response == pytest.approx(response(model, image), rel=1e-4, abs=1e-5)
    assert [len(layer.maps) for layer in found.layers] == list(model.filters)
    cut = found.around(56.0, 56.0, 64)
    assert cut.layers[-1].maps.shape[1:] == (16, 16)
