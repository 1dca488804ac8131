"""Who may ask: the right Host, the right token; what a browser may do with the answers."""

import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from secrets import compare_digest
from typing import Any
from urllib.parse import parse_qsl, urlencode

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


class Guard:
    """Let requests through that name one of our hosts and bring the token.

    A page of another site that a browser has open can send requests to this machine, and by
    rebinding its name even read the answers; it knows neither name nor token. The token comes
    once in the address (``?token=``), is put into a cookie and taken out of the address again, or
    as ``Authorization: Bearer``. Cookies are named for the port, so that two explorers do not log
    each other out.

    Parameters
    ----------
    app
        What answers.
    token
        The secret.
    hosts
        Names with port that requests may be addressed to.
    """

    def __init__(self, app: App, token: str, hosts: Iterable[str]) -> None:
        self.app, self.token = app, token
        self.hosts = {host.lower() for host in hosts}
        ports = {port for host in self.hosts if (port := host.rpartition(":")[2]).isdigit()}
        self.cookie = "pocketcortex_" + ("_".join(sorted(ports)) or "80")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        origin = headers.get("origin", "")
        if headers.get("host", "").lower() not in self.hosts:
            await _refuse(send, 421, "this server does not go by that name")
        elif origin and origin.partition("://")[2].lower() not in self.hosts:
            await _refuse(send, 403, "requests from other sites are refused")
        elif self._by_address(scope):
            await self._remember(scope, send)
        elif self._known(headers):
            await self.app(scope, receive, _with_headers(send))
        else:
            await _refuse(
                send, 403, "open the address that pocketcortex explore printed, with its token"
            )

    def _by_address(self, scope: Scope) -> bool:
        given = dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("token", "")
        return scope["method"] == "GET" and compare_digest(given.encode(), self.token.encode())

    def _known(self, headers: dict[str, str]) -> bool:
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return False
        given = cookies[self.cookie].value if self.cookie in cookies else ""
        if told := re.fullmatch(r"[Bb]earer (\S+)", headers.get("authorization", "")):
            given = told[1]
        return compare_digest(given.encode(), self.token.encode())

    async def _remember(self, scope: Scope, send: Send) -> None:
        """Send the browser to the same page without the token in its address."""
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        query = urlencode([(name, value) for name, value in pairs if name != "token"])
        path = "/" + scope.get("raw_path", b"/").decode("latin-1").partition("?")[0].lstrip("/")
        cookie = f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict"
        headers = [
            (b"location", (path + (f"?{query}" if query else "")).encode("latin-1")),
            (b"set-cookie", cookie.encode("latin-1")),
        ]
        await _answer(send, 303, headers, b"")


async def _refuse(send: Send, status: int, why: str) -> None:
    await _answer(send, status, [(b"content-type", b"text/plain; charset=utf-8")], why.encode())


async def _answer(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    whole = [*headers, *_HEADERS, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": whole})
    await send({"type": "http.response.body", "body": body})


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = [*message.get("headers", []), *_HEADERS]
            if not any(name.lower() == b"cache-control" for name, _ in own):
                own.append((b"cache-control", b"no-store"))
            message = {**message, "headers": own}
        await send(message)

    return sent
