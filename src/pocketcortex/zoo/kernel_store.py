"""A folder of kernels, computed once for each network and set of images."""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from pocketcortex.core import InputError, StimulusSet, explained_writes, held
from pocketcortex.zoo.kernels import NetworkKernels
from pocketcortex.zoo.network import Network
from pocketcortex.zoo.stream_plan import StreamPlan
from pocketcortex.zoo.streaming import stream_kernels

CODE_VERSION = 2
"""Raise when the numbers in a stored file would come out differently."""


class KernelStore:
    """Kernels on disk, keyed by the network's weights and preprocessing, layers, code and images.

    A network's folder appears under its name only when all of it is there, so a sweep over many
    networks that was killed goes on with the first that is missing; one whose files are not as
    they were written is computed again. Several processes may share a store: one that needs kernels
    which another is computing waits for them.

    Parameters
    ----------
    folder
        Where the networks' folders go; made if missing. One takes 16 bytes a layer and pair of
        stimuli (ResNet50, 119 stimuli: 36 MB).
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def path(
        self, network: Network, stimuli: StimulusSet, layers: Sequence[str] | None = None
    ) -> Path:
        """Return the folder that holds, or will hold, these kernels."""
        wanted = None if layers is None else sorted(set(layers))
        key = json.dumps([CODE_VERSION, network.key, stimuli.fingerprint, wanted])
        return self.folder / hashlib.sha256(key.encode()).hexdigest()[:32]

    def stored(
        self, network: Network, stimuli: StimulusSet, layers: Sequence[str] | None = None
    ) -> NetworkKernels | None:
        """Return the kernels if the store has them whole, mapped into memory read-only."""
        try:
            return NetworkKernels.load(self.path(network, stimuli, layers))
        except InputError:  # none, unfinished or altered
            return None

    def kernels(
        self,
        network: Network,
        stimuli: StimulusSet,
        *,
        layers: Sequence[str] | None = None,
        memory_gib: float = 2.0,
        device: str = "cpu",
        announce: Callable[[StreamPlan], None] = lambda plan: None,
        advance: Callable[[int], None] = lambda n: None,
    ) -> NetworkKernels:
        """Return the kernels, computing them by :func:`stream_kernels` if the store has none.

        Parameters are those of :func:`stream_kernels`; how much memory there is and on which device
        it runs do not count as differences.

        Returns
        -------
        NetworkKernels
            Mapped into memory read-only.

        Raises
        ------
        InputError
            As :func:`stream_kernels`, and if the store is no folder that can be written to.
        PocketcortexError
            If the disk is full, read-only or at fault.
        """
        found = self.stored(network, stimuli, layers)
        if found is not None:
            return found
        path = self.path(network, stimuli, layers)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to the store {self.folder}: {error}") from error
        with (
            explained_writes("kernels", self.folder),
            held(path.with_name(f".{path.name}.lock")),
        ):
            found = self.stored(network, stimuli, layers)  # of another process, meanwhile
            if found is not None:
                return found
            shutil.rmtree(path, ignore_errors=True)
            return stream_kernels(
                network, stimuli, layers=layers, memory_gib=memory_gib, device=device,
                folder=path, announce=announce, advance=advance,
            )  # fmt: skip
