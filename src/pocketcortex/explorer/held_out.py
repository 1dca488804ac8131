"""How well published models predict recordings that fitted nothing of theirs."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

from pocketcortex.core import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pocketcortex.core import Recordings, Session
    from pocketcortex.explorer.neurons import Neuron

_RESPONSES = "data_V4_responses"
_MODELS = "data_compact_models"
_N_RESAMPLES = 1000
_SEED = 0
_N_KEPT = 2

Half = tuple[UInt8[np.ndarray, "n_images 3 h w"], Float[np.ndarray, "n_images n_neurons"]]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The V4 release's images and responses, by which its own compact models are scored.

    The map from ensemble to neurons that a published model learned from was fitted on the first
    half of its session's images; r² here is the squared correlation with the mean responses to the
    second half, not corrected for noise.

    Attributes
    ----------
    path
        Folder of the release, which holds ``data_V4_responses``.

    References
    ----------
    Cowley, Stan, Pillow and Smith, Compact deep neural network models of visual cortex: the split
    of the test sessions, by their published code.
    """

    path: Path
    _halves: "OrderedDict[tuple[str, int], Half]" = field(default_factory=OrderedDict, init=False)
    _read: "list[Recordings]" = field(default_factory=list, init=False)
    _keys: dict[str, str] = field(default_factory=dict, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)

    def __post_init__(self) -> None:
        if not (self.path / _RESPONSES).is_dir():
            raise InputError(
                f"{self.path} holds no {_RESPONSES}; give the folder of the V4 release that does"
            )

    @classmethod
    def beside(cls, path: Path) -> "HeldOut | None":
        """Return the release that models at a path belong to; None if there is none."""
        for one in (path, *path.absolute().parents[:3]):
            if (one / _RESPONSES).is_dir() and (one / _MODELS).is_dir():
                return cls(one)
        return None

    def knows(self, neuron: "Neuron") -> bool:
        """Return whether a model is a published one whose session's images are at hand."""
        if not neuron.published or neuron.session is None:
            return False
        return self._images(neuron.session).is_file() and bool(self._responses(neuron.session))

    def key(self, neuron: "Neuron") -> str:
        """Return what tells these recordings of a neuron's session from others."""
        assert neuron.session is not None  # noqa: S101 - knows() said so
        if neuron.session not in self._keys:
            files = [self._images(neuron.session), *self._responses(neuron.session)]
            told = [(str(one.resolve()), one.stat().st_size, one.stat().st_mtime_ns)
                    for one in files]  # fmt: skip
            self._keys[neuron.session] = hashlib.sha256(repr(told).encode()).hexdigest()[:16]
        return self._keys[neuron.session]

    def score(
        self,
        neuron: "Neuron",
        size: int,
        respond: "Callable[[UInt8[np.ndarray, 'n 3 h w']], Float[np.ndarray, ' n']]",
    ) -> dict[str, object]:
        """Return r² on the second half of the session's images, and its 95 % interval.

        Parameters
        ----------
        neuron
            The model's neuron; its session's images are at hand.
        size
            Side of the model's images in pixels.
        respond
            Returns the model's responses to images.

        Returns
        -------
        The fields of a `Score`. The interval is a percentile bootstrap over images.

        Raises
        ------
        InputError
            If the recordings cannot be read, or hold no such neuron.
        """
        from pocketcortex.metrics import bootstrap_ci, pearson_r2

        assert neuron.session is not None  # noqa: S101 - knows() said so
        assert neuron.neuron is not None  # noqa: S101 - session and neuron come together
        images, responses = self._half(neuron.session, size)
        if neuron.neuron >= responses.shape[1]:
            raise InputError(
                f"session {neuron.session} has {responses.shape[1]} neurons; there is no neuron "
                f"{neuron.neuron} (counted from 0)"
            )
        y = responses[:, [neuron.neuron]]
        x = respond(images)[:, None]
        value = float(pearson_r2(y, x)[0])
        rng = np.random.default_rng(_SEED)
        ends = bootstrap_ci(pearson_r2, y, x, rng=rng, n_resamples=_N_RESAMPLES)
        low, high = (float(one[0]) for one in ends)
        known = [None if np.isnan(one) else one for one in (value, low, high)]
        return {
            "metric": "r2", "value": known[0], "low": known[1], "high": known[2],
            "n_stimuli": int((~np.isnan(y)).sum()), "on": "second half of the session's images",
        }  # fmt: skip

    def _half(self, session: str, size: int) -> Half:
        """Return images and mean responses of a session's second half; the latest are kept."""
        with self._lock:
            if (session, size) not in self._halves:
                found = self._session(session)
                rows = np.arange(found.n_stimuli // 2, found.n_stimuli)
                images = found.require_stimuli().read(rows)
                if images.shape[2:] != (size, size):
                    raise InputError(
                        f"session {session} has images of {images.shape[2]} x {images.shape[3]} "
                        f"pixels; the model takes {size} x {size}"
                    )
                self._halves[session, size] = (images, found.mean_responses[rows])
                while len(self._halves) > _N_KEPT:
                    self._halves.popitem(last=False)
            return self._halves[session, size]

    def _session(self, session: str) -> "Session":
        from pocketcortex.data import read_v4

        if not self._read:
            self._read.append(read_v4(self.path))
        return self._read[0][session]

    def _images(self, session: str) -> Path:
        return self.path / _RESPONSES / "images" / f"images_{session}.zip"

    def _responses(self, session: str) -> list[Path]:
        return sorted((self.path / _RESPONSES).glob(f"responses_*/responses_{session}.npy"))
