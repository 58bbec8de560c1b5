"""The SSH connection of a run: quick, and given up when the network is gone."""

from __future__ import annotations

import socket
from typing import Any

from pyinfra import logger

ASK_EVERY = 10  # seconds
GIVE_UP = 30  # seconds without an answer


def tend(connector: Any) -> None:  # noqa: ANN401 - pyinfra's own type
    """Set what paramiko leaves unset, and watch that the other side still answers.

    Without it a run that loses its network hangs for ever. Small packets go at once, too: each
    remote command takes 40 ms less.
    """
    import gevent

    client = getattr(connector, "client", None)
    if client is None:  # pyinfra's local connector
        return
    transport = client.get_transport()
    if hasattr(transport.sock, "setsockopt"):  # not by way of a jump host
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    gevent.spawn(_watch, transport)


def _watch(transport: Any) -> None:  # noqa: ANN401
    import gevent

    # An answer of sshd's own: TCP's would come from the nearest proxy or jump host.
    while transport.is_active():
        gevent.sleep(ASK_EVERY)
        answered = False
        with gevent.Timeout(GIVE_UP, False):
            transport.global_request("keepalive@openssh.com", wait=True)
            answered = True
        if not answered and transport.is_active():
            logger.error("no answer from the host for %s s: the connection is given up", GIVE_UP)
            transport.close()  # what waits for a command's end, gets it
