"""What each model prefers, as `pocketcortex dissect explain` found it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pocketcortex.core import InputError, in_brief

TABLE, DOTS = "families.csv", "dots.csv"
_STAGE = "explain"

DOT_DETECTOR = "dot detector"


@dataclass(frozen=True)
class Families:
    """The family of each model's preferred stimuli.

    Attributes
    ----------
    path
        The table; None where there is none.
    of
        Family by the model's name, ``none`` where nothing drawn drives it.
    dot_detectors
        Names of models that the search for dot detectors found.
    by
        What found them, in words.
    """

    path: Path | None = None
    of: Mapping[str, str] = field(default_factory=dict)
    dot_detectors: frozenset[str] = frozenset()
    by: str = "dissect explain"

    @classmethod
    def read(cls, explained: Path) -> "Families":
        """Return what a folder of ``dissect explain`` says of its models.

        Parameters
        ----------
        explained
            The folder given to ``dissect explain`` as ``--out``, or its folder ``explain``.

        Raises
        ------
        InputError
            If it holds no such table, or the table cannot be read.
        """
        if (found := _folder(explained)) is None:
            raise InputError(
                f"{explained} holds no {TABLE} that names models; "
                "give a folder that pocketcortex dissect explain wrote"
            )
        return cls._of(found)

    @classmethod
    def beside(cls, models: Path) -> "Families":
        """Return what lies beside models, nothing where nothing does."""
        found = _folder(models) if models.is_dir() else None
        return cls() if found is None else cls._of(found)

    @classmethod
    def _of(cls, folder: Path) -> "Families":
        import pandas as pd

        path = folder / TABLE
        try:
            table = pd.read_csv(path, keep_default_na=False)
            of = dict(zip(table["model"].astype(str), table["family"].astype(str), strict=True))
            dots: frozenset[str] = frozenset()
            if (folder / DOTS).is_file():
                found = pd.read_csv(folder / DOTS)
                dots = frozenset(found["model"].astype(str)[found["is_detector"].astype(bool)])
        except (OSError, LookupError, ValueError) as error:
            raise InputError(
                f"the tables of {folder} cannot be read ({in_brief(error)})"
            ) from error
        return cls(path, of, dots)


def _folder(path: Path) -> Path | None:
    """Return the folder that holds the table, the path itself or its stage."""
    return next((one for one in (path, path / _STAGE) if (one / TABLE).is_file()), None)
