"""`koprogo`: what pyinfra is not for. Look before a deploy, secrets, smoke tests, the seed."""

from __future__ import annotations

from koprogo_deploy.cli.app import app
from koprogo_deploy.problems import Refusal
from koprogo_deploy.screen import complain


def main() -> None:
    """Run the command line. A refusal exits 2 with its text, Ctrl-C 130; no traceback."""
    try:
        app()
    except Refusal as refusal:
        complain(str(refusal))
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        complain("\nInterrupted.")
        raise SystemExit(130) from None
