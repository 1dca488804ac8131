"""The whole path, from a configuration to a report, resumable at any moment."""

from pocketcortex.pipeline.config import RunConfig, demo_config, read_config
from pocketcortex.pipeline.run import (
    compress,
    compress_shared,
    fit_ensemble,
    resolve_device,
    run,
    score_ensemble,
)

__all__ = [
    "RunConfig",
    "compress",
    "compress_shared",
    "demo_config",
    "fit_ensemble",
    "read_config",
    "resolve_device",
    "run",
    "score_ensemble",
]
