"""The stages of a run: each reads finished folders and fills its own."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from jaxtyping import UInt8

from pocketcortex.compress import layer_statistics, prune, readout_contributions
from pocketcortex.core import InputError, Session, StimulusSet, read_array, write_json
from pocketcortex.mapping import RidgeLOO
from pocketcortex.models import (
    CompactModel,
    CompactStack,
    EnsembleMember,
    EnsembleModel,
    EnsembleShape,
    SharedCompactModel,
    import_compact_model,
    published_models,
    published_shared_models,
)
from pocketcortex.pipeline.config import RunConfig
from pocketcortex.pipeline.inputs import RunInputs, distillation_images
from pocketcortex.pipeline.progress import progress_bar
from pocketcortex.pipeline.scores import medians, score_table
from pocketcortex.pipeline.teacher import (
    BACKBONE_RIDGE,
    PUBLISHED,
    TEACHER,
    Prior,
    PriorFeatures,
    TeacherScores,
    best_layer,
    flat,
    map_teacher,
)
from pocketcortex.stimuli import strongest, synthesize_all
from pocketcortex.training import (
    Distillation,
    EnsembleTraining,
    SessionFeatures,
    distill,
    fit_members,
    retrain,
)
from pocketcortex.zoo import Backbone, FeatureStore

STUDENT, COMPACT = "student", "compact"
_CHECKPOINT = "checkpoint.safetensors"


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
    """

    config: RunConfig
    inputs: RunInputs
    backbone: Backbone
    store: FeatureStore
    device: str

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
    def bank_parts(self) -> list[StimulusSet]:
        """Images to distil with, one set for each source."""
        return distillation_images(self.inputs, self.config.students, self.seed)

    @cached_property
    def bank(self) -> StimulusSet:
        """The same as one set."""
        return StimulusSet.concatenate(self.bank_parts)

    @cached_property
    def bank_images(self) -> UInt8[np.ndarray, "n 3 height width"]:
        """The same, decoded, in memory."""
        return self.bank.images()

    def check(self) -> None:
        """Raise InputError for what only a late stage reads: the banks, published models."""
        _ = self.bank
        release = self.config.recordings.published_models
        if release is not None:
            _published_paths(release, self.inputs.fit, self.inputs.usable)

    def teacher(self, folder: Path) -> None:
        """Train the ensemble's members over the training sessions."""
        settings = self.config.teacher
        with progress_bar("features: sessions", self._n_session_images()) as advance:
            train = [self._session_features(s, advance) for s in self.inputs.train]
            validation = self._session_features(self.inputs.validation, advance)
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
                n_members=settings.n_members, training=training, seed=self.seed,
                device=self.device, checkpoint=folder / _CHECKPOINT, advance=advance,
            )  # fmt: skip
        _save_members(members, folder / "members.safetensors")
        write_json(folder / "history.json", {"shape": shape.as_dict(), "validation": history})
        (folder / _CHECKPOINT).unlink()

    def mapping(self, folder: Path, teacher: Path) -> None:
        """Map backbone and ensemble to the test neurons; write the teacher's responses."""
        members = self.load_members(teacher)
        fit, held_out = self.inputs.fit, self.inputs.held_out
        sets = [fit.require_stimuli(), held_out.require_stimuli(), *self.bank_parts]
        with progress_bar("features: bank", sum(len(s) for s in sets)) as advance:
            fit_features, held_features, *bank_features = (
                self.store.features(self.backbone, s, advance=advance) for s in sets
            )
        prior: list[PriorFeatures | None] = [None] * len(sets)
        if self.prior is not None:
            with progress_bar("features: published model", sum(map(len, sets))) as advance:
                prior = [self.prior(s, advance) for s in sets]
        responses = fit.mean_responses[:, self.inputs.usable]
        fitted = SessionFeatures(fit.id, np.asarray(fit_features), responses)
        mapped = map_teacher(members, fitted, prior[0])
        ridge = RidgeLOO(device=self.device).fit(flat(fit_features), fitted.z_scored())
        np.save(folder / "fitted_teacher.npy", mapped.held_out_predictions)
        np.save(folder / "held_out_ridge.npy", ridge.predict(flat(held_features)))
        np.save(folder / "held_out_teacher.npy", mapped.predict(held_features, prior[1]))
        bank = zip(bank_features, prior[2:], strict=True)
        np.save(folder / "bank_teacher.npy", np.concatenate([mapped.predict(*b) for b in bank]))
        n_parameters = {
            BACKBONE_RIDGE: self._backbone_parameters() + ridge.coef_.size,
            TEACHER: self._backbone_parameters() + mapped.n_parameters,
        }
        if self.prior is not None:
            n_parameters[TEACHER] += self.prior.n_parameters
        write_json(folder / "parameters.json", n_parameters)
        _save_ensemble(mapped.ensemble, folder / "ensemble.safetensors")

    def students(self, folder: Path, mapping: Path) -> None:
        """Distil the teacher into one shared network for all neurons."""
        settings = self.config.students
        distillation = Distillation(
            n_epochs=settings.n_epochs,
            learning_rate=settings.learning_rate,
            batch_size=settings.batch_size,
            smoothing=settings.smoothing,
            mixing_l1=settings.mixing_l1,
        )
        targets = read_array(mapping / "bank_teacher.npy")
        with progress_bar("students", settings.n_epochs * len(self.bank)) as advance:
            shared = distill(
                self.bank_images, targets, settings.filters, distillation,
                seed=self.seed, device=self.device, checkpoint=folder / _CHECKPOINT,
                advance=advance,
            )  # fmt: skip
        state = {k: v.cpu().contiguous() for k, v in shared.state_dict().items()}
        safetensors.torch.save_file(state, folder / "shared.safetensors")
        (folder / _CHECKPOINT).unlink()

    def compact(self, folder: Path, mapping: Path, students: Path) -> None:
        """Prune each neuron's copy of the student and train it further."""
        settings = self.config.compact
        shared = self._load_shared(students).to(self.device)
        targets = read_array(mapping / "bank_teacher.npy")
        rng = np.random.default_rng([self.seed, 1])
        chosen = np.sort(rng.permutation(len(self.bank))[: settings.n_pruning_images])
        with progress_bar("pruning", len(self.inputs.usable)) as advance:
            images = self.bank_images[chosen]
            statistics = layer_statistics(shared.layers, images)
            readouts = shared.mixing[:, :, None, None] * shared.spatial[:, None]
            contributions = readout_contributions(shared.layers, readouts.detach(), images)
            pruned = []
            for k, model in enumerate(shared.compact_models()):
                teacher = targets[chosen, k]
                pruned.append(
                    prune(
                        model, statistics, contributions[:, k], teacher,
                        threshold=settings.threshold, min_filters=settings.min_filters,
                    )
                )  # fmt: skip
                advance(1)
        used = np.sort(rng.permutation(len(self.bank))[: settings.n_images])
        distillation = Distillation(
            n_epochs=settings.n_epochs,
            learning_rate=settings.learning_rate,
            batch_size=settings.batch_size,
            smoothing=settings.smoothing,
        )
        with progress_bar("retraining", settings.n_epochs * len(used) * len(pruned)) as advance:
            models = retrain(
                pruned, self.bank_images[used], targets[used], distillation,
                seed=self.seed, device=self.device, checkpoint=folder / _CHECKPOINT,
                advance=advance,
            )  # fmt: skip
        for neuron, model in zip(self.inputs.usable, models, strict=True):
            model.cpu().save(folder / f"neuron{neuron:03d}")
        for path in folder.glob("checkpoint*"):
            path.unlink()

    def scores(self, folder: Path, mapping: Path, students: Path, compact: Path) -> None:
        """Score every kind of model on the held-out half: the only place that looks at it."""
        inputs = self.inputs
        images = torch.from_numpy(inputs.held_out.require_stimuli().images())
        models = self.load_compact(compact)
        predictions = {
            BACKBONE_RIDGE: read_array(mapping / "held_out_ridge.npy"),
            TEACHER: read_array(mapping / "held_out_teacher.npy"),
            STUDENT: _predict_shared(self._load_shared(students), images),
            COMPACT: CompactStack(models).predict(images).numpy(),
        }
        parameters: dict[str, float] = json.loads((mapping / "parameters.json").read_text())
        parameters[COMPACT] = float(np.median([m.n_parameters.total for m in models]))
        release = self.config.recordings.published_models
        if release is not None:
            paths = _published_paths(release, inputs.fit, inputs.usable)
            published = [import_compact_model(path) for path in paths]
            predictions[PUBLISHED] = CompactStack(published).predict(images).numpy()
            counts = [m.n_parameters.total for m in published]
            parameters[PUBLISHED] = float(np.median(counts))
        table = score_table(inputs.held_out, predictions, inputs.usable, inputs.unusable, self.seed)
        table.to_parquet(folder / "scores.parquet", index=False)
        for name, predicted in predictions.items():
            np.save(folder / f"predicted_{name.replace(' ', '_')}.npy", predicted)
        write_json(
            folder / "summary.json",
            {
                "session": inputs.held_out.id,
                "n_neurons": len(inputs.usable),
                "n_images_fit": inputs.fit.n_stimuli,
                "n_images_held_out": inputs.held_out.n_stimuli,
                "n_images_distilled": len(self.bank),
                "seed": self.seed,
                "scores": medians(table, self.seed),
                "n_parameters": parameters,
                "unusable_neurons": {str(k): why for k, why in inputs.unusable.items()},
            },
        )

    def stimuli(self, folder: Path, mapping: Path, compact: Path) -> None:
        """Find each compact model's preferred image, synthesized and among the bank's."""
        settings = self.config.stimuli
        models = [model.to(self.device) for model in self.load_compact(compact)]
        with progress_bar("preferred stimuli", len(models)) as advance:
            images = synthesize_all(
                models, n_starts=settings.n_starts, n_steps=settings.n_steps,
                seed=self.seed, advance=advance,
            )  # fmt: skip
        np.save(folder / "synthesized.npy", images)
        chosen = np.sort(np.random.default_rng([self.seed, 2]).permutation(len(self.bank))[:2000])
        candidates = torch.from_numpy(self.bank_images[chosen])
        responses = CompactStack(models).predict(candidates.to(self.device)).cpu().numpy()
        best = strongest(responses, 1)[0]
        np.save(folder / "natural.npy", self.bank_images[chosen[best]])

    def load_compact(self, folder: Path) -> list[CompactModel]:
        """Return the compact models of a finished stage, in the order of the usable neurons."""
        return [CompactModel.load(folder / f"neuron{k:03d}") for k in self.inputs.usable]

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

    def load_members(self, teacher: Path) -> list[EnsembleMember]:
        """Return the members of a finished stage, on the run's device."""
        shape = EnsembleShape(**json.loads((teacher / "history.json").read_text())["shape"])
        state = safetensors.torch.load_file(teacher / "members.safetensors")
        members = []
        for k in range(1 + max(int(name.split(".")[0]) for name in state)):
            member = EnsembleMember(shape)
            prefix = f"{k}."
            member.load_state_dict(
                {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
            )
            members.append(member.eval().to(self.device))
        return members

    def _load_shared(self, students: Path) -> SharedCompactModel:
        size = self.inputs.fit.require_stimuli().image_size
        model = SharedCompactModel(self.config.students.filters, len(self.inputs.usable), size)
        model.load_state_dict(safetensors.torch.load_file(students / "shared.safetensors"))
        return model.eval()

    def _session_features(
        self, session: Session, advance: Callable[[int], None]
    ) -> SessionFeatures:
        features = self.store.features(self.backbone, session.require_stimuli(), advance=advance)
        return SessionFeatures(session.id, features, session.mean_responses)

    def _n_session_images(self) -> int:
        return sum(s.n_stimuli for s in (*self.inputs.train, self.inputs.validation))

    def _backbone_parameters(self) -> int:
        return sum(p.numel() for p in self.backbone.network.parameters())


def _published_paths(
    release: str, session: Session, usable: Sequence[int] | np.ndarray
) -> list[Path]:
    paths = published_models(release, session.id)
    missing = [int(k) for k in usable if int(k) not in paths]
    if missing:
        raise InputError(f"no published model of neurons {missing} of session {session.id}")
    return [paths[int(k)] for k in usable]


def _predict_shared(model: SharedCompactModel, images: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        return torch.cat([model(batch) for batch in images.split(16)]).numpy()


def _save_members(members: Sequence[EnsembleMember], path: Path) -> None:
    state = {
        f"{k}.{name}": tensor.cpu().contiguous()
        for k, member in enumerate(members)
        for name, tensor in member.state_dict().items()
    }
    safetensors.torch.save_file(state, path)


def _save_ensemble(ensemble: EnsembleModel, path: Path) -> None:
    state = {k: v.cpu().contiguous() for k, v in ensemble.state_dict().items()}
    safetensors.torch.save_file(state, path)
