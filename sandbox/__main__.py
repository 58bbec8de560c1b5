"""`python -m sandbox`: see `sandbox/README.md`."""

import sys


def main() -> None:
    """Run the command line; an interrupt during the imports is an interrupt too."""
    try:
        from sandbox.cli import app

        app(prog_name="python -m sandbox")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
