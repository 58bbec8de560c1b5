"""The SSH connection of a run: small packets leave at once, and a dead line is noticed."""

from __future__ import annotations

import socket
from typing import Any

import gevent
from pyinfra import host, logger

ASK_EVERY = 10  # seconds
GIVE_UP = 30  # seconds without an answer


def tune_connection() -> None:
    """Set TCP_NODELAY on pyinfra's SSH connection, and watch it; other connectors have none.

    Neither paramiko nor pyinfra does. Without it each command waits some 40 ms for an
    acknowledgement that the other end delays, and a run that loses its network hangs for ever.
    """
    client = getattr(host.connector, "client", None)
    transport = client.get_transport() if client is not None else None
    if transport is None:
        return
    # Behind a ProxyCommand it is a pipe.
    if isinstance(transport.sock, socket.socket):
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    gevent.spawn(_watch, transport)


def _watch(transport: Any) -> None:  # noqa: ANN401 - paramiko's own type
    # An answer of sshd's own is waited for, which paramiko's keepalive does not do; TCP's would
    # come from the nearest proxy or jump host.
    while transport.is_active():
        gevent.sleep(ASK_EVERY)
        answered = False
        with gevent.Timeout(GIVE_UP, False):
            transport.global_request("keepalive@openssh.com", wait=True)
            answered = True
        if not answered and transport.is_active():
            logger.error("no answer from the host for %s s: the connection is given up", GIVE_UP)
            transport.close()  # what waits for a command's end, gets it
