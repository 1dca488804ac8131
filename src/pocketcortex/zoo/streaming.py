"""Kernels of all layers of a network in one pass over the stimuli, no features kept."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from pocketcortex.core import InputError, StimulusSet, explained_writes, new_array_file, sync
from pocketcortex.zoo._feature_kernels import (
    LayerSums,
    Moments,
    NotFiniteError,
    Workers,
    layer_sums,
    updated_moments,
)
from pocketcortex.zoo._taps import as_rows, finish, memory_order, tapped
from pocketcortex.zoo.kernels import ARRAYS, NetworkKernels
from pocketcortex.zoo.stream_plan import StreamPlan, plan_stream, prepared, root_of

_NOT_FINITE = "features are NaN or infinite"


def stream_kernels(
    network: nn.Module,
    stimuli: StimulusSet,
    *,
    layers: Sequence[str] | None = None,
    within: str | None = None,
    memory_gib: float = 2.0,
    device: str = "cpu",
    folder: str | Path | None = None,
    announce: Callable[[StreamPlan], None] = lambda plan: None,
    advance: Callable[[int], None] = lambda n: None,
) -> NetworkKernels:
    r"""Return the kernels over stimuli of all layers of a network, from as few passes as possible.

    A layer's kernels are computed the moment its module gives its output, from the features of all
    stimuli at once, a block of features at a time; then the features are let go. So one pass serves
    all layers, memory holds what a pass through the network holds, and modules that overwrite their
    input change nothing. If all stimuli at once take more than `memory_gib`, the cheaper of two
    ways is taken. Either they are dealt into B blocks: one pass over them takes the features' means
    and deviations, then each of the B (B - 1) / 2 pairs of blocks goes through the network together
    and gives its part of every kernel; so an image is computed B times. Or a few images after the
    other go through the network, and as many features as there is room for are kept of all, then
    the next; so an image is computed as many times as memory would have to be larger to hold all
    layers' features.

    Layers are the outputs of all modules but mere containers, in the order of the calls, named
    by path, with ``#2`` from a second call on and ``[0]`` within tuples; the network's own output
    is ``(output)``. An output counts if it is floating point and its first axis follows the
    stimuli; all that an image gives (maps, tokens, vectors) is one row of features. Outputs equal
    to an earlier one, bit for bit and in the same order, for the first stimulus and its negative,
    are left out as duplicates.

    Parameters
    ----------
    network
        Takes float32 images ``(n, 3, height, width)``, levels 0..255, and normalises for itself.
        Run in evaluation mode; its parameters and flags are left as they are.
    stimuli
        Three or more images, which are rows and columns of the kernels in this order.
    layers
        Names of the layers wanted; by default all. The rest of the network is then left out.
    within
        Path of the sub-module whose modules are the layers, named relative to it; by default the
        network itself, or what a `Network` of the zoo holds besides its preprocessing.
    memory_gib
        Most memory besides the network, in GiB: tensors of a pass as measured beforehand, moments
        and kernels. Libraries' own workspace comes on top (ResNet50 at 224 pixels, 119 stimuli:
        1.4 GiB announced, 2 GiB peak of the process in all).
    device
        Where the network runs, "cpu" or "cuda"; it is moved there.
    folder
        A new folder for the kernels, written as they are computed and mapped into memory; by
        default they are kept in memory.
    announce
        Told the plan, with the memory needed, before anything long begins.
    advance
        Told after each pass how many images it had, for a progress bar.

    Returns
    -------
    NetworkKernels
        Layers with NaN or infinite features are NaN, with the reason.

    Raises
    ------
    InputError
        If there are fewer than 3 stimuli, the memory does not suffice for two images, a layer
        or `within` does not exist, no module gives features, the folder exists, or the network
        computes other layers for other images.

    References
    ----------
    Dual form of linear regression: Saunders, Gammerman & Vovk (1998), ICML. The order of
    computation is our own.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.random.default_rng(0).integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)
    >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten())
    >>> kernels = stream_kernels(network, StimulusSet.from_array(images))
    >>> kernels.layers, kernels.standardized.shape, kernels.duplicates["2"]
    (('0', '1'), (2, 5, 5), '1')
    """
    plan = plan_stream(
        network, stimuli, layers=layers, within=within, memory_gib=memory_gib, device=device,
        to_files=folder is not None,
    )  # fmt: skip
    announce(plan)
    stream = _Stream(network, root_of(network, within), stimuli, plan, torch.device(device))
    with _results(plan, len(stimuli), folder) as arrays:
        reasons = stream.run(arrays, advance)
        kernels = NetworkKernels(
            layers=plan.layers,
            n_features=np.array(plan.n_features, dtype=np.int64),
            **arrays,
            stimuli=stimuli.fingerprint,
            duplicates=plan.duplicates,
            skipped=plan.skipped,
            reasons=reasons,
        )
        if folder is not None:
            kernels.write_manifest(_partial(Path(folder)))
    return kernels if folder is None else NetworkKernels.load(folder)


class _Stream:
    """One network, one set of stimuli: the passes, and what is made of each layer in them."""

    def __init__(
        self, network: nn.Module, root: nn.Module, stimuli: StimulusSet, plan: StreamPlan,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.network = network.to(device)
        self.root, self.stimuli, self.plan, self.device = root, stimuli, plan, device
        self.place = {name: k for k, name in enumerate(plan.layers)}
        self.reasons: dict[str, str] = {}
        self.orders: dict[str, list[int]] = {}
        n = len(stimuli)
        self.blocks = np.array_split(np.arange(n), plan.n_images // n)  # if nothing is kept

    def run(
        self, arrays: Mapping[str, Float64[np.ndarray, "..."]], advance: Callable[[int], None]
    ) -> dict[str, str]:
        """Fill the arrays and return why layers are unusable."""
        n_threads = torch.get_num_threads()
        with ThreadPoolExecutor(n_threads) as pool, threadpool_limits(1, user_api="blas"):
            workers = Workers(pool, n_threads)
            if self.plan.kept:
                self._keep(arrays, workers, advance)
            else:
                self._stream(arrays, workers, advance)
        for name, k in self.place.items():
            for kind in ("centred", "standardized"):
                arrays[kind][k] = _double_centred(arrays[kind][k])
            if name in self.reasons:
                for array in arrays.values():
                    array[k] = np.nan
        return dict(self.reasons)

    def _stream(
        self,
        arrays: Mapping[str, Float64[np.ndarray, "..."]],
        workers: Workers,
        advance: Callable[[int], None],
    ) -> None:
        """Use features as they come, of all stimuli at once or of pairs of blocks."""
        moments = self._moments(workers, advance) if len(self.blocks) > 1 else {}
        for blocks, parts in self._pairs():
            rows = np.concatenate([self.blocks[b] for b in blocks])
            self._pass(rows, self._kernels_into(arrays, rows, parts, moments, workers))
            advance(len(rows))

    def _keep(
        self,
        arrays: Mapping[str, Float64[np.ndarray, "..."]],
        workers: Workers,
        advance: Callable[[int], None],
    ) -> None:
        """Keep some features of all stimuli, use them, and go on with the next features."""
        n = len(self.stimuli)
        everything = slice(0, n)
        begun: dict[str, LayerSums] = {}  # one layer at most: the rest of its features comes next

        def use(name: str, features: Tensor, is_last: bool) -> None:
            n_features = self.plan.n_features[self.place[name]]
            so_far = begun.pop(name, None)
            shift = None if so_far is None else so_far.shift
            parts = [(everything, everything)]
            try:
                sums = layer_sums(features, parts, None, workers, shift, n_features)
            except NotFiniteError:
                self.reasons[name] = _NOT_FINITE
                return
            if so_far is not None:
                sums.add(so_far)
            if is_last:
                _store(arrays, self.place[name], np.arange(n), parts, sums, n_features)
            else:
                begun[name] = sums

        for wanted in self.plan.kept:
            kept = self._features(wanted, advance)
            while kept:  # each is let go when used
                name = next(iter(kept))
                is_last = wanted[name].stop == self.plan.n_features[self.place[name]]
                use(name, kept.pop(name), is_last)

    def _features(
        self, wanted: Mapping[str, slice], advance: Callable[[int], None]
    ) -> dict[str, Tensor]:
        """Return some features of some layers, of all stimuli."""
        kept: dict[str, Tensor] = {}
        n = len(self.stimuli)
        for start in range(0, n, self.plan.images_at_once):
            stop = min(n, start + self.plan.images_at_once)
            rows = slice(start, stop)

            def take(name: str, features: Tensor, rows: slice = rows) -> None:
                some = features[:, wanted[name]]
                if name not in kept:
                    kept[name] = some.new_empty(n, some.shape[1])
                kept[name][rows] = some

            self._pass(np.arange(start, stop), take, wanted)
            advance(stop - start)
        return kept

    def _pairs(self) -> Iterator[tuple[tuple[int, ...], list[tuple[slice, slice]]]]:
        """Yield blocks to run together, and which parts of the pass give new products."""
        if len(self.blocks) == 1:
            everything = slice(0, len(self.stimuli))
            yield (0,), [(everything, everything)]
        done: set[int] = set()
        for first, second in combinations(range(len(self.blocks)), 2):
            size = len(self.blocks[first])
            a, b = slice(0, size), slice(size, size + len(self.blocks[second]))
            new = [(part, part) for k, part in ((first, a), (second, b)) if k not in done]
            done |= {first, second}
            yield (first, second), [*new, (a, b)]

    def _moments(self, workers: Workers, advance: Callable[[int], None]) -> dict[str, Moments]:
        moments: dict[str, Moments] = {}
        for start in range(0, len(self.stimuli), self.plan.images_at_once):
            rows = np.arange(len(self.stimuli))[start : start + self.plan.images_at_once]

            def take(name: str, features: Tensor) -> None:
                moments[name] = updated_moments(features, moments.get(name), workers)

            self._pass(rows, take)
            advance(len(rows))
        return moments

    def _kernels_into(
        self,
        arrays: Mapping[str, Float64[np.ndarray, "..."]],
        rows: np.ndarray,
        parts: list[tuple[slice, slice]],
        moments: dict[str, Moments],
        workers: Workers,
    ) -> Callable[[str, Tensor], None]:
        def take(name: str, features: Tensor) -> None:
            try:
                sums = layer_sums(features, parts, moments.get(name), workers)
            except NotFiniteError:
                self.reasons[name] = _NOT_FINITE
                return
            _store(arrays, self.place[name], rows, parts, sums, features.shape[1])

        return take

    def _pass(
        self,
        index: np.ndarray,
        take: Callable[[str, Tensor], None],
        wanted: Iterable[str] | None = None,
    ) -> None:
        """Run some of the stimuli through the network; call `take` for layers' features."""
        missing = set(self.plan.layers if wanted is None else wanted)

        def visit(name: str, output: Tensor) -> None:
            if name not in missing:
                return
            missing.remove(name)
            features = None
            if len(output) % len(index) == 0:
                order = self.orders.setdefault(name, memory_order(output, len(index)))
                features = as_rows(output, len(index), order)
            k = self.place[name]
            if features is None or features.shape[1] != self.plan.n_features[k]:
                raise InputError(
                    f"layer {name!r} gives {tuple(output.shape)} for {len(index)} images, not "
                    f"{self.plan.n_features[k]} features each as when first tried; leave it out "
                    "by naming the layers wanted"
                )
            if name not in self.reasons:
                take(name, features)
            if not missing:
                finish()

        images = torch.from_numpy(self.stimuli.read(index)).to(self.device)
        with torch.inference_mode(), tapped(self.root, visit):
            self.network(prepared(images, self.plan.channels_last))
        if missing:
            raise InputError(
                f"the network did not compute {len(missing)} of its layers for images {index[0]} "
                f"to {index[-1]}, such as {min(missing)!r}; leave them out by naming the layers"
            )


