"""From outside: what people and attackers meet at the front door."""

from __future__ import annotations

import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from koprogo_deploy import front
from koprogo_deploy.outside import Outside
from tests.smoke import judge

CLOSED = (
    ("POST", "/api/v1/auth/register"),
    ("POST", "/api/v1//auth/register"),
    ("POST", "/api/v1/x/../auth/register"),
    ("POST", "/api/v1/auth/regi%73ter"),
    ("POST", "/api/v1/seed/realistic"),
    ("POST", "/api/v1/seed/clear"),
    ("GET", "/metrics"),
    ("GET", "/swagger-ui/"),
    ("GET", "/api-docs/openapi.json"),
    ("GET", "/mcp/info"),
    ("TRACE", "/api/v1/health"),
)
# Asked for what does not exist: whoever is let in gets 404.
NOTHING = "00000000-0000-0000-0000-000000000000"
GUARDED = (
    ("GET", f"/api/v1/meetings/{NOTHING}"),
    ("PUT", f"/api/v1/meetings/{NOTHING}"),
    ("DELETE", f"/api/v1/meetings/{NOTHING}"),
    ("POST", f"/api/v1/meetings/{NOTHING}/agenda"),
    ("POST", f"/api/v1/meetings/{NOTHING}/cancel"),
    ("GET", f"/api/v1/buildings/{NOTHING}/meetings"),
    ("DELETE", f"/api/v1//meetings/{NOTHING}"),
    ("DELETE", f"/api/v1/x/../meetings/{NOTHING}"),
    ("DELETE", f"/api/v1/%6deetings/{NOTHING}"),
)
MANGLED = ("/api/v1/auth%2fregister", "/api/v1/x/..%2fauth/register", "/api/v1/auth%5cregister")


class Answer(NamedTuple):
    """An answer as it came, its head in lower case."""

    status: int
    head: str
    body: str


def raw(outside: Outside, context: ssl.SSLContext, method: str, path: str) -> Answer:
    """The answer to a request whose path is sent to the letter; clients would tidy it."""
    name = outside.settings.api_domain
    with (
        socket.create_connection(outside.address, timeout=10) as connection,
        context.wrap_socket(connection, server_hostname=name) as tls,
    ):
        # Else the request waits for the acknowledgement of the handshake's last packet.
        tls.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = f"{method} {path} HTTP/1.1\r\nHost: {name}\r\nContent-Length: 0\r\n"
        tls.sendall(f"{request}Connection: close\r\n\r\n".encode())
        whole = b"".join(iter(lambda: tls.recv(65536), b"")).decode(errors="replace")
    head, _, body = whole.partition("\r\n\r\n")
    return Answer(int(head.split()[1]), head.lower(), body)


@pytest.fixture(scope="module")
def answers(outside: Outside, tls_context: ssl.SSLContext) -> dict[tuple[str, str], Answer]:
    """The answer of each route that is to be closed: all asked at once, on lines of their own."""
    routes = [*CLOSED, *GUARDED, *(("POST", path) for path in MANGLED)]
    with ThreadPoolExecutor(len(routes)) as pool:
        found = pool.map(lambda route: raw(outside, tls_context, *route), routes)
        return dict(zip(routes, found, strict=True))


def test_api_answers_through_tls(api: httpx2.Client) -> None:
    answer = api.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")


def test_frontend_serves_a_page(outside: Outside) -> None:
    answer = outside.frontend.get("/")
    assert answer.status_code == 200
    assert "<html" in answer.text.lower()
    assert answer.headers["content-type"].startswith("text/html")


def test_http_redirects_to_https(settings: Any) -> None:
    address = settings.public_address or settings.domain
    url = f"http://{address}:{settings.public_http_port}/x?y=1"
    answer = httpx2.get(url, headers={"Host": settings.domain}, timeout=10)
    assert answer.status_code in (301, 308)
    assert answer.headers["location"] == f"{settings.url}/x?y=1"


@pytest.fixture(scope="module")
def certificates(
    outside: Outside, settings: Any, tls_context: ssl.SSLContext
) -> dict[str, x509.Certificate]:
    """The valid certificate of each name."""
    found = {}
    for name in (settings.domain, settings.api_domain):
        with (
            socket.create_connection(outside.address, timeout=10) as connection,
            tls_context.wrap_socket(connection, server_hostname=name) as tls,
        ):
            found[name] = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")
            assert tls.version() in ("TLSv1.2", "TLSv1.3")
    return found


def test_certificate_is_valid_and_elliptic(certificates: dict[str, x509.Certificate]) -> None:
    for certificate in certificates.values():
        assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)


