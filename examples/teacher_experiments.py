"""Measure what makes the teacher better: mapping, sessions, members, kind of training images.

    python examples/teacher_experiments.py examples/v4-teacher.toml runs/v4-teacher

The folder may be that of ``pocketcortex ensemble fit`` with the same configuration: its features
and members are then used, not made again. Each experiment ends in a file of its own below
``experiments``, and one that is there is not done again. With all four there,
``teacher-experiments.json`` and ``teacher-experiments.png`` are written beside them.

The first three experiments score held-out halves of the configuration's test sessions; nothing is
chosen by them. The fourth needs responses to images of any kind, so it records simulated animals.
"""

import argparse
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.stats
import torch
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pocketcortex.core import InputError, Session, keep_freed_memory, provenance, write_json
from pocketcortex.data import InSilicoCortex, Neuron, dead_leaves
from pocketcortex.mapping import FactorizedMapping, RidgeLOO
from pocketcortex.metrics import bootstrap_ci, pearson_r2
from pocketcortex.models import EnsembleMember, EnsembleShape
from pocketcortex.pipeline import fit_ensemble, resolve_device
from pocketcortex.pipeline.config import RunConfig, TeacherConfig, read_config
from pocketcortex.pipeline.inputs import RunInputs, TestSession, prepare_inputs
from pocketcortex.pipeline.progress import progress_bar, say
from pocketcortex.pipeline.stages import Stages
from pocketcortex.plots import render_figure
from pocketcortex.stimuli import gaudy
from pocketcortex.training import (
    EnsembleTraining,
    SessionFeatures,
    fit_members,
    map_ensemble,
    member_disagreement,
    predict_responses,
)
from pocketcortex.zoo import Backbone, FeatureStore, filter_bank, load_network

N_DRAWS = 3
N_MEMBERS_OF_A_DRAW = 2
SESSION_COUNTS = (1, 2, 4, 6)
COUNTS_OF_SAME_STEPS = (1,)
MEMBER_COUNTS = (1, 2, 4, 8, 16)
MOST_SUBSETS = 200
RIDGE, FACTORIZED = "ridge", "factorized"
MEMBER, ENSEMBLE = "one member, factorized", "ensemble, factorized"
MEMBER_RIDGE, ENSEMBLE_RIDGE = "one member, ridge", "ensemble, ridge"
NORMAL, GAUDY, ACTIVE, ACTIVE_GAUDY = "normal", "gaudy", "active", "active, half gaudy"
START = "start only"
_BATCH = 64
_SCALE_FLOOR = 1e-3

Predictions = Float[np.ndarray, "n_stimuli n_neurons"]


@dataclass(frozen=True)
class ImagesSetting:
    """Sizes of the experiment on kinds of training images.

    Attributes
    ----------
    first_animal, n_animals
        Seeds of the simulated animals.
    n_start, n_added
        Training images at the start, and added of each kind.
    n_pool
        Images to choose from by disagreement.
    n_mapping, n_held_out
        Normal images that the held-out neurons are mapped on and scored on.
    n_validation, n_neurons_validation
        Normal images and neurons that choose the best epoch, by their rates: with noise, and with
        100 images and 20 neurons, the choice was erratic.
    n_neurons
        Neurons recorded for training, and again as many held-out ones.
    n_repeats
        Of every training and mapping image.
    image_size
        Pixels.
    """

    first_animal: int = 1
    n_animals: int = 5
    n_start: int = 300
    n_added: int = 300
    n_pool: int = 2000
    n_mapping: int = 400
    n_held_out: int = 600
    n_validation: int = 300
    n_neurons_validation: int = 40
    n_neurons: int = 50
    n_repeats: int = 4
    image_size: int = 64
    teacher: TeacherConfig = field(
        default_factory=lambda: TeacherConfig(
            n_members=3, width=48, bottleneck=24, n_blocks=1, n_epochs=12
        )
    )


