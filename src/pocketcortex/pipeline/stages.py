"""The stages of a run: each reads finished folders and fills its own."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors.torch
import torch

from pocketcortex.core import InputError, Session, StimulusSet, read_array, write_json
from pocketcortex.data import InSilicoCortex, insilico_neurons
from pocketcortex.mapping import RidgeLOO
from pocketcortex.models import (
    CompactModel,
    CompactStack,
    EnsembleMember,
    EnsembleShape,
    import_compact_model,
    import_shared_model,
    published_models,
    published_shared_models,
)
from pocketcortex.pipeline.bank import Bank, distillation_bank, label, load_bank
from pocketcortex.pipeline.causal import CausalSession, make_causal_session
from pocketcortex.pipeline.circuits import find_circuits
from pocketcortex.pipeline.config import RunConfig
from pocketcortex.pipeline.inputs import RunInputs, TestSession
from pocketcortex.pipeline.progress import progress_bar
from pocketcortex.pipeline.scores import differences, hardly_varying, medians, score_table
from pocketcortex.pipeline.simulated_causal import predictions, simulate_causal_test
from pocketcortex.pipeline.tasks import TaskFolder, drop_tasks
from pocketcortex.pipeline.teacher import (
    BACKBONE_RIDGE,
    PUBLISHED,
    TEACHER,
    MappedTeacher,
    Prior,
    TeacherScores,
    best_layer,
    flat,
    map_teacher,
)
from pocketcortex.training import EnsembleTraining, SessionFeatures, fit_members
from pocketcortex.zoo import Backbone, FeatureStore

COMPACT = "compact"
CHECKPOINT = "checkpoint.safetensors"
_MEMBERS, _HISTORY = "members.safetensors", "history.json"
_N_SIMILARITY = 1000
"""Images by which models are grouped in the gallery."""
_N_MATCHING = 200
"""Held-out images by which neurons of a simulated causal test are matched to models."""


@dataclass(frozen=True)
class Stages:
    """What all stages of one run share.

    Attributes
    ----------
    config
        The run, its seed drawn.
    inputs
        Sessions and split.
    backbone
        Network and layer.
    store
        Features on disk.
    device
        Where networks are trained.
    saved_bank
        Folder of `save_bank`, for a process that need not look through all images itself.
    """

    config: RunConfig
    inputs: RunInputs
    backbone: Backbone
    store: FeatureStore
    device: str
    saved_bank: Path | None = None

    @property
    def seed(self) -> int:
        """The run's seed."""
        assert self.config.seed is not None  # noqa: S101 - drawn before any stage
        return self.config.seed

    @cached_property
    def prior(self) -> Prior | None:
        """The published model that the teacher averages in, None without one."""
        path = self.config.teacher.prior
        return None if path is None else Prior(path, self.store, self.device)

    @cached_property
    def bank(self) -> Bank:
        """Images to distil with."""
        if self.saved_bank is not None:
            return load_bank(self.saved_bank, self.inputs, self.config.students, self.seed)
        return distillation_bank(self.inputs, self.config.students, self.seed)

    def check(self) -> None:
        """Raise InputError for what only a late stage reads: the banks, published models."""
        _ = self.bank
        students = self.config.students
        if students.start is not None:
            found = import_shared_model(students.start).layers.filters
            if found != students.filters:
                raise InputError(
                    f"students.start has {list(found)} filters, students.filters says "
                    f"{list(students.filters)}; give both the same"
                )
        release = self.config.recordings.published_models
        for test in self.inputs.tests if release is not None else ():
            _published_paths(release or "", test.fit, test.usable)

    def check_whole_run(self) -> None:
        """Raise InputError as `check`, and for too few images to take stimuli from."""
        self.check()
        wanted = self.config.stimuli
        if (found_images := len(self.bank.stimuli)) <= wanted.n_random + 2 * wanted.n_natural:
            raise InputError(
                f"there are {found_images} images to distil with, too few to take "
                f"stimuli.n_random = {wanted.n_random} and stimuli.n_natural = "
                f"{wanted.n_natural} for each model from; add a bank or lower them"
            )

    def teacher(self, folder: Path) -> None:
        """Train the ensemble's members over the training sessions, group after group."""
        groups = self.member_groups()
        if len(groups) == 1:
            self.fit_group(folder, folder / CHECKPOINT, *groups.values())
            (folder / CHECKPOINT).unlink()
            return
        for name, numbers in groups.items():
            TaskFolder(folder, name).fill(partial(self.fit_group, numbers=numbers))
        join_groups(folder, [TaskFolder(folder, name).path for name in groups])
        drop_tasks(folder)

    def member_groups(self) -> dict[str, range]:
        """Return the members of each group, by the group's name."""
        n = self.config.teacher.n_members
        step = self.config.teacher.group or n
        firsts = range(0, n, step)
        groups = [range(first, min(first + step, n)) for first in firsts]
        return {f"members{g.start:03d}-{g.stop - 1:03d}": g for g in groups}

    def fit_group(self, folder: Path, checkpoint: Path, numbers: range) -> None:
        """Train some members and write ``members.safetensors`` and ``history.json``."""
        settings = self.config.teacher
        with progress_bar("features: sessions", self._n_session_images()) as advance:
            train = [self.session_features(s, advance) for s in self.inputs.train]
            validation = self.session_features(self.inputs.validation, advance)
        shape = EnsembleShape(
            train[0].features.shape[1],
            settings.width,
            settings.bottleneck,
            settings.n_blocks,
            settings.stride,
        )
        training = EnsembleTraining(
            schedule=settings.schedule,
            n_epochs=settings.n_epochs,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            readout_scale=settings.readout_scale,
        )
        n_passes = sum(training.n_passes(epoch) for epoch in range(settings.n_epochs))
        total = n_passes * sum(len(s.features) for s in train)
        with progress_bar("teacher", total) as advance:
            members, history = fit_members(
                train, validation, shape,
                n_members=len(numbers), first_member=numbers.start, training=training,
                seed=self.seed, device=self.device, checkpoint=checkpoint, advance=advance,
            )  # fmt: skip
        _save_members(members, folder / _MEMBERS)
        write_json(folder / _HISTORY, {"shape": shape.as_dict(), "validation": history})

    def mapping(self, folder: Path, teacher: Path) -> None:
        """Map backbone and ensemble to each test session's neurons."""
        members = self.load_members(teacher)
        counts: dict[str, dict[str, int]] = {}
        with progress_bar("mapping", len(self.inputs.tests)) as advance:
            for test in self.inputs.tests:
                counts[test.fit.id] = self.map_session(folder / test.name, test, members)
                advance(1)
        write_json(folder / "parameters.json", counts)

    def labels(self, folder: Path, teacher: Path, mapping: Path) -> None:
        """Write the teacher's responses to the bank."""
        teachers = self.load_teachers(teacher, mapping)
        with progress_bar("teacher's responses", len(self.bank.stimuli)) as advance:
            label(self.bank, self.backbone, self.store, self.prior, teachers, folder, advance)

    def scores(
        self,
        folder: Path,
        mapping: Path,
        predict: Mapping[str, Callable[[StimulusSet], np.ndarray]],
        models: Mapping[str, Sequence[CompactModel]],
    ) -> None:
        """Score every kind of model on the held-out halves: the only place that looks at them.

        `predict` gives, by name, responses to images of all test sessions' neurons side by side;
        `models` the models themselves, for their sizes.
        """
        tables, sizes, sessions = [], [], {}
        counts = json.loads((mapping / "parameters.json").read_text())
        first = 0
        for test in self.inputs.tests:
            columns = slice(first, first + len(test.usable))
            first = columns.stop
            held_out = test.held_out.require_stimuli()
            predictions = {
                BACKBONE_RIDGE: read_array(mapping / test.name / "held_out_ridge.npy"),
                TEACHER: read_array(mapping / test.name / "held_out_teacher.npy"),
            }
            predictions |= {name: f(held_out)[:, columns] for name, f in predict.items()}
            own = {name: of_all[columns] for name, of_all in models.items()}
            release = self.config.recordings.published_models
            if release is not None:
                paths = _published_paths(release, test.fit, test.usable)
                own[PUBLISHED] = [import_compact_model(path) for path in paths]
                stack = CompactStack(own[PUBLISHED]).to(self.device)
                images = torch.from_numpy(held_out.images()).to(self.device)
                predictions[PUBLISHED] = stack.predict(images).cpu().numpy()
            for name, some in own.items():
                sizes += [
                    _size(test, int(k), name, m) for k, m in zip(test.usable, some, strict=True)
                ]
            np.savez(folder / f"predicted_{test.name}.npz", **predictions)  # type: ignore[arg-type]
            table = score_table(test.held_out, predictions, test.usable, test.unusable, self.seed)
            tables.append(table)
            sessions[test.fit.id] = {
                "n_neurons": len(test.usable),
                "n_images_fit": test.fit.n_stimuli,
                "n_images_held_out": test.held_out.n_stimuli,
                "scores": medians(table, self.seed),
                "compact_minus": differences(table, COMPACT, self.seed),
                "unusable_neurons": {str(k): why for k, why in test.unusable.items()},
                "hardly_varying_neurons": [k for _, k in hardly_varying(table, COMPACT)],
            }
        table, size = pd.concat(tables, ignore_index=True), pd.DataFrame(sizes)
        table.to_parquet(folder / "scores.parquet", index=False)
        size.to_parquet(folder / "sizes.parquet", index=False)
        typical = size.groupby("model", sort=False)[["n_parameters", "n_filters"]].median()
        whole = {
            name: float(np.median([c[name] for c in counts.values()]))
            for name in (BACKBONE_RIDGE, TEACHER)
        }
        write_json(
            folder / "summary.json",
            {
                "sessions": sessions,
                "n_neurons": self.inputs.n_usable,
                "n_images_distilled": len(self.bank.trained),
                "seed": self.seed,
                "scores": medians(table, self.seed),
                "compact_minus": differences(table, COMPACT, self.seed),
                "n_parameters": whole | typical["n_parameters"].to_dict(),
                "n_filters": typical["n_filters"].to_dict(),
            },
        )

    def stimuli(self, folder: Path, models: Sequence[CompactModel]) -> None:
        """Make the stimuli of a causal test of the models, with the models' responses."""
        order = np.random.default_rng([self.seed, 2]).permutation(len(self.bank.stimuli))
        candidates = self.bank.stimuli.take(np.sort(order[: self.config.stimuli.n_candidates]))
        counts = self.config.stimuli.counts
        with progress_bar("stimuli", counts.n_stimuli(len(models))) as advance:
            session = make_causal_session(
                models, candidates, counts=counts, seed=self.seed, device=self.device,
                advance=advance,
            )  # fmt: skip
        session.save(folder)
        np.save(folder / "responses.npy", predictions(models, session.stimuli, self.device))
        sample = candidates.take(slice(0, _N_SIMILARITY))
        np.save(folder / "responses_to_bank.npy", predictions(models, sample, self.device))

    def circuits(self, folder: Path, models: Sequence[CompactModel]) -> None:
        """Find what the compact models prefer, judged by images of the bank."""
        find_circuits(folder, models, self.bank.stimuli, self.seed, self.device)

    def causal(self, folder: Path, stimuli: Path, models: Sequence[CompactModel]) -> None:
        """Show the stimuli to the true neurons of the simulated animal, matched to the models."""
        simulated = self.config.recordings.insilico
        assert simulated is not None  # noqa: S101 - asked for no other recordings
        cortex = InSilicoCortex(self.seed, simulated.image_size, simulated.area)
        neurons = []
        for test in self.inputs.tests:
            number = int(test.fit.id.rsplit("-", 1)[1])
            own = insilico_neurons(
                self.seed, number, n_neurons=simulated.n_neurons,
                image_size=simulated.image_size, area=simulated.area,
            )  # fmt: skip
            neurons += [own[k] for k in test.usable]
        matching = self.inputs.tests[0].held_out.require_stimuli().take(slice(0, _N_MATCHING))
        found = simulate_causal_test(
            cortex, neurons, models, CausalSession.load(stimuli), matching=matching,
            n_repeats=simulated.n_repeats, seed=self.seed, device=self.device,
        )  # fmt: skip
        found.save(folder)

    def teacher_scores(self, teacher: Path) -> TeacherScores:
        """Return what scores a finished teacher beside its peers."""
        with progress_bar("choosing a layer", len(self.backbone.layers)) as advance:
            validation = self.inputs.validation
            layer = best_layer(
                self.backbone, self.store, validation.require_stimuli(), validation.mean_responses
            )
            advance(len(self.backbone.layers))
        release = self.config.recordings.published_models
        shared = {}
        if release is not None:
            for kind, sizes in published_shared_models(release).items():
                path = sizes[max(sizes)]
                name = f"{kind.removeprefix('from_')} {max(sizes)}"
                shared[name] = Prior(path, self.store, self.device)
        return TeacherScores(
            self.load_members(teacher), self.backbone, layer, self.store, self.prior, shared,
            release,
        )  # fmt: skip

    def load_teachers(self, teacher: Path, mapping: Path) -> list[MappedTeacher]:
        """Return the teacher as finished stages left it, mapped to each test session."""
        members = self.load_members(teacher)
        return [
            MappedTeacher.load(mapping / t.name / "teacher", members) for t in self.inputs.tests
        ]

    def load_members(self, teacher: Path) -> list[EnsembleMember]:
        """Return the members of a finished stage, on the run's device."""
        shape = EnsembleShape(**json.loads((teacher / _HISTORY).read_text())["shape"])
        state = safetensors.torch.load_file(teacher / _MEMBERS)
        members = []
        for k in range(1 + max(int(name.split(".")[0]) for name in state)):
            member = EnsembleMember(shape)
            prefix = f"{k}."
            member.load_state_dict(
                {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
            )
            members.append(member.eval().to(self.device))
        return members

    def map_session(
        self, folder: Path, test: TestSession, members: Sequence[EnsembleMember]
    ) -> dict[str, int]:
        """Write one session's maps and held-out predictions; return the models' parameters."""
        sets = [test.fit.require_stimuli(), test.held_out.require_stimuli()]
        fit, held_out = (self.store.features(self.backbone, s) for s in sets)
        seen, new = (None, None) if self.prior is None else (self.prior(s) for s in sets)
        responses = test.fit.mean_responses[:, test.usable]
        session = SessionFeatures(test.fit.id, np.asarray(fit), responses)
        mapped, out_of_sample = map_teacher(members, session, seen)
        ridge = RidgeLOO(device=self.device).fit(flat(fit), session.z_scored())
        mapped.save(folder / "teacher")
        np.save(folder / "fitted_teacher.npy", out_of_sample)
        np.save(folder / "held_out_ridge.npy", ridge.predict(flat(held_out)))
        np.save(folder / "held_out_teacher.npy", mapped.predict(held_out, new))
        of_backbone = sum(p.numel() for p in self.backbone.network.parameters())
        of_prior = 0 if self.prior is None else self.prior.n_parameters
        return {
            BACKBONE_RIDGE: of_backbone + ridge.coef_.size,
            TEACHER: of_backbone + mapped.n_parameters + of_prior,
        }

    def session_features(
        self, session: Session, advance: Callable[[int], None] = lambda n: None
    ) -> SessionFeatures:
        """Return a session as the ensemble sees it; features not stored are computed."""
        features = self.store.features(self.backbone, session.require_stimuli(), advance=advance)
        return SessionFeatures(session.id, features, session.mean_responses)

    def _n_session_images(self) -> int:
        return sum(s.n_stimuli for s in (*self.inputs.train, self.inputs.validation))


def _published_paths(release: str, session: Session, usable: np.ndarray) -> list[Path]:
    paths = published_models(release, session.id)
    missing = [int(k) for k in usable if int(k) not in paths]
    if missing:
        raise InputError(f"no published model of neurons {missing} of session {session.id}")
    return [paths[int(k)] for k in usable]


def _size(test: TestSession, neuron: int, name: str, model: CompactModel) -> dict[str, object]:
    return {
        "session": test.fit.id,
        "neuron": neuron,
        "model": name,
        "n_parameters": model.n_parameters.total,
        "n_filters": sum(model.filters_per_layer),
    }


def join_groups(folder: Path, parts: Sequence[Path]) -> None:
    """Write the members that `Stages.fit_group` wrote into several folders as those of one.

    ``validation`` in ``history.json`` is then the mean of the groups' scores, beside each group's.
    """
    state: dict[str, torch.Tensor] = {}
    histories = []
    first = 0
    for part in parts:
        of_part = safetensors.torch.load_file(part / _MEMBERS)
        numbers = {name: int(name.split(".")[0]) for name in of_part}
        state |= {
            f"{first + number}.{name.split('.', 1)[1]}": of_part[name]
            for name, number in numbers.items()
        }
        first += 1 + max(numbers.values())
        histories.append(json.loads((part / _HISTORY).read_text()))
    safetensors.torch.save_file(state, folder / _MEMBERS)
    joined = dict(histories[0])
    if len(parts) > 1:
        groups = [history["validation"] for history in histories]
        joined |= {"validation": np.mean(groups, axis=0).tolist(), "groups": groups}
    write_json(folder / _HISTORY, joined)


def _save_members(members: Sequence[EnsembleMember], path: Path) -> None:
    state = {
        f"{k}.{name}": tensor.cpu().contiguous()
        for k, member in enumerate(members)
        for name, tensor in member.state_dict().items()
    }
    safetensors.torch.save_file(state, path)
