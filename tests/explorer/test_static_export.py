"""The pages as plain files: what is written, and what is refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from explored_models import NAMES

from pocketcortex.core import InputError, decode_image
from pocketcortex.explorer import Explorer, export_site
from pocketcortex.explorer.app import asset, asset_names
from pocketcortex.explorer.export import bundle


@pytest.fixture(scope="module")
def site(explorer: Explorer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    told = export_site(explorer, folder)
    assert told["n_neurons"] == len(NAMES)
    assert told["n_bytes"] == sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    return folder


def test_every_neuron_has_page_data_and_pictures(site: Path, explorer: Explorer) -> None:
    for name in NAMES:
        page = (site / "neuron" / f"{name}.html").read_text()
        assert f'src="../data/{name}.js"' in page
        script = (site / "data" / f"{name}.js").read_text()
        told = json.loads(script[script.index(" = ") + 3 : script.rindex(";")])
        assert set(told) == {"page", "adversarial", "tuning"}
        twin = json.loads((site / "neuron" / f"{name}.json").read_text())
        assert twin["looks"] == told["page"]["looks"]
        assert twin["tuning"]["intact"] == told["tuning"]["intact"]
        assert "data:image" not in json.dumps(twin)
        png = (site / "pictures" / f"{name}-natural_max.png").read_bytes()
        expected = explorer.study(name).image("natural_max")
        np.testing.assert_array_equal(decode_image(png, "tile"), expected)


def test_the_population_has_a_twin_and_no_zoo_is_linked(site: Path) -> None:
    twin = json.loads((site / "population.json").read_text())
    assert [row["name"] for row in twin["neurons"]] == NAMES
    assert not (site / "zoo.html").exists()
    assert 'data-zoo=""' in (site / "index.html").read_text()


def test_no_folder_of_this_machine_is_told(site: Path, models: Path) -> None:
    for path in site.rglob("*"):
        if path.suffix in (".js", ".html", ".json"):
            text = path.read_text()
            assert str(models) not in text, path
            assert str(models.parent) not in text, path
            assert not re.search(r"(src|href)=\"(https?:)?//", text), path


def test_it_is_written_over_but_nothing_else_is(
    site: Path, explorer: Explorer, tmp_path: Path
) -> None:
    export_site(explorer, site)
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(InputError, match="holds something else"):
        export_site(explorer, tmp_path)


def test_the_bundle_holds_every_module_and_no_module_syntax() -> None:
    text = bundle()
    modules = [name for name in asset_names() if name.endswith(".js")]
    assert len(modules) >= 10
    for name in modules:
        assert text.count(f"const module_{name.removesuffix('.js')} = ") == 1
    assert not re.search(r"^\s*(import|export) ", text, re.MULTILINE)


def test_modules_import_what_is_exported() -> None:
    for name in asset_names():
        if not name.endswith(".js"):
            continue
        text = asset(name).decode()
        for names, other in re.findall(r'import \{([^}]*)\} from "\./([\w.]+)"', text):
            exported = re.findall(
                r"^export (?:async )?(?:function|const) (\w+)", asset(other).decode(), re.MULTILINE
            )
            assert {one.strip() for one in names.split(",")} <= set(exported), (name, other)


def test_assets_ask_for_nothing_from_elsewhere() -> None:
    for name in asset_names():
        text = asset(name).decode().replace("http://www.w3.org/2000/svg", "")
        assert "http" not in text.replace("the server answered", ""), name
