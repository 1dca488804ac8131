"""A store of kernels computes each network's once, and takes nothing that is not whole."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small_networks import everything, pictures
from torch import nn

from pocketcortex.core import InputError
from pocketcortex.zoo import (
    KernelStore,
    Network,
    NetworkKernels,
    NetworkSpec,
    Preprocessing,
)


def toy(seed: int = 0, size: int = 12) -> Network:
    spec = NetworkSpec("toy", "made here")
    return Network(
        everything(torch.float32, seed), spec, Preprocessing((size, size), mean=None, std=None)
    )


class Failing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 2:
            raise ValueError("killed")
        return x


def test_kernels_are_computed_once_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, stimuli, network = KernelStore(tmp_path / "new" / "store"), pictures(6), toy()
    assert store.stored(network, stimuli) is None
    passes: list[int] = []
    first = store.kernels(network, stimuli, advance=passes.append)
    again = store.kernels(toy(), stimuli, advance=passes.append, memory_gib=3.0)
    assert passes == [6]
    assert first.layers[0] == "stem.0"  # named within the network, preprocessing is no layer
    np.testing.assert_array_equal(again.standardized, first.standardized)
    assert not again.standardized.flags.writeable


def test_what_changes_the_kernels_changes_the_place(tmp_path: Path) -> None:
    store, stimuli = KernelStore(tmp_path), pictures(6)
    places = [
        store.path(toy(), stimuli),
        store.path(toy(seed=1), stimuli),
        store.path(toy(size=16), stimuli),
        store.path(toy(), stimuli.take([1, 0, 2, 3, 4, 5])),
        store.path(toy(), stimuli, ["head"]),
    ]
    assert len(set(places)) == 5
    assert store.path(toy(), stimuli, ["head", "flatten"]) == store.path(
        toy(), pictures(6), ["flatten", "head", "head"]
    )


def test_a_network_that_failed_leaves_nothing_behind_that_counts(tmp_path: Path) -> None:
    store, stimuli, network = KernelStore(tmp_path), pictures(6), toy()
    network.network.identity = Failing()
    with pytest.raises(ValueError, match="killed"):
        store.kernels(network, stimuli)
    assert store.stored(network, stimuli) is None
    network.network.identity = nn.Identity()
    assert len(store.kernels(network, stimuli)) > 0
    assert not list(tmp_path.glob(".*.lock"))


@pytest.mark.parametrize("name", ["centred.npy", "row_means.npy", "kernels.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "remove", "empty"])
def test_a_damaged_file_is_never_used_and_made_again(
    tmp_path: Path, name: str, damage: str
) -> None:
    store, stimuli, network = KernelStore(tmp_path), pictures(6), toy()
    store.kernels(network, stimuli)
    path = store.path(network, stimuli) / name
    whole = path.read_bytes()
    path.unlink()
    if damage == "flip":
        path.write_bytes(whole[:90] + bytes([whole[90] ^ 1]) + whole[91:])
    elif damage != "remove":
        path.write_bytes(whole[:-8] if damage == "cut" else b"")
    with pytest.raises(InputError, match="compute anew"):
        NetworkKernels.load(path.parent)
    assert store.stored(network, stimuli) is None
    store.kernels(network, stimuli)
    assert path.read_bytes() == whole


def test_a_store_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        KernelStore(tmp_path / "file" / "store").kernels(toy(), pictures(5))
