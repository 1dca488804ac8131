"""The teacher by itself: train it, map it to sessions it never saw, score it beside its peers."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from jaxtyping import Float
from scipy.optimize import nnls
from torch import nn
from torch.nn import functional as F

from pocketcortex.core import InputError, StimulusSet, write_json
from pocketcortex.mapping import FactorizedMapping, RidgeLOO
from pocketcortex.metrics import pearson_r2
from pocketcortex.models import (
    CompactStack,
    EnsembleMember,
    EnsembleModel,
    SharedCompactModel,
    import_compact_model,
    import_shared_model,
    published_models,
    shared_outputs,
)
from pocketcortex.pipeline.inputs import TestSession
from pocketcortex.pipeline.progress import progress_bar
from pocketcortex.pipeline.scores import medians, score_table
from pocketcortex.training import SessionFeatures, map_ensemble, predict_responses
from pocketcortex.training.distill import with_prefix
from pocketcortex.zoo import Backbone, FeatureStore

LAYER_RIDGE, LAYER_FACTORIZED, BACKBONE_RIDGE = (
    "best layer, ridge", "best layer, factorized", "backbone ridge",
)  # fmt: skip
TEACHER, TEACHER_WITH_PRIOR = "teacher", "teacher with prior"
PUBLISHED = "published"
_POOLED = 4  # rows and columns of a published model's maps averaged into one


@dataclass(frozen=True)
class PriorFeatures:
    """What a published shared model makes of images.

    Attributes
    ----------
    maps
        Its last layer's maps, averaged to a quarter of their rows and columns.
    outputs
        Its answers for the neurons it was made for.
    """

    maps: Float[np.ndarray, "n channels rows columns"]
    outputs: Float[np.ndarray, "n n_outputs"]


class Prior:
    """A published shared model as a source of features, kept on disk like a backbone's.

    Parameters
    ----------
    path
        The model's ``.keras`` file.
    store
        Where the features are kept.
    device
        Where the model runs.
    """

    def __init__(self, path: str | Path, store: FeatureStore, device: str) -> None:
        self.model = import_shared_model(path)
        self._backbone = Backbone(_MapsAndOutputs(self.model), "both", device=device)
        self._store = store

    @property
    def key(self) -> str:
        """Hash of the model."""
        return self._backbone.key

    @property
    def n_parameters(self) -> int:
        """Numbers in the model."""
        return sum(t.numel() for t in self.model.state_dict().values() if t.is_floating_point())

    def __call__(
        self, stimuli: StimulusSet, advance: Callable[[int], None] = lambda n: None
    ) -> PriorFeatures:
        """Return the features of images, computing those that are not stored."""
        return self._split(self._store.features(self._backbone, stimuli, advance=advance))

    def features(self, images: torch.Tensor) -> PriorFeatures:
        """Return the features of raw images, storing nothing."""
        return self._split(self._backbone(images).cpu().numpy())

    def _split(self, both: np.ndarray) -> PriorFeatures:
        flattened = np.asarray(both[:, :, 0, 0], dtype=np.float32)
        n_outputs = len(self.model.bias)
        rows, columns = (size // _POOLED for size in self.model.spatial.shape[1:])
        maps = flattened[:, :-n_outputs].reshape(len(both), -1, rows, columns)
        return PriorFeatures(maps, flattened[:, -n_outputs:])


class _MapsAndOutputs(nn.Module):
    """A shared model's averaged maps and its answers as one vector, shaped like maps."""

    def __init__(self, model: SharedCompactModel) -> None:
        super().__init__()
        self.model = model
        self.both = nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.model.layers(images)
        pooled = F.avg_pool2d(maps, _POOLED).flatten(1)
        both: torch.Tensor = self.both(
            torch.cat([pooled, self.model.read_out(maps)], dim=1)[:, :, None, None]
        )
        return both


@dataclass(frozen=True)
class PriorMaps:
    """Maps from a published model's features to neurons.

    Attributes
    ----------
    outputs, outputs_intercept
        Coefficients of its answers.
    mixing, spatial, maps_intercept
        Weights of its channels and of their positions.
    """

    outputs: Float[np.ndarray, "n_outputs n_neurons"]
    outputs_intercept: Float[np.ndarray, " n_neurons"]
    mixing: Float[np.ndarray, "n_neurons channels"]
    spatial: Float[np.ndarray, "n_neurons rows columns"]
    maps_intercept: Float[np.ndarray, " n_neurons"]

    def predict(
        self, features: PriorFeatures
    ) -> tuple[Float[np.ndarray, "n n_neurons"], Float[np.ndarray, "n n_neurons"]]:
        """Return predictions from the answers and from the maps."""
        n, channels = features.maps.shape[:2]
        placed = features.maps.reshape(n * channels, -1) @ self.spatial.reshape(
            len(self.spatial), -1
        ).T.astype(np.float32)
        mixed = np.einsum("nck,kc->nk", placed.reshape(n, channels, -1), self.mixing)
        from_outputs = features.outputs @ self.outputs + self.outputs_intercept
        return from_outputs, mixed + self.maps_intercept


