"""The records everything else passes."""

from pocketcortex.core.archives import (
    decode_image,
    is_image_name,
    list_images,
    open_members,
    read_array,
    read_arrays,
)
from pocketcortex.core.errors import InputError, MissingRepeatsError, PocketcortexError
from pocketcortex.core.recordings import Recordings, Session
from pocketcortex.core.stimuli import Indices, StimulusSet

__all__ = [
    "Indices",
    "InputError",
    "MissingRepeatsError",
    "PocketcortexError",
    "Recordings",
    "Session",
    "StimulusSet",
    "decode_image",
    "is_image_name",
    "list_images",
    "open_members",
    "read_array",
    "read_arrays",
]
