"""Who may ask: the token, the name of the host, other sites."""

from collections.abc import Iterator
from itertools import islice

import pytest
from explored_models import NAMES, TOKEN
from starlette.testclient import TestClient

from pocketcortex.explorer import Explorer, Guard, make_app

HOST = "127.0.0.1:80"


@pytest.fixture
def stranger(explorer: Explorer) -> TestClient:
    app = Guard(make_app(explorer), TOKEN, [HOST])
    return TestClient(app, base_url="http://127.0.0.1:80", headers={"host": HOST})


@pytest.mark.parametrize("path", ["/", "/population.json", "/assets/main.js", "/?token=wrong"])
def test_without_the_token_nothing_is_told(stranger: TestClient, path: str) -> None:
    answer = stranger.get(path)
    assert answer.status_code == 403
    assert "pocketcortex explore" in answer.text
    assert NAMES[0] not in answer.text


def test_the_token_moves_from_the_address_into_a_cookie(stranger: TestClient) -> None:
    answer = stranger.get("/compare", params={"a": "x y", "token": TOKEN}, follow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/compare?a=x+y"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    stranger.cookies.clear()
    given = {"cookie": cookie.partition(";")[0]}
    assert stranger.get("/population.json", headers=given).status_code == 200


def test_a_redirect_leads_nowhere_else(stranger: TestClient) -> None:
    answer = stranger.get(f"//evil.example/?token={TOKEN}", follow_redirects=False)
    assert not answer.headers.get("location", "/").startswith(("//", "http"))


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1:81", ""])
def test_another_name_is_refused_even_with_the_token(client: TestClient, host: str) -> None:
    assert client.get("/population.json", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:81"])
def test_requests_from_other_sites_are_refused(client: TestClient, origin: str) -> None:
    path = f"/neuron/{NAMES[0]}/respond"
    answer = client.post(path, json={"picture": "natural_max"}, headers={"origin": origin})
    assert answer.status_code == 403
    own = client.post(
        path, json={"picture": "natural_max"}, headers={"origin": "http://127.0.0.1:80"}
    )
    assert own.status_code == 200


@pytest.mark.parametrize("path", ["/", "/population.json", "/assets/main.js", "/none"])
def test_answers_may_load_nothing_from_elsewhere(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_a_token_in_the_address_lets_no_post_through(stranger: TestClient) -> None:
    answer = stranger.post(f"/neuron/{NAMES[0]}/respond?token={TOKEN}", json={})
    assert answer.status_code == 403


@pytest.mark.parametrize("cookie", ["pocketcortex_80=wrong", f"pocketcortex_81={TOKEN}", "=;=,;\\"])
def test_another_cookie_is_refused(stranger: TestClient, cookie: str) -> None:
    assert stranger.get("/population.json", headers={"cookie": cookie}).status_code == 403


def test_an_upload_without_a_length_is_cut_off_at_the_limit(client: TestClient) -> None:
    sent = []

    def endless() -> Iterator[bytes]:
        while True:
            sent.append(1)
            assert len(sent) < 40  # of 1 MiB each, 16 allowed
            yield b"\0" * 2**20

    answer = client.post(f"/neuron/{NAMES[0]}/upload", content=islice(endless(), 30))
    assert answer.status_code == 413
