"""An endless bank of naturalistic images made by code: textured, shaded dead leaves.

Occluding shapes whose sizes follow a power law give images that share the best-known statistics of
photographs: sharp edges, occlusion and junctions, a 1/f amplitude spectrum, heavy-tailed contrast.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32, UInt8
from numpy.typing import NDArray

from pocketcortex.core import ImageSource, InputError, StimulusSet

_CHUNK = 16  # scenes rendered at once
_MAX_LEAVES = 512  # leaves of one scene, the backdrop included
_SMALLEST = (1.0 / 64, 5.0 / 64)  # range of the scene's smallest leaf, in image sides
_LARGEST = 0.5  # largest leaf, in image sides
_REACH = 1.2  # leaves centred further outside the image than reach * radius are not drawn
_EXTENT = 1.3  # outlines are cut off beyond extent * major radius
_CORNERS = 5  # half-planes that cut out a polygon
_TILE = 512  # side of the periodic noise the textures are cut from
_BLUR = 0.12  # weight of each neighbour in the three-tap blur
_CHANNEL_MEANS = (116.5, 109.4, 101.0)  # before clipping; about (116, 109, 100) after it

# What one scene holds: every name maps to an array (n_scenes, n_leaves).
_Leaves = dict[str, Float32[np.ndarray, "scenes leaves"]]
_ELLIPSE, _BLOB, _POLYGON, _RECTANGLE = range(4)


def dead_leaves(
    n: int, *, size: int, seed: int, start: int = 0
) -> UInt8[np.ndarray, "n 3 {size} {size}"]:
    """Images ``start .. start + n - 1`` of the endless bank named by ``seed``.

    Image ``k`` is a function of ``(seed, k, size)`` alone, so any slice can be made again, at once
    or in pieces, to the same bytes. Leaves (ellipses, wavy blobs, polygons, rectangles) of radius
    ``r`` with density proportional to ``r**-3`` cover one another. Each has a colour of a small
    palette drawn for the scene (broad luminance, small blue-yellow and smaller red-green chroma,
    now and then a vivid one), soft shading and, on many leaves, 1/f noise or a grating.

    Parameters
    ----------
    n : int
        Number of images, 0 or more.
    size : int
        Height and width in pixels, 8 or more.
    seed : int
        Which bank, 0 or more.
    start : int, optional
        Index of the first image, 0 or more.

    Returns
    -------
    UInt8[np.ndarray, "n 3 size size"]
        RGB images, 0..255. Channel means over many images are near those of photographs
        (116, 109, 100); the amplitude spectrum falls about as 1/f (log-log slope at size 64: -1.0
        over 2..8 cycles per image, -1.2 over 2..16, -1.4 over 2..31).

    Raises
    ------
    InputError
        If ``n``, ``seed`` or ``start`` is negative, or ``size`` is below 8.

    References
    ----------
    Lee, Mumford and Huang (2001), "Occlusion models for natural images: a statistical study of a
    scale-invariant dead leaves model", Int. J. Computer Vision 41 (sizes ~ r^-3).
    Ruderman, Cronin and Chiao (1998), "Statistics of cone responses to natural images", J. Opt.
    Soc. Am. A 15 (luminance, blue-yellow and red-green axes, in falling order of spread).

    Examples
    --------
    >>> dead_leaves(2, size=32, seed=0).shape
    (2, 3, 32, 32)
    """
    _refuse_small(n=(n, 0), seed=(seed, 0), start=(start, 0), size=(size, 8))
    return _render(range(start, start + n), size, seed)


def dead_leaves_bank(n: int, size: int, seed: int, start: int = 0) -> StimulusSet:
    """Return the images of `dead_leaves` as a set whose images are made when they are read.

    Parameters
    ----------
    n, size, seed, start
        As for `dead_leaves`. Image `k` is named `dead_leaves{k}`, counted from the start of the
        endless bank.

    Raises
    ------
    InputError
        As for `dead_leaves`.

    Examples
    --------
    >>> dead_leaves_bank(12_000_000, size=112, seed=0).read([7_654_321]).shape
    (1, 3, 112, 112)
    """
    _refuse_small(n=(n, 0), seed=(seed, 0), start=(start, 0), size=(size, 8))
    return StimulusSet.from_source(_DeadLeaves(n, size, seed, start))


@dataclass(frozen=True, eq=False)
class _DeadLeaves(ImageSource):
    n: int
    size: int
    seed: int
    start: int

    def __repr__(self) -> str:
        return f"dead leaves {self.seed}"

    def __len__(self) -> int:
        return self.n

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(f"dead_leaves{self.start + k}" for k in range(self.n))

    @property
    def image_size(self) -> tuple[int, int]:
        return self.size, self.size

    def read(self, index: Int[np.ndarray, " n_read"]) -> UInt8[np.ndarray, "n_read 3 height width"]:
        return _render([self.start + int(k) for k in index], self.size, self.seed)


def _refuse_small(**limits: tuple[int, int]) -> None:
    for name, (value, least) in limits.items():
        if value < least:
            raise InputError(f"`{name}` (={value}) must be at least {least}")


def _render(
    indices: Sequence[int], size: int, seed: int
) -> UInt8[np.ndarray, "n_read 3 {size} {size}"]:
    """Images of the endless bank at these places, in this order."""
    images = np.empty((len(indices), 3, size, size), dtype=np.uint8)
    for first in range(0, len(indices), _CHUNK):
        leaves = _draw_leaves(seed, indices[first : first + _CHUNK])
        images[first : first + _CHUNK] = _paint(leaves, _topmost(leaves, size), size)
    return images


def _draw_leaves(seed: int, indices: Sequence[int]) -> _Leaves:
    """Every leaf of the scenes named, in image sides, later leaves lying on top of earlier ones."""
    scene = np.empty((len(indices), 1, 16), dtype=np.float32)
    palette = np.empty((len(indices), 6, 3), dtype=np.float32)
    uniform = np.empty((len(indices), _MAX_LEAVES, 18), dtype=np.float32)
    normal = np.empty((len(indices), _MAX_LEAVES, 7), dtype=np.float32)
    for row, k in enumerate(indices):
        rng = np.random.default_rng([seed, k])
        rng.random(out=scene[row], dtype=np.float32)
        rng.standard_normal(out=palette[row], dtype=np.float32)
        rng.random(out=uniform[row], dtype=np.float32)
        rng.standard_normal(out=normal[row], dtype=np.float32)
    s = np.moveaxis(scene, -1, 0)  # (16, scenes, 1)
    u = np.ascontiguousarray(np.moveaxis(uniform, -1, 0))  # (18, scenes, leaves)
    z = np.ascontiguousarray(np.moveaxis(normal, -1, 0))
    leaves = _shapes(s, u)
    leaves |= _colours(s, u, z, palette)
    leaves |= _textures(s, u, z)
    return leaves


def _shapes(s: NDArray[np.float32], u: NDArray[np.float32]) -> _Leaves:
    """Place, size, outline and number of the leaves."""
    smallest = _SMALLEST[0] * (_SMALLEST[1] / _SMALLEST[0]) ** s[0]
    radius, n_leaves = _power_law_radii(u[0], smallest, cover=1.5 + 2.0 * s[1])
    radius[:, 0] = 1.0  # the backdrop, which lies everywhere
    aspect = 1.0 - (0.3 + 0.6 * s[2]) * u[1] ** 0.7  # minor over major axis
    tilt = np.float32(2 * np.pi) * (s[3] + np.where(s[4] < 0.5, 1.0, 0.12) * (u[2] - 0.5))
    favourite = np.where(u[3] < 0.4, s[5], u[4])  # scenes favour one kind of shape
    bounds = [favourite < 0.3, favourite < 0.6, favourite < 0.8]
    kind = np.select(bounds, [_ELLIPSE, _BLOB, _POLYGON], _RECTANGLE)
    shapes = {
        "radius": radius,
        "row": u[5] * (1 + 2 * _REACH * radius) - _REACH * radius,
        "column": u[6] * (1 + 2 * _REACH * radius) - _REACH * radius,
        "major": radius / np.sqrt(aspect),
        "minor": radius * np.sqrt(aspect),
        "cos": np.cos(tilt),
        "sin": np.sin(tilt),
        "bend": np.where(u[7] < 0.5, 0.0, 1.6 * (u[7] - 0.75)),
        "kind": kind,
        "exists": np.arange(_MAX_LEAVES) < n_leaves,
        "jitter": u[8],
    }
    return {name: np.asarray(value, dtype=np.float32) for name, value in shapes.items()}


def _power_law_radii(
    u: NDArray[np.float32], smallest: NDArray[np.float32], *, cover: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Radii with density ~ r^-3 (1 + 2 reach r)^2, and how many cover each pixel ``cover`` times.

    The second factor is the area leaves of that radius may be centred in, so that the density of
    leaves *per area* is r^-3. Drawn by inverting the distribution function on a grid.
    """
    grid = np.geomspace(_SMALLEST[0], _LARGEST, 256)
    w = 2 * _REACH

    def below(r: NDArray[np.float64]) -> NDArray[np.float64]:
        return -0.5 / r**2 - 2 * w / r + w**2 * np.log(r)

    low, high = below(smallest.astype(np.float64)), below(np.array([_LARGEST]))
    radius = np.interp(low + u * (high - low), below(grid), grid).astype(np.float32)
    covered = np.pi * np.log(_LARGEST / smallest) / (high - low)  # mean area of a leaf in the image
    return radius, np.ceil(cover / covered).astype(np.float32)