@dataclass(frozen=True)
class Laboratory:
    """What the experiments on recordings share: a run's configuration, folder and sessions."""

    config: RunConfig
    out: Path
    device: str
    tests: tuple[str, ...]
    images: ImagesSetting = ImagesSetting()

    @property
    def seed(self) -> int:
        """The run's seed."""
        if self.config.seed is None:
            raise InputError("the experiments need a configuration with a seed")
        return self.config.seed

    @cached_property
    def inputs(self) -> RunInputs:
        """Sessions, split as in the run."""
        return prepare_inputs(self.config.recordings, self.seed)

    @cached_property
    def chosen(self) -> list[TestSession]:
        """The test sessions to report on."""
        found = {test.fit.id: test for test in self.inputs.tests}
        unknown = sorted(set(self.tests) - set(found))
        if unknown:
            raise InputError(f"{unknown} are no test sessions of the run; it has {sorted(found)}")
        return [found[name] for name in self.tests or found]

    @cached_property
    def backbone(self) -> Backbone:
        """The run's backbone."""
        settings = self.config.backbone
        return Backbone(
            load_network(settings.network), settings.layers, input_size=settings.input_size,
            device=self.device,
        )  # fmt: skip

    @cached_property
    def store(self) -> FeatureStore:
        """Features on disk, where the run keeps them."""
        return FeatureStore(self.out / "features")

    def features(self, session: Session) -> np.ndarray:
        """Return the backbone's features of a session's images."""
        return np.asarray(self.store.features(self.backbone, session.require_stimuli()))

    @cached_property
    def train(self) -> list[SessionFeatures]:
        """Training sessions."""
        return [
            SessionFeatures(s.id, self.features(s), s.mean_responses) for s in self.inputs.train
        ]

    @cached_property
    def validation(self) -> SessionFeatures:
        """The session that chooses the best epoch."""
        session = self.inputs.validation
        return SessionFeatures(session.id, self.features(session), session.mean_responses)

    @cached_property
    def members(self) -> list[EnsembleMember]:
        """The run's members, trained if the folder has none."""
        fit_ensemble(self.config, self.out, device=self.device)
        stages = Stages(self.config, self.inputs, self.backbone, self.store, self.device)
        return stages.load_members(self.out / "teacher")

    def fitted_half(self, test: TestSession) -> SessionFeatures:
        """Return the first half of a test session."""
        responses = test.fit.mean_responses[:, test.usable]
        return SessionFeatures(test.fit.id, self.features(test.fit), responses)

    @cached_property
    def member_predictions(self) -> list[Float[np.ndarray, "n_members n_stimuli n_neurons"]]:
        """Each member's predictions by factorized maps, as `predictions_by` returns them."""
        return self.predictions_by("factorized")

    def predictions_by(
        self, mapping: Literal["factorized", "ridge"]
    ) -> list[Float[np.ndarray, "n_members n_stimuli n_neurons"]]:
        """Return each member's predictions for the held-out half of each test session."""
        found = []
        with progress_bar("mapping the members", len(self.chosen)) as advance:
            for test in self.chosen:
                model, _ = map_ensemble(self.members, self.fitted_half(test), mapping=mapping)
                held, parts = self.features(test.held_out), []
                with torch.inference_mode():
                    for start in range(0, len(held), _BATCH):
                        x = torch.from_numpy(held[start : start + _BATCH].astype(np.float32))
                        parts.append(model.predict_members(x.to(self.device)).cpu().numpy())
                found.append(np.concatenate(parts, axis=1))
                advance(1)
        return found

    def r2(self, test: TestSession, predicted: Predictions) -> Float[np.ndarray, " n_neurons"]:
        """Return each usable neuron's r² on the held-out half, not corrected for noise."""
        responses = test.held_out.mean_responses[:, test.usable]
        return pearson_r2(responses, predicted.astype(np.float64))


