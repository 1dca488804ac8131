"""What a run works on: sessions, the split of the test session, and images to distil with."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote

import numpy as np
from jaxtyping import Int

from pocketcortex.core import InputError, Recordings, Session
from pocketcortex.data import insilico_recordings, natural_stimuli, read_recordings
from pocketcortex.pipeline.config import RecordingsConfig

MIN_HALF = 10


@dataclass(frozen=True)
class TestSession:
    """A session whose neurons are predicted, split in two.

    Attributes
    ----------
    fit, held_out
        First and second half of its images, in the order of presentation; images of any held-out
        half are left out of the first.
    usable
        Neurons that can be modelled.
    unusable
        Why the others cannot.
    """

    __test__ = False  # not a test of ours, whatever its name

    fit: Session
    held_out: Session
    usable: Int[np.ndarray, " n_usable"]
    unusable: dict[int, str]

    @property
    def name(self) -> str:
        """The session's id as (part of) a file's name, whatever signs it has."""
        return quote(self.fit.id, safe=" ").replace(".", "%2E")


@dataclass(frozen=True)
class RunInputs:
    """The sessions of a run, already split; nothing here has seen a held-out half.

    Attributes
    ----------
    train, validation
        Sessions that train the ensemble and stop its training. Synthesized images and images that
        are also in a held-out half are left out.
    tests
        Sessions to predict, one or more.
    """

    train: tuple[Session, ...]
    validation: Session
    tests: tuple[TestSession, ...]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all images and responses."""
        halves = [half for test in self.tests for half in (test.fit, test.held_out)]
        return _fingerprint((*self.train, self.validation, *halves))

    @cached_property
    def teacher_fingerprint(self) -> str:
        """Hash of what the ensemble is trained on."""
        return _fingerprint((*self.train, self.validation))

    @property
    def n_usable(self) -> int:
        """Neurons to model, over all test sessions."""
        return sum(len(test.usable) for test in self.tests)


def prepare_inputs(config: RecordingsConfig, seed: int) -> RunInputs:
    """Read or simulate the sessions of a run and split the test sessions.

    Raises
    ------
    InputError
        If a session is missing, has no images, images of another size than the others, or too few
        of them; or if no neuron of a test session can be modelled.
    """
    recordings = _open(config, seed)
    named = config.test or (None,)
    tests = [_chosen(recordings, name, "test") for name in named]
    validation = _chosen(recordings, config.validation, "validation")
    names = config.train or tuple(k for k, s in recordings.items() if s.role == "train")
    train = list(recordings.select(names).values())
    train = [s for s in train if config.train or s.stimuli is not None]
    if not train:
        raise InputError(
            "no training session with images; name some in recordings.train, or save them with "
            'role="train"'
        )
    taken = [s.id for s in (*train, validation, *tests)]
    if len(set(taken)) < len(taken):
        raise InputError(
            f"test ({', '.join(s.id for s in tests)}) and validation ({validation.id}) must not be "
            "among each other or the training sessions"
        )
    unknown = sorted(set(config.n_neurons) - {test.id for test in tests})
    if unknown:
        raise InputError(
            f"recordings.n_neurons names {', '.join(unknown)}; the test sessions are "
            f"{', '.join(test.id for test in tests)}"
        )
    wanted = tests[0].require_stimuli().image_size
    for session in (*train, validation, *tests):
        size = session.require_stimuli().image_size
        if size != wanted:
            raise InputError(
                f"session {session.id} has images of {size}, {tests[0].id} of {wanted}"
            )
    for test in tests:
        if test.n_stimuli // 2 < MIN_HALF:
            raise InputError(
                f"session {test.id} has {test.n_stimuli} images; too few to halve into fitting "
                f"and held-out images: a test session needs {2 * MIN_HALF} or more"
            )
    hidden = {d for test in tests for d in _second_half(test).require_stimuli().digests}
    return RunInputs(
        tuple(_trainable(s, hidden, config.skip_synthesized) for s in train),
        _trainable(validation, hidden, config.skip_synthesized),
        tuple(_split(test, hidden, config.n_neurons.get(test.id)) for test in tests),
    )


def _open(config: RecordingsConfig, seed: int) -> Recordings:
    if config.insilico is not None:
        simulated = config.insilico
        return insilico_recordings(
            seed,
            n_sessions=simulated.n_sessions,
            n_neurons=simulated.n_neurons,
            n_stimuli=simulated.n_stimuli,
            image_size=simulated.image_size,
            n_repeats=simulated.n_repeats,
            area=simulated.area,
        )
    return read_recordings(config.path or "")


def _chosen(recordings: Recordings, name: str | None, role: str) -> Session:
    if name is not None:
        return recordings.select([name])[name]
    fitting = [s for s in recordings.values() if s.role == role and s.stimuli is not None]
    if len(fitting) != 1:
        raise InputError(
            f"{len(fitting)} sessions with images have the role {role!r}; name one in "
            f"recordings.{role}, or save one with that role. A run takes different sessions to "
            f"train, validate and test, and there are {len(recordings)}; a single one can be cut "
            "in three by its images"
        )
    return fitting[0]


def _second_half(session: Session) -> Session:
    return session.take(np.arange(session.n_stimuli // 2, session.n_stimuli))


def _split(test: Session, hidden: set[str], most: int | None) -> TestSession:
    """Return both halves of a test session, no hidden image in the first."""
    held_out = _second_half(test)
    fit = _without(test.take(np.arange(test.n_stimuli // 2)), hidden)
    unusable = _unusable(held_out) | _unusable(fit) | test.unusable_neurons()
    usable = np.array([k for k in range(test.n_neurons) if k not in unusable], dtype=np.int64)
    if not len(usable):
        raise InputError(f"no neuron of session {test.id} can be modelled: {unusable}")
    return TestSession(fit, held_out, usable[:most], unusable)


def _fingerprint(sessions: Sequence[Session]) -> str:
    digest = hashlib.sha256()
    for session in sessions:
        digest.update(session.id.encode())
        digest.update(session.require_stimuli().fingerprint.encode())
        digest.update(np.ascontiguousarray(session.responses).tobytes())
    return digest.hexdigest()


def _trainable(session: Session, hidden: set[str], skip_synthesized: bool) -> Session:
    """Drop hidden images, synthesized ones if asked to, and neurons that cannot be fitted."""
    if skip_synthesized:
        session = session.take(natural_stimuli(session.id, session.n_stimuli))
    session = _without(session, hidden)
    bad = _unusable(session)
    kept = [k for k in range(session.n_neurons) if k not in bad]
    if not kept:
        raise InputError(f"no neuron of session {session.id} can be used: {bad}")
    return session.select_neurons(kept)


def _unusable(session: Session) -> dict[int, str]:
    """Return the neurons of a session that no regression can be fitted to, with the reason."""
    missing = np.isnan(session.mean_responses).sum(axis=0)
    reasons = {int(k): f"no response to {missing[k]} images" for k in np.flatnonzero(missing)}
    return reasons | session.unusable_neurons()


def _without(session: Session, hidden: set[str]) -> Session:
    digests = session.require_stimuli().digests
    kept = [k for k, digest in enumerate(digests) if digest not in hidden]
    if len(kept) < MIN_HALF:
        raise InputError(
            f"session {session.id} has {len(kept)} images that are not among the held-out ones; "
            f"at least {MIN_HALF} are needed"
        )
    return session.take(kept)