def _colours(
    s: NDArray[np.float32],
    u: NDArray[np.float32],
    z: NDArray[np.float32],
    palette: NDArray[np.float32],
) -> _Leaves:
    """Red, green and blue of each leaf: luminance times (channel mean + chroma)."""
    chosen = (palette.shape[1] * u[9]).astype(np.intp)
    shades = np.take_along_axis(palette, chosen[..., None], axis=1)  # (scenes, leaves, 3)
    spread = 0.3 + 0.35 * s[7]
    luminance = 1.0 + 0.30 * (2 * s[6] - 1) + spread * (0.75 * shades[..., 0] + 0.65 * z[0])
    luminance = np.maximum(luminance, 0.06 + 0.1 * u[10])
    vivid = np.where(u[11] < 0.06, 3.5, 1.0) * (0.3 + 1.0 * s[8])
    yellow = vivid * (0.11 * shades[..., 1] + 0.07 * z[1]) + 0.10 * (2 * s[9] - 1)
    red = vivid * (0.045 * shades[..., 2] + 0.03 * z[2]) + 0.03 * (2 * s[10] - 1)
    chroma = (0.45 * yellow + red, 0.35 * yellow - 0.7 * red, -1.0 * yellow + 0.1 * red)
    return {
        name: (mean * luminance * np.clip(1.0 + c, 0.1, 2.2)).astype(np.float32)
        for name, mean, c in zip(("red", "green", "blue"), _CHANNEL_MEANS, chroma, strict=True)
    }