def mapping(lab: Laboratory) -> dict[str, Any]:
    """Compare linear maps from the backbone with maps from the trained members."""
    kinds = feature_kinds(lab.backbone, lab.inputs.validation)
    by_kind = {}
    with progress_bar("choosing features", len(kinds)) as advance:
        targets = lab.validation.z_scored()
        for kind in kinds:
            x = linear_features(lab.validation.features, lab.validation.features, kinds[kind])
            left_out = RidgeLOO().fit(x.reshape(len(x), -1), targets).loo_predictions_
            by_kind[kind] = float(pearson_r2(targets, left_out).mean())
            advance(1)
    kind = max(by_kind, key=by_kind.__getitem__)
    scores: dict[str, list[np.ndarray]] = {
        name: [] for name in (RIDGE, FACTORIZED, MEMBER_RIDGE, ENSEMBLE_RIDGE, MEMBER, ENSEMBLE)
    }
    with progress_bar("linear maps", len(lab.chosen)) as advance:
        for test in lab.chosen:
            fitted, held = lab.fitted_half(test), lab.features(test.held_out)
            seen = linear_features(fitted.features, fitted.features, kinds[kind])
            new = linear_features(fitted.features, held, kinds[kind])
            targets = fitted.z_scored()
            ridge = RidgeLOO().fit(seen.reshape(len(seen), -1), targets)
            scores[RIDGE].append(lab.r2(test, ridge.predict(new.reshape(len(new), -1))))
            factorized = FactorizedMapping().fit(seen, targets)
            scores[FACTORIZED].append(lab.r2(test, factorized.predict(new)))
            advance(1)
    by_mapping = (
        (MEMBER_RIDGE, ENSEMBLE_RIDGE, lab.predictions_by("ridge")),
        (MEMBER, ENSEMBLE, lab.member_predictions),
    )
    for one_member, ensemble, found in by_mapping:
        for test, predicted in zip(lab.chosen, found, strict=True):
            scores[one_member].append(np.mean([lab.r2(test, p) for p in predicted], axis=0))
            scores[ensemble].append(lab.r2(test, predicted.mean(axis=0)))
    pairs = [(FACTORIZED, RIDGE), (MEMBER_RIDGE, RIDGE), (ENSEMBLE_RIDGE, RIDGE),
             (MEMBER, FACTORIZED), (ENSEMBLE, FACTORIZED), (ENSEMBLE, MEMBER)]  # fmt: skip
    return {
        "features_of_linear_maps": kind,
        "validation_r2_of_features": by_kind,
        "n_members": len(lab.members),
        **over_sessions(scores, pairs, lab),
    }


def feature_kinds(backbone: Backbone, session: Session) -> dict[str, tuple[slice, bool]]:
    """Return ways to hand the stacked features to a linear map: channels, and whether scaled."""
    image = torch.from_numpy(session.require_stimuli().take([0]).images())
    ends = np.cumsum([0, *(maps.shape[1] for maps in backbone.maps(image))]).tolist()
    apart = zip(backbone.layers, ends[:-1], ends[1:], strict=True)
    kinds = {name: (slice(first, last), False) for name, first, last in apart}
    if len(kinds) > 1:
        kinds["all layers"] = (slice(None), False)
    return kinds | {"all layers, channels scaled": (slice(None), True)}


def linear_features(
    seen: np.ndarray, wanted: np.ndarray, kind: tuple[slice, bool]
) -> Float[np.ndarray, "n channels rows columns"]:
    """Return some channels of the wanted features, perhaps in units of their spread over `seen`."""
    channels, scaled = kind
    x = wanted[:, channels].astype(np.float32)
    if not scaled:
        return x
    spread = np.array([seen[:, c].astype(np.float32).std() for c in range(seen.shape[1])])
    return np.asarray(x / (spread + _SCALE_FLOOR)[:, None, None], dtype=np.float32)


