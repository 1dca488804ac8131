"""Published compact models: four formats, one model; and files made to do harm."""

import contextlib
import io
import itertools
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pocketcortex.core import InputError
from pocketcortex.models import import_compact_model, published_models

FILTERS, SIDE = (4, 3, 5, 2, 6), 3
IMAGES = torch.from_numpy(
    np.random.default_rng(3).integers(0, 256, (4, 3, 4 * SIDE, 4 * SIDE), dtype=np.uint8)
)
PUBLISHED = ["190923_neuron0", "190923_neuron1", "201025_neuron2", "211022_neuron5"]
NORM = ("weight", "bias", "running_mean", "running_var")

Arrays = list[np.ndarray]


# Files as the release has them, of a small random model.


def random_arrays(seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)

    def norm(n: int) -> Arrays:
        return [
            rng.uniform(0.5, 2, n), rng.normal(size=n), rng.normal(size=n),
            rng.uniform(3e-5, 1e-2, n),
        ]  # fmt: skip

    n0 = FILTERS[0]
    arrays = [rng.normal(size=(5, 5, 3, n0)) / 500, rng.normal(size=n0), *norm(n0)]
    for a, b in itertools.pairwise(FILTERS):
        kernels = [rng.normal(size=(5, 5, a, 1)) / 5, rng.normal(size=(1, 1, a, b)) / 5]
        arrays += [*kernels, rng.normal(size=b), *norm(b)]
    arrays += [rng.normal(size=(SIDE * SIDE * FILTERS[-1], 1)) / 50, rng.normal(size=1)]
    return [a.astype(np.float32) for a in arrays]


def object_array(arrays: list[Any]) -> np.ndarray:
    values = np.empty(len(arrays), dtype=object)
    values[:] = arrays
    return values


def write_npy(path: Path, arrays: Arrays) -> Path:
    np.save(path, object_array(arrays), allow_pickle=True)
    return path


def write_h5(path: Path | io.BytesIO, arrays: Arrays) -> None:
    """Write the layout of weight files and of what `.keras` archives hold."""
    rest = iter(arrays)
    with h5py.File(path, "w") as file:
        for i in range(5):
            suffix = "" if i < 2 else f"_{i - 1}"
            conv = "conv2d" if i == 0 else f"separable_conv2d{suffix}"
            for k in range(2 if i == 0 else 3):
                file[f"layers/{conv}/vars/{k}"] = next(rest)
            for k in range(4):
                suffix = "" if i == 0 else f"_{i}"
                file[f"layers/batch_normalization{suffix}/vars/{k}"] = next(rest)
        for k in range(2):
            file[f"layers/dense/vars/{k}"] = next(rest)


def write_keras(path: Path, arrays: Arrays) -> None:
    weights = io.BytesIO()
    write_h5(weights, arrays)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", weights.getvalue())


def state_of(arrays: Arrays) -> dict[str, torch.Tensor]:
    """Name the arrays as the released state dicts do, 0.001 added to variances past layer 0."""
    rest = (torch.from_numpy(a.astype(np.float64)) for a in arrays)
    state = {}
    for i in range(5):
        if i == 0:
            state["layer0_conv.weight"] = next(rest).permute(3, 2, 0, 1)
            state["layer0_conv.bias"] = next(rest)
        else:
            state[f"layer{i}_conv_depth.weight"] = next(rest).permute(2, 3, 0, 1)
            state[f"layer{i}_conv_point.weight"] = next(rest).permute(3, 2, 0, 1)
            state[f"layer{i}_conv_point.bias"] = next(rest)
        for name in NORM:
            offset = 1e-3 if i and name == "running_var" else 0
            state[f"layer{i}_bn.{name}"] = next(rest) + offset
    state["Beta.weight"], state["Beta.bias"] = next(rest).T, next(rest)
    return {f"layers.{name}": tensor.contiguous() for name, tensor in state.items()}


def write(path: Path, arrays: Arrays) -> Path:
    if path.suffix == ".npy":
        write_npy(path, arrays)
    elif path.suffix == ".pt":
        torch.save(state_of(arrays), path)
    elif path.suffix == ".keras":
        write_keras(path, arrays)
    else:
        write_h5(path, arrays)
    return path


