"""`Explorer`: the neurons of a collection and all that their pages tell."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pocketcortex.core import InputError
from pocketcortex.explorer import recipes
from pocketcortex.explorer.background import Background
from pocketcortex.explorer.cache import NeuronCache, default_cache
from pocketcortex.explorer.families import DOT_DETECTOR
from pocketcortex.explorer.held_out import HeldOut
from pocketcortex.explorer.natural import NaturalImages
from pocketcortex.explorer.neurons import Collection, MissingPageError, Neuron
from pocketcortex.explorer.run_stimuli import RunStimuli
from pocketcortex.explorer.study import N_STEPS, Study
from pocketcortex.explorer.zoo import is_zoo, read_zoo

if TYPE_CHECKING:
    from pocketcortex.explorer.circuit import OpenedModel
    from pocketcortex.explorer.curves import CurveSet

_N_OPENED = 32
_SEED = 0
_KINDS = ("synthesized_max", "natural_max", "natural_min", "synthesized_min")
_CHANGED = ("base", "raised", "lowered")


class Explorer:
    """Everything that the pages show, computed when first asked for and kept.

    Parameters
    ----------
    path
        A run folder, a V4 release, a folder of compact models, or one of these.
    natural
        Images that neurons are shown; None for dead leaves.
    cache
        Folder where what was computed is kept; None for the user's cache folder.
    n_steps
        Gradient steps of the synthesized images of the population page.
    zoo
        Folder of a zoo's scores, ranked, for the page of that name; None for `path` if it is one.
    explained
        Folder of ``dissect explain``, for the families of preferred stimuli; None for what lies
        beside the models.
    recordings
        Folder of the V4 release with images and responses, by which its published models are
        scored; None for the release that the models lie in.

    Raises
    ------
    InputError
        If there is no model at the path, a model cannot be read, the run's tables are damaged, or
        one of the other folders does not hold what it should.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        natural: NaturalImages | None = None,
        cache: str | Path | None = None,
        n_steps: int = N_STEPS,
        zoo: str | Path | None = None,
        explained: str | Path | None = None,
        recordings: str | Path | None = None,
    ) -> None:
        self.collection = Collection.open(path, explained)
        given = {"zoo": zoo, "explained": explained, "recordings": recordings}
        self.given = {name: str(value) for name, value in given.items() if value is not None}
        held_out = HeldOut.beside(Path(path)) if recordings is None else HeldOut(Path(recordings))
        self.zoo_folder = Path(zoo) if zoo is not None else Path(path)
        if zoo is not None and not is_zoo(self.zoo_folder):
            raise InputError(f"{zoo} holds no scores of networks; name a folder of zoo score")
        self.natural = NaturalImages() if natural is None else natural
        run = None if self.collection.run is None else RunStimuli.of(self.collection.run)
        folder = default_cache() if cache is None else Path(cache)
        shown = f"{self.natural.key} {n_steps}"
        self.studies = {
            name: Study(
                neuron, NeuronCache.of(folder, self._digest(neuron), shown),
                self.natural, run, self.collection.targets.get(name), n_steps,
                held_out if held_out is not None and held_out.knows(neuron) else None,
            )
            for name, neuron in self.collection.neurons.items()
        }  # fmt: skip
        self.background = Background(list(self.studies), self._look, self._describe_all)
        self._opened: OrderedDict[str, OpenedModel] = OrderedDict()
        self._curves: OrderedDict[str, CurveSet] = OrderedDict()
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"Explorer({str(self.collection.path)!r}, {len(self.studies)} neurons)"

    @property
    def pacer(self) -> Any:
        """Holds background work back while a request is answered."""
        return self.background.pacer

    @property
    def has_zoo(self) -> bool:
        """Whether there are scores of networks to show."""
        return is_zoo(self.zoo_folder)

    def study(self, name: str) -> Study:
        """Return what is known of one neuron.

        Raises
        ------
        MissingPageError
            If there is none of that name.
        """
        try:
            return self.studies[name]
        except KeyError as error:
            raise MissingPageError(name) from error

    def opened(self, name: str) -> "OpenedModel":
        """Return a neuron's model, ready to be taken apart; the latest are kept.

        Raises
        ------
        MissingPageError
            If there is none of that name.
        """
        from pocketcortex.explorer.circuit import OpenedModel

        study = self.study(name)
        with self._lock:
            if name not in self._opened:
                self._opened[name] = OpenedModel(study.model)
            self._opened.move_to_end(name)
            while len(self._opened) > _N_OPENED:
                self._opened.popitem(last=False)
            return self._opened[name]

    def population(self) -> dict[str, Any]:
        """Return what the population page tells: a row a neuron."""
        rows = [self._row(study) for study in self.studies.values()]
        families = {row["family"] for row in rows if row["family"]}
        if any(row["dot_detector"] for row in rows):
            families.add(DOT_DETECTOR)
        return {
            "title": self.collection.path.resolve().name,
            "n_neurons": len(rows),
            "has_zoo": self.has_zoo,
            "n_waiting": self.background.n_waiting,
            "natural": self.natural.words,
            "natural_name": self._natural_name(),
            "families": sorted(families),
            "known": self._known(rows),
            "neurons": rows,
            "failures": dict(self.background.failures),
            "python": recipes.population(self.collection, self.natural, self.given),
        }

    def neuron(self, name: str) -> dict[str, Any]:
        """Return what a neuron's page tells at once; tuning and adversarial images come later.

        Raises
        ------
        MissingPageError
            If there is none of that name.
        """
        study, opened = self.study(name), self.opened(name)
        study.described()
        self.background.first(name)
        names = list(self.studies)
        k = names.index(name)
        return self._row(study) | {
            "path": study.neuron.path.name,
            "size": opened.size,
            "weights": opened.weights,
            "words": opened.words,
            "looks": study.stored("looks"),
            "before": names[k - 1] if k else None,
            "after": names[k + 1] if k + 1 < len(names) else None,
            "python": recipes.neuron(study),
        }

    def looks(self, name: str) -> dict[str, Any]:
        """Return the neuron's pictures, or that they are still being made; it is next in turn."""
        study = self.study(name)
        self.background.first(name)
        return self._row(study) | {
            "looks": study.stored("looks"),
            "failure": self.background.failures.get(name),
        }

    def tuning(self, name: str) -> dict[str, Any]:
        """Return a neuron's tuning curves with nothing taken out."""
        curves = self.curves(name)
        return curves.told | {"curves": curves.axes(), "python": recipes.tuning(self.study(name))}

    def curves(self, name: str) -> "CurveSet":
        """Return a neuron's tuning curves and their stimuli, computed once and kept."""
        from pocketcortex.explorer.curves import CurveSet, curve_set

        study = self.study(name)
        with self._lock:
            if name in self._curves:
                return self._curves[name]
        with study.locks["tuning"]:
            told, arrays = study.kept.json("tuning"), study.kept.arrays("tuning")
            if told is None or arrays is None:
                model = study.model
                height, width = model.image_size
                field = study.field()
                centre = tuple(
                    float(np.clip(middle if at is None else at, 0, 2 * middle))
                    for at, middle in (
                        (field["x_px"], (width - 1) / 2), (field["y_px"], (height - 1) / 2)
                    )
                )  # fmt: skip
                found = curve_set(model, (centre[0], centre[1]), seed=_SEED)
                intact = found.answers(self.opened(name).responses)
                found = CurveSet(found.curves, found.told | {"intact": intact})
                study.kept.keep_arrays("tuning", found.arrays())
                study.kept.keep_json("tuning", found.told)
            else:
                found = CurveSet.from_arrays(arrays, told)
        with self._lock:
            self._curves[name] = found
            while len(self._curves) > _N_OPENED // 4:
                self._curves.popitem(last=False)
        return found

    def adversarial(self, name: str) -> dict[str, Any]:
        """Return a natural image changed to raise and to lower the response."""
        study = self.study(name)
        told = study.adversarial()
        from_run = told["source"] == "run" and study.run is not None
        return told | {
            "natural_name": study.run.name if from_run and study.run else self.natural.name,
            "pictures": _urls(name, _CHANGED),
            "python": recipes.adversarial(study),
        }

    def compare(self, first: str, second: str) -> dict[str, Any]:
        """Return two neurons beside each other: what each answers to both's images.

        Raises
        ------
        MissingPageError
            If there is none of a name.
        """
        names = (first, second)
        rows = [self._row(self.study(name)) for name in names]
        kinds = ("synthesized_max", "natural_max")
        crossed: dict[str, list[list[float]]] = {}
        for kind in kinds:
            images = [self.study(name).image(kind) for name in names]
            if all(image is not None for image in images):
                shown = np.stack([image for image in images if image is not None])
                crossed[kind] = [self.opened(name).responses(shown).tolist() for name in names]
        return {
            "neurons": rows,
            "looks": [self.study(name).stored("looks") for name in names],
            "crossed": crossed,
            "python": recipes.compare(self.study(first), self.study(second)),
        }

    def zoo(self) -> dict[str, Any] | None:
        """Return what a zoo's ranking says, None where there is none.

        Raises
        ------
        InputError
            If the scores are not ranked, or damaged.
        """
        return read_zoo(self.zoo_folder) if self.has_zoo else None

    def _row(self, study: Study) -> dict[str, Any]:
        name = study.neuron.name
        described, looks = study.stored("described") or {}, study.stored("looks")
        field = study.stored("field") or {}
        score, families = self.collection.scores.get(name), self.collection.families
        return {
            "name": name,
            "label": study.neuron.label,
            "session": study.neuron.session,
            "neuron": study.neuron.neuron,
            "parameters": described.get("parameters"),
            "n_filters": described.get("n_filters"),
            "filters": described.get("filters"),
            "image_size": described.get("image_size"),
            "r2": study.stored_score() if score is None else vars(score),
            "family": families.of.get(name),
            "dot_detector": name in families.dot_detectors,
            "natural_name": study.natural_name,
            "field": {key: field.get(key) for key in ("x_px", "y_px", "diameter_px")},
            "pictures": _urls(name, _KINDS) if looks else None,
            "responses": looks["responses"] if looks else None,
        }

    def _natural_name(self) -> str:
        """Return what tiles call images that were found, not made."""
        names = {study.natural_name for study in self.studies.values()}
        return names.pop() if len(names) == 1 else "natural"

    def _known(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return how many neurons have an r² or a family, and where those come from."""
        scored = [row["r2"] for row in rows if row["r2"] is not None]
        waiting = sum(
            study.held_out is not None
            and row["r2"] is None
            and name not in self.background.failures
            for (name, study), row in zip(self.studies.items(), rows, strict=True)
        )
        families = self.collection.families
        return {
            "r2": len(scored),
            "r2_waiting": waiting,
            "r2_on": sorted(
                {
                    str(one["metric"]).replace(" r2", ", ").removeprefix("r2") + str(one["on"])
                    for one in scored
                }
            ),
            "family": sum(row["family"] is not None for row in rows),
            "family_by": families.by if families.of else None,
        }

    def _digest(self, neuron: Neuron) -> str:
        try:
            digest = neuron.digest()
        except OSError as error:
            raise InputError(f"{neuron.path} cannot be read ({error.strerror})") from error
        if self.collection.run is None:
            return digest
        return f"{digest} {self.collection.run.resolve()}"  # its stimuli are the run's own

    def _describe_all(self, pause: Callable[[], None]) -> None:
        import pocketcortex.explorer.circuit
        import pocketcortex.explorer.curves  # noqa: F401  torch, before the first neuron is opened

        for name, study in self.studies.items():
            pause()
            try:
                study.described()
            except InputError as error:
                self.background.failures[name] = str(error)

    def _look(self, name: str, pause: Callable[[], None]) -> None:
        study = self.studies[name]
        if name not in self.background.failures:
            study.looks(pause)
            pause()
            study.field()
            pause()
            study.score(pause)


def _urls(name: str, kinds: tuple[str, ...]) -> dict[str, str]:
    return {kind: recipes.url(name, f"{kind}.png") for kind in kinds}
