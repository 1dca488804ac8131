"""Tensors of checkpoints: read without running anything, and laid into networks."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pocketcortex.core import InputError
from pocketcortex.zoo import load_weights, read_tensors


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())


def tensors() -> dict[str, Tensor]:
    return {k: v.clone() + 1 for k, v in network().state_dict().items()}


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {prefix + k: v for k, v in tensors().items()}


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "module.encoder_q.", "backbone.", "_feature_blocks.", "module.model.trunk."],
)
def test_wrappers_are_taken_off(prefix: str) -> None:
    filled = network()
    heads = {"module.head.weight": torch.ones(2), "projector.0.weight": torch.ones(2)}
    load_weights(filled, prefixed(prefix) | heads, "test")
    for name, tensor in tensors().items():
        assert torch.equal(filled.state_dict()[name], tensor)


def test_batch_counts_may_be_missing() -> None:
    given = {k: v for k, v in tensors().items() if not k.endswith("num_batches_tracked")}
    load_weights(network(), given, "test")


def without_bias(given: dict[str, Tensor]) -> None:
    del given["0.bias"]


def with_another_layer(given: dict[str, Tensor]) -> None:
    given["1.more.weight"] = torch.ones(2)


def of_another_shape(given: dict[str, Tensor]) -> None:
    given["0.bias"] = torch.ones(1)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_bias, r"test lacks 1 of the network's 6 tensors, such as 0\.bias; it has 0\.w"),
        (with_another_layer, r"another architecture: it has 1 tensors .* such as 1\.more\.weight"),
        (of_another_shape, r"0\.bias is \(1,\) but the network's is \(4,\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    spoil: Callable[[dict[str, Tensor]], None], message: str
) -> None:
    given, filled = tensors(), network()
    spoil(given)
    with pytest.raises(InputError, match=message):
        load_weights(filled, given, "test")
    for name, tensor in network().state_dict().items():
        assert torch.equal(filled.state_dict()[name], tensor)


def test_a_momentum_encoder_is_not_mistaken_for_the_network() -> None:
    with pytest.raises(InputError, match="lacks 6 of the network's 6 tensors"):
        load_weights(network(), prefixed("module.encoder_k."), "test")


def test_tensors_are_found_in_checkpoints(tmp_path: Path) -> None:
    nested = {"classy_state_dict": {"base_model": {"model": {"trunk": tensors()}}}, "iteration": 5}
    for k, content in enumerate((tensors(), {"state_dict": tensors(), "epoch": 1}, nested)):
        torch.save(content, tmp_path / f"{k}.pth")
        found = read_tensors(tmp_path / f"{k}.pth")
        assert set(found) == set(tensors())
        assert torch.equal(found["0.weight"], tensors()["0.weight"])


class Harmful:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return Path.touch, (Path("harm"),)  # type: ignore[return-value]


def test_files_that_hold_no_weights_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": tensors(), "args": Harmful()}, tmp_path / "objects.pth")
    with pytest.raises(InputError, match=r"objects\.pth holds pickled objects, which are not read"):
        read_tensors(tmp_path / "objects.pth")
    assert not (tmp_path / "harm").exists()
    torch.save({"epoch": 1}, tmp_path / "empty.pth")
    with pytest.raises(InputError, match=r"empty\.pth holds no tensors; expected them at the top"):
        read_tensors(tmp_path / "empty.pth")
    for name in ("cut.safetensors", "cut.pth"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 cut short")
        with pytest.raises(InputError, match=rf"{name} (cannot be read|holds pickled objects)"):
            read_tensors(tmp_path / name)
    with pytest.raises(InputError, match=r"there is no weights file .*none\.pth"):
        read_tensors(tmp_path / "none.pth")


def test_a_checkpoint_that_holds_itself_is_refused(tmp_path: Path) -> None:
    content: dict[str, object] = {"other": 1}
    content["model"] = content
    torch.save(content, tmp_path / "loop.pth")
    with pytest.raises(InputError, match="holds no tensors"):
        read_tensors(tmp_path / "loop.pth")
