"""One neuron, studied piece by piece: each piece computed when asked for and then kept."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from pocketcortex.core import decode_image
from pocketcortex.explorer.cache import NeuronCache
from pocketcortex.explorer.held_out import HeldOut
from pocketcortex.explorer.natural import NaturalImages
from pocketcortex.explorer.neurons import Neuron
from pocketcortex.explorer.pictures import to_png
from pocketcortex.explorer.run_stimuli import RunStimuli

if TYPE_CHECKING:
    from pocketcortex.models import CompactModel

N_STEPS = 100
"""Gradient steps of the synthesized images of the population view, unless said otherwise."""
SEED = 0
BUDGET = 4.0
"""Root mean square change of adversarial images, in levels."""

_N_FIELD = 16
_KINDS = ("synthesized_max", "natural_max", "natural_min", "synthesized_min")
_CHANGED = ("base", "raised", "lowered")


@dataclass(frozen=True, eq=False)
class Study:
    """What can be known of a neuron.

    Attributes
    ----------
    neuron
        Which.
    kept
        Where what was computed is kept.
    natural
        Images that it is shown.
    run, target
        Stimuli of the run it is from, and its place among their targets; None without.
    n_steps
        Gradient steps of synthesized images.
    held_out
        Recordings that it can be scored on; None without.
    """

    neuron: Neuron
    kept: NeuronCache
    natural: NaturalImages
    run: RunStimuli | None = None
    target: int | None = None
    n_steps: int = N_STEPS
    held_out: HeldOut | None = None
    locks: dict[str, RLock] = field(default_factory=lambda: defaultdict(RLock), init=False)

    @cached_property
    def model(self) -> "CompactModel":
        """The model, read once."""
        return self.neuron.load()

    def stored(self, name: str) -> dict[str, Any] | None:
        """Return what is kept of it under a name, None if it was not computed yet."""
        return self.kept.json(name)

    def described(self) -> dict[str, Any]:
        """Return sizes: filters of each stage, parameters, image size."""

        def make() -> dict[str, Any]:
            model = self.model
            return {
                "filters": list(model.filters_per_layer),
                "n_filters": sum(model.filters_per_layer),
                "parameters": model.n_parameters.total,
                "image_size": list(model.image_size),
            }

        return self._once("described", make)

    def looks(self, pause: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Return which images drive and silence it most, and the responses to them.

        Those of the run where it has them; else the best of the natural images, and synthesized
        ones of `n_steps` steps.

        Parameters
        ----------
        pause
            Called between steps; may wait.
        """

        def make() -> dict[str, Any]:
            pictures: dict[str, tuple[np.ndarray, float]] = {}
            sources: dict[str, str] = {}
            if self.run is not None and self.target is not None:
                for kind in _KINDS:
                    if (found := self.run.first(kind, self.target)) is not None:
                        pictures[kind], sources[kind] = found, "run"
            told: dict[str, Any] = {}
            if not {"natural_max", "natural_min"} <= set(pictures):
                images = self.natural.read(self.model.image_size)
                answers = self.respond(images, pause)
                told = {"natural_mean": float(answers.mean()), "natural_sd": float(answers.std())}
                for kind, k in (
                    ("natural_max", answers.argmax()),
                    ("natural_min", answers.argmin()),
                ):
                    if kind not in pictures:
                        pictures[kind] = (images[k], float(answers[k]))
                        sources[kind] = f"number {k} of {self.natural.words}"
            for kind in ("synthesized_max", "synthesized_min"):
                if kind not in pictures:
                    pictures[kind] = self._synthesized(kind == "synthesized_min", pause)
                    sources[kind] = f"{self.n_steps} steps, seed {SEED}"
            for kind, (image, _) in pictures.items():
                self.kept.keep_picture(kind, to_png(image))
            responses = {kind: response for kind, (_, response) in pictures.items()}
            return {"responses": responses, "sources": sources, **told}

        return self._once("looks", make)

    def respond(
        self, images: UInt8[np.ndarray, "n 3 h w"], pause: Callable[[], None] = lambda: None
    ) -> np.ndarray:
        """Return the model's responses, in float64."""
        import torch

        from pocketcortex.models import PairedStack

        stack = PairedStack([self.model])
        parts = []
        for first in range(0, len(images), 16):
            pause()
            some = torch.from_numpy(images[first : first + 16])
            parts.append(stack.responses(some[None])[0].double().numpy())
        return np.concatenate(parts)

    def field(self) -> dict[str, Any]:
        """Return its receptive field: centre and diameter in pixels, None where it has none."""

        def make() -> dict[str, Any]:
            from pocketcortex.dissect import receptive_fields

            some = self._field_images()
            found = receptive_fields([self.model], some)
            values = (found.x_px[0], found.y_px[0], found.diameter_px[0])
            told = [None if np.isnan(value) else float(value) for value in values]
            return dict(zip(("x_px", "y_px", "diameter_px"), told, strict=True)) | {
                "n_images": len(some)
            }

        return self._once("field", make)

    def adversarial(self) -> dict[str, Any]:
        """Return a natural image, and it changed to raise and to lower the response."""

        def make() -> dict[str, Any]:
            pictures: Sequence[tuple[np.ndarray, float] | None] = (None,)
            if self.run is not None and self.target is not None:
                pictures = (
                    self.run.base("adversarial+", self.target),
                    self.run.first("adversarial+", self.target),
                    self.run.first("adversarial-", self.target),
                )
            source = "run"
            if any(one is None for one in pictures):
                pictures, source = self._changed(), f"number 0 of {self.natural.words}"
            responses = {}
            for name, one in zip(_CHANGED, pictures, strict=True):
                assert one is not None  # noqa: S101 - replaced above
                self.kept.keep_picture(name, to_png(one[0]))
                responses[name] = one[1]
            return {"responses": responses, "source": source, "budget": BUDGET}

        return self._once("adversarial", make)

    def score(self, pause: Callable[[], None] = lambda: None) -> dict[str, Any] | None:
        """Return how well it predicts its neuron on images that fitted nothing; None if unknown.

        Parameters
        ----------
        pause
            Called between steps; may wait.
        """
        if self.held_out is None:
            return None
        held_out = self.held_out

        def make() -> dict[str, Any]:
            size = self.model.image_size[0]
            return held_out.score(self.neuron, size, lambda some: self.respond(some, pause))

        return self._once(f"r2-{held_out.key(self.neuron)}", make)

    def stored_score(self) -> dict[str, Any] | None:
        """Return its score if that was computed already."""
        if self.held_out is None:
            return None
        return self.stored(f"r2-{self.held_out.key(self.neuron)}")

    @property
    def natural_name(self) -> str:
        """What to call the images that were sought among: ``natural`` or ``dead leaves``."""
        looks = self.stored("looks")
        from_run = self.run is not None and (
            looks is None or looks["sources"]["natural_max"] == "run"
        )
        return self.run.name if self.run is not None and from_run else self.natural.name

    def picture(self, name: str) -> bytes | None:
        """Return a kept picture as PNG, None if there is none of that name."""
        return self.kept.picture(name) if name in (*_KINDS, *_CHANGED) else None

    def image(self, name: str) -> UInt8[np.ndarray, "3 h w"] | None:
        """Return a kept picture's pixels."""
        png = self.picture(name)
        return None if png is None else decode_image(png, name)

    def _once(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what is kept under a name, computing it first if need be."""
        if (value := self.kept.json(name)) is not None:
            return value
        with self.locks[name]:  # two who ask at once are answered by one computation
            value = self.kept.json(name)
            if value is None:
                value = make()
                self.kept.keep_json(name, value)
            return value

    def _synthesized(self, minimize: bool, pause: Callable[[], None]) -> tuple[np.ndarray, float]:
        from pocketcortex.stimuli import synthesis_steps

        for one in synthesis_steps(self.model, n_steps=self.n_steps, seed=SEED, minimize=minimize):
            pause()
            if one.step == self.n_steps:
                return one.best, one.best_response
        raise AssertionError("a synthesis ends with its last step")

    def _field_images(self) -> UInt8[np.ndarray, "n 3 h w"]:
        if self.run is not None and len(some := self.run.random(_N_FIELD)):
            return some
        return self.natural.read(self.model.image_size)[:_N_FIELD]

    def _changed(self) -> list[tuple[np.ndarray, float]]:
        from pocketcortex.stimuli import adversarial

        base = self.natural.read(self.model.image_size)[None, :1]
        up = adversarial([self.model], base, direction="raise", budget=BUDGET)
        down = adversarial([self.model], base, direction="lower", budget=BUDGET)
        return [
            (base[0, 0], float(up.base_responses[0, 0])),
            (up.images[0, 0], float(up.responses[0, 0])),
            (down.images[0, 0], float(down.responses[0, 0])),
        ]
