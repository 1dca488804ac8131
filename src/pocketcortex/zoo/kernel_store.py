"""A folder of kernels, computed once for each network and set of images."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from pocketcortex.core import InputError, StimulusSet
from pocketcortex.zoo.kernels import NetworkKernels
from pocketcortex.zoo.network import Network
from pocketcortex.zoo.stream_plan import StreamPlan
from pocketcortex.zoo.streaming import stream_kernels

CODE_VERSION = 1
"""Raise when the numbers in a stored file would come out differently."""


class KernelStore:
    """Kernels on disk, keyed by the network's weights and preprocessing, layers, code and images.

    A network's folder appears under its name only when all of it is there, so a sweep over many
    networks that was killed goes on with the first that is missing. One process at a time may fill
    a store.

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
        """Return the kernels if the store has them, mapped into memory read-only."""
        path = self.path(network, stimuli, layers)
        return NetworkKernels.load(path) if path.is_dir() else None

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
            As :func:`stream_kernels`, if the store cannot be written, or if a file of it was
            altered.
        """
        found = self.stored(network, stimuli, layers)
        if found is not None:
            return found
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to the store {self.folder}: {error}") from error
        return stream_kernels(
            network, stimuli, layers=layers, memory_gib=memory_gib, device=device,
            folder=self.path(network, stimuli, layers), announce=announce, advance=advance,
        )  # fmt: skip
