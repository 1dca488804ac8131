"""`Session`, what one day of recording gave, and `Recordings`, several of them in order."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Shaped

from pocketcortex.core.errors import InputError, MissingRepeatsError
from pocketcortex.core.stimuli import Indices, StimulusSet, positions
from pocketcortex.core.writing import explained_writes, whole_file

SESSION_FORMAT = "pocketcortex-session"
SESSION_VERSION = 1
ROLES = ("train", "validation", "test")


@dataclass(frozen=True, eq=False, repr=False)
class Session:
    """Responses of simultaneously recorded neurons to a list of stimuli.

    The responses are copied, and cannot be changed afterwards.

    Parameters
    ----------
    id
        Name of the session.
    responses
        `(n_stimuli, n_repeats, n_neurons)` float64, spike counts or any other measure of
        response (negative values are fine), NaN where a repeat was not shown.
    stimuli
        The images, in the order of the responses; None if they are not at hand.
    has_repeats
        False: `responses` hold one "repeat", the average over an unknown number of repeats.
    animal, role
        Who was recorded, and what the session is for ("train", "validation", "test").
    bin_ms
        Width of the time bin in which responses were counted, in milliseconds.

    Raises
    ------
    InputError
        If the responses are not numbers with three axes, hold an infinity, or are empty; if the
        stimuli are no `StimulusSet`; if the numbers of images and of responses differ; if
        averages come with several repeats; if the role is none of the three; if `bin_ms` is no
        positive number.
    """

    id: str
    responses: Shaped[np.ndarray, "..."]  # given in any numeric type; kept as float64, 3 axes
    stimuli: StimulusSet | None = None
    has_repeats: bool = True
    animal: str | None = None
    role: str | None = None
    bin_ms: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "responses", _checked(self.id, self.responses))
        if not self.has_repeats and self.n_repeats != 1:
            raise InputError(
                f"session {self.id}: has_repeats=False says that responses are averages, but "
                f"they hold {self.n_repeats} repeats; give one, or has_repeats=True"
            )
        if self.stimuli is not None:
            _check_images(self.id, self.stimuli, self.responses)
        if self.role is not None and self.role not in ROLES:
            raise InputError(
                f"session {self.id}: role must be one of {', '.join(ROLES)}, or None; "
                f"got {self.role!r}"
            )
        if self.bin_ms is not None and not 0 < self.bin_ms < np.inf:
            raise InputError(
                f"session {self.id}: bin_ms must be a positive number of milliseconds; "
                f"got {self.bin_ms}"
            )
        if self.bin_ms is not None:
            object.__setattr__(self, "bin_ms", float(self.bin_ms))

    def __repr__(self) -> str:
        repeats = f"{self.n_repeats} repeats" if self.has_repeats else "repeat averages"
        images = "with images" if self.stimuli is not None else "no images"
        return (
            f"Session({self.id!r}: {self.n_neurons} neurons, {self.n_stimuli} stimuli, "
            f"{repeats}, {images})"
        )

    @property
    def n_stimuli(self) -> int:
        """Number of stimuli."""
        return int(self.responses.shape[0])

    @property
    def n_repeats(self) -> int:
        """Largest number of repeats of a stimulus; 1 for repeat averages."""
        return int(self.responses.shape[1])

    @property
    def n_neurons(self) -> int:
        """Number of neurons."""
        return int(self.responses.shape[2])

    @property
    def mean_responses(self) -> Float64[np.ndarray, "n_stimuli n_neurons"]:
        """Mean over the repeats shown, `(n_stimuli, n_neurons)`; NaN where none was."""
        shown = ~np.isnan(self.responses)
        total = np.where(shown, self.responses, 0.0).sum(axis=1)  # (n_stimuli, n_neurons)
        n_shown = shown.sum(axis=1)
        mean = np.full(total.shape, np.nan)
        np.divide(total, n_shown, out=mean, where=n_shown > 0)
        return mean

    def require_repeats(self) -> Float64[np.ndarray, "n_stimuli n_repeats n_neurons"]:
        """Return the responses to single repeats.

        Raises
        ------
        MissingRepeatsError
            If the session holds repeat averages only, or no stimulus was shown twice.
        """
        if not self.has_repeats:
            raise MissingRepeatsError(
                f"session {self.id} holds only averages over repeats, so its noise is unknown; "
                "use a metric without noise correction, or give the raw responses"
            )
        if not ((~np.isnan(self.responses)).sum(axis=1) >= 2).any():
            raise MissingRepeatsError(
                f"session {self.id} shows every stimulus at most once, so its noise is unknown; "
                "use a metric without noise correction, or a session with repeats"
            )
        return self.responses

    def require_stimuli(self) -> StimulusSet:
        """Return the images.

        Raises
        ------
        InputError
            If the session has none.
        """
        if self.stimuli is None:
            raise InputError(
                f"session {self.id} has no images; give its images, or choose another session"
            )
        return self.stimuli

    def take(self, indices: Indices) -> "Session":
        """Return the session with some of its stimuli, in the order given.

        Parameters
        ----------
        indices
            Slice, list of whole numbers, 1-D integer array, or boolean mask over stimuli.

        Raises
        ------
        InputError
            If an index is out of range or nothing is left.
        """
        chosen = positions(indices, self.n_stimuli)
        stimuli = None if self.stimuli is None else self.stimuli.take(chosen)
        return replace(self, responses=self.responses[chosen], stimuli=stimuli)

    def select_neurons(self, neurons: Sequence[int]) -> "Session":
        """Return the session with some of its neurons, in the order given.

        Raises
        ------
        InputError
            If an index is out of range or nothing is left.
        """
        chosen = positions(list(neurons), self.n_neurons)
        return replace(self, responses=self.responses[:, :, chosen])

    def unusable_neurons(self) -> dict[int, str]:
        """Return the neurons that no model can be scored on, each with the reason.

        They stay in the session; scores report them as NaN.

        Returns
        -------
        dict[int, str]
            Index of the neuron to "all responses are NaN" or "constant response".
        """
        silent = np.isnan(self.responses).all(axis=(0, 1))  # (n_neurons,)
        means = self.mean_responses[:, None, :]
        constant = (_is_constant(self.responses) | _is_constant(means)) & ~silent
        reasons = {int(k): "all responses are NaN" for k in np.flatnonzero(silent)}
        reasons |= {int(k): "constant response" for k in np.flatnonzero(constant)}
        return dict(sorted(reasons.items()))

    def save(self, path: str | Path) -> None:
        """Write the session, images included, to one compressed `.npz` file without pickles.

        The file appears whole or not at all.

        Parameters
        ----------
        path
            Where to; the name must end in `.npz`. An existing file is replaced.

        Raises
        ------
        InputError
            If the name does not end in `.npz`, its folder does not exist, or an image cannot be
            decoded.
        PocketcortexError
            If the disk is full, read-only or at fault; an older file stays as it was.
        """
        target = Path(path)
        if target.suffix != ".npz":
            raise InputError(
                f"a session is saved as an .npz file; got {target.name!r}, "
                f"name it {target.name + '.npz'!r}"
            )
        if not target.parent.is_dir():
            raise InputError(f"folder {target.parent} does not exist; make it first")
        arrays: dict[str, Any] = {
            "responses": self.responses,
            "metadata": np.array(json.dumps(self._metadata())),
        }
        if self.stimuli is not None:
            arrays |= {"images": self.stimuli.images(), "names": np.array(self.stimuli.names)}
        with explained_writes(f"session {self.id}", target.parent), whole_file(target) as file:
            np.savez_compressed(file, **arrays)

    def _metadata(self) -> dict[str, Any]:
        return {
            "format": SESSION_FORMAT,
            "version": SESSION_VERSION,
            "id": self.id,
            "has_repeats": bool(self.has_repeats),
            "animal": self.animal,
            "role": self.role,
            "bin_ms": self.bin_ms,
        }


class Recordings(Mapping[str, Session]):
    """Sessions by id, in a fixed order.

    Parameters
    ----------
    sessions
        The sessions, in the order to keep.

    Raises
    ------
    InputError
        If two sessions have the same id.
    """

    def __init__(self, sessions: Iterable[Session]) -> None:
        ordered = tuple(sessions)
        self._sessions = {session.id: session for session in ordered}
        if len(self._sessions) != len(ordered):
            ids = [session.id for session in ordered]
            raise InputError(f"two sessions have the same id among {ids}; rename one")

    def __getitem__(self, session_id: str) -> Session:
        return self._sessions[session_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sessions)

    def __len__(self) -> int:
        return len(self._sessions)

    def __repr__(self) -> str:
        n_neurons = sum(session.n_neurons for session in self.values())
        return f"Recordings({len(self)} sessions, {n_neurons} neurons: {', '.join(self)})"

    def select(self, session_ids: Iterable[str]) -> "Recordings":
        """Return some of the sessions, in the order given.

        Raises
        ------
        InputError
            If an id is unknown or given twice.
        """
        wanted = list(session_ids)
        unknown = [name for name in wanted if name not in self]
        if unknown:
            raise InputError(f"no session {', '.join(unknown)}; there are {', '.join(self)}")
        return Recordings(self[name] for name in wanted)

    def summary(self) -> list[dict[str, Any]]:
        """Return one row a session, without decoding any image.

        Returns
        -------
        list[dict[str, Any]]
            Rows with session, animal, role, n_neurons, n_stimuli, n_repeats, has_images,
            has_repeats.
        """
        return [
            {
                "session": session.id,
                "animal": session.animal,
                "role": session.role,
                "n_neurons": session.n_neurons,
                "n_stimuli": session.n_stimuli,
                "n_repeats": session.n_repeats,
                "has_images": session.stimuli is not None,
                "has_repeats": session.has_repeats,
            }
            for session in self.values()
        ]


def _checked(
    session_id: str, responses: object
) -> Float64[np.ndarray, "n_stimuli n_repeats n_neurons"]:
    given = np.asarray(responses)
    if given.dtype.kind not in "fiu":
        raise InputError(
            f"session {session_id}: responses must be numbers; got {given.dtype}; "
            "convert them first, for example by .astype(float)"
        )
    if given.ndim != 3 or 0 in given.shape:
        averages = (
            "; give averages over repeats as (n_stimuli, 1, n_neurons), with has_repeats=False"
            if given.ndim == 2
            else ""
        )
        raise InputError(
            f"session {session_id}: responses must be (n_stimuli, n_repeats, n_neurons), none of "
            f"them 0; got shape {given.shape}{averages}"
        )
    frozen = np.array(given, dtype=np.float64)
    n_infinite = int(np.isinf(frozen).sum())
    if n_infinite:
        raise InputError(
            f"session {session_id}: {n_infinite} responses are infinite; "
            "mend them, or put NaN where a repeat was not shown"
        )
    frozen.setflags(write=False)
    return frozen


def _check_images(
    session_id: str,
    stimuli: object,
    responses: Float64[np.ndarray, "n_stimuli n_repeats n_neurons"],
) -> None:
    if not isinstance(stimuli, StimulusSet):
        raise InputError(
            f"session {session_id}: stimuli must be a StimulusSet; got {type(stimuli).__name__}; "
            "make one by StimulusSet.from_folder or StimulusSet.from_array"
        )
    n_images, shape = len(stimuli), responses.shape
    if n_images == shape[0]:
        return
    axes = [k for k in (1, 2) if shape[k] == n_images]
    advice = (
        f"axis {axes[0]} of the responses, of shape {shape}, has as many: transpose them to "
        "(n_stimuli, n_repeats, n_neurons)"
        if axes
        else "give one image for each row of responses, in order"
    )
    raise InputError(
        f"session {session_id}: {n_images} images but responses to {shape[0]} stimuli; {advice}"
    )


def _is_constant(
    responses: Float64[np.ndarray, "n_stimuli n_repeats n_neurons"],
) -> Bool[np.ndarray, " n_neurons"]:
    missing = np.isnan(responses)
    lowest = np.where(missing, np.inf, responses).min(axis=(0, 1))
    highest = np.where(missing, -np.inf, responses).max(axis=(0, 1))
    return np.asarray(lowest == highest)
