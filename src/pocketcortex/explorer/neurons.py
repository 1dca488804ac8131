"""Which neurons there are to explore: their models' files, and what a run folder says of them."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pocketcortex.core import InputError, in_brief
from pocketcortex.explorer.families import TABLE, Families
from pocketcortex.explorer.zoo import is_zoo

if TYPE_CHECKING:
    from pocketcortex.models import CompactModel

SUFFIXES = (".pt", ".npy", ".h5", ".keras")
"""Files of published models."""

_WEIGHTS = "model.safetensors"
_CALLED = re.compile(r"(?:compact_model_)?(?P<session>.+)_neuron(?P<neuron>\d+)")
_METRICS = ("noise-corrected r2", "r2")


class MissingPageError(KeyError):
    """There is no page, neuron or file of that name."""


@dataclass(frozen=True)
class Neuron:
    """One neuron's compact model, not read yet.

    Attributes
    ----------
    name
        Of the model: its folder, or its file without the suffix.
    path
        Folder of a saved model, or file of a published one.
    session, neuron
        What the name says; None where it says nothing.
    """

    name: str
    path: Path
    session: str | None
    neuron: int | None

    @classmethod
    def at(cls, path: Path) -> "Neuron":
        """Return the neuron of a model's folder or file."""
        name = path.resolve().name if path.is_dir() else path.stem
        if (told := _CALLED.fullmatch(name)) is None:
            return cls(name, path, None, None)
        return cls(name, path, told["session"], int(told["neuron"]))

    @property
    def published(self) -> bool:
        """Whether it is a file of a published model, not a folder of a saved one."""
        return self.path.suffix in SUFFIXES

    @property
    def label(self) -> str:
        """What to call it on a page."""
        return self.name if self.session is None else f"{self.session} · {self.neuron}"

    def digest(self) -> str:
        """Return a hash of the model's files."""
        found = hashlib.sha256()
        paths = [self.path]
        if self.path.is_dir():
            paths = [self.path / "config.json", self.path / _WEIGHTS]
        for path in paths:
            found.update(path.read_bytes())
        return found.hexdigest()

    def load(self) -> "CompactModel":
        """Return the model, in evaluation mode.

        Raises
        ------
        InputError
            If it cannot be read.
        """
        from pocketcortex.models import CompactModel, import_compact_model

        if self.path.is_dir():
            return CompactModel.load(self.path)
        return import_compact_model(self.path)


@dataclass(frozen=True)
class Score:
    """How well a model predicts its neuron.

    Attributes
    ----------
    metric
        ``r2`` or ``noise-corrected r2``.
    value, low, high
        On held-out images, and its interval; None where unknown.
    n_stimuli
        Images behind it.
    on
        Which images those are.
    remark
        Why the score means little; empty if it does not.
    """

    metric: str
    value: float | None
    low: float | None
    high: float | None
    n_stimuli: int
    on: str = "images held out by the run"
    remark: str = ""


@dataclass(frozen=True)
class Collection:
    """The neurons of a run or of a folder of models, in order.

    Attributes
    ----------
    path
        What was asked for.
    neurons
        By name.
    run
        The run folder; None if there is none.
    targets
        Place of each neuron among the targets of the run's stimuli.
    scores
        What the run says of each; empty without one.
    families
        What each prefers, as far as tables tell.
    """

    path: Path
    neurons: Mapping[str, Neuron]
    run: Path | None = None
    targets: Mapping[str, int] = field(default_factory=dict)
    scores: Mapping[str, Score] = field(default_factory=dict)
    families: Families = field(default_factory=Families)

    @classmethod
    def open(cls, path: str | Path, explained: str | Path | None = None) -> "Collection":
        """Return the neurons of a run folder, a release, a folder of models, or one model.

        Parameters
        ----------
        path
            A run folder (with ``compact/``), the folder of a V4 release, a folder of saved or
            published models, one saved model, or a published model's file. A folder of a zoo's
            scores has no neurons.
        explained
            Folder of ``dissect explain``, for families; None for what lies beside the models.

        Raises
        ------
        InputError
            If there is no model there, the run's tables cannot be read, or `explained` holds no
            table of families.
        """
        path = Path(path)
        if is_zoo(path):
            return cls(path, {})
        run = path if (path / "compact").is_dir() else None
        release = path / "data_compact_models" / "models_torch"
        models = path / "compact" if run else release if release.is_dir() else path
        neurons = {one.name: one for one in _found(models)}
        families = Families.beside(path) if explained is None else Families.read(Path(explained))
        if run is None:
            return cls(path, neurons, families=families)
        targets, scores, own = _told_by_run(run, neurons)
        return cls(path, neurons, run, targets, scores, families if families.of else own)


