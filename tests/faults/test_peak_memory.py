"""Memory stays flat while an image bank grows tenfold: measured, in processes of their own."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SIDE = 32
CHILD = """
import sys, threading, time
import numpy as np, torch
from pathlib import Path
from pocketcortex.core import new_array_file
from pocketcortex.data import read_bank
from pocketcortex.training import Distillation, distill_shared
from pocketcortex.zoo import Backbone, FeatureStore, filter_bank

torch.set_num_threads(1)
path, out = Path(sys.argv[1]), Path(sys.argv[2])
peak = 0

def watch():  # what is the process's own, not pages of files, which the system may take back
    global peak
    while True:
        status = Path("/proc/self/status").read_text()
        peak = max(peak, int(status.split("RssAnon:")[1].split()[0]) * 1024)
        time.sleep(0.01)

threading.Thread(target=watch, daemon=True).start()
bank = read_bank(path, 32)
responses = new_array_file(out, np.float32, (len(bank), 2))
rows = [np.arange(a, min(a + 64, len(bank))) for a in range(0, len(bank), 64)]
for index, images in zip(rows, bank.stream(rows), strict=True):
    level = images.mean(axis=(2, 3), dtype=np.float32)
    responses[index] = level[:, :2]
distill_shared(
    bank, responses, (2, 2, 2, 2, 2), Distillation(n_epochs=1, batch_size=64), seed=1,
    checkpoint=out.with_suffix(".checkpoint"),
)
bank.fingerprint
print(peak)
"""


def peak_bytes(folder: Path, n: int) -> int:
    """Return the peak of resident memory of labelling and distilling with a bank of n images."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    bank = np.lib.format.open_memmap(folder / "bank.npy", "w+", np.uint8, (n, 3, SIDE, SIDE))
    for start in range(0, n, 1000):
        part = bank[start : start + 1000]
        part[:] = rng.integers(0, 256, part.shape, dtype=np.uint8) // rng.integers(
            1, 4, (len(part), 3, 1, 1), dtype=np.uint8
        )
    bank.flush()
    del bank
    command = [sys.executable, "-c", CHILD, str(folder / "bank.npy"), str(folder / "t.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=1200)
    return int(done.stdout)


@pytest.mark.slow
def test_memory_is_flat_while_the_bank_grows_tenfold(tmp_path: Path) -> None:
    few, many = 3_000, 30_000
    small, large = peak_bytes(tmp_path / "few", few), peak_bytes(tmp_path / "many", many)
    grown = (large - small) / (many - few)  # bytes an image
    assert grown < 700, (
        f"{grown:.0f} bytes an image of {3 * SIDE**2}; {small:,} and {large:,} in all"
    )
    assert large < 1.1 * small
