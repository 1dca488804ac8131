"""Where sessions and images come from: readers of files, image banks, the in-silico cortex."""

from pocketcortex.data.banks import read_bank
from pocketcortex.data.circuits import KINDS, Area, Neuron
from pocketcortex.data.dead_leaves import dead_leaves, dead_leaves_bank
from pocketcortex.data.insilico import InSilicoCortex, insilico_neurons, insilico_recordings
from pocketcortex.data.npz import read_npz
from pocketcortex.data.sources import read_recordings
from pocketcortex.data.v4 import natural_stimuli, read_v4

__all__ = [
    "KINDS",
    "Area",
    "InSilicoCortex",
    "Neuron",
    "dead_leaves",
    "dead_leaves_bank",
    "insilico_neurons",
    "insilico_recordings",
    "natural_stimuli",
    "read_bank",
    "read_npz",
    "read_recordings",
    "read_v4",
]