def sessions(lab: Laboratory) -> dict[str, Any]:
    """Train small ensembles on some of the training sessions."""
    settings = lab.config.teacher
    n_all = len(lab.train)
    counts = [n for n in SESSION_COUNTS if n < n_all] + [n_all]
    orders = [np.random.default_rng([lab.seed, d]).permutation(n_all) for d in range(N_DRAWS)]
    total = sum(len(s.features) for s in lab.train)
    jobs = [(n, d, False) for n in counts for d in range(N_DRAWS)]
    longer_counts = [n for n in COUNTS_OF_SAME_STEPS if n < n_all]
    jobs += [(n, d, True) for n in longer_counts for d in range(N_DRAWS)]
    rows: dict[str, list[np.ndarray]] = {}
    with progress_bar("sessions", len(jobs)) as advance:
        for n, draw, same_steps in jobs:
            subset = [lab.train[k] for k in sorted(orders[draw][:n])]
            n_images = sum(len(s.features) for s in subset)
            longer = round(settings.n_epochs * total / n_images)  # as many steps as with all
            name = arm(n, same_steps)
            part = kept(
                lab.out / "experiments" / "parts" / f"{name}, draw {draw}.json",
                partial(
                    _train_and_score, lab, subset, draw,
                    longer if same_steps else settings.n_epochs,
                ),
            )  # fmt: skip
            rows.setdefault(name, []).append(np.array(part["r2"]))
            advance(1)
    first = arm(counts[0], False)
    pairs = [(name, first) for name in rows if name != first]
    steps = itertools.pairwise(counts[1:])
    pairs += [(arm(after, False), arm(before, False)) for before, after in steps]
    cuts = np.cumsum([len(test.usable) for test in lab.chosen])[:-1]
    scores = {name: np.split(np.mean(draws, axis=0), cuts) for name, draws in rows.items()}
    return {
        "counts": counts,
        "orders": [[lab.train[k].id for k in order] for order in orders],
        "n_images": {s.id: len(s.features) for s in lab.train},
        "n_members": N_MEMBERS_OF_A_DRAW,
        "mean_of_each_draw": {k: [float(v.mean()) for v in draws] for k, draws in rows.items()},
        **over_sessions(scores, pairs, lab),
    }


def _train_and_score(
    lab: Laboratory, subset: Sequence[SessionFeatures], draw: int, n_epochs: int
) -> dict[str, Any]:
    """Train a small ensemble on some sessions; return the test neurons' r² and the history."""
    settings = lab.config.teacher
    members, history = fit_members(
        subset, lab.validation, shape_of(settings, subset[0].features.shape[1]),
        n_members=N_MEMBERS_OF_A_DRAW, seed=lab.seed + 1000 * (draw + 1),
        training=training_of(settings, n_epochs), device=lab.device,
    )  # fmt: skip
    r2 = np.concatenate(held_out_r2(lab, members))
    return {"r2": r2.tolist(), "validation": history, "n_epochs": n_epochs}


def arm(n: int, same_steps: bool) -> str:
    """Name a number of sessions, and whether they were trained on for as long as all."""
    name = f"{n} session" if n == 1 else f"{n} sessions"
    return f"{name}, same steps" if same_steps else name


def held_out_r2(lab: Laboratory, members: Sequence[EnsembleMember]) -> list[np.ndarray]:
    """Return the neurons' r² of an ensemble, by ridge, on each test session's held-out half."""
    found = []
    for test in lab.chosen:
        model, _ = map_ensemble(members, lab.fitted_half(test), mapping="ridge")
        found.append(lab.r2(test, predict_responses(model, lab.features(test.held_out))))
    return found


def members(lab: Laboratory) -> dict[str, Any]:
    """Score subsets of the members, of each size, and average over subsets."""
    n_all = len(lab.members)
    counts = [n for n in MEMBER_COUNTS if n < n_all] + [n_all]
    scores: dict[str, list[np.ndarray]] = {}
    n_subsets: list[int] = []
    for n in counts:
        subsets = subsets_of(n_all, n, lab.seed)
        n_subsets.append(len(subsets))
        for test, predicted in zip(lab.chosen, lab.member_predictions, strict=True):
            each = [lab.r2(test, predicted[s].mean(axis=0)) for s in subsets]
            scores.setdefault(str(n), []).append(np.mean(each, axis=0))
    steps = itertools.pairwise(map(str, counts))
    pairs = [(after, before) for before, after in steps] + [(str(counts[-1]), str(counts[0]))]
    return {"counts": counts, "n_subsets": n_subsets, **over_sessions(scores, pairs, lab)}


def subsets_of(n: int, size: int, seed: int) -> list[list[int]]:
    """Return all subsets of a size, or as many random ones as are averaged at most."""
    if math.comb(n, size) <= MOST_SUBSETS:
        return [list(subset) for subset in itertools.combinations(range(n), size)]
    rng = np.random.default_rng([seed, size])
    return [rng.permutation(n)[:size].tolist() for _ in range(MOST_SUBSETS)]


