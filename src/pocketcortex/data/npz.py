"""Reader of the session files that `Session.save` writes."""

from pathlib import Path
from typing import Any

from pocketcortex.core import InputError, Session, StimulusSet, in_brief, parse_json, read_arrays
from pocketcortex.core.recordings import SESSION_FORMAT, SESSION_VERSION

_EXPECTED_TYPES: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "has_repeats": (bool,),
    "animal": (str, type(None)),
    "role": (str, type(None)),
    "bin_ms": (float, type(None)),
}


def read_npz(path: str | Path) -> Session:
    """Return the session that `Session.save` wrote to a file.

    Parameters
    ----------
    path
        The `.npz` file. Nothing in it is ever unpickled.

    Raises
    ------
    InputError
        If the file is missing, truncated, holds pickled objects, lacks an array, was written by
        something else or by a newer version, or holds a session that contradicts itself.
    """
    arrays = read_arrays(path)
    missing = [name for name in ("responses", "metadata") if name not in arrays]
    if "images" in arrays and "names" not in arrays:
        missing.append("names")
    if missing:
        raise InputError(
            f"{path} holds no array {', '.join(missing)}, but {', '.join(arrays) or 'nothing'}; "
            "write it with Session.save"
        )
    fields = _parse_metadata(path, str(arrays["metadata"]))
    stimuli = None
    if "images" in arrays:
        names = [str(name) for name in arrays["names"].ravel()]
        stimuli = StimulusSet.from_array(arrays["images"], names)
    return Session(responses=arrays["responses"], stimuli=stimuli, **fields)


def _parse_metadata(path: str | Path, text: str) -> dict[str, Any]:
    try:
        metadata = parse_json(text)
    except ValueError as error:
        raise InputError(
            f"{path}: its metadata are not JSON ({in_brief(error)}); write it with Session.save"
        ) from error
    if not isinstance(metadata, dict) or metadata.get("format") != SESSION_FORMAT:
        raise InputError(f"{path} is not a session file; write it with Session.save")
    if metadata.get("version") != SESSION_VERSION:
        raise InputError(
            f"{path} has session format {metadata.get('version')!r}, but this version reads "
            f"{SESSION_VERSION}; update pocketcortex or save the session again"
        )
    fields = {name: metadata.get(name) for name in _EXPECTED_TYPES}
    wrong = [name for name, types in _EXPECTED_TYPES.items() if not isinstance(fields[name], types)]
    if wrong:
        raise InputError(
            f"{path}: metadata {wrong[0]} is {fields[wrong[0]]!r}, of the wrong type; "
            "write it with Session.save"
        )
    return fields
