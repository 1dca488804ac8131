"""Reading of image banks: the stream of decoded batches against a plain loop, image by image."""

import io
import math
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pocketcortex.core import StimulusSet
from pocketcortex.data import read_bank

SIZE, BATCH, N_CROPS, N_SESSIONS, N_ROUNDS = 112, 64, 4, 3, 3


def bench_decoding(folder: Path, seed: int) -> dict[str, Any]:
    """Time crops of the bank of photographs, and the images of three V4 sessions.

    Ours and the peer take turns, and the quickest of three rounds counts for each.
    """
    photos = folder / "banks" / "photos" / "photos.zip"
    sessions = sorted((folder / "v4" / "data_V4_responses" / "images").glob("images_*.zip"))
    sessions = sessions[:N_SESSIONS]
    crops = read_bank(photos, SIZE, crops=N_CROPS, seed=seed)
    shown = StimulusSet.concatenate([read_bank(path, SIZE) for path in sessions])
    ways = (
        lambda: _streamed(crops),
        lambda: _plain_crops(photos, seed),
        lambda: _streamed(shown),
        lambda: _plain_images(sessions),
    )
    seconds = [math.inf] * len(ways)
    for _ in range(N_ROUNDS):
        pixels = []
        for k, way in enumerate(ways):
            started = time.perf_counter()
            pixels.append(list(way()))
            seconds[k] = min(seconds[k], time.perf_counter() - started)
    differences = (_difference(*pixels[:2]), _difference(*pixels[2:]))
    rates = [n / s for n, s in zip([len(crops)] * 2 + [len(shown)] * 2, seconds, strict=True)]
    ours, peer = seconds[0] + seconds[2], seconds[1] + seconds[3]
    return {
        "what": f"decoding {len(crops)} crops of {len(crops) // N_CROPS} photographs and "
        f"{len(shown)} session images, {SIZE} × {SIZE}",
        "ours": "`StimulusSet.stream`, 2 threads "
        f"({rates[0]:.0f} crops and {rates[2]:.0f} images a second)",
        "peer": f"zipfile and Pillow, image by image ({rates[1]:.0f} and {rates[3]:.0f} a second)",
        "seconds": ours,
        "peer_seconds": peer,
        "ratio": peer / ours,
        "difference": float(max(differences)),
    }


def _streamed(stimuli: StimulusSet) -> Iterator[np.ndarray]:
    starts = range(0, len(stimuli), BATCH)
    for batch in stimuli.stream(slice(start, start + BATCH) for start in starts):
        yield from batch


def _plain_images(paths: list[Path]) -> Iterator[np.ndarray]:
    for path in paths:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(n for n in archive.namelist() if n.endswith(".jpg")):
                picture = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
                yield np.asarray(picture).transpose(2, 0, 1)


def _plain_crops(path: Path, seed: int) -> Iterator[np.ndarray]:
    """Yield the crops of `StimulusSet.crops`, each from a photograph decoded for it alone."""
    with zipfile.ZipFile(path) as archive:
        for i, name in enumerate(sorted(archive.namelist())):
            for k in range(N_CROPS):
                picture = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
                u = np.random.default_rng([seed, i, k]).random(4)
                side = SIZE + int(u[0] * (min(picture.size) - SIZE + 1))
                left = int(u[1] * (picture.width - side + 1))
                top = int(u[2] * (picture.height - side + 1))
                box = (left, top, left + side, top + side)
                cut = picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box)
                pixels = np.asarray(cut).transpose(2, 0, 1)
                yield pixels[:, :, ::-1] if u[3] < 0.5 else pixels


def _difference(ours: list[np.ndarray], peer: list[np.ndarray]) -> int:
    """Return the largest difference of a level."""
    pairs = zip(ours, peer, strict=True)
    return max(int(np.abs(a.astype(np.int16) - b).max()) for a, b in pairs)
