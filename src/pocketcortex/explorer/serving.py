"""Serve the explorer on this machine."""

import secrets
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn

from pocketcortex.core import InputError
from pocketcortex.explorer.app import make_app
from pocketcortex.explorer.explorer import Explorer
from pocketcortex.explorer.guard import Guard

LOOPBACK = "127.0.0.1"


def serve(
    explorer: Explorer,
    *,
    host: str = LOOPBACK,
    port: int = 0,
    token: str | None = None,
    ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve an explorer until interrupted.

    Parameters
    ----------
    explorer
        What to show.
    host
        Address to listen at; other machines reach this one only if it is not a loopback address.
    port
        Port to listen at; 0 takes a free one.
    token
        The secret that a browser must bring; None draws one.
    ready
        Called with the address to open, token included, once it can be opened.

    Raises
    ------
    InputError
        If the address cannot be listened at.
    """
    token = secrets.token_urlsafe(24) if token is None else token
    listening = _listen(host, port)
    port = listening.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    hosts = {f"{name}:{port}" for name in (shown, "localhost", LOOPBACK)}
    app = Guard(make_app(explorer), token, hosts)
    config = uvicorn.Config(
        app,
        log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=2,
        server_header=False,
    )  # fmt: skip
    ready(f"http://{shown}:{port}/?token={token}")
    explorer.background.start()
    try:
        with suppress(KeyboardInterrupt):  # the way to end it
            uvicorn.Server(config).run(sockets=[listening])
    finally:
        explorer.background.stop()
        listening.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(128)
    except (OSError, OverflowError) as error:
        listening.close()
        raise InputError(
            f"cannot listen at {host}:{port} ({error}); choose another port"
        ) from error
    return listening
