"""The machine as the stages see it: all that any of them compares, in one look."""

from __future__ import annotations

from koprogo_deploy.facts.host import Host, HostState
from koprogo_deploy.operations import context
from koprogo_deploy.operations.looks import look
from koprogo_deploy.settings import Settings


def compared(settings: Settings) -> dict[str, tuple[str, ...]]:
    """What the host fact is asked for: files, packages, sysctl, units and users of all stages."""
    # Here, since these modules import this one.
    from koprogo_deploy.operations import cutover, engine
    from koprogo_deploy.operations import host as host_stage

    files = [
        *host_stage.host_files(settings),
        engine.daemon_file(),
        *cutover.binary_files(settings),
    ]
    engines = {n for releases in engine.PACKAGES.values() for ns in releases.values() for n in ns}
    return {
        "files": (*(file.path for file in files), cutover.image_note(settings)),
        "packages": tuple(sorted({*host_stage.packages(settings), *engines})),
        "sysctl": tuple(settings.sysctl),
        "units": ("docker.service",),
        "users": tuple(settings.admin_users),
    }


def machine() -> HostState:
    """The machine as it is now."""
    found: HostState = look(Host, **compared(context.current().settings))
    return found
