"""Pages and their JSON twins: what they tell is what Python computes."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from explored_models import NAMES, SIDE, small_model
from PIL import Image
from starlette.testclient import TestClient

from pocketcortex.core import decode_image
from pocketcortex.dissect import tune
from pocketcortex.explorer import Explorer
from pocketcortex.models import Ablations
from pocketcortex.stimuli import smoothing_saliency, synthesize

NAME = NAMES[1]
AT = f"/neuron/{NAME}"


def told(client: TestClient, path: str, **asked: object) -> dict[str, Any]:
    answer = client.post(path, json=asked) if asked else client.get(path)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def shown(client: TestClient, picture: str) -> torch.Tensor:
    png = client.get(f"{AT}/{picture}.png")
    assert png.headers["content-type"] == "image/png"
    return torch.from_numpy(decode_image(png.content, picture))[None]


def response(image: torch.Tensor) -> float:
    with torch.inference_mode():
        return float(small_model(1)(image)[0])


@pytest.mark.parametrize("page", ["/", AT, f"/compare?a={NAMES[0]}&b={NAME}", "/zoo"])
def test_every_page_has_a_json_twin(client: TestClient, page: str) -> None:
    html = client.get(page)
    assert html.status_code == 200
    assert html.text.startswith("<!doctype html>")
    path, _, query = page.partition("?")
    twin = client.get(f"{'/population' if path == '/' else path}.json?{query}")
    assert twin.status_code == 200
    assert isinstance(twin.json(), dict)


def test_the_population_tells_every_neuron(client: TestClient) -> None:
    page = told(client, "/population.json")
    assert [row["name"] for row in page["neurons"]] == NAMES
    assert page["n_waiting"] == 0
    row = page["neurons"][1]
    assert (row["session"], row["neuron"], row["label"]) == ("s1", 1, "s1 · 1")
    assert row["parameters"] == small_model(1).n_parameters.total
    assert 0 < row["field"]["diameter_px"] < SIDE
    for kind, value in row["responses"].items():
        assert response(shown(client, kind)) == pytest.approx(value, rel=1e-4), kind
    most, least = row["responses"]["synthesized_max"], row["responses"]["synthesized_min"]
    assert most > row["responses"]["natural_max"] > row["responses"]["natural_min"] > least


def test_responses_without_filters_are_pythons(client: TestClient) -> None:
    image = shown(client, "natural_max")
    without = [[0, 2], [2, 1], [5, 0]]
    answer = told(client, f"{AT}/respond", picture="natural_max", without=without)
    ablations = Ablations(small_model(1))
    kept = np.ones(len(ablations), dtype=bool)
    for stage, number in without:
        kept[ablations.filter(stage, number)] = False
    assert answer["intact"] == pytest.approx(response(image), rel=1e-5)
    assert answer["response"] == pytest.approx(float(ablations.responses(image, kept)), rel=1e-5)
    assert answer["response"] != pytest.approx(answer["intact"], rel=1e-3)


def test_effects_are_those_of_taking_out_one(client: TestClient) -> None:
    image = shown(client, "natural_max")
    effects = told(client, f"{AT}/effects", picture="natural_max")["effects"]
    ablations = Ablations(small_model(1))
    lost = ablations.responses(image) - ablations.without_each(image)[:, 0]
    np.testing.assert_allclose(effects, lost.numpy(), rtol=1e-5, atol=1e-6)
    left = told(client, f"{AT}/effects", picture="natural_max", without=[[1, 0]])["effects"]
    assert left[ablations.filter(1, 0)] == 0


def test_the_trace_of_what_is_left_sums_to_the_response(client: TestClient) -> None:
    without = [[0, 1], [3, 2]]
    answer = told(client, f"{AT}/trace", picture="natural_max", without=without)
    left = told(client, f"{AT}/respond", picture="natural_max", without=without)["response"]
    assert sum(answer["by_filter"]) + answer["bias"] == pytest.approx(left, rel=1e-4)
    maps = answer["maps"]["maps0"]
    assert maps["shape"] == [4, SIDE, SIDE]
    steps = np.frombuffer(base64.b64decode(maps["int8"]), np.int8).reshape(maps["shape"])
    with torch.inference_mode():
        layers = small_model(1).layers
        true = layers.layer(0, layers.centre(shown(client, "natural_max")))[0, 0].numpy()
    drawn = steps[0] / 127 * maps["limits"][0]
    np.testing.assert_allclose(drawn, true, atol=maps["limits"][0] / 250)


def test_tuning_curves_are_those_of_tune_and_move(client: TestClient) -> None:
    page = told(client, f"{AT}/tuning.json")
    tuning = tune(small_model(1), tuple(page["centre_px"]), rng=np.random.default_rng(0))
    best = tuning.grating.mean(axis=2).max(axis=0).argmax()
    direction = tuning.contour.max(axis=0).argmax()
    expected = {
        "size": tuning.dot_size, "number": tuning.dot_number.mean(axis=1),
        "orientation": tuning.grating[:, best].mean(axis=1),
        "curvature": tuning.contour[:, direction], "hue": tuning.hue,
    }  # fmt: skip
    for name, values in expected.items():
        np.testing.assert_allclose(page["intact"][name], values, rtol=1e-4, atol=1e-5, err_msg=name)
    moved = told(client, f"{AT}/tuning", without=[[5, 0], [2, 0]])["without"]
    ablations = Ablations(small_model(1))
    kept = np.ones(len(ablations), dtype=bool)
    kept[[ablations.filter(5, 0), ablations.filter(2, 0)]] = False
    size = ablations.responses(torch.from_numpy(tuning.size_stimuli), kept)
    np.testing.assert_allclose(moved["size"], size.numpy(), rtol=1e-4, atol=1e-5)
    assert told(client, f"{AT}/tuning.json") == page  # kept, and read again


def test_saliency_is_that_of_smoothing(client: TestClient) -> None:
    answer = told(client, f"{AT}/saliency", picture="natural_max")
    found = smoothing_saliency([small_model(1)], shown(client, "natural_max").numpy()[None])
    np.testing.assert_allclose(answer["map"], found.maps[0, 0], rtol=1e-4, atol=1e-5)


def test_adversarial_images_raise_and_lower(client: TestClient) -> None:
    answer = told(client, f"{AT}/adversarial.json")
    values = answer["responses"]
    assert values["raised"] > values["base"] > values["lowered"]
    assert response(shown(client, "raised")) == pytest.approx(values["raised"], rel=1e-4)
    change = shown(client, "raised").float() - shown(client, "base").float()
    assert float(change.square().mean().sqrt()) <= answer["budget"]


def test_an_uploaded_image_is_resized_and_shown(client: TestClient, photo: Path) -> None:
    answer = client.post(f"{AT}/upload", content=photo.read_bytes()).json()
    image = decode_image(photo.read_bytes(), "photo", size=SIDE)
    assert answer["response"] == pytest.approx(response(torch.from_numpy(image)[None]), rel=1e-5)
    png = answer["url"].removeprefix("data:image/png;base64,")
    again = told(client, f"{AT}/respond", png=png)
    assert again["intact"] == pytest.approx(answer["response"], rel=1e-6)


def test_a_synthesis_ends_with_what_synthesize_returns(client: TestClient) -> None:
    answer = client.post(f"{AT}/synthesize", json={"seed": 5, "n_steps": 55})
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["step"] for line in lines] == list(range(56))
    made = synthesize([small_model(1)], n_starts=1, n_steps=55, seed=5)
    image = decode_image(base64.b64decode(lines[-1]["png"]), "last")
    np.testing.assert_array_equal(image, made.images[0, 0])
    assert lines[-1]["best"] == pytest.approx(float(made.responses[0, 0]), rel=1e-6)


def test_two_neurons_are_shown_each_others_images(client: TestClient) -> None:
    page = told(client, f"/compare.json?a={NAMES[0]}&b={NAME}")
    own = [row["responses"]["synthesized_max"] for row in page["neurons"]]
    crossed = np.array(page["crossed"]["synthesized_max"])
    np.testing.assert_allclose(np.diagonal(crossed), own, rtol=1e-4)


def test_the_same_models_are_not_looked_at_twice(explorer: Explorer, models: Path) -> None:
    cache = explorer.study(NAME).kept.folder.parent
    again = Explorer(models, natural=explorer.natural, cache=cache, n_steps=12)
    assert again.population()["neurons"] == explorer.population()["neurons"]


def picture_bytes(size: tuple[int, int], mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("path", "content", "status", "said"),
    [
        ("/neuron/none/respond", b"{}", 404, "none"),
        (f"{AT}/respond", b"{}", 400, "no image"),
        (f"{AT}/respond", b'{"picture": "../described"}', 400, "no picture"),
        (f"{AT}/respond", b'{"png": "***"}', 400, "base64"),
        (f"{AT}/respond", b'{"png": "AAAA"}', 400, "cannot be decoded"),
        (
            f"{AT}/respond",
            b'{"picture": "natural_max", "without": [[6, 0]]}',
            400,
            "less than or equal to 5",
        ),
        (f"{AT}/respond", b'{"picture": "natural_max", "without": [[1, 99]]}', 400, "no filter 99"),
        (f"{AT}/respond", b'{"more": 1}', 400, "more: Extra"),
        (f"{AT}/respond", b"[" * 100_000, 400, "understood"),
        (f"{AT}/respond", b"x" * (2**20 + 1), 413, "at most"),
        (f"{AT}/synthesize", b'{"n_steps": 100000}', 400, "n_steps"),
        (f"{AT}/upload", b"no picture", 400, "cannot be decoded"),
        (f"{AT}/upload", picture_bytes((6000, 5000), "1"), 400, "pixels allowed"),
        (f"{AT}/upload", b"\0" * (16 * 2**20 + 1), 413, "at most"),
    ],
)
def test_bad_requests_are_refused_with_a_reason(
    client: TestClient, path: str, content: bytes, status: int, said: str
) -> None:
    answer = client.post(path, content=content)
    assert answer.status_code == status, answer.text
    assert said in answer.json()["error"]


@pytest.mark.parametrize(
    "path",
    [
        "/neuron/none", "/neuron/none.json", f"{AT}/described.png", "/assets/page.html",
        "/assets/..%2Fapp.py", "/assets/%2e%2e%2fapp.py", "/neuron/..%2F..%2Fetc%2Fpasswd",
        f"{AT}/..%2Fdescribed.json.png", "/compare.json?a=x&b=y",
    ],
)  # fmt: skip
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404
