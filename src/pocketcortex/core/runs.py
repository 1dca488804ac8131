"""Run folders: stages that finish whole or not at all, and are skipped when nothing changed."""

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from uuid import uuid4

from pocketcortex.core.errors import InputError, PocketcortexError
from pocketcortex.core.writing import explained_writes, sync, whole_file

MANIFEST = "manifest.json"
FAILED = "failed.json"
INPUTS = "inputs.json"
_REMOVALS = 3
_PACKAGES = ("pocketcortex", "torch", "numpy", "scipy", "scikit-learn")


class RunFolder:
    """A folder with one sub-folder a stage, each complete exactly when its manifest is there.

    A stage works in ``NAME.partial`` and is renamed when done and on disk, its manifest (hash of
    its inputs, hash of every file) written last. A stage is skipped when its manifest matches its
    inputs and its files still have the hashes it states; otherwise it is done again. What a killed
    stage left in ``NAME.partial`` is handed to its next try if the inputs are the same, so that
    long stages can go on from a checkpoint; one that was complete but for its name gets it. What a
    stage failed of is written down in ``NAME.partial/failed.json``.

    Parameters
    ----------
    path
        The run's folder; made if missing.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.digests: dict[str, str] = {}

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process; raise InputError if another one runs in it."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("w")
        except OSError as error:
            raise InputError(f"cannot write to the run folder {self.path}: {error}") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(
                    f"another process is running in {self.path}; wait for it or choose "
                    "another --out"
                ) from error
            yield

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON file of the run's own, whole or not at all."""
        with explained_writes(name, self.path):
            write_json(self.path / name, value)

    def stage(
        self,
        name: str,
        inputs: Mapping[str, Any],
        work: Callable[[Path], object],
        *,
        after: str = "",
    ) -> tuple[Path, bool]:
        """Do a stage unless it is done; return its folder and whether it was skipped.

        Parameters
        ----------
        name
            The stage's folder.
        inputs
            Everything its result depends on (settings, hashes of data), as JSON values.
        work
            Called with the folder to fill; it may find a checkpoint of its own there.
        after
            Names of the stages it reads, separated by spaces; their contents are inputs too.

        Raises
        ------
        PocketcortexError
            If the disk is full, read-only or at fault; what was finished before is kept.
        """
        wanted, key = self._wanted(inputs, after)
        final, partial = self.path / name, self.path / f"{name}.partial"
        digest = _verified_digest(final, key)
        if digest is not None:
            self.digests[name] = digest
            return final, True
        with explained_writes(f"stage {name}", self.path):
            digest = _verified_digest(partial, key)
            if digest is None:
                digest = _worked(partial, key, wanted, work)
            if final.exists():
                shutil.rmtree(final)
            os.replace(partial, final)
            sync(self.path)
        self.digests[name] = digest
        return final, False

    def is_done(self, name: str, inputs: Mapping[str, Any], *, after: str = "") -> bool:
        """Return whether `stage` would skip a stage, given the same arguments."""
        if any(other not in self.digests for other in after.split()):
            return False
        digest = _verified_digest(self.path / name, self._wanted(inputs, after)[1])
        if digest is not None:
            self.digests[name] = digest
        return digest is not None

    def clear_failed(self) -> list[str]:
        """Throw away what failed stages left, checkpoints too, and return the stages' names."""
        left = [path.parent for path in sorted(self.path.glob(f"*.partial/{FAILED}"))]
        for partial in left:
            _throw_away(partial)
        return [partial.name.removesuffix(".partial") for partial in left]

    def _wanted(self, inputs: Mapping[str, Any], after: str) -> tuple[dict[str, Any], str]:
        """Return what a stage is made from and the hash of it."""
        upstream = {other: self.digests[other] for other in after.split()}
        wanted = {"inputs": dict(inputs), "upstream": upstream, "version": version("pocketcortex")}
        return wanted, hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()

    def finished(self, name: str) -> dict[str, Any]:
        """Return the manifest of a finished stage, whatever it was made from; {} if there is none.

        A stage whose files are not as its manifest states counts as none.
        """
        manifest = read_json_object(self.path / name / MANIFEST)
        if not manifest or hash_files(self.path / name) != manifest.get("files"):
            return {}
        self.digests[name] = digest_of(manifest["files"])
        return manifest

    def seconds(self, name: str) -> float:
        """Return how long the last try of a finished stage took."""
        return float(read_json_object(self.path / name / MANIFEST)["seconds"])


