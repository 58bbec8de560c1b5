"""pyinfra's connection to a host: its transport, what else runs over it, who uses it."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterable
from typing import Any

import gevent
from paramiko import SSHException
from pyinfra import logger

ASK_EVERY = 10  # seconds
GIVE_UP = 60  # seconds without an answer: a host that swaps or is one of many is slow
# What an SSH connection raises that ends meanwhile.
LOST = (EOFError, ConnectionError, TimeoutError, SSHException)
_CHANGING = ("run_shell_command", "put_file", "rsync")  # of a connector


def lost(error: BaseException) -> str:
    """What is said where a connection ended in the midst of a run."""
    return f"the connection to the host was lost: {str(error) or type(error).__name__}"


def tune(host: Any) -> None:  # noqa: ANN401 - pyinfra's own type
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


def login(host: Any) -> tuple[str, str]:  # noqa: ANN401 - pyinfra's own type
    """How the connection logged in: the method, and the public key if it was one; else empty.

    The method is `local` where there is no SSH.
    """
    client = getattr(host.connector, "client", None)
    transport = client.get_transport() if client is not None else None
    if transport is None:
        return "local", ""
    handler = transport.auth_handler
    method, key = handler.auth_method, getattr(handler, "private_key", None)
    if method != "publickey" or key is None:
        return method, ""
    return method, f"{key.get_name()} {key.get_base64()}"


def begin(host: Any, command: str, timeout: int) -> tuple[object, Iterable[str]]:  # noqa: ANN401
    """Start a command beside pyinfra's own ones; its standard input stays open.

    Args:
        host: pyinfra's.
        command: shell.
        timeout: seconds without a line, at most.

    Returns:
        What holds its standard input open for as long as it is kept (a channel of the SSH
        connection, or a process), and the lines that it prints.
    """
    client = getattr(host.connector, "client", None)
    if client is None:  # pyinfra's local connector: the deploy runs on its own target
        process = subprocess.Popen(
            ["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        return process, process.stdout
    channel = client.get_transport().open_session()
    channel.settimeout(timeout)
    channel.exec_command(command)
    return channel, channel.makefile()


def wrap_commands(
    host: Any,  # noqa: ANN401 - pyinfra's own type
    wrap: Callable[[Callable[..., Any]], Callable[..., Any]],
) -> None:
    """Put a function around all that changes the host, commands and uploads; once for a host."""
    connector = host.connector
    if is_wrapped(host):
        return
    for name in _CHANGING:
        setattr(connector, name, wrap(getattr(connector, name)))
    connector._koprogo_watched = True


def is_wrapped(host: Any) -> bool:  # noqa: ANN401 - pyinfra's own type
    """Whether `wrap_commands` was done for this host."""
    return bool(getattr(host.connector, "_koprogo_watched", False))
