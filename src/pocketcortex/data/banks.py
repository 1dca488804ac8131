"""Image banks to distil with, of whatever kind they are."""

import glob
from pathlib import Path

from pocketcortex.core import InputError, StimulusSet
from pocketcortex.data.remote import local_path

_KINDS = "a folder of images, a .zip, a .tar, a folder or pattern of .tar shards, or a .npy array"
_COMPRESSED_TARS = (".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")


def read_bank(
    path: str | Path, size: int, *, crops: int = 0, seed: int = 0, limit: int | None = None
) -> StimulusSet:
    """Return the square images of a bank, picked by what `path` is; no pixels are read.

    Parameters
    ----------
    path
        A folder of images; a `.zip`; an uncompressed `.tar`; a folder that holds `.tar` shards, or
        a pattern such as `bank/*.tar`; or a `.npy` array, uint8 `(n_stimuli, 3, height, width)`.
        Here, or in an object store, as `s3://lab/bank/*.tar` (`local_path`).
    size
        Height and width of the images in pixels.
    crops
        0 for the centre square of each image, resized; otherwise as many random crops of each,
        those of an image side by side (`StimulusSet.crops`).
    seed
        Which crops.
    limit
        At most so many images of the bank, the first by name, before they are cropped; None for
        all.

    Raises
    ------
    InputError
        If there is no bank of a known kind, it is unsafe or damaged, `crops` or `limit` is
        negative, an object store fails, or the images of an array are to be used whole but are not
        `size` by `size`.
    """
    if crops < 0 or (limit is not None and limit < 0):
        raise InputError(f"crops and limit must be at least 0; got {crops} and {limit}")
    stimuli = _open(local_path(path), None if crops else size)
    if limit is not None:
        stimuli = stimuli.take(slice(0, limit))
    return stimuli.crops(crops, size, seed=seed) if crops else stimuli


def _open(path: Path, size: int | None) -> StimulusSet:
    shards: list[str | Path] = []
    if path.is_dir():
        shards = [*sorted(path.glob("*.tar"))]
    elif not path.exists() and glob.has_magic(str(path)):
        shards = [*sorted(glob.glob(str(path)))]
        if not shards or not all(str(shard).endswith(".tar") for shard in shards):
            raise InputError(f"{path} must match .tar files, and these alone; got {shards[:3]}")
    if shards:
        return StimulusSet.from_tar(shards, size)
    if path.is_dir():
        return StimulusSet.from_folder(path, size)
    if not path.exists():
        raise InputError(f"{path} does not exist; an image bank is {_KINDS}")
    name = path.name.lower()
    if name.endswith(".zip"):
        return StimulusSet.from_zip(path, size)
    if name.endswith((".tar", *_COMPRESSED_TARS)):
        return StimulusSet.from_tar(path, size)
    if name.endswith(".npy"):
        return _open_array(path, size)
    raise InputError(f"{path} is no image bank, which is {_KINDS}")


def _open_array(path: Path, size: int | None) -> StimulusSet:
    stimuli = StimulusSet.from_npy(path)
    if size is not None and stimuli.image_size != (size, size):
        height, width = stimuli.image_size
        raise InputError(
            f"{path} holds images of {height} x {width} where {size} x {size} are needed; "
            "save them in that size, or ask for crops"
        )
    return stimuli
