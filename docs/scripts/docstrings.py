"""Docstrings as the site shows them: formulas become equations, names of functions become code."""

import re
from typing import Any

from griffe import Extension, Object
from latex2mathml.converter import convert

_BLOCK = re.compile(
    r"^(?P<indent>[ \t]*)\.\. math::(?P<first>.*)\n"
    r"(?P<rest>(?:[ \t]*\n|(?P=indent)[ \t]+\S.*(?:\n|\Z))*)",
    re.MULTILINE,
)
_INLINE = re.compile(r":math:`([^`]+)`")
_ROLE = re.compile(r":(?:func|class|meth):`([^`]+)`")


class Formulas(Extension):
    """Rewrites docstrings as they are read."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Rewrite one object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(docstring: str) -> str:
    """Return a docstring whose reStructuredText formulas are what the site's Markdown knows."""
    docstring = _BLOCK.sub(_fenced, docstring)
    docstring = _INLINE.sub(lambda found: convert(" ".join(found[1].split())), docstring)
    return _ROLE.sub(lambda found: f"`{found[1]}`", docstring)


def _fenced(found: re.Match[str]) -> str:
    indent, formula = found["indent"], " ".join((found["first"] + found["rest"]).split())
    return f"{indent}\n{indent}```math\n{indent}{formula}\n{indent}```\n\n"
