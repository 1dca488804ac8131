"""Streamed CKA of all pairs: against plain features of plain forward passes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from population_models import population

from pocketcortex.core import InputError, StimulusSet
from pocketcortex.data import read_v4
from pocketcortex.dissect import model_alignment
from pocketcortex.dissect._maps import around
from pocketcortex.metrics import CKAAccumulator, linear_cka, participation_ratio
from pocketcortex.models import CompactModel, import_compact_model, published_models

SIZE = (14, 17)


def images(n: int, size: tuple[int, int] = SIZE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 3, *size), dtype=np.uint8)


@torch.no_grad()
def plain_maps(model: CompactModel, pixels: np.ndarray) -> list[np.ndarray]:
    layers = model.double().layers
    x = layers.centre(torch.from_numpy(pixels))
    maps = []
    for k in range(5):
        x = layers.layer(k, x)
        maps.append(x.numpy())
    model.float()
    return maps


def plain_cka(features: list[list[np.ndarray]], sizes: list[int], debiased: bool) -> np.ndarray:
    """Return CKA of all pairs per layer from maps [model][layer]."""
    layers = []
    for own in zip(*features, strict=True):
        accumulator = CKAAccumulator(len(own), debiased=debiased)
        flat = [maps.reshape(len(maps), -1) for maps in own]
        for rows in np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1]):
            accumulator.add(np.stack([x[rows] @ x[rows].T for x in flat]))
        layers.append(accumulator.cka())
    return np.stack(layers)


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize("size", [(14, 17), (24, 20)])
@pytest.mark.parametrize("debiased", [True, False])
def test_equals_cka_of_plain_features(size: tuple[int, int], debiased: bool) -> None:
    models, shown = population(5, size), images(27, size)
    found = model_alignment(models, shown, debiased=debiased, batch_size=10)
    assert found.batch_sizes == (9, 9, 9)
    expected = plain_cka([plain_maps(m, shown) for m in models], [9, 9, 9], debiased)
    np.testing.assert_allclose(found.cka, expected, atol=2e-5)
    assert (found.n_images, found.null, found.debiased) == (27, None, debiased)
    assert np.isnan(found.window_px)


def test_one_batch_of_everything_is_the_cka_of_the_features() -> None:
    models, shown = population(3), images(20)
    found = model_alignment(models, StimulusSet.from_array(shown))
    x, y = (plain_maps(m, shown)[3].reshape(20, -1) for m in models[:2])
    assert found.cka[3, 0, 1] == pytest.approx(linear_cka(x, y), abs=2e-5)


def test_threads_and_progress_change_nothing(two_threads: None) -> None:
    models, shown = population(3), images(33)
    done: list[int] = []
    two = model_alignment(models, shown, batch_size=12, advance=done.append)
    torch.set_num_threads(1)
    one = model_alignment(models, shown, batch_size=12, n_threads=1)
    np.testing.assert_allclose(two.cka, one.cka, atol=1e-6)
    assert done == [11, 11, 11]
    spent = (two.seconds_decoding, two.seconds_maps, two.seconds_grams, two.seconds_similarity)
    assert min(spent) >= 0
    assert 0.5 * two.seconds < sum(spent) <= two.seconds


def test_models_and_images_stay_as_they_are() -> None:
    models, shown = population(2), images(9)
    before = [{k: v.clone() for k, v in m.state_dict().items()} for m in models]
    pixels = shown.copy()
    model_alignment(models, shown)
    np.testing.assert_array_equal(shown, pixels)
    for model, state in zip(models, before, strict=True):
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("positions", ["receptive field", "receptive field in place"])
def test_receptive_fields_are_windows_of_plain_maps(positions: str) -> None:
    size = (40, 44)
    models, shown = population(3, size), images(18, size)
    centres = np.array([[12.2, 25.9], [21.5, 19.5], [38.0, 8.0]])  # the last window is cut off
    found = model_alignment(models, shown, positions=positions, centres_px=centres, window_px=14.0)
    features = []
    for model, (x, y) in zip(models, centres, strict=True):
        right, down = round(x - 21.5), round(y - 19.5)
        pixels = shown
        if positions == "receptive field":
            rows = np.clip(np.arange(40) - down, 0, 39)
            columns = np.clip(np.arange(44) - right, 0, 43)
            pixels = shown[:, :, rows][:, :, :, columns]
        own = []
        # middle of what positions see: pixel k, 2 k + 1, 4 k + 3 by layer
        grids = [(1, 0), (2, 1), (4, 3), (4, 3), (4, 3)]
        for layer, (step, start) in zip(plain_maps(model, pixels), grids, strict=True):
            seen_y, seen_x = (step * np.arange(n) + start for n in layer.shape[2:])
            near_y, near_x = abs(seen_y - 19.5 - down) < 7, abs(seen_x - 21.5 - right) < 7
            own.append(layer[:, :, near_y][:, :, :, near_x])
        features.append(own)
    np.testing.assert_allclose(found.cka, plain_cka(features, [18], True), atol=2e-5)
    assert (found.positions, found.window_px) == (positions, 14)


def test_a_model_is_like_itself_wherever_it_looks_if_images_move_along() -> None:
    (model,) = population(1, (112, 112))
    shown = images(20, (112, 112))
    centres = np.array([[55.5, 55.5], [39.5, 59.5]])  # moved by multiples of the stride
    moved, in_place = (
        model_alignment(
            [model, model], shown, positions=positions, centres_px=centres, window_px=16.0
        ).cka[:, 0, 1]
        for positions in ("receptive field", "receptive field in place")
    )
    np.testing.assert_allclose(moved, 1, atol=1e-5)
    assert (abs(in_place) < 0.3).all()


def test_positions_24_px_from_the_edge_see_none_of_the_zeros_around_an_image() -> None:
    (small,) = population(1, (112, 112))
    large = CompactModel(small.filters, (176, 176)).eval()
    large.layers.load_state_dict(small.layers.state_dict())
    shown = images(1, (176, 176))
    maps = plain_maps(small, np.ascontiguousarray(shown[..., 32:144, 32:144]))
    beyond = plain_maps(large, shown)
    for window, blind in ((64.0, True), (66.0, False)):
        same = []
        for layer, (inner, outer) in enumerate(zip(maps, beyond, strict=True)):
            here = around((55.5, 55.5), (112, 112), window, True).windows[layer]
            shift = 32 * inner.shape[2] // 112
            a = inner[..., here.rows, here.columns]
            b = outer[..., shift:, shift:][..., here.rows, here.columns]
            same.append(bool(np.allclose(a, b, atol=1e-8)))
        assert all(same) == blind


def test_statistics_of_channels_are_those_of_the_maps() -> None:
    models, shown = population(3, (24, 20)), images(21, (24, 20))
    found = model_alignment(models, shown, batch_size=8).channels
    for m, model in enumerate(models):
        maps = plain_maps(model, shown)
        with torch.no_grad():
            inputs = [
                model.layers.filtered(k, torch.from_numpy(maps[k - 1]).float()).numpy()
                for k in range(1, 5)
            ]
        for k, (values, step) in enumerate(zip(maps, (4, 2, 1, 1, 1), strict=True)):
            grid = values[:, :, step // 2 :: step, step // 2 :: step]
            flat = grid.transpose(1, 0, 2, 3).reshape(grid.shape[1], -1)
            expected = participation_ratio(np.linalg.eigvalsh(np.cov(flat)).clip(0))
            assert found.dimensionality[k, m] == pytest.approx(expected, rel=1e-3)
            if k:
                own = inputs[k - 1][:, :, step // 2 :: step, step // 2 :: step]
                np.testing.assert_allclose(
                    found.input_sd[m][k - 1], own.std(axis=(0, 2, 3)), rtol=1e-4
                )


def test_a_layer_that_answers_all_images_alike_has_neither_cka_nor_dimensions() -> None:
    models, shown = population(3), images(16)
    with torch.no_grad():
        models[1].layers.norms[2].weight.zero_()
    found = model_alignment(models, shown, n_permutations=3)
    assert np.isnan(found.cka[2:, 1]).all()
    assert np.isfinite(found.cka[:2]).all()
    assert np.isfinite(found.cka[:, 0, 2]).all()
    assert np.isnan(found.channels.dimensionality[2, 1])
    assert found.null is not None
    assert np.isnan(found.null.p[2:, 0, 1]).all()
    assert np.isfinite(found.null.pair_mean_p).all()


def test_the_null_is_that_of_images_dealt_out_anew() -> None:
    models, shown = population(3), images(40)
    models[2] = models[0]
    found = model_alignment(models, shown, batch_size=20, n_permutations=99, seed=5)
    null = found.null
    assert null is not None
    upper = np.triu_indices(3, 1)
    assert (abs(null.mean[:, *upper]) < 5 * null.sd[:, *upper] / 99**0.5).all()
    np.testing.assert_allclose(null.p[:, 0, 2], 0.01)
    assert np.isnan(null.p[:, 0, 0]).all()
    np.testing.assert_array_equal(null.p, null.p.transpose(0, 2, 1))
    assert null.pair_mean.shape == (99, 5)
    np.testing.assert_allclose(null.pair_mean.mean(axis=0), null.mean[:, *upper].mean(axis=1))
    np.testing.assert_allclose(null.pair_mean_p, 0.01)
    again = model_alignment(models, shown, batch_size=20, n_permutations=99, seed=5).null
    assert again is not None
    np.testing.assert_array_equal(again.pair_mean, null.pair_mean)


@pytest.mark.gpu
def test_a_gpu_gives_the_same() -> None:
    models, shown = population(4, (40, 40)), images(24, (40, 40))
    settings = {"positions": "receptive field", "window_px": 16.0}
    for extra in ({}, settings | {"centres_px": np.full((4, 2), 15.0)}):
        cpu = model_alignment(models, shown, batch_size=12, **extra)
        gpu = model_alignment(models, shown, batch_size=12, device="cuda", **extra)
        np.testing.assert_allclose(gpu.cka, cpu.cka, atol=1e-4)
        np.testing.assert_allclose(
            gpu.channels.dimensionality, cpu.channels.dimensionality, rtol=1e-3
        )


def test_bad_input_is_refused() -> None:
    models, shown = population(2), images(9)
    centred = np.full((2, 2), 5.0)
    with pytest.raises(InputError, match="two models or more"):
        model_alignment(models[:1], shown)
    with pytest.raises(InputError, match="one size"):
        model_alignment([models[0], population(1, (20, 20))[0]], shown)
    with pytest.raises(InputError, match="at least 8 images"):
        model_alignment(models, shown[:7])
    with pytest.raises(InputError, match="batch_size 7"):
        model_alignment(models, shown, batch_size=7)
    with pytest.raises(InputError, match="read them with that size"):
        model_alignment(models, images(9, (20, 20)))
    with pytest.raises(InputError, match="leave it out"):
        model_alignment(models, shown, centres_px=centred)
    with pytest.raises(InputError, match="needs centres_px"):
        model_alignment(models, shown, positions="receptive field")
    for wrong in (np.nan, 17.0):
        centres = centred.copy()
        centres[1, 0] = wrong
        with pytest.raises(InputError, match="model 1 has"):
            model_alignment(models, shown, positions="receptive field", centres_px=centres)
    with pytest.raises(InputError, match="above 0"):
        model_alignment(models, shown, window_px=0.0)
    with pytest.raises(InputError, match="widen it"):
        model_alignment(
            models, shown, positions="receptive field", centres_px=centred, window_px=0.5
        )


@pytest.mark.data
def test_early_layers_of_published_models_are_more_alike_than_late_ones(real_data: Path) -> None:
    session = read_v4(real_data / "v4")["190923"].require_stimuli().take(slice(0, 32))
    paths = list(published_models(real_data / "v4", "190923").values())[:4]
    models = [import_compact_model(path) for path in paths]
    found = model_alignment(models, session, n_permutations=19, batch_size=16)
    pairs = found.cka[:, *np.triu_indices(4, 1)].mean(axis=1)
    assert pairs[:2].mean() > pairs[2:4].mean() + 0.2
    assert found.null is not None
    assert (found.null.pair_mean_p[:2] == 0.05).all()
    features = [plain_maps(model, session.images()) for model in models]
    np.testing.assert_allclose(found.cka, plain_cka(features, [16, 16], True), atol=1e-4)
