"""Kernels made in passing equal those of features kept, whatever the network does to them."""

import doctest
import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.preprocessing import StandardScaler
from small_networks import EVERYTHING, In, everything, pictures, plain_features
from torch import Tensor, nn

from pocketcortex.core import InputError
from pocketcortex.mapping._spectrum import spectrum_of_kernel
from pocketcortex.mapping.ridge import solve_ridge
from pocketcortex.metrics import CKAAccumulator, linear_cka
from pocketcortex.zoo import (
    NetworkKernels,
    StreamPlan,
    plan_stream,
    stream_kernels,
    stream_plan,
)
from pocketcortex.zoo._probe import _LiveMemory

N = 20


@pytest.fixture(scope="module")
def network() -> In:
    return In(everything())


@pytest.fixture(scope="module")
def features(network: In) -> dict[str, np.ndarray]:
    return {name: plain_features(network, pictures(N), f"net.{name}") for name in EVERYTHING}


@pytest.fixture(scope="module")
def kernels(network: In) -> NetworkKernels:
    return stream_kernels(network, pictures(N), within="net")


@pytest.fixture(params=["_as_they_come", "_kept"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have little memory gone about in one way: pairs of blocks, or features kept."""
    plan = "pocketcortex.zoo.stream_plan"
    monkeypatch.setattr(f"{plan}._WORK", 0)
    other = {"_as_they_come": "_kept", "_kept": "_as_they_come"}[request.param]
    whole = stream_plan._as_they_come

    def unless_all_at_once(*given: object) -> object:
        way = whole(*given) if other == "_as_they_come" else None
        return way if way is not None and way.n_passes == 1 else None

    monkeypatch.setattr(f"{plan}.{other}", unless_all_at_once)
    return str(request.param)


def n_hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


def relative(ours: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(ours - expected).max() / np.abs(expected).max())


def test_layers_are_what_the_network_computes_and_no_more(kernels: NetworkKernels) -> None:
    assert kernels.layers == EVERYTHING
    assert kernels.duplicates == {
        "identity": "stem.1", "block": "block.relu#2", "drop": "block.relu#2",
        "tokens.dropout1": "tokens.self_attn[0]", "tokens.dropout2": "tokens.linear2",
        "tokens": "tokens.norm2", "(output)": "head",
    }  # fmt: skip
    assert set(kernels.skipped) == {"time_first", "argmax[1]"}
    assert "order" in kernels.skipped["time_first"] or "first axis" in kernels.skipped["time_first"]
    assert "int64" in kernels.skipped["argmax[1]"]
    assert kernels.reasons == {}


def test_kernels_are_those_of_kept_features(
    kernels: NetworkKernels, features: dict[str, np.ndarray]
) -> None:
    for k, name in enumerate(kernels.layers):
        X = features[name]
        assert kernels.n_features[k] == X.shape[1], name
        centred = X - X.mean(axis=0)
        z = StandardScaler().fit_transform(X)
        assert relative(kernels.centred[k], centred @ centred.T) < 1e-10, name
        assert relative(kernels.standardized[k], z @ z.T) < 1e-10, name


def test_kernel_ridge_is_ridge_from_features(
    kernels: NetworkKernels, features: dict[str, np.ndarray]
) -> None:
    Y = np.random.default_rng(1).normal(size=(N, 3))
    for k, name in enumerate(kernels.layers):
        z = StandardScaler().fit_transform(features[name])
        centred = features[name] - features[name].mean(axis=0)
        for kernel, X in ((kernels.standardized[k], z), (kernels.centred[k], centred)):
            spectrum = spectrum_of_kernel(torch.from_numpy(kernel))
            fit = solve_ridge(spectrum, Y, [1.0], [], np.empty(0), None)
            fitted = kernel @ fit.dual + fit.target_mean
            np.testing.assert_allclose(fitted, Ridge(1.0).fit(X, Y).predict(X), atol=1e-6)
            loo = RidgeCV([1.0], store_cv_results=True, scoring="neg_mean_squared_error").fit(X, Y)
            left_out = loo.cv_results_[:, :, 0]  # of centred targets before scikit-learn 1.9
            ours = fit.held_out_predictions
            np.testing.assert_allclose(
                ours - ours.mean(axis=0), left_out - left_out.mean(axis=0), atol=1e-6, err_msg=name
            )


def test_rdms_are_correlation_distances(
    kernels: NetworkKernels, features: dict[str, np.ndarray]
) -> None:
    for rdm, name in zip(kernels.rdms(), kernels.layers, strict=True):
        np.testing.assert_allclose(rdm, pdist(features[name], "correlation"), atol=1e-9)


def test_rdms_keep_their_digits_where_patterns_are_much_alike() -> None:
    class Alike(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Identity()

        def forward(self, images: Tensor) -> Tensor:
            pattern = torch.linspace(-50, 50, images[0].numel())
            return self.out(pattern + 1e-2 * (images.flatten(1) / 255))

    stimuli = pictures(8)
    ours = stream_kernels(Alike(), stimuli).rdms()[0]
    exact = pdist(plain_features(Alike(), stimuli, "out").astype(np.float64), "correlation")
    assert exact.max() < 1e-7
    np.testing.assert_allclose(ours, exact, rtol=1e-4)


def test_cka_from_kernels_is_cka_of_features(
    kernels: NetworkKernels, features: dict[str, np.ndarray]
) -> None:
    for debiased in (True, False):
        together = CKAAccumulator(len(kernels), debiased=debiased)
        together.add(kernels.centred)
        for i, j in ((0, 5), (3, 12), (9, 17)):
            one, other = (features[kernels.layers[k]] for k in (i, j))
            assert together.cka()[i, j] == pytest.approx(linear_cka(one, other, debiased=debiased))


def test_single_precision_stays_within_its_rounding(features: dict[str, np.ndarray]) -> None:
    network = In(everything(torch.float32), torch.float32)
    kernels = stream_kernels(network, pictures(N), within="net")
    assert kernels.layers == EVERYTHING
    for k, name in enumerate(kernels.layers):
        X = plain_features(network, pictures(N), f"net.{name}").astype(np.float64)
        z = StandardScaler().fit_transform(X)
        assert relative(kernels.standardized[k], z @ z.T) < 2e-6, name
        np.testing.assert_allclose(kernels.rdms()[k], pdist(X, "correlation"), atol=1e-6)


@pytest.mark.usefixtures("way")
def test_little_memory_gives_the_same_kernels_in_more_passes(network: In) -> None:
    stimuli = pictures(N)
    whole = stream_kernels(network, stimuli, within="net")
    plan = plan_stream(network, stimuli, within="net")
    assert (plan.images_at_once, plan.n_passes) == (N, 1)
    most = plan.needed_bytes / 2**30
    seen, images = [], []
    few = stream_kernels(
        network, stimuli, within="net", memory_gib=most * 0.7, announce=seen.append,
        advance=images.append,
    )  # fmt: skip
    assert seen[0].images_at_once < N
    assert seen[0].n_passes == len(images) > 3
    assert max(images) <= seen[0].images_at_once
    assert sum(images) == seen[0].n_images > N
    assert seen[0].needed_bytes <= most * 0.7 * 2**30
    for name in ("centred", "standardized", "row_means", "row_squares"):
        ours, expected = getattr(few, name), getattr(whole, name)
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-10, err_msg=name)
    with pytest.raises(InputError, match="too little for two images"):
        plan_stream(network, stimuli, within="net", memory_gib=0.0001)


def test_the_least_memory_that_is_taken_gives_the_same_kernels(
    network: In, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pocketcortex.zoo.stream_plan._WORK", 2**30)  # so that GiB tell digits
    stimuli = pictures(8)
    whole = stream_kernels(network, stimuli, within="net")
    low, high = 1.0, 1.001
    with pytest.raises(InputError, match=r"at least 1\.00 GiB"):
        plan_stream(network, stimuli, within="net", memory_gib=low)
    while high - low > 1e-7:
        middle = (low + high) / 2
        try:
            plan_stream(network, stimuli, within="net", memory_gib=middle)
            high = middle
        except InputError:
            low = middle
    least = stream_kernels(network, stimuli, within="net", memory_gib=high)
    np.testing.assert_allclose(least.standardized, whole.standardized, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("layers", "is_kept"), [(["stem.0", "head"], True), (None, False)])
def test_features_are_kept_where_that_computes_fewer_images(
    layers: list[str] | None, is_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pocketcortex.zoo.stream_plan._WORK", 0)
    network, stimuli = In(everything(torch.float32), torch.float32), pictures(40)

    def plan_of(memory_gib: float) -> StreamPlan:
        return plan_stream(
            network, stimuli, within="net", layers=layers, memory_gib=memory_gib, to_files=True
        )

    whole = plan_of(2.0)
    plan = plan_of(whole.needed_bytes * 0.6 / 2**30)
    assert whole.kept == ()
    assert bool(plan.kept) == is_kept
    for name, size in zip(plan.layers, plan.n_features, strict=True) if is_kept else ():
        parts = [features[name] for features in plan.kept if name in features]
        assert np.concatenate([np.arange(size)[part] for part in parts]).tolist() == list(
            range(size)
        )


def test_fewer_features_than_stimuli_are_used_exactly() -> None:
    """With a kernel of low rank, rounding counts beside a small penalty: here none is left."""
    rng = np.random.default_rng(0)
    weights = torch.from_numpy(rng.normal(size=(192, 33)).astype(np.float32)) / 255

    class Few(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Identity()

        def forward(self, images: Tensor) -> Tensor:
            return self.out(images.flatten(1) @ weights + 3)

    stimuli = pictures(100, 8)
    z = StandardScaler().fit_transform(plain_features(Few(), stimuli, "out").astype(np.float64))
    kernel = stream_kernels(Few(), stimuli, layers=["out"]).standardized[0]
    assert relative(kernel, z @ z.T) < 1e-14
    assert np.linalg.matrix_rank(kernel) == 33


def test_all_is_covered_for_any_number_of_stimuli(network: In, way: str) -> None:
    stimuli = pictures(7, 8)
    plan = plan_stream(network, stimuli, within="net")
    whole = stream_kernels(network, stimuli, within="net")
    numbers = set()
    for share in (0.9, 0.75, 0.65):
        seen = []
        few = stream_kernels(
            network, stimuli, within="net", announce=seen.append,
            memory_gib=plan.needed_bytes * share / 2**30,
        )  # fmt: skip
        numbers.add((seen[0].images_at_once, len(seen[0].kept)))
        assert (way == "_kept") == bool(seen[0].kept)
        np.testing.assert_allclose(few.standardized, whole.standardized, atol=1e-7)
    assert len(numbers) > 1


@pytest.mark.usefixtures("way")
def test_memory_of_a_pass_stays_below_what_is_announced(network: In) -> None:
    stimuli = pictures(N)
    plan = plan_stream(network, stimuli, within="net", memory_gib=2.0)
    for gib in (2.0, plan.needed_bytes * 0.7 / 2**30):
        seen = []
        with _LiveMemory() as memory:
            stream_kernels(network, stimuli, within="net", memory_gib=gib, announce=seen.append)
        assert 0 < memory.peak < seen[0].needed_bytes <= gib * 2**30


def test_hooks_and_flags_are_as_before_after_success_and_after_an_error() -> None:
    network = In(everything())
    network.train()
    network.net.block.eval()
    flags = [module.training for module in network.modules()]
    stream_kernels(network, pictures(5), within="net")
    assert n_hooks(network) == 0
    assert [module.training for module in network.modules()] == flags

    class Breaks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 2:
                raise ValueError("out of paper")
            return x

    network.net.identity = Breaks()
    with pytest.raises(ValueError, match="out of paper"):
        stream_kernels(network, pictures(5), within="net")
    assert n_hooks(network) == 0
    assert network.training
    assert not network.net.block.training


def test_twice_the_same_is_bit_for_bit_the_same(network: In, kernels: NetworkKernels) -> None:
    again = stream_kernels(network, pictures(N), within="net")
    for name in ("centred", "standardized", "row_means", "row_squares"):
        np.testing.assert_array_equal(getattr(again, name), getattr(kernels, name))


def test_layers_wanted_end_the_pass_after_the_last(network: In, kernels: NetworkKernels) -> None:
    network = In(everything())
    some = stream_kernels(network, pictures(N), within="net", layers=["block", "stem.0"])
    assert some.layers == ("stem.0", "block.relu#2")
    np.testing.assert_allclose(some.centred[1], kernels.centred[6], rtol=1e-12)

    class OnlyProbed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert len(x) <= 4
            return x

    network.net.flatten = OnlyProbed()
    stream_kernels(network, pictures(N), within="net", layers=["block"])
    for name, message in (("nowhere", "does not exist"), ("argmax[1]", "not floating point")):
        with pytest.raises(InputError, match=message):
            stream_kernels(network, pictures(5), within="net", layers=[name])
    with pytest.raises(InputError, match="no sub-module"):
        stream_kernels(network, pictures(5), within="nowhere")


class Scaled(nn.Module):
    """Pixels times a factor, beside a layer that is what it should be."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.good, self.bad = nn.Identity(), nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        x = self.good(images.flatten(1) / 255 - 0.5)
        return self.bad(x[:, :-1] * self.factor)


@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_features_near_the_ends_of_single_precision_lose_nothing(factor: float) -> None:
    stimuli = pictures(6)
    kernels = stream_kernels(Scaled(factor), stimuli)
    X = plain_features(Scaled(factor), stimuli, "bad").astype(np.float64) / factor
    z = StandardScaler().fit_transform(X)
    np.testing.assert_allclose(kernels.standardized[1], z @ z.T, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(kernels.rdms()[1], pdist(X, "correlation"), atol=1e-5)


@pytest.mark.parametrize("factor", [np.nan, np.inf])
@pytest.mark.parametrize("share", [1.0, 0.8])
@pytest.mark.usefixtures("way")
def test_layers_that_are_not_finite_say_so_and_spare_the_others(
    factor: float, share: float
) -> None:
    stimuli = pictures(12)
    needed = plan_stream(Scaled(factor), stimuli).needed_bytes
    kernels = stream_kernels(Scaled(factor), stimuli, memory_gib=share * needed / 2**30)
    assert kernels.reasons == {"bad": "features are NaN or infinite"}
    assert np.isnan(kernels.centred[1]).all()
    assert np.isnan(kernels.rdms()[1]).all()
    assert np.isfinite(kernels.rdms()[0]).all()


def test_features_that_do_not_vary_count_as_zero() -> None:
    class Some(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out, self.flat = nn.Identity(), nn.Identity()

        def forward(self, images: Tensor) -> Tensor:
            x = images.flatten(1)
            x = torch.cat([x[:, :10], torch.full_like(x[:, :10], 0.1)], 1)
            return self.flat(self.out(x)[:, 10:])

    stimuli = pictures(7)
    kernels = stream_kernels(Some(), stimuli)
    z = StandardScaler().fit_transform(plain_features(Some(), stimuli, "out").astype(np.float64))
    np.testing.assert_allclose(kernels.standardized[0], z @ z.T, rtol=1e-5, atol=1e-4)
    assert kernels.layers[:2] == ("out", "flat")
    assert (kernels.standardized[1] == 0).all()
    assert np.isnan(kernels.rdms()[1]).all()


def test_kernels_in_a_folder_come_back_and_appear_whole(network: In, tmp_path: Path) -> None:
    stimuli = pictures(6)
    kept = stream_kernels(network, stimuli, within="net")
    mapped = stream_kernels(network, stimuli, within="net", folder=tmp_path / "one")
    kept.save(tmp_path / "two")
    for other in (mapped, NetworkKernels.load(tmp_path / "two")):
        for name in ("centred", "standardized", "row_means", "row_squares", "n_features"):
            np.testing.assert_array_equal(getattr(other, name), getattr(kept, name))
        for name in ("layers", "duplicates", "skipped", "reasons", "stimuli"):
            assert getattr(other, name) == getattr(kept, name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
    for attempt in (
        lambda: kept.save(tmp_path / "one"),
        lambda: stream_kernels(network, stimuli, folder=tmp_path / "one"),
    ):
        with pytest.raises(InputError, match="new folder"):
            attempt()
    (tmp_path / "two" / "kernels.json").unlink()
    with pytest.raises(InputError, match="no finished kernels"):
        NetworkKernels.load(tmp_path / "two")


def test_networks_without_features_and_sets_too_small_are_refused() -> None:
    class Counts(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.argmax(1)

    with pytest.raises(InputError, match="no module of the network gives features"):
        stream_kernels(Counts(), pictures(5))
    with pytest.raises(InputError, match="3 stimuli or more"):
        stream_kernels(nn.Flatten(), pictures(2))


def test_networks_that_cannot_take_colours_side_by_side_still_run() -> None:
    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            out = self.conv(x)
            return out.view(len(out), -1)

    assert not plan_stream(Views(), pictures(5)).channels_last
    assert stream_kernels(Views(), pictures(5)).layers == ("conv",)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("share", [1.0, 0.7])
def test_what_a_gpu_computes_by_torch_is_what_a_cpu_computes_by_numpy(
    kernels: NetworkKernels, network: In, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same code with tensors in place of arrays, here on a CPU."""

    def tensors(x: Tensor, exact: bool) -> tuple[Tensor, object]:
        return (x.double() if exact else x), torch

    monkeypatch.setattr("pocketcortex.zoo._feature_kernels._values", tensors)
    stimuli = pictures(N)
    needed = plan_stream(network, stimuli, within="net").needed_bytes
    ours = stream_kernels(network, stimuli, within="net", memory_gib=needed * share / 2**30)
    for name in ("centred", "standardized", "row_means", "row_squares"):
        expected = getattr(kernels, name)
        np.testing.assert_allclose(getattr(ours, name), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.gpu
def test_kernels_on_a_gpu_are_those_on_a_cpu() -> None:
    network = In(everything(torch.float32), torch.float32)
    cpu = stream_kernels(network, pictures(N), within="net")
    gpu = stream_kernels(network, pictures(N), within="net", device="cuda")
    assert gpu.layers == cpu.layers
    for k, name in enumerate(cpu.layers):
        assert relative(gpu.standardized[k], cpu.standardized[k]) < 1e-4, name


def test_examples_run() -> None:
    result = doctest.testmod(importlib.import_module("pocketcortex.zoo.streaming"))
    assert result.attempted > 0
    assert result.failed == 0
