"""Further tags: the backend in an image of its own, as a new version has it; an older Postgres."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sandbox import images, registry
from sandbox.client import Docker
from sandbox.images import Image
from sandbox.state import IMAGE_LABEL, Sandbox

DOCKERFILE = """\
ARG BASE
FROM ${BASE}
COPY new/ /app/
LABEL org.opencontainers.image.version="test"
"""


@contextmanager
def new_backend(
    docker: Docker, sandbox: Sandbox, size: int = 4096, migrations: Mapping[str, str] | None = None
) -> Iterator[str]:
    """A tag that the registry has and the box does not; its reference there.

    Args:
        docker: the engine outside.
        sandbox: whose registry.
        size: bytes of its own layer; they cannot be compressed.
        migrations: further ones, SQL by file name.
    """
    base = images.plan().images["backend"]
    image = Image("backend", f"koprogo-sandbox/backend:{uuid.uuid4().hex[:12]}", base.tag)
    with tempfile.TemporaryDirectory(prefix="koprogo-sandbox-", dir="/var/tmp") as scratch:
        context = Path(scratch)
        (context / "new" / "migrations").mkdir(parents=True)
        (context / "new" / "content").write_bytes(os.urandom(size))
        for name, sql in (migrations or {}).items():
            (context / "new" / "migrations" / name).write_text(sql)
        (context / "Dockerfile").write_text(DOCKERFILE)
        docker.build(context, image.tag, {"BASE": base.tag}, {IMAGE_LABEL: "backend"})
    try:
        registry.push(docker, sandbox, registry.port(docker, sandbox), image)
        yield f"{registry.NAME}/{image.published}"
    finally:
        docker.call("rmi", "--no-prune", image.tag, check=False)


def old_postgres(docker: Docker, sandbox: Sandbox) -> str:
    """Reference of Postgres 15 in the registry; built the first time, which takes some 20 s."""
    chosen = images.plan()
    image = images.other(chosen, "postgres-15")
    images.build(docker, chosen, image)
    registry.push(docker, sandbox, registry.port(docker, sandbox), image)
    return f"{registry.NAME}/{image.published}"
