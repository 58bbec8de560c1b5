"""Containers, networks and volumes of this sandbox: found, made, started and removed by label."""

from typing import Any

from sandbox.client import Docker
from sandbox.console import SandboxError
from sandbox.state import Sandbox

SUBNETS = range(16, 240)
# The last number of each one's address.
GATEWAY, REGISTRY, BOX = 1, 2, 10


def container(docker: Docker, name: str) -> dict[str, Any] | None:
    """What the engine says of a container."""
    found = docker.inspect("container", name)
    return found[0] if found else None


def ours(sandbox: Sandbox, found: dict[str, Any], kind: str, name: str) -> None:
    """Refuse to go on with something of our name that is not ours."""
    labels = found.get("Labels") or found.get("Config", {}).get("Labels") or {}
    if labels.get("koprogo-sandbox") != sandbox.id:
        raise SandboxError(
            f"there is a {kind} {name} which this sandbox has not made",
            f"remove or rename it: docker {kind} rm {name}",
        )


def other_boxes(docker: Docker, own: str) -> list[str]:
    """Boxes of other checkouts that run: they have the same CPU, and a restarted engine starts
    those again whose checkout is long gone.

    Args:
        own: name of this sandbox's box.
    """
    filters = ("--filter", "label=koprogo-sandbox.image=vps")
    running = docker.call("ps", *filters, "--format", "{{.Names}}").stdout.split()
    return sorted(name for name in running if name != own)


def network(docker: Docker, sandbox: Sandbox) -> str:
    """The sandbox's own network; returns the first three numbers of its addresses.

    With addresses of its own choice the box finds the registry without Docker's resolver.
    """
    found = docker.inspect("network", sandbox.network)
    if found:
        ours(sandbox, found[0], "network", sandbox.network)
        subnet: str = found[0]["IPAM"]["Config"][0]["Subnet"]
        return subnet.rpartition(".")[0]
    first = int(sandbox.id, 16) % len(SUBNETS)
    reason = ""
    for step in range(len(SUBNETS)):
        prefix = f"10.213.{SUBNETS[(first + step) % len(SUBNETS)]}"
        done = docker.call(
            "network", "create", "--label", sandbox.label, "--subnet", f"{prefix}.0/24",
            "--gateway", f"{prefix}.{GATEWAY}", sandbox.network, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            return prefix
        reason = done.stderr.strip()
        if "overlap" not in reason.lower():
            break
    raise SandboxError(f"no network could be made: {reason}")


def volume(docker: Docker, sandbox: Sandbox, suffix: str) -> str:
    """A labelled volume: an unlabelled one would not be found by `down`."""
    name = f"{sandbox.prefix}-{suffix}"
    found = docker.inspect("volume", name)
    if found:
        ours(sandbox, found[0], "volume", name)
    else:
        docker.call("volume", "create", "--label", sandbox.label, name)
    return name


def bring_up(docker: Docker, sandbox: Sandbox, name: str) -> str | None:
    """Make an existing container run; None if there is none (or only the remains of one)."""
    found = container(docker, name)
    if found is None:
        return None
    ours(sandbox, found, "container", name)
    status = found["State"]["Status"]
    if status == "running":
        return "already running"
    if status == "paused":
        docker.call("unpause", name)
        return "was paused"
    if status in {"dead", "removing"}:
        docker.call("rm", "--force", name, check=False)
        return None
    done = docker.call("start", name, check=False)
    if done.returncode:
        if "port is already allocated" in done.stderr or "address already in use" in done.stderr:
            raise SandboxError(
                f"a port of {name} has been taken by another program:\n{done.stderr.strip()}",
                "free it, or run: python -m sandbox down && python -m sandbox up",
            )
        raise SandboxError(f"{name} could not be started:\n{done.stderr.strip()}")
    return f"was {status}, started"


def remove(docker: Docker, sandbox: Sandbox) -> list[str]:
    """Remove what carries this sandbox's label: containers, then volumes, then the network."""
    removed: list[str] = []
    for kind in ("container", "volume", "network"):
        for name in docker.owned(kind, sandbox.label):
            force = ["--force", "--volumes"] if kind == "container" else []
            docker.call(kind, "rm", *force, name)
            removed.append(name)
    return removed
