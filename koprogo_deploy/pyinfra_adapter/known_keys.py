"""A host is asked for a key that is known of it, before any other.

paramiko asks first for the type of the first known key, and by that key's own name. For an RSA key
that name, `ssh-rsa`, is the signature with SHA-1, which is switched off: the host then shows its
key of another type, and a host that is known well is called an attack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

_DONE = "_koprogo_known_first"
_SHA1 = "ssh-rsa"
_RSA = ("rsa-sha2-512", "rsa-sha2-256")  # by which a key of type ssh-rsa is shown without SHA-1


def ordered(known: Iterable[str], offered: Sequence[str]) -> tuple[str, ...]:
    """What a client offers, with the algorithms of the known keys in front. Pure.

    Args:
        known: types of keys, as known_hosts has them.
        offered: algorithms, in the client's own order.
    """
    first = [each for kind in known for each in (_RSA if kind == _SHA1 else (kind,))]
    return tuple(dict.fromkeys([*(each for each in first if each in offered), *offered]))


def ask_first() -> None:
    """Have paramiko do so in this process, for the host and for a jump host before it."""
    from paramiko import SSHClient

    client: Any = SSHClient
    if not getattr(client, _DONE, False):
        client.connect = _asking(client.connect)
        setattr(client, _DONE, True)


def _asking(connect: Callable[..., None]) -> Callable[..., None]:
    from paramiko import Transport

    def asked(
        self: Any,  # noqa: ANN401 - paramiko's
        hostname: str,
        port: int = 22,
        *rest: Any,  # noqa: ANN401
        **options: Any,  # noqa: ANN401
    ) -> None:
        name = hostname if port == 22 else f"[{hostname}]:{port}"
        known = self._system_host_keys.lookup(name) or self._host_keys.lookup(name)
        make: Callable[..., Any] = options.get("transport_factory") or Transport

        def transport(*given: Any, **named: Any) -> Any:  # noqa: ANN401
            made = make(*given, **named)
            made._preferred_keys = ordered(known or (), made._preferred_keys)
            return made

        off = options.get("disabled_algorithms") or {}
        # paramiko puts the first key's own name before all of these.
        off = {**off, "keys": [*off.get("keys", ()), _SHA1]}
        options |= {"disabled_algorithms": off, "transport_factory": transport}
        return connect(self, hostname, port, *rest, **options)

    return asked
