"""The explorer's waiting times: first page, a neuron's page, synthesis. No peer is compared.

``python -m benchmarks.explorer MODELS CACHE`` prints one JSON object. Wall time of one server on an
otherwise idle machine; the first page is timed from the start of the command, its pictures stored
in CACHE before (the share that is stored is told).
"""

import json
import os
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from statistics import median

from pocketcortex.core import provenance

N_NEURONS, N_STEPS = 20, 200
RUN = "import sys; from pocketcortex.cli import main; sys.exit(main())"


def ask(address: str, path: str, asked: object = None) -> tuple[float, bytes]:
    """Return seconds and content of a request with the address's token."""
    base, _, token = address.partition("/?token=")
    content = None if asked is None else json.dumps(asked).encode()
    request = urllib.request.Request(  # noqa: S310 - our own server
        base + path, content, {"authorization": f"Bearer {token}"}
    )
    started = time.perf_counter()
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        told: bytes = answer.read()
    return time.perf_counter() - started, told


def measure(models: str, cache: str) -> dict[str, object]:
    """Return the times of one server."""
    started = time.perf_counter()
    words = [sys.executable, "-c", RUN, "explore", models, "--cache", cache]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            ask(address, "/")
            _, told = ask(address, "/population.json")
            first_page = time.perf_counter() - started
            rows = json.loads(told)["neurons"]
            names = [urllib.parse.quote(row["name"], safe="") for row in rows]
            time.sleep(10)  # until torch is imported behind the page
            pages = [ask(address, f"/neuron/{name}.json")[0] for name in names[:N_NEURONS]]
            asked = {"n_steps": N_STEPS}
            synthesis, _ = ask(address, f"/neuron/{names[0]}/synthesize", asked)
            picture = {"picture": "natural_max", "without": [[1, 0]]}
            ablation = [ask(address, f"/neuron/{names[0]}/respond", picture)[0] for _ in range(10)]
        finally:
            server.terminate()
    return {
        "n_neurons": len(rows),
        "n_stored": sum(row["pictures"] is not None for row in rows),
        "first_page_s": first_page,
        "neuron_page_s": {"median": median(pages), "largest": max(pages)},
        "ablation_s": median(ablation),
        "synthesis_steps_per_s": N_STEPS / synthesis,
        "load_average": os.getloadavg()[0],
    }


if __name__ == "__main__":
    models, cache = sys.argv[1:]
    told = measure(models, str(Path(cache))) | provenance(0)
    print(json.dumps(told, indent=1))
