"""A synthesis as lines of JSON, one a step, for as long as somebody listens."""

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

from pocketcortex.explorer.background import Pacer
from pocketcortex.explorer.pictures import to_png
from pocketcortex.explorer.requests import AskedSynthesis
from pocketcortex.explorer.study import Study

_PICTURE_EVERY = 0.05
"""Seconds between two pictures."""


def synthesis_lines(study: Study, asked: AskedSynthesis, pacer: Pacer) -> Iterator[bytes]:
    """Yield a line of JSON for every step.

    ``step``, ``response``, ``best``, and now and then ``png``, the image as it is; the last one
    has ``done`` and the best image.

    Parameters
    ----------
    study
        The neuron.
    asked
        Seed, number of steps, direction.
    pacer
        Held while the lines are read.
    """
    from pocketcortex.stimuli import synthesis_steps

    shown = 0.0
    with pacer.user():
        steps = synthesis_steps(
            study.model, n_steps=asked.n_steps, seed=asked.seed, minimize=asked.minimize
        )
        for one in steps:
            line: dict[str, Any] = {
                "step": one.step, "response": one.response, "best": one.best_response,
            }  # fmt: skip
            if one.step == asked.n_steps:
                line |= {"done": True, "png": _base64(to_png(one.best))}
            elif time.monotonic() - shown >= _PICTURE_EVERY:
                line["png"], shown = _base64(to_png(one.image)), time.monotonic()
            yield json.dumps(line).encode() + b"\n"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
