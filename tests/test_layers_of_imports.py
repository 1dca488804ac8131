"""Rooms of the package import downwards only, as docs/design.md says."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import pocketcortex

PACKAGE = "pocketcortex"
SOURCE = Path(pocketcortex.__file__).parent

ROOMS = {
    "core": "",
    "metrics": "core",
    "mapping": "core metrics",
    "data": "core metrics",
    "zoo": "core mapping",
    "models": "core mapping",
    "training": "core metrics mapping data models",
    "compress": "core models training",
    "stimuli": "core metrics models",
    "dissect": "core metrics models stimuli",
    "benchmark": "core metrics mapping data zoo",
    "plots": "core",
    "report": "core plots",
    "pipeline": "core metrics mapping data zoo models training compress stimuli dissect benchmark "
    "plots report",
    "explorer": "core metrics data models stimuli dissect",
}
ROOMS["cli"] = " ".join(ROOMS)


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join((PACKAGE, *(part for part in parts if part != "__init__")))


def sources(root: Path) -> dict[str, Path]:
    """Return every module of the package by its name."""
    return {module_name(path, root): path for path in sorted(root.rglob("*.py"))}


def imports(path: Path, name: str, known: set[str]) -> Iterator[str]:
    """Yield what a module imports, wherever in it, as modules where they are ours."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, *([base] if base else [])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield whole if whole in known else base


def import_graph(root: Path) -> dict[str, set[str]]:
    modules = sources(root)
    return {name: set(imports(path, name, set(modules))) - {name} for name, path in modules.items()}


def room(module: str) -> str:
    """Return the room of one of our modules; the package itself is in none."""
    return module.split(".")[1] if "." in module else ""


def forbidden(graph: dict[str, set[str]]) -> list[str]:
    found = []
    for name, imported in graph.items():
        allowed = {room(name), *ROOMS.get(room(name), "").split()}
        for other in sorted(imported):
            if other.split(".")[0] == PACKAGE and room(other) not in allowed:
                found.append(f"{name} imports {other}")
    return found


def cycle(graph: dict[str, set[str]]) -> list[str]:
    ours = {n: {o for o in others if o in graph} for n, others in graph.items()}
    try:
        TopologicalSorter(ours).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def importers_of(library: str, graph: dict[str, set[str]]) -> set[str]:
    return {
        room(name)
        for name, imported in graph.items()
        if any(other.split(".")[0] == library for other in imported)
    }


def test_imports_go_down_only() -> None:
    assert forbidden(import_graph(SOURCE)) == []


def test_no_import_runs_in_a_circle() -> None:
    assert cycle(import_graph(SOURCE)) == []


def test_matplotlib_is_imported_in_plots_alone() -> None:
    assert importers_of("matplotlib", import_graph(SOURCE)) <= {"plots"}


def test_numerics_know_no_files_models_or_plots() -> None:
    graph = import_graph(SOURCE)
    for library in ("h5py", "PIL", "typer", "rich"):
        assert importers_of(library, graph).isdisjoint({"metrics", "mapping"}), library
    assert "metrics" not in importers_of("torch", graph)  # mapping runs on a GPU by it


def test_every_folder_is_a_known_room() -> None:
    folders = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert folders <= set(ROOMS)
    assert {"core", "metrics", "models", "training", "cli"} <= folders


def test_rooms_are_listed_below_first() -> None:
    rooms = list(ROOMS)
    for number, (name, allowed) in enumerate(ROOMS.items()):
        if name != "pipeline":
            assert set(allowed.split()) <= set(rooms[:number]), name


# The checks themselves can fail.


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name in ("core", "models", "plots"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / "__init__.py").touch()
    return tmp_path


@pytest.mark.parametrize(
    "text",
    [
        "import pocketcortex.models", "from pocketcortex.models import x",
        "from pocketcortex import models", "from .. import models", "from ..models import x",
        "def f():\n    from pocketcortex.models import x", "import pocketcortex",
    ],
)  # fmt: skip
def test_an_upward_import_is_seen(package: Path, text: str) -> None:
    (package / "core" / "a.py").write_text(text)
    assert len(forbidden(import_graph(package))) == 1


@pytest.mark.parametrize(
    "text", ["from pocketcortex.core import a", "from . import a", "import os"]
)
def test_an_import_within_a_room_is_allowed(package: Path, text: str) -> None:
    (package / "core" / "a.py").touch()
    (package / "core" / "b.py").write_text(text)
    assert forbidden(import_graph(package)) == []


def test_a_circle_is_seen(package: Path) -> None:
    (package / "core" / "a.py").write_text("from pocketcortex.core.b import x")
    (package / "core" / "b.py").write_text("def f():\n    from .a import y")
    assert set(cycle(import_graph(package))) == {"pocketcortex.core.a", "pocketcortex.core.b"}


def test_a_library_is_seen_in_any_form(package: Path) -> None:
    (package / "core" / "a.py").write_text("def f():\n    from matplotlib.figure import Figure")
    (package / "plots" / "b.py").write_text("import matplotlib.pyplot as plt")
    assert importers_of("matplotlib", import_graph(package)) == {"core", "plots"}
