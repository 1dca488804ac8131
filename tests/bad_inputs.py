"""Bad inputs, made here, and what each gets: the cases behind `docs/bad-inputs.md`.

`python tests/bad_inputs.py` writes the page anew; a test checks that it is current.
"""

import io
import os
import pickle
import stat
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from PIL import Image

from pocketcortex.core import (
    InputError,
    RunFolder,
    Session,
    StimulusSet,
    decode_image,
    index_tar,
    index_zip,
    read_array,
    read_arrays,
)
from pocketcortex.data import read_bank, read_recordings
from pocketcortex.models import CompactModel, import_compact_model, import_shared_model
from pocketcortex.pipeline import CausalSession, read_config
from pocketcortex.zoo import NetworkKernels, read_tensors
from pocketcortex.zoo.weights import WeightsFile

PAGE = Path(__file__).parents[1] / "docs" / "bad-inputs.md"


@dataclass(frozen=True)
class BadInput:
    """One bad input: where it belongs, what it is, how it is made, and what reads it."""

    kind: str
    what: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]


CASES: list[BadInput] = []


def case(
    kind: str, what: str, read: Callable[[Path], object]
) -> Callable[[Callable[[Path], object]], Callable[[Path], object]]:
    """Add the input that a function makes at the path it is given."""

    def add(make: Callable[[Path], object]) -> Callable[[Path], object]:
        CASES.append(BadInput(kind, what, make, read))
        return make

    return add


def written(kind: str, what: str, content: bytes, read: Callable[[Path], object]) -> None:
    """Add a file of these bytes."""
    CASES.append(BadInput(kind, what, lambda path: path.write_bytes(content), read))


def picture(kind: str = "PNG", size: tuple[int, int] = (6, 4), mode: str = "RGB") -> bytes:
    """Return a small image file."""
    buffer = io.BytesIO()
    Image.new(mode, size, 90 if mode in ("L", "I;16") else None).save(buffer, format=kind)
    return buffer.getvalue()


def decoded(path: Path) -> object:
    """Decode an image file."""
    return decode_image(path.read_bytes(), path.name)


def answer(bad: BadInput, folder: Path) -> str:
    """Return what an input gets, with the folder's own name left out."""
    path = folder / "FILE"
    bad.make(path)
    try:
        bad.read(path)
    except InputError as error:
        return str(error).replace(f"{folder}/", "").replace(f"{folder}", "FOLDER")
    return "accepted"


# Archives.


