"""Access tokens (HS256, 15 minutes) and who they speak for."""

import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import jwt
from starlette.requests import Request

from koprogo_standin import context, extract
from koprogo_standin.errors import JsonError, TextError

ACCESS_SECONDS = 15 * 60
REFRESH_SECONDS = 7 * 24 * 3600
LEEWAY = 60
SUPERADMIN = "superadmin"

CODEC = jwt.PyJWT()
OPTIONS: Any = {
    "require": ["sub", "email", "role", "exp", "iat"],
    "verify_iat": False,
    "verify_aud": False,
    "verify_sub": False,
    # KoproGo validates no length; that is for the deploy to do.
    "enforce_minimum_key_length": False,
}
NAMES = {
    jwt.ExpiredSignatureError: "ExpiredSignature",
    jwt.InvalidSignatureError: "InvalidSignature",
    jwt.MissingRequiredClaimError: "JSON error: missing field",
    jwt.InvalidAlgorithmError: "InvalidAlgorithm",
}


class TokenError(Exception):
    """Why a request has no caller, in KoproGo's words."""


@dataclass(frozen=True)
class Caller:
    user_id: UUID
    organization_id: UUID | None
    role: str


def access(secret: str, user: dict[str, Any]) -> str:
    now = int(time.time())
    organization = user["organization_id"]
    claims = {
        "sub": str(user["id"]),
        "email": user["email"],
        "role": user["role"],
        "organization_id": str(organization) if organization else None,
        "exp": now + ACCESS_SECONDS,
        "iat": now,
    }
    return CODEC.encode(claims, secret, algorithm="HS256")


def refresh(user_id: UUID) -> str:
    return f"{user_id}:{int(time.time())}:{uuid4()}"


def bearer(request: Request) -> str:
    header = request.headers.get("authorization")
    if header is None:
        raise TokenError("Missing authorization header")
    if not header.isascii():
        raise TokenError("Invalid authorization header")
    # The prefix is trimmed, not demanded: a bare token is as good.
    while header.startswith("Bearer "):
        header = header.removeprefix("Bearer ")
    return header.strip()


def read(request: Request) -> Caller:
    token = bearer(request)
    secret = context.of(request).settings.jwt_secret
    try:
        claims = CODEC.decode(token, secret, algorithms=["HS256"], leeway=LEEWAY, options=OPTIONS)
    except jwt.InvalidTokenError as error:
        name = next((text for kind, text in NAMES.items() if isinstance(error, kind)), None)
        raise TokenError(f"Invalid token: {name or 'InvalidToken'}") from error
    user_id = extract.as_uuid(str(claims["sub"]))
    if user_id is None:
        raise TokenError("Invalid user ID in token")
    organization = claims.get("organization_id")
    return Caller(
        user_id,
        extract.as_uuid(str(organization)) if organization else None,
        str(claims["role"]),
    )


def caller(request: Request) -> Caller:
    """For most routes: the extractor, which answers in plain text."""
    try:
        return read(request)
    except TokenError as error:
        raise TextError(401, str(error)) from error


def caller_json(request: Request) -> Caller:
    """For the routes that look at the header themselves and answer in JSON."""
    try:
        return read(request)
    except TokenError as error:
        raise JsonError(401, str(error)) from error
