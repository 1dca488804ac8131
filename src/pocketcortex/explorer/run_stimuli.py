"""The stimuli that a run made for its compact models, read where they lie."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from pocketcortex.core import InputError, in_brief, map_array, read_array
from pocketcortex.core.runs import read_json_object


@dataclass(frozen=True, eq=False)
class RunStimuli:
    """A run's stage ``stimuli``.

    Attributes
    ----------
    images
        Levels 0..255, on disk.
    roles
        The role of each, a `metrics.StimulusRoles`.
    responses
        Of every model to every image.
    name
        What to call the images that were sought among: ``natural`` or ``dead leaves``.
    """

    images: UInt8[np.ndarray, "n_stimuli 3 h w"]
    roles: Any
    responses: Float[np.ndarray, "n_stimuli n_models"]
    name: str = "natural"

    @classmethod
    def of(cls, run: Path) -> "RunStimuli | None":
        """Return the stimuli of a run folder, None if it has none.

        Raises
        ------
        InputError
            If they are damaged.
        """
        folder = run / "stimuli"
        if not (folder / "roles.parquet").is_file():
            return None
        import pandas as pd

        from pocketcortex.metrics import StimulusRoles  # a second to import; only runs need it

        try:
            table = pd.read_parquet(folder / "roles.parquet")
            responses = read_array(folder / "responses.npy")
            roles = StimulusRoles.from_table(table, n_targets=responses.shape[1])
            images = map_array(folder / "images.npy")
        except (OSError, LookupError, ValueError) as error:
            raise InputError(
                f"the stimuli of the run {run} cannot be read ({in_brief(error)})"
            ) from error
        if len(images) != len(roles) or len(responses) != len(roles):
            raise InputError(f"the stimuli of the run {run} differ in number from their roles")
        return cls(images, roles, responses, _name(run))

    def rows(self, role: str, target: int) -> Int[np.ndarray, " n"]:
        """Return the numbers of a role's stimuli for one model; none if there is no such role."""
        if role not in self.roles.role:
            return np.zeros(0, np.int64)
        return np.asarray(self.roles.rows(role, target))

    def first(self, role: str, target: int) -> tuple[UInt8[np.ndarray, "3 h w"], float] | None:
        """Return the first stimulus of a role for a model, and the response to it."""
        rows = self.rows(role, target)
        if not len(rows):
            return None
        return self.image(int(rows[0])), float(self.responses[rows[0], target])

    def base(self, role: str, target: int) -> tuple[UInt8[np.ndarray, "3 h w"], float] | None:
        """Return what the first stimulus of a role was made from."""
        rows = self.rows(role, target)
        base = int(self.roles.base[rows[0]]) if len(rows) else -1
        return None if base < 0 else (self.image(base), float(self.responses[base, target]))

    def image(self, number: int) -> UInt8[np.ndarray, "3 h w"]:
        """Return one image."""
        return np.array(self.images[number])

    def random(self, n: int) -> UInt8[np.ndarray, "n 3 h w"]:
        """Return the first so many random natural images; all if there are fewer."""
        rows = [k for k, role in enumerate(self.roles.role) if role == "random"][:n]
        return np.array(self.images[rows])


def _name(run: Path) -> str:
    """Return what the run's natural images are: of banks, or made by code alone."""
    path = run / "config.json"
    students = read_json_object(path).get("students") if path.is_file() else None
    if not isinstance(students, dict):
        return "natural"
    return "dead leaves" if students.get("dead_leaves") and not students.get("banks") else "natural"
