"""Decoding of image files made by others, of the few formats that are read."""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from pocketcortex.core.errors import InputError, in_brief

MAX_PIXELS = 64 * 10**6
_LARGE, _PIXELS_A_BYTE = 4 * 10**6, 10_000
"""A large image has at most so many pixels a byte of its file; one that claims more is a bomb."""
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")
"""What is decoded. Pillow knows more, and hands some of it to other programs (EPS to Ghostscript,
which runs what the file says)."""

_OPAQUE_MODES = frozenset({"1", "L", "P", "RGB", "CMYK", "YCbCr"})
_ALPHA_MODES = frozenset({"LA", "PA", "RGBA"})


def decode_image(
    content: bytes, name: str, *, size: int | None = None, max_pixels: int = MAX_PIXELS
) -> UInt8[np.ndarray, "3 height width"]:
    """Return an image file's pixels as RGB in 0..255, grey repeated over the three channels.

    Pixels come as stored: an orientation tag is not applied, and of an animation the first frame
    is taken.

    Parameters
    ----------
    content
        The bytes of the file: JPEG, PNG, BMP, GIF, TIFF or WebP, whatever its name says.
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
    picture = decode_picture(content, name, size=size, max_pixels=max_pixels)
    return np.ascontiguousarray(to_pixels(picture))


def decode_picture(
    content: bytes, name: str, *, size: int | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Return what `decode_image` returns as an RGB image of Pillow; the same arguments."""
    try:
        if (canvas := _webp_canvas(content)) is not None:  # else Pillow makes room for it at once
            _refuse_bomb(canvas, name, max_pixels)
            _refuse_claim(canvas, len(content), name)
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _refuse_bomb(image.size, name, max_pixels)
            _refuse_claim(image.size, len(content), name)
            rgb = _to_rgb(image, name)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(
            f"image {name} holds too many pixels (more than {max_pixels}); make it smaller"
        ) from error
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(
            f"image {name} cannot be decoded (its start is of none of {', '.join(FORMATS)}); "
            "replace it by a JPEG or PNG file"
        ) from error
    except Exception as error:  # of a damaged file, Pillow's readers raise almost anything
        raise InputError(
            f"image {name} cannot be decoded ({in_brief(error)}); replace it by a JPEG or PNG file"
        ) from error
    return rgb if size is None else _resize_and_crop(rgb, size, name, max_pixels)


def to_pixels(picture: Image.Image) -> UInt8[np.ndarray, "3 height width"]:
    """Return the pixels of an RGB image of Pillow, channels first but not contiguous."""
    return np.asarray(picture, dtype=np.uint8).transpose(2, 0, 1)


def _refuse_bomb(size: tuple[int, int], name: str, max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise InputError(
            f"image {name} is {height} x {width}, more than the {max_pixels} pixels allowed; "
            "make it smaller"
        )


def _webp_canvas(content: bytes) -> tuple[int, int] | None:
    """Return width and height as a WebP file's first chunk tells them, None for other files."""
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP" or len(content) < 30:
        return None
    kind = content[12:16]
    if kind == b"VP8X":  # two numbers of 24 bits, less one
        width, height = (int.from_bytes(content[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":  # two numbers of 14 bits, less one, behind a byte
        both = int.from_bytes(content[21:25], "little")
        width, height = (both & 0x3FFF) + 1, (both >> 14 & 0x3FFF) + 1
    else:  # two numbers of 14 bits, behind a frame's tag
        width, height = (int.from_bytes(content[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    return width, height


def _refuse_claim(size: tuple[int, int], n_bytes: int, name: str) -> None:
    width, height = size
    if width * height > max(_LARGE, _PIXELS_A_BYTE * n_bytes):
        raise InputError(
            f"image {name} claims {height} x {width} pixels in a file of {n_bytes} bytes; save it "
            "again as JPEG or PNG"
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
    if image.mode != "RGB":
        return image.convert("RGB")
    image.load()  # a copy less than converting takes
    return image


def _resize_and_crop(image: Image.Image, size: int, name: str, max_pixels: int) -> Image.Image:
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    _refuse_bomb((width, height), f"{name} resized", max_pixels)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))
