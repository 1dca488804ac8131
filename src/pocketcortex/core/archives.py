"""Safe reading of files made by others: zip archives of images, and NumPy arrays.

Nothing is ever extracted to disk or unpickled, and whatever cannot be read is refused with an
`InputError` that names the file and, in an archive, the member.
"""

import io
import lzma
import re
import stat
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from pocketcortex.core.errors import InputError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"})
MAX_MEMBER_BYTES = 256 * 2**20
MAX_ARCHIVE_BYTES = 64 * 2**30
MAX_PIXELS = 64 * 10**6

_UNREADABLE_MEMBER = (zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError)
_UNREADABLE_ARRAY = (
    zipfile.BadZipFile,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    MemoryError,  # a header that claims more than there is
    RuntimeError,  # an encrypted or unknown kind of archive
    SyntaxError,
    tokenize.TokenError,
)

_OPAQUE_MODES = frozenset({"1", "L", "P", "RGB", "CMYK", "YCbCr"})
_ALPHA_MODES = frozenset({"LA", "PA", "RGBA"})


def is_image_name(name: str) -> bool:
    """Return whether a relative file name is a visible image: no dotfile, nothing of `__MACOSX`.

    Parameters
    ----------
    name
        File name with its folders, separated by `/` or a backslash.
    """
    parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".")]
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return bool(parts) and not hidden and Path(parts[-1]).suffix.lower() in IMAGE_SUFFIXES


def list_images(
    path: str | Path,
    *,
    max_member_bytes: int = MAX_MEMBER_BYTES,
    max_archive_bytes: int = MAX_ARCHIVE_BYTES,
) -> tuple[str, ...]:
    """Return the names of a zip's image members, in the archive's own order.

    Folders, dotfiles, `__MACOSX` and files that are no images are left out; every member is
    checked all the same.

    Parameters
    ----------
    path
        The zip file.
    max_member_bytes, max_archive_bytes
        Largest uncompressed size allowed for one member and for all of them, in bytes.

    Raises
    ------
    InputError
        If the file is missing, truncated or no zip; if a member's name leaves the archive
        (`..`, absolute path, drive letter) or is a symbolic link; if a size is over its limit.
    """
    with _open_zip(path) as archive:
        members = archive.infolist()
    for info in members:
        _refuse_unsafe(path, info)
        if info.file_size > max_member_bytes:
            raise InputError(
                f"{path}: member {info.filename!r} unpacks to {info.file_size} bytes, more than "
                f"the {max_member_bytes} allowed; remove it from the archive"
            )
    total = sum(info.file_size for info in members)
    if total > max_archive_bytes:
        raise InputError(
            f"{path} unpacks to {total} bytes, more than the {max_archive_bytes} allowed; "
            "split it into smaller archives"
        )
    return tuple(
        info.filename for info in members if not info.is_dir() and is_image_name(info.filename)
    )


@contextmanager
def open_members(path: str | Path) -> Iterator[Callable[[str], bytes]]:
    """Yield a function from a member's name to its bytes; the zip is closed on leaving.

    Parameters
    ----------
    path
        The zip file, whose members were checked by `list_images`.

    Raises
    ------
    InputError
        If the zip cannot be opened; from the function, if the member is missing, unsafe,
        encrypted, truncated or fails its checksum.
    """
    with _open_zip(path) as archive:

        def read(name: str) -> bytes:
            try:
                info = archive.getinfo(name)
            except KeyError:
                raise InputError(f"{path} holds no member {name!r}; was it replaced?") from None
            _refuse_unsafe(path, info)
            try:
                return archive.read(info)
            except _UNREADABLE_MEMBER as error:
                raise InputError(
                    f"{path}: member {name!r} is damaged ({error}); fetch the archive again"
                ) from error
            except RuntimeError as error:  # encrypted, or compressed by an unknown method
                raise InputError(
                    f"{path}: member {name!r} cannot be unpacked ({error}); "
                    "make the zip again without password, with ordinary compression"
                ) from error

        yield read


