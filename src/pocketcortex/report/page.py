"""Write the report: one page that needs no other file, and its figures and scores beside it."""

import os
from importlib import resources
from pathlib import Path

import jinja2

from pocketcortex.core import InputError
from pocketcortex.plots import count_text
from pocketcortex.report.content import ReportContent
from pocketcortex.report.figures import report_figures
from pocketcortex.report.files import content_tables
from pocketcortex.report.tables import provenance_rows, score_tables, table_rows, tile_text

_TEMPLATE = "report.html.jinja"
_SECTIONS = {
    "accuracy": "How well the models predict",
    "size": "How small they are",
    "stimuli": "What drives the neurons",
    "circuits": "What the models do",
    "weights": "Inside one model",
    "zoo": "Networks against the recordings",
}


def write_report(content: ReportContent, path: str | Path) -> Path:
    """Write a report as one HTML file and return its path.

    The page holds its figures and style and asks for nothing from outside, scripts included.
    Beside it, ``figures/`` receives every figure as PNG, and as SVG unless it shows images;
    ``scores.csv`` the scores as given; ``tables/`` the other numbers that figures draw, as CSV.
    Each file is replaced in one step, the page last: a reader never sees half of one.

    Parameters
    ----------
    content
        What to show.
    path
        The page, ending in ``.html``; folders that do not exist are made.

    Raises
    ------
    InputError
        If `path` does not end in ``.html`` or is a folder.
    """
    path = Path(path)
    if path.suffix != ".html" or path.is_dir():
        raise InputError(f"a report is written to a file ending in .html, got {path}")
    figures = report_figures(content)
    shown = _SECTIONS if not content.zoo else {"zoo": _SECTIONS["zoo"]}
    page = _template().render(
        content=content,
        own_tables=[table_rows(table) for table in content.tables],
        tiles=[tile_text(tile) for tile in content.headline],
        sections=[
            (key, heading, [figure for figure in figures if figure.section == key])
            for key, heading in shown.items()
            if key != "zoo" or content.zoo
        ],
        parameters=[(name, count_text(n), n) for name, n in content.parameters.items()],
        tables=score_tables(content.scores),
        provenance=provenance_rows(content.provenance),
    )
    folder = path.parent / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for figure in figures:
        _replace(folder / f"{_file_name(figure.name)}.png", figure.rendered.png)
        if figure.rendered.svg is not None:
            _replace(folder / f"{_file_name(figure.name)}.svg", figure.rendered.svg)
    for name, table in content_tables(content).items():
        (path.parent / "tables").mkdir(exist_ok=True)
        _replace(path.parent / "tables" / f"{name}.csv", table.to_csv(index=False).encode())
    _replace(path.parent / "scores.csv", content.scores.to_csv(index=False).encode())
    _replace(path, page.encode())
    return path


def _template() -> jinja2.Template:
    source = resources.files("pocketcortex.report").joinpath(_TEMPLATE).read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source)


def _replace(path: Path, content: bytes) -> None:
    """Put `content` in the place of a file, whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _file_name(name: str) -> str:
    """Return a name of letters, digits, dashes and underscores only."""
    return "".join(sign if sign.isalnum() or sign in "-_" else "_" for sign in name)