def _found(path: Path) -> list[Neuron]:
    """Return the models at a path, names in natural order."""
    if path.is_file() and path.suffix in SUFFIXES:
        return [Neuron.at(path)]
    if (path / _WEIGHTS).is_file():
        return [Neuron.at(path)]
    found = [Neuron.at(one.parent) for one in path.glob(f"*/{_WEIGHTS}")]
    if path.is_dir():
        found += [Neuron.at(one) for one in path.iterdir() if one.suffix in SUFFIXES]
    if not found:
        raise InputError(
            f"{path} holds no compact model; expected a run folder, a folder of saved models, or "
            f"published models ({', '.join(SUFFIXES)})"
        )
    if len({one.name for one in found}) < len(found):
        raise InputError(f"two models in {path} have one name; keep one file of each")
    return sorted(found, key=lambda one: _natural(one.name))


def _natural(name: str) -> list[tuple[str, int]]:
    """Return a sort key that puts neuron2 before neuron10."""
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", name)]


def _told_by_run(
    run: Path, neurons: Mapping[str, Neuron]
) -> tuple[dict[str, int], dict[str, Score], Families]:
    """Return each neuron's place among the run's targets, its score and its family."""
    path = run / "scores" / "scores.parquet"
    if not path.is_file():
        return {}, {}, Families()
    import pandas as pd

    try:
        table = pd.read_parquet(path)
        table = table[table["model"] == "compact"]
        rows: Sequence[dict[str, Any]] = table.to_dict("records")  # type: ignore[assignment]
        families = _families(run)
    except (OSError, LookupError, ValueError) as error:
        raise InputError(
            f"the tables of the run {run} cannot be read ({in_brief(error)})"
        ) from error
    names = [_folder_name(str(row["session"]), int(row["neuron"])) for row in rows]
    order = [name for name in dict.fromkeys(names) if name in neurons]
    scores: dict[str, Score] = {}
    for metric in _METRICS:
        for name, row in zip(names, rows, strict=True):
            if row["metric"] == metric and name in neurons:
                bounds = (row["value"], row["ci_low"], row["ci_high"])
                value, low, high = (None if pd.isna(x) else float(x) for x in bounds)
                remark = "" if value is None else str(row["reason"])
                score = Score(metric, value, low, high, int(row["n_stimuli"]), remark=remark)
                scores.setdefault(name, score)
    if len(families) != len(order):
        families = []
    return (
        {name: k for k, name in enumerate(order)}, scores,
        Families(run / "circuits" / TABLE if families else None,
                 dict(zip(order, families, strict=False)), by="the run's circuits"),
    )  # fmt: skip


def _families(run: Path) -> list[str]:
    """Return the family of each target, in order; none without the stage that finds them."""
    path = run / "circuits" / TABLE
    if not path.is_file():
        return []
    import pandas as pd

    return [str(one) for one in pd.read_csv(path, keep_default_na=False)["family"]]


def _folder_name(session: str, neuron: int) -> str:
    """Return the folder of a neuron's model within a run's stage."""
    return f"{quote(session, safe=' ').replace('.', '%2E')}_neuron{neuron:03d}"
