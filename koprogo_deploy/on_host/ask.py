"""Runs on the host: asks containers directly, whether they are routed or not, and says what fails.

The smoke test of a colour before it has traffic, and of the old colour after a migration: by the
container's own address, since the front door leads to what serves.
"""

import base64
import hashlib
import hmac
import http.client
import json
import pathlib
import subprocess
import sys
import time
import uuid
from typing import Any

TIMEOUT = 15  # seconds for each answer
PER_PAGE = 100
WRONG = "not-the-password-0000"
LASTS = 60  # seconds that a token of ours is good for
SECRET = "/run/secrets/jwt_secret"  # noqa: S105 - where a backend has it


class Wrong(Exception):
    """An answer is not what it should be."""


class Backend:
    """One backend, asked over one connection."""

    def __init__(self, address: str, port: int) -> None:
        self.line = http.client.HTTPConnection(address, port, timeout=TIMEOUT)

    def ask(
        self, path: str, token: str | None = None, body: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and JSON of an answer; None where it is no JSON."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        text = None
        if body is not None:
            text, headers["Content-Type"] = json.dumps(body), "application/json"
        try:
            self.line.request("POST" if body else "GET", f"/api/v1{path}", text, headers)
            answer = self.line.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.line.close()
            raise Wrong(f"{path}: no answer ({error or type(error).__name__})") from None
        try:
            return answer.status, json.loads(content)
        except ValueError:
            return answer.status, None

    def expect(
        self,
        status: int,
        path: str,
        token: str | None = None,
        body: dict[str, str] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever JSON holds
        """The JSON of an answer that has this status."""
        found, content = self.ask(path, token, body)
        if found != status:
            told = content.get("error") if isinstance(content, dict) else None
            short = path.partition("?")[0]
            raise Wrong(f"{short}: {found}, not {status}{f' ({told})' if told else ''}")
        return content


def value(answer: Any, name: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    """A field of an answer; None where it has none, or is no object."""
    return answer.get(name) if isinstance(answer, dict) else None


def health(backend: Backend, login: dict[str, Any] | None) -> None:
    """It answers, and says that it is well."""
    found = backend.expect(200, "/health")
    if value(found, "status") != "ok":
        raise Wrong(f"/health: {found}")


def strangers(backend: Backend, login: dict[str, Any] | None) -> None:
    """Without a token, or with a wrong password, there is nothing to see."""
    backend.expect(401, "/buildings")
    email = login["email"] if login else "nobody@koprogo.invalid"
    backend.expect(401, "/auth/login", body={"email": email, "password": WRONG})


def tenant(backend: Backend, login: dict[str, Any] | None) -> None:
    """A login works, is who it says, and sees its lists."""
    if login is None:
        return
    credentials = {"email": login["email"], "password": login["password"]}
    token = value(backend.expect(200, "/auth/login", body=credentials), "token")
    if not token:
        raise Wrong("/auth/login: 200 without a token")
    email = value(backend.expect(200, "/auth/me", token=token), "email")
    if email != login["email"]:
        raise Wrong(f"/auth/me: {email}, not {login['email']}")
    for path, least in login["lists"].items():
        listed(backend, token, path, least)


def listed(backend: Backend, token: str, path: str, least: int) -> None:
    """A list has so many rows at least, and a whole first page of them."""
    found = backend.expect(200, f"{path}?per_page={PER_PAGE}", token=token)
    try:
        rows, total = len(found["data"]), int(found["pagination"]["total_items"])
    except (KeyError, TypeError, ValueError):
        raise Wrong(f"{path}: not a list with its pagination") from None
    if total < least:
        raise Wrong(f"{path}: {total} in all, and there should be {least} or more")
    if rows != min(PER_PAGE, total):
        raise Wrong(f"{path}: {rows} of {total} on the first page")


def signed(secret: str, organization: str) -> str:
    """A token as KoproGo makes them (HS256), for a reader of an organisation that is nobody.

    Role and organisation are read from the token alone. An accountant may read every list, and
    write least; all that is done with it is GET.
    """

    def text(part: bytes) -> str:
        return base64.urlsafe_b64encode(part).rstrip(b"=").decode()

    now = int(time.time())
    claims = {
        "sub": str(uuid.uuid4()), "email": "deploy@koprogo.invalid", "role": "accountant",
        "organization_id": organization, "iat": now, "exp": now + LASTS,
    }  # fmt: skip
    head = {"alg": "HS256", "typ": "JWT"}
    body = ".".join(text(json.dumps(each).encode()) for each in (head, claims))
    mark = hmac.new(secret.encode(), body.encode(), hashlib.sha256).digest()
    return f"{body}.{text(mark)}"


def read_by(container: str, reader: dict[str, Any]) -> dict[str, Any]:
    """A reader with its token, by the secret that this very backend has.

    Raises:
        Wrong: it has none.
    """
    wanted = '{{if eq .Destination "' + SECRET + '"}}{{.Source}}{{end}}'
    form = "{{range .Mounts}}" + wanted + "{{end}}"
    done = subprocess.run(
        ["docker", "inspect", "-f", form, container], capture_output=True, text=True, check=False
    )
    try:
        secret = pathlib.Path(done.stdout.strip() or "/nowhere").read_text(encoding="utf-8").strip()
    except OSError as error:
        raise Wrong(f"no list was read: {container} has no {SECRET} ({error.strerror})") from None
    return {**reader, "token": signed(secret, reader["organization"])}


def page(address: str, port: int) -> None:
    """The frontend serves a page."""
    line = http.client.HTTPConnection(address, port, timeout=TIMEOUT)
    try:
        line.request("GET", "/")
        answer = line.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise Wrong(f"/: no answer ({error or type(error).__name__})") from None
    finally:
        line.close()
    if answer.status != 200:
        raise Wrong(f"/: {answer.status}, not 200")
    kind = answer.headers.get("content-type", "")
    if not kind.startswith("text/html") or b"<html" not in content.lower():
        raise Wrong(f"/: {kind or 'no content type'}, and not a page")


def as_a_tenant(backend: Backend, reader: dict[str, Any]) -> list[str]:
    """What of a tenant's lists is wrong: each is asked, whatever another one answers."""
    found = []
    for path, least in reader["lists"].items():
        try:
            listed(backend, reader["token"], path, least)
        except Wrong as wrong:
            found.append(f"a tenant's {wrong}")
    return found


CHECKS = (health, strangers, tenant)


def failures(
    backend: tuple[str, int] | None,
    frontend: tuple[str, int] | None,
    login: dict[str, Any] | None = None,
    reader: dict[str, Any] | None = None,
) -> list[str]:
    """What is wrong, a line each; empty when all is well. What one check finds, spoils no other.

    Args:
        backend: address and port of one; None for none.
        frontend: the same.
        login: `email`, `password`, and `lists`: how many rows there are at least, by path.
        reader: `token` and `lists`, of a tenant.
    """
    found = []
    if backend:
        asked = Backend(*backend)
        for check in CHECKS:
            try:
                check(asked, login)
            except Wrong as wrong:
                found.append(str(wrong))
        found += as_a_tenant(asked, reader) if reader else []
    if frontend:
        try:
            page(*frontend)
        except Wrong as wrong:
            found.append(f"frontend {wrong}")
    return found


def address(container: str) -> str:
    """A container's address, as the host reaches it; empty if it has none."""
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    done = subprocess.run(
        ["docker", "inspect", "-f", form, container], capture_output=True, text=True, check=False
    )
    return (done.stdout.split() or [""])[0]


def log(container: str) -> list[str]:
    """The end of what a container said."""
    done = subprocess.run(
        ["docker", "logs", "--tail", "20", container],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout.splitlines()


def main() -> None:
    """Asks what standard input says: container names, and the login."""
    asked, absent = json.load(sys.stdin), []
    known: dict[str, tuple[str, int] | None] = {}
    for service, port in (("backend", 8080), ("frontend", 80)):
        name = asked.get(service)
        found = address(name) if name else ""
        known[service] = (found, port) if found else None
        if name and not found:
            absent.append(f"{name} does not run")
    reader = asked.get("reader")
    if reader and known["backend"]:
        try:
            reader = read_by(asked["backend"], reader)
        except Wrong as none:
            reader = None
            absent.append(str(none))
    wrong = absent + failures(known["backend"], known["frontend"], asked.get("login"), reader)
    names = [name for name in (asked.get("backend"), asked.get("frontend")) if name and wrong]
    said = [line for name in names for line in log(name)]
    print(json.dumps({"failures": wrong, "log": said}))


if __name__ == "__main__":
    main()