def _store(
    arrays: Mapping[str, Float64[np.ndarray, "..."]],
    k: int,
    rows: np.ndarray,
    parts: list[tuple[slice, slice]],
    sums: LayerSums,
    n_features: int,
) -> None:
    """Put a batch's sums where they belong; a stimulus's own sums come with its own block."""
    for (a, b), centred, standardized in zip(parts, sums.centred, sums.standardized, strict=True):
        for kind, part in (("centred", centred), ("standardized", standardized)):
            arrays[kind][k][np.ix_(rows[a], rows[b])] = part
            arrays[kind][k][np.ix_(rows[b], rows[a])] = part.T
        if a == b:
            totals, squares = sums.totals[a], sums.squares[a] + centred.diagonal()
            arrays["row_means"][k, rows[a]] = sums.shift + totals / n_features
            arrays["row_squares"][k, rows[a]] = squares - totals**2 / n_features


def _double_centred(kernel: Float64[np.ndarray, "n n"]) -> Float64[np.ndarray, "n n"]:
    """Return what is left when rounding of the means is taken out, exactly symmetric."""
    kernel = (kernel + kernel.T) / 2
    mean = kernel.mean(axis=0)
    return np.asarray(kernel - mean - mean[:, None] + mean.mean())


def _partial(folder: Path) -> Path:
    return folder.with_name(folder.name + ".partial")


@contextmanager
def _results(
    plan: StreamPlan, n: int, folder: str | Path | None
) -> Iterator[Mapping[str, Float64[np.ndarray, "..."]]]:
    """Give empty arrays, in memory or in files that get the folder's name when all is done."""
    shapes = {name: (len(plan.layers), n, n)[: 3 if name in ARRAYS[:2] else 2] for name in ARRAYS}
    if folder is None:
        yield {name: np.zeros(shape) for name, shape in shapes.items()}
        return
    final, partial = Path(folder), _partial(Path(folder))
    if final.exists() or not final.parent.is_dir():
        raise InputError(f"kernels go to a new folder in an existing one; got {final}")
    with explained_writes("kernels", final.parent):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        yield {
            name: new_array_file(partial / f"{name}.npy", np.float64, shape)
            for name, shape in shapes.items()
        }
        os.replace(partial, final)  # their manifest waited for them to be on disk
        sync(final.parent)
