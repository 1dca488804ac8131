"""Where sessions and images come from: readers of files, image banks, the in-silico cortex."""

from pocketcortex.data.circuits import KINDS, Neuron
from pocketcortex.data.dead_leaves import dead_leaves
from pocketcortex.data.insilico import InSilicoCortex, insilico_neurons, insilico_recordings
from pocketcortex.data.npz import read_npz
from pocketcortex.data.sources import read_recordings
from pocketcortex.data.v4 import natural_stimuli, read_v4

__all__ = [
    "KINDS",
    "InSilicoCortex",
    "Neuron",
    "dead_leaves",
    "insilico_neurons",
    "insilico_recordings",
    "natural_stimuli",
    "read_npz",
    "read_recordings",
    "read_v4",
]
