"""The proxy's own counters."""

from __future__ import annotations

import socket
import time
from typing import Any

from koprogo_deploy.monitor.probe.keep import FIRST, Sheet
from koprogo_deploy.monitor.probe.parse import UnreadError, http_body, traefik_counters


class Proxy:
    """Traefik's own counters, read from the host over its internal entry point."""

    def __init__(self, address: str, port: int) -> None:
        self.address = (address, port)
        self.line: socket.socket | None = None
        self.problem = "not asked"
        self.asked = 0.0
        self.before: tuple[dict[str, float], float] | None = None

    def ask(self, now: float) -> None:
        """Send the question."""
        self.close()
        self.asked = now
        self.line = socket.socket()
        self.line.settimeout(0.3)
        try:
            self.line.connect(self.address)
            self.line.sendall(b"GET /metrics HTTP/1.0\r\nHost: traefik\r\n\r\n")
        except OSError as error:
            self.close()
            self.problem = f"Traefik does not answer: {error.strerror or error}"

    def answer(self, deadline: float) -> bytes:
        """The counters as text."""
        if not self.line:
            raise UnreadError(self.problem)
        data = []
        try:
            while True:
                self.line.settimeout(max(0.001, deadline - time.monotonic()))
                part = self.line.recv(65536)
                if not part:
                    break
                data.append(part)
        except TimeoutError:
            raise UnreadError("Traefik has not answered in time") from None
        finally:
            self.close()
        try:
            return http_body(b"".join(data))
        except UnreadError as reason:
            raise UnreadError(f"Traefik's counters: {reason}") from None

    def sample(self, sheet: Sheet, deadline: float) -> dict[str, Any]:
        """`TraefikSample`'s fields."""
        counted = sheet.take("traefik", lambda: traefik_counters(self.answer(deadline)))
        if counted is None:
            return {}
        requests, opened = counted
        before, self.before = self.before, (requests, self.asked)

        def rate() -> dict[str, float]:
            if before is None:
                raise UnreadError(FIRST)
            seconds = self.asked - before[1]
            # A status that was never seen before has been counted from nought.
            grown = {s: n - before[0].get(s, 0.0) for s, n in requests.items()}
            if any(n < 0 for n in grown.values()) or before[0].keys() - requests.keys():
                raise UnreadError("the counter began anew")
            return {status: n / seconds for status, n in sorted(grown.items())}

        return {"requests": sheet.take("traefik.requests", rate), "open_connections": opened}

    def close(self) -> None:
        """End the connection."""
        if self.line:
            self.line.close()
        self.line = None
