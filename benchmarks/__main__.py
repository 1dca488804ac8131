"""Run every benchmark, write its dated JSON and refresh the table in docs/benchmarks.md.

Each benchmark is a function that returns one record: what was measured, ours and the peer's time
in seconds for the same work in the same run, and the ratio. Real data are read from the folder
that POCKETCORTEX_DATA names.
"""

import json
import os
import sys
from pathlib import Path

import torch

from benchmarks.ablations import bench_ablations
from benchmarks.bank_scan import bench_bank_scan
from benchmarks.cka import bench_cka
from benchmarks.decoding import bench_decoding
from benchmarks.distillation import bench_shared_trunk, bench_stacked_students
from benchmarks.ensemble import bench_stacked_members
from benchmarks.metrics import bench_bootstrap_intervals
from benchmarks.population import bench_population_gpu
from benchmarks.pruning import bench_fraction_of_variance
from benchmarks.ridge import bench_leave_one_out
from benchmarks.smoothing import bench_smoothing
from benchmarks.stack import bench_published_models, bench_published_population
from benchmarks.synthesis import bench_synthesis, bench_synthesis_gpu
from benchmarks.zoo import bench_rdm_comparison, bench_zoo_resnet50
from pocketcortex.core import provenance

ROOT = Path(__file__).resolve().parent
TABLE = ROOT.parent / "docs" / "benchmarks.md"
SEED = 0
BENCHMARKS = (
    bench_published_models,
    bench_published_population,
    bench_leave_one_out,
    bench_fraction_of_variance,
    bench_bootstrap_intervals,
    bench_stacked_members,
    bench_decoding,
    bench_bank_scan,
    bench_stacked_students,
    bench_shared_trunk,
    bench_population_gpu,
    bench_synthesis,
    bench_synthesis_gpu,
    bench_smoothing,
    bench_ablations,
    bench_cka,
    bench_zoo_resnet50,
    bench_rdm_comparison,
)

_HEAD = """# Benchmarks

Written by `make bench`; the records behind each row, with versions and commit, are in
`benchmarks/results/`. Ours and the peer's do the same work in the same run, and the largest
difference between their answers is given.

| what | ours | peer | ratio | difference | hardware | date |
|---|---|---|---|---|---|---|
"""


def main() -> int:
    """Run the benchmarks named on the command line, or all of them."""
    named = sys.argv[1:]
    folder = os.environ.get("POCKETCORTEX_DATA")
    if not folder or not (Path(folder) / "v4").is_dir():
        print("set POCKETCORTEX_DATA to the folder with the real data", file=sys.stderr)
        return 2
    for bench in BENCHMARKS:
        name = bench.__name__.removeprefix("bench_")
        if named and name not in named:
            continue
        record = bench(Path(folder), SEED)
        if "skipped" in record:
            print(f"{name}: skipped, {record['skipped']}", file=sys.stderr)
            continue
        record |= {"name": name} | provenance(SEED)
        record["threads"] = torch.get_num_threads()
        path = ROOT / "results" / f"{record['date'][:10]}-{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(record, indent=1) + "\n")
        print(json.dumps({k: record[k] for k in ("name", "seconds", "peer_seconds", "ratio")}))
    TABLE.write_text(_HEAD + "".join(_row(path) for path in _latest()))
    return 0


def _latest() -> list[Path]:
    """Return the newest record of each benchmark, by name."""
    newest = {path.stem[11:]: path for path in sorted((ROOT / "results").glob("*.json"))}
    return [newest[name] for name in sorted(newest)]


def _row(path: Path) -> str:
    r = json.loads(path.read_text())
    hardware = f"{r['threads']} threads, {r['machine']['cpu']}"
    return (
        f"| {r['what']} | {r['ours']}: {r['seconds']:.2f} s | {r['peer']}: "
        f"{r['peer_seconds']:.2f} s | {r['ratio']:.1f}× | {r['difference']:.1e} | {hardware} | "
        f"{r['date'][:10]} |\n"
    )


if __name__ == "__main__":
    sys.exit(main())
