"""A synthesis watched step by step is the synthesis of `synthesize`."""

import numpy as np
import pytest
from perturbed_models import rectified_model

from pocketcortex.core import InputError
from pocketcortex.stimuli import synthesis_steps, synthesize


@pytest.mark.parametrize("minimize", [False, True])
@pytest.mark.parametrize("n_steps", [1, 53])
def test_the_last_step_is_what_synthesize_returns(n_steps: int, minimize: bool) -> None:
    model = rectified_model(3)
    steps = list(synthesis_steps(model, n_steps=n_steps, seed=9, minimize=minimize))
    made = synthesize([model], n_starts=1, n_steps=n_steps, seed=9, minimize=minimize)
    assert [one.step for one in steps] == list(range(n_steps + 1))
    np.testing.assert_array_equal(steps[-1].best, made.images[0, 0])
    assert steps[-1].best_response == pytest.approx(float(made.responses[0, 0]), rel=1e-6)


def test_the_best_never_gets_worse() -> None:
    model = rectified_model(3)
    steps = list(synthesis_steps(model, n_steps=40, seed=1))[:-1]
    best = [one.best_response for one in steps]
    assert best == sorted(best)
    assert all(one.best_response >= one.response for one in steps)


def test_a_silent_start_is_drawn_anew_alike() -> None:
    model = rectified_model(0)
    for norm in model.layers.norms[:1]:
        norm.bias.data.fill_(-60.0)  # low contrast never passes the first layer
    steps = list(synthesis_steps(model, n_steps=30, seed=2))
    made = synthesize([model], n_starts=1, n_steps=30, seed=2)
    np.testing.assert_array_equal(steps[-1].best, made.images[0, 0])


@pytest.mark.parametrize(("n_steps", "seed"), [(0, 0), (5, -1)])
def test_bad_numbers_are_refused(n_steps: int, seed: int) -> None:
    model = rectified_model(1)
    with pytest.raises(InputError, match="a step or more"):
        synthesis_steps(model, n_steps=n_steps, seed=seed)