@pytest.mark.of_the_host
def test_certificate_is_not_about_to_end(certificates: dict[str, x509.Certificate]) -> None:
    for name, certificate in certificates.items():
        left = certificate.not_valid_after_utc - datetime.now(UTC)
        assert left > timedelta(days=front.FAIL), f"the certificate of {name} ends in {left}"


def test_a_name_that_is_not_ours_gets_no_certificate(outside: Outside) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(outside.address, timeout=10) as connection,
        pytest.raises(ssl.SSLError),
        context.wrap_socket(connection, server_hostname="somebody-else.example"),
    ):
        pass


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_closed_routes_are_closed(
    answers: dict[tuple[str, str], Answer], method: str, path: str
) -> None:
    # The proxy's own 404: the application's, of an image that has no such route, is empty.
    assert (answers[method, path].status, answers[method, path].body) == (404, "Not Found")


@pytest.mark.parametrize("path", MANGLED)
def test_encoded_ways_around_are_refused(answers: dict[tuple[str, str], Answer], path: str) -> None:
    refused = answers["POST", path]
    assert refused.status == 400
    # Before any route was looked for: an answer of the application has the routes' headers.
    assert "strict-transport-security" not in refused.head


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_what_the_backend_leaves_open_needs_a_token(
    answers: dict[tuple[str, str], Answer], method: str, path: str
) -> None:
    assert answers[method, path].status == 401


def test_a_browser_may_ask_what_needs_a_token(api: httpx2.Client, settings: Any) -> None:
    origin = {"Origin": settings.cors_origins[0]}
    asked = {"Access-Control-Request-Method": "DELETE"}
    preflight = api.options(f"/meetings/{NOTHING}", headers={**origin, **asked})
    assert preflight.status_code == 200
    # The page is told that it has to log in, not that it may not read the answer.
    refused = api.delete(f"/meetings/{NOTHING}", headers=origin)
    assert refused.status_code == 401
    for answer in (preflight, refused):
        assert answer.headers["access-control-allow-origin"] == settings.cors_origins[0]


def test_a_page_is_served_where_it_is_asked_for(outside: Outside) -> None:
    answer = outside.frontend.get("/login")
    assert answer.status_code == 200, answer.headers.get("location")
    assert "<html" in answer.text.lower()


def test_superadmin_pages_need_a_token_or_a_listed_address(api: httpx2.Client) -> None:
    for path in ("/users", "/organizations", "/stats/dashboard"):
        assert api.get(path).status_code in (401, 403), path


def test_security_headers_and_no_server_name(api: httpx2.Client, outside: Outside) -> None:
    for answer in (api.get("/health"), api.get("/no-such-page"), outside.frontend.get("/")):
        assert "max-age=" in answer.headers["strict-transport-security"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "server" not in answer.headers


def test_the_proxys_counters_are_not_public(api: httpx2.Client, outside: Outside) -> None:
    for client in (api, outside.frontend):
        answer = client.get(client.base_url.copy_with(path="/metrics"))
        assert answer.status_code != 200 or "traefik_" not in answer.text


def test_only_gzip_is_offered(outside: Outside) -> None:
    def encoding(path: str, accepted: str) -> str:
        answer = outside.frontend.get(path, headers={"Accept-Encoding": accepted})
        return str(answer.headers.get("content-encoding", "none"))

    plain = {"Accept-Encoding": "identity"}
    paths = ["/", *judge.linked(outside.frontend.get("/", headers=plain).text)]
    texts = [
        path for path in paths if judge.worth_compressing(outside.frontend.get(path, headers=plain))
    ]
    if not texts:
        pytest.skip(f"no text of the site is as long as what is compressed: {', '.join(paths)}")
    assert {encoding(path, "gzip") for path in texts[:3]} == {"gzip"}
    assert {encoding(path, "br, zstd") for path in texts[:3]} == {"none"}


@pytest.mark.of_the_host
def test_nothing_else_answers(settings: Any) -> None:
    if not settings.scan_address and settings.public_https_port != 443:
        pytest.skip("scan_address = None, and the site's own address has other ports forwarded")
    address = settings.scan_address or settings.public_address or settings.domain
    https = 443 if settings.scan_address else settings.public_https_port
    open_ports = []
    for port in (https, 2375, 2376, 3000, 5000, 5432, 8080, 8081, 8082, 9000):
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((address, port)) == 0:
                open_ports.append(port)
    assert open_ports == [https], "the site, and nothing else, answers there"
