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
from pocketcortex.core.memory import keep_freed_memory
from pocketcortex.core.recordings import Recordings, Session
from pocketcortex.core.runs import RunFolder, provenance, write_json
from pocketcortex.core.stimuli import Indices, StimulusSet

__all__ = [
    "Indices",
    "InputError",
    "MissingRepeatsError",
    "PocketcortexError",
    "Recordings",
    "RunFolder",
    "Session",
    "StimulusSet",
    "decode_image",
    "is_image_name",
    "keep_freed_memory",
    "list_images",
    "open_members",
    "provenance",
    "read_array",
    "read_arrays",
    "write_json",
]
