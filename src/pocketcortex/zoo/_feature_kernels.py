"""Kernels over stimuli from one layer's features, a block of features at a time.

For each block the features are centred (about their mean over stimuli) and z-scored while they are
in cache; products are in the features' precision, sums over blocks in float64. Where there are
fewer features than stimuli all is in float64: such kernels have eigenvalues of 0, and what rounding
makes of these counts beside a small penalty. On a CPU the blocks
are shared out over threads that each use NumPy on one core: its product of a matrix with its own
transpose computes one triangle alone, and small products on several cores wait for each other.
"""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

_BLOCK, _BLOCK_ON_GPU = 2_000_000, 64_000_000  # feature values worked on at once
_SMALLEST = 1e-25  # sum of squares below which float32 loses digits
_EPS = float(np.finfo(np.float64).eps)

_Result = TypeVar("_Result")


class NotFiniteError(Exception):
    """Features hold NaN or infinity."""


@dataclass(frozen=True)
class Moments:
    """Mean over stimuli and sum of squared deviations from it, for each feature."""

    n: int
    mean: Float[Tensor, " n_features"]
    squares: Float[Tensor, " n_features"]


@dataclass(frozen=True)
class LayerSums:
    """What is summed over the features of one batch of stimuli.

    Attributes
    ----------
    centred, standardized
        One matrix for each pair of parts asked for.
    totals
        Each stimulus's values less `shift`, summed.
    squares
        Their squares, summed, without those of the centred features.
    shift
        A number near the layer's mean, left out of the two above so that they keep their digits.
    """

    centred: list[Float64[np.ndarray, "_ _"]]
    standardized: list[Float64[np.ndarray, "_ _"]]
    totals: Float64[np.ndarray, " n_stimuli"]
    squares: Float64[np.ndarray, " n_stimuli"]
    shift: float

    def add(self, other: "LayerSums") -> None:
        """Add the sums over other features."""
        for mine, theirs in zip(self.centred, other.centred, strict=True):
            mine += theirs
        for mine, theirs in zip(self.standardized, other.standardized, strict=True):
            mine += theirs
        self.totals[:] += other.totals
        self.squares[:] += other.squares