def provenance(seed: int) -> dict[str, Any]:
    """Return what a result depends on besides its inputs: versions, hardware, commit, time."""
    packages = {}
    for package in _PACKAGES:
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            packages[package] = "not installed"
    return {
        "seed": seed,
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "packages": packages,
        "machine": {"cpu": _cpu_name(), "n_cpus": os.cpu_count(), "system": platform.platform()},
        "commit": _commit(),
    }


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON under its name only once it is wholly on disk."""
    text = json.dumps(value, indent=1) + "\n"
    with whole_file(path) as file:
        file.write(text.encode())


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text, which may come from anywhere.

    Raises
    ------
    ValueError
        If it is no JSON, or nested too deeply to be read.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_json_object(path: Path) -> dict[str, Any]:
    """Return a JSON object, or an empty one where there is none to be read."""
    try:
        value = parse_json(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _throw_away(folder: Path) -> None:
    """Take a folder away, renamed first: what still writes there reaches no successor."""
    os.replace(folder, folder.with_name(f"{folder.name}.{uuid4().hex}.gone"))
    for gone in folder.parent.glob(f"{folder.name}.*.gone"):
        for _ in range(_REMOVALS):  # a task that goes on may put a file there meanwhile
            shutil.rmtree(gone, ignore_errors=True)


def _worked(
    partial: Path, key: str, wanted: Mapping[str, Any], work: Callable[[Path], object]
) -> str:
    """Fill a stage's unfinished folder, its manifest last; return the digest of its files."""
    if read_json_object(partial / INPUTS) != {"key": key}:
        if partial.exists():
            _throw_away(partial)
        partial.mkdir(parents=True)
        write_json(partial / INPUTS, {"key": key})
    for left in (partial / MANIFEST, partial / FAILED):  # of a try that was damaged or failed
        if left.exists():
            left.unlink()
    started = time.monotonic()
    try:
        work(partial)
    except Exception as error:
        _note_failure(partial, error)
        raise
    for path in (*partial.rglob("*"), partial):
        sync(path)
    files = hash_files(partial)
    write_json(
        partial / MANIFEST,
        {"key": key, **wanted, "files": files, "seconds": time.monotonic() - started},
    )
    return digest_of(files)


def _note_failure(partial: Path, error: Exception) -> None:
    """Write down what a stage failed of, if that can be written."""
    said = (
        str(error) if isinstance(error, PocketcortexError) else f"{type(error).__name__}: {error}"
    )
    with suppress(OSError):
        date = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        write_json(partial / FAILED, {"error": said, "type": type(error).__name__, "date": date})


def _verified_digest(folder: Path, key: str) -> str | None:
    manifest = read_json_object(folder / MANIFEST)
    if manifest.get("key") != key:
        return None
    files = hash_files(folder)
    return digest_of(files) if files == manifest.get("files") else None


def hash_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, manifest apart, by its path there."""
    skipped = {folder / MANIFEST, folder / INPUTS}
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p not in skipped)
    return {path.relative_to(folder).as_posix(): hash_file(path) for path in paths}


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(files: Mapping[str, str]) -> str:
    """Return the hash of a folder's content, given `hash_files` of it."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "")


def _commit() -> str | None:
    """Return the commit of the checkout this package runs from, None if it is installed."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607
            cwd=Path(__file__).parent, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()