def images(lab: Laboratory) -> dict[str, Any]:
    """Train on images of different kinds in simulated animals; score on normal images."""
    setting = lab.images
    animals = range(setting.first_animal, setting.first_animal + setting.n_animals)
    backbone = Backbone(filter_bank(), "maps", device=lab.device)
    held_out: dict[str, list[float]] = {}
    recorded: dict[str, list[float]] = {}
    facts: dict[str, list[Any]] = {}
    with progress_bar("animals", setting.n_animals) as advance:
        for seed in animals:
            one = kept(
                lab.out / "experiments" / "parts" / f"animal-{seed}.json",
                partial(_record_animal, seed, setting, backbone, lab.device),
            )
            for kind, (own, new) in one["scores"].items():
                recorded.setdefault(kind, []).append(own)
                held_out.setdefault(kind, []).append(new)
            for name, value in one["facts"].items():
                facts.setdefault(name, []).append(value)
            advance(1)
    pairs = [(kind, NORMAL) for kind in (START, GAUDY, ACTIVE, ACTIVE_GAUDY)]
    return {
        "setting": asdict(setting) | {"teacher": setting.teacher.model_dump(mode="json")},
        "animals": list(animals),
        "facts": facts,
        "held-out neurons": over_animals(held_out, pairs),
        "recorded neurons": over_animals(recorded, pairs),
    }


def _record_animal(
    seed: int, setting: ImagesSetting, backbone: Backbone, device: str
) -> dict[str, Any]:
    return _Animal(seed, setting, backbone, device).run()


class _Animal:
    """One simulated animal, its images and what was recorded."""

    def __init__(self, seed: int, setting: ImagesSetting, backbone: Backbone, device: str) -> None:
        self.seed, self.setting, self.backbone, self.device = seed, setting, backbone, device
        self.cortex = InSilicoCortex(seed, setting.image_size)
        n = setting.n_neurons
        found = self.cortex.sample_neurons(
            2 * n + setting.n_neurons_validation, rng=np.random.default_rng([seed, 10])
        )
        self.trained, self.new, self.validating = found[:n], found[n : 2 * n], found[2 * n :]
        self.facts: dict[str, Any] = {}

    def run(self) -> dict[str, Any]:
        """Return mean r² of recorded and of held-out neurons for each kind of images, and facts."""
        s = self.setting
        sizes = (s.n_start, s.n_mapping, s.n_validation, s.n_held_out, s.n_pool)
        every = dead_leaves(sum(sizes), size=s.image_size, seed=self.seed)
        start, mapped, validation, held_out, pool = np.split(every, np.cumsum(sizes)[:-1])
        first = self.session(start, self.trained, 0)
        mapping_session = self.session(mapped, self.new, 1)
        stop = SessionFeatures(
            "validation",
            self.features(validation),
            self.cortex.rates(validation, self.validating),
        )
        tested = self.features(held_out)
        truth = [self.cortex.rates(held_out, neurons) for neurons in (self.trained, self.new)]
        scores = {}

        def score(kind: str, session: SessionFeatures) -> list[EnsembleMember]:
            members = self.train(session, stop)
            maps = [map_ensemble(members, s)[0] for s in (session, mapping_session)]
            r2 = [
                float(pearson_r2(rates, predict_responses(m, tested).astype(np.float64)).mean())
                for m, rates in zip(maps, truth, strict=True)
            ]
            scores[kind] = (r2[0], r2[1])
            return members

        members = score(START, first)
        for kind, added in self.choose(pool, members, first).items():
            more = self.session(added, self.trained, 3)
            self.facts[f"response sd over added images, {kind}"] = float(
                (more.responses.std(axis=0) / first.responses.std(axis=0)).mean()
            )
            both = SessionFeatures(
                kind,
                np.concatenate([first.features, more.features]),
                np.concatenate([first.responses, more.responses]),
            )
            score(kind, both)
        return {"scores": scores, "facts": self.facts}

    def choose(
        self,
        pool: UInt8[np.ndarray, "n 3 height width"],
        members: Sequence[EnsembleMember],
        first: SessionFeatures,
    ) -> dict[str, UInt8[np.ndarray, "n_added 3 height width"]]:
        """Return the images to add, of each kind, as many of each."""
        n, half = self.setting.n_added, len(pool) // 2
        model, _ = map_ensemble(members, first)
        made_gaudy = gaudy(pool[:half])  # the pool is in random order
        of_normal = member_disagreement(model, self.features(pool))[0]
        of_gaudy = member_disagreement(model, self.features(made_gaudy))[0]
        mixed = np.argsort(-np.concatenate([of_gaudy, of_normal[half:]]), kind="stable")[:n]
        self.facts["disagreement, gaudy over normal"] = float(
            np.median(of_gaudy) / np.median(of_normal)
        )
        self.facts["part of gaudy images among those chosen"] = float((mixed < half).mean())
        return {
            NORMAL: pool[:n],
            GAUDY: made_gaudy[:n],
            ACTIVE: pool[np.argsort(-of_normal, kind="stable")[:n]],
            ACTIVE_GAUDY: np.concatenate([made_gaudy, pool[half:]])[mixed],
        }

    def features(self, shown: UInt8[np.ndarray, "n 3 height width"]) -> np.ndarray:
        """Return the backbone's features, float16."""
        parts = [
            self.backbone(torch.from_numpy(shown[k : k + _BATCH])).half().cpu().numpy()
            for k in range(0, len(shown), _BATCH)
        ]
        return np.concatenate(parts)

    def session(
        self, shown: UInt8[np.ndarray, "n 3 height width"], neurons: Sequence[Neuron], number: int
    ) -> SessionFeatures:
        """Return Poisson spike counts of neurons to images, averaged over repeats."""
        rates = self.cortex.rates(shown, neurons)
        rng = np.random.default_rng([self.seed, 20, number])
        counts = rng.poisson(rates[:, None, :], (len(rates), self.setting.n_repeats, len(neurons)))
        return SessionFeatures(str(number), self.features(shown), counts.mean(axis=1))

    def train(self, session: SessionFeatures, stop: SessionFeatures) -> list[EnsembleMember]:
        """Return members trained on one session from the same initial weights."""
        settings = self.setting.teacher
        found, _ = fit_members(
            [session], stop, shape_of(settings, session.features.shape[1]),
            n_members=settings.n_members, training=training_of(settings, settings.n_epochs),
            seed=self.seed, device=self.device,
        )  # fmt: skip
        return found


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what a JSON file holds, made and written first where there is none."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, make())
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def shape_of(settings: TeacherConfig, in_channels: int) -> EnsembleShape:
    """Return a member's architecture."""
    return EnsembleShape(
        in_channels, settings.width, settings.bottleneck, settings.n_blocks, settings.stride
    )


