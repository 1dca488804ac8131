"""Fuzz the readers: `python tests/fuzz/fuzz.py [FORMAT ...] [-n 100000] [--first 0] [--seed 1]`.

Prints one line a format, and every failure with the command that repeats it.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from fuzz_formats import FORMATS
from fuzz_harness import Outcome, case_of, fuzz, write_case


def main() -> int:
    """Run what the command line asks for; return 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("formats", nargs="*", choices=[[], *FORMATS], help="all by default")
    parser.add_argument("-n", type=int, default=100_000, help="executions of each format")
    parser.add_argument("--first", type=int, default=0, help="number of the first execution")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="write the inputs that failed below this folder")
    parser.add_argument("--json", type=Path, help="write what came of each format to this file")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    told = {}
    for name in asked.formats or FORMATS:
        outcome = fuzz(FORMATS[name], asked.n, seed=asked.seed, first=asked.first)
        told[name] = vars(outcome)
        sys.stdout.write(_line(name, outcome) + "\n")
        sys.stdout.flush()
        for number, what in sorted(outcome.failures.items()):
            again = f"fuzz.py {name!r} -n 1 --first {number} --seed {asked.seed}"
            sys.stdout.write(f"--- {again}\n{what}\n")
            if asked.keep:
                write_case(
                    case_of(FORMATS[name], asked.seed, number), asked.keep / name / str(number)
                )
        if asked.json:
            asked.json.write_text(json.dumps(told, indent=1) + "\n")
    return 1 if any(outcome["failures"] for outcome in told.values()) else 0


def _line(name: str, outcome: Outcome) -> str:
    return (
        f"{name:<16} {outcome.n_executions:>8,} executions: {outcome.n_read:,} read, "
        f"{outcome.n_refused:,} refused, {len(outcome.failures)} failed; "
        f"{outcome.seconds:.0f} s, slowest {outcome.slowest_s:.2f} s (number {outcome.slowest}), "
        f"memory +{outcome.growth_bytes / 2**20:.0f} MiB"
    )


if __name__ == "__main__":
    sys.exit(main())
