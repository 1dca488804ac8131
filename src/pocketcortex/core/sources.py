"""Where the pixels of a list of images come from: memory, files, an array file, crops, code."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from pocketcortex.core.archives import ImageFiles, map_array
from pocketcortex.core.errors import InputError
from pocketcortex.core.pictures import decode_picture, to_pixels


class ImageSource(ABC):
    """A fixed list of images, read by position from several threads at once.

    No file stays open between calls. A source that is made of plain values can be pickled.
    """

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """One name an image, in order."""

    @property
    @abstractmethod
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels, the same for all images."""

    @abstractmethod
    def read(self, index: Int[np.ndarray, " n_read"]) -> UInt8[np.ndarray, "n_read 3 height width"]:
        """Return the pixels of the images at these positions, in this order."""

    def picture(self, k: int) -> Image.Image:
        """Return image `k` alone as an RGB image of Pillow; its size may be its own."""
        return Image.fromarray(self.read(np.array([k]))[0].transpose(1, 2, 0))


@dataclass(frozen=True, eq=False)
class ArraySource(ImageSource):
    """Images in memory."""

    images: UInt8[np.ndarray, "n_stimuli 3 height width"]
    image_names: tuple[str, ...]

    def __repr__(self) -> str:
        return "memory"

    def __len__(self) -> int:
        return len(self.images)

    @property
    def names(self) -> tuple[str, ...]:
        """The names given."""
        return self.image_names

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.images.shape[2:]
        return height, width

    def read(self, index: Int[np.ndarray, " n_read"]) -> UInt8[np.ndarray, "n_read 3 height width"]:
        """Return the pixels of the images at these positions."""
        return np.asarray(self.images[index])


@dataclass(frozen=True, eq=False)
class NpySource(ImageSource):
    """Images of a `.npy` file, mapped into memory for each reading."""

    path: Path
    shape: tuple[int, ...]  # (n_stimuli, 3, height, width)

    def __repr__(self) -> str:
        return str(self.path)

    def __len__(self) -> int:
        return self.shape[0]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """`image0001`, `image0002`, ..."""
        return numbered_names(self.shape[0])

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.shape[2], self.shape[3]

    def read(self, index: Int[np.ndarray, " n_read"]) -> UInt8[np.ndarray, "n_read 3 height width"]:
        """Return the pixels of the images at these positions."""
        mapped = map_array(self.path)
        if mapped.shape != self.shape:
            raise InputError(
                f"{self.path} holds an array of shape {mapped.shape} but held one of {self.shape} "
                "when it was opened; open it again"
            )
        return np.asarray(mapped[index])


