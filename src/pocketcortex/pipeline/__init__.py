"""The whole path, from a configuration to a report, resumable at any moment."""

from pocketcortex.pipeline.causal import CausalCounts, CausalSession, make_causal_session
from pocketcortex.pipeline.cluster_profile import ClusterProfile, read_cluster_profile
from pocketcortex.pipeline.config import RunConfig, demo_config, read_config
from pocketcortex.pipeline.estimate import RunEstimate, StageEstimate, estimate_run
from pocketcortex.pipeline.ingest import ingest
from pocketcortex.pipeline.loop import propose
from pocketcortex.pipeline.opening import resolve_device
from pocketcortex.pipeline.run import (
    compress,
    compress_shared,
    fit_ensemble,
    run,
    score_ensemble,
)
from pocketcortex.pipeline.run_status import RunStatus, StageStatus, run_status
from pocketcortex.pipeline.scheduler import (
    DaskScheduler,
    LocalScheduler,
    Scheduler,
    open_scheduler,
)
from pocketcortex.pipeline.simulated_causal import CausalTest, simulate_causal_test
from pocketcortex.pipeline.simulated_loop import LoopConfig, simulate_loop

__all__ = [
    "CausalCounts",
    "CausalSession",
    "CausalTest",
    "ClusterProfile",
    "DaskScheduler",
    "LocalScheduler",
    "LoopConfig",
    "RunConfig",
    "RunEstimate",
    "RunStatus",
    "Scheduler",
    "StageEstimate",
    "StageStatus",
    "compress",
    "compress_shared",
    "demo_config",
    "estimate_run",
    "fit_ensemble",
    "ingest",
    "make_causal_session",
    "open_scheduler",
    "propose",
    "read_cluster_profile",
    "read_config",
    "resolve_device",
    "run",
    "run_status",
    "score_ensemble",
    "simulate_causal_test",
    "simulate_loop",
]