@dataclass(frozen=True)
class Workers:
    """Threads that share the blocks of a layer."""

    pool: Executor
    n: int

    def map(self, rows: Tensor, work: Callable[[list[slice]], _Result]) -> list[_Result]:
        """Return what `work` makes of the blocks of features, one result a thread."""
        on_cpu = rows.device.type == "cpu"
        width = max(1, (_BLOCK if on_cpu else _BLOCK_ON_GPU) // len(rows))
        starts = np.arange(0, rows.shape[1], width)
        shares = np.array_split(starts, min(self.n if on_cpu else 1, len(starts)))
        blocks = [[slice(int(s), int(s) + width) for s in share] for share in shares]

        def run(share: list[slice]) -> _Result:
            with torch.inference_mode():  # a thread's own affair
                return work(share)

        return list(self.pool.map(run, blocks))


def layer_sums(
    rows: Float[Tensor, "n_stimuli n_features"],
    pairs: list[tuple[slice, slice]],
    moments: Moments | None,
    workers: Workers,
    shift: float | None = None,
    n_features: int | None = None,
) -> LayerSums:
    """Return kernels of pairs of parts of the rows, about the features' means over stimuli.

    Parameters
    ----------
    rows
        Features, on any device.
    pairs
        Which parts of the rows to multiply with each other.
    moments
        Of all stimuli; None if the rows are all of them.
    workers
        Threads for a CPU.
    shift
        That of the sums over other features of the layer, to which these will be added.
    n_features
        Of the whole layer, where `rows` hold only some.

    Raises
    ------
    NotFiniteError
        If a feature is NaN or infinite.
    """
    if shift is None:
        shift = float(rows[0].double().mean()) if moments is None else float(moments.mean.mean())
    if not np.isfinite(shift):
        raise NotFiniteError
    layer = _Layer(rows, pairs, moments, shift, n_features or rows.shape[1])
    total, *others = workers.map(rows, layer.sums)
    for other in others:
        total.add(other)
    return total


@dataclass(frozen=True)
class _Layer:
    """What :func:`layer_sums` was given."""

    rows: Tensor
    pairs: list[tuple[slice, slice]]
    moments: Moments | None
    shift: float
    n_features: int

    def sums(self, blocks: list[slice]) -> LayerSums:
        """Return the sums over some blocks of features."""
        scratch = _Scratch()
        with np.errstate(all="ignore"):  # what overflows is done again
            total = self._block(blocks[0], scratch)
            for block in blocks[1:]:
                total.add(self._block(block, scratch))
        return total

    def _block(self, block: slice, scratch: "_Scratch") -> LayerSums:
        """Return the sums over a block, in float64 throughout where float32 cannot hold it."""
        n = len(self.rows) if self.moments is None else self.moments.n
        for exact in (True,) if self.n_features < n else (False, True):
            x, xp = _values(self.rows[:, block], exact)
            centred = scratch.like(0, x, xp)
            if self.moments is None:
                mean, squares = _centre(x, centred, xp)
            else:
                both = self.moments.mean, self.moments.squares
                mean, squares = (_values(m[block], exact)[0] for m in both)
                xp.subtract(x, mean, out=centred)
            if _holds(centred, squares, xp):
                break
        else:
            raise NotFiniteError
        variance = squares / n
        constant = variance <= (n * _EPS * mean) ** 2  # as scikit-learn's StandardScaler
        variance[constant] = 1
        scale = ~constant / xp.sqrt(variance)
        scaled = xp.multiply(centred, scale, out=scratch.like(1, x, xp))
        rest = mean - self.shift
        return LayerSums(
            [_numpy(centred[a] @ centred[b].T) for a, b in self.pairs],
            [_numpy(scaled[a] @ scaled[b].T) for a, b in self.pairs],
            _numpy(centred.sum(1)) + float(rest.sum()),
            2 * _numpy(centred @ rest) + float(rest @ rest),
            self.shift,
        )


class _Scratch:
    """Arrays used again for every block: fresh ones cost more than the arithmetic."""

    def __init__(self) -> None:
        self._flat: dict[tuple[int, Any], Any] = {}

    def like(self, which: int, x: Any, xp: Any) -> Any:
        """Return an uninitialised array as large as x, the same memory for the same `which`."""
        n, width = x.shape
        flat = self._flat.get((which, x.dtype))
        if flat is None or len(flat) < n * width:
            flat = xp.empty_like(x, **_CONTIGUOUS[xp]).reshape(-1)
            self._flat[which, x.dtype] = flat
        return flat[: n * width].reshape(n, width)


_CONTIGUOUS: dict[Any, dict[str, Any]] = {
    np: {"order": "C"},
    torch: {"memory_format": torch.contiguous_format},
}


def _centre(x: Any, centred: Any, xp: Any) -> tuple[Any, Any]:
    """Fill `centred`, exactly 0 for a constant feature; return means and sums of squares."""
    xp.subtract(x, x[0], out=centred)
    offset = centred.mean(0)
    xp.subtract(centred, offset, out=centred)
    return x[0] + offset, xp.einsum("ij,ij->j", centred, centred)


def _holds(centred: Any, squares: Any, xp: Any) -> bool:
    """Return whether squares neither overflow nor lose digits to the smallest numbers."""
    if not bool(xp.isfinite(squares).all()):
        return False
    if squares.dtype in (np.float64, torch.float64):
        return True
    small = squares < _SMALLEST
    return not bool(small.any()) or not bool((centred[:, small] != 0).any())


def _values(x: Tensor, exact: bool) -> tuple[Any, Any]:
    """Return the values, at least float32, as what computes them fastest, and its library."""
    if exact or x.dtype not in (torch.float32, torch.float64):
        x = x.to(torch.float64 if exact else torch.float32)
    return (x.numpy(), np) if x.device.type == "cpu" else (x, torch)


def _numpy(x: Any) -> Float64[np.ndarray, "..."]:
    return np.asarray(x.cpu().numpy() if isinstance(x, Tensor) else x, dtype=np.float64)


def updated_moments(
    rows: Float[Tensor, "n_stimuli n_features"], moments: Moments | None, workers: Workers
) -> Moments:
    """Return the moments of the stimuli seen before and of these together.

    References
    ----------
    Chan, Golub & LeVeque (1983), Algorithms for computing the sample variance, The American
    Statistician 37: 242-247, eq. 2.1.
    """
    dtype = torch.float64 if rows.dtype == torch.float64 else torch.float32
    mean = torch.empty(rows.shape[1], dtype=dtype, device=rows.device)
    squares = torch.empty_like(mean)

    def work(blocks: list[slice]) -> None:
        scratch = _Scratch()
        with np.errstate(all="ignore"):  # what is not finite stays so, and is seen in the kernels
            for block in blocks:
                x, xp = _values(rows[:, block], False)
                m, s = _centre(x, scratch.like(0, x, xp), xp)
                mean[block], squares[block] = torch.as_tensor(m), torch.as_tensor(s)

    workers.map(rows, work)
    if moments is None:
        return Moments(len(rows), mean, squares)
    n = moments.n + len(rows)
    difference = mean - moments.mean
    squares += moments.squares
    squares += difference.square() * (moments.n * len(rows) / n)
    return Moments(n, moments.mean + difference * (len(rows) / n), squares)
