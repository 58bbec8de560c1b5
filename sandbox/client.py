"""The docker command line, and nothing else: one way to call it, one way to fail."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.console import SandboxError

Completed = subprocess.CompletedProcess[str]

# What is asked within a step is answered in seconds; builds and pushes take longer.
QUICK = 120.0
SLOW = 1800.0


def tail(text: str, lines: int = 12) -> str:
    """The last lines of an output: where the reason is."""
    return "\n".join(text.strip().splitlines()[-lines:])


@dataclass(frozen=True)
class Docker:
    """A docker client that has been seen to talk to the engine."""

    binary: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def call(
        self,
        *arguments: str,
        check: bool = True,
        stdin: bytes | None = None,
        timeout: float = QUICK,
    ) -> Completed:
        """Run `docker <arguments>`; a failure becomes a `SandboxError` with its last lines."""
        command = [self.binary, *arguments]
        try:
            done = subprocess.run(
                command,
                input=stdin,
                # Without input nobody may be asked anything: a password prompt would hang the step.
                stdin=None if stdin is not None else subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout,
                env={**os.environ, **self.environment},
            )
        except subprocess.TimeoutExpired as error:
            raise SandboxError(f"docker {arguments[0]} did not end in {timeout:.0f} s") from error
        text = Completed(
            command,
            done.returncode,
            done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"),
        )
        if check and text.returncode:
            raise SandboxError(
                f"docker {' '.join(arguments[:2])} failed (exit {text.returncode}):\n"
                + tail(text.stderr or text.stdout)
            )
        return text

    def inspect(self, kind: str, *names: str) -> list[dict[str, Any]]:
        """`docker <kind> inspect` of those names that exist."""
        done = self.call(kind, "inspect", *names, check=False)
        found: list[dict[str, Any]] = json.loads(done.stdout or "[]")
        return found

    def has_image(self, reference: str) -> bool:
        """Whether the engine holds this image."""
        return not self.call("image", "inspect", "-f", "{{.Id}}", reference, check=False).returncode

    def build(
        self, context: Path, tag: str, arguments: Mapping[str, str], labels: Mapping[str, str]
    ) -> None:
        """Build a context into a tag; the whole output goes to an error only."""
        options: list[str] = ["--force-rm"] if self.environment.get("DOCKER_BUILDKIT") else []
        for key, value in arguments.items():
            options += ["--build-arg", f"{key}={value}"]
        for key, value in labels.items():
            options += ["--label", f"{key}={value}"]
        done = self.call("build", *options, "-t", tag, str(context), check=False, timeout=SLOW)
        if done.returncode:
            raise SandboxError(
                f"building {tag} failed:\n{tail(done.stdout, 15)}\n{tail(done.stderr)}",
                "the package mirrors or PyPI may be unreachable; run `up` again when they answer",
            )

    def owned(self, kind: str, label: str) -> list[str]:
        """Names or ids of what carries our label: nothing else is ever removed."""
        listing: dict[str, Sequence[str]] = {
            "container": ("ps", "-a", "--format", "{{.Names}}"),
            "network": ("network", "ls", "--format", "{{.Name}}"),
            "volume": ("volume", "ls", "--format", "{{.Name}}"),
            "image": ("image", "ls", "--format", "{{.Repository}}:{{.Tag}}"),
        }
        return self.call(*listing[kind], "--filter", f"label={label}").stdout.split()
