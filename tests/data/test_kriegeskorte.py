"""Reader of the 92 images with monkey and human IT."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import pdist, squareform

from pocketcortex.core import InputError
from pocketcortex.data import read_kriegeskorte


def write(folder: Path, *, n_images: int = 4, **changes: np.ndarray) -> Path:
    rdm = squareform(pdist(np.random.default_rng(0).normal(size=(4, 9)), "correlation"))
    arrays = {"monkey_IT_rdm": rdm, "human_IT_rdm": rdm / 2} | changes
    np.savez(folder / "kriegeskorte2008.npz", allow_pickle=False, **arrays)
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for k in reversed(range(1, n_images + 1)):
            buffer = io.BytesIO()
            Image.new("RGB", (5, 5), (k, k, k)).save(buffer, format="PNG")
            archive.writestr(f"{k:02d}.png", buffer.getvalue())
    return folder


def test_areas_have_images_in_the_order_of_the_matrices(tmp_path: Path) -> None:
    monkey, human = read_kriegeskorte(write(tmp_path))
    assert (monkey.id, monkey.species) == ("kriegeskorte2008/monkey-IT", "macaque")
    assert (human.id, human.species) == ("kriegeskorte2008/human-IT", "human")
    assert monkey.stimuli.images()[:, 0, 0, 0].tolist() == [1, 2, 3, 4]
    assert monkey.rdms is not None
    assert human.rdms is not None
    np.testing.assert_array_equal(monkey.rdms, 2 * human.rdms)


def test_refuses(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must be \(n_subjects, 3, 3\) for 3 images"):
        read_kriegeskorte(write(tmp_path, n_images=3))
    np.savez(tmp_path / "kriegeskorte2008.npz", monkey_IT_rdm=np.zeros((3, 3)))
    with pytest.raises(InputError, match="has no human_IT_rdm"):
        read_kriegeskorte(tmp_path)
    (tmp_path / "images.zip").unlink()
    with pytest.raises(InputError, match="does not exist"):
        read_kriegeskorte(tmp_path)


@pytest.mark.data
def test_released(real_data: Path) -> None:
    monkey, human = read_kriegeskorte(real_data / "it")
    assert monkey.n_stimuli == human.n_stimuli == 92
    assert monkey.stimuli.image_size == (175, 175)
    assert monkey.rdms is not None
    upper = np.triu_indices(92, 1)
    arrays = np.load(real_data / "it" / "kriegeskorte2008.npz")
    animal = arrays["animal"].astype(bool)
    within = animal[upper[0]] & animal[upper[1]]
    across = animal[upper[0]] != animal[upper[1]]
    distances = monkey.rdms[0][upper]
    assert distances[within].mean() < distances[across].mean()