# A second, plain implementation.


def reference(state: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """Answer from a released state dict in float64, layer by layer, variances as they stand."""
    get = {name.removeprefix("layers."): tensor.double() for name, tensor in state.items()}

    def norm_relu(x: torch.Tensor, i: int) -> torch.Tensor:
        scale, offset, mean, variance = (get[f"layer{i}_bn.{name}"][:, None, None] for name in NORM)
        variance = variance + 1e-3 if i == 0 else variance
        return torch.relu((x - mean) / torch.sqrt(variance) * scale + offset)

    x = images.double() - torch.tensor([116.222, 109.270, 100.381]).double()[:, None, None]
    x = F.conv2d(F.pad(x, (2, 2, 2, 2)), get["layer0_conv.weight"], get["layer0_conv.bias"])
    x = norm_relu(x, 0)
    for i in range(1, 5):
        kernels = get[f"layer{i}_conv_depth.weight"]
        even = i <= 2 and x.shape[-1] % 2 == 0
        x = F.pad(x, (1, 2, 1, 2) if even else (2, 2, 2, 2))
        x = F.conv2d(x, kernels, stride=2 if i <= 2 else 1, groups=len(kernels))
        x = F.conv2d(x, get[f"layer{i}_conv_point.weight"], get[f"layer{i}_conv_point.bias"])
        x = norm_relu(x, i)
    flat = x.permute(0, 2, 3, 1).flatten(1)  # rows, columns, filters
    return (flat @ get["Beta.weight"].T + get["Beta.bias"])[:, 0]


def published_images(real_data: Path) -> torch.Tensor:
    rng = np.random.default_rng(0)
    smooth = rng.integers(0, 256, (6, 3, 14, 14)).repeat(8, 2).repeat(8, 3)
    noise = rng.integers(0, 256, (2, 3, 112, 112))
    return torch.from_numpy(np.concatenate([smooth, noise]).astype(np.uint8))


@pytest.mark.data
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_formats_give_identical_responses(real_data: Path, name: str) -> None:
    folder = real_data / "v4" / "data_compact_models"
    stem = f"compact_model_{name}"
    model, *others = (
        import_compact_model(folder / path)
        for path in (
            f"model_weights_npy/{stem}.npy", f"models_h5/{stem}.h5",
            f"models_keras/{stem}.keras", f"model_weights_h5/{stem}.weights.h5",
            f"models_torch/{stem}.pt",
        )
    )  # fmt: skip
    images = published_images(real_data)
    expected = model(images)
    for other in others[:3]:
        assert torch.equal(other(images), expected)
    torch.testing.assert_close(others[3](images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.data
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_answer_as_a_plain_reference(real_data: Path, name: str) -> None:
    folder = real_data / "v4" / "data_compact_models"
    path = folder / "models_torch" / f"compact_model_{name}.pt"
    expected = reference(torch.load(path, weights_only=True), published_images(real_data))
    got = import_compact_model(path).double()(published_images(real_data))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 0.05


@pytest.mark.data
def test_published_models_are_found_by_session(real_data: Path) -> None:
    counts = {"190923": 33, "201025": 89, "210225": 55, "211022": 42}
    for session, n in counts.items():
        assert list(published_models(real_data / "v4", session)) == list(range(n))


@pytest.mark.parametrize("suffix", [".pt", ".npy", ".h5", ".keras"])
def test_every_format_answers_as_a_plain_reference(tmp_path: Path, suffix: str) -> None:
    arrays = random_arrays()
    model = import_compact_model(write(tmp_path / f"model{suffix}", arrays))
    expected = reference(state_of(arrays), IMAGES)
    assert model.filters == FILTERS
    assert not model.training
    torch.testing.assert_close(model.double()(IMAGES), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.05


def test_sessions_are_named_exactly(tmp_path: Path) -> None:
    folder = tmp_path / "data_compact_models" / "models_torch"
    folder.mkdir(parents=True)
    for name in ("190923_neuron10", "190923_neuron9", "1909_neuron0", "201025_neuron1"):
        (folder / f"compact_model_{name}.pt").touch()
    assert list(published_models(tmp_path, "190923")) == [9, 10]


@pytest.mark.parametrize("session", ["1909", "*", "[0-9]*", "", "../190923"])
def test_unknown_session_is_refused(tmp_path: Path, session: str) -> None:
    folder = tmp_path / "data_compact_models" / "models_torch"
    folder.mkdir(parents=True)
    (folder / "compact_model_190923_neuron0.pt").touch()
    with pytest.raises(InputError, match=r"it holds models of \['190923'\]"):
        published_models(tmp_path, session)


def test_folder_without_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no session"):
        published_models(tmp_path, "190923")


# Files made to do harm.


class Calls:
    """Unpickles by calling a function."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.call


def attacks(mark: Path) -> dict[str, object]:
    code = f"open({str(mark)!r}, 'w')"
    return {
        "os.system": Calls(os.system, f"touch {mark}"),
        "builtins.eval": Calls(eval, code),
        "builtins.exec": Calls(exec, code),
        "numpy.fromfile": Calls(np.fromfile, str(mark)),
        "numpy.ndarray": Calls(np.ndarray, (2**33,), "f8"),
    }


@pytest.mark.parametrize("name", attacks(Path("mark")))
@pytest.mark.parametrize("place", ["instead", "inside", "nested"])
def test_npy_with_code_is_refused(tmp_path: Path, name: str, place: str) -> None:
    mark = tmp_path / "mark"
    attack, arrays = attacks(mark)[name], random_arrays()
    nested = object_array([attack, *arrays[1:]])
    values = {
        "instead": object_array([attack] * 36),
        "inside": object_array([attack, *arrays[1:]]),
        "nested": object_array([nested, *arrays[1:]]),
    }[place]
    path = tmp_path / "model.npy"
    np.save(path, values, allow_pickle=True)
    with pytest.raises(InputError, match=r"only arrays are admitted|other than a plain array"):
        import_compact_model(path)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "builtins.exec"])
def test_pt_with_code_is_refused(tmp_path: Path, name: str) -> None:
    mark, path = tmp_path / "mark", tmp_path / "model.pt"
    torch.save(state_of(random_arrays()) | {"more": attacks(mark)[name]}, path)
    with pytest.raises(InputError, match="not a readable compact model"):
        import_compact_model(path)
    assert not mark.exists()


def test_bare_pickle_named_pt_is_refused(tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "model.pt"
    path.write_bytes(pickle.dumps(attacks(mark)["os.system"]))
    with pytest.raises(InputError, match="not a readable compact model"):
        import_compact_model(path)
    assert not mark.exists()


@pytest.mark.parametrize("content", [3, "text", [1, 2], {"a": 1}, {}, torch.zeros(3)])
def test_pt_of_something_else_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(InputError, match="not a readable compact model"):
        import_compact_model(tmp_path / "model.pt")


@pytest.mark.parametrize("suffix", [".pt", ".npy", ".h5", ".keras"])
@pytest.mark.parametrize("part", [0.0, 0.002, 0.5, 0.99])
def test_truncated_file_is_refused(tmp_path: Path, suffix: str, part: float) -> None:
    path = write(tmp_path / f"model{suffix}", random_arrays())
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(InputError, match=re.escape(path.name)):
        import_compact_model(path)


@pytest.mark.parametrize("suffix", [".pt", ".npy", ".keras"])
def test_damaged_file_never_raises_anything_else(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"model{suffix}", random_arrays())
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        content = bytearray(whole)
        for position in rng.integers(len(content), size=4):
            content[position] = rng.integers(256)
        path.write_bytes(content)
        with contextlib.suppress(InputError):
            import_compact_model(path)


@pytest.mark.parametrize("suffix", ["", ".onnx", ".pkl", ".PT", ".npz"])
def test_unknown_suffix_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"anything")
    with pytest.raises(InputError, match="unknown model format"):
        import_compact_model(path)


@pytest.mark.parametrize("suffix", [".pt", ".npy", ".h5", ".keras"])
def test_missing_file_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(InputError, match="does not exist"):
        import_compact_model(tmp_path / f"model{suffix}")


def test_another_format_under_a_name_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "model.keras", random_arrays())
    for suffix in (".pt", ".npy", ".h5"):
        path = shutil.copy(tmp_path / "model.keras", tmp_path / f"other{suffix}")
        with pytest.raises(InputError, match="other"):
            import_compact_model(path)


@pytest.mark.parametrize("suffix", [".pt", ".npy", ".h5", ".keras"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("index", [0, 5, 34])
def test_weights_that_are_not_numbers_are_refused(
    tmp_path: Path, suffix: str, value: float, index: int
) -> None:
    arrays = random_arrays()
    arrays[index].flat[0] = value
    with pytest.raises(InputError, match="NaN or infinite"):
        import_compact_model(write(tmp_path / f"model{suffix}", arrays))


def test_weights_beyond_single_precision_are_refused(tmp_path: Path) -> None:
    arrays = [a.astype(np.float64) for a in random_arrays()]
    arrays[0].flat[0] = 1e300
    with pytest.raises(InputError, match="NaN or infinite"):
        import_compact_model(write(tmp_path / "model.npy", arrays))


def test_negative_variance_is_refused(tmp_path: Path) -> None:
    arrays = random_arrays()
    arrays[12][0] = -1
    with pytest.raises(InputError, match="variances are negative"):
        import_compact_model(write(tmp_path / "model.npy", arrays))


def damaged(change: Callable[[Arrays], object]) -> Arrays:
    arrays = random_arrays()
    change(arrays)
    return arrays


def put(index: int, shape: tuple[int, ...]) -> Callable[[Arrays], object]:
    return lambda arrays: arrays.__setitem__(index, np.ones(shape, np.float32))


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.pop(), lambda a: a.append(a[-1]), lambda a: a.clear(),
        put(0, (5, 5, 1, 4)), put(0, (3, 3, 3, 4)), put(0, (4,)), put(0, (5, 5, 3, 0)),
        put(1, (1, 4)), put(7, (1, 1, 4, 4)), put(28, (1, 1, 2, 0)), put(34, (55, 1)),
        put(34, (0, 1)), put(35, (2,)), put(35, ()), put(6, (5, 5, 4, 2)),
    ],
)  # fmt: skip
def test_another_architecture_is_refused(
    tmp_path: Path, change: Callable[[Arrays], object]
) -> None:
    arrays = damaged(change)
    if arrays and arrays[-1].shape == ():  # one bias, whatever its axes
        assert import_compact_model(write_npy(tmp_path / "model.npy", arrays)).filters == FILTERS
        return
    with pytest.raises(InputError, match=r"model\.npy"):
        import_compact_model(write_npy(tmp_path / "model.npy", arrays))


@pytest.mark.parametrize("values", [np.zeros(36), np.arange(36), np.array(["a"] * 36)])
def test_npy_of_something_else_is_refused(tmp_path: Path, values: np.ndarray) -> None:
    np.save(tmp_path / "model.npy", values)
    with pytest.raises(InputError, match="expected an object array"):
        import_compact_model(tmp_path / "model.npy")


@pytest.mark.parametrize("other", [3.0, "text", [1.0, 2.0], None, np.arange(3), np.array("a")])
def test_npy_with_other_objects_is_refused(tmp_path: Path, other: object) -> None:
    values = object_array([other, *random_arrays()[1:]])
    np.save(tmp_path / "model.npy", values, allow_pickle=True)
    with pytest.raises(InputError, match=r"model\.npy"):
        import_compact_model(tmp_path / "model.npy")


def test_npy_array_with_more_numbers_than_it_holds_is_refused(tmp_path: Path) -> None:
    path = write_npy(tmp_path / "model.npy", random_arrays())
    header = path.read_bytes()[:128]
    path.write_bytes(header.replace(b"(36,)", b"(99,)") + path.read_bytes()[128:])
    with pytest.raises(InputError, match="expected an object array"):
        import_compact_model(path)


def test_pt_tensor_of_huge_shape_is_refused(tmp_path: Path) -> None:
    state = state_of(random_arrays())
    state["layers.layer0_conv.weight"] = torch.zeros(1).expand(2**18, 2**18)
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(InputError, match="too large"):
        import_compact_model(tmp_path / "model.pt")


def test_file_over_the_size_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    with path.open("wb") as file:
        file.truncate(2**30)  # sparse
    with pytest.raises(InputError, match="not a compact model"):
        import_compact_model(path)


ENTRY = "layers/separable_conv2d/vars/0"


def test_h5_dataset_of_huge_shape_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "model.h5", random_arrays())
    with h5py.File(path, "a") as file:
        del file[ENTRY]
        file.create_dataset(ENTRY, (2**20, 2**20), "f4", chunks=(16, 16))
    with pytest.raises(InputError, match="not an array of floats"):
        import_compact_model(path)


@pytest.mark.parametrize("at", [ENTRY, "layers/separable_conv2d/vars", "layers/dense", "layers"])
def test_h5_external_link_is_refused(tmp_path: Path, at: str) -> None:
    path = write(tmp_path / "model.h5", random_arrays())
    write(tmp_path / "secret.h5", random_arrays(1))
    with h5py.File(path, "a") as file:
        del file[at]
        file[at] = h5py.ExternalLink(str(tmp_path / "secret.h5"), at)
    with pytest.raises(InputError, match="missing or a link"):
        import_compact_model(path)


def test_h5_soft_link_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "model.h5", random_arrays())
    with h5py.File(path, "a") as file:
        file.move(ENTRY, "elsewhere")
        file[ENTRY] = h5py.SoftLink("/elsewhere")
    with pytest.raises(InputError, match="missing or a link"):
        import_compact_model(path)


def test_h5_external_storage_is_refused(tmp_path: Path) -> None:
    path, secret = write(tmp_path / "model.h5", random_arrays()), tmp_path / "secret.bin"
    secret.write_bytes(bytes(5 * 5 * FILTERS[0] * 4))
    with h5py.File(path, "a") as file:
        shape = file[ENTRY].shape
        del file[ENTRY]
        file.create_dataset(ENTRY, shape, "f4", external=[(str(secret), 0, 400)])
    with pytest.raises(InputError, match="not a plain dataset"):
        import_compact_model(path)


def test_h5_virtual_dataset_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "model.h5", random_arrays())
    secret = write(tmp_path / "secret.h5", random_arrays(1))
    with h5py.File(path, "a") as file:
        shape = file[ENTRY].shape
        del file[ENTRY]
        layout = h5py.VirtualLayout(shape, "f4")
        layout[:] = h5py.VirtualSource(str(secret), ENTRY, shape=shape)
        file.create_virtual_dataset(ENTRY, layout)
    with pytest.raises(InputError, match="not a plain dataset"):
        import_compact_model(path)


@pytest.mark.parametrize("value", ["text", 3, np.zeros(3, dtype=complex)])
def test_h5_of_other_values_is_refused(tmp_path: Path, value: object) -> None:
    path = write(tmp_path / "model.h5", random_arrays())
    with h5py.File(path, "a") as file:
        del file[ENTRY]
        file[ENTRY] = value
    with pytest.raises(InputError, match=r"model\.h5"):
        import_compact_model(path)


def test_h5_group_in_place_of_weights_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "model.h5", random_arrays())
    with h5py.File(path, "a") as file:
        del file[ENTRY]
        file.create_group(ENTRY)
    with pytest.raises(InputError, match="not a plain dataset"):
        import_compact_model(path)


def test_keras_archive_without_weights_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(InputError, match=r"model\.weights\.h5"):
        import_compact_model(tmp_path / "model.keras")


def test_keras_archive_that_unpacks_huge_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("model.weights.h5", "w") as member,
    ):
        for _ in range(17):
            member.write(bytes(2**24))
    with pytest.raises(InputError, match="too large"):
        import_compact_model(path)


def test_npy_of_endless_instructions_is_refused(tmp_path: Path) -> None:
    path = write_npy(tmp_path / "model.npy", random_arrays())
    path.write_bytes(path.read_bytes()[:128] + b"\x80\x03" + b"K\x01" * 10**6 + b"(t" * 10**6)
    with pytest.raises(InputError, match="over 20,000 instructions"):
        import_compact_model(path)


def test_h5_whose_weights_lie_in_another_file_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file["model_weights"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/model_weights")
        file["layers"] = h5py.SoftLink("/elsewhere")
    with pytest.raises(InputError, match="'layers' is missing or a link"):
        import_compact_model(tmp_path / "model.h5")
