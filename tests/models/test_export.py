"""Exported models: whoever runs them gets the model's own responses."""

import ast
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from pydantic import ValidationError
from test_compact import single_model, some_images

from pocketcortex.core import InputError
from pocketcortex.data import read_v4
from pocketcortex.models import (
    ONNX_OPSET,
    CompactModel,
    CompactStack,
    ExportFormat,
    ModelCard,
    export_model,
    fold_batch_norm,
    import_compact_model,
    numpy_weights,
    published_models,
    push_to_hub,
)
from pocketcortex.models.numpy_forward import predict

FILTERS, SIZE = (4, 3, 5, 2, 6), (14, 17)  # even and odd: both ways of padding
CARD = ModelCard(
    license="cc-by-4.0",
    neuron="Animal A, V4, neuron 3.",
    training={"images": 12_000_000, "a|b": "x"},
    scores={"r2, held-out images": 0.51234, "r2, others": float("nan")},
)
Run = Callable[[np.ndarray], np.ndarray]


def run_onnx(path: Path) -> Run:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run(["responses"], {"images": images})[0])


def run_torch(path: Path) -> Run:
    module = torch.export.load(path).module()
    return lambda images: np.asarray(module(torch.from_numpy(images)).detach())


def run_numpy(path: Path) -> Run:
    weights = dict(np.load(path / "weights.npz"))
    return lambda images: predict(weights, images)


RUNNERS: dict[ExportFormat, Callable[[Path], Run]] = {
    "onnx": run_onnx, "torch": run_torch, "numpy": run_numpy
}  # fmt: skip


def largest_error(answer: np.ndarray, expected: torch.Tensor) -> float:
    """Return the largest error in standard deviations of the responses."""
    assert answer.shape == tuple(expected.shape)
    assert answer.dtype == np.float32
    return float((np.abs(answer - expected.numpy()) / expected.numpy().std(axis=0)).max())


def images_of_all_contrasts(n: int, size: tuple[int, int]) -> torch.Tensor:
    """Return float images between black and full contrast, to which responses differ widely."""
    return some_images(n, size) * torch.linspace(0, 1, n)[:, None, None, None]


def responses(model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        answer: torch.Tensor = model(images)
    return answer


def test_folded_model_answers_alike_and_leaves_the_model_alone() -> None:
    model, images = single_model(FILTERS, SIZE).train(), images_of_all_contrasts(8, SIZE)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folded = fold_batch_norm(model)
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)
    assert model.training
    assert not any("norm" in name for name in folded.state_dict())
    expected = responses(model.eval(), images)
    assert largest_error(responses(folded, images).numpy(), expected) < 1e-5


@pytest.mark.parametrize("format", RUNNERS)
def test_exported_model_answers_alike(tmp_path: Path, format: ExportFormat) -> None:
    model, images = single_model(FILTERS, SIZE), images_of_all_contrasts(9, SIZE)
    expected = responses(model, images)
    run = RUNNERS[format](export_model(model, tmp_path / "new" / "model", format))
    assert largest_error(run(images.numpy()), expected) < 1e-5
    alone = run(images[-1:].numpy())  # any number of images
    assert abs(alone - expected[-1:].numpy()).max() < 1e-5 * expected.std()


@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_population_answers_as_its_models(tmp_path: Path, format: ExportFormat) -> None:
    models = [single_model(f, SIZE, seed) for seed, f in enumerate([FILTERS, (2, 6, 1, 3, 1)])]
    images = images_of_all_contrasts(5, SIZE)
    path = export_model(models, tmp_path / "population", format)
    expected = CompactStack(models).eval().predict(images)
    assert largest_error(RUNNERS[format](path)(images.numpy()), expected) < 1e-5


@pytest.mark.data
def test_published_model_answers_alike_in_every_format(real_data: Path, tmp_path: Path) -> None:
    session = read_v4(real_data / "v4").select(["190923"])["190923"].take(slice(0, 20))
    images = torch.from_numpy(session.require_stimuli().images()).float()
    model = import_compact_model(published_models(real_data / "v4", "190923")[0])
    expected = responses(model, images)
    for format, run in RUNNERS.items():
        path = export_model(model, tmp_path / format, format)
        assert largest_error(run(path)(images.numpy()), expected) < 1e-5, format
    hub = CompactModel.load(export_model(model, tmp_path / "hub", "hub", card=CARD))
    assert torch.equal(responses(hub, images), expected)


def test_onnx_file_says_what_it_takes(tmp_path: Path) -> None:
    path = export_model(single_model(FILTERS, SIZE), tmp_path / "model.onnx", "onnx")
    content = onnx.load(path)
    onnx.checker.check_model(content, full_check=True)
    assert {o.version for o in content.opset_import if o.domain in ("", "ai.onnx")} == {ONNX_OPSET}
    (image_input,) = content.graph.input
    dims = image_input.type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["n", 3, *SIZE]
    assert "BatchNormalization" not in {node.op_type for node in content.graph.node}


