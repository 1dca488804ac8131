"""Files of an object store are copied once, checked, and copied again when they change."""

import json
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pocketcortex.core import InputError, PocketcortexError, Session, StimulusSet
from pocketcortex.data import local_path, read_areas, read_bank, read_recordings


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryFileSystem:
    """Return an empty object store; copies of it go below ``tmp_path``."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    return files


def put(store: MemoryFileSystem, name: str, content: bytes) -> None:
    store.pipe_file(name, content)


def put_session(store: MemoryFileSystem, name: str, tmp_path: Path, seed: int = 0) -> Session:
    rng = np.random.default_rng(seed)
    stimuli = StimulusSet.from_array(rng.integers(0, 256, (4, 3, 8, 8), dtype=np.uint8))
    session = Session(f"s{seed}", rng.poisson(3, (4, 2, 3)), stimuli)
    session.save(tmp_path / "made.npz")
    put(store, name, (tmp_path / "made.npz").read_bytes())
    return session


def copies(tmp_path: Path) -> dict[str, bytes]:
    found = (tmp_path / "cache").rglob("files/**/*")
    return {path.name: path.read_bytes() for path in found if path.is_file()}


def test_a_path_stays_a_path() -> None:
    assert local_path("banks/a.zip") == Path("banks/a.zip")
    assert local_path(Path("/banks")) == Path("/banks")


def test_recordings_of_a_store_are_those_that_were_put_there(
    store: MemoryFileSystem, tmp_path: Path
) -> None:
    first = put_session(store, "/lab/v4/a.npz", tmp_path)
    put_session(store, "/lab/v4/b.npz", tmp_path, seed=1)
    read = read_recordings("memory://lab/v4")
    assert list(read) == ["s0", "s1"]
    assert np.array_equal(read["s0"].responses, first.responses)
    assert np.array_equal(read["s0"].require_stimuli().images(), first.require_stimuli().images())
    assert list(read_recordings("memory://lab/v4/b.npz")) == ["s1"]
    assert [area.id for area in read_areas("memory://lab/v4")] == ["s0", "s1"]


def test_a_bank_by_pattern_and_as_an_array(store: MemoryFileSystem, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "bank.npy", images)
    put(store, "/lab/bank.npy", (tmp_path / "bank.npy").read_bytes())
    assert np.array_equal(read_bank("memory://lab/bank.npy", 8).images(), images)
    for name in ("one.tar", "two.tar", "notes.txt"):
        put(store, f"/lab/shards/{name}", name.encode())
    folder = local_path("memory://lab/shards/*.tar")
    assert sorted(path.name for path in folder.iterdir()) == ["one.tar", "two.tar"]


def test_a_file_is_copied_once_and_again_when_it_changed(
    store: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    real = MemoryFileSystem.open

    def counted(self: MemoryFileSystem, path: str, *rest: object, **more: object) -> object:
        opened.append(path)
        return real(self, path, *rest, **more)

    put(store, "/lab/x/a.bin", b"a")
    put(store, "/lab/x/b.bin", b"b")
    monkeypatch.setattr(MemoryFileSystem, "open", counted)
    for _ in range(3):
        local_path("memory://lab/x")
    assert opened == ["/lab/x/a.bin", "/lab/x/b.bin"]
    monkeypatch.setattr(MemoryFileSystem, "open", real)
    put(store, "/lab/x/a.bin", b"other")
    store.rm("/lab/x/b.bin")
    local_path("memory://lab/x")
    assert copies(tmp_path) == {"a.bin": b"other"}


def test_a_damaged_copy_is_made_again(store: MemoryFileSystem, tmp_path: Path) -> None:
    put(store, "/lab/x/a.bin", b"a whole file")
    path = local_path("memory://lab/x/a.bin")
    for damage in (b"a while file", b"a wh", None):
        path.write_bytes(damage) if damage else path.unlink()
        assert local_path("memory://lab/x/a.bin").read_bytes() == b"a whole file"
    for index in (tmp_path / "cache").rglob("index.json"):
        index.write_text(json.dumps({"a.bin": 7}))
    assert local_path("memory://lab/x/a.bin").read_bytes() == b"a whole file"


def test_a_file_that_does_not_arrive_whole_leaves_the_older_copy(
    store: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "/lab/a.bin", b"first")
    local_path("memory://lab/a.bin")
    put(store, "/lab/a.bin", b"the second")
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "size", lambda self, path: 99)
        with pytest.raises(InputError, match=r"/lab/a.bin ended after 10 of 99 bytes; try again"):
            local_path("memory://lab/a.bin")
    assert copies(tmp_path) == {"a.bin": b"first"}
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "size", lambda self, path: 2**60)
        with pytest.raises(PocketcortexError, match=r"takes .* GiB and .* free; set XDG_CACHE"):
            local_path("memory://lab/a.bin")
    assert local_path("memory://lab/a.bin").read_bytes() == b"the second"


def test_a_store_that_fails_is_told(
    store: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> object:
        raise RuntimeError("SlowDown: reduce your request rate")

    put(store, "/lab/a.bin", b"x")
    for what in ("find", "open"):
        with monkeypatch.context() as patch:
            patch.setattr(MemoryFileSystem, what, fails)
            with pytest.raises(InputError, match=r"cannot be (listed|read): .*SlowDown"):
                local_path("memory://lab/a.bin")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("memory://nothing/here", "does not exist, or holds no file"),
        ("nothing://lab/x", "cannot be listed: Protocol not known: nothing"),
        ("s3://lab/x", "cannot be read here: Install s3fs to access S3"),
        ("simplecache::memory://lab/x", "chains protocols; give one"),
    ],
)
def test_a_wrong_address_is_refused(store: MemoryFileSystem, address: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        local_path(address)


@pytest.mark.parametrize("name", ["/lab/x/../../../evil", "/lab/x/a\\b", "/elsewhere/evil"])
def test_a_name_outside_the_copy_is_refused(
    store: MemoryFileSystem, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hostile store lists what it likes."""
    put(store, "/lab/x/a.bin", b"x")
    listed = {name: {"name": name, "size": 1, "type": "file"}}
    monkeypatch.setattr(MemoryFileSystem, "find", lambda self, path, **_: listed)
    with pytest.raises(InputError, match=r"lies outside|is no name of a file"):
        local_path("memory://lab/x")
    assert copies(tmp_path) == {}
