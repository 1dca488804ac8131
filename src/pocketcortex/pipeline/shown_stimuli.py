"""The stimuli of a run's causal test as its report shows them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from pocketcortex.core import read_array
from pocketcortex.models import CompactModel
from pocketcortex.pipeline.causal import CausalSession
from pocketcortex.pipeline.config import StimuliConfig
from pocketcortex.pipeline.stimuli import grouped
from pocketcortex.stimuli import salient_patches, smoothing_saliency

_N_ROWS = 6
"""Neurons drawn in rows of their own: those whose models score best."""


@dataclass(frozen=True, eq=False)
class TestedStimuli:
    """A run's stimuli with the models' responses.

    Attributes
    ----------
    session
        The stimuli.
    folder
        The stage's folder.
    models
        The compact models, target after target.
    labels
        What each is called.
    device
        Where to compute.
    """

    __test__ = False  # not a test of ours, whatever its name

    session: CausalSession
    folder: Path
    models: Sequence[CompactModel]
    labels: Sequence[str]
    device: str

    def content(self, settings: StimuliConfig, order: Sequence[int]) -> dict[str, Any]:
        """Return what `ReportContent` takes of them, rows for the first neurons of `order`."""
        shown = list(order[:_N_ROWS])
        found: dict[str, Any] = {
            "galleries": {
                "bank": self._first("natural_max"),
                "synthesized": self._first("synthesized_max"),
            },
            "gallery_notes": {
                "bank": f"The strongest of {settings.n_candidates - settings.n_random:,} images "
                "of the distillation bank, drawn by seed.",
                "synthesized": f"{settings.n_synthesis_steps} steps of gradient ascent from "
                f"{settings.n_synthesized} noise images; the best image met.",
            },
        }
        found["groups"] = grouped(read_array(self.folder / "responses_to_bank.npy"))
        rows = f"The {len(shown)} neurons whose compact models score best."
        notes = {"causal": "Spikes of the simulated neurons, recorded afresh and matched to the "
                 "models by their responses to held-out images."}  # fmt: skip
        if settings.n_adversarial:
            found["adversarial"] = self._adversarial(shown)
            notes["adversarial"] = f"{rows} Largest change: {settings.budget:g} levels rms."
        if settings.n_smoothed:
            found["smoothed"] = self._smoothed(shown, settings.n_patches)
            notes["smoothed"] = f"{rows} {settings.n_patches} patches that do not overlap."
        return found | {"stimuli_notes": notes}

    def _rows(self, role: str) -> np.ndarray:
        """Return the place of each model's first stimulus of a role."""
        return np.array([self.session.roles.rows(role, k)[0] for k in range(len(self.models))])

    def _first(self, role: str) -> UInt8[np.ndarray, "n_models 3 h w"]:
        return self.session.stimuli.read(self._rows(role))

    def _responses(self, rows: Sequence[np.ndarray], shown: list[int]) -> np.ndarray:
        """Return each shown model's responses to its stimuli, ``(n_shown, n_roles)``."""
        answers = read_array(self.folder / "responses.npy")
        return np.stack([answers[own[shown], shown] for own in rows], axis=1)

    def _adversarial(self, shown: list[int]) -> dict[str, Any]:
        raised, lowered = self._rows("adversarial+"), self._rows("adversarial-")
        rows = (self.session.roles.base[raised], raised, lowered)
        base, up, down = (self.session.stimuli.read(own[shown]) for own in rows)
        return {
            "base": base, "raised": up, "lowered": down,
            "responses": self._responses(rows, shown), "labels": [self.labels[k] for k in shown],
        }  # fmt: skip

    def _smoothed(self, shown: list[int], n_patches: int) -> dict[str, Any]:
        rows = [self._rows(role) for role in ("natural_max", "smooth-", "smoothed_randomly")]
        images, smoothed, random = (self.session.stimuli.read(own[shown]) for own in rows)
        models = [self.models[k] for k in shown]
        saliency = smoothing_saliency(models, images[:, None], device=self.device)
        return {
            "images": images, "maps": saliency.maps[:, 0].astype(np.float64),
            "positions": saliency.positions,
            "patches": salient_patches(saliency, n=n_patches)[:, 0],
            "responses": self._responses(rows, shown), "labels": [self.labels[k] for k in shown],
            "patch": saliency.patch, "smoothed": smoothed, "random": random,
        }  # fmt: skip
