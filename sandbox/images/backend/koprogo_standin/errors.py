"""Answers, and KoproGo's different shapes of refusal."""

from uuid import UUID

import orjson
from starlette.requests import Request
from starlette.responses import Response

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


def plain(value: object) -> str:
    """orjson knows UUID, but not the subclass of it that asyncpg returns."""
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(type(value).__name__)


def answer(content: object, status: int = 200) -> Response:
    return Response(orjson.dumps(content, default=plain), status, media_type=JSON)


def json_error(status: int, text: str, details: str | None = None) -> Response:
    body = {"error": text}
    if details is not None:
        body["details"] = details
    return answer(body, status)


class HttpError(Exception):
    """Ends a request with this response."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


class TextError(HttpError):
    """What an extractor says: plain text, before a handler has run."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(Response(text, status, media_type=TEXT))


class JsonError(HttpError):
    """What a handler says."""

    def __init__(self, status: int, text: str, details: str | None = None) -> None:
        super().__init__(json_error(status, text, details))


async def refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HttpError)
    return error.response


async def not_found(request: Request, error: Exception) -> Response:
    """An unknown path, and a known one with another method, are the same empty 404."""
    return Response(status_code=404)
