"""Each file format that is read: small whole files of it, its reader, and how it is damaged."""

import functools
import hashlib
import io
import os
import random
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from fuzz_mutations import (
    Case,
    damaged,
    damaged_header,
    damaged_npy,
    damaged_png,
    damaged_tar,
    damaged_text,
    damaged_zip,
    in_one_file,
    one_of,
)
from PIL import Image

from pocketcortex.core import Session, StimulusSet, decode_image, map_array, read_array
from pocketcortex.data import natural_stimuli, read_areas, read_bank, read_recordings, read_v4
from pocketcortex.metrics import StimulusRoles
from pocketcortex.models import CompactModel, import_compact_model, import_shared_model
from pocketcortex.pipeline import CausalSession, read_config
from pocketcortex.pipeline.proposals import COLUMNS, read_proposal, write_proposal
from pocketcortex.training.checkpoint import read_checkpoint, save_checkpoint
from pocketcortex.zoo import NetworkKernels, read_tensors
from pocketcortex.zoo.weights import WeightsFile

sys.path.append(str(Path(__file__).parents[1] / "models"))
sys.path.append(str(Path(__file__).parents[1] / "data"))


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes
    ----------
    name
        What it is called on the command line.
    seeds
        Return whole inputs.
    read
        Read the input in a folder, all of it.
    mutate
        Damage an input.
    """

    name: str
    seeds: Callable[[], list[Case]]
    read: Callable[[Path], object]
    mutate: Callable[[random.Random, Case], Case]


os.environ.setdefault("POCKETCORTEX_DATA", "data")  # named by the configurations

FORMATS: dict[str, Format] = {}


def register(
    name: str, read: Callable[[Path], object], **by_suffix: Callable[[random.Random, bytes], bytes]
) -> Callable[[Callable[[], list[Case]]], Callable[[], list[Case]]]:
    """Add a format, whose whole inputs the decorated function returns."""

    def add(seeds: Callable[[], list[Case]]) -> Callable[[], list[Case]]:
        FORMATS[name] = Format(name, functools.cache(seeds), read, in_one_file(**by_suffix))
        return seeds

    return add


def pictures(kind: str = "PNG", **how: object) -> dict[str, bytes]:
    """Return three small pictures: noise, a grey one, one with a palette."""
    rng = np.random.default_rng(1)
    noise = Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8))
    grey = Image.fromarray(np.full((9, 7), 90, dtype=np.uint8))
    every = {"a": noise, "b": grey, "c": noise if kind == "JPEG" else noise.quantize(8)}
    made = {}
    for name, picture in every.items():
        buffer = io.BytesIO()
        picture.save(buffer, format=kind, **how)
        made[f"{name}.{kind.lower()}"] = buffer.getvalue()
    return made


# Image banks.


def read_images(folder: Path) -> object:
    (path,) = folder.iterdir()
    for size in (8, None):
        stimuli = (
            StimulusSet.from_zip(path, size)
            if path.suffix == ".zip"
            else StimulusSet.from_tar(path, size)
        )
        stimuli.images()
    return stimuli


@register("zip", read_images, zip=damaged_zip(one_of(damaged_png, damaged)))
def zips() -> list[Case]:
    cases = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as archive:
            for name, content in pictures().items():
                archive.writestr(f"folder/{name}", content)
            archive.writestr("readme.txt", "three pictures")
        cases.append({"bank.zip": buffer.getvalue()})
    return cases


@register("tar", read_images, tar=damaged_tar)
def tars() -> list[Case]:
    cases = []
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=kind) as archive:
            for name, content in pictures().items():
                info = tarfile.TarInfo(f"{'long' * 20}/{name}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        cases.append({"bank.tar": buffer.getvalue()[:8192]})
    return cases


def _image_format(
    kind: str, damage: Callable[[random.Random, bytes], bytes], **how: object
) -> None:
    def read(folder: Path) -> object:
        (path,) = folder.iterdir()
        whole = decode_image(path.read_bytes(), path.name)
        return whole, decode_image(path.read_bytes(), path.name, size=8)

    @register(kind.lower(), read, **{kind.lower(): damage})
    def seeds() -> list[Case]:
        return [{name: content} for name, content in pictures(kind, **how).items()]


_image_format("PNG", damaged_png)
_image_format("JPEG", damaged)
_image_format("BMP", damaged)
_image_format("GIF", damaged)
_image_format("TIFF", damaged, compression="tiff_lzw")
_image_format("WEBP", damaged, lossless=True)


# Arrays and sessions.


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def read_npy(folder: Path) -> object:
    (path,) = folder.iterdir()
    whole, mapped = read_array(path), np.array(map_array(path))
    return whole, mapped, read_bank(path, 4).images() if path.name == "bank.npy" else None


@register("npy", read_npy, npy=damaged_npy)
def arrays() -> list[Case]:
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (3, 3, 4, 4), dtype=np.uint8)
    others = [images, np.asfortranarray(images), rng.normal(size=(3, 4)), np.array(["a", "bé"])]
    return [{"bank.npy": npy(array)} for array in others[:2]] + [
        {"array.npy": npy(array)} for array in others[2:]
    ]


def session_file() -> Case:
    rng = np.random.default_rng(3)
    stimuli = StimulusSet.from_array(rng.integers(0, 256, (4, 3, 5, 5), dtype=np.uint8))
    session = Session("s", rng.poisson(3, (4, 2, 3)), stimuli, animal="M", bin_ms=100.0)
    return saved_by(lambda folder: session.save(folder / "session.npz"))


def saved_by(write: Callable[[Path], object]) -> Case:
    """Return the files that a function writes into a folder."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write(folder)
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }


