"""What the smoke tests hold of what was seen on the host. Pure."""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence

import httpx2

from koprogo_deploy.settings import spaced

COMPRESSED_FROM = 1400  # bytes; templates/traefik/dynamic.yaml.j2 has it
TELLING = 8  # characters of a secret, from which on it does not stand somewhere by chance
WEB = {("tcp", 80), ("tcp", 443)}
# A host asks for its own address there, and nothing that it offers to others.
DHCP_CLIENTS = {("udp", 68), ("udp", 546)}


def cpu_weights(shares: int) -> set[int]:
    """The values of `cpu.weight` (cgroup v2) that engines make of Docker's CPU shares.

    runc maps one range evenly onto the other up to 1.3.1. From 1.3.2 and 1.4 on it uses a
    quadratic of the logarithm, by which 1024 shares are the kernel's usual weight of 100.
    """
    even = 1 + (shares - 2) * 9999 // 262142
    power = math.log2(shares)
    return {even, math.ceil(10 ** ((power * power + 125 * power) / 612 - 7 / 34))}


def ssh_ports(effective: str) -> set[int]:
    """TCP ports of sshd, by its own word (`sshd -T`)."""
    words = (line.split() for line in effective.lower().splitlines())
    return {int(line[1]) for line in words if line[:1] == ["port"]}


def open_to_others(
    listeners: Iterable[Sequence[str]],
    ssh: Iterable[int],
    bridges: Iterable[str],
    named: Iterable[str] = (),
) -> list[str]:
    """Listeners that somebody else reaches, beside SSH, HTTP, HTTPS and those that are expected.

    Args:
        listeners: protocol, address and port as `ss` prints them.
        ssh: TCP ports of sshd.
        bridges: the host's address and prefix on each of the containers' networks; what listens
            there is met by containers alone.
        named: `expected_listeners`.
    """
    expected = WEB | DHCP_CLIENTS | {("tcp", port) for port in ssh}
    expected |= {(protocol, int(port)) for protocol, _, port in (n.partition("/") for n in named)}
    inside = [ipaddress.ip_network(bridge, strict=False) for bridge in bridges]
    found = []
    for protocol, shown, port in listeners:
        if (protocol, int(port)) in expected:
            continue
        address = _address(shown)
        if not address.is_loopback and not any(address in network for network in inside):
            found.append(f"{protocol} {shown}:{port}")
    return sorted(found)


def not_in_force(wanted: Mapping[str, str], found: Mapping[str, str]) -> dict[str, str | None]:
    """Kernel parameters that are otherwise than they are wanted, and how they are."""
    there = {name: spaced(value) for name, value in found.items() if name in wanted}
    return {name: there.get(name) for name in wanted if there.get(name) != wanted[name]}


def leaked(secrets: Mapping[str, str], shown: str) -> list[str]:
    """Names of secrets that stand in a text, as they are or as JSON writes them.

    Not those that would be found anywhere: a storage's access key is a name and no secret, and a
    password of a few characters stands in each log by chance.
    """
    looked_for = {
        name: value
        for name, value in secrets.items()
        if not name.endswith("ACCESS_KEY") and len(value) >= TELLING
    }
    return [n for n, v in looked_for.items() if v in shown or json.dumps(v)[1:-1] in shown]


def expecting(found: Iterable[str], named: Iterable[str], environment: str) -> str:
    """What `open_to_others` found, and the setting by which all of it would be expected."""
    told = list(found)
    more = {f"{each.split()[0]}/{each.rpartition(':')[2]}" for each in told}
    value = json.dumps(list(dict.fromkeys([*named, *sorted(more)])))
    return (
        f"others reach {', '.join(told)}; end it, or, where it is meant to be there, write "
        f"expected_listeners = {value} in group_data/{environment}.py"
    )


def _address(shown: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address in `ss`' own words: `*`, `[::1]`, `127.0.0.53%lo`, `[fe80::1]%eth0`."""
    bare = shown.partition("%")[0].strip("[]")
    address = ipaddress.ip_address("::" if bare == "*" else bare)
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def covers(networks: Iterable[str], address: str) -> bool:
    """Whether an address is in one of these networks."""
    return any(ipaddress.ip_address(address) in ipaddress.ip_network(each) for each in networks)


def linked(page: str) -> list[str]:
    """Paths of the site's own files that a page links, in their order."""
    found = re.findall(r"""(?:src|href)=["'](/[^/"'][^"']*)["']""", page)
    return list(dict.fromkeys(found))


def worth_compressing(answer: httpx2.Response) -> bool:
    """Whether the proxy compresses an answer like this for a client that takes gzip."""
    kind = answer.headers.get("content-type", "").partition(";")[0]
    text = kind.startswith("text/") or kind.endswith(("javascript", "json", "svg+xml"))
    return text and len(answer.content) >= COMPRESSED_FROM
