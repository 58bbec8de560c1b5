"""`koprogo`: what pyinfra is not for. Look before a deploy, secrets, smoke tests, the seed."""

from __future__ import annotations

import sys

from koprogo_deploy.cli.app import app
from koprogo_deploy.problems import Refusal


def main() -> None:
    """Run the command line. A refusal exits 2 with its text, Ctrl-C 130; no traceback."""
    try:
        app()
    except Refusal as refusal:
        sys.stderr.write(f"{refusal}\n")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted.\n")
        raise SystemExit(130) from None