@register(
    "npz session",
    lambda folder: read_recordings(next(folder.iterdir())),
    npz=damaged_zip(damaged_npy),
)
def sessions() -> list[Case]:
    return [session_file()]


@register("v4 release", lambda folder: _used(folder), npy=damaged_npy, zip=damaged_zip(damaged_png))
def releases() -> list[Case]:
    rng = np.random.default_rng(4)
    raw = rng.poisson(3, (3, 4, 2)).astype(float)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for k in range(1, 5):
            image = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            content = io.BytesIO()
            image.save(content, "JPEG")
            archive.writestr(f"image{k:04d}.jpg", content.getvalue())
    return [{
        "data_V4_responses/responses_raw/responses_190923.npy": npy(raw),
        "data_V4_responses/responses_repeat_averaged/responses_190923.npy": npy(raw.mean(2)),
        "data_V4_responses/images/images_190923.zip": buffer.getvalue(),
    }]  # fmt: skip


def _used(folder: Path) -> object:
    return [
        (
            session.stimuli and session.stimuli.images(),
            natural_stimuli(session.id, session.n_stimuli),
        )
        for session in read_v4(folder).values()
    ]


# Areas, each in the layout that tests of its reader write.


def read_all_areas(folder: Path) -> object:
    areas = read_areas(folder)
    return [area.stimuli and area.stimuli.images() for area in areas]


@register("nwb", read_all_areas, nwb=damaged)
def nwb() -> list[Case]:
    from test_allen_nwb import write_nwb

    return [saved_by(lambda folder: write_nwb(folder / "session.nwb"))]


@register("netcdf", read_all_areas, nc=damaged, csv=damaged_text)
def netcdf() -> list[Case]:
    from test_brainio import write

    return [saved_by(write)]


@register("similarities", read_all_areas, npz=damaged_zip(damaged_npy), csv=damaged_text)
def similarities() -> list[Case]:
    from test_mouse import similarity, write_matrices

    return [saved_by(lambda folder: write_matrices(folder, {"VISp_L23": similarity()}))]


# Weights.


@register(
    "safetensors", lambda folder: read_tensors(next(folder.iterdir())), safetensors=damaged_header
)
def safe() -> list[Case]:
    tensors = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(2, dtype=torch.int64)}
    return [{"weights.safetensors": safetensors.torch.save(tensors, {"format": "pt"})}]


def published(suffix: str) -> bytes:
    from test_published import random_arrays, write

    case = saved_by(lambda folder: write(folder / f"model{suffix}", random_arrays()))
    return case[f"model{suffix}"]


def _one_model(folder: Path) -> object:
    return import_compact_model(next(folder.iterdir()))


@register("h5 weights", _one_model, h5=damaged)
def h5() -> list[Case]:
    return [{"model.h5": published(".h5")}]


@register("keras", _one_model, keras=damaged_zip(damaged))
def keras() -> list[Case]:
    return [{"model.keras": published(".keras")}]


@register("pickled npy", _one_model, npy=damaged)
def pickled() -> list[Case]:
    return [{"model.npy": published(".npy")}]


@register(
    "pt",
    lambda folder: (_one_model(folder), read_tensors(folder / "model.pt")),
    pt=damaged_zip(damaged),
)
def pt() -> list[Case]:
    return [{"model.pt": published(".pt")}]