def test_exported_code_runs_by_itself(tmp_path: Path) -> None:
    model, images = single_model(FILTERS, SIZE), some_images(3, SIZE)
    folder = export_model(model, tmp_path / "model", "numpy")
    np.save(tmp_path / "images.npy", images.numpy())
    words = ["-I", "-W", "error", "numpy_forward.py", "weights.npz", str(tmp_path / "images.npy")]
    answer = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, check=True)
    printed = np.array(answer.stdout.split(), dtype=np.float32)
    assert np.array_equal(printed, predict(numpy_weights(model), images.numpy()))


def test_exported_code_imports_numpy_alone_and_is_short(tmp_path: Path) -> None:
    folder = export_model(single_model(FILTERS), tmp_path / "model", "numpy")
    text = (folder / "numpy_forward.py").read_text()
    imported = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Import | ast.ImportFrom)]
    assert {ast.unparse(node) for node in imported} == {"import sys", "import numpy as np"}
    assert len(text.splitlines()) < 60


def test_numpy_weights_are_named_as_the_code_says() -> None:
    shapes = {name: array.shape for name, array in numpy_weights(single_model(FILTERS)).items()}
    assert shapes == {
        "image_mean": (3,), "conv": (4, 3, 5, 5), "readout": (6, 4, 4), "readout_bias": (),
        "depthwise1": (4, 5, 5), "depthwise2": (3, 5, 5), "depthwise3": (5, 5, 5),
        "depthwise4": (2, 5, 5), "pointwise1": (3, 4), "pointwise2": (5, 3), "pointwise3": (2, 5),
        "pointwise4": (6, 2), "bias0": (4,), "bias1": (3,), "bias2": (5,), "bias3": (2,),
        "bias4": (6,),
    }  # fmt: skip


def test_hub_folder_is_a_model_with_a_card(tmp_path: Path) -> None:
    model, images = single_model(FILTERS, SIZE), some_images(3, SIZE)
    folder = export_model(model, tmp_path / "neuron003", "hub", card=CARD)
    assert {p.name for p in folder.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    assert torch.equal(responses(CompactModel.load(folder), images), responses(model, images))
    card = huggingface_hub.ModelCard.load(folder / "README.md")
    assert card.data.license == "cc-by-4.0"
    assert card.data.library_name == "pocketcortex"
    for part in (
        "# neuron003", CARD.neuron, "| images | 12000000 |", r"| a\|b | x |",
        "| r2, held-out images | 0.5123 |", "| r2, others | not known |", "4, 3, 5, 2, 6",
        f"{model.n_parameters.total:,}", "10.1101/2023.11.22.568315",
    ):  # fmt: skip
        assert part in card.text


def test_usage_on_the_card_runs(tmp_path: Path) -> None:
    folder = export_model(single_model(FILTERS, SIZE), tmp_path / "model", "hub", card=CARD)
    found = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert found
    answer = subprocess.run(
        [sys.executable, "-c", found[1]], cwd=folder, capture_output=True, check=True
    )
    assert re.fullmatch(rb"tensor\(\[(.*,){3}.*\]\)\s*", answer.stdout, re.DOTALL)


def test_an_older_export_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    old, new = single_model(FILTERS, seed=1), single_model(FILTERS, seed=2)
    folder = export_model(old, tmp_path / "model", "numpy")
    export_model(new, folder, "numpy")
    assert np.array_equal(np.load(folder / "weights.npz")["conv"], numpy_weights(new)["conv"])
    assert [p.name for p in tmp_path.iterdir()] == ["model"]  # nothing is left aside
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds \['notes.txt'\], which is no older export"):
        export_model(old, folder, "numpy")
    with pytest.raises(InputError, match="holds a file"):
        export_model(old, folder / "notes.txt", "hub", card=CARD)


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    model = single_model(FILTERS)
    with pytest.raises(InputError, match="names the licence"):
        export_model(model, tmp_path / "a", "hub")
    with pytest.raises(InputError, match="takes one compact model"):
        export_model([model], tmp_path / "a", "numpy")
    with pytest.raises(InputError, match="images of one size; got none"):
        export_model([], tmp_path / "a", "onnx")
    with pytest.raises(InputError, match=r"images of one size; got \[\(14, 17\), \(16, 16\)\]"):
        export_model([model, single_model(FILTERS, SIZE)], tmp_path / "a", "torch")
    with pytest.raises(ValidationError, match="license"):
        ModelCard(license=" ")
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = single_model(FILTERS)
    folder = export_model(model, tmp_path / "hub", "hub", card=CARD)
    for name in ("huggingface_hub", "onnx", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"pip install 'pocketcortex\[export\]'"):
        push_to_hub(folder, "someone/neuron003")
    with pytest.raises(InputError, match=r"pip install 'pocketcortex\[export\]'"):
        export_model(model, tmp_path / "model.onnx", "onnx")
    with pytest.raises(InputError, match=r"has no config.json, model.safetensors, README.md"):
        push_to_hub(tmp_path, "someone/neuron003")