def decode_image(
    content: bytes, name: str, *, size: int | None = None, max_pixels: int = MAX_PIXELS
) -> UInt8[np.ndarray, "3 height width"]:
    """Return an image file's pixels as RGB in 0..255, grey repeated over the three channels.

    Pixels come as stored: an orientation tag is not applied, and of an animation the first frame
    is taken.

    Parameters
    ----------
    content
        The bytes of the file, in any format that Pillow knows.
    name
        What to call the image in an error.
    size
        If given, the short side is resized (bicubic) to this many pixels and the centre square
        is cut out.
    max_pixels
        Largest width times height that is decoded.

    Returns
    -------
    UInt8[np.ndarray, "3 height width"]
        The pixels; `(3, size, size)` if `size` is given.

    Raises
    ------
    InputError
        If the bytes are no readable image, hold too many pixels, more than 8 bits a channel, or
        transparent pixels (whose colour on the screen is unknown).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as image:
                _refuse_bomb(image.size, name, max_pixels)
                rgb = _to_rgb(image, name)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(
            f"image {name} holds too many pixels (more than {max_pixels}); make it smaller"
        ) from error
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error) as error:
        raise InputError(
            f"image {name} cannot be decoded ({error}); replace it by a JPEG or PNG file"
        ) from error
    if size is not None:
        rgb = _resize_and_crop(rgb, size, name, max_pixels)
    return np.ascontiguousarray(np.asarray(rgb, dtype=np.uint8).transpose(2, 0, 1))  # (3, h, w)


def read_array(path: str | Path) -> Shaped[np.ndarray, "..."]:
    """Return the plain array that a `.npy` file holds.

    Parameters
    ----------
    path
        The file, as written by `numpy.save` with a numeric, boolean or text array.

    Raises
    ------
    InputError
        If the file is missing, truncated, no NumPy file, or holds pickled objects.
    """
    with _explained(path), Path(path).open("rb") as file:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            raise InputError(f"{path} is an archive (.npz) where one array (.npy) is needed")
        return np.asarray(loaded)


def read_arrays(path: str | Path) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Return the plain arrays that an `.npz` file holds, by name.

    Parameters
    ----------
    path
        The file, as written by `numpy.savez` or `numpy.savez_compressed`.

    Raises
    ------
    InputError
        If the file is missing, truncated, no archive of arrays, or holds pickled objects.
    """
    with _explained(path), Path(path).open("rb") as file:
        loaded = np.load(file, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise InputError(f"{path} is one array (.npy) where an archive (.npz) is needed")
        arrays = {name: loaded[name] for name in loaded.files}
    foreign = [name for name, value in arrays.items() if not isinstance(value, np.ndarray)]
    if foreign:
        raise InputError(f"{path} holds {foreign[0]!r}, which is no array; save it by numpy.savez")
    return arrays


def _open_zip(path: str | Path) -> AbstractContextManager[zipfile.ZipFile]:
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; a zip of images was expected there") from None
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise InputError(
            f"{path} is not a zip file, or is truncated ({error}); fetch it again"
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be opened as a zip ({error.strerror})") from error


def _refuse_unsafe(path: str | Path, info: zipfile.ZipInfo) -> None:
    name = info.filename
    reason = None
    if ".." in re.split(r"[/\\]", name):
        reason = "climbs out of the archive by '..'"
    elif name.startswith(("/", "\\")):
        reason = "has an absolute path"
    elif re.match(r"[A-Za-z]:", name):
        reason = "starts with a drive letter"
    elif stat.S_ISLNK(info.external_attr >> 16):
        reason = "is a symbolic link"
    if reason is not None:
        raise InputError(f"{path}: member {name!r} {reason}; make the zip again without it")


def _refuse_bomb(size: tuple[int, int], name: str, max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise InputError(
            f"image {name} is {height} x {width}, more than the {max_pixels} pixels allowed; "
            "make it smaller"
        )


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        lowest, _ = image.getchannel("A").getextrema()
        if lowest != 255:
            raise InputError(
                f"image {name} has transparent pixels; save it on the background it was shown on"
            )
    elif image.mode not in _OPAQUE_MODES:
        raise InputError(
            f"image {name} has pixels of kind {image.mode!r}; save it with 8 bits a channel"
        )
    return image.convert("RGB")


def _resize_and_crop(image: Image.Image, size: int, name: str, max_pixels: int) -> Image.Image:
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    _refuse_bomb((width, height), f"{name} resized", max_pixels)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


@contextmanager
def _explained(path: str | Path) -> Iterator[None]:
    """Turn what `numpy.load` raises into an `InputError` of one line."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; a file of arrays was expected there") from None
    except _UNREADABLE_ARRAY as error:
        raise InputError(f"{path} is damaged or truncated ({error}); fetch it again") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise InputError(_what_numpy_found(path, " ".join(str(error).split()))) from error


def _what_numpy_found(path: str | Path, message: str) -> str:
    with Path(path).open("rb") as file:
        start = file.read(6)
    if "pickle" not in message.lower():
        return f"{path} is damaged or truncated ({message}); fetch it again"
    if start.startswith((b"\x80", b"\x93NUMPY", b"PK")):
        return (
            f"{path} holds pickled objects where a plain array is expected; "
            "save it again from numbers, with numpy.save(..., allow_pickle=False)"
        )
    return f"{path} is not a NumPy file; save the array again with numpy.save"
