"""The web around the service: limits on what comes in, JSON out, one page.

Photos travel in the JSON body as base64, so that no file name, form parser or temporary file is involved. A
request that is too large is refused before it is read. Only requests to the host's own name are answered, so
that a page from elsewhere cannot reach the service through the browser of its user.
"""

import asyncio
import base64
import binascii
import json
from collections.abc import Awaitable, Callable, Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any

from facescale.serve.service import FaceService

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; style-src 'unsafe-inline'; "
    "script-src 'self'; frame-ancestors 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_FORM = 4096  # bytes of a body besides its photos


class _RefusedError(Exception):
    """A request that gets a sentence and a status instead of an answer."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def build_app(service: FaceService, hosts: tuple[str, ...] = LOOPBACK) -> "Starlette":
    """The application, for uvicorn or another ASGI server.

    Args:
        service: answers.
        hosts: names that requests may be addressed to.

    Raises:
        ValueError: starlette is not installed.
    """
    require_extra()
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.routing import Route

    at_once = asyncio.Semaphore(service.limits.at_once)

    def compare(values: Mapping[str, Any]) -> dict[str, Any]:
        return service.compare(_photo(values, "first"), _photo(values, "second"), _number(values, "far"))

    def search(values: Mapping[str, Any]) -> dict[str, Any]:
        top = values.get("top", 5)
        if not isinstance(top, int) or isinstance(top, bool):
            raise ValueError(f"top = {top!r} must be a whole number")
        return service.search(_photo(values, "photo"), _number(values, "far"), top)

    def route(answer: Callable[[Mapping[str, Any]], dict[str, Any]], photos: int) -> Any:
        async def handle(request: "Request") -> "Response":
            async with at_once:
                return await _handled(request, answer, service, photos)

        return handle

    async def about(request: "Request") -> "Response":
        return _json(200, await asyncio.to_thread(service.about))

    return Starlette(
        routes=[
            Route("/", _page("page.html", "text/html")),
            Route("/page.js", _page("page.js", "text/javascript")),
            Route("/api/model", about),
            Route("/api/compare", route(compare, 2), methods=["POST"]),
            Route("/api/search", route(search, 1), methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
    )


def require_extra() -> None:
    """Check that the web packages are installed.

    Raises:
        ValueError: they are not.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise ValueError(
            "serve needs starlette and uvicorn; install them with: pip install 'facescale[serve]'"
        ) from None


async def _handled(
    request: "Request",
    answer: Callable[[Mapping[str, Any]], dict[str, Any]],
    service: FaceService,
    photos: int,
) -> "Response":
    limits = service.limits
    try:
        most = photos * (limits.photo_bytes + 2) * 4 // 3 + _FORM
        body = await _in_time(
            _body(request, most), limits.seconds, 408, "the request took too long to arrive"
        )
        values = _parsed(body)
        work = asyncio.to_thread(answer, values)
        return _json(200, await _in_time(work, limits.seconds, 503, "the answer took too long; try again"))
    except _RefusedError as error:
        return _json(error.status, {"error": str(error)})
    except ValueError as error:
        return _json(400, {"error": str(error)})


async def _in_time(work: Awaitable[Any], seconds: float, status: int, sentence: str) -> Any:
    try:
        return await asyncio.wait_for(work, seconds)
    except TimeoutError:
        raise _RefusedError(status, f"{sentence} ({seconds:g} s)") from None


async def _body(request: "Request", most: int) -> bytes:
    """The body, read no further than allowed."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise _RefusedError(415, "send JSON with the header Content-Type: application/json")
    claimed = request.headers.get("content-length", "0")
    if not claimed.isdecimal() or int(claimed) > most:
        raise _RefusedError(413, f"the request has {claimed} bytes, more than the {most:,} allowed")
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise _RefusedError(413, f"the request has more than the {most:,} bytes allowed")
        parts.append(part)
    return b"".join(parts)


def _parsed(body: bytes) -> Mapping[str, Any]:
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("the body is not JSON") from None
    if not isinstance(values, dict):
        raise ValueError(
            'the body is not a JSON object such as {"first": BASE64, "second": BASE64, "far": 0.01}'
        )
    return values


def _photo(values: Mapping[str, Any], key: str) -> bytes:
    text = values.get(key)
    if not isinstance(text, str):
        raise ValueError(f"'{key}' is missing; it is a photo as base64")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"'{key}' is not base64") from None


def _number(values: Mapping[str, Any], key: str) -> float:
    if key not in values:
        raise ValueError(f"'{key}' is missing; it is a false-accept rate, such as 0.01")
    value = values[key]
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1:
        raise ValueError(f"'{key}' = {value!r} must be a number above 0, at most 1")
    return float(value)


def _json(status: int, values: Mapping[str, Any]) -> "Response":
    from starlette.responses import JSONResponse

    return JSONResponse(values, status, headers=_HEADERS)


def _page(name: str, kind: str) -> Any:
    text = (resources.files("facescale.serve") / name).read_text("utf-8")

    async def send(request: "Request") -> "Response":
        from starlette.responses import Response

        return Response(text, media_type=kind, headers=_HEADERS)

    return send
