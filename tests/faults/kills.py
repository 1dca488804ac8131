"""Kill a run by SIGKILL at random times of given stages, and let it go on each time.

A process with everything imported forks one child after the other, each a whole call of the
program. A child is killed when the stage asked for has been at work for a random part of the time
that it takes undisturbed; a stage that an earlier child finished is taken away first.
"""

import json
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CONFIG = """
seed = 3
recordings = {insilico = {n_sessions = 3, n_neurons = 2, n_stimuli = 40, image_size = 32}}
teacher = {n_members = 2, width = 8, bottleneck = 4, n_blocks = 1, n_epochs = 6}
students = {filters = [6, 4, 4, 4, 4], n_epochs = 4, batch_size = 8, n_monitor = 12}
compact = {n_pruning_images = 20, n_images = 32, n_epochs = 3, batch_size = 8}

[stimuli]
n_random = 12
n_natural = 1
n_synthesized = 1
n_synthesis_steps = 4
n_adversarial = 1
n_smoothed = 1
n_patches = 2
"""

STAGES = (
    "teacher", "mapping", "labels", "students", "pruned", "compact", "scores", "stimuli", "causal",
    "circuits", "report",
)  # fmt: skip

_PROGRAM = """
import json, os, shutil, signal, sys, time
from pathlib import Path
import matplotlib.pyplot, pocketcortex.pipeline, pocketcortex.report, torch, torch._dynamo
from pocketcortex.cli import main
from pocketcortex.pipeline import bank
from pocketcortex.training import optimize

torch.set_num_threads(1)
bank._IMAGES_A_MARK, optimize._IMAGES_A_CHECKPOINT = 32, 16  # marks within a pass over so few
config, out, kills = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])

def start():
    child = os.fork()
    if not child:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os._exit(main(["run", config, "--out", str(out), "--device", "cpu", "--json"]))
    return child

def ended(child):
    return os.waitpid(child, os.WNOHANG)[0] != 0

for stage, wait in kills:
    shutil.rmtree(out / stage, ignore_errors=True)
    child, alive = start(), True
    while alive and not (out / f"{stage}.partial").exists():
        time.sleep(0.002)
        alive = not ended(child)
    until = time.monotonic() + wait
    while alive and time.monotonic() < until:
        time.sleep(0.001)
        alive = not ended(child)
    if alive:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    at_work = sorted(p.name.removesuffix(".partial") for p in out.glob("*.partial"))
    print(json.dumps({"asked": stage, "killed": alive, "at_work": at_work}), flush=True)
child = start()
print(json.dumps({"code": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}), flush=True)
"""


@dataclass(frozen=True)
class Killed:
    """What came of one kill: the stage asked for, whether it hit, which stages were at work."""

    asked: str
    killed: bool
    at_work: tuple[str, ...]


def run_with_kills(config: Path, out: Path, kills: list[tuple[str, float]]) -> list[Killed]:
    """Run to the end, killed once for each stage named, so many seconds after that began.

    Raises
    ------
    RuntimeError
        If the last call, which is not killed, fails.
    """
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(config), str(out), json.dumps(kills)],
        capture_output=True, text=True, check=False, timeout=3600,
    )  # fmt: skip
    *told, last = [json.loads(line) for line in done.stdout.splitlines()] or [{"code": None}]
    if last != {"code": 0} or "Traceback" in done.stderr:
        raise RuntimeError(f"{last}: {done.stderr[-3000:]}")
    return [Killed(one["asked"], one["killed"], tuple(one["at_work"])) for one in told]


def drawn_kills(whole: Path, n: int, seed: int) -> list[tuple[str, float]]:
    """Return `n` kills: stages in turn, times drawn from what each took in an undisturbed run."""
    rng = random.Random(seed)  # noqa: S311
    order = list(STAGES)
    rng.shuffle(order)
    asked = [order[k % len(order)] for k in range(n)]
    return [(stage, rng.random() * _seconds(whole / stage)) for stage in asked]


def _seconds(stage: Path) -> float:
    return float(json.loads((stage / "manifest.json").read_text())["seconds"])


def contents(out: Path) -> dict[str, bytes]:
    """Return every file of a finished run that holds a number or a picture.

    Manifests and the report's page are left out: they tell times.
    """
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for stage in (*STAGES, "features")
        for path in sorted((out / stage).rglob("*"))
        if path.is_file() and path.name not in ("manifest.json", "report.html")
    }
