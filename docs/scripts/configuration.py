"""Write the tables of docs/configuration.md from the settings themselves.

python docs/scripts/configuration.py
"""

from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import pydantic

from pocketcortex.pipeline import RunConfig

PAGE = Path(__file__).parents[1] / "configuration.md"
MARK = "<!-- Below: made by docs/scripts/configuration.py; a test keeps it current. -->\n"


def configuration_page() -> str:
    """Return the page: what stands above the mark, and a table of settings for every TOML table."""
    start = PAGE.read_text("utf-8").partition(MARK)[0]
    return start + MARK + "".join(_table("", RunConfig))


def _table(path: str, model: type[pydantic.BaseModel]) -> Iterator[str]:
    below = []
    if path:
        yield f"\n## {path}\n\n{_text(model.__doc__)}\n"
    yield "\n| setting | default | |\n|---|---|---|\n"
    for name, field in model.model_fields.items():
        inner, many = _inner(field.annotation)
        where = f"{path}.{name}".strip(".")
        if inner is not None:
            below.append((f"[[{where}]]" if many else f"[{where}]", where, inner))
        default = _default(field) if inner is None or field.is_required() else "its table below"
        choices = _choices(field.annotation)
        yield f"| `{name}` | {default} | {_text(field.description)}{choices} |\n"
    for heading, where, inner in below:
        head, *rest = _table(where, inner)
        yield head.replace(f"## {where}", f"## `{heading}`")
        yield from rest


def _inner(kind: Any) -> tuple[type[pydantic.BaseModel] | None, bool]:
    """Return the table that a setting is, and whether there may be several."""
    if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
        return kind, False
    for one in get_args(kind):
        found, _ = _inner(one)
        if found is not None:
            return found, get_origin(kind) is tuple
    return None, False


def _choices(kind: Any) -> str:
    if get_origin(kind) is not Literal:
        return ""
    return " " + " or ".join(f"`{one}`" for one in get_args(kind)) + "."


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ((), {}):
        return "" if NoneType in get_args(field.annotation) or value in ((), {}) else "none"
    if isinstance(value, tuple):
        value = list(value)
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _text(told: str | None) -> str:
    return " ".join((told or "").replace("``", "`").split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(configuration_page(), "utf-8")
