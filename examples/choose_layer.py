"""Score backbone layers on one session, to choose a layer without touching the test session.

    POCKETCORTEX_DATA=DATA python examples/choose_layer.py 210224 resnet50v2 112 stage3.1 stage3.3

Ridge from all features of each layer to the session's repeat-averaged responses; one alpha for each
neuron; leave-one-out predictions; squared Pearson correlation, median and mean over neurons.
"""

import os
import sys
import tempfile
from pathlib import Path

import numpy as np

from pocketcortex.data import read_v4
from pocketcortex.mapping import RidgeLOO
from pocketcortex.metrics import pearson_r2
from pocketcortex.zoo import Backbone, FeatureStore, load_network


def main() -> None:
    """Print one line a layer."""
    session_id, network, size, *layers = sys.argv[1:]
    data = Path(os.environ["POCKETCORTEX_DATA"])
    session = read_v4(data / "v4")[session_id]
    for layer in layers:
        backbone = Backbone(
            load_network(f"{data}/weights/backbones.py:{network}"), layer, input_size=int(size)
        )
        with tempfile.TemporaryDirectory() as folder:
            features = FeatureStore(folder).features(backbone, session.require_stimuli())
            flat = np.asarray(features, dtype=np.float32).reshape(len(features), -1)
        predicted = RidgeLOO().fit(flat, session.mean_responses).loo_predictions_
        r2 = pearson_r2(session.mean_responses, predicted)
        print(f"{network} {layer} at {size}: median {np.median(r2):.4f}, mean {r2.mean():.4f}")


if __name__ == "__main__":
    main()
