"""Are planted circuits found? Explain compact models whose truth is known, and shuffled ones.

    python examples/insilico_circuits.py runs/circuits
"""

import argparse
from pathlib import Path

import numpy as np
from insilico_areas import Setting, compressed

from pocketcortex.core import keep_freed_memory, write_json
from pocketcortex.data import InSilicoCortex, Neuron, dead_leaves
from pocketcortex.metrics import pearson_r2
from pocketcortex.models import CompactModel, CompactStack

SETTING = Setting(n_retraining=2000)
_FRESH_SEED = 90_001


def neurons_of(seed: int, n: int) -> list[Neuron]:
    """Return the neurons of an animal, kinds equally likely."""
    cortex = InSilicoCortex(seed, SETTING.image_size)
    return list(cortex.sample_neurons(n, rng=np.random.default_rng([seed, 0])))


def models_of(out: Path, seed: int, n: int) -> list[CompactModel]:
    """Return compact models distilled from the true rates of an animal's neurons, made once."""
    import torch

    folder = out / f"animal{seed}"
    if not (folder / "models.json").exists():
        cortex, neurons = InSilicoCortex(seed, SETTING.image_size), neurons_of(seed, n)
        images = dead_leaves(SETTING.n_images, size=SETTING.image_size, seed=seed)
        models = compressed(images, cortex.rates(images, neurons), SETTING, seed)
        fresh = dead_leaves(SETTING.n_fresh, size=SETTING.image_size, seed=_FRESH_SEED)
        predicted = CompactStack(models).predict(torch.from_numpy(fresh)).double().numpy()
        r2 = pearson_r2(cortex.rates(fresh, neurons), predicted)
        for k, model in enumerate(models):
            model.save(folder / f"neuron{k:03d}")
        write_json(folder / "models.json", {"n": n, "r2": r2.tolist()})
    return [CompactModel.load(folder / f"neuron{k:03d}") for k in range(n)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102])
    parser.add_argument("--neurons", type=int, default=60)
    arguments = parser.parse_args()
    keep_freed_memory()
    for seed in arguments.seeds:
        models_of(arguments.out, seed, arguments.neurons)


if __name__ == "__main__":
    main()