@register(
    "shared keras",
    lambda folder: import_shared_model(next(folder.iterdir())),
    keras=damaged_zip(one_of(damaged, damaged_text)),
)
def shared_keras() -> list[Case]:
    from test_published_shared import random_weights, write

    return [saved_by(lambda folder: write(folder / "model.keras", random_weights()))]


WEIGHTS = b"not really weights" * 9
WEIGHTS_NAME = f"toy-{hashlib.sha256(WEIGHTS).hexdigest()[:8]}.pth"


def find_weights(folder: Path) -> object:
    os.environ["POCKETCORTEX_WEIGHTS"] = str(folder)
    found = WeightsFile((WEIGHTS_NAME,)).require("toy")
    assert found.read_bytes() == WEIGHTS, "altered weights were taken for whole"
    return found


@register("weights file", find_weights, pth=damaged)
def weights() -> list[Case]:
    return [{WEIGHTS_NAME: WEIGHTS}]


# What the program writes itself, and reads again.


@functools.cache
def small_model() -> CompactModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CompactModel((2, 1, 2, 1, 2), (8, 8)).eval()


@register("model folder", CompactModel.load, json=damaged_text, safetensors=damaged_header)
def models() -> list[Case]:
    return [saved_by(small_model().save)]


CHECKPOINT = {"w": torch.arange(12.0).reshape(3, 4), "step": torch.tensor(3)}


def find_checkpoint(folder: Path) -> object:
    found = read_checkpoint(folder / "checkpoint.safetensors")
    if found is not None:
        tensors, numbers = found
        assert numbers == {"epoch": 2}, "altered numbers were taken for whole"
        assert all(torch.equal(tensors[name], CHECKPOINT[name]) for name in CHECKPOINT)
    return found


@register("checkpoint", find_checkpoint, safetensors=damaged_header)
def checkpoints() -> list[Case]:
    return [
        saved_by(lambda f: save_checkpoint(f / "checkpoint.safetensors", CHECKPOINT, {"epoch": 2}))
    ]


@functools.cache
def small_kernels() -> NetworkKernels:
    rng = np.random.default_rng(5)
    return NetworkKernels(
        layers=("a", "b"),
        n_features=np.array([3, 4]),
        centred=rng.normal(size=(2, 3, 3)),
        standardized=rng.normal(size=(2, 3, 3)),
        row_means=rng.normal(size=(2, 3)),
        row_squares=rng.normal(size=(2, 3)),
    )


def find_kernels(folder: Path) -> object:
    found, whole = NetworkKernels.load(folder / "kernels"), small_kernels()
    assert found.layers == whole.layers
    assert np.array_equal(found.centred, whole.centred), "altered kernels were taken for whole"
    return found


@register("kernels", find_kernels, npy=damaged_npy, json=damaged_text)
def kernels() -> list[Case]:
    return [saved_by(lambda folder: small_kernels().save(folder / "kernels"))]


@register("causal session", CausalSession.load, parquet=damaged, npy=damaged_npy)
def causal_sessions() -> list[Case]:
    rng = np.random.default_rng(6)
    stimuli = StimulusSet.from_array(rng.integers(0, 256, (4, 3, 4, 4), dtype=np.uint8))
    words = ("random", "random", "natural_max", "natural_min")
    roles = StimulusRoles(words, np.array([-1, -1, 0, 0]), np.full(4, -1), n_targets=1)
    return [saved_by(CausalSession(stimuli, roles, np.arange(4)).save)]


@register(
    "toml config",
    lambda folder: read_config(folder / "run.toml"),
    toml=one_of(damaged_text, damaged),
)
def configs() -> list[Case]:
    text = Path(__file__).parents[2] / "examples"
    return [{"run.toml": path.read_bytes()} for path in sorted(text.glob("**/*.toml"))]


@register("proposal", lambda folder: read_proposal(folder), json=damaged_text, png=damaged_png)
def proposals() -> list[Case]:
    rng = np.random.default_rng(7)
    stimuli = StimulusSet.from_array(rng.integers(0, 256, (2, 3, 4, 4), dtype=np.uint8))
    row = dict.fromkeys(COLUMNS, 0)
    images = pd.DataFrame([row | {"file": f"000{k}.png", "arm": "random"} for k in (1, 2)])
    images["sha256"] = list(stimuli.digests)
    return [
        saved_by(
            lambda f: write_proposal(f, stimuli, images, {"key": "k", "seed": 1, "size_deg": None})
        )
    ]
