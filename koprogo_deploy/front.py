"""The site as somebody outside finds it: name, TLS, certificate, a page, the API's health.

The same for `koprogo status` whatever the host says of itself: a host that cannot be reached by
SSH may serve, and one that finds itself well may be seen by nobody.
"""

from __future__ import annotations

import errno
import http.client
import json
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from koprogo_deploy import maintenance
from koprogo_deploy.settings import Settings

WITHIN = 8.0  # seconds for a name, whatever does not answer
WARN, FAIL = 21, 7  # days before the end of a certificate; Traefik renews with 30 left
REFUSED = "its certificate is refused: "
_LONGEST = 64_000  # bytes of an answer that are read
_NOT_FROM_HERE = (errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # as without IPv6


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
        reached: somebody took the connection.
        untried: this machine has no way to such an address, which says nothing of it.
        dead: its addresses to which there is no connection, while another one answers.
    """

    name: str
    path: str
    address: str = ""
    problem: str = ""
    days: float | None = None
    page: bool = False
    reached: bool = False
    untried: bool = False
    dead: tuple[str, ...] = ()


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
    found = _together({each.name: partial(_ask, settings, each) for each in asked}, WITHIN + 1)
    return [found.get(each.name, replace(each, problem=_silent())) for each in asked]


def _silent() -> str:
    return f"no answer within {WITHIN:g} s"


def _together(asks: Mapping[str, Callable[[], Front]], seconds: float) -> dict[str, Front]:
    """The answers that come within so many seconds, by name; who is late is left behind."""
    answers: queue.Queue[tuple[str, Front]] = queue.Queue()
    for name, ask in asks.items():
        work = threading.Thread(
            target=lambda name=name, ask=ask: answers.put((name, ask())), daemon=True
        )
        work.start()
    found: dict[str, Front] = {}
    end = time.monotonic() + seconds
    while len(found) < len(asks):
        try:
            name, answer = answers.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            break
        found[name] = answer
    return found


def _ask(settings: Settings, asked: Front) -> Front:
    try:
        return _asked(settings, asked)
    except Exception as error:  # whatever it is, the name did not answer well
        return replace(asked, problem=f"{type(error).__name__}: {error}")


def _asked(settings: Settings, asked: Front) -> Front:
    port = settings.public_https_port
    addresses = [settings.public_address] if settings.public_address else []
    if not addresses:
        try:
            found = socket.getaddrinfo(asked.name, port, type=socket.SOCK_STREAM)
        except OSError as error:
            return replace(asked, problem=f"the name has no address ({error.strerror or error})")
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
    each = {address: replace(asked, address=address) for address in addresses}
    try:
        context = ssl.create_default_context(cafile=settings.ca_certificate)
    except OSError as error:
        why = f"ca_certificate cannot be read: {error.strerror or error}"
        return replace(each[addresses[0]], problem=why)
    asks = {address: partial(_at, one, port, context) for address, one in each.items()}
    answers = _together(asks, WITHIN + 0.5)
    return judged([answers.get(a, replace(one, problem=_silent())) for a, one in each.items()])


def _at(at: Front, port: int, context: ssl.SSLContext) -> Front:
    """What one address answers."""
    line = _Line(at.name, at.address, port, context)
    try:
        try:
            line.connect()
        except ssl.SSLCertVerificationError as error:
            why = f"{REFUSED}{error.verify_message}"
            return replace(at, reached=True, problem=why)
        except ssl.SSLError as error:
            return replace(at, reached=True, problem=f"no TLS: {error.reason or error}")
        except OSError as error:
            why = error.strerror or str(error) or type(error).__name__
            why = f"no connection to {at.address} port {port}: {why}"
            return replace(at, untried=error.errno in _NOT_FROM_HERE, problem=why)
        at = replace(at, reached=True, days=_days(line.sock.getpeercert() or {}))
        try:
            line.request("GET", at.path)
            answer = line.getresponse()
            body = answer.read(_LONGEST)
        except (OSError, http.client.HTTPException) as error:
            return replace(at, problem=f"no answer: {error or type(error).__name__}")
        page = maintenance.ours(dict(answer.headers.items()))
        return replace(at, page=page, problem=wrong(at.path, answer.status, body, page))
    except Exception as error:  # whatever it is, the address did not answer well
        return replace(at, problem=f"{type(error).__name__}: {error}")
    finally:
        line.close()


def judged(each: Sequence[Front]) -> Front:
    """What a name answers, of what its addresses do, in the resolver's order. Pure.

    A browser goes on to the next address where there is no connection, and takes whatever answers
    for the site: one address that answers wrongly is what some visitors get.
    """
    answers = [one for one in each if one.reached]
    if not answers:
        return next((one for one in each if not one.untried), each[0])
    ill = next((one for one in answers if one.problem and not one.page), None)
    shown = ill or next((one for one in answers if one.page), answers[0])
    if ill and len(each) > 1:
        shown = replace(ill, problem=f"at {ill.address}: {ill.problem}")
    return replace(
        shown,
        days=min((one.days for one in answers if one.days is not None), default=None),
        dead=tuple(one.address for one in each if not (one.reached or one.untried)),
    )


def nowhere(fronts: Sequence[Front]) -> list[str]:
    """Which addresses lead nowhere though the name answers by another one, in words. Pure."""
    return [
        f"from outside, {each.name}: no connection to {address}, and another address answers: its "
        f"{'AAAA' if ':' in address else 'A'} record leads nowhere. Take it out, or have the host "
        "answer there: who tries it first waits"
        for each in fronts
        for address in each.dead
    ]


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
