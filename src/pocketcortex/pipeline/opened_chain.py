"""A run opened for work: its folder held, its stages, and whoever does them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketcortex.core import RunFolder
from pocketcortex.pipeline.chain import Chain, opened
from pocketcortex.pipeline.config import RunConfig
from pocketcortex.pipeline.scheduler import LOCAL, open_scheduler, parse_scheduler
from pocketcortex.pipeline.spread import Spread
from pocketcortex.pipeline.stages import Stages
from pocketcortex.pipeline.work import InProcess


@dataclass(frozen=True)
class Opened:
    """A run folder that is held, and all that its stages need.

    Attributes
    ----------
    folder
        The run folder.
    stages
        The stages over the run's inputs.
    record
        What the run depends on besides them; see `provenance`.
    chain
        The stages in their order.
    """

    folder: RunFolder
    stages: Stages
    record: dict[str, Any]
    chain: Chain


@contextmanager
def opened_chain(
    config: RunConfig,
    out: str | Path,
    device: str,
    scheduler: str,
    check: Callable[[Stages], None] = lambda stages: None,
    *,
    retry: bool = False,
) -> Iterator[Opened]:
    """Hold a run folder and start or find the workers; yield what goes on in it.

    Parameters
    ----------
    config, out, device, scheduler, retry
        As for `run`.
    check
        Raises InputError for what is wrong with the stages' inputs, before workers are started.
    """
    remote = parse_scheduler(scheduler)[0] != LOCAL
    here = "auto" if remote and device == "cuda" else device  # the workers' device, not ours
    with (
        opened(config, out, here, check, retry=retry) as (folder, stages, record),
        open_scheduler(scheduler) as where,
    ):
        work = Spread(stages, folder.path, where, device) if remote else InProcess(stages)
        yield Opened(folder, stages, record, Chain(folder, stages, work))
