"""The records everything else passes."""

from pocketcortex.core.archives import (
    ImageFiles,
    index_folder,
    index_tar,
    index_zip,
    is_image_name,
    map_array,
    read_array,
    read_arrays,
)
from pocketcortex.core.areas import BrainArea
from pocketcortex.core.errors import InputError, MissingRepeatsError, PocketcortexError, in_brief
from pocketcortex.core.memory import keep_freed_memory
from pocketcortex.core.pictures import decode_image
from pocketcortex.core.recordings import Recordings, Session
from pocketcortex.core.runs import RunFolder, parse_json, provenance, write_json
from pocketcortex.core.sources import ImageSource
from pocketcortex.core.stimuli import Indices, StimulusSet
from pocketcortex.core.writing import (
    explained_writes,
    held,
    new_array_file,
    sync,
    whole_file,
    whole_path,
)

__all__ = [
    "BrainArea",
    "ImageFiles",
    "ImageSource",
    "Indices",
    "InputError",
    "MissingRepeatsError",
    "PocketcortexError",
    "Recordings",
    "RunFolder",
    "Session",
    "StimulusSet",
    "decode_image",
    "explained_writes",
    "held",
    "in_brief",
    "index_folder",
    "index_tar",
    "index_zip",
    "is_image_name",
    "keep_freed_memory",
    "map_array",
    "new_array_file",
    "parse_json",
    "provenance",
    "read_array",
    "read_arrays",
    "sync",
    "whole_file",
    "whole_path",
    "write_json",
]
