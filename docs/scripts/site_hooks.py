"""What the docs site needs beyond its pages: equations, the API reference, root files as pages.

MkDocs calls the functions whose names begin with `on_`.
"""

import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]

# Files of the repository's root that the site shows, by their page.
ROOT_PAGES = {
    "log.md": "LOG.md",
    "changes.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
}

# Rooms of the API reference, in the order of the data's way through them.
ROOMS = (
    "core", "data", "metrics", "mapping", "zoo", "models", "training", "compress", "stimuli",
    "dissect", "benchmark", "pipeline", "plots", "report", "explorer",
)  # fmt: skip


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Draw fenced blocks called `math` as MathML, which browsers show without any script."""
    fence = {"name": "math", "class": "math", "format": _equation}
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from the repository: the API reference and root files."""
    for room in ROOMS:
        files.append(File.generated(config, f"api/{room}.md", content=api_page(room)))
    for page, source in ROOT_PAGES.items():
        text = (ROOT / source).read_text("utf-8")
        text = re.sub(r"\]\(docs/", "](", text)
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Point links at files of the repository's root to their pages in the site."""
    up = "../" * page.file.src_uri.count("/")
    for name, source in ROOT_PAGES.items():
        markdown = re.sub(rf"\]\((?:\.\./)*{source}(?=[)#])", f"]({up}{name}", markdown)
    return markdown


def api_page(room: str) -> str:
    """Return the page that lists everything public in one room."""
    page = f"# pocketcortex.{room}\n\n::: pocketcortex.{room}\n"
    for name in hidden_by_modules(room):  # the reference would take them for their modules
        page += f"\n::: pocketcortex.{room}.{name}.{name}\n    options:\n"
        page += "      show_root_heading: true\n      show_root_toc_entry: true\n"
    return page


def hidden_by_modules(room: str) -> list[str]:
    """Return a room's public names that one of its modules bears too."""
    folder = ROOT / "src" / "pocketcortex" / room
    public = re.findall(
        r'^    "(\w+)",$', (folder / "__init__.py").read_text("utf-8"), re.MULTILINE
    )
    return [name for name in public if (folder / f"{name}.py").exists()]


def _equation(source: str, *_: Any, **__: Any) -> str:
    equations = [line.strip() for line in source.strip().split("\\\\\n")]
    drawn = "".join(convert(line, display="block") for line in equations)
    return f'<div class="equation">{drawn}</div>'
