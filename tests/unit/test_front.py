"""The site from outside, asked of real servers on this machine: what is silent is said to be."""

from __future__ import annotations

import http.server
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from koprogo_deploy import front
from koprogo_deploy.settings import Settings
from tests import project

GOOD: dict[str, Any] = {"/": (200, b"<html>", {}), "/api/v1/health": (200, b'{"status":"ok"}', {})}


def certificate(folder: Path, days: float, *names: str) -> Path:
    """A certificate that signs itself, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    end = datetime.now(UTC) + timedelta(days=days)
    made = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - timedelta(days=400))
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), False)
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "both.pem"
    file.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return file


@contextmanager
def serving(file: Path, answers: dict[str, Any]) -> Iterator[int]:
    """A server with this certificate; gives its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, headers = answers.get(self.path, (404, b"", {}))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Not here."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def settings_for(file: Path, port: int, **more: Any) -> Settings:
    values = {"public_address": "127.0.0.1", "public_https_port": port, "ca_certificate": str(file)}
    return project.settings().model_copy(update={**values, **more})


SITE = project.settings().domain
API = project.settings().api_domain


def test_a_site_that_is_well_says_for_how_many_days(tmp_path: Path) -> None:
    file = certificate(tmp_path, 30, SITE, API)
    with serving(file, GOOD) as port:
        found = front.look(settings_for(file, port))
    assert [(each.name, each.problem) for each in found] == [(SITE, ""), (API, "")]
    assert all(each.days and 29.9 < each.days <= 30 for each in found)
    assert front.ending(found, 21) == []
    assert len(front.ending(found, 31)) == 2


def test_an_expired_a_foreign_and_a_strangers_certificate_are_refused(tmp_path: Path) -> None:
    for days, names, told in (
        (-1, (SITE, API), "has expired"),
        (30, ("else.example", "more.example"), "ostname mismatch"),
    ):
        file = certificate(tmp_path, days, *names)
        with serving(file, GOOD) as port:
            for each in front.look(settings_for(file, port)):
                assert each.problem.startswith("its certificate is refused: ")
                assert told in each.problem
                assert each.days is None
    file = certificate(tmp_path, 30, SITE, API)
    with serving(file, GOOD) as port:
        [first, _] = front.look(settings_for(file, port, ca_certificate=None))
    assert "certificate is refused: self" in first.problem


def test_a_silent_a_plain_and_a_nameless_site_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = certificate(tmp_path, 30, SITE, API)
    with serving(file, GOOD) as port:
        pass
    assert all(
        "no connection to 127.0.0.1" in f.problem for f in front.look(settings_for(file, port))
    )
    plain = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=plain.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http.server.BaseHTTPRequestHandler, "log_message", lambda *_: None)
        [first, _] = front.look(settings_for(file, plain.server_port))
    plain.shutdown()
    plain.server_close()
    assert first.problem.startswith(("no TLS", "no connection"))

    def nowhere(*_: object, **__: object) -> Any:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    [first, _] = front.look(settings_for(file, 1, public_address=None))
    assert (first.address, first.problem) == (
        "",
        "the name has no address (Name or service not known)",
    )


def test_a_name_answers_also_where_one_of_its_addresses_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = socket.getaddrinfo

    def two(name: str, port: int, *more: Any, **how: Any) -> Any:
        if name not in (SITE, API):
            return asked(name, port, *more, **how)
        found = [(0, 0, 0, "", (address, port)) for address in ("127.0.0.2", "127.0.0.1")]
        return [*found, found[0]]

    file = certificate(tmp_path, 30, SITE, API)
    with serving(file, GOOD) as port:
        settings = settings_for(file, port, public_address=None)
        monkeypatch.setattr(socket, "getaddrinfo", two)
        found = front.look(settings)
    assert [(each.problem, each.address, each.dead) for each in found] == [
        ("", "127.0.0.1", ("127.0.0.2",))
    ] * 2
    first, _ = front.nowhere(found)
    assert first.startswith(
        f"from outside, {SITE}: no connection to 127.0.0.2, and another address"
    )
    assert "its A record leads nowhere" in first


WELL = front.Front("k.be", "/", "192.0.2.1", days=60.0, reached=True)
GONE = front.Front("k.be", "/", "2001:db8::1", problem="no connection to 2001:db8::1 port 443: x")


def test_what_no_address_answers_is_told_of_one_that_could_be_tried() -> None:
    away = replace(GONE, untried=True)
    assert front.judged([away, replace(GONE, address="192.0.2.1")]).address == "192.0.2.1"
    assert front.judged([away]).problem == GONE.problem


def test_a_record_that_this_machine_cannot_try_is_not_said_to_lead_nowhere() -> None:
    assert front.judged([replace(GONE, untried=True), WELL]) == WELL
    [told] = front.nowhere([front.judged([GONE, WELL])])
    assert "its AAAA record leads nowhere. Take it out" in told


def test_an_address_that_answers_wrongly_is_what_some_visitors_get() -> None:
    other = replace(WELL, address="192.0.2.9", problem="/ answers 404, not 200", days=20.0)
    found = front.judged([WELL, other])
    assert (found.problem, found.days) == ("at 192.0.2.9: / answers 404, not 200", 20.0)
    paged = replace(WELL, page=True, problem="/ answers 503: the maintenance page")
    assert front.judged([GONE, paged]) == replace(paged, dead=("2001:db8::1",))


def test_what_hangs_is_left_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "WITHIN", 0.1)
    monkeypatch.setattr(front, "_ask", lambda *_: time.sleep(60))
    began = time.monotonic()
    found = front.look(settings_for(tmp_path, 1))
    assert time.monotonic() - began < 10
    assert [each.problem for each in found] == ["no answer within 0.1 s"] * 2


@pytest.mark.parametrize(
    ("path", "status", "body", "told"),
    [
        ("/", 200, b"<HTML>", ""),
        ("/", 502, b"", "/ answers 502, not 200"),
        ("/", 200, b"{}", "/ answers 200, and not with a page"),
        ("/h", 200, b'{"status":"ok"}', ""),
        ("/h", 200, b'{"status":"ill"}', "/h answers 200, and does not say that it is well"),
        ("/h", 200, b"[]", "/h answers 200, and does not say that it is well"),
        ("/h", 200, b"", "/h answers 200, and does not say that it is well"),
    ],
)
def test_what_an_answer_is_worth(path: str, status: int, body: bytes, told: str) -> None:
    assert front.wrong(path, status, body) == told


def test_the_maintenance_page_is_known_by_its_header(tmp_path: Path) -> None:
    file = certificate(tmp_path, 30, SITE, API)
    paged = {
        "/": (503, b"", {"X-Maintenance": "back at ten"}),
        **{"/api/v1/health": GOOD["/api/v1/health"]},
    }
    with serving(file, paged) as port:
        [first, second] = front.look(settings_for(file, port))
    assert (first.page, first.problem) == (True, "/ answers 503: the maintenance page")
    assert (second.page, second.problem) == (False, "")
