"""What each stimulus of a causal test is there for: its role, its target and its base image."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Int

from pocketcortex.core.errors import InputError, in_brief
from pocketcortex.core.sources import repeated

RANDOM = "random"
"""The role of random natural images, to which stimuli without a base image are compared."""

EVERYONE = -1
"""Target of a stimulus shown for all neurons, and base of a stimulus made from no other."""


@dataclass(frozen=True, eq=False, repr=False)
class StimulusRoles:
    """The role of every stimulus of a session, in the order of its responses.

    Parameters
    ----------
    role
        One word a stimulus. ``"random"`` are random natural images. Any other is free: usual are
        ``"natural_max"``, ``"natural_min"``, ``"synthesized_max"``, ``"synthesized_min"``,
        ``"adversarial+"``, ``"adversarial-"``, ``"perturbed"`` (a random perturbation as large as
        the adversarial one), ``"smooth-"`` and ``"smoothed_randomly"``.
    target
        Which model the stimulus was made for, 0 or more; -1 if for none in particular, as random
        images are.
    base
        Number of the stimulus it was made from, which is shown too; -1 if from none. A role's
        stimuli either all have a base, and are compared with it, or none has, and they are
        compared with the random images.
    names
        Names of the stimuli, each given once; None if they have none.
    n_targets
        Number of models; None if unknown.

    Raises
    ------
    InputError
        If there is no stimulus, the columns differ in length, a role is empty, a target or a base
        is out of range, a stimulus is its own base, or its base was made for another target or
        from another base; if only some stimuli of a role have a base, or random images have a
        base; if there are roles without bases but no random images; if a name is given twice.
    """

    role: tuple[str, ...]
    target: Int[np.ndarray, " n_stimuli"]
    base: Int[np.ndarray, " n_stimuli"]
    names: tuple[str, ...] | None = None
    n_targets: int | None = None

    def __post_init__(self) -> None:
        for name in ("target", "base"):
            frozen = np.array(getattr(self, name), dtype=np.int64)
            frozen.setflags(write=False)
            object.__setattr__(self, name, frozen)
        self._check_columns()
        self._check_bases()
        self._check_references()

    def __len__(self) -> int:
        return len(self.role)

    def __repr__(self) -> str:
        counts = ", ".join(f"{self.role.count(role)} {role}" for role in dict.fromkeys(self.role))
        return f"StimulusRoles({len(self)} stimuli: {counts})"

    @property
    def tested(self) -> tuple[str, ...]:
        """The roles that are compared with something, in order of their first stimulus."""
        others = [role for role in dict.fromkeys(self.role) if role != RANDOM]
        return tuple(r for r in others if self.is_paired(r) or RANDOM in self.role)

    def is_paired(self, role: str) -> bool:
        """Return whether stimuli of a role are compared with their own base images."""
        return bool(self.base[self.role.index(role)] != EVERYONE)

    def rows(self, role: str, target: int) -> Int[np.ndarray, " n_rows"]:
        """Return the numbers of a role's stimuli made for one target or for all."""
        own = (self.target == target) | (self.target == EVERYONE)
        return np.flatnonzero(own & (np.array(self.role) == role))

    def to_table(self) -> pd.DataFrame:
        """Return columns `role`, `target`, `base` (missing where none) and `name` if named.

        Written by pandas as parquet or CSV and read back, the table gives the same roles by
        `from_table`.
        """
        table = pd.DataFrame({"role": list(self.role)})
        for column, values in (("target", self.target), ("base", self.base)):
            table[column] = pd.Series(values, dtype="Int64").where(values != EVERYONE)
        if self.names is not None:
            table["name"] = list(self.names)
        return table

    @classmethod
    def from_table(cls, table: pd.DataFrame, *, n_targets: int | None = None) -> "StimulusRoles":
        """Return the roles of a table as `to_table` gives it, one row a stimulus in order shown.

        Parameters
        ----------
        table
            `role` is needed; `target`, `base` (numbers; missing or -1 is none) and `name` may be
            absent. Other columns are left alone, and so is the index.
        n_targets
            As for the class.

        Raises
        ------
        InputError
            If a column is missing, a role or name is missing, a number is not whole; and as for
            the class.
        """
        if "role" not in table:
            raise InputError(
                f"the table of stimuli needs a column 'role', got {', '.join(map(str, table))}"
            )
        names = _words(table, "name") if "name" in table else None
        target, base = (_whole_numbers(table, column) for column in ("target", "base"))
        return cls(_words(table, "role"), target, base, names, n_targets)

    def _check_columns(self) -> None:
        n = len(self.role)
        sizes = {"target": len(self.target), "base": len(self.base)}
        if self.names is not None:
            sizes["names"] = len(self.names)
        if n == 0 or set(sizes.values()) != {n}:
            raise InputError(
                "roles need one or more stimuli, each with a target and a base (-1 for none); got "
                f"{n} roles and {', '.join(f'{size} {name}' for name, size in sizes.items())}"
            )
        if "" in self.role:
            raise InputError(f"stimulus {self.role.index('')} has an empty role; name one")
        if self.names is not None and (twice := repeated(self.names)):
            raise InputError(
                f"{twice[1]} stimuli are named {twice[0]!r}; repeats of a stimulus are one row"
            )

    def _check_bases(self) -> None:
        limit = np.inf if self.n_targets is None else self.n_targets
        known = "-1 for all, or 0 or more" if self.n_targets is None else f"-1..{limit - 1}"
        wrong = (self.target < EVERYONE) | (self.target >= limit)
        self._refuse(wrong, lambda k: f"target {self.target[k]}; allowed is {known}")
        wrong = (self.base < EVERYONE) | (self.base >= len(self))
        self._refuse(
            wrong, lambda k: f"base {self.base[k]}, no stimulus; allowed is -1..{len(self) - 1}"
        )
        made = np.flatnonzero(self.base != EVERYONE)
        origin = np.arange(len(self))
        origin[made] = self.base[made]
        wrong = self.base == np.arange(len(self))
        self._refuse(wrong, lambda k: "itself as its base; name the image it was made from")
        self._refuse(
            (origin != np.arange(len(self))) & (self.base[origin] != EVERYONE),
            lambda k: f"base {origin[k]}, which was made from another itself; name the first",
        )
        theirs = self.target[origin]
        self._refuse(
            (theirs != self.target) & (theirs != EVERYONE),
            lambda k: f"target {self.target[k]}, but its base {origin[k]} has target {theirs[k]}",
        )

    def _check_references(self) -> None:
        based = self.base != EVERYONE
        words = np.array(self.role)
        for role in dict.fromkeys(self.role):
            own = based[words == role]
            if own.any() and (role == RANDOM or not own.all()):
                wanted = "random images have none" if role == RANDOM else "give all one, or none"
                raise InputError(
                    f"{int(own.sum())} of {len(own)} stimuli of role {role!r} have a base; {wanted}"
                )
        if RANDOM in self.role:
            return
        is_base = np.isin(np.arange(len(self)), self.base[based])
        lonely = np.flatnonzero(~based & ~is_base)
        if len(lonely):
            raise InputError(
                f"stimulus {lonely[0]} ({self.role[lonely[0]]}) has no base, so it is compared "
                f"with stimuli of role {RANDOM!r}, of which there are none; give either"
            )

    def _refuse(self, wrong: np.ndarray, say: Callable[[int], str]) -> None:
        if wrong.any():
            k = int(np.flatnonzero(wrong)[0])
            raise InputError(f"stimulus {k} ({self.role[k]}) has {say(k)}")


def _words(table: pd.DataFrame, column: str) -> tuple[str, ...]:
    """Return a column of words; a missing one is refused, numbers are read as words."""
    missing = np.flatnonzero(table[column].isna().to_numpy())
    if len(missing):
        raise InputError(
            f"row {missing[0]} of the table has no {column!r}; every stimulus needs one"
        )
    return tuple(str(word) for word in table[column])


def _whole_numbers(table: pd.DataFrame, column: str) -> Int[np.ndarray, " n_stimuli"]:
    """Return a column of whole numbers, -1 where missing or absent."""
    if column not in table:
        return np.full(len(table), EVERYONE)
    try:
        numbers = pd.to_numeric(table[column]).to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"column {column!r} of the table must hold numbers: {in_brief(error)}"
        ) from error
    whole = np.where(np.isnan(numbers), EVERYONE, numbers)
    wrong = np.flatnonzero(whole != np.round(whole))
    if len(wrong) or np.isinf(whole).any():
        raise InputError(f"column {column!r} of the table must hold whole numbers or be missing")
    return whole.astype(np.int64)
