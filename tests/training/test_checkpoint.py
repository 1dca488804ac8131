"""Checkpoints come back as they were, or not at all."""

from pathlib import Path

import pytest
import torch
from torch import nn

from pocketcortex.training.checkpoint import (
    load_optimizer,
    optimizer_tensors,
    read_checkpoint,
    save_checkpoint,
)

TENSORS = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor(3), "c": torch.zeros(0, 2)}
NUMBERS = {"epoch": 3, "best": -float("inf"), "history": [{"r2": 0.1, "session": "x"}]}


def test_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", TENSORS, NUMBERS)
    saved = read_checkpoint(tmp_path / "c")
    assert saved is not None
    tensors, numbers = saved
    assert numbers == NUMBERS
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert tensors["b"].dtype == torch.int64


def test_newer_checkpoint_replaces_the_older(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", TENSORS, {"epoch": 1})
    save_checkpoint(tmp_path / "c", {}, {"epoch": 2})
    assert read_checkpoint(tmp_path / "c") == ({}, {"epoch": 2})
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path / "c") is None


@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_broken_checkpoint_is_none(tmp_path: Path, keep: int) -> None:
    save_checkpoint(tmp_path / "c", TENSORS, NUMBERS)
    (tmp_path / "c").write_bytes((tmp_path / "c").read_bytes()[:keep])
    assert read_checkpoint(tmp_path / "c") is None


@pytest.mark.parametrize("where", [-1, -9, 130])
def test_altered_checkpoint_is_none(tmp_path: Path, where: int) -> None:
    save_checkpoint(tmp_path / "c", TENSORS, NUMBERS)
    content = bytearray((tmp_path / "c").read_bytes())
    content[where] ^= 1
    (tmp_path / "c").write_bytes(content)
    assert read_checkpoint(tmp_path / "c") is None


def test_checkpoint_without_its_hash_is_none(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", TENSORS, NUMBERS)
    content = (tmp_path / "c").read_bytes()
    (tmp_path / "c").write_bytes(content.replace(b'"sha256"', b'"sha255"'))
    assert read_checkpoint(tmp_path / "c") is None


def test_failed_write_keeps_the_older_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", TENSORS, {"epoch": 1})
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path / "c", TENSORS, {"epoch": object()})
    saved = read_checkpoint(tmp_path / "c")
    assert saved is not None
    assert saved[1] == {"epoch": 1}


def test_optimizer_goes_on_as_if_never_stopped(tmp_path: Path) -> None:
    def net() -> nn.Linear:
        layer = nn.Linear(3, 2)
        nn.init.constant_(layer.weight, 0.5)
        nn.init.constant_(layer.bias, 0.1)
        return layer

    def steps(layer: nn.Linear, optimizer: torch.optim.Adam, n: int) -> None:
        for _ in range(n):
            optimizer.zero_grad()
            (layer(torch.ones(4, 3)) - 1).square().sum().backward()
            optimizer.step()

    whole = net()
    steps(whole, torch.optim.Adam(whole.parameters(), lr=0.1), 5)

    first = net()
    optimizer = torch.optim.Adam(first.parameters(), lr=0.1)
    steps(first, optimizer, 2)
    save_checkpoint(tmp_path / "c", optimizer_tensors(optimizer), {})
    saved = read_checkpoint(tmp_path / "c")
    assert saved is not None
    second = torch.optim.Adam(first.parameters(), lr=0.1)
    load_optimizer(second, saved[0])
    steps(first, second, 3)
    assert torch.equal(first.weight, whole.weight)
