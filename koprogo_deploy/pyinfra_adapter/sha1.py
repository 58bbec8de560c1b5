"""Signatures that rest on SHA-1 are neither believed nor made: paramiko 4 would do both.

A setting of the connection keeps them from being negotiated (ssh_paramiko_connect_kwargs). That is
not all: paramiko 4 takes a host's signature by the name that the signature itself bears, whatever
was agreed on, hands no setting to a jump host, and signs with SHA-1 for a server that calls itself
OpenSSH 7.7 (CVE-2026-44405).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

NAMES = frozenset({"ssh-rsa", "ssh-rsa-cert-v01@openssh.com"})

_DONE = "_koprogo_no_sha1"


def refuse() -> None:
    """Have paramiko refuse such signatures in this process, of hosts and of users' keys."""
    from paramiko import RSAKey
    from paramiko.agent import AgentKey

    if getattr(RSAKey, _DONE, False):
        return
    for kind, name, around in (
        (RSAKey, "verify_ssh_sig", _verifying),
        (RSAKey, "sign_ssh_data", _signing),
        (AgentKey, "sign_ssh_data", _signing),
    ):
        setattr(kind, name, around(getattr(kind, name)))
    setattr(RSAKey, _DONE, True)


def _verifying(verify: Callable[..., bool]) -> Callable[..., bool]:
    from paramiko import Message

    def verify_ssh_sig(self: Any, data: bytes, msg: Any) -> bool:  # noqa: ANN401 - paramiko's
        return Message(msg.asbytes()).get_text() not in NAMES and verify(self, data, msg)

    return verify_ssh_sig


def _signing(sign: Callable[..., Any]) -> Callable[..., Any]:
    from paramiko import SSHException

    def sign_ssh_data(self: Any, data: bytes, algorithm: str | None = None) -> Any:  # noqa: ANN401
        if (algorithm or self.get_name()) in NAMES:
            raise SSHException("the server wants a signature with SHA-1, which is switched off")
        return sign(self, data, algorithm)

    return sign_ssh_data
