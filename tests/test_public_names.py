"""Public names: listed once, in their room's `__init__`, in order, each with a docstring."""

import ast
import importlib
import inspect
from pathlib import Path
from types import ModuleType

import pytest

import pocketcortex

SOURCE = Path(pocketcortex.__file__).parent
ROOMS = sorted(path.parent.name for path in SOURCE.glob("*/__init__.py"))


def rank(name: str) -> tuple[int, str]:
    """Return the place of a name among others: constants, then classes, then functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def undocumented(module: ModuleType) -> list[str]:
    """Return the public classes, functions, methods and properties that say nothing."""
    missing = [] if module.__doc__ else [module.__name__]
    for name in module.__all__:
        value = getattr(module, name)
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        if not value.__doc__:
            missing.append(name)
        if inspect.isclass(value):
            missing += [f"{name}.{own}" for own in _silent_members(value)]
    return missing


def _silent_members(owner: type) -> list[str]:
    return [
        name
        for name, member in vars(owner).items()
        if not name.startswith("_")
        and (inspect.isfunction(member) or isinstance(member, property | classmethod))
        and not member.__doc__
    ]


def imported_from_within(room: str) -> set[str]:
    """Return the names that a room's `__init__` takes from its own modules."""
    tree = ast.parse((SOURCE / room / "__init__.py").read_text())
    return {
        alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith(f"pocketcortex.{room}.")
        for alias in node.names
    }


def test_rooms_are_found() -> None:
    assert {"cli", "core", "metrics", "models", "pipeline", "stimuli", "zoo"} <= set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_public_names_are_listed_in_order_and_exist(room: str) -> None:
    module = importlib.import_module(f"pocketcortex.{room}")
    names = module.__all__
    assert names
    assert names == sorted(set(names), key=rank)
    assert not [name for name in names if name.startswith("_")]
    for name in names:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__module__.split(".")[:2] == ["pocketcortex", room], name
    assert imported_from_within(room) <= set(names)


@pytest.mark.parametrize("room", ROOMS)
def test_public_names_have_docstrings(room: str) -> None:
    assert undocumented(importlib.import_module(f"pocketcortex.{room}")) == []


def test_rooms_are_one_level_deep() -> None:
    assert not list(SOURCE.glob("*/*/__init__.py"))


# The check itself can fail.


def test_a_missing_docstring_is_seen() -> None:
    module = ModuleType("room", "Says something.")
    code = (
        "def silent(): pass\n"
        "class Silent:\n    def method(self): pass\n    def _private(self): pass\n"
        "class Loud:\n    'Says something.'\n    @property\n    def own(self): pass\n"
        "LIMIT = 3\n"
        "__all__ = ['LIMIT', 'Loud', 'Silent', 'silent']\n"
    )
    exec(code, vars(module))  # noqa: S102
    assert undocumented(module) == ["Loud.own", "Silent", "Silent.method", "silent"]


def test_order_is_constants_classes_functions() -> None:
    assert sorted(["b", "Bc", "A_B", "a", "Ab"], key=rank) == ["A_B", "Ab", "Bc", "a", "b"]
