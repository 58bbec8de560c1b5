"""Runs a program of `koprogo_deploy.on_host` on the current host, and reads its answer."""

from __future__ import annotations

import json
from typing import Any

from pyinfra import host
from pyinfra.api import StringCommand
from pyinfra.api.exceptions import OperationError

from koprogo_deploy import on_host


def run(program: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Its JSON. What it is asked travels by standard input, secrets included.

    Raises:
        OperationError: it could not do its work; with its last words.
    """
    ok, output = host.run_shell_command(
        StringCommand(on_host.command(program)), _stdin=json.dumps(asked)
    )
    if not ok:
        words = [line for line in output.stderr_lines if line.strip()]
        raise OperationError(f"{program} on the host: {(words or ['no answer'])[-1]}")
    answer: dict[str, Any] = json.loads(output.stdout_lines[-1])
    return answer
