"""Login, register, refresh, me; and the superadmin that every start writes anew."""

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from starlette.requests import Request
from starlette.responses import Response

from koprogo_standin import context, database, extract, passwords, tokens
from koprogo_standin.context import Context
from koprogo_standin.errors import JsonError, answer
from koprogo_standin.extract import Field
from koprogo_standin.validate import email, length, validate

if TYPE_CHECKING:
    from koprogo_standin.database import Connection

log = logging.getLogger("koprogo_standin")

ROLES = ("superadmin", "syndic", "accountant", "owner")
SHOWN = ("id", "email", "first_name", "last_name", "role", "organization_id", "is_active")
COLUMNS = ", ".join(SHOWN)

LOGIN = {"email": Field(extract.text), "password": Field(extract.text)}
REGISTER = {
    **LOGIN,
    "first_name": Field(extract.text),
    "last_name": Field(extract.text),
    "role": Field(extract.text),
    "organization_id": Field(extract.uuid, optional=True),
}
REFRESH = {"refresh_token": Field(extract.text)}

SUPERADMIN_ID = UUID("00000000-0000-0000-0000-000000000001")
SUPERADMIN = ("admin@koprogo.com", "admin123")
UPSERT = """
INSERT INTO users (id, email, password_hash, first_name, last_name, role, is_active)
VALUES ($1, $2, $3, 'Admin', 'System', 'superadmin', true)
ON CONFLICT (email) DO UPDATE
SET password_hash = EXCLUDED.password_hash, is_active = true, updated_at = now()"""
# The migration's row has no usable hash yet; one that is there was set by somebody.
ONLY_UNSET = " WHERE users.password_hash NOT LIKE '$2_$%'"


async def write_superadmin(connection: "Connection", shared: Context) -> None:
    """A failure is logged and no more, as there."""
    address, password = SUPERADMIN
    keep = "no_superadmin_reset" in shared.settings.faults
    try:
        password_hash = await passwords.hashed(shared.hashing, password)
        statement = UPSERT + (ONLY_UNSET if keep else "")
        await connection.execute(statement, SUPERADMIN_ID, address, password_hash)
        log.info("superadmin %s ready", address)
    except database.DatabaseError as error:
        log.error("failed to upsert the superadmin: %s", error)


async def signed_in(shared: Context, user: dict[str, Any]) -> dict[str, Any]:
    """A new pair of tokens. Nothing ever removes the row of the old one."""
    refresh_token = tokens.refresh(user["id"])
    expires = datetime.now(UTC) + timedelta(seconds=tokens.REFRESH_SECONDS)
    await shared.execute(
        "INSERT INTO refresh_tokens (id, user_id, token, expires_at) VALUES ($1, $2, $3, $4)",
        uuid4(), user["id"], refresh_token, expires,
    )  # fmt: skip
    return {
        "token": tokens.access(shared.settings.jwt_secret, user),
        "refresh_token": refresh_token,
        "user": {name: user[name] for name in SHOWN},
    }


async def login(request: Request) -> Response:
    shared = context.of(request)
    given = await extract.json_body(request, LOGIN)
    validate(given, {"email": email(), "password": length(6)})
    try:
        row = await shared.row(
            f"SELECT {COLUMNS}, password_hash FROM users WHERE email = $1", given["email"]
        )
        if row is None:
            raise JsonError(401, "Invalid email or password")
        if not row["is_active"]:
            raise JsonError(401, "User account is deactivated")
        if not await passwords.matches(shared.hashing, given["password"], row["password_hash"]):
            raise JsonError(401, "Invalid email or password")
        return answer(await signed_in(shared, row))
    except ValueError as error:
        raise JsonError(401, f"Password verification failed: {error}") from error
    except database.DatabaseError as error:
        # A database that is down is a 401 here, as there.
        raise JsonError(401, database.message(error)) from error


async def register(request: Request) -> Response:
    """Open to everybody and accepts every role, as there; the proxy has to close it."""
    shared = context.of(request)
    given = await extract.json_body(request, REGISTER)
    rules = {"email": email(), "password": length(6)}
    validate(given, {**rules, "first_name": length(2), "last_name": length(2)})
    try:
        if await shared.value("SELECT 1 FROM users WHERE email = $1", given["email"]):
            raise JsonError(400, "Email already exists")
        role = given["role"].lower()
        if role not in ROLES:
            raise JsonError(400, f"Invalid role: Invalid user role: {given['role']}")
        password_hash = await passwords.hashed(shared.hashing, given["password"])
        row = await shared.row(
            "INSERT INTO users (id, email, password_hash, first_name, last_name, role,"
            f" organization_id) VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING {COLUMNS}",
            uuid4(), given["email"].lower(), password_hash, given["first_name"],
            given["last_name"], role, given["organization_id"],
        )  # fmt: skip
        assert row is not None
        return answer(await signed_in(shared, row), 201)
    except database.DatabaseError as error:
        raise JsonError(400, database.message(error)) from error


async def refresh(request: Request) -> Response:
    shared = context.of(request)
    token = (await extract.json_body(request, REFRESH))["refresh_token"]
    try:
        user_id = await shared.value(
            "UPDATE refresh_tokens SET revoked = true, updated_at = now()"
            " WHERE token = $1 AND NOT revoked AND expires_at > now() RETURNING user_id",
            token,
        )
        if user_id is None:
            known = await shared.value("SELECT 1 FROM refresh_tokens WHERE token = $1", token)
            problem = "Refresh token expired or revoked" if known else "Invalid refresh token"
            raise JsonError(401, problem)
        row = await shared.row(f"SELECT {COLUMNS} FROM users WHERE id = $1", user_id)
        if row is None:
            raise JsonError(401, "User not found")
        if not row["is_active"]:
            raise JsonError(401, "User account is deactivated")
        return answer(await signed_in(shared, row))
    except database.DatabaseError as error:
        raise JsonError(401, database.message(error)) from error


async def me(request: Request) -> Response:
    caller = tokens.caller_json(request)
    try:
        row = await context.of(request).row(
            f"SELECT {COLUMNS} FROM users WHERE id = $1", caller.user_id
        )
    except database.DatabaseError as error:
        raise JsonError(404, database.message(error)) from error
    if row is None:
        raise JsonError(404, "User not found")
    return answer(row)
