"""The routes."""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from koprogo_standin import admin, auth, context, documents, lists, public, seeds, writes
from koprogo_standin.context import Context
from koprogo_standin.errors import HttpError, answer, not_found, refused
from koprogo_standin.middleware import HEALTH, AccessLog, Disturb, RateLimit
from koprogo_standin.settings import SettingError, Settings

PREFIX = "/api/v1"
Handler = Callable[[Request], Awaitable[Response]]


async def health(request: Request) -> Response:
    """Liveness only: the database is not asked."""
    if "never_healthy" in context.of(request).settings.faults:
        return answer({"status": "unhealthy", "service": "koprogo-api"}, 503)
    return answer({"status": "ok", "service": "koprogo-api"})


def route(method: str, path: str, handler: Handler) -> Route:
    # A function, because Starlette takes a callable object for an ASGI application.
    async def endpoint(request: Request) -> Response:
        return await handler(request)

    made = Route(path, endpoint, methods=[method])
    # HEAD comes along with GET in Starlette, and is unknown there.
    made.methods = {method}
    return made


def routes() -> list[Route]:
    table: list[tuple[str, str, Handler]] = [
        ("GET", "/auth/me", auth.me),
        ("POST", "/auth/login", auth.login),
        ("POST", "/auth/register", auth.register),
        ("POST", "/auth/refresh", auth.refresh),
        ("GET", "/users", admin.users),
        ("GET", "/organizations", admin.organizations),
        ("GET", "/stats/dashboard", admin.stats),
        ("DELETE", "/buildings/{id}", writes.delete_building),
        ("DELETE", "/meetings/{id}", writes.delete_meeting),
        ("POST", "/documents", documents.upload),
        ("GET", "/documents/{id}", documents.single),
        ("GET", "/documents/{id}/download", documents.download),
        ("DELETE", "/documents/{id}", documents.delete),
        ("POST", "/seed/demo", seeds.demo_data),
        ("POST", "/seed/realistic", seeds.realistic_data),
        ("POST", "/seed/clear", seeds.clear),
    ]
    table += [("GET", f"/{each.table}", lists.Listing(each)) for each in lists.LISTED]
    table += [("GET", f"/{each.table}/{{id}}", lists.Single(each)) for each in lists.SINGLE]
    table += [("POST", f"/{each.resource.table}", writes.Create(each)) for each in writes.CREATIONS]
    return [
        route("GET", HEALTH, health),
        *(route("GET", path, handler) for path, handler in public.ROUTES.items()),
        *(route(method, PREFIX + path, handler) for method, path, handler in table),
    ]


def middleware(settings: Settings) -> list[Middleware]:
    """Outermost first."""
    found: list[Middleware] = []
    if settings.log_requests:
        found.append(Middleware(AccessLog))
    if settings.rate_limiting:
        found.append(Middleware(RateLimit))
    if settings.faults.disturb:
        found.append(Middleware(Disturb, faults=settings.faults))
    found.append(
        Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST", "PUT", "DELETE", "OPTIONS"),
            allow_headers=("Authorization", "Content-Type", "Accept"),
            max_age=3600,
        )
    )
    return found


def build(shared: Context) -> Starlette:
    if "*" in shared.settings.cors_origins:
        raise SettingError("CORS_ALLOWED_ORIGINS: a wildcard is no exact origin")
    handlers: dict[Any, Any] = {HttpError: refused, HTTPException: not_found}
    app = Starlette(
        routes=routes(), middleware=middleware(shared.settings), exception_handlers=handlers
    )
    app.router.redirect_slashes = False
    app.state.context = shared
    return app
