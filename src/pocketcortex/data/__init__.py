"""Where sessions and images come from: readers of files, image banks, the in-silico cortex."""

from pocketcortex.data.allen_nwb import read_allen_nwb, running_modulation
from pocketcortex.data.allen_scenes import AllenScenes, read_allen_scenes
from pocketcortex.data.areas import read_areas, session_area, shared_stimuli, v4_areas
from pocketcortex.data.banks import read_bank
from pocketcortex.data.brainio import read_brainio
from pocketcortex.data.circuits import KINDS, Area, Neuron
from pocketcortex.data.dead_leaves import dead_leaves, dead_leaves_bank
from pocketcortex.data.insilico import InSilicoCortex, insilico_neurons, insilico_recordings
from pocketcortex.data.kriegeskorte import read_kriegeskorte
from pocketcortex.data.mouse import read_allen_rsms, read_antolik
from pocketcortex.data.npz import read_npz
from pocketcortex.data.remote import local_path
from pocketcortex.data.sources import read_recordings
from pocketcortex.data.v4 import natural_stimuli, read_v4

__all__ = [
    "KINDS",
    "AllenScenes",
    "Area",
    "InSilicoCortex",
    "Neuron",
    "dead_leaves",
    "dead_leaves_bank",
    "insilico_neurons",
    "insilico_recordings",
    "local_path",
    "natural_stimuli",
    "read_allen_nwb",
    "read_allen_rsms",
    "read_allen_scenes",
    "read_antolik",
    "read_areas",
    "read_bank",
    "read_brainio",
    "read_kriegeskorte",
    "read_npz",
    "read_recordings",
    "read_v4",
    "running_modulation",
    "session_area",
    "shared_stimuli",
    "v4_areas",
]
