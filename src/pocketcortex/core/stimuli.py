"""`StimulusSet`: the images that were shown, kept where they are until their pixels are needed."""

import hashlib
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import SupportsIndex, TypeAlias

import numpy as np
from jaxtyping import Int, Shaped, UInt8
from PIL import Image

from pocketcortex.core.archives import ImageFiles, index_folder, index_tar, index_zip, map_array
from pocketcortex.core.errors import InputError
from pocketcortex.core.sources import (
    ArraySource,
    CropSource,
    FileSource,
    ImageSource,
    JoinedSource,
    NpySource,
    base_name,
    numbered_names,
    repeated,
)

Indices: TypeAlias = slice | Sequence[SupportsIndex] | Shaped[np.ndarray, " _"]
"""Which of n things: a slice, a list of whole numbers, an integer array or a boolean mask."""

_Images: TypeAlias = UInt8[np.ndarray, "n_in_batch 3 height width"]
_DIGEST_BATCH = 64


@dataclass(frozen=True, eq=False, repr=False)
class StimulusSet(ImageSource):
    """An immutable list of images of one size, decoded only when asked for.

    Make one by `from_array`, `from_folder`, `from_zip`, `from_tar`, `from_npy`, `concatenate` or
    `crops`. Pixels are read by position in any order: `read` for some, `stream` for batches
    decoded ahead by threads. No file stays open between calls, so a set can be pickled and handed
    to worker processes, and read by several threads.
    """

    _source: ImageSource
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
            names = numbered_names(len(images))
        if len(names) != len(images):
            raise InputError(f"{len(images)} images but {len(names)} names; give one name an image")
        if any("\x00" in name for name in names):
            raise InputError("an image name holds a null character; rename it")
        frozen = np.array(images, order="C")
        frozen.setflags(write=False)
        return cls.from_source(ArraySource(frozen, tuple(names)))

    @classmethod
    def from_npy(cls, path: str | Path) -> "StimulusSet":
        """Return the images of a `.npy` file, which may be larger than memory.

        Parameters
        ----------
        path
            A file as written by `numpy.save`: uint8, `(n_stimuli, 3, height, width)`. It is
            mapped into memory, and only the images asked for are read.

        Raises
        ------
        InputError
            If the file is missing, truncated, no such array, or holds pickled objects.
        """
        images = map_array(path)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise InputError(
                f"{path} must hold uint8 images of shape (n_stimuli, 3, height, width); "
                f"got {images.dtype} of shape {images.shape}"
            )
        return cls.from_source(NpySource(Path(path), images.shape))

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
        return cls._from_files(index_folder(path), size)

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
            As for `from_folder`, and if the zip is unsafe or damaged.
        """
        return cls._from_files(index_zip(path), size)

    @classmethod
    def from_tar(
        cls, paths: str | Path | Sequence[str | Path], size: int | None = None
    ) -> "StimulusSet":
        """Return the images of an uncompressed tar file, or of several, one after the other.

        The headers are read once; from then on any image is read in place.

        Parameters
        ----------
        paths
            One tar, whose images are named as in `from_folder`; or a list of tars (shards), whose
            images are named `shard/name`, the shard without its suffix, so that `000000.jpg` may
            come in every shard. Within a shard, images are sorted by file name.
        size
            As for `from_folder`.

        Raises
        ------
        InputError
            As for `from_folder`; if a tar is compressed, unsafe or damaged; if two shards have
            the same file name, or there is none.
        """
        if isinstance(paths, str | Path):
            return cls._from_files(index_tar(paths), size)
        shards = [Path(path) for path in paths]
        if not shards:
            raise InputError("there is no tar file to read; give at least one")
        if twice := repeated([shard.stem for shard in shards]):
            raise InputError(f"{twice[1]} tar files are named {twice[0]!r}; rename them")
        parts = [cls._from_files(index_tar(shard), size, f"{shard.stem}/") for shard in shards]
        return cls.from_source(JoinedSource(tuple(parts)))

    @classmethod
    def from_source(cls, source: ImageSource) -> "StimulusSet":
        """Return all images of a source, in its order."""
        return cls(source, np.arange(len(source)))

    @classmethod
    def _from_files(cls, files: ImageFiles, size: int | None, prefix: str = "") -> "StimulusSet":
        if size is not None and size < 1:
            raise InputError(f"size must be at least 1 pixel; got {size}")
        names = [base_name(member) for member in files.members]
        if not names:
            raise InputError(
                f"{files.path} holds no image; JPEG, PNG, TIFF, ... files were expected"
            )
        if twice := repeated(names):
            raise InputError(
                f"{files.path} holds {twice[1]} images named {twice[0]!r}; "
                "folders are ignored, so give every image a name of its own"
            )
        order = np.array(sorted(range(len(names)), key=names.__getitem__))
        return cls.from_source(FileSource(files, order, size, prefix))

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
        return cls.from_source(JoinedSource(tuple(sets)))

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

    def crops(self, n: int, size: int, *, seed: int) -> "StimulusSet":
        """Return `n` random square crops of every image, those of an image side by side.

        The side of a crop is uniform between `size` and the image's short side, its position
        uniform, and half of the crops are mirrored; then it is resized (bicubic, antialiased) to
        `size`. Of an image smaller than `size` the whole short side is enlarged. Crop `k` of the
        image at position `i` depends on `(seed, i, k)` alone. The images may differ in size.
        An image is decoded once for all of its crops that are read in one call, so a batch of
        neighbouring crops is read faster than one of scattered crops.

        Parameters
        ----------
        n
            Crops of each image, 1 or more; named `name#0`, `name#1`, ...
        size
            Height and width of the crops in pixels, 1 or more.
        seed
            Which crops, 0 or more.

        Raises
        ------
        InputError
            If `n` or `size` is below 1, or `seed` is negative.
        """
        for name, value, least in (("n", n, 1), ("size", size, 1), ("seed", seed, 0)):
            if value < least:
                raise InputError(f"{name} must be at least {least}; got {value}")
        return StimulusSet.from_source(CropSource(self, n, size, seed))

    def read(self, index: Indices) -> UInt8[np.ndarray, "n_read 3 height width"]:
        """Return the pixels of some images, `(n_read, 3, height, width)`, RGB uint8 in 0..255.

        Parameters
        ----------
        index
            As for `take`.

        Raises
        ------
        InputError
            As for `take`, and if an image cannot be decoded or differs in size from the others.
        """
        return self._source.read(self._index[positions(index, len(self))])

    def picture(self, k: int) -> Image.Image:
        """Return image `k` alone as an RGB image of Pillow; it may differ in size from the others.

        Raises
        ------
        InputError
            If the image cannot be decoded.
        """
        return self._source.picture(int(self._index[k]))

    def images(self) -> UInt8[np.ndarray, "n_stimuli 3 height width"]:
        """Return all pixels, `(n_stimuli, 3, height, width)`, RGB uint8 in 0..255.

        Raises
        ------
        InputError
            If an image cannot be decoded or differs in size from the first.
        """
        return self._source.read(self._index)

    def batches(self, batch_size: int) -> Iterator[UInt8[np.ndarray, "n_in_batch 3 height width"]]:
        """Yield the pixels in order, at most `batch_size` images at a time.

        Raises
        ------
        InputError
            If `batch_size` is below 1, an image cannot be decoded or differs in size.
        """
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1; got {batch_size}")
        starts = range(0, len(self), batch_size)
        return (self.read(slice(start, start + batch_size)) for start in starts)

    def stream(
        self, batches: Iterable[Indices], *, n_threads: int = 2, ahead: int = 8
    ) -> Generator[UInt8[np.ndarray, "n_in_batch 3 height width"], None, None]:
        """Yield the pixels of each batch of positions in turn, decoded ahead by threads.

        The same pixels in the same order as `read` of each batch. When the iterator is closed, or
        left by an error or `break`, its threads are stopped first.

        Parameters
        ----------
        batches
            Positions for each batch, as for `take`; may be endless. It is read only `ahead`
            batches further than what was asked for, and in the caller's thread.
        n_threads
            Batches decoded at once, 1 or more.
        ahead
            Batches held at most, decoded or being decoded, the one handed out counted; 1 or more.

        Raises
        ------
        InputError
            If `n_threads` or `ahead` is below 1; when a batch is reached that cannot be read, as
            `read` does.
        """
        for name, value in (("n_threads", n_threads), ("ahead", ahead)):
            if value < 1:
                raise InputError(f"{name} must be at least 1; got {value}")
        return self._stream(iter(batches), n_threads, ahead)

    def _stream(
        self, batches: Iterator[Indices], n_threads: int, ahead: int
    ) -> Generator[_Images, None, None]:
        waiting: deque[Future[_Images]] = deque()
        pool = ThreadPoolExecutor(n_threads, thread_name_prefix="decode")
        try:
            while True:
                for batch in islice(batches, ahead - len(waiting)):
                    waiting.append(pool.submit(self.read, batch))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each image's pixels and shape, in hex: equal images have equal digests."""
        starts = range(0, len(self), _DIGEST_BATCH)
        batches = self.stream(slice(start, start + _DIGEST_BATCH) for start in starts)
        return tuple(_digest(image) for batch in batches for image in batch)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all digests in order, in hex: the identity of the whole set."""
        return hashlib.sha256("\n".join(self.digests).encode()).hexdigest()


def positions(indices: Indices, n: int) -> Int[np.ndarray, " n_taken"]:
    """Return which of `n` things are meant, as whole numbers in 0..n-1.

    Raises
    ------
    InputError
        If an index is out of range, no whole number, or a mask has the wrong length.
    """
    if isinstance(indices, slice):
        return np.arange(*indices.indices(n))
    chosen = np.asarray(indices)
    if chosen.size == 0:
        chosen = chosen.astype(np.intp)  # an empty list has no type of its own
    try:
        if chosen.ndim != 1:
            raise IndexError(f"they are of shape {chosen.shape}")
        if chosen.dtype.kind not in "iu":
            return np.asarray(np.arange(n)[chosen])
        if chosen.size and not -n <= chosen.min() <= chosen.max() < n:
            raise IndexError(f"they range from {chosen.min()} to {chosen.max()}")
        chosen = chosen.astype(np.intp)
        return np.asarray(np.where(chosen < 0, chosen + n, chosen))
    except IndexError as error:
        raise InputError(
            f"cannot take these of {n} stimuli: {error}; give whole numbers from 0 to {n - 1}"
        ) from error


def _digest(image: UInt8[np.ndarray, "3 height width"]) -> str:
    content = hashlib.sha256(repr(image.shape).encode())
    content.update(image.tobytes())
    return content.hexdigest()
