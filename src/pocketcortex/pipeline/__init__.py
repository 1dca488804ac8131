"""The whole path, from a configuration to a report, resumable at any moment."""

from pocketcortex.pipeline.config import RunConfig, demo_config, read_config
from pocketcortex.pipeline.run import resolve_device, run

__all__ = ["RunConfig", "demo_config", "read_config", "resolve_device", "run"]
