"""The web application: pages, their JSON twins, and what pages ask for."""

import json
from collections.abc import Callable
from importlib import resources
from typing import Any, TypeVar

import pydantic
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from pocketcortex.core import InputError, decode_image
from pocketcortex.explorer.explorer import Explorer
from pocketcortex.explorer.live import synthesis_lines
from pocketcortex.explorer.neurons import MissingPageError
from pocketcortex.explorer.pictures import data_url, to_png
from pocketcortex.explorer.requests import (
    MAX_REQUEST_BYTES,
    MAX_UPLOAD_BYTES,
    MAX_UPLOAD_PIXELS,
    Asked,
    AskedSynthesis,
    read_body,
)

_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_Answer = TypeVar("_Answer")
_Asked = TypeVar("_Asked", bound=pydantic.BaseModel)


def asset(name: str) -> bytes:
    """Return a file of the front end.

    Raises
    ------
    MissingPageError
        If there is none of that name.
    """
    found = _assets()
    if name not in found:
        raise MissingPageError(name)
    return found[name]


def asset_names() -> list[str]:
    """Return the files of the front end that pages ask for."""
    return sorted(_assets())


def shell(
    page: str, *, mode: str = "server", root: str = "/", head: str = "", zoo: bool = False
) -> str:
    """Return a page's HTML, which its script fills; with `zoo` it links to that page."""
    text = resources.files("pocketcortex.explorer").joinpath("web/page.html").read_text("utf-8")
    scripts = head or f'<script type="module" src="{root}assets/main.js"></script>'
    told = {"PAGE": page, "MODE": mode, "ROOT": root, "SCRIPTS": scripts, "ZOO": "yes" * zoo}
    for name, value in told.items():
        text = text.replace(f"@{name}@", value)
    return text


def make_app(explorer: Explorer) -> FastAPI:
    """Return the application that serves an explorer; wrap it in `Guard` before anybody may ask.

    Every page has a twin: ``/`` and ``/population.json``, ``/neuron/NAME`` and
    ``/neuron/NAME.json``, ``/compare?a=&b=`` and ``/compare.json?a=&b=``, ``/zoo`` and
    ``/zoo.json``. Requests carry all they are about (image, filters taken out), so that two
    windows share nothing.

    Parameters
    ----------
    explorer
        What to show.
    """
    app = FastAPI(title="pocketcortex explorer", docs_url=None, redoc_url=None, openapi_url=None)
    _add_errors(app)
    _add_pages(app, explorer)
    _add_neuron(app, explorer)
    _add_questions(app, explorer)
    return app


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(InputError)
    async def bad_input(request: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 400)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail)}, error.status_code)


def _add_pages(app: FastAPI, explorer: Explorer) -> None:
    @app.get("/")
    def population_page() -> HTMLResponse:
        return HTMLResponse(shell("population", zoo=explorer.has_zoo))

    @app.get("/population.json")
    def population() -> JSONResponse:
        return JSONResponse(explorer.population())

    @app.get("/compare")
    def compare_page() -> HTMLResponse:
        return HTMLResponse(shell("compare", zoo=explorer.has_zoo))

    @app.get("/compare.json")
    def compare(a: str, b: str) -> JSONResponse:
        return JSONResponse(_found(lambda: _held(explorer, lambda: explorer.compare(a, b))))

    @app.get("/zoo")
    def zoo_page() -> HTMLResponse:
        return HTMLResponse(shell("zoo", zoo=explorer.has_zoo))

    @app.get("/zoo.json")
    def zoo() -> JSONResponse:
        return JSONResponse({"zoo": explorer.zoo()})

    @app.get("/assets/{name}")
    def assets(name: str) -> Response:
        content = _found(lambda: asset(name))
        kind = _TYPES["." + name.rpartition(".")[2]]
        return Response(content, media_type=kind, headers={"cache-control": "no-cache"})


def _add_neuron(app: FastAPI, explorer: Explorer) -> None:
    @app.get("/neuron/{name}.json")
    def neuron(name: str) -> JSONResponse:
        return JSONResponse(_found(lambda: _held(explorer, lambda: explorer.neuron(name))))

    @app.get("/neuron/{name}")
    def neuron_page(name: str) -> HTMLResponse:
        _found(lambda: explorer.study(name))
        return HTMLResponse(shell("neuron", zoo=explorer.has_zoo))

    @app.get("/neuron/{name}/looks.json")
    def looks(name: str) -> JSONResponse:
        return JSONResponse(_found(lambda: explorer.looks(name)))

    @app.get("/neuron/{name}/tuning.json")
    def tuning(name: str) -> JSONResponse:
        return JSONResponse(_found(lambda: _held(explorer, lambda: explorer.tuning(name))))

    @app.get("/neuron/{name}/adversarial.json")
    def adversarial(name: str) -> JSONResponse:
        return JSONResponse(_found(lambda: _held(explorer, lambda: explorer.adversarial(name))))

    @app.get("/neuron/{name}/{picture}.png")
    def picture(name: str, picture: str) -> Response:
        png = _found(lambda: explorer.study(name)).picture(picture)
        if png is None:
            raise HTTPException(404, f"there is no picture {picture} yet")
        kept = {"cache-control": "private, max-age=60"}
        return Response(png, media_type="image/png", headers=kept)


