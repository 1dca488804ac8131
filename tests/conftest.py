"""Shared fixtures: where the real data are, and one thread per worker."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real data; missing is a failure under CI and a skip elsewhere."""
    named = os.environ.get("POCKETCORTEX_DATA")
    if named and (Path(named) / "v4").is_dir():
        return Path(named)
    if os.environ.get("CI"):
        pytest.fail(f"POCKETCORTEX_DATA={named!r} holds no v4 folder; CI needs the real data")
    pytest.skip("POCKETCORTEX_DATA does not name a folder with the real data")
