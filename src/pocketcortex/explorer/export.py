"""The population and neuron pages as plain files: models run in the reader's browser."""

import json
import re
from collections.abc import Callable
from graphlib import TopologicalSorter
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jaxtyping import UInt8

from pocketcortex.core import InputError
from pocketcortex.explorer.app import asset, asset_names, shell
from pocketcortex.explorer.curves import CurveSet
from pocketcortex.explorer.explorer import Explorer
from pocketcortex.explorer.pictures import data_url, to_png

_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([\w]+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const) (\w+))", re.MULTILINE)
_TILES = ("synthesized_max", "natural_max")


def export_site(
    explorer: Explorer,
    folder: str | Path,
    *,
    advance: Callable[[int, int], None] = lambda done, n: None,
) -> dict[str, Any]:
    """Write an explorer's pages into a folder that any web server, or none, can show.

    ``index.html``, ``compare.html``, ``neuron/NAME.html`` and, with a zoo, ``zoo.html``; beside
    them ``population.json``, ``neuron/NAME.json`` and ``zoo.json``. ``data/`` holds a script a
    neuron with its weights, pictures and the stimuli of its tuning curves, so that pages also work
    where they are opened as files. Nothing is loaded from elsewhere, and no path of this machine
    is told.

    Parameters
    ----------
    explorer
        What to show; what was not computed yet is computed now.
    folder
        New, empty, or an earlier export, which is written over.
    advance
        Told how many neurons of how many are written.

    Returns
    -------
    ``page``, ``n_neurons`` and ``n_bytes``.

    Raises
    ------
    InputError
        If the folder holds anything else, or a model cannot be read.
    """
    folder = Path(folder)
    mark = folder / "assets" / "bundle.js"
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not mark.exists())):
        raise InputError(f"{folder} holds something else; choose a new or empty folder")
    for name in ("assets", "data", "neuron", "pictures"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    mark.write_text(bundle(), "utf-8")
    for name in asset_names():
        if not name.endswith(".js"):
            (folder / "assets" / name).write_bytes(asset(name))
    hide = _hider(explorer)
    for done, name in enumerate(explorer.studies, 1):
        told = hide(_neuron(explorer, name))
        _write_script(folder / "data" / f"{name}.js", f"neurons[{json.dumps(name)}]", told)
        _write_twin(folder / "neuron" / f"{name}.json", _without_pictures(told))
        for kind in _TILES:
            (folder / "pictures" / f"{name}-{kind}.png").write_bytes(
                explorer.study(name).picture(kind) or b""
            )
        page = _page("neuron", "../", f"data/{quote(name, safe='')}.js", zoo=explorer.has_zoo)
        named = page.replace('data-page="neuron"', f'data-page="neuron" data-name="{escape(name)}"')
        (folder / "neuron" / f"{name}.html").write_text(named, "utf-8")
        advance(done, len(explorer.studies))
    population = hide(explorer.population()) | {"n_waiting": 0}
    for row in population["neurons"]:
        row["pictures"] = {k: f"pictures/{quote(row['name'], safe='')}-{k}.png" for k in _TILES}
    _write_script(folder / "data" / "population.js", "population", population)
    _write_twin(folder / "population.json", population)
    pages = {"index": _page("population", "", "data/population.js", zoo=explorer.has_zoo)}
    pages["compare"] = _page("compare", "", zoo=explorer.has_zoo)
    if (zoo := hide(explorer.zoo())) is not None:
        _write_script(folder / "data" / "zoo.js", "zoo", zoo)
        _write_twin(folder / "zoo.json", {"zoo": zoo})
        pages["zoo"] = _page("zoo", "", "data/zoo.js", zoo=True)
    for name, text in pages.items():
        (folder / f"{name}.html").write_text(text, "utf-8")
    n_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    n_neurons = len(explorer.studies)
    return {"page": str(folder / "index.html"), "n_neurons": n_neurons, "n_bytes": n_bytes}


def bundle() -> str:
    """Return the front end as one script without modules, which browsers refuse to load as files.

    Every module becomes a function that returns what it exports, called after those it imports.
    """
    sources = {name: asset(name).decode("utf-8") for name in asset_names() if name.endswith(".js")}
    order = {name: {other for _, other in _IMPORT.findall(text)} for name, text in sources.items()}
    parts = []
    for name in TopologicalSorter(order).static_order():
        text = sources[name]
        own = ", ".join(_EXPORT.findall(text))
        text = _IMPORT.sub(
            lambda m: f"const {{{m[1].replace(' as ', ': ')}}} = {_module(m[2])};\n", text
        )
        text = _EXPORT.sub("", text)
        parts.append(f"const {_module(name)} = (() => {{\n{text}\nreturn {{ {own} }};\n}})();\n")
    return '"use strict";\n(() => {\n' + "".join(parts) + "})();\n"


def _module(name: str) -> str:
    return f"module_{name.removesuffix('.js')}"


def _page(page: str, root: str, *data: str, zoo: bool) -> str:
    names = [*data, "assets/bundle.js"]
    scripts = "".join(f'<script defer src="{root}{name}"></script>\n' for name in names)
    return shell(page, mode="static", root=root, head=scripts, zoo=zoo)


def _neuron(explorer: Explorer, name: str) -> dict[str, Any]:
    """Return all that a neuron's page may ask for, pictures and stimuli included."""
    study = explorer.study(name)
    study.looks()
    study.field()
    study.score()
    page, adversarial = explorer.neuron(name), explorer.adversarial(name)
    for told in (page, adversarial):
        told["pictures"] = {kind: data_url(study.picture(kind) or b"") for kind in told["pictures"]}
    tuning, curves = explorer.tuning(name), explorer.curves(name)
    for axis, sheet in zip(tuning["curves"], _sheets(curves), strict=True):
        axis["sheet"] = sheet
    return {"page": page, "adversarial": adversarial, "tuning": tuning}


def _sheets(curves: CurveSet) -> list[str]:
    """Return every curve's stimuli one below the other."""

    def sheet(images: UInt8[np.ndarray, "n 3 h w"]) -> UInt8[np.ndarray, "3 n_h w"]:
        n, _, height, width = images.shape
        return np.ascontiguousarray(images.transpose(1, 0, 2, 3)).reshape(3, n * height, width)

    return [data_url(to_png(sheet(curve.images))) for curve in curves.curves]


def _write_script(path: Path, where: str, value: Any) -> None:
    start = "(globalThis.pocketcortex ??= { neurons: {} })"
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    path.write_text(f"{start}.{where} = {text};\n", "utf-8")


def _write_twin(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=True, allow_nan=False) + "\n", "utf-8")


def _without_pictures(told: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of a neuron's page: its pictures and stimuli are the page's alone."""
    page, adversarial = ({k: v for k, v in told[part].items() if k != "pictures"}
                         for part in ("page", "adversarial"))  # fmt: skip
    curves = [{k: v for k, v in one.items() if k != "sheet"} for one in told["tuning"]["curves"]]
    return page | {"adversarial": adversarial, "tuning": told["tuning"] | {"curves": curves}}


def _hider(explorer: Explorer) -> Callable[[Any], Any]:
    """Return what takes this machine's folders out of every text."""
    paths = [explorer.collection.path, *(s.neuron.path for s in explorer.studies.values())]
    if explorer.natural.path is not None:
        paths.append(explorer.natural.path)
    paths += [Path(given) for given in explorer.given.values()]
    paths += [study.held_out.path for study in explorer.studies.values() if study.held_out]
    folders = sorted({f"{path.parent}/" for path in paths} - {"./"}, key=len, reverse=True)

    def hide(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: hide(one) for key, one in value.items()}
        if isinstance(value, list):
            return [hide(one) for one in value]
        if isinstance(value, str) and not value.startswith("data:"):
            for one in folders:
                value = value.replace(one, "")
        return value

    return hide
