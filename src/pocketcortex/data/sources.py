"""Open whatever recordings a path names."""

from pathlib import Path

from pocketcortex.core import InputError, Recordings
from pocketcortex.data.npz import read_npz
from pocketcortex.data.remote import local_path
from pocketcortex.data.v4 import read_v4


def read_recordings(path: str | Path) -> Recordings:
    """Return the recordings at a path.

    Parameters
    ----------
    path
        A folder in the layout of the V4 release, an ``.npz`` file written by `Session.save`, or a
        folder of such files; here, or in an object store (`local_path`).

    Raises
    ------
    InputError
        If there is nothing there, it is none of these, or it cannot be read or copied.
    """
    path = local_path(path)
    if path.is_dir():
        files = sorted(path.glob("*.npz"))
        if not files and next(path.rglob("responses_*.npy"), None) is None:
            raise InputError(
                f"{path} holds no V4 responses (responses_ID.npy) and no .npz session file; "
                "Session(...).save makes one of responses and images"
            )
        return Recordings([read_npz(file) for file in files]) if files else read_v4(path)
    if not path.exists():
        raise InputError(
            f"{path} does not exist; give the folder of a V4 release, an .npz session file, or a "
            "folder of them"
        )
    if path.suffix != ".npz":
        raise InputError(
            f"{path} is no recording that can be read; "
            "give the folder of a V4 release, an .npz session file, or a folder of them; "
            "Session(...).save makes one of responses and images"
        )
    return Recordings([read_npz(path)])