def training_of(settings: TeacherConfig, n_epochs: int) -> EnsembleTraining:
    """Return how members are trained, for some number of epochs."""
    return EnsembleTraining(
        schedule=settings.schedule,
        n_epochs=n_epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        readout_scale=settings.readout_scale,
    )


def over_sessions(
    scores: Mapping[str, list[np.ndarray]], pairs: Sequence[tuple[str, str]], lab: Laboratory
) -> dict[str, Any]:
    """Return means and paired differences, with intervals over neurons, and those of sessions."""
    whole = {name: np.concatenate(parts) for name, parts in scores.items()}
    each = {
        test.fit.id: {name: over_neurons(parts[k], lab.seed) for name, parts in scores.items()}
        for k, test in enumerate(lab.chosen)
    }
    return {
        "means": {name: over_neurons(values, lab.seed) for name, values in whole.items()},
        "differences": {
            f"{one} − {other}": over_neurons(whole[one] - whole[other], lab.seed)
            for one, other in pairs
        },
        "of_each_session": each,
    }


def over_neurons(values: Float[np.ndarray, " n_neurons"], seed: int) -> dict[str, Any]:
    """Return the mean over neurons, its 95 % bootstrap interval and the number of neurons."""
    if not np.isfinite(values).all():
        raise InputError(f"{int((~np.isfinite(values)).sum())} neurons have no r²; leave them out")
    rng = np.random.default_rng(seed)
    low, high = bootstrap_ci(lambda v: v.mean(axis=0), values, rng=rng, n_resamples=10_000)
    return {"mean": float(values.mean()), "ci": [float(low), float(high)], "n": len(values)}