@dataclass(frozen=True, eq=False)
class FileSource(ImageSource):
    """Image files of a folder or an archive, decoded one by one."""

    files: ImageFiles
    order: Int[np.ndarray, " n_stimuli"]  # number of each image's file; at least one
    size: int | None  # None: as they are, all of one size
    prefix: str = ""  # before every name

    def __repr__(self) -> str:
        return str(self.files.path)

    def __len__(self) -> int:
        return len(self.order)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """File names without folders, after the prefix."""
        return tuple(self.prefix + base_name(self.files.members[k]) for k in self.order)

    @cached_property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels; may decode the first image."""
        if self.size is not None:
            return self.size, self.size
        first = self.picture(0)
        return first.height, first.width

    def read(self, index: Int[np.ndarray, " n_read"]) -> UInt8[np.ndarray, "n_read 3 height width"]:
        """Return the pixels of the images at these positions."""
        height, width = self.image_size
        images = np.empty((len(index), 3, height, width), dtype=np.uint8)
        for row, k in enumerate(index):
            picture = self.picture(int(k))
            if picture.size != (width, height):
                raise InputError(
                    f"{self}: image {self.names[k]!r} is {picture.height} x {picture.width} but "
                    f"{self.names[0]!r} is {height} x {width} (height x width); "
                    "give size= to resize and crop all to one size"
                )
            images[row] = to_pixels(picture)
        return images

    def picture(self, k: int) -> Image.Image:
        """Return image `k` alone as an RGB image of Pillow; its size may be its own."""
        number = int(self.order[k])
        name = f"{self.files.members[number]!r} of {self}"
        return decode_picture(self.files.read(number), name, size=self.size)


@dataclass(frozen=True, eq=False)
class JoinedSource(ImageSource):
    """The images of several sources, one source after the other; at least one source."""

    parts: tuple[ImageSource, ...]

    def __repr__(self) -> str:
        return f"{len(self.parts)} sets"

    def __len__(self) -> int:
        return int(self._starts[-1])

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of all parts' images."""
        return tuple(itertools.chain.from_iterable(part.names for part in self.parts))

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels of the first part's images."""
        return self.parts[0].image_size

    @cached_property
    def _starts(self) -> Int[np.ndarray, " n_parts_and_end"]:
        return np.cumsum([0, *(len(part) for part in self.parts)])

    def _owner(
        self, index: Int[np.ndarray, " n_read"]
    ) -> tuple[Int[np.ndarray, " n_read"], Int[np.ndarray, " n_read"]]:
        owner = np.searchsorted(self._starts, index, side="right") - 1
        return owner, index - self._starts[owner]

    def read(self, index: Int[np.ndarray, " n_read"]) -> UInt8[np.ndarray, "n_read 3 height width"]:
        """Return the pixels of the images at these positions."""
        images = np.empty((len(index), 3, *self.image_size), dtype=np.uint8)
        owner, within = self._owner(index)
        for k in np.unique(owner):
            pixels = self.parts[k].read(within[owner == k])
            if pixels.shape[1:] != images.shape[1:]:
                raise InputError(
                    f"images of {self.parts[k]!r} are {pixels.shape[2:]} but those of "
                    f"{self.parts[0]!r} are {self.image_size} (height, width); "
                    "give size= to resize and crop all to one size"
                )
            images[owner == k] = pixels
        return images

    def picture(self, k: int) -> Image.Image:
        """Return image `k` alone as an RGB image of Pillow; its size may be its own."""
        owner, within = self._owner(np.array([k]))
        return self.parts[int(owner[0])].picture(int(within[0]))


@dataclass(frozen=True, eq=False)
class CropSource(ImageSource):
    """Random square crops of a source's images, `n` of each, those of an image side by side."""

    source: ImageSource
    n: int
    size: int
    seed: int

    def __repr__(self) -> str:
        return f"{self.n} crops of each of {self.source!r}"

    def __len__(self) -> int:
        return self.n * len(self.source)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """`name#0`, `name#1`, ... of each image."""
        return tuple(f"{name}#{k}" for name in self.source.names for k in range(self.n))

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.size, self.size

    def read(self, index: Int[np.ndarray, " n_read"]) -> UInt8[np.ndarray, "n_read 3 height width"]:
        """Return the pixels of the crops at these positions; each image is decoded once."""
        crops = np.empty((len(index), 3, self.size, self.size), dtype=np.uint8)
        image, crop = np.divmod(index, self.n)
        order = np.argsort(image, kind="stable")
        for i, rows in itertools.groupby(order, key=image.__getitem__):
            picture = self.source.picture(int(i))
            for row in rows:
                crops[row] = self._cut(picture, int(i), int(crop[row]))
        return crops

    def _cut(self, picture: Image.Image, i: int, k: int) -> UInt8[np.ndarray, "3 size size"]:
        random = np.random.default_rng([self.seed, i, k]).random(4)
        short = min(picture.size)
        side = min(short, self.size + int(random[0] * (max(short - self.size, 0) + 1)))
        left = int(random[1] * (picture.width - side + 1))
        top = int(random[2] * (picture.height - side + 1))
        box = (left, top, left + side, top + side)
        cut = picture.resize((self.size, self.size), Image.Resampling.BICUBIC, box=box)
        pixels = to_pixels(cut)
        return np.flip(pixels, axis=2) if random[3] < 0.5 else pixels


def numbered_names(n: int) -> tuple[str, ...]:
    """Return `image0001`, `image0002`, ..., the names of images that have none."""
    return tuple(f"image{k:04d}" for k in range(1, n + 1))


def base_name(member: str) -> str:
    """Return a file name without its folders, which end with `/` or a backslash."""
    return member.replace("\\", "/").rpartition("/")[2]


def repeated(names: Sequence[str]) -> tuple[str, int] | None:
    """Return a name that comes more than once, with how often, or None."""
    for name, again in itertools.groupby(sorted(names)):
        count = sum(1 for _ in again)
        if count > 1:
            return name, count
    return None
