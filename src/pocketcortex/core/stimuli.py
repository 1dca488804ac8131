"""`StimulusSet`: the images that were shown, kept where they are until their pixels are needed."""

import hashlib
import itertools
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import SupportsIndex, TypeAlias

import numpy as np
from jaxtyping import Int, Shaped, UInt8

from pocketcortex.core.archives import decode_image, is_image_name, list_images, open_members
from pocketcortex.core.errors import InputError

Indices: TypeAlias = slice | Sequence[SupportsIndex] | Shaped[np.ndarray, " _"]
"""Which of n things: a slice, a list of whole numbers, an integer array or a boolean mask."""

_Images: TypeAlias = UInt8[np.ndarray, "n_stimuli 3 height width"]
_Reader: TypeAlias = Callable[[Int[np.ndarray, " n_stimuli"]], _Images]
_DIGEST_BATCH = 64


class _Source(ABC):
    """Where the pixels of a fixed list of images come from."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """File names without folders."""

    @property
    @abstractmethod
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels, the same for all images."""

    @abstractmethod
    def reader(self) -> AbstractContextManager[_Reader]:
        """Open the source; positions in, pixels out."""


@dataclass(frozen=True, eq=False, repr=False)
class StimulusSet:
    """An immutable list of images of one size, decoded only when asked for.

    Make one by `from_array`, `from_folder`, `from_zip` or `concatenate`. No file stays open
    between calls, so a set can be pickled and handed to worker processes.
    """

    _source: _Source
    _index: Int[np.ndarray, " n_stimuli"]

    @classmethod
    def from_array(
        cls, images: Shaped[np.ndarray, "..."], names: Sequence[str] | None = None
    ) -> "StimulusSet":
        """Return the set that holds a copy of an array of images.

        Parameters
        ----------
        images
            RGB pixels, `(n_stimuli, 3, height, width)`, uint8 in 0..255.
        names
            One name an image; by default `image0001`, `image0002`, ...

        Raises
        ------
        InputError
            If the array is not of that shape and type, or the number of names differs.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise InputError(
                "images must be uint8 of shape (n_stimuli, 3, height, width); "
                f"got {images.dtype} of shape {images.shape}"
            )
        if names is None:
            names = [f"image{k:04d}" for k in range(1, len(images) + 1)]
        if len(names) != len(images):
            raise InputError(f"{len(images)} images but {len(names)} names; give one name an image")
        if any("\x00" in name for name in names):
            raise InputError("an image name holds a null character; rename it")
        frozen = np.array(images, order="C")
        frozen.setflags(write=False)
        return cls(_ArraySource(frozen, tuple(names)), np.arange(len(frozen)))

    @classmethod
    def from_folder(cls, path: str | Path, size: int | None = None) -> "StimulusSet":
        """Return the images of a folder and its sub-folders, sorted by file name.

        Parameters
        ----------
        path
            The folder. Dotfiles and files that are no images are left out.
        size
            None: all images must have one size. Otherwise short sides are resized (bicubic) to
            `size` pixels and the centre squares cut out.

        Raises
        ------
        InputError
            If the folder is missing or has no image, if two files have the same name, if `size`
            is below 1; when pixels are read, if an image cannot be decoded or differs in size.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder; a folder of images was expected there")
        relative = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        members = tuple(name for name in relative if is_image_name(name))
        return cls._from_files(folder, members, size, zipped=False)

    @classmethod
    def from_zip(cls, path: str | Path, size: int | None = None) -> "StimulusSet":
        """Return the images of a zip file, sorted by file name, whatever folder they lie in.

        Parameters
        ----------
        path
            The zip file, which is read in place.
        size
            As for `from_folder`.

        Raises
        ------
        InputError
            As for `from_folder`, and as `archives.list_images` for an unsafe or damaged zip.
        """
        archive = Path(path)
        return cls._from_files(archive, list_images(archive), size, zipped=True)

    @classmethod
    def _from_files(
        cls, location: Path, members: tuple[str, ...], size: int | None, *, zipped: bool
    ) -> "StimulusSet":
        if size is not None and size < 1:
            raise InputError(f"size must be at least 1 pixel; got {size}")
        if not members:
            raise InputError(f"{location} holds no image; JPEG, PNG, TIFF, ... files were expected")
        ordered = tuple(sorted(members, key=_base_name))
        name, count = Counter(map(_base_name, ordered)).most_common(1)[0]
        if count > 1:
            raise InputError(
                f"{location} holds {count} images named {name!r}; "
                "folders are ignored, so give every image a name of its own"
            )
        return cls(_FileSource(location, ordered, size, zipped), np.arange(len(ordered)))

    @classmethod
    def concatenate(cls, sets: Sequence["StimulusSet"]) -> "StimulusSet":
        """Return the images of several sets, one set after the other.

        The first image of each set may be decoded, to learn its size.

        Raises
        ------
        InputError
            If there is no set, or their image sizes differ.
        """
        if not sets:
            raise InputError("there is no stimulus set to concatenate; give at least one")
        sizes = sorted({part.image_size for part in sets})
        if len(sizes) > 1:
            raise InputError(
                f"stimulus sets have different image sizes (height, width): {sizes}; "
                "read all with the same size="
            )
        source = _JoinedSource(tuple(sets))
        return cls(source, np.arange(len(source.names)))

    def __len__(self) -> int:
        return len(self._index)

    def __repr__(self) -> str:
        return f"StimulusSet({len(self)} images from {self._source!r})"

    @cached_property
    def names(self) -> tuple[str, ...]:
        """File names without folders, in the order of the images."""
        every = self._source.names
        return tuple(every[k] for k in self._index)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels; may decode one image."""
        return self._source.image_size

    def take(self, indices: Indices) -> "StimulusSet":
        """Return some of the images, in the order given; no pixels are read.

        Parameters
        ----------
        indices
            Slice, list of whole numbers, 1-D integer array, or boolean mask.

        Raises
        ------
        InputError
            If an index is out of range, no whole number, or the mask has the wrong length.
        """
        chosen = positions(indices, len(self))
        subset = StimulusSet(self._source, self._index[chosen])
        if "digests" in self.__dict__:
            subset.__dict__["digests"] = tuple(self.digests[k] for k in chosen)
        return subset

    def images(self) -> UInt8[np.ndarray, "n_stimuli 3 height width"]:
        """Return all pixels, `(n_stimuli, 3, height, width)`, RGB uint8 in 0..255.

        Raises
        ------
        InputError
            If an image cannot be decoded or differs in size from the first.
        """
        with self._source.reader() as read:
            return read(self._index)

    def batches(self, batch_size: int) -> Iterator[UInt8[np.ndarray, "n_in_batch 3 height width"]]:
        """Yield the pixels in order, at most `batch_size` images at a time.

        Raises
        ------
        InputError
            If `batch_size` is below 1, an image cannot be decoded or differs in size.
        """
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1; got {batch_size}")
        return self._read_batches(batch_size)

    def _read_batches(self, batch_size: int) -> Iterator[_Images]:
        with self._source.reader() as read:
            for start in range(0, len(self), batch_size):
                yield read(self._index[start : start + batch_size])

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each image's pixels and shape, in hex: equal images have equal digests."""
        return tuple(_digest(image) for batch in self.batches(_DIGEST_BATCH) for image in batch)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all digests in order, in hex: the identity of the whole set."""
        return hashlib.sha256("\n".join(self.digests).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class _ArraySource(_Source):
    images: _Images
    image_names: tuple[str, ...]

    def __repr__(self) -> str:
        return "memory"

    @property
    def names(self) -> tuple[str, ...]:
        return self.image_names

    @property
    def image_size(self) -> tuple[int, int]:
        height, width = self.images.shape[2:]
        return height, width

    @contextmanager
    def reader(self) -> Iterator[_Reader]:
        yield lambda index: self.images[index]


@dataclass(frozen=True, eq=False)
class _FileSource(_Source):
    location: Path  # a zip file or a folder
    members: tuple[str, ...]  # at least one
    size: int | None
    zipped: bool

    def __repr__(self) -> str:
        return str(self.location)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(map(_base_name, self.members))

    @cached_property
    def image_size(self) -> tuple[int, int]:
        if self.size is not None:
            return self.size, self.size
        with self._members() as read:
            height, width = self._decode(read, self.members[0]).shape[1:]
        return height, width

    @contextmanager
    def reader(self) -> Iterator[_Reader]:
        height, width = self.image_size
        with self._members() as read_member:

            def read(index: Int[np.ndarray, " n_stimuli"]) -> _Images:
                images = np.empty((len(index), 3, height, width), dtype=np.uint8)
                for row, k in enumerate(index):
                    image = self._decode(read_member, self.members[k])
                    if image.shape[1:] != (height, width):
                        raise InputError(
                            f"{self.location}: image {self.names[k]!r} is {image.shape[1]} x "
                            f"{image.shape[2]} but {self.names[0]!r} is {height} x {width} "
                            "(height x width); give size= to resize and crop all to one size"
                        )
                    images[row] = image
                return images

            yield read

    def _members(self) -> AbstractContextManager[Callable[[str], bytes]]:
        return open_members(self.location) if self.zipped else _open_folder(self.location)

    def _decode(
        self, read: Callable[[str], bytes], member: str
    ) -> UInt8[np.ndarray, "3 height width"]:
        return decode_image(read(member), f"{member!r} of {self.location}", size=self.size)


@dataclass(frozen=True, eq=False)
class _JoinedSource(_Source):
    parts: tuple[StimulusSet, ...]  # at least one, all of one image size

    def __repr__(self) -> str:
        return f"{len(self.parts)} sets"

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(itertools.chain.from_iterable(part.names for part in self.parts))

    @property
    def image_size(self) -> tuple[int, int]:
        return self.parts[0].image_size

    @contextmanager
    def reader(self) -> Iterator[_Reader]:
        starts = np.cumsum([0, *(len(part) for part in self.parts)])
        with ExitStack() as stack:
            readers = [stack.enter_context(part._source.reader()) for part in self.parts]

            def read(index: Int[np.ndarray, " n_stimuli"]) -> _Images:
                images = np.empty((len(index), 3, *self.image_size), dtype=np.uint8)
                owner = np.searchsorted(starts, index, side="right") - 1
                for k in np.unique(owner):
                    mine = owner == k
                    images[mine] = readers[k](self.parts[k]._index[index[mine] - starts[k]])
                return images

            yield read


def positions(indices: Indices, n: int) -> Int[np.ndarray, " n_taken"]:
    """Return which of `n` things are meant, as whole numbers in 0..n-1.

    Raises
    ------
    InputError
        If an index is out of range, no whole number, or a mask has the wrong length.
    """
    chosen = indices if isinstance(indices, slice) else np.asarray(indices)
    if isinstance(chosen, np.ndarray) and chosen.size == 0:
        chosen = chosen.astype(np.intp)  # an empty list has no type of its own
    try:
        return np.arange(n)[chosen]
    except IndexError as error:
        raise InputError(
            f"cannot take these of {n} stimuli: {error}; give whole numbers from 0 to {n - 1}"
        ) from error


@contextmanager
def _open_folder(folder: Path) -> Iterator[Callable[[str], bytes]]:
    def read(name: str) -> bytes:
        try:
            return (folder / name).read_bytes()
        except OSError as error:
            raise InputError(f"{folder / name} cannot be read ({error.strerror})") from error

    yield read


def _base_name(member: str) -> str:
    return PurePosixPath(member.replace("\\", "/")).name


def _digest(image: UInt8[np.ndarray, "3 height width"]) -> str:
    content = hashlib.sha256(repr(image.shape).encode())
    content.update(image.tobytes())
    return content.hexdigest()