def over_animals(
    scores: Mapping[str, Sequence[float]], pairs: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """Return means and paired differences over animals with 95 % t intervals."""
    table = {name: np.array(values) for name, values in scores.items()}
    return {
        "means": {name: _t_interval(values) for name, values in table.items()},
        "differences": {
            f"{one} − {other}": _t_interval(table[one] - table[other]) for one, other in pairs
        },
        "of_each_animal": {name: list(values) for name, values in scores.items()},
    }


def _t_interval(values: Float[np.ndarray, " n"]) -> dict[str, Any]:
    reach = scipy.stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    mean = float(values.mean())
    return {"mean": mean, "ci": [mean - float(reach), mean + float(reach)], "n": len(values)}


EXPERIMENTS: dict[str, Callable[[Laboratory], dict[str, Any]]] = {
    "mapping": mapping,
    "sessions": sessions,
    "members": members,
    "images": images,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Do the experiments asked for, then write the record and the figure if all are done."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", help="TOML file of a run, such as examples/v4-teacher.toml")
    parser.add_argument("out", help="run folder")
    parser.add_argument("--device", default="cpu", help="auto, cpu or cuda")
    parser.add_argument("--experiments", default=",".join(EXPERIMENTS), help="separated by commas")
    parser.add_argument("--tests", default="190923,201025", help="test sessions to report on")
    given = parser.parse_args(argv)
    keep_freed_memory()
    lab = Laboratory(
        read_config(given.config),
        Path(given.out),
        resolve_device(given.device),
        tuple(name for name in given.tests.split(",") if name),
    )
    do(lab, given.experiments.split(","))


def do(lab: Laboratory, names: Sequence[str]) -> None:
    """Do experiments that are not done, and write all up if none is missing."""
    unknown = sorted(set(names) - set(EXPERIMENTS))
    if unknown:
        raise InputError(f"no experiments {unknown}; there are {list(EXPERIMENTS)}")
    folder = lab.out / "experiments"
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = folder / f"{name}.json"
        if path.exists():
            say(f"{name}: done before ({path})")
            continue
        result = EXPERIMENTS[name](lab)
        record = provenance(lab.seed) | {"device": lab.device, "tests": list(lab.tests)}
        write_json(path, {"experiment": name, **result, "provenance": record})
        say(f"{name}: done ({path})")
    paths = {name: folder / f"{name}.json" for name in EXPERIMENTS}
    if all(path.exists() for path in paths.values()):
        results = {name: json.loads(path.read_text()) for name, path in paths.items()}
        write_json(lab.out / "teacher-experiments.json", results)
        picture = lab.out / "teacher-experiments.png"
        picture.write_bytes(render_figure(figure_experiments(results)).png)
        say(f"written: {picture}")


GREY, BLUE, ORANGE, INK = "#8A8A8A", "#0072B2", "#D55E00", "#222222"


def figure_experiments(results: Mapping[str, Any]) -> Figure:
    """Draw the four experiments side by side, means with their 95 % intervals."""
    figure = Figure(figsize=(13.6, 3.7), layout="constrained")
    axes = figure.subplots(1, 4, width_ratios=[1.1, 1.05, 1.1, 1.2])
    titles = ("a  Mapping", "b  Training sessions", "c  Ensemble members", "d  Added images")
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=9, color=GREY, labelcolor=INK)
    _draw_mapping(axes[0], results["mapping"])
    _draw_sessions(axes[1], results["sessions"])
    _draw_members(axes[2], results["members"])
    _draw_images(axes[3], results["images"])
    return figure


def _draw_mapping(ax: Axes, result: Mapping[str, Any]) -> None:
    places = ("backbone\n(linear)", "one\nmember", f"ensemble\nof {result['n_members']}")
    lines = (
        ("factorized", (FACTORIZED, MEMBER, ENSEMBLE), BLUE, -0.06),
        ("ridge", (RIDGE, MEMBER_RIDGE, ENSEMBLE_RIDGE), GREY, 0.06),
    )
    for text, names, colour, shift in lines:
        rows = [result["means"][name] for name in names]
        ax.plot(np.arange(3) + shift, [row["mean"] for row in rows], color=colour, lw=1.2)
        for k, row in enumerate(rows):
            _dot(ax, k + shift, row, colour)
        ax.annotate(text, (2.2, rows[-1]["mean"]), va="center", color=colour, fontsize=9)
    ax.set_xticks(range(3), places)
    ax.set_xlim(-0.4, 3.05)
    ax.set_ylabel("mean r², held-out half", fontsize=10)


