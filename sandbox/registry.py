"""The registry: real pulls over TLS, as in production."""

import http.client
import io
import ssl
import tarfile
import time

from sandbox import authority
from sandbox.client import SLOW, Docker
from sandbox.console import SandboxError
from sandbox.images import Image
from sandbox.state import Sandbox

HOST = "registry.koprogo.test"
NAME = f"{HOST}:5000"
MANIFESTS = ", ".join(
    (
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
    )
)


def archive(files: dict[str, tuple[bytes, int, int]]) -> bytes:
    """A tar for `docker cp -`: path -> content, mode, owner; parents belong to root."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, (content, mode, owner) in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode, entry.uid, entry.gid = len(content), mode, owner, owner
            entry.mtime = int(time.time())
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def put(docker: Docker, container: str, files: dict[str, tuple[bytes, int, int]]) -> None:
    """Write files into a container, running or not."""
    docker.call("cp", "-", f"{container}:/", stdin=archive(files))


def issue(sandbox: Sandbox) -> bool:
    """The registry's certificate; True if it is new."""
    root = authority.root(sandbox.directory, f"KoproGo sandbox {sandbox.id}")
    return authority.server(sandbox.directory, "registry", [HOST], root)


def create(docker: Docker, sandbox: Sandbox, image: str, address: str) -> None:
    """Create and start the registry's container."""
    docker.call(
        "create", "--name", sandbox.registry, "--hostname", "registry",
        "--label", sandbox.label, "--label", f"koprogo-sandbox.built-from={image}",
        "--network", sandbox.network, "--ip", address, "--network-alias", HOST,
        "--restart", "unless-stopped", "--publish", "127.0.0.1::5000",
        "--volume", f"{sandbox.registry}:/var/lib/docker-registry",
        "--memory", "256m", image,
    )  # fmt: skip
    certify(docker, sandbox)
    docker.call("start", sandbox.registry)


def certify(docker: Docker, sandbox: Sandbox) -> None:
    """Hand the registry its certificate and key."""
    files = {
        f"etc/koprogo-sandbox/registry.{kind}": (
            (sandbox.directory / f"registry.{kind}").read_bytes(),
            mode,
            0,
        )
        for kind, mode in (("crt", 0o644), ("key", 0o600))
    }
    put(docker, sandbox.registry, files)


def port(docker: Docker, sandbox: Sandbox) -> int:
    """The port on 127.0.0.1; the engine draws a new one at every start."""
    shown = docker.call("port", sandbox.registry, "5000/tcp", check=False).stdout.split()
    if not shown:
        raise SandboxError(
            "the registry has stopped", f"see: docker logs {sandbox.registry}; then run `up` again"
        )
    return int(shown[0].rpartition(":")[2])


def request(sandbox: Sandbox, number: int, path: str) -> int:
    """The status of a HEAD request to the registry."""
    context = ssl.create_default_context(cafile=str(sandbox.directory / "ca.crt"))
    connection = http.client.HTTPSConnection("127.0.0.1", number, timeout=5, context=context)
    try:
        connection.request("HEAD", path, headers={"Accept": MANIFESTS})
        return connection.getresponse().status
    finally:
        connection.close()


def wait(docker: Docker, sandbox: Sandbox, within: float = 30.0) -> int:
    """Wait until the registry answers over TLS; returns its port."""
    deadline = time.monotonic() + within
    reason: object = ""
    while time.monotonic() < deadline:
        number = port(docker, sandbox)
        try:
            if request(sandbox, number, "/v2/") == 200:
                return number
        except OSError as error:
            reason = error
        time.sleep(0.2)
    raise SandboxError(
        f"the registry does not answer: {reason}", f"see: docker logs {sandbox.registry}"
    )


def push(docker: Docker, sandbox: Sandbox, number: int, image: Image) -> bool:
    """Push an image unless the registry has that tag; True if it was pushed."""
    repository, _, tag = image.published.rpartition(":")
    if request(sandbox, number, f"/v2/{repository}/manifests/{tag}") == 200:
        return False
    # The engine takes any certificate from 127.0.0.0/8: no configuration of this machine changes.
    target = f"127.0.0.1:{number}/{image.published}"
    docker.call("tag", image.tag, target)
    try:
        docker.call("push", "--quiet", target, timeout=SLOW)
    finally:
        docker.call("rmi", "--no-prune", target, check=False)
    return True
