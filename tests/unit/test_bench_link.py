"""The slow line of the benchmarks: as slow as it says, and it counts what it should."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from bench.link import FAR, NEAR, Link


class Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


@pytest.fixture
def port() -> Iterator[int]:
    with socketserver.ThreadingTCPServer((FAR, 0), Echo) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_a_round_trip_takes_its_time_and_is_counted(port: int) -> None:
    with Link([port], 0.05) as link, socket.create_connection((NEAR, port), timeout=5) as line:
        file = line.makefile("rwb", buffering=0)
        took = []
        for _ in range(3):
            began = time.monotonic()
            file.write(b"hello\n")
            assert file.readline() == b"hello\n"
            took.append(time.monotonic() - began)
    assert took[0] >= 0.1  # the handshake's and its own
    assert min(took) >= 0.05
    # The first request waits for nothing that came before it.
    assert (link.counts[port].connections, link.counts[port].turns) == (1, 2)
