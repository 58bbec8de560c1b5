"""The switch: what is under way ends where it began, and what people hold goes on working."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from koprogo_deploy import remote
from koprogo_deploy.outside import Outside
from tests.integration.rig import Rig, Watch

NOW = time.time_ns()
UPLOAD = "/app/uploads/of-a-test.txt"


def another(number: int) -> dict[str, Any]:
    """Values of a release with another backend."""
    return {"backend_environment": {"TEST_RUN": f"{NOW}-{number}"}}


def line(rig: Rig) -> dict[str, Any]:
    return remote.journal_of(rig.environment).runs[-1]


def backend(rig: Rig) -> str:
    return f"koprogo-backend-{rig.manifest()['colours']['backend']}-1"


def logged_in(rig: Rig) -> dict[str, Any]:
    with Outside(rig.environment.settings) as outside:
        answer = outside.login("admin@small.be", rig.environment.secrets["SEED_PASSWORD"])
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture(scope="module")
def changed(rig: Rig) -> Iterator[Rig]:
    """The rig; whatever release the tests end with, group data's serves in the end."""
    yield rig
    rig.converge()


def slow_post(rig: Rig, session: dict[str, Any], name: str, seconds: float) -> bytes:
    """A POST over TLS whose body comes in pieces for so long; the whole answer."""
    settings = rig.environment.settings
    body = json.dumps(
        {
            "organization_id": session["user"]["organization_id"],
            "name": name,
            "address": "x" * 200,
            "city": "Bruxelles",
            "postal_code": "1000",
            "country": "Belgique",
            "total_units": 1,
        }
    ).encode()
    head = (
        f"POST /api/v1/buildings HTTP/1.1\r\nHost: {settings.api_domain}\r\n"
        f"Authorization: Bearer {session['token']}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode()
    context = ssl.create_default_context(cafile=settings.ca_certificate)
    with (
        socket.create_connection(("127.0.0.1", settings.public_https_port), 60) as plain,
        context.wrap_socket(plain, server_hostname=settings.api_domain) as tls,
    ):
        tls.sendall(head)
        pieces = 50
        for at in range(pieces):
            tls.sendall(body[len(body) * at // pieces : len(body) * (at + 1) // pieces])
            time.sleep(seconds / pieces)
        answer = b""
        while received := tls.recv(65536):
            answer += received
    return answer


def test_a_token_a_session_and_an_upload_of_before_the_switch_are_good_after_it(
    changed: Rig,
) -> None:
    rig, before = changed, backend(changed)
    session = logged_in(rig)
    rig.on_host(f"docker exec {before} sh -c 'echo kept > {UPLOAD}'")
    rig.converge(**another(1))
    assert backend(rig) != before
    with Outside(rig.environment.settings) as outside:
        me = outside.api.get("/auth/me", headers={"Authorization": f"Bearer {session['token']}"})
        assert (me.status_code, me.json()["email"]) == (200, "admin@small.be")
        token = {"refresh_token": session["refresh_token"]}
        assert outside.api.post("/auth/refresh", json=token).status_code == 200
    assert rig.on_host(f"docker exec {backend(rig)} cat {UPLOAD}").strip() == "kept"
    rig.on_host(f"docker exec {backend(rig)} rm {UPLOAD}")
    assert line(rig)["unrouted_backend"] == "passed"


def test_a_request_under_way_ends_on_the_old_colour_before_it_stops(changed: Rig) -> None:
    """It takes longer than the deploy and than the application's own grace."""
    rig, name = changed, f"Slow {NOW}"
    session = logged_in(rig)
    with ThreadPoolExecutor() as pool, Watch(rig) as watch:
        slow = pool.submit(slow_post, rig, session, name, 22)
        time.sleep(0.5)
        began = time.monotonic()
        run = rig.deploy(**another(2))
        took = time.monotonic() - began
        answer = slow.result()
    try:
        assert run.code == 0, run.output
        assert answer.startswith(b"HTTP/1.1 201 "), answer
        assert watch.failures == []
        assert rig.sql(f"SELECT count(*) FROM buildings WHERE name = '{name}'") == "1"
        assert 18 < took < 60, "the deploy waited for it, and no longer than it had to"
    finally:
        rig.sql(f"DELETE FROM buildings WHERE name = '{name}'")
    assert rig.leftovers() == []


def test_a_kept_connection_outlives_the_switch(changed: Rig) -> None:
    rig = changed
    settings = rig.environment.settings
    context = ssl.create_default_context(cafile=settings.ca_certificate)
    request = f"GET /api/v1/health HTTP/1.1\r\nHost: {settings.api_domain}\r\n\r\n".encode()
    with (
        socket.create_connection(("127.0.0.1", settings.public_https_port), 60) as plain,
        context.wrap_socket(plain, server_hostname=settings.api_domain) as tls,
    ):
        tls.sendall(request)
        assert tls.recv(65536).startswith(b"HTTP/1.1 200 ")
        rig.converge(**another(3))
        tls.sendall(request)
        assert tls.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.slow
def test_a_backend_that_does_not_answer_as_it_should_gets_no_traffic(changed: Rig) -> None:
    rig, before, started = changed, changed.manifest()["id"], changed.started()
    broken = {"STANDIN_FAULTS": "errors_percent=100", **another(4)["backend_environment"]}
    with Watch(rig) as watch:
        run = rig.deploy(backend_environment=broken)
    assert run.code == 1, run.output
    assert "Traceback" not in run.output
    assert watch.failures == []
    assert "gets no traffic: /buildings: 500, not 401" in run.output
    assert "Starting operation: Cut over" not in run.output, "nothing was routed"
    assert (rig.manifest()["id"], rig.started()) == (before, started)
    told = line(rig)
    assert told["outcome"] == "failed"
    assert told["step"] == "Migrate | Smoke-test the new backend, unrouted"
    assert told["release"] != told["serves"] == before
    assert "/auth/login: 500" in told["unrouted_backend"]
    mark = rig.on_host(f"cat /opt/koprogo/releases/{told['release']}/bad")
    assert mark.startswith("not routed ")
    again = rig.deploy(backend_environment=broken)
    assert again.code == 1
    assert "this very release was not routed " in again.output


@pytest.mark.slow
def test_a_frontend_without_a_page_gets_no_traffic(changed: Rig) -> None:
    rig, before = changed, changed.manifest()["id"]
    base = rig.environment.settings.frontend_image
    image = rig.image(base, "find / -xdev -name index.html -delete")
    with Watch(rig) as watch:
        run = rig.deploy(frontend_image=image)
    assert run.code == 1, run.output
    assert watch.failures == []
    assert "gets no traffic: frontend /: 40" in run.output
    assert "Starting operation: Cut over | Switch" not in run.output
    assert rig.manifest()["id"] == before
