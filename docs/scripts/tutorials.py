"""Run tutorials: Markdown whose Python blocks are one program, each followed by what it prints.

    python docs/scripts/tutorials.py                 # run all, rewrite outputs and figures
    python docs/scripts/tutorials.py noise-ceilings  # or one

Tests run them as well, and fail where a block prints something else than what stands below it;
numbers may differ by a little, as they do between processors.
"""

import contextlib
import io
import math
import os
import re
import sys
from pathlib import Path
from typing import Any

TUTORIALS = Path(__file__).parents[1] / "tutorials"
FIGURES = Path(__file__).parents[1] / "figures"

_MARK = "<!-- needs the published recordings -->"
_BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```\n)?",
    re.MULTILINE | re.DOTALL,
)
_NUMBER = re.compile(r"[-+−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
_ALL = ("noise-ceilings", "mappings", "compact-models", "stimuli", "dot-detector", "layers")
_RELATIVE, _ABSOLUTE = 0.1, 0.03


def run_tutorial(path: Path, folder: Path) -> str:
    """Run a tutorial's blocks one after the other and return it with the outputs they had.

    Parameters
    ----------
    path
        The page.
    folder
        Where its figures go.
    """
    names: dict[str, Any] = {"__name__": "__tutorial__"}
    source = path.read_text("utf-8")

    def executed(block: re.Match[str]) -> str:
        line = source[: block.start()].count("\n") + 1
        code = compile("\n" * line + block["code"], str(path), "exec")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, names)  # noqa: S102 - the repository's own pages
        output = printed.getvalue()
        shown = f"\n```text\n{output}```\n" if output else ""
        return f"```python\n{block['code']}```\n{shown}"

    with contextlib.chdir(folder):
        return _BLOCK.sub(executed, source)


def needs_data(path: Path) -> bool:
    """Return whether a tutorial reads the folder that POCKETCORTEX_DATA names."""
    return _MARK in path.read_text("utf-8")


def outputs(page: str) -> list[str]:
    """Return what each block of a page prints."""
    return [block["output"] or "" for block in _BLOCK.finditer(page)]


def same_output(shown: str, printed: str) -> bool:
    """Return whether two outputs have the same words and, within a little, the same numbers."""
    if _NUMBER.sub("0", shown) != _NUMBER.sub("0", printed):
        return False
    pairs = zip(_NUMBER.findall(shown), _NUMBER.findall(printed), strict=True)
    return all(
        math.isclose(_value(a), _value(b), rel_tol=_RELATIVE, abs_tol=_ABSOLUTE) for a, b in pairs
    )


def _value(number: str) -> float:
    return float(number.replace(",", "").replace("−", "-"))


def main(names: list[str]) -> None:
    """Run tutorials by name, or all, and write their outputs and figures back."""
    FIGURES.mkdir(exist_ok=True)
    pages = [TUTORIALS / f"{name}.md" for name in names or _ALL]
    for page in pages:
        sys.stderr.write(f"{page.stem}\n")
        page.write_text(run_tutorial(page, FIGURES), "utf-8")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(sys.argv[1:])