def _draw_sessions(ax: Axes, result: Mapping[str, Any]) -> None:
    counts = result["counts"]
    first = arm(counts[0], False)
    places = {n: arm(n, False) for n in counts[1:]}
    longer = {n + 0.35: arm(n, True) for n in counts if arm(n, True) in result["means"]}
    for x, name in (places | longer).items():
        colour = ORANGE if x in longer else BLUE
        by_draw = (result["mean_of_each_draw"][one] for one in (name, first))
        gains = np.subtract(*by_draw)
        ax.scatter([x + 0.2] * len(gains), gains, s=11, color=colour, alpha=0.5, lw=0)
        row = result["differences"][f"{name} − {first}"]
        _dot(ax, x, row, colour)
        if x in longer:
            text = "1 session, as many\nsteps as with all"
            ax.annotate(text, (x + 0.35, row["mean"]), va="center", color=ORANGE, fontsize=9)
    gains = [0.0] + [result["differences"][f"{name} − {first}"]["mean"] for name in places.values()]
    ax.plot(counts, gains, color=BLUE, lw=1.2)
    ax.plot(counts[0], 0, "o", color=BLUE, markersize=6, markeredgecolor="white", zorder=3)
    _zero(ax)
    ax.set_xticks(counts)
    ax.set_xlim(counts[0] - 0.5, counts[-1] + 0.6)
    ax.margins(y=0.12)
    ax.set_xlabel("training sessions", fontsize=10)
    ax.set_ylabel("gain in r² over 1 session", fontsize=10)


def _draw_members(ax: Axes, result: Mapping[str, Any]) -> None:
    steps = list(itertools.pairwise(result["counts"]))
    for k, (before, after) in enumerate(steps):
        _dot(ax, k, result["differences"][f"{after} − {before}"], BLUE, label=True)
    _zero(ax)
    ax.set_xticks(range(len(steps)), [f"{before}→{after}" for before, after in steps])
    ax.set_xlim(-0.5, len(steps) - 0.1)
    ax.tick_params(axis="x", labelsize=8.5)
    ax.set_xlabel("members", fontsize=10)
    ax.set_ylabel("gain in r² by more members", fontsize=10)


def _draw_images(ax: Axes, result: Mapping[str, Any]) -> None:
    kinds = {"none": START, "gaudy": GAUDY, "active": ACTIVE,
             "active,\nhalf gaudy": ACTIVE_GAUDY}  # fmt: skip
    both = (("held-out neurons", BLUE, -0.1), ("recorded neurons", ORANGE, 0.1))
    for group, colour, shift in both:
        found = result[group]
        for k, name in enumerate(kinds.values()):
            animals = np.subtract(*(found["of_each_animal"][one] for one in (name, NORMAL)))
            ax.scatter([k + 2 * shift] * len(animals), animals, s=11, color=colour, alpha=0.5,
                       lw=0)  # fmt: skip
            _dot(ax, k + shift, found["differences"][f"{name} − {NORMAL}"], colour)
        where = (0.98, 0.10 if shift < 0 else 0.02)
        ax.text(*where, group, transform=ax.transAxes, ha="right", color=colour, fontsize=9)
    _zero(ax)
    ax.set_xticks(range(len(kinds)), list(kinds))
    ax.set_xlim(-0.5, len(kinds) - 0.5)
    ax.set_xlabel("images added", fontsize=10)
    ax.set_ylabel("r² minus that with normal images", fontsize=10)


def _zero(ax: Axes) -> None:
    ax.axhline(0, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)


def _dot(ax: Axes, x: float, row: Mapping[str, Any], colour: str, *, label: bool = False) -> None:
    low, high = row["ci"]
    ax.plot([x, x], [low, high], color=colour, lw=2, solid_capstyle="butt", zorder=2)
    ax.plot(x, row["mean"], "o", color=colour, markersize=6, markeredgecolor="white", zorder=3)
    if label:
        ax.annotate(f"{row['mean']:.4f}", (x, row["mean"]), (6, 0), textcoords="offset points",
                    va="center", fontsize=8.5, color=INK)  # fmt: skip


if __name__ == "__main__":
    main()