def _add_questions(app: FastAPI, explorer: Explorer) -> None:
    async def answered(
        name: str, request: Request, answer: Callable[[Asked], dict[str, Any]]
    ) -> JSONResponse:
        asked = await _asked(request, Asked)
        told = await run_in_threadpool(
            lambda: _found(lambda: _held(explorer, lambda: answer(asked)))
        )
        return JSONResponse(told)

    @app.post("/neuron/{name}/upload")
    async def upload(name: str, request: Request) -> JSONResponse:
        content = await read_body(request, MAX_UPLOAD_BYTES)

        def answer() -> dict[str, Any]:
            size = explorer.study(name).model.image_size[0]
            image = decode_image(content, "sent", size=size, max_pixels=MAX_UPLOAD_PIXELS)
            response = float(explorer.opened(name).responses(image[None])[0])
            return {"url": data_url(to_png(image)), "response": response}

        return JSONResponse(
            await run_in_threadpool(lambda: _found(lambda: _held(explorer, answer)))
        )

    @app.post("/neuron/{name}/respond")
    async def respond(name: str, request: Request) -> JSONResponse:
        def answer(asked: Asked) -> dict[str, Any]:
            image, opened = asked.image(explorer.study(name))[None], explorer.opened(name)
            intact = float(opened.responses(image)[0])
            left = float(opened.responses(image, asked.without)[0]) if asked.without else intact
            return {"intact": intact, "response": left}

        return await answered(name, request, answer)

    @app.post("/neuron/{name}/effects")
    async def effects(name: str, request: Request) -> JSONResponse:
        return await answered(
            name, request,
            lambda asked: explorer.opened(name).effects(
                asked.image(explorer.study(name)), asked.without
            ),
        )  # fmt: skip

    @app.post("/neuron/{name}/trace")
    async def trace(name: str, request: Request) -> JSONResponse:
        return await answered(
            name, request,
            lambda asked: explorer.opened(name).trace(
                asked.image(explorer.study(name)), asked.without
            ),
        )  # fmt: skip

    @app.post("/neuron/{name}/saliency")
    async def saliency(name: str, request: Request) -> JSONResponse:
        return await answered(
            name, request,
            lambda asked: explorer.opened(name).saliency(asked.image(explorer.study(name))),
        )  # fmt: skip

    @app.post("/neuron/{name}/tuning")
    async def tuning(name: str, request: Request) -> JSONResponse:
        def answer(asked: Asked) -> dict[str, Any]:
            opened = explorer.opened(name)
            return {
                "without": explorer.curves(name).answers(
                    lambda images: opened.responses(images, asked.without)
                )
            }

        return await answered(name, request, answer)

    @app.post("/neuron/{name}/synthesize")
    async def synthesize(name: str, request: Request) -> StreamingResponse:
        asked = await _asked(request, AskedSynthesis)
        study = _found(lambda: explorer.study(name))
        lines = synthesis_lines(study, asked, explorer.pacer)
        return StreamingResponse(lines, media_type="application/x-ndjson")


async def _asked(request: Request, kind: type[_Asked]) -> _Asked:
    """Return a request's JSON; anything but what is expected is an InputError."""
    content = await read_body(request, MAX_REQUEST_BYTES)
    try:
        return kind.model_validate(json.loads(content or b"{}"))
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the request"
        raise InputError(f"{where}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"the request cannot be understood ({reason})") from error


def _found(get: Callable[[], _Answer]) -> _Answer:
    """Return what `get` does; 404 where there is no such page."""
    try:
        return get()
    except MissingPageError as error:
        raise HTTPException(404, f"there is no {error.args[0]!r} here") from error


def _held(explorer: Explorer, get: Callable[[], _Answer]) -> _Answer:
    """Return what `get` does while background work waits."""
    with explorer.pacer.user():
        return get()


def _assets() -> dict[str, bytes]:
    folder = resources.files("pocketcortex.explorer").joinpath("web")
    return {
        one.name: one.read_bytes()
        for one in folder.iterdir()
        if "." + one.name.rpartition(".")[2] in _TYPES
    }