def zipped(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    """Write a zip."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


for _name, _what in {
    "../evil.png": "a member that climbs out by `..`",
    "/etc/evil.png": "a member with an absolute path",
    "C:/evil.png": "a member with a drive letter",
}.items():
    CASES.append(
        BadInput("zip", _what, lambda path, name=_name: zipped(path, {name: picture()}), index_zip)
    )


@case("zip", "a member that is a symbolic link", index_zip)
def _(path: Path) -> None:
    link = zipfile.ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link, "/etc/passwd")


@case("zip", "300 MiB of zeros in a file of 300 KB", index_zip)
def _(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for k in range(2):
            with archive.open(f"{k}.png", "w") as member:
                for _ in range(150):
                    member.write(bytes(2**20))


@case("zip", "a member of more than 256 MiB", index_zip)
def _(path: Path) -> None:
    content = zipped(path, {"a.png": bytes(1000)}, zipfile.ZIP_DEFLATED).read_bytes()
    path.write_bytes(content.replace((1000).to_bytes(4, "little"), (2**29).to_bytes(4, "little")))


@case("zip", "cut in the middle", index_zip)
def _(path: Path) -> None:
    content = zipped(path, {"a.png": picture(), "b.png": picture()}).read_bytes()
    path.write_bytes(content[: len(content) // 2])


@case("zip", "a member whose checksum is wrong", lambda path: index_zip(path).read(0))
def _(path: Path) -> None:
    content = bytearray(zipped(path, {"a.png": picture()}).read_bytes())
    content[60] ^= 1
    path.write_bytes(content)


@case("zip", "two images of one name in two folders", lambda path: StimulusSet.from_zip(path))
def _(path: Path) -> None:
    zipped(path, {"x/a.png": picture(), "y/a.png": picture()})


def tarred(path: Path, kind: bytes, name: str = "odd.png") -> None:
    """Write a tar of one member."""
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)


for _kind, _what in {
    tarfile.SYMTYPE: "a symbolic link", tarfile.LNKTYPE: "a hard link", tarfile.CHRTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}.items():  # fmt: skip
    CASES.append(
        BadInput(
            "tar",
            f"a member that is {_what}",
            lambda path, kind=_kind: tarred(path, kind),
            index_tar,
        )
    )
CASES.append(
    BadInput("tar", "a member that climbs out by `..`",
             lambda path: tarred(path, tarfile.REGTYPE, "../evil.png"), index_tar)
)  # fmt: skip
written("tar", "compressed by gzip", b"\x1f\x8b\x08" + bytes(600), index_tar)
written("tar", "no end mark", bytes(0), index_tar)

# Images.

written("image", "PostScript under the name of an image", b"%!PS-Adobe-3.0 EPSF-3.0\n" * 9, decoded)
written("image", "cut in the middle", picture()[:40], decoded)
written("image", "transparent pixels", picture(mode="RGBA"), decoded)
written("image", "16 bits a channel", picture(mode="I;16"), decoded)


@case("image", "40,000 x 40,000 pixels claimed by 1 KB", decoded)
def _(path: Path) -> None:
    content = bytearray(picture("BMP"))
    content[18:26] = (40_000).to_bytes(4, "little") * 2
    path.write_bytes(content)


@case("image", "3,000 x 3,000 pixels claimed by 126 bytes", decoded)
def _(path: Path) -> None:
    content = bytearray(picture("BMP"))
    content[18:26] = (3000).to_bytes(4, "little") * 2
    path.write_bytes(content)


written("image bank", "a folder without images", b"", lambda path: read_bank(path.parent, 8))

# Arrays and recordings.


@case("npy", "pickled objects", read_array)
def _(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([{}], dtype=object), allow_pickle=True)


written("npy", "a pickle that runs a program", pickle.dumps([1]), read_array)
written("npy", "text", b"1, 2, 3", read_array)


@case("npy", "a header of 3 KB, which NumPy takes seconds to refuse", read_array)
def _(path: Path) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }" + b" " * 3000 + b"U\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(16))


@case("npy", "a header that claims 64 PiB", read_array)
def _(path: Path) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (9000000000000000,), }\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(16))


@case("npz", "pickled objects", read_arrays)
def _(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, x=np.array([{}], dtype=object))


@case("npz", "an array whose header was altered to a shorter one", read_arrays)
def _(path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(20))
    zipped(path, {"x.npy": buffer.getvalue().replace(b"(20,)", b"(10,)")})


def session(**changed: object) -> Callable[[Path], object]:
    """Return what makes a session file with something changed."""

    def make(path: Path) -> None:
        Session("s", np.ones((4, 2, 3))).save(path.with_suffix(".npz"))
        with np.load(path.with_suffix(".npz")) as saved:
            arrays = dict(saved) | changed
        np.savez(path.with_suffix(".npz"), **{k: v for k, v in arrays.items() if v is not None})

    return make


def opened(path: Path) -> object:
    """Open the session file beside."""
    return read_recordings(path.with_suffix(".npz"))


for _what, _change in {
    "no responses": {"responses": None},
    "responses that are text": {"responses": np.array([[["a"]]])},
    "responses of two axes": {"responses": np.ones((4, 3))},
    "an infinite response": {"responses": np.full((4, 2, 3), np.inf)},
    "metadata that are no JSON": {"metadata": np.array("{")},
    "images in numbers other than of responses": {
        "images": np.zeros((3, 3, 4, 4), np.uint8), "names": np.array(["a", "b", "c"]),
    },
}.items():  # fmt: skip
    CASES.append(BadInput("session", _what, session(**_change), opened))
written("recordings", "a file of another kind", b"x", read_recordings)
CASES.append(BadInput("recordings", "nothing there", lambda path: None, read_recordings))

# Weights and models.


class _Runs:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.system, ("true",)


def suffixed(suffix: str, read: Callable[[Path], object]) -> Callable[[Path], object]:
    """Read the file of that suffix beside."""
    return lambda path: read(path.with_suffix(suffix))


@case("weights (.pt)", "a pickle that runs a program", suffixed(".pt", import_compact_model))
def _(path: Path) -> None:
    torch.save({"layers": _Runs()}, path.with_suffix(".pt"))


@case("weights (.pth)", "a checkpoint that holds its own program", suffixed(".pth", read_tensors))
def _(path: Path) -> None:
    torch.save({"state_dict": _Runs()}, path.with_suffix(".pth"))


@case("weights (.pth)", "a checkpoint that holds itself", suffixed(".pth", read_tensors))
def _(path: Path) -> None:
    content: dict[str, object] = {}
    content["model"] = content
    torch.save(content, path.with_suffix(".pth"))


@case(
    "weights (.npy)", "an object array that runs a program", suffixed(".npy", import_compact_model)
)
def _(path: Path) -> None:
    values = np.empty(36, dtype=object)
    values[:] = [_Runs()] * 36
    np.save(path.with_suffix(".npy"), values, allow_pickle=True)


@case(
    "weights (.safetensors)",
    "a header longer than the file",
    suffixed(".safetensors", read_tensors),
)
def _(path: Path) -> None:
    path.with_suffix(".safetensors").write_bytes((2**40).to_bytes(8, "little") + b"{}")


def hdf5(fill: Callable[[h5py.File], object]) -> Callable[[Path], object]:
    """Return what makes an HDF5 file."""

    def make(path: Path) -> None:
        with h5py.File(path.with_suffix(".h5"), "w") as file:
            fill(file)

    return make


for _what, _fill in {
    "an external link": lambda f: f.__setitem__("layers", h5py.ExternalLink("/etc/x.h5", "/a")),
    "a soft link": lambda f: f.__setitem__("layers", h5py.SoftLink("/elsewhere")),
    "numbers in another file": lambda f: f.create_dataset(
        "layers/conv2d/vars/0", (4,), "f4", external=[("/etc/passwd", 0, 16)]
    ),
    "nothing of a model": lambda f: f.create_group("other"),
}.items():
    CASES.append(
        BadInput("weights (.h5)", _what, hdf5(_fill), suffixed(".h5", import_compact_model))
    )


@case(
    "weights (.h5)", "names whose free places go in a circle", suffixed(".h5", import_compact_model)
)
def _(path: Path) -> None:
    hdf5(lambda file: file.create_group("layers/conv2d"))(path)
    path = path.with_suffix(".h5")
    content = bytearray(path.read_bytes())
    heap = content.rindex(b"HEAP\x00")
    first, segment = (int.from_bytes(content[heap + k : heap + k + 8], "little") for k in (16, 24))
    content[segment + first : segment + first + 8] = first.to_bytes(8, "little")  # what is next
    path.write_bytes(content)


CASES.append(
    BadInput("weights (.keras)", "a zip without weights",
             lambda path: zipped(path.with_suffix(".keras"), {"config.json": b"{}"}),
             suffixed(".keras", import_shared_model))
)  # fmt: skip


@case("weights", "a file that is not what its name says", lambda path: _required(path.parent))
def _(path: Path) -> None:
    (path.parent / "toy-00000000.pth").write_bytes(b"other weights")


def _required(folder: Path) -> object:
    kept = os.environ.get("POCKETCORTEX_WEIGHTS")
    os.environ["POCKETCORTEX_WEIGHTS"] = str(folder)
    try:
        return WeightsFile(("toy-00000000.pth",)).require("toy")
    finally:
        del os.environ["POCKETCORTEX_WEIGHTS"]
        if kept is not None:
            os.environ["POCKETCORTEX_WEIGHTS"] = kept


def _model(path: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    CompactModel((1, 1, 1, 1, 1), (8, 8)).save(path)
    (path / name).write_bytes(change((path / name).read_bytes()))


for _name, _what, _change in (
    ("model.safetensors", "one bit of the weights changed", lambda c: c[:-1] + bytes([c[-1] ^ 1])),
    ("model.safetensors", "weights cut in the middle", lambda c: c[: len(c) // 2]),
    ("config.json", "a configuration of a model of billions of filters",
     lambda c: b'{"filters": [1000000000, 1, 1, 1, 1], "image_size": [8, 8]}'),
    ("config.json", "a configuration that is no JSON", lambda c: c[:5]),
):  # fmt: skip
    CASES.append(
        BadInput("model folder", _what,
                 lambda path, n=_name, c=_change: _model(path, n, c), CompactModel.load)
    )  # fmt: skip

# Folders of runs.


@case(
    "run folder",
    "a file where the folder should be",
    lambda path: RunFolder(path).locked().__enter__(),
)
def _(path: Path) -> None:
    path.touch()


@case("kernels", "a folder without a manifest", NetworkKernels.load)
def _(path: Path) -> None:
    path.mkdir()


@case("causal session", "a table that is no parquet file", CausalSession.load)
def _(path: Path) -> None:
    path.mkdir()
    (path / "roles.parquet").write_bytes(b"PAR1 and no more")


for _what, _text in {
    "no TOML": b"seed = ",
    "not UTF-8": b"seed = 1 # \xff",
    "an unknown key": b"sed = 1\n[recordings.insilico]\n",
    "a number of 5,000 digits": b"seed = " + b"9" * 5000,
    "lists nested 10,000 deep": b"a = " + b"[" * 10_000,
    "no recordings": b"seed = 1\n[recordings]\n",
    "a variable that is not set": b'[recordings]\npath = "${NOT_SET_ANYWHERE}"\n',
}.items():
    written("configuration", _what, _text, read_config)


def page() -> str:
    """Return `docs/bad-inputs.md`."""
    lines = [
        "# Bad inputs, and what each gets",
        "",
        f"{len(CASES)} inputs that are damaged, unsafe or mistaken, each made and read by tests",
        "(`tests/bad_inputs.py`). None is used in part, runs code, or ends in a traceback: each is",
        "refused by an `InputError`, whose words the command line prints as one line, with exit",
        "code 2. FILE stands for the path. Besides these, damaged files of every format are made",
        "at random, 100,000 of each: [fuzzing](fuzzing.md).",
        "",
        "| input | what is wrong with it | what is said |",
        "|---|---|---|",
    ]
    for bad in CASES:
        with tempfile.TemporaryDirectory() as folder:
            said = answer(bad, Path(folder))
        cells = (bad.kind, bad.what, " ".join(said.replace("|", "\\|").split()))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.stdout.write(f"wrote {PAGE}\n")
