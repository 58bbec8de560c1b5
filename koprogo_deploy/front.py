"""The site as somebody outside finds it: name, TLS, certificate, a page, the API's health.

The same for `koprogo status` whatever the host says of itself: a host that cannot be reached by
SSH may serve, and one that finds itself well may be seen by nobody.
"""

from __future__ import annotations

import http.client
import json
import queue
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from koprogo_deploy import maintenance
from koprogo_deploy.settings import Settings

WITHIN = 8.0  # seconds for a name, whatever does not answer
WARN, FAIL = 21, 7  # days before the end of a certificate; Traefik renews with 30 left
_LONGEST = 64_000  # bytes of an answer that are read


@dataclass(frozen=True)
class Front:
    """What one name answers.

    Attributes:
        name: of the site, or of its API.
        path: what was asked.
        address: where the connection went; empty where the name has none.
        problem: why it is not well, in words; empty if it is.
        days: until the certificate ends; None where there is no valid one.
        page: the answer was the maintenance page.
    """

    name: str
    path: str
    address: str = ""
    problem: str = ""
    days: float | None = None
    page: bool = False


class _Line(http.client.HTTPSConnection):
    """Goes to an address, and asks for a name."""

    def __init__(self, name: str, address: str, port: int, context: ssl.SSLContext) -> None:
        super().__init__(name, port, timeout=WITHIN, context=context)
        self.address, self._tls = address, context

    def connect(self) -> None:
        """TCP to the address, TLS by the name."""
        line = socket.create_connection((self.address, self.port), WITHIN)
        try:
            self.sock = self._tls.wrap_socket(line, server_hostname=self.host)
        except BaseException:
            line.close()
            raise


def look(settings: Settings) -> list[Front]:
    """Ask for a page of the site and for the API's health, both at once.

    Takes `WITHIN` seconds and a little at most. A resolver that hangs is left behind.
    """
    asked = [Front(settings.domain, "/"), Front(settings.api_domain, "/api/v1/health")]
    answers: queue.Queue[Front] = queue.Queue()
    for each in asked:
        work = threading.Thread(
            target=lambda each=each: answers.put(_ask(settings, each)), daemon=True
        )
        work.start()
    found: dict[str, Front] = {}
    end = time.monotonic() + WITHIN + 1
    while len(found) < len(asked):
        try:
            answer = answers.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            break
        found[answer.name] = answer
    silent = f"no answer within {WITHIN:g} s"
    return [found.get(each.name, replace(each, problem=silent)) for each in asked]


def _ask(settings: Settings, asked: Front) -> Front:
    try:
        return _asked(settings, asked)
    except Exception as error:  # whatever it is, the name did not answer well
        return replace(asked, problem=f"{type(error).__name__}: {error}")


def _asked(settings: Settings, asked: Front) -> Front:
    port = settings.public_https_port
    address = settings.public_address
    if not address:
        try:
            found = socket.getaddrinfo(asked.name, port, type=socket.SOCK_STREAM)
        except OSError as error:
            return replace(asked, problem=f"the name has no address ({error.strerror or error})")
        address = str(found[0][4][0])
    at = replace(asked, address=address)
    try:
        context = ssl.create_default_context(cafile=settings.ca_certificate)
    except OSError as error:
        return replace(at, problem=f"ca_certificate cannot be read: {error.strerror or error}")
    line = _Line(asked.name, address, port, context)
    try:
        try:
            line.connect()
        except ssl.SSLCertVerificationError as error:
            return replace(at, problem=f"its certificate is refused: {error.verify_message}")
        except ssl.SSLError as error:
            return replace(at, problem=f"no TLS: {error.reason or error}")
        except OSError as error:
            why = error.strerror or str(error) or type(error).__name__
            return replace(at, problem=f"no connection to {address} port {port}: {why}")
        at = replace(at, days=_days(line.sock.getpeercert() or {}))
        try:
            line.request("GET", asked.path)
            answer = line.getresponse()
            body = answer.read(_LONGEST)
        except (OSError, http.client.HTTPException) as error:
            return replace(at, problem=f"no answer: {error or type(error).__name__}")
        page = maintenance.ours(dict(answer.headers.items()))
        return replace(at, page=page, problem=wrong(asked.path, answer.status, body, page))
    finally:
        line.close()


def _days(certificate: object) -> float | None:
    end = certificate.get("notAfter") if isinstance(certificate, dict) else None
    return None if not end else (ssl.cert_time_to_seconds(str(end)) - time.time()) / 86400


def wrong(path: str, status: int, body: bytes, page: bool = False) -> str:
    """Why an answer is not what a visitor should get; empty if it is. Pure.

    Args:
        path: what was asked.
        status: of HTTP.
        body: its beginning.
        page: it is the maintenance page's.
    """
    if page:
        return f"{path} answers {status}: the maintenance page"
    if status != 200:
        return f"{path} answers {status}, not 200"
    if path == "/":
        return "" if b"<html" in body.lower() else "/ answers 200, and not with a page"
    try:
        health = json.loads(body)
    except ValueError:
        health = None
    said = health.get("status") if isinstance(health, dict) else None
    return "" if said == "ok" else f"{path} answers 200, and does not say that it is well"


def ending(fronts: Sequence[Front], below: float) -> list[str]:
    """Which certificates end in fewer days than that, in words. Pure."""
    return [
        f"the certificate of {each.name} ends in {max(0.0, each.days):.1f} days"
        for each in fronts
        if each.days is not None and each.days < below
    ]