@dataclass(frozen=True)
class MappedTeacher:
    """The ensemble, and a published model where there is one, mapped to one session's neurons.

    Attributes
    ----------
    ensemble
        The members with their maps; answers are z-scored responses.
    weights
        Of the ensemble, of ridge from the published model's answers and of a factorized map from
        its maps, in the sum of the three that is the teacher's answer.
    prior
        The published model's maps to the neurons, None without one.
    """

    ensemble: EnsembleModel
    weights: tuple[float, float, float] = (1.0, 0.0, 0.0)
    prior: PriorMaps | None = None

    @property
    def n_parameters(self) -> int:
        """Numbers in the members and all maps, the backbone and the published model not counted."""
        count = self.ensemble.n_parameters
        if self.prior is not None:
            count += self.prior.outputs.size + self.prior.mixing.size + self.prior.spatial.size
        return count

    def predict(
        self,
        features: Float[np.ndarray, "n channels rows columns"],
        prior: PriorFeatures | None = None,
    ) -> Float[np.ndarray, "n n_neurons"]:
        """Return predictions from backbone features and the published model's, float32."""
        predicted = self.weights[0] * predict_responses(self.ensemble, features)
        if self.prior is not None and prior is not None:
            from_outputs, from_maps = self.prior.predict(prior)
            predicted = predicted + self.weights[1] * from_outputs + self.weights[2] * from_maps
        return np.asarray(predicted, dtype=np.float32)

    def save(self, folder: Path) -> None:
        """Write the maps, without the members, into a folder, which may be new."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {
            "weights": self.ensemble.weights.cpu().contiguous(),
            "intercepts": self.ensemble.intercepts.cpu().contiguous(),
        }
        if self.prior is not None:
            arrays |= {
                f"prior.{name}": torch.from_numpy(np.ascontiguousarray(value))
                for name, value in vars(self.prior).items()
            }
        safetensors.torch.save_file(arrays, folder / "maps.safetensors")
        write_json(folder / "teacher.json", {"weights": self.weights})

    @classmethod
    def load(cls, folder: Path, members: Sequence[EnsembleMember]) -> "MappedTeacher":
        """Read what `save` wrote, for the same members."""
        arrays = safetensors.torch.load_file(folder / "maps.safetensors")
        a, b, c = json.loads((folder / "teacher.json").read_text())["weights"]
        device = next(members[0].parameters()).device
        ensemble = EnsembleModel(members, arrays["weights"], arrays["intercepts"]).to(device)
        found = {name: t.numpy() for name, t in with_prefix(arrays, "prior.").items()}
        return cls(ensemble.eval(), (a, b, c), PriorMaps(**found) if found else None)


def map_teacher(
    members: Sequence[EnsembleMember],
    session: SessionFeatures,
    prior: PriorFeatures | None = None,
) -> tuple[MappedTeacher, Float[np.ndarray, "n_stimuli n_neurons"]]:
    """Map the ensemble, and a published model's features, to a session's neurons.

    The weights, none negative, are those of least squared error of the predictions held out within
    the session (stacking, Breiman 1996), over all neurons.

    Parameters
    ----------
    members
        Trained members.
    session
        The images and responses to map to; nothing else of the session is seen.
    prior
        The published model's features of the same images.

    Returns
    -------
    The mapped teacher, and predictions for the fitted images, each by maps that did not see it.
    """
    ensemble, held_out = map_ensemble(members, session)
    if prior is None:
        return MappedTeacher(ensemble), held_out
    targets = session.z_scored()
    device = ensemble.weights.device.type
    from_outputs = RidgeLOO(device=device).fit(prior.outputs, targets)
    from_maps = FactorizedMapping(device=device).fit(prior.maps, targets)
    parts = (held_out, from_outputs.loo_predictions_, from_maps.held_out_predictions_)
    stacked = np.stack([part.ravel() for part in parts], axis=1)
    weights, _ = nnls(stacked, targets.ravel())
    mixed = (stacked @ weights).reshape(targets.shape)
    a, b, c = (float(w) for w in weights)
    maps = PriorMaps(
        from_outputs.coef_,
        from_outputs.intercept_,
        from_maps.mixing_,
        from_maps.spatial_,
        from_maps.intercept_,
    )
    return MappedTeacher(ensemble, (a, b, c), maps), mixed


@dataclass(frozen=True)
class TeacherScores:
    """What `score_ensemble` compares on the held-out half of one test session.

    Attributes
    ----------
    members
        The trained members.
    backbone
        The features they take.
    best_layer
        The layer that predicts the validation session best by ridge, at its own resolution.
    store
        Features on disk.
    prior
        The published model averaged in, None without one.
    shared
        Published shared models to score beside, by name.
    release
        Folder of published compact models, None for none.
    """

    members: Sequence[EnsembleMember]
    backbone: Backbone
    best_layer: Backbone
    store: FeatureStore
    prior: Prior | None
    shared: dict[str, Prior]
    release: str | None

    def predictions(
        self, test: TestSession
    ) -> tuple[dict[str, Float[np.ndarray, "n n_usable"]], dict[str, tuple[float, ...]]]:
        """Return every model's predictions for the held-out half, and facts about the maps."""
        sets = [test.fit.require_stimuli(), test.held_out.require_stimuli()]
        fit, held = (self.store.features(self.backbone, s) for s in sets)
        layer_fit, layer_held = (self.store.features(self.best_layer, s) for s in sets)
        responses = test.fit.mean_responses[:, test.usable]
        session = SessionFeatures(test.fit.id, np.asarray(fit), responses)
        targets = session.z_scored()
        device = self.backbone.device.type
        ridge = RidgeLOO(device=device)
        found = {
            LAYER_RIDGE: ridge.fit(flat(layer_fit), targets).predict(flat(layer_held)),
            LAYER_FACTORIZED: FactorizedMapping(device=device)
            .fit(np.asarray(layer_fit, dtype=np.float32), targets)
            .predict(np.asarray(layer_held, dtype=np.float32)),
        }
        if len(self.backbone.layers) > 1:
            found[BACKBONE_RIDGE] = ridge.fit(flat(fit), targets).predict(flat(held))
        prior = [self.prior(s) for s in sets] if self.prior else [None, None]
        teacher, _ = map_teacher(self.members, session, prior[0])
        found[TEACHER] = predict_responses(teacher.ensemble, held)
        facts: dict[str, tuple[float, ...]] = {}
        if prior[1] is not None:
            found[TEACHER_WITH_PRIOR] = teacher.predict(held, prior[1])
            facts["weights"] = teacher.weights
        for name, model in self.shared.items():
            seen, new = (model(s).outputs for s in sets)
            try:
                own = np.arange(new.shape[1])[shared_outputs(test.fit.id)][test.usable]
                found[f"published shared, {name}"] = new[:, own]
            except InputError:  # it was made for other neurons
                mapped = ridge.fit(seen, targets).predict(new)
                found[f"published shared, {name}, mapped"] = mapped
        found |= self._published(test)
        return found, facts

    def _published(self, test: TestSession) -> dict[str, np.ndarray]:
        """Return what the session's own published compact models predict, where there are any."""
        if self.release is None:
            return {}
        try:
            paths = published_models(self.release, test.fit.id)
        except InputError:
            return {}
        if any(int(k) not in paths for k in test.usable):
            return {}
        models = [import_compact_model(paths[int(k)]) for k in test.usable]
        images = torch.from_numpy(test.held_out.require_stimuli().images())
        stack = CompactStack(models).to(self.backbone.device)
        predicted = stack.predict(images.to(self.backbone.device)).cpu().numpy()
        return {PUBLISHED: predicted}