def _textures(s: NDArray[np.float32], u: NDArray[np.float32], z: NDArray[np.float32]) -> _Leaves:
    """Relative strength and layout of noise, grating and shading on each leaf."""
    turn = np.float32(2 * np.pi) * u[12]
    textures = {
        "noise": (0.05 + 0.25 * s[11]) * np.abs(z[3]),
        "grating": np.where(u[13] < 0.05 + 0.3 * s[12] ** 2, 0.1 + 0.4 * u[14], 0.0),
        "frequency": 4.0 * 4.0 ** u[15],  # cycles per image side, 4..16
        "turn_cos": np.cos(turn),
        "turn_sin": np.sin(turn),
        "phase": np.float32(2 * np.pi) * u[16],
        "shift": _TILE * u[17],
        "slope_row": 0.5 * z[4] + 0.25 * (2 * s[13] - 1),  # per image side
        "slope_column": 0.5 * z[5] + 0.25 * (2 * s[14] - 1),
        "dome": 0.25 * s[15] * np.abs(z[6]),  # darkening towards the rim
    }
    return {name: np.asarray(value, dtype=np.float32) for name, value in textures.items()}


def _topmost(leaves: _Leaves, size: int) -> Int32[np.ndarray, " pixels"]:
    """Which leaf each pixel shows, as an index into the flattened (scenes, leaves)."""
    n_scenes, n_leaves = leaves["radius"].shape
    top = np.repeat(np.arange(n_scenes, dtype=np.int32) * n_leaves, size * size)  # the backdrop
    flat = {name: leaves[name].ravel() for name in ("row", "column", "major", "minor", "cos")}
    flat |= {name: leaves[name].ravel() for name in ("sin", "bend", "kind", "jitter")}
    reach = np.ceil(_EXTENT * flat["major"] * size)
    steps = np.unique(np.ceil(1.35 ** np.arange(3, 40)))  # half sides of the windows tried
    steps = np.append(steps[steps < 0.6 * size], np.inf)
    group = 4 * np.searchsorted(steps, reach) + flat["kind"].astype(np.intp)
    group[(leaves["exists"].ravel() == 0) | (np.arange(group.size) % n_leaves == 0)] = -1
    for label in np.unique(group[group >= 0]):
        members = np.flatnonzero(group == label)  # rising: a later one lies on top
        window = {name: value[members, None, None] for name, value in flat.items()}
        if np.isinf(steps[label // 4]):
            rows = columns = np.broadcast_to(np.arange(size), (members.size, size))
        else:
            half = int(steps[label // 4])
            offsets = np.arange(-half, half + 1)
            rows = np.floor(window["row"][:, 0] * size).astype(np.int32) + offsets
            columns = np.floor(window["column"][:, 0] * size).astype(np.int32) + offsets
        inside = _inside(window, int(label % 4), rows, columns, size)
        inside &= ((rows >= 0) & (rows < size))[:, :, None]
        inside &= ((columns >= 0) & (columns < size))[:, None, :]
        scene = (members // n_leaves)[:, None]
        pixel = ((scene * size + rows) * size)[:, :, None] + columns[:, None, :]
        layer = np.zeros_like(top)
        # Of equal indices NumPy keeps the last value, which is the leaf on top.
        layer[pixel[inside]] = np.broadcast_to(members[:, None, None], inside.shape)[inside]
        np.maximum(top, layer, out=top)
    return top


def _inside(
    leaf: dict[str, NDArray[np.float32]],
    kind: int,
    rows: NDArray[np.integer],
    columns: NDArray[np.integer],
    size: int,
) -> Bool[np.ndarray, "leaves height width"]:
    """Whether each pixel of each leaf's window lies inside its outline."""
    down = ((rows + 0.5) / size).astype(np.float32)[:, :, None] - leaf["row"]
    right = ((columns + 0.5) / size).astype(np.float32)[:, None, :] - leaf["column"]
    x = right * (leaf["cos"] / leaf["major"]) + down * (leaf["sin"] / leaf["major"])
    y = down * (leaf["cos"] / leaf["minor"]) - right * (leaf["sin"] / leaf["minor"])
    if kind == _POLYGON:
        inside = np.ones(x.shape, dtype=np.bool_)
        for corner in range(_CORNERS):
            wobble = (leaf["jitter"] * (7.3 + 5.1 * corner)) % 1.0
            turn = np.float32(2 * np.pi / _CORNERS) * (corner + 0.7 * wobble)
            inside &= x * np.cos(turn) + y * np.sin(turn) < 0.6 + 0.4 * wobble
        return inside
    y += leaf["bend"] * (x * x - 0.4)
    if kind == _RECTANGLE:
        return np.asarray(np.maximum(np.abs(x), np.abs(y)) < 0.85, dtype=np.bool_)
    if kind == _BLOB:
        phase = np.float32(2 * np.pi) * leaf["jitter"]
        x, y = x + 0.25 * np.sin(3.0 * y + phase), y + 0.25 * np.sin(3.3 * x + 3 * phase)
    return np.asarray(x * x + y * y < 1.0, dtype=np.bool_)


def _paint(
    leaves: _Leaves, top: Int32[np.ndarray, " pixels"], size: int
) -> UInt8[np.ndarray, "scenes 3 {size} {size}"]:
    """Images in the colour, texture and shading of the topmost leaf, slightly blurred."""
    n_scenes = top.size // size**2
    at = {name: np.take(value.ravel(), top) for name, value in leaves.items()}
    centres = (np.arange(size, dtype=np.float32) + 0.5) / size
    shape = (n_scenes, size, size)
    down = np.broadcast_to(centres[:, None], shape).ravel() - at["row"]
    right = np.broadcast_to(centres, shape).ravel() - at["column"]
    across = right * at["turn_cos"] + down * at["turn_sin"]
    along = down * at["turn_cos"] - right * at["turn_sin"]
    texels = np.float32(1.5 * size)
    tile_row = (across * texels + at["shift"] + 4 * _TILE).astype(np.int32) % _TILE
    tile_column = (along * texels + 3 * at["shift"] + 4 * _TILE).astype(np.int32) % _TILE
    light = 1.0 + at["noise"] * np.take(_noise_tile(), tile_row * _TILE + tile_column)
    light += at["grating"] * np.sin(np.float32(2 * np.pi) * at["frequency"] * across + at["phase"])
    light += np.clip(at["slope_row"] * down + at["slope_column"] * right, -0.4, 0.4)
    light += at["dome"] * (0.5 - np.minimum((down**2 + right**2) / at["radius"] ** 2, 1.5))
    colour = np.stack([at[name].reshape(shape) for name in ("red", "green", "blue")], axis=1)
    colour *= np.maximum(light, 0.05).reshape(n_scenes, 1, size, size)
    colour = _blur(_blur(np.minimum(colour, 255.0), axis=2), axis=3)
    return np.asarray(colour + 0.5, dtype=np.uint8)


def _blur(images: NDArray[np.float32], *, axis: int) -> NDArray[np.float32]:
    """Three-tap blur along one axis with repeated edges; it softens the staircase of outlines."""
    last = images.shape[axis] - 1
    before = np.take(images, np.maximum(np.arange(last + 1) - 1, 0), axis=axis)
    after = np.take(images, np.minimum(np.arange(last + 1) + 1, last), axis=axis)
    return np.asarray((1 - 2 * _BLUR) * images + _BLUR * (before + after), dtype=np.float32)


@lru_cache(maxsize=1)
def _noise_tile() -> Float32[np.ndarray, " texels"]:
    """Periodic noise with a 1/f amplitude spectrum, mean 0 and standard deviation 1, flattened."""
    rng = np.random.default_rng(0)
    row, column = np.fft.fftfreq(_TILE)[:, None], np.fft.rfftfreq(_TILE)[None]
    falloff = 1.0 / np.maximum(np.hypot(row, column), 1.0 / _TILE)
    falloff[0, 0] = 0.0
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((_TILE, _TILE))) * falloff)
    return np.asarray((noise / noise.std()).ravel(), dtype=np.float32)
