"""Small models, an explorer over them, and its application behind its guard."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from explored_models import NAMES, TOKEN, small_model
from PIL import Image
from starlette.testclient import TestClient

from pocketcortex.explorer import Explorer, Guard, NaturalImages, make_app


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for k, name in enumerate(NAMES):
        small_model(k).save(folder / name)
    return folder


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of another size than the models'."""
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    small = np.random.default_rng(7).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(small).resize((96, 72), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture(scope="session")
def explorer(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Explorer:
    """An explorer whose background work is done."""
    cache = tmp_path_factory.mktemp("cache")
    made = Explorer(models, natural=NaturalImages(n=24), cache=cache, n_steps=12)
    made.background.start()
    made.background.join(timeout=60.0)
    assert not made.background.failures
    return made


@pytest.fixture
def client(explorer: Explorer) -> Iterator[TestClient]:
    app = Guard(make_app(explorer), TOKEN, ["127.0.0.1:80"])
    headers = {"authorization": f"Bearer {TOKEN}", "host": "127.0.0.1:80"}
    with TestClient(app, base_url="http://127.0.0.1:80", headers=headers) as made:
        yield made