def best_layer(
    backbone: Backbone, store: FeatureStore, stimuli: StimulusSet, responses: np.ndarray
) -> Backbone:
    """Return the layer that predicts a session best by ridge: mean leave-one-out r²."""
    scores: dict[Backbone, float] = {}
    for layer in backbone.layers:
        one = Backbone(
            backbone.network, layer, input_size=backbone.input_size, device=backbone.device
        )
        features = flat(store.features(one, stimuli))
        predicted = RidgeLOO(device=one.device.type).fit(features, responses).loo_predictions_
        scores[one] = float(np.nanmean(pearson_r2(responses, predicted)))
    return max(scores, key=scores.__getitem__)


def score_sessions(
    folder: Path, scores: TeacherScores, tests: Sequence[TestSession], seed: int
) -> dict[str, Any]:
    """Write every test session's scores and predictions; return each session's summary.

    ``scores.parquet`` is the tidy table over all sessions; ``predicted_SESSION.npz`` holds every
    model's predictions for the held-out images, ``(n_stimuli, n_usable)``.
    """
    tables, summaries = [], {}
    with progress_bar("test sessions", len(tests)) as advance:
        for test in tests:
            predictions, facts = scores.predictions(test)
            np.savez(folder / f"predicted_{test.name}.npz", **predictions)  # type: ignore[arg-type]
            table = score_table(
                test.held_out, predictions, test.usable, test.unusable, seed, brainscore=True
            )
            tables.append(table)
            summaries[test.fit.id] = {
                "n_neurons": len(test.usable),
                "n_images_fit": test.fit.n_stimuli,
                "n_images_held_out": test.held_out.n_stimuli,
                "scores": medians(table, seed),
                **facts,
            }
            advance(1)
    pd.concat(tables, ignore_index=True).to_parquet(folder / "scores.parquet", index=False)
    return summaries


def flat(features: np.ndarray) -> Float[np.ndarray, "n n_features"]:
    """Return features as rows, float32."""
    return np.asarray(features, dtype=np.float32).reshape(len(features), -1)
