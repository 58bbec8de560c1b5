"""What KoproGo of 2026 answers to anybody who gets that far, outside of `/api/v1`.

The proxy has to close it: without these routes an open proxy would answer 404 as well.
"""

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response

from koprogo_standin.errors import answer

# Counters of the document storage alone, as in KoproGo, and none of them has counted yet.
METRICS = """\
# HELP storage_operation_total Operations of the document storage.
# TYPE storage_operation_total counter
"""
BROWSER = "<!doctype html><title>Swagger UI</title><p>The stand-in's routes are KoproGo's.</p>"


async def metrics(_request: Request) -> Response:
    return Response(METRICS, media_type="text/plain; version=0.0.4")


async def browser(_request: Request) -> Response:
    return Response(BROWSER, media_type="text/html")


async def description(_request: Request) -> Response:
    return answer({"openapi": "3.1.0", "info": {"title": "koprogo-api"}, "paths": {}})


async def tools(_request: Request) -> Response:
    return answer({"name": "koprogo-api"})


ROUTES: Mapping[str, Callable[[Request], Awaitable[Response]]] = {
    "/metrics": metrics,
    "/swagger-ui/": browser,
    "/api-docs/openapi.json": description,
    "/mcp/info": tools,
}
