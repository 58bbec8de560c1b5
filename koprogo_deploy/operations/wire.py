"""The SSH connection of a run: small packets leave at once, and a dead line is noticed."""

from __future__ import annotations

import socket

from pyinfra import host

_KEEPALIVE = 15  # seconds


def tune_connection() -> None:
    """Set TCP_NODELAY and a keepalive on pyinfra's SSH connection; other connectors have none.

    Neither paramiko nor pyinfra does. Without it each command waits some 40 ms for an
    acknowledgement that the other end delays.
    """
    client = getattr(host.connector, "client", None)
    transport = client.get_transport() if client is not None else None
    if transport is None:
        return
    transport.set_keepalive(_KEEPALIVE)
    # Behind a ProxyCommand it is a pipe.
    if isinstance(transport.sock, socket.socket):
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
