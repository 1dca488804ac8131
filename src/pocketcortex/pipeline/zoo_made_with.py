"""Which recordings our own models were made with, so that nobody takes their fit for a test."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pocketcortex.core import BrainArea, parse_json
from pocketcortex.data.v4 import V4_ANIMALS, V4_ROLES
from pocketcortex.pipeline.opening import config_of
from pocketcortex.pipeline.zoo_own import is_ensemble

_COMPACT = re.compile(r"compact_model_(\d{6})_neuron\d+")
_MODELLED = ("190923", "201025", "210225", "211022")
"""Sessions of the release whose neurons its shared models answer for."""
_TRAINED_ON = ("train", "validation")
_ALSO_TRAINED_ON = "210325"
"""A test session by its role, which the release's ensemble was trained on."""


@dataclass(frozen=True)
class MadeWith:
    """Recordings that models have seen the responses of.

    Attributes
    ----------
    sessions
        Ids of sessions.
    roles
        Roles of sessions of which all were used.
    release
        Whether the published ensemble had a part in them: its training sessions are seen too.
    """

    sessions: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    release: bool = False

    def reason(self, area: BrainArea) -> str:
        """Return how the models have seen an area's responses; "" if they have not.

        An area without single neurons, such as a published matrix, is never among them.
        """
        session = area.session
        if session is None:
            return ""
        if session.id in self.sessions:
            return f"made with responses of session {session.id}"
        if session.role in self.roles:
            return f"made with sessions of role {session.role}, which {session.id} has"
        if self.release and _trained_release(session.id):
            return f"distilled from an ensemble trained on session {session.id}"
        return ""

    def as_list(self) -> list[str]:
        """Return all of it as words, for keys of caches."""
        return sorted(self.sessions) + sorted(f"role {role}" for role in self.roles) + (
            ["release"] if self.release else []
        )  # fmt: skip


def made_with(files: Sequence[Path]) -> MadeWith | None:
    """Return what a row of our own models was made with, None where that cannot be told.

    Told from the names of published files, and from the configuration of the run in whose folder
    models lie. A run's ensemble has seen its training and validation sessions; its compact models
    also the first halves of its test sessions.

    Parameters
    ----------
    files
        As :func:`pocketcortex.pipeline.zoo_own.own_files` finds them.
    """
    names = [_COMPACT.match(file.name) for file in files]
    compact = [match.group(1) for match in names if match is not None]
    shared = any(file.name.startswith("shared") and file.suffix == ".keras" for file in files)
    if compact or shared:
        return MadeWith(frozenset([*compact, *(_MODELLED if shared else ())]), release=True)
    run = next((p for file in files for p in (file, *file.absolute().parents) if _is_run(p)), None)
    if run is None:
        return None
    config = config_of(run)
    recordings = config.recordings
    named = {
        "train": recordings.train,
        "validation": () if recordings.validation is None else (recordings.validation,),
        "test": recordings.test,
    }
    seen = _TRAINED_ON if is_ensemble(files) else tuple(named)
    return MadeWith(
        frozenset(name for role in seen for name in named[role]),
        frozenset(role for role in seen if not named[role]),
        release=not is_ensemble(files)
        and (config.students.start is not None or config.teacher.prior is not None),
    )


def _is_run(folder: Path) -> bool:
    try:
        return "recordings" in parse_json((folder / "config.json").read_text())
    except (OSError, ValueError, TypeError):
        return False


def _trained_release(session_id: str) -> bool:
    """Return whether the release's ensemble was trained, or stopped, by a session."""
    known = re.fullmatch(r"\d{6}", session_id) and session_id[:4] in V4_ANIMALS
    role = V4_ROLES.get(session_id, "train")
    return bool(known) and (role in _TRAINED_ON or session_id == _ALSO_TRAINED_ON)
