"""Learning rates rise and fall as they say; seeded weights leave the global generator alone."""

import numpy as np
import pytest
import torch

from pocketcortex.training.schedule import one_cycle, seeded


def test_rate_rises_in_a_line_then_falls_to_zero() -> None:
    rates = [one_cycle(0.1, step, 100, 0.2) for step in range(101)]
    np.testing.assert_allclose(rates[:20], 0.1 * np.arange(1, 21) / 20)
    assert max(rates) == pytest.approx(0.1)
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[60] == pytest.approx(0.05)
    assert rates[100] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("n_steps", [1, 2, 3])
def test_short_runs_have_a_rate_above_zero_at_every_step(n_steps: int) -> None:
    rates = [one_cycle(0.1, step, n_steps, 0.1) for step in range(n_steps)]
    assert all(0 < rate <= 0.1 for rate in rates)


def test_same_seed_builds_the_same() -> None:
    first, second, other = (seeded(s, lambda: torch.randn(3)) for s in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_global_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    seeded(0, lambda: torch.randn(3))
    with pytest.raises(ZeroDivisionError):
        seeded(0, lambda: torch.randn(3) / (1 // 0))
    assert torch.equal(torch.get_rng_state(), state)
