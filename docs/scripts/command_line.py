"""Write docs/command-line.md from the commands themselves.

python docs/scripts/command_line.py
"""

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

import typer

from pocketcortex.cli import app

PAGE = Path(__file__).parents[1] / "command-line.md"

_KINDS = {str: "TEXT", int: "INTEGER", float: "NUMBER", Path: "PATH"}
_START = """\
# Command line

<!-- Made by docs/scripts/command_line.py from the commands themselves; a test keeps it current. -->

Answers go to stdout, progress to stderr; `--json` prints one JSON object and nothing else. Exit
codes: 0 done, 1 the work failed, 2 wrong usage or bad input, 130 interrupted. Whatever is not 0
comes with one line that says what was wrong. `pocketcortex --version` says which one this is.
"""


def command_line_page() -> str:
    """Return the page: every command with its arguments and options."""
    root = typer.main.get_command(app)
    return _START + "".join(_command("pocketcortex", root))


def _command(path: str, command: Any) -> Iterator[str]:
    children = getattr(command, "commands", None)
    level = "#" * len(path.split())
    if path != "pocketcortex":
        yield f"\n{level} {path}\n\n{_text(command.help)}\n"
    if children is not None:
        for name in sorted(children, key=lambda n: (hasattr(children[n], "commands"), n)):
            yield from _command(f"{path} {name}", children[name])
        return
    shown = [p for p in command.params if p.name != "help" and not getattr(p, "hidden", False)]
    arguments = [p for p in shown if p.param_type_name == "argument"]
    options = [p for p in shown if p.param_type_name == "option"]
    used = [f"{a.name.upper()}{'...' * (a.nargs == -1)}" for a in arguments]
    used = [u if a.required else f"[{u}]" for u, a in zip(used, arguments, strict=True)]
    needed = [f"{_flag(o)} {_kind(o)}" for o in options if o.required]
    yield "\n```\n" + " ".join([path, *used, *needed, *(["[OPTIONS]"] * bool(options))]) + "\n```\n"
    if shown:
        yield "\n| | | default |\n|---|---|---|\n"
    for one, name in zip(arguments, used, strict=True):
        yield f"| `{name}` | {_text(getattr(one, 'help', ''))} | {_default(one)} |\n"
    for one in options:
        written = f"{_flag(one)} {_kind(one)}".strip().replace("|", "\\|")
        yield f"| `{written}` | {_text(one.help)} | {_default(one)} |\n"


def _flag(option: Any) -> str:
    return ", ".join(option.opts) + "".join(f" / {o}" for o in option.secondary_opts)


def _kind(option: Any) -> str:
    """Return what kind of value an option takes: its choices, or a word such as INTEGER."""
    kind = option.type_descriptor.annotation
    kinds = [one for one in get_args(kind) if one is not NoneType]
    if isinstance(kind, UnionType) or get_origin(kind) is list:
        (kind,) = kinds
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    if issubclass(kind, Enum):
        return "|".join(str(one.value) for one in kind)
    return "" if kind is bool else _KINDS[kind]


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    value = getattr(value, "value", value)
    if value is None or value is False or callable(value) or value in ((), []):
        return ""
    if isinstance(value, list | tuple):
        value = ",".join(str(one) for one in value)
    return f"`{value}`"


def _text(told: str | None) -> str:
    return " ".join((told or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(command_line_page(), "utf-8")
