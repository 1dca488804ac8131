"""Weights files: found, fetched on request only, and compared with the hash in their names."""

import hashlib
from pathlib import Path

import pytest
import safetensors.torch
import torch

from pocketcortex.core import InputError
from pocketcortex.zoo import WeightsFile


@pytest.fixture
def published(tmp_path: Path) -> tuple[WeightsFile, bytes]:
    """Return a file published under an address, with its hash in the name."""
    content = safetensors.torch.save({"weight": torch.arange(5.0)})
    name = f"tiny-{hashlib.sha256(content).hexdigest()[:8]}.safetensors"
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / name).write_bytes(content)
    return WeightsFile((name,), (tmp_path / "published" / name).as_uri()), content


def test_a_file_is_fetched_on_request_only(
    published: tuple[WeightsFile, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, content = published
    monkeypatch.setenv("POCKETCORTEX_WEIGHTS", str(tmp_path / "weights"))
    with pytest.raises(InputError, match="the weights of network 'tiny' are not here: put tiny-"):
        file.require("tiny")
    assert not (tmp_path / "weights").exists()
    path = file.require("tiny", download=True)
    assert path == tmp_path / "weights" / file.names[0]
    assert path.read_bytes() == content
    assert file.find() == path
    path.write_bytes(content[:-1])
    with pytest.raises(InputError, match="cut short or altered: its SHA-256 starts with"):
        file.require("tiny")


def test_without_a_folder_torch_s_cache_is_used(published: tuple[WeightsFile, bytes]) -> None:
    file, _ = published
    assert file.require("tiny", download=True).parent == Path(torch.hub.get_dir()) / "checkpoints"
    assert file.find() is not None


def test_what_is_not_as_published_is_not_kept(
    published: tuple[WeightsFile, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = published
    monkeypatch.setenv("POCKETCORTEX_WEIGHTS", str(tmp_path / "weights"))
    other = WeightsFile(("tiny-00000000.safetensors",), file.address)
    with pytest.raises(
        InputError, match=r"cannot fetch the weights of network 'tiny' from file:.*hash"
    ):
        other.require("tiny", download=True)
    assert list((tmp_path / "weights").iterdir()) == []
    gone = WeightsFile(file.names, file.address + "x")
    with pytest.raises(InputError, match="cannot fetch the weights of network 'tiny'"):
        gone.require("tiny", download=True)


def test_the_hub_s_cache_is_looked_into(tmp_path: Path) -> None:
    content = safetensors.torch.save({"weight": torch.arange(5.0)})
    digest = hashlib.sha256(content).hexdigest()
    repository = tmp_path / "hf" / "models--lab--tiny"
    for folder in ("refs", "blobs", "snapshots/abc"):
        (repository / folder).mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "blobs" / digest).write_bytes(content)
    link = repository / "snapshots" / "abc" / "model.safetensors"
    link.symlink_to(repository / "blobs" / digest)
    file = WeightsFile(("tiny.safetensors",), hub=("lab/tiny", "model.safetensors"))
    assert file.require("tiny") == link
    (repository / "blobs" / digest).write_bytes(content[:-1])
    with pytest.raises(InputError, match="cut short or altered"):
        file.require("tiny")
    assert WeightsFile(("x",), hub=("lab/other", "model.safetensors")).find() is None


def test_what_nothing_says_the_hash_of_is_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POCKETCORTEX_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "net.pth").write_bytes(b"weights")
    file = WeightsFile(("net.pth",), (tmp_path / "net.pth").as_uri())
    with pytest.raises(InputError, match="nothing known says what they must hash to"):
        file.require("net", download=True)
    assert not (tmp_path / "weights").exists()


def test_another_file_of_the_same_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "weights"
    monkeypatch.setenv("POCKETCORTEX_WEIGHTS", str(weights))
    weights.mkdir()
    file = WeightsFile(("tiny.safetensors",), hub=("lab/tiny", "model.safetensors"))
    (weights / "tiny.safetensors").write_bytes(b"first")
    assert file.require("tiny") == file.require("tiny") == weights / "tiny.safetensors"
    pins = weights / "SHA256SUMS"
    assert pins.read_text() == (
        f"{hashlib.sha256(b'first').hexdigest()}  lab/tiny/model.safetensors\n"
    )
    (weights / "tiny.safetensors").write_bytes(b"second")
    with pytest.raises(
        InputError, match=r"was \w{64} when first used here; .* out of .*SHA256SUMS"
    ):
        file.require("tiny")
    pins.write_text("")
    assert file.require("tiny").read_bytes() == b"second"
