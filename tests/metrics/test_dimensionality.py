import numpy as np
import pytest

from pocketcortex.core import InputError
from pocketcortex.metrics import effective_dimensionality, participation_ratio


def test_dimensionality_is_the_ratio_of_the_eigenvalues() -> None:
    x = np.random.default_rng(0).normal(size=(50, 6)) * np.arange(1, 7)
    covariance = np.cov(x.T)
    values = np.linalg.eigvalsh(covariance)
    assert effective_dimensionality(covariance) == pytest.approx(participation_ratio(values))
    assert effective_dimensionality(np.eye(7)) == pytest.approx(7)


def test_nothing_has_no_dimensions() -> None:
    assert np.isnan(effective_dimensionality(np.zeros((3, 3))))
    assert np.isnan(participation_ratio(np.zeros((2, 3)))).all()


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="0 or more"):
        participation_ratio(np.array([1.0, -1.0]))
    with pytest.raises(InputError, match="finite"):
        participation_ratio(np.array([1.0, np.nan]))
    with pytest.raises(InputError, match="symmetric"):
        effective_dimensionality(np.array([[1.0, 2.0], [0.0, 1.0]]))
    with pytest.raises(InputError, match=r"\(n, n\)"):
        effective_dimensionality(np.ones((2, 3)))
