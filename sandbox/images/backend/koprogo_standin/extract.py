"""Reading bodies, queries and path ids; errors are worded as serde and actix-web word them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from starlette.requests import Request

from koprogo_standin.errors import TextError

BODY_LIMIT = 2 * 1024 * 1024
I32 = range(-(2**31), 2**31)
RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
WHOLE = re.compile(r"[+-]?[0-9]+")


class FieldError(Exception):
    """A value that its field cannot hold."""


def describe(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return f"boolean `{str(value).lower()}`"
        case int():
            return f"integer `{value}`"
        case float():
            return f"floating point `{value}`"
        case str():
            return f"string {orjson.dumps(value).decode()}"
        case list():
            return "sequence"
    return "map"


def unexpected(value: object, wanted: str) -> FieldError:
    return FieldError(f"invalid type: {describe(value)}, expected {wanted}")


def text(value: object) -> str:
    if not isinstance(value, str):
        raise unexpected(value, "a string")
    return value


def i32(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise unexpected(value, "i32")
    if value not in I32:
        raise FieldError(f"invalid value: integer `{value}`, expected i32")
    return value


def f64(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise unexpected(value, "f64")
    return float(value)


def uuid(value: object) -> UUID:
    parsed = as_uuid(text(value))
    if parsed is None:
        raise FieldError("UUID parsing failed: invalid character or length")
    return parsed


def moment(value: object) -> datetime:
    parsed = as_moment(text(value))
    if parsed is None:
        raise FieldError("input contains invalid characters")
    return parsed


def one_of(*variants: str) -> Callable[[Any], str]:
    def check(value: object) -> str:
        if text(value) not in variants:
            names = ", ".join(f"`{variant}`" for variant in variants)
            raise FieldError(f"unknown variant `{value}`, expected one of {names}")
        return str(value)

    return check


def as_uuid(value: str) -> UUID | None:
    try:
        return UUID(value)
    except ValueError:
        return None


def as_moment(value: str) -> datetime | None:
    if not RFC3339.fullmatch(value):
        return None
    try:
        return datetime.fromisoformat(value.upper().replace("Z", "+00:00"))
    except ValueError:
        return None


@dataclass(frozen=True)
class Field:
    parse: Callable[[Any], Any]
    optional: bool = False


async def read_body(request: Request) -> bytes:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise TextError(400, "Content type error")
    size = request.headers.get("content-length", "")
    if size.isdigit() and int(size) > BODY_LIMIT:
        raise too_large()
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT:
            raise too_large()
    return bytes(body)


def too_large() -> TextError:
    return TextError(413, f"JSON payload has exceeded limit ({BODY_LIMIT} bytes).")


async def json_body(request: Request, fields: Mapping[str, Field]) -> dict[str, Any]:
    """The fields wanted, typed; unknown ones are ignored, optional ones may be null or absent."""
    body = await read_body(request)

    def bad(problem: str) -> TextError:
        where = f"at line 1 column {len(body)}"
        return TextError(400, f"Json deserialize error: {problem} {where}")

    if not body.strip():
        raise bad("EOF while parsing a value")
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad(str(error)) from error
    if not isinstance(given, dict):
        raise bad(str(unexpected(given, "struct")))
    values: dict[str, Any] = dict.fromkeys(fields)
    # First what is there, in its own order, then what is missing: as serde meets them.
    for name, value in given.items():
        field = fields.get(name)
        if field is None or (value is None and field.optional):
            continue
        try:
            values[name] = field.parse(value)
        except FieldError as error:
            raise bad(str(error)) from error
    for name, field in fields.items():
        if name not in given and not field.optional:
            raise bad(f"missing field `{name}`")
    return values


def path_id(request: Request) -> UUID:
    parsed = as_uuid(request.path_params["id"])
    if parsed is None:
        raise TextError(404, "UUID parsing failed: invalid character or length")
    return parsed


@dataclass(frozen=True)
class Page:
    page: int
    per_page: int
    sort_by: str | None
    descending: bool


def page_query(request: Request) -> Page:
    """Types only: the rules about the values are the handler's, and so is their error (a 500)."""
    query = request.query_params

    def whole(name: str, default: int) -> int:
        value = query.get(name)
        if value is None:
            return default
        if not WHOLE.fullmatch(value) or abs(int(value[:21])) >= 2**63:
            raise TextError(400, "Query deserialize error: invalid digit found in string")
        return int(value)

    page, per_page = whole("page", 1), whole("per_page", 20)
    order = query.get("order", "asc")
    if order not in ("asc", "desc"):
        problem = f"unknown variant `{order}`, expected `asc` or `desc`"
        raise TextError(400, f"Query deserialize error: {problem}")
    return Page(page, per_page, query.get("sort_by"), order == "desc")
